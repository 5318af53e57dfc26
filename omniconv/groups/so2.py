"""Rotations of the plane."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv.groups._group import Coordinates, Count, Elements, Group, Samples, evenly, line, rotation, wrap


class PlaneRotations(Group):
    """Groups whose elements are angles in radians, from the first axis towards the second.

    R(t) = [[cos t, -sin t], [sin t, cos t]];  R(s) R(t) = R(s + t).
    """

    dim = 2
    numbers = 1
    features = 2

    def _compose(self, g: Elements, h: Elements) -> Elements:
        return wrap(g + h)

    def _inverse(self, g: Elements) -> Elements:
        return wrap(-g)

    def _exp(self, a: Coordinates) -> Elements:
        return wrap(a)

    def _log(self, g: Elements) -> Coordinates:
        return wrap(g)

    def _matrix(self, g: Elements) -> Tensor:
        return rotation(g[..., 0])

    def _describe(self, g: Elements) -> Tensor:
        return torch.cat([g.cos(), g.sin()], -1)

    def _density(self, a: Coordinates) -> Tensor:
        return torch.ones_like(a[..., 0])


@dataclass(frozen=True)
class SO2(PlaneRotations):
    """The rotations of the plane. An element is its angle in radians, from the first axis towards the second.

    R(t) = [[cos t, -sin t], [sin t, cos t]];  R(s) R(t) = R(s + t);  the Haar measure is dt.

    >>> import math, torch
    >>> quarter = torch.tensor([math.pi / 2], dtype=torch.float64)
    >>> SO2().act(quarter, torch.tensor([1.0, 0.0], dtype=torch.float64)).round().tolist()
    [0.0, 1.0]
    """

    continuous = (True,)

    def _at(self, uniform: Tensor) -> Elements:
        return wrap(2 * torch.pi * uniform)

    def _grid(self, count: Count, offset: Tensor) -> Samples:
        return evenly(self._at(line(count, offset)))
