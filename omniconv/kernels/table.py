"""Ordinary taps."""

from __future__ import annotations

import torch
from torch import nn

from omniconv._errors import check_positions
from omniconv._precision import at_least_float32
from omniconv._typing import PerAxis, Positions, Values
from omniconv.kernels._kernel import Kernel
from omniconv.kernels._lattice import lattice_index, lattice_size, multilinear


class Table(Kernel):
    """Free taps on the reference grid, multilinear between them: the kernel of `torch.nn.ConvNd`, made continuous.

    k(p) = sum_i taps[i] prod_d max(0, 1 - |p_d reach_d - lag_i,d|), so k is exactly taps[i] at lag i.

    The taps are stored by increasing lag, from -reach (0 if causal) to reach. Convolution reverses them against
    `torch.nn.ConvNd`, which correlates: a `Conv1d(1, 1, n, kernel=Table, reach=r)` with taps `k` and gain 1 equals
    `torch.nn.functional.conv1d(x, k.flip(-1), padding=r)`.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`. The taps are drawn from N(0, 1).

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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        size = lattice_size(self.reach, self.causal)
        self.taps = nn.Parameter(torch.empty(*size, channels, device=device, dtype=at_least_float32(dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.taps)

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        return multilinear(self.taps.to(positions.dtype), lattice_index(positions, self.reach, self.causal))
