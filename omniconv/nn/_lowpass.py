"""Taps for grids that are too coarse for a kernel: what they cannot carry is filtered out, not folded into the rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from omniconv._typing import Taps

RADIUS = 8
"""Coarse samples to either side from which a value between them is interpolated."""


def coarsened(taps: Taps, times: tuple[int, ...], causal: tuple[bool, ...]) -> Taps:
    """Taps on a grid `times` as coarse per axis: they do to its signals what `taps` do to these signals interpolated.

    A coarse signal x stands for the fine one sum_i W[t, i] x[i] with W as in `interpolation`; its convolution with the
    fine taps k is the coarse one with sum_t k[t] W[t, i]. The sum of the taps stays as it is.

    >>> coarsened(torch.ones(1, 5), (2,), (True,)).shape  # lags 0 .. 4 are 0 .. 2, and 8 beyond
    torch.Size([1, 11])
    """
    for axis, (step, past) in enumerate(zip(times, causal, strict=True), start=-len(times)):
        if step > 1:
            weights = interpolation(taps.shape[axis], step, causal=past, device=taps.device)
            taps = (taps.movedim(axis, -1) @ weights.to(taps.dtype)).movedim(-1, axis)
    return taps


def interpolation(lags: int, times: int, *, causal: bool, device: torch.device | None = None) -> Tensor:
    """W[t, i], what the coarse lag i counts at the fine lag t: `fine coarse`, in float64, rows that sum to 1.

    In proportion to sinc(u) cos(pi u / 16)^2 for |u| < 8, where u = t / times - i. `lags`: number of fine lags, from 0
    on if `causal`, else about 0. The coarse ones reach 8 samples farther, but not into the future if `causal`: there,
    within 8 samples of the present, the interpolation is less exact.
    """
    first = 0 if causal else -(lags // 2)
    far = math.ceil((lags - 1 + first) / times) + RADIUS
    fine = torch.arange(lags, device=device, dtype=torch.float64) + first
    coarse = torch.arange(0 if causal else -far, far + 1, device=device, dtype=torch.float64)
    distance = fine[:, None] / times - coarse
    window = torch.cos(math.pi / 2 * (distance / RADIUS).clamp(-1, 1)).square()
    weights = torch.sinc(distance) * window
    return weights / weights.sum(1, keepdim=True)
