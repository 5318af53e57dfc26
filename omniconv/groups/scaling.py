"""Positive scalings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_integer, check_number
from omniconv.groups._group import Coordinates, Count, Elements, Group, Samples, evenly, line


@dataclass(frozen=True)
class Scaling(Group):
    """The scalings x -> s x of R^dim by s > 0. An element is s; its coordinate is ln s, and the Haar measure ds / s.

    `high`: end of the range [1, high) of what is sampled, above 1, evenly in ln s: the group is not compact, and a
    network sees only so many scales.

    >>> [round(s, 3) for s in Scaling(1, high=8.0).grid(3).elements[:, 0].tolist()]
    [1.0, 2.0, 4.0]
    """

    dim: int = 2
    high: float = 2.0
    numbers = 1
    continuous = (True,)
    features = 1

    def __post_init__(self) -> None:
        check_integer("dim", self.dim)
        check_number("high", self.high, low=1.0)

    @property
    def magnification(self) -> float:  # type: ignore[override]
        """The end of the range."""
        return self.high

    def _compose(self, g: Elements, h: Elements) -> Elements:
        return g * h

    def _inverse(self, g: Elements) -> Elements:
        return 1 / g

    def _exp(self, a: Coordinates) -> Elements:
        return a.exp()

    def _log(self, g: Elements) -> Coordinates:
        return g.log()

    def _outside(self, g: Elements) -> Tensor:
        return ~(g[..., 0] > 0)

    def _matrix(self, g: Elements) -> Tensor:
        return g.unsqueeze(-1) * torch.eye(self.dim, dtype=g.dtype, device=g.device)

    def _describe(self, g: Elements) -> Tensor:
        return g.log() / math.log(self.high)

    def _density(self, a: Coordinates) -> Tensor:
        return torch.ones_like(a[..., 0])

    def _at(self, uniform: Tensor) -> Elements:
        return self.high**uniform

    def _grid(self, count: Count, offset: Tensor) -> Samples:
        return evenly(self._at(line(count, offset)))
