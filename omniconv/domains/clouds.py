"""Clouds of points in a unit of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omniconv._errors import describe


def centred(positions: Tensor, mask: Tensor | None = None) -> Tensor:
    """Every cloud about its mean, in the unit of its largest coordinate: within [-1, 1] on every axis.

    `positions`: (batch, points, dim). `mask` (batch, points), bool: False where there is no point, and 0 comes out.
    A cloud of one place, or of no point, is all zeros. Raises `ValueError` that names the argument.

    >>> centred(torch.tensor([[[1.0], [2.0], [6.0]]])).flatten().tolist()
    [-0.6666666865348816, -0.3333333432674408, 1.0]
    """
    if not isinstance(positions, Tensor) or positions.ndim != 3 or not positions.dtype.is_floating_point:
        raise ValueError(f"`positions` must be (batch, points, dim); got {describe(positions)}.")
    seen = checked_mask(positions, mask)[..., None]
    there = torch.where(seen, positions, 0.0)
    mean = there.sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1)
    about = torch.where(seen, there - mean, 0.0)
    largest = about.abs().amax((1, 2), keepdim=True) if about.shape[1] else about.new_ones(len(about), 1, 1)
    return about / torch.where(largest > 0, largest, 1.0)


def checked_mask(positions: Tensor, mask: Any) -> Tensor:
    """The mask, all True for None, or raise."""
    if mask is None:
        return torch.ones(positions.shape[:2], dtype=torch.bool, device=positions.device)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != positions.shape[:2]:
        raise ValueError(f"`mask` must be bool {tuple(positions.shape[:2])}; got {describe(mask)}.")
    return mask
