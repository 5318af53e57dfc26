"""Rotations and reflections of the plane."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv.groups._group import Coordinates, Count, Elements, Group, Samples, evenly, line, rotation, wrap


class PlaneIsometries(Group):
    """Groups whose elements are an angle t in radians and a sign m, -1 for reflections: h = R(t) diag(1, m)."""

    dim = 2
    numbers = 2
    features = 3

    def _compose(self, g: Elements, h: Elements) -> Elements:
        sign = g[..., 1] * h[..., 1]
        return torch.stack([wrap(g[..., 0] + g[..., 1] * h[..., 0]), sign], -1)

    def _inverse(self, g: Elements) -> Elements:
        return torch.stack([wrap(-g[..., 1] * g[..., 0]), g[..., 1]], -1)

    def _exp(self, a: Coordinates) -> Elements:
        return torch.stack([wrap(a[..., 0]), 1 - 2 * (a[..., 1] >= 0.5).to(a)], -1)

    def _log(self, g: Elements) -> Coordinates:
        return torch.stack([wrap(g[..., 0]), (1 - g[..., 1]) / 2], -1)

    def _matrix(self, g: Elements) -> Tensor:
        return rotation(g[..., 0]) * torch.stack([torch.ones_like(g[..., 1]), g[..., 1]], -1).unsqueeze(-2)

    def _describe(self, g: Elements) -> Tensor:
        return torch.stack([g[..., 0].cos(), g[..., 0].sin(), g[..., 1]], -1)

    def _density(self, a: Coordinates) -> Tensor:
        return torch.ones_like(a[..., 0])


@dataclass(frozen=True)
class O2(PlaneIsometries):
    """The rotations and reflections of the plane. An element is an angle t and a sign m, -1 for reflections.

    h = R(t) diag(1, m), a reflection of the second axis and then a rotation;
    (s, l) (t, m) = (s + l t, l m);  (t, m)^-1 = (-m t, m);  the Haar measure is dt on both components.

    >>> import torch
    >>> mirror = torch.tensor([0.0, -1.0])
    >>> O2().act(mirror, torch.tensor([2.0, 3.0])).tolist()
    [2.0, -3.0]
    """

    continuous = (True, False)

    def _at(self, uniform: Tensor) -> Elements:
        return self._exp(torch.stack([2 * torch.pi * uniform[..., 0], uniform[..., 1]], -1))

    def _grid(self, count: Count, offset: Tensor) -> Samples:
        count = check_integer("count", count)
        if count % 2:
            raise ValueError(f"`count` must be even, half of the elements are reflections; got {count}.")
        return evenly(self._at(both(line(count // 2, offset[:1]))))


def both(angles: Tensor) -> Tensor:
    """Numbers in [0, 1) of rotations by the angles, and of as many reflections."""
    return torch.cat([torch.cat([angles, torch.full_like(angles, half)], -1) for half in (0.0, 0.5)])
