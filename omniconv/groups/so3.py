"""Rotations of space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv.groups._group import Coordinates, Count, Elements, Group, Samples, evenly

NEAR = 1e-4
"""Angle in radians below which a series takes the place of a quotient that becomes 0 / 0."""
SPIRAL = 1.5337511687552043
"""The real root of x^4 = x + 4 above 1, the step of the spiral of Alexa 2022."""


@dataclass(frozen=True)
class SO3(Group):
    """The rotations of space. An element is a quaternion (w, x, y, z) of length 1 with w >= 0.

    Its coordinates are the axis times the angle, in radians; the density of the Haar measure in them is
    (sin(t / 2) / (t / 2))^2 at the angle t.

    Grids of 1, 12 and 24 elements are the groups of rotations of nothing, a tetrahedron, and a cube, which maps voxels
    to voxels; others are a spiral that covers the group evenly (Alexa, Super-Fibonacci Spirals, CVPR 2022). An offset
    turns the whole grid.

    >>> import torch
    >>> SO3().determinant(SO3().grid(24).elements).round().unique().tolist()
    [1.0]
    """

    dim = 3
    numbers = 4
    continuous = (True, True, True)
    features = 9

    def _compose(self, g: Elements, h: Elements) -> Elements:
        (a, b, c, d), (w, x, y, z) = g.unbind(-1), h.unbind(-1)
        product = (
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        )
        return unique(torch.stack(product, -1))

    def _inverse(self, g: Elements) -> Elements:
        return unique(g * g.new_tensor([1.0, -1.0, -1.0, -1.0]))

    def _exp(self, a: Coordinates) -> Elements:
        angle = a.norm(dim=-1, keepdim=True)
        half = torch.where(angle < NEAR, 0.5 - angle**2 / 48, (angle / 2).sin() / angle.clamp(min=NEAR))
        return unique(torch.cat([(angle / 2).cos(), half * a], -1))

    def _log(self, g: Elements) -> Coordinates:
        g = unique(g)
        w, v = g[..., :1], g[..., 1:]
        sine = v.norm(dim=-1, keepdim=True)
        per_sine = torch.where(
            sine < NEAR, (2 - 2 * sine**2 / (3 * w**2)) / w, 2 * sine.atan2(w) / sine.clamp(min=NEAR)
        )
        return per_sine * v

    def _matrix(self, g: Elements) -> Tensor:
        w, x, y, z = g.unbind(-1)
        rows = (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    def _describe(self, g: Elements) -> Tensor:
        return self._matrix(g).flatten(-2)

    def _density(self, a: Coordinates) -> Tensor:
        return torch.sinc(a.norm(dim=-1) / (2 * torch.pi)) ** 2

    def _at(self, uniform: Tensor) -> Elements:
        # Shoemake: two circles, the squares of whose radii are uniform and sum to 1.
        radius, first, second = uniform[..., 0], *(2 * torch.pi * uniform[..., 1:]).unbind(-1)
        inner, outer = radius.sqrt(), (1 - radius).sqrt()
        return unique(
            torch.stack([outer * first.cos(), outer * first.sin(), inner * second.sin(), inner * second.cos()], -1)
        )

    def _lattice(self, count: Count) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("the grids of SO3 are not images of a lattice")

    def grid(self, count: Count, *, offset: Tensor | None = None) -> Samples:
        number = check_integer("count", count)
        elements = polyhedral(number) if number in (1, 12, 24) else self._spiral(number)
        if offset is not None:
            turn = self._at(self._checked("offset", offset, self.coordinates).to(elements))
            elements = self._compose(turn, elements)
        return evenly(elements)

    def _spiral(self, count: int) -> Elements:
        """Turned so that the first is the identity."""
        t = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        d = 2 * torch.pi * count * t
        first, second = d / math.sqrt(2), d / SPIRAL
        inner, outer = t.sqrt(), (1 - t).sqrt()
        points = [inner * first.sin(), inner * first.cos(), outer * second.sin(), outer * second.cos()]
        elements = unique(torch.stack(points, -1))
        return self._compose(self._inverse(elements[:1]), elements)


def unique(quaternion: Tensor) -> Tensor:
    """Of the two quaternions of a rotation the one with w >= 0."""
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def polyhedral(count: int) -> Tensor:
    """The identity, the 12 rotations of a tetrahedron or the 24 of a cube, its corners on the axes' diagonals."""
    units = torch.eye(4, dtype=torch.float64)
    signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=torch.float64)] * 3)
    thirds = torch.cat([torch.ones(8, 1, dtype=torch.float64), signs], -1) / 2
    pairs = [units[i] + sign * units[j] for i in range(4) for j in range(i + 1, 4) for sign in (1.0, -1.0)]
    return torch.cat([units, thirds, torch.stack(pairs) / math.sqrt(2)])[:count]
