"""Fourier series with learned coefficients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv._references import FKAN_PAPER
from omniconv._typing import PerAxis
from omniconv.kernels._series import Series


class FourierSeries(Series):
    """A Fourier series on every axis, with learned coefficients: the cheapest smooth kernel.

    k(p) = c + sum_d sum_{k=1..K_d} a_dk cos(pi k p_d) + b_dk sin(pi k p_d).

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `harmonics`: the largest K, at least 1.
    `bandwidth`: highest frequency in units of the reference grid's Nyquist frequency, (0, inf). Harmonic k lies at
    k / reach, so K_d = min(harmonics, bandwidth reach_d), rounded down, and at least 1.

    A kernel of period 2: on an axis that is not causal it is the same at both ends. On several axes it is a sum of
    functions of one axis each; as the first layer of an `MLP` the later layers mix the axes. The coefficients are drawn
    from N(0, 1) and then calibrated. Raises `ValueError` or `TypeError` for values out of range.

    >>> FourierSeries(1, 4, reach=100, harmonics=8)(torch.zeros(5, 1)).shape
    torch.Size([5, 4])

    Mehrabian et al. 2024 (FKAN), as a first layer.
    """

    references = (FKAN_PAPER,)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        harmonics: int = 32,
        bandwidth: float = 0.25,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(
            dim,
            channels,
            reach=reach,
            causal=causal,
            terms=check_integer("harmonics", harmonics),
            bandwidth=bandwidth,
            functions=2,
            device=device,
            dtype=dtype,
        )

    def rate(self, axis: int) -> float:
        return math.pi

    def axis_functions(self, positions: Tensor, axis: int) -> list[Tensor]:
        angles = [math.pi * k * positions for k in range(1, self.orders[axis] + 1)]
        return [wave for angle in angles for wave in (angle.cos(), angle.sin())]
