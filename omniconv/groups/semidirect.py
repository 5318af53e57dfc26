"""Translations together with a group of linear maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, describe
from omniconv.groups._group import Group, check_group

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
    >>> bool(se2.matrix(se2.compose(half, half)).allclose(torch.eye(3), atol=1e-6))
    True
    """

    group: Group

    def __post_init__(self) -> None:
        check_group(self.group)

    def compose(self, g: Pairs, h: Pairs) -> Pairs:
        """The product gh, which acts as h and then g."""
        return self._shift("g", g) + self.group.act(g[1], self._shift("h", h)), self.group.compose(g[1], h[1])

    def inverse(self, g: Pairs) -> Pairs:
        """The element with which g composes to the identity."""
        shift, back = self._shift("g", g), self.group.inverse(g[1])
        return -self.group.act(back, shift), back

    def act(self, g: Pairs, points: Tensor) -> Tensor:
        """The points moved by g, (*batch, dim)."""
        return self._shift("g", g) + self.group.act(g[1], points)

    def exp(self, a: Tensor) -> Pairs:
        """The element with these coordinates, (*batch, dim + coordinates): of x, then those of h."""
        numbers = self.group.dim + self.group.coordinates
        check_floating_tensor("a", a)
        if a.ndim == 0 or a.shape[-1] != numbers:
            raise ValueError(f"`a` must have {numbers} numbers on its last axis for {self}; got {describe(a)}.")
        return a[..., : self.group.dim], self.group.exp(a[..., self.group.dim :])

    def log(self, g: Pairs) -> Tensor:
        """Coordinates of the element, the inverse of `exp`: x and those of h, side by side, in which `density` is.

        As a chart it is that of a product. There is no distance: where the group scales, none is symmetric and does not
        change when both elements are moved.
        """
        shift, a = self._shift("g", g), self.group.log(g[1])
        batch = torch.broadcast_shapes(shift.shape[:-1], a.shape[:-1])
        return torch.cat([shift.expand(*batch, -1), a.expand(*batch, -1)], -1)

    def relative(self, g: Pairs, h: Pairs) -> Pairs:
        """g^-1 h = (h's translation as seen from g, relative element): what kernels are functions of.

        The translations are subtracted first, so that the same offset is the same number everywhere.
        """
        offset = self._shift("h", h) - self._shift("g", g)
        return self.group.act(self.group.inverse(g[1]), offset), self.group.relative(g[1], h[1])

    def identity(self, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Pairs:
        """The element that changes nothing."""
        shift = torch.zeros(self.group.dim, dtype=dtype, device=device)
        return shift, self.group.identity(dtype=dtype, device=device)

    def matrix(self, g: Pairs) -> Tensor:
        """The map in homogeneous coordinates, (*batch, dim + 1, dim + 1)."""
        shift, linear = self._shift("g", g).unsqueeze(-1), self.group.matrix(g[1])
        batch = torch.broadcast_shapes(shift.shape[:-2], linear.shape[:-2])
        upper = torch.cat([linear.expand(*batch, -1, -1), shift.expand(*batch, -1, -1)], -1)
        lower = torch.zeros_like(upper[..., :1, :])
        lower[..., -1] = 1
        return torch.cat([upper, lower], -2)

    def determinant(self, g: Pairs) -> Tensor:
        """By how much g magnifies volumes, (*batch)."""
        self._shift("g", g)
        return self.group.determinant(g[1])

    def density(self, g: Pairs) -> Tensor:
        """The density of the left Haar measure in x and the coordinates of h, (*batch); 1 at the identity."""
        determinant = self.determinant(g)
        return self.group.density(self.group.log(g[1])) / determinant

    def _shift(self, name: str, g: Pairs) -> Tensor:
        """The translation of an element, which must have a number per axis."""
        pair = isinstance(g, tuple) and len(g) == 2 and all(isinstance(part, Tensor) for part in g)
        if not pair or g[0].ndim == 0 or g[0].shape[-1] != self.group.dim:
            came = " and ".join(map(describe, g)) if isinstance(g, tuple) else describe(g)
            raise ValueError(
                f"`{name}` must be a pair of tensors: a translation with {self.group.dim} numbers on its last axis, "
                f"and an element of {self.group}; got {came}."
            )
        return g[0]
