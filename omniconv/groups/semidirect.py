"""Translations together with a group of linear maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from omniconv.groups._group import Group

Pairs: TypeAlias = tuple[Tensor, Tensor]
"""A translation (*batch, dim), and an element of the group of linear maps."""


@dataclass(frozen=True)
class SemidirectProduct:
    """The affine maps p -> h p + x of R^dim with h in `group`: SE(2) of SO(2), Sim(2) of rotations and scalings.

    An element is the pair (x, h). (x, h) (y, k) = (x + h y, h k);  (x, h)^-1 = (-h^-1 x, h^-1). The left Haar measure
    is |det h|^-1 dx dh.

    >>> import torch
    >>> from omniconv.groups import SO2
    >>> se2 = SemidirectProduct(SO2())
    >>> half = torch.tensor([1.0, 0.0]), torch.tensor([torch.pi])
    >>> [part.round().tolist() for part in se2.compose(half, half)]
    [[0.0, 0.0], [0.0]]
    """

    group: Group

    def compose(self, g: Pairs, h: Pairs) -> Pairs:
        """The product gh, which acts as h and then g."""
        return g[0] + self.group.act(g[1], h[0]), self.group.compose(g[1], h[1])

    def inverse(self, g: Pairs) -> Pairs:
        """The element with which g composes to the identity."""
        back = self.group.inverse(g[1])
        return -self.group.act(back, g[0]), back

    def act(self, g: Pairs, points: Tensor) -> Tensor:
        """The points moved by g, (*batch, dim)."""
        return g[0] + self.group.act(g[1], points)

    def relative(self, g: Pairs, h: Pairs) -> Pairs:
        """g^-1 h, where h lies as seen from g: what kernels are functions of."""
        return self.compose(self.inverse(g), h)

    def matrix(self, g: Pairs) -> Tensor:
        """The map in homogeneous coordinates, (*batch, dim + 1, dim + 1)."""
        linear = self.group.matrix(g[1])
        shift = g[0].expand(*linear.shape[:-1]).unsqueeze(-1)
        last = torch.zeros_like(shift.transpose(-1, -2))
        corner = torch.ones_like(last[..., :1])
        return torch.cat([torch.cat([linear, shift], -1), torch.cat([last, corner], -1)], -2)

    def density(self, g: Pairs) -> Tensor:
        """The density of the left Haar measure in x and the coordinates of h, (*batch); 1 at the identity."""
        return self.group.density(self.group.log(g[1])) / self.group.determinant(g[1])
