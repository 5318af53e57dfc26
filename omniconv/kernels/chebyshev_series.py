"""Chebyshev series with learned coefficients."""

from __future__ import annotations

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv._references import SL2A_PAPER
from omniconv._typing import PerAxis
from omniconv.kernels._series import Series


class ChebyshevSeries(Series):
    """A series of Chebyshev polynomials of tanh on every axis, with learned coefficients.

    k(p) = c + sum_d sum_{k=1..K_d} a_dk T_k(tanh u_d), with u = p, and u = 2 p - 1 on a causal axis: [-1, 1] as well.

    T_k(tanh u) = cos(k arccos(tanh u)) swings with k / cosh(u) radians per unit of u, which is k at the centre of the
    window and 0.65 k at its ends: nearly even, where T_k(u) itself is infinitely fast at the ends. Beyond the window it
    tends to a constant.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `degree`: the largest K, at least 1.
    `bandwidth`: highest frequency in units of the reference grid's Nyquist frequency, (0, inf). Degree k reaches
    k / (pi reach), twice as much on a causal axis: K_d is the largest degree within the bandwidth, at most `degree`
    and at least 1.

    On several axes it is a sum of functions of one axis each; as the first layer of an `MLP` the later layers mix the
    axes. The coefficients are drawn from N(0, 1) and then calibrated. Raises `ValueError` or `TypeError` for values out
    of range.

    >>> ChebyshevSeries(1, 4, reach=100, degree=8)(torch.zeros(5, 1)).shape
    torch.Size([5, 4])

    Heidari et al. 2025 (SL2A-INR), as a first layer, without the modulation of the later ones.
    """

    references = (SL2A_PAPER,)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        degree: int = 32,
        bandwidth: float = 0.25,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(
            dim,
            channels,
            reach=reach,
            causal=causal,
            terms=check_integer("degree", degree),
            bandwidth=bandwidth,
            functions=1,
            device=device,
            dtype=dtype,
        )

    def rate(self, axis: int) -> float:
        return 2.0 if self.causal[axis] else 1.0

    def axis_functions(self, positions: Tensor, axis: int) -> list[Tensor]:
        x = torch.tanh(2 * positions - 1 if self.causal[axis] else positions)
        polynomials = [torch.ones_like(x), x]
        for _ in range(self.orders[axis] - 1):
            polynomials.append(2 * x * polynomials[-1] - polynomials[-2])
        return polynomials[1:]

    def bandwidths(self) -> Tensor:
        """Fastest swing of the highest degree, in Nyquist units.

        Polynomials of tanh have no sharp limit; on average 99 % of a new kernel's energy lies below this one.
        """
        return super().bandwidths()
