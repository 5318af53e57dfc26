"""Clouds of points as they might have been: turned, mirrored, scaled, jittered, thinned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omniconv._errors import check_integer, check_number
from omniconv._typing import check_bool
from omniconv.training.batches import Batch


@dataclass(frozen=True)
class CloudAugmentation:
    """What is drawn anew for every cloud of a batch, from the global random state.

    Clouds are turned about their last axis, which is up, then mirrored, scaled, jittered and thinned. Clouds of one
    axis are not turned. Signals on a grid stay as they are.
    """

    turn: float = 0.0
    """Largest angle to either side, in degrees, [0, 180]."""

    quarters: bool = False
    """Whether clouds are turned by whole quarters only, as many as `turn` allows."""

    flip: bool = False
    """Whether clouds are mirrored, or not, along every axis but the last; in one axis along that."""

    zoom: float = 0.0
    """Largest share by which a cloud is made larger or smaller, [0, 1)."""

    jitter: float = 0.0
    """Deviation of what is added to every coordinate, as a share of the largest one of the cloud about its mean."""

    thin: float = 0.0
    """Largest share of the points that is left out, [0, 1); it is drawn for a batch, the points for every cloud."""

    vectors: int = 0
    """So many features, each of as many channels as the space has axes, the first ones, are vectors, and turn too."""

    unsigned: bool = False
    """Whether the components of these vectors have no sign, as of normals whose side is not known."""

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "turn": check_number("turn", self.turn, low=0.0, high=180.0, closed=True),
            "jitter": check_number("jitter", self.jitter, low=0.0, closed=True),
            "vectors": check_integer("vectors", self.vectors, minimum=0),
        }
        for name in ("zoom", "thin"):
            checked[name] = check_number(name, getattr(self, name), low=0.0, closed=True)
            if checked[name] >= 1:
                raise ValueError(f"`{name}` must be a share below 1; got {checked[name]!r}.")
        for name in ("quarters", "flip", "unsigned"):
            checked[name] = check_bool(name, getattr(self, name))
        if self.quarters and self.turn < 90:
            raise ValueError(f"`turn` must be at least 90 for `quarters`; got {self.turn!r}.")
        for name, value in checked.items():  # plain numbers: numpy's have no JSON form
            object.__setattr__(self, name, value)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with other clouds of the same labels; raises `ValueError` for fewer channels than `vectors`."""
        if batch.positions is None:
            return batch
        positions, signals, mask = batch.positions, batch.signals, batch.mask
        count, points, dim = positions.shape
        if self.vectors * dim > signals.shape[1]:
            raise ValueError(
                f"`vectors` (={self.vectors}) need {self.vectors * dim} features in {dim} axes; the clouds have "
                f"{signals.shape[1]}."
            )
        seen = torch.ones(count, points, dtype=torch.bool, device=positions.device) if mask is None else mask
        moves = self._moves(count, dim).to(positions)
        positions = positions @ moves.transpose(1, 2)
        if self.vectors:
            split = signals.split([self.vectors * dim, signals.shape[1] - self.vectors * dim], dim=1)
            turned = torch.einsum("bij,bvjp->bvip", moves.to(signals.dtype), split[0].unflatten(1, (-1, dim)))
            turned = turned.abs() if self.unsigned else turned
            signals = torch.cat([turned.flatten(1, 2), split[1]], dim=1)
        positions = positions * (1 + self.zoom * (2 * torch.rand(count, 1, 1).to(positions) - 1))
        if self.jitter:
            there = torch.where(seen[..., None], positions, 0.0)
            mean = there.sum(1, keepdim=True) / seen.sum(1)[:, None, None].clamp(min=1)
            size = torch.where(seen[..., None], positions - mean, 0.0).abs().amax((1, 2), keepdim=True)
            positions = positions + self.jitter * size * torch.randn(positions.shape).to(positions)
        if not self.thin:
            return batch._replace(signals=signals, positions=positions)
        order, mask = chosen_points(seen, 1 - self.thin * torch.rand(()).item())
        places = positions.gather(1, order[..., None].expand(-1, -1, dim))
        features = signals.gather(2, order[:, None].expand(-1, signals.shape[1], -1))
        return batch._replace(signals=features, positions=places, mask=None if bool(mask.all()) else mask)

    def _moves(self, count: int, dim: int) -> Tensor:
        """A matrix for every cloud, (count, dim, dim): a rotation in the first two axes, after it reflections."""
        moves = torch.eye(dim).repeat(count, 1, 1)
        if self.turn and dim > 1:
            most = self.turn if not self.quarters or self.turn == 180.0 else 135.0  # rounded, each quarter as likely
            angles = torch.deg2rad(most * (2 * torch.rand(count) - 1))
            if self.quarters:
                angles = (angles / (math.pi / 2)).round() * (math.pi / 2)
            moves[:, 0, 0] = moves[:, 1, 1] = angles.cos()
            moves[:, 1, 0], moves[:, 0, 1] = angles.sin(), -angles.sin()
        if self.flip:
            signs = 2.0 * torch.randint(0, 2, (count, dim)) - 1
            if dim > 1:
                signs[:, -1] = 1.0
            moves = signs[:, :, None] * moves
        return moves


def chosen_points(seen: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Indices of a random part of the points of every cloud, (batch, most), and which of these are points.

    `seen`: (batch, points), where there are points. Of n points ceil(share n) are chosen, at least one where n is.
    """
    counts = (share * seen.sum(1) - 1e-9).ceil().long()
    ranks = torch.where(seen, torch.rand(seen.shape).to(seen.device), torch.inf)
    order = ranks.argsort(1)[:, : max(int(counts.max()), 1)]
    return order, torch.arange(order.shape[1], device=seen.device) < counts[:, None]
