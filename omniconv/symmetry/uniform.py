"""Angles that are all alike, up to a largest one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv.symmetry._family import NARROWEST, Angles, Family, Level, around, degrees, mean_of, within

SOFT = 0.1
"""Deviation with which the edge of a density is blurred, as a share of the half width: estimates are as uncertain."""


@dataclass(frozen=True)
class Uniform(Family):
    """Angles that are uniform on [-t, t]; with t = pi every rotation is as likely.

    t = 2 mean |angle| of the angles that are not strays; at most pi.

    >>> import torch
    >>> angles = torch.linspace(-1.0, 1.0, 101)
    >>> round(Uniform().estimate(angles).item(), 2)
    1.01
    """

    numbers = ("half width",)

    def _estimate(self, angles: Angles) -> Level:
        sizes = angles.abs()
        return (2 * mean_of(sizes, within(sizes))).clamp(max=math.pi)[..., None]

    def _density(self, angles: Angles, level: Level) -> Tensor:
        half = level.clamp(min=NARROWEST)
        return around(lambda x: (step((x + half) / half) - step((x - half) / half)) / (2 * half), angles, 2 * math.pi)

    def _excess(self, angle: Tensor, level: Level) -> Tensor:
        return angle.abs() - level[..., 0]

    def tell(self, level: Level) -> str:
        return f"up to {degrees(level[0])}, all alike"


def step(x: Tensor) -> Tensor:
    """A step from 0 to 1, blurred."""
    return torch.special.ndtr(x / SOFT)
