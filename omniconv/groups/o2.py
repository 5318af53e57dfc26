"""Rotations and reflections of the plane."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv.groups._group import Coordinates, Count, Elements, Group, line, rotation, wrap


@dataclass(frozen=True)
class O2(Group):
    """The rotations and reflections of the plane. An element is an angle t and a sign m, -1 for reflections.

    h = R(t) diag(1, m), a reflection of the second axis and then a rotation;
    (s, l) (t, m) = (s + l t, l m);  (t, m)^-1 = (-m t, m);  the Haar measure is dt on both components.

    >>> import torch
    >>> mirror = torch.tensor([0.0, -1.0])
    >>> O2().act(mirror, torch.tensor([2.0, 3.0])).tolist()
    [2.0, -3.0]
    """

    dim = 2
    numbers = 2
    continuous = (True, False)
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

    def _at(self, uniform: Tensor) -> Elements:
        return self._exp(uniform * uniform.new_tensor([2 * torch.pi, 1.0]))

    def _lattice(self, count: Count) -> tuple[Tensor, Tensor]:
        count = check_integer("count", count)
        if count % 2:
            raise ValueError(f"`count` must be even, half of the elements are reflections; got {count}.")
        angles, cell = line(count // 2)
        halves = [torch.cat([angles, torch.full_like(angles, half)], -1) for half in (0.0, 0.5)]
        return torch.cat(halves), torch.cat([cell, torch.zeros_like(cell)])
