"""Taps for grids that are too coarse for a kernel: what they cannot carry is filtered out, not folded into the rest."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._typing import Taps

RADIUS = 8
"""Coarse samples to either side from which a value between them is interpolated."""


def coarsened(taps: Taps, times: tuple[int, ...], causal: tuple[bool, ...]) -> Taps:
    """Taps on a grid `times` as coarse per axis: they do to its signals what `taps` do to these signals interpolated.

    A coarse signal x stands for the fine one sum_i W[t, i] x[i], where W[t, i] is in proportion to
    sinc(u) cos(pi u / 16)^2 for |u| < 8, u = t / times - i, and the sum over i is 1; its convolution with the fine taps
    k is the coarse one with sum_t k[t] W[t, i]. The sum of the taps stays as it is. The coarse lags reach 8 samples
    farther than the fine ones, but not into the future on a causal axis: there, within 8 samples of the present, the
    interpolation is less exact.

    >>> coarsened(torch.ones(1, 5), (2,), (True,)).shape  # lags 0 .. 4 are 0 .. 2, and 8 beyond
    torch.Size([1, 11])
    """
    for axis, (step, past) in enumerate(zip(times, causal, strict=True), start=-len(times)):
        if step > 1:
            taps = spread(taps.movedim(axis, -1), step, past).movedim(-1, axis)
    return taps


def spread(taps: Tensor, times: int, causal: bool) -> Tensor:
    """sum_t taps[t] W[t, i] along the last axis, for the coarse lags i from 0 on if `causal`, else about 0.

    The fine lag is t = row times + r with 0 <= r < times: W is the same in every row, and has `near` coarse lags in it.
    """
    lags, near = taps.shape[-1], torch.arange(-RADIUS, RADIUS + 1, device=taps.device)
    first = 0 if causal else -(lags // 2)
    far = math.ceil((lags - 1 + first) / times) + RADIUS
    nearest = 0 if causal else -far
    before = first % times
    rows = F.pad(taps, (before, -(before + lags) % times)).unflatten(-1, (-1, times))
    lag = first // times + torch.arange(rows.shape[-2], device=taps.device)
    weights = interpolation(near, times)
    kept = (lag[:, None] + near >= nearest).to(weights.dtype) @ weights.T
    values, weights = rows / kept.to(taps.dtype), weights.to(taps.dtype)
    begin, width = first // times - RADIUS, rows.shape[-2] + 2 * RADIUS
    total = torch.zeros((), dtype=taps.dtype, device=taps.device)
    for j in range(2 * RADIUS + 1):  # one by one: all at once would be several times the taps
        total = total + F.pad(values @ weights[:, j], (j, 2 * RADIUS - j))
    return F.pad(total, (begin - nearest, far + 1 - begin - width))


def interpolation(near: Tensor, times: int) -> Tensor:
    """sinc(u) cos(pi u / 16)^2 for |u| < 8, u = r / times - near, 0 <= r < times: `times near`, in float64."""
    distance = torch.arange(times, device=near.device, dtype=torch.float64)[:, None] / times - near
    return torch.sinc(distance) * torch.cos(math.pi / 2 * (distance / RADIUS).clamp(-1, 1)).square()
