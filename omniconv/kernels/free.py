"""Long kernels learned tap by tap, and what keeps them smooth and sparse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_integer, check_number, check_positions
from omniconv._precision import at_least_float32
from omniconv._references import LONGCONV_PAPER
from omniconv._typing import PerAxis, Positions, Values
from omniconv.kernels._kernel import Kernel
from omniconv.kernels._lattice import check_values, lattice_index, lattice_size, multilinear

ENOUGH = 2**20
"""Taps from which the scale is found: it is within 0.3 % of that of any more."""


class Free(Kernel):
    """Taps on the reference grid that are learned freely, averaged over neighbours, squashed, and linear between.

    v_i = average of w_j over |j - i| <= (smoothing - 1) / 2 on every axis, over the lags j that the window has;
    h_i = sign(v_i) max(|v_i| - squash, 0);  k(p) = sum_i h_i prod_d max(0, 1 - |p_d reach_d - lag_i,d|).

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `squash`: soft threshold, at least 0, in units of the root mean square of a new kernel; the published ones are 1/2
    to 2 in this unit.
    `smoothing`: width of the moving average in samples of the reference grid, an odd number; 1 for none. Both act on
    the reference grid, so the kernel is the same function at every resolution.
    `dropout`: probability, [0, 1), that an h is set to zero in training, where the others are divided by 1 - dropout.
    A layer sets its gain in training mode, with dropout.

    The w are drawn from N(0, 1) and scaled so that the h have unit mean square. They are stored as in `Table`, which
    this is with squash 0 and smoothing 1. Raises `ValueError` or `TypeError` for values out of range.

    >>> kernel = Free(1, 4, reach=1000, causal=True)
    >>> kernel.taps.shape, (kernel.heights() == 0).any().item()
    (torch.Size([1001, 4]), True)

    Fu et al. 2023 (LongConv).
    """

    references = (LONGCONV_PAPER,)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        squash: float = 0.5,
        smoothing: int = 1,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        self.squash = check_number("squash", squash, low=0.0, closed=True)
        self.smoothing = check_integer("smoothing", smoothing)
        if self.smoothing % 2 == 0:
            raise ValueError(f"`smoothing` must be odd, as many lags on either side; got {smoothing}.")
        self.dropout = check_number("dropout", dropout, low=0.0, closed=True)
        if self.dropout >= 1:
            raise ValueError(f"`dropout` must be below 1; got {dropout!r}.")
        size = lattice_size(self.reach, self.causal)
        check_values("Free", size, channels)
        self.taps = nn.Parameter(torch.empty(*size, channels, device=device, dtype=at_least_float32(dtype)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        nn.init.normal_(self.taps)
        if self.taps.is_meta:
            return
        self.taps.div_(self._smooth(self.taps).square().mean().sqrt())
        # The threshold takes at most `squash` off the root mean square: the right scale lies between these.
        low, high = 1.0, 1.0 + self.squash
        smooth = self._smooth(self.taps).flatten()[:ENOUGH]
        for _ in range(40 if self.squash else 0):
            middle = (low + high) / 2
            too_small = F.softshrink(middle * smooth, self.squash).square().mean().item() < 1
            low, high = (middle, high) if too_small else (low, middle)
        self.taps.mul_(high)

    def heights(self) -> Tensor:
        """The taps after averaging and threshold, `*size channels`, without dropout."""
        return F.softshrink(self._smooth(self.taps), self.squash)

    def _smooth(self, taps: Tensor) -> Tensor:
        """The moving average along every axis; near an end, over the lags that there are."""
        if self.smoothing == 1:
            return taps
        for axis in range(self.dim):
            lines = taps.movedim(axis, -1)
            averaged = F.avg_pool1d(
                lines.flatten(0, -2), self.smoothing, stride=1, padding=self.smoothing // 2, count_include_pad=False
            )
            taps = averaged.reshape(lines.shape).movedim(-1, axis)
        return taps

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        heights = F.dropout(self.heights(), self.dropout, self.training).to(positions.dtype)
        return multilinear(heights, lattice_index(positions, self.reach, self.causal))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, squash={self.squash}, smoothing={self.smoothing}, dropout={self.dropout}"
