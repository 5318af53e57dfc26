"""Few points that are spread over a cloud."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv.domains.clouds import check_points, checked_mask
from omniconv.domains.neighbours import Inside, Points

TIE = 1e-9
"""Relative difference of squared distances below which they are equal: the mean of a cloud, and a cloud that was moved,
are rounded, and a symmetric cloud must not be sampled by how."""


@torch.no_grad()
def farthest(
    positions: Points, count: int, mask: Inside | None = None
) -> tuple[Annotated[Tensor, "batch count, integers"], Annotated[Tensor, "batch count, bool"]]:
    """Indices of `count` points of every cloud, each the farthest from those before it, and which of them are real.

    The first is the farthest from the mean. Of points equally far, within a relative 1e-9 of the squared distance in
    float64, the one with the lower index is taken. So the same points are found in any order, unless there are ties,
    and however the cloud is padded. The first n of them are what `count` = n gives.

    `positions`: (batch, points, dim), finite where they are not masked. `count`: at least 1. `mask` (batch, points),
    bool: False where there is no point. A cloud of fewer points gives all of them, each once; behind them the indices
    are 0 and not real. Takes `count` passes over the cloud. Raises `ValueError` or `TypeError` that names the argument.

    >>> index, real = farthest(torch.tensor([[[0.0], [1.0], [2.0], [5.0]]]), 3)
    >>> index.tolist(), real.all().item()
    ([[3, 0, 2]], True)

    Qi et al. 2017 (PointNet++).
    """
    check_integer("count", count)
    check_points("positions", positions)
    seen = checked_mask(positions, mask)
    axes = torch.where(seen[..., None], positions, 0.0).double().unbind(-1)
    if not bool(torch.stack(axes).isfinite().all()):
        raise ValueError("`positions` must be finite where they are not masked; got NaN or infinity.")
    batch, points = seen.shape
    index = torch.zeros(batch, count, dtype=torch.long, device=positions.device)
    real = torch.zeros(batch, count, dtype=torch.bool, device=positions.device)
    if points == 0:
        return index, real
    number = seen.sum(1, keepdim=True).clamp(min=1)
    far = squares(axes, [axis.sum(1, keepdim=True) / number for axis in axes])
    left, nearest = seen.clone(), torch.full_like(far, torch.inf)
    for step in range(min(count, points)):
        chosen, real[:, step] = first_largest(far, left), left.any(1)
        index[:, step] = torch.where(real[:, step], chosen, 0)
        left.scatter_(1, chosen[:, None], False)
        nearest = torch.minimum(nearest, squares(axes, [axis.gather(1, chosen[:, None]) for axis in axes]))
        far = nearest
    return index, real


def squares(axes: tuple[Tensor, ...], centre: list[Tensor]) -> Annotated[Tensor, "batch points"]:
    """Squared distances to one point a cloud, added axis by axis, so that the layout of a batch changes no bit."""
    total = torch.zeros_like(axes[0])
    for axis, middle in zip(axes, centre, strict=True):
        total = total + (axis - middle).square()
    return total


def first_largest(values: Tensor, allowed: Tensor) -> Annotated[Tensor, "batch"]:
    """The lowest index of what is the largest where it is allowed, up to ties; any where nothing is."""
    values = torch.where(allowed, values, -1.0)
    best = values.amax(1, keepdim=True)
    places = torch.arange(values.shape[1], device=values.device)
    tied = torch.where(allowed & (values >= best * (1 - TIE)), places, values.shape[1] - 1)
    return tied.amin(1)
