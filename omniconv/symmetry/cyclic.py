"""Angles that are multiples of a part of a turn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv.symmetry._family import FAR, NARROWEST, Angles, Family, Level, degrees, wrapped_normal

TO_DEVIATION = 1.4826
"""The deviation of a normal distribution over the median of its size."""


@dataclass(frozen=True)
class Cyclic(Family):
    """Angles near the multiples of 2 pi / n, each as likely, with a deviation s about them.

    n in 1 .. `most` is where the angles are most likely, with s from the median distance to the nearest multiple.
    `most`: at least 1.

    >>> import torch
    >>> angles = torch.pi / 2 * torch.tensor([0.0, 1.0, 2.0, -1.0, 1.0, 0.0, 2.0])
    >>> int(Cyclic().estimate(angles)[0])
    4
    """

    most: int = 8
    numbers = ("order", "deviation")

    def __post_init__(self) -> None:
        check_integer("most", self.most)

    def _estimate(self, angles: Angles) -> Level:
        orders = torch.arange(1, self.most + 1, device=angles.device).to(angles)
        apart = distance(angles.unsqueeze(-2), orders[:, None])
        deviation = (TO_DEVIATION * apart.median(-1).values).clamp(min=NARROWEST)
        levels = torch.stack([orders.expand_as(deviation), deviation], -1)
        likelihood = self.log_density(angles.unsqueeze(-2), levels).sum(-1)
        best = likelihood.argmax(-1)[..., None, None]
        return levels.take_along_dim(best, -2).squeeze(-2)

    def _density(self, angles: Angles, level: Level) -> Tensor:
        order, deviation = level[..., :1], level[..., 1:].clamp(min=NARROWEST)
        return wrapped_normal(distance(angles, order), deviation, 2 * math.pi / order) / order

    def _excess(self, angle: Tensor, level: Level) -> Tensor:
        return distance(angle, level[..., 0]) - FAR * level[..., 1]

    def tell(self, level: Level) -> str:
        order = int(level[0])
        if order == 1:  # a whole turn is none
            return f"upright, ± {degrees(level[1])}"
        return f"multiples of {360 / order:g}°, each ± {degrees(level[1])}"


def distance(angles: Tensor, order: Tensor) -> Tensor:
    """How far angles are from the nearest multiple of 2 pi / order."""
    turn = 2 * math.pi / order
    return (angles - turn * (angles / turn).round()).abs()
