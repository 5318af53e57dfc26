"""The contract of a family of distributions of poses: how signals of one kind are turned."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, describe
from omniconv._references import SYMMETRY_PAPER, Cited

Angles: TypeAlias = Annotated[Tensor, "*batch angles"]
Level: TypeAlias = Annotated[Tensor, "*batch numbers"]

STRAY = 0.05
"""Share of the angles that may be anywhere: neighbours of another kind, and poses that were not found."""
NARROWEST = math.radians(1.0)
"""Half width or deviation below which a density is not narrower: poses are not known better."""
FAR = 2.0
"""Standard deviations from the mean beyond which an angle is left out of an estimate."""


class Family(Cited, ABC):
    """Distributions of angles about a centre of symmetry at 0, told apart by their level: a few numbers.

    `numbers`: their names. Angles are in radians, in (-pi, pi]. A new family gives its names, `tell`, and `_estimate`,
    `_density` and `_excess`, whose arguments were checked. The last of its numbers is an angle.
    """

    references = (SYMMETRY_PAPER,)
    numbers: tuple[str, ...]

    @abstractmethod
    def _estimate(self, angles: Angles) -> Level: ...

    @abstractmethod
    def _density(self, angles: Angles, level: Level) -> Tensor: ...

    @abstractmethod
    def _excess(self, angle: Tensor, level: Level) -> Tensor: ...

    @abstractmethod
    def tell(self, level: Level) -> str:
        """A level, (numbers,), in words."""

    def estimate(self, angles: Angles) -> Level:
        """The level of angles that were drawn from one distribution, (*batch, numbers), a few strays among them."""
        return self._estimate(checked("angles", angles))

    def log_density(self, angles: Angles, level: Level) -> Tensor:
        """log p(angle; level) per angle, (*batch, angles), of the distribution with a share of `STRAY` anywhere."""
        density = self._density(checked("angles", angles), self._checked(level))
        return ((1 - STRAY) * density + STRAY / (2 * math.pi)).log()

    def evidence(self, angles: Angles) -> Tensor:
        """How likely the family makes the angles, in nats per angle, (*batch): the log density at the level that is
        estimated, less log(n) / (2 n) for each of its numbers, as in the Bayesian information criterion.
        """
        count = checked("angles", angles).shape[-1]
        fitted = self.log_density(angles, self.estimate(angles)).mean(-1)
        return fitted - len(self.numbers) * math.log(count) / (2 * count)

    def excess(self, angle: Tensor, level: Level) -> Tensor:
        """By how much an angle (*batch) is farther than those of the distribution are, in radians; negative within."""
        check_floating_tensor("angle", angle)
        return self._excess(angle, self._checked(level))

    def _checked(self, level: Level) -> Level:
        check_floating_tensor("level", level)
        if level.ndim == 0 or level.shape[-1] != len(self.numbers):
            raise ValueError(
                f"`level` must be (*batch, {len(self.numbers)}), {' and '.join(self.numbers)}; got {describe(level)}."
            )
        return level


def checked(name: str, angles: Angles) -> Angles:
    """The angles, or raise unless there are any."""
    check_floating_tensor(name, angles)
    if angles.ndim == 0 or angles.shape[-1] == 0:
        raise ValueError(f"`{name}` must be (*batch, angles), one angle at least; got {describe(angles)}.")
    return angles


def within(sizes: Tensor) -> Tensor:
    """Which sizes of angles count: up to `FAR` standard deviations above the mean. The smallest always does."""
    mean = sizes.mean(-1, keepdim=True)
    deviation = (sizes - mean).square().mean(-1, keepdim=True).sqrt()
    return sizes <= torch.maximum(mean + FAR * deviation, sizes.amin(-1, keepdim=True))  # a mean may be rounded down


def mean_of(values: Tensor, which: Tensor) -> Tensor:
    """The mean of some values along the last axis."""
    return (values * which).sum(-1) / which.sum(-1)


def around(density: Callable[[Tensor], Tensor], angles: Tensor, turn: Tensor | float) -> Tensor:
    """A density on the line, wrapped around a circle of length `turn`: of what lies within a turn and a half."""
    return torch.stack([density(angles + k * turn) for k in (-1, 0, 1)]).sum(0)


def wrapped_normal(x: Tensor, deviation: Tensor, turn: Tensor | float) -> Tensor:
    """The density of the normal distribution about 0 on a circle of length `turn`: narrow ones as a sum over turns,
    wide ones as a Fourier series, of which either has three terms that count.
    """

    def on_the_line(x: Tensor) -> Tensor:
        return (-0.5 * (x / deviation).square()).exp() / (deviation * math.sqrt(2 * math.pi))

    frequency = 2 * math.pi / turn
    waves = [(-0.5 * (k * frequency * deviation).square()).exp() * (k * frequency * x).cos() for k in (1, 2, 3)]
    series = (1 + 2 * torch.stack(waves).sum(0)) / turn
    return torch.where(deviation < turn / 4, around(on_the_line, x, turn), series)


def degrees(angle: Tensor) -> str:
    """An angle in radians as it is told."""
    return f"{math.degrees(angle.item()):.0f}°"
