"""Angles that scatter about upright."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from omniconv.symmetry._family import FAR, NARROWEST, Angles, Family, Level, degrees, mean_of, within, wrapped_normal


def kept_variance() -> float:
    """The share of its variance that a standard normal distribution keeps up to where `within` cuts its size."""
    mean, deviation = math.sqrt(2 / math.pi), math.sqrt(1 - 2 / math.pi)
    cut = mean + FAR * deviation
    inside = math.erf(cut / math.sqrt(2))
    return 1 - 2 * cut * math.exp(-(cut**2) / 2) / math.sqrt(2 * math.pi) / inside


@dataclass(frozen=True)
class Gaussian(Family):
    """Angles that are normal with mean 0 and a deviation s: signals that stand upright, more or less.

    s^2 = mean angle^2 of the angles that are not strays, over the share of the variance that a normal distribution has
    there.

    >>> import torch
    >>> angles = torch.special.ndtri(torch.linspace(0.005, 0.995, 100))
    >>> round(Gaussian().estimate(0.5 * angles).item(), 2)
    0.51
    """

    numbers = ("deviation",)

    def _estimate(self, angles: Angles) -> Level:
        return (mean_of(angles.square(), within(angles.abs())) / kept_variance()).sqrt()[..., None]

    def _density(self, angles: Angles, level: Level) -> Tensor:
        return wrapped_normal(angles, level.clamp(min=NARROWEST), 2 * math.pi)

    def _excess(self, angle: Tensor, level: Level) -> Tensor:
        return angle.abs() - FAR * level[..., 0]

    def tell(self, level: Level) -> str:
        return f"upright, ± {degrees(level[0])}"
