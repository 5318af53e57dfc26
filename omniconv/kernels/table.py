"""Ordinary taps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from omniconv._errors import check_integer, check_positions
from omniconv._precision import at_least_float32
from omniconv._typing import PerAxis, Positions, Values, per_axis
from omniconv.kernels._kernel import Kernel
from omniconv.kernels._lattice import check_values, lattice_index, lattice_size, multilinear


class Table(Kernel):
    """Free taps on the reference grid, multilinear between them: the kernel of `torch.nn.ConvNd`, made continuous.

    k(p) = sum_i taps[i] prod_d max(0, 1 - |p_d reach_d - lag_i,d|), so k is exactly taps[i] at lag i.

    The taps are stored by increasing lag, from -reach (0 if causal) to reach. Convolution reverses them against
    `torch.nn.ConvNd`, which correlates: a `Conv1d(1, 1, n, kernel=Table, reach=r)` with taps `k` and gain 1 equals
    `torch.nn.functional.conv1d(x, k.flip(-1), padding=r)`.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `dilation`: taps stand at the multiples of it, one or one per axis, at least 1, and zeros at the other lags: the
    dilated kernel of `torch.nn.ConvNd`.

    The taps are drawn from N(0, 1), and scaled by the square root of the lags per tap. Raises `ValueError` or
    `TypeError` for values out of range.

    >>> kernel = Table(1, 1, reach=1)
    >>> kernel(torch.tensor([[-1.0], [0.0], [1.0]])).shape
    torch.Size([3, 1])
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        dilation: PerAxis[int] = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        self.dilation = per_axis("dilation", dilation, dim, check_integer)
        steps = tuple(far // step for far, step in zip(self.reach, self.dilation, strict=True))
        check_values("Table", lattice_size(self.reach, self.causal), channels)
        size = lattice_size(steps, self.causal)
        self.taps = nn.Parameter(torch.empty(*size, channels, device=device, dtype=at_least_float32(dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        lags = math.prod(lattice_size(self.reach, self.causal))
        nn.init.normal_(self.taps, std=math.sqrt(lags * self.channels / self.taps.numel()))

    def heights(self) -> Tensor:
        """The value at every reference lag, `*size channels`: the taps, and zeros between them."""
        if max(self.dilation) == 1:
            return self.taps
        heights = self.taps.new_zeros(*lattice_size(self.reach, self.causal), self.channels)
        first = [
            0 if past else far % step for far, past, step in zip(self.reach, self.causal, self.dilation, strict=True)
        ]
        spots = tuple(slice(start, None, step) for start, step in zip(first, self.dilation, strict=True))
        heights[spots] = self.taps
        return heights

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        return multilinear(self.heights().to(positions.dtype), lattice_index(positions, self.reach, self.causal))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dilation={self.dilation}"
