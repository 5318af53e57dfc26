"""Sub-kernels of equal size at scales that double."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omniconv._constants import numbers
from omniconv._errors import check_integer, check_number, check_positions
from omniconv._precision import at_least_float32
from omniconv._references import SGCONV_PAPER
from omniconv._typing import PerAxis, Positions, Values
from omniconv.kernels._kernel import Kernel, calibrate
from omniconv.kernels._lattice import check_values, multilinear


class Multiscale(Kernel):
    """Sub-kernels of d taps each, at scales that double with the lag and decay: long kernels from few parameters.

    Tap i = 0 .. d - 1 of sub-kernel s = 0, 1, .. stands at the lag t_{s,i}, in samples of the reference grid,
    t_{0,i} = i;  t_{s,i} = 2^(s-1) (d + i), s >= 1, and has the height h_{s,i} = alpha^s w_{s,i};
    k(p) = linear interpolation of the points (t, h) at the lag |p| reach.

    So the sub-kernels follow each other, and each from s = 1 on covers an octave; the last one ends with the first tap
    at the reach or beyond. The interpolation runs on across the joints: a jump there would be another kernel at every
    resolution. An axis that is not causal has taps of its own on either side of the zero lag, whose tap they share. On
    several axes the taps stand at all pairs of these lags, their decays are multiplied, and the interpolation is
    multilinear.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `size`: d, taps per sub-kernel, at least 1. `alpha`: decay per scale, (0, 1]; at 1/2 the kernel falls like 1 / lag.

    Taps are drawn from N(0, 1) and then calibrated. Raises `ValueError` or `TypeError` for values out of range.

    >>> Multiscale(1, 3, reach=1023, causal=True, size=16).taps.shape
    torch.Size([113, 3])

    Li et al. 2023 (SGConv).
    """

    references = (SGCONV_PAPER,)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        size: int = 32,
        alpha: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        self.size, self.alpha = check_integer("size", size), check_number("alpha", alpha, low=0.0, high=1.0)
        sides = self.sides = tuple(count_taps(far, size) for far in self.reach)
        shape = [side if past else 2 * side - 1 for side, past in zip(sides, self.causal, strict=True)]
        check_values("Multiscale", shape, channels)
        self.taps = nn.Parameter(torch.empty(*shape, channels, device=device, dtype=at_least_float32(dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.taps)
        calibrate(self, self.taps)

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        index = torch.stack([self._index(axis, p) for axis, p in enumerate(positions.unbind(-1))], dim=-1)
        heights = self.taps.to(positions.dtype)
        for axis in range(self.dim):
            heights = heights * self._decay(axis, heights).reshape(-1, *[1] * (self.dim - axis))
        return multilinear(heights, index)

    def _index(self, axis: int, p: Tensor) -> Tensor:
        """Where positions on that axis lie among its taps."""
        last, past = self.sides[axis] - 1, self.causal[axis]
        lag = (p if past else p.abs()) * max(self.reach[axis], 1)
        # The lags of the taps grow ever faster, so their number is the least of the lines through its pieces.
        index = lag
        for scale in range(2, last // self.size + 1):
            index = torch.minimum(index, lag / 2 ** (scale - 1) + (scale - 1) * self.size)
        return index if past else index * p.sign() + last

    def _decay(self, axis: int, like: Tensor) -> Tensor:
        """alpha^s of every tap on that axis."""
        side = [self.alpha ** (n // self.size) for n in range(self.sides[axis])]
        return numbers(side if self.causal[axis] else side[:0:-1] + side, like)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, size={self.size}, alpha={self.alpha}"


def count_taps(reach: int, size: int) -> int:
    """Number of taps on one side, up to the first at the reach or beyond."""
    n = lag = 0
    while lag < reach:
        n += 1
        lag = n if n < size else 2 ** (n // size - 1) * (size + n % size)
    return n + 1
