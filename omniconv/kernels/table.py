"""Ordinary taps."""

from __future__ import annotations

from itertools import product

import torch
from torch import nn

from omniconv._errors import check_positions
from omniconv._precision import at_least_float32
from omniconv._typing import PerAxis, Positions, Values
from omniconv.kernels._kernel import Kernel


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
        dtype = at_least_float32(dtype)
        size = [far + 1 if past else 2 * far + 1 for far, past in zip(self.reach, self.causal, strict=True)]
        self.taps = nn.Parameter(torch.empty(*size, channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.taps)

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        taps = self.taps.to(positions.dtype)
        values = torch.zeros((), dtype=positions.dtype, device=positions.device)
        far = torch.tensor([max(r, 1) for r in self.reach], dtype=positions.dtype, device=positions.device)
        first = [0 if past else -r for r, past in zip(self.reach, self.causal, strict=True)]
        index = positions * far - torch.tensor(first, dtype=positions.dtype, device=positions.device)
        # Positions are lags over reach: on the lattice, undo the rounding of that division.
        nearest, rounding = index.round(), 8 * torch.finfo(index.dtype).eps * max(*self.reach, 1)
        index = torch.where((index - nearest).abs() < rounding, nearest.detach(), index)
        for corner in product((0, 1), repeat=self.dim):
            cell = index.floor() + torch.tensor(corner, dtype=positions.dtype, device=positions.device)
            weight = (1 - (index - cell).abs()).prod(-1, keepdim=True)
            inside = torch.stack([(c >= 0) & (c < n) for c, n in zip(cell.unbind(-1), taps.shape, strict=False)]).all(0)
            cells = [c.clamp(0, n - 1).long() for c, n in zip(cell.unbind(-1), taps.shape, strict=False)]
            values = values + torch.where(inside[..., None], weight, 0.0) * taps[tuple(cells)]
        return values
