"""Rotations of space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv.groups._group import Coordinates, Count, Elements, Group, Samples, evenly, of_radius

SPIRAL = 1.5337511687552043
"""The real root of x^4 = x + 4 above 1, the step of the spiral of Alexa 2022."""


@dataclass(frozen=True)
class SO3(Group):
    """The rotations of space. An element is a quaternion (w, x, y, z) of length 1 with w >= 0.

    Its coordinates are the axis times the angle, in radians; the density of the Haar measure in them is
    (sin(t / 2) / (t / 2))^2 at the angle t.

    Grids of 1, 12 and 24 elements are the groups of rotations of nothing, a tetrahedron, and a cube, which maps voxels
    to voxels; others are a spiral that covers the group evenly (Alexa, Super-Fibonacci Spirals, CVPR 2022). An offset
    turns the whole grid, by the rotation that it stands for.

    >>> import torch
    >>> len(torch.unique(SO3().matrix(SO3().grid(24).elements).round(), dim=0))
    24
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
        return upper(torch.stack(product, -1))

    def _inverse(self, g: Elements) -> Elements:
        return upper(torch.cat([g[..., :1], -g[..., 1:]], -1))

    def _exp(self, a: Coordinates) -> Elements:
        square = (a * a).sum(-1, keepdim=True)
        cosine = of_radius(square, lambda t: (t / 2).cos(), 1.0, -1 / 8)
        sine = of_radius(square, lambda t: (t / 2).sin() / t, 1 / 2, -1 / 48)
        return upper(torch.cat([cosine, sine * a], -1))

    def _log(self, g: Elements) -> Coordinates:
        g = upper(g)
        w, v = g[..., :1], g[..., 1:]
        return of_radius((v * v).sum(-1, keepdim=True), lambda sine: 2 * sine.atan2(w) / sine, 2.0, 1 / 3) * v

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
        return of_radius((a * a).sum(-1), lambda t: (2 * (t / 2).sin() / t) ** 2, 1.0, -1 / 12)

    def _at(self, uniform: Tensor) -> Elements:
        # Shoemake: two circles, the squares of whose radii are uniform and sum to 1.
        radius, first, second = uniform[..., 0], *(2 * torch.pi * uniform[..., 1:]).unbind(-1)
        inner, outer = radius.sqrt(), (1 - radius).sqrt()
        return upper(
            torch.stack([outer * first.cos(), outer * first.sin(), inner * second.sin(), inner * second.cos()], -1)
        )

    def _grid(self, count: Count, offset: Tensor) -> Samples:
        number = check_integer("count", count)
        elements = polyhedral(number) if number in (1, 12, 24) else self._spiral(number)
        if bool(offset.any()):
            elements = self._compose(self._at(offset), elements)
        return evenly(elements)

    def _spiral(self, count: int) -> Elements:
        """Turned so that the first is the identity."""
        t = (torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) / count
        d = 2 * torch.pi * count * t
        first, second = d / math.sqrt(2), d / SPIRAL
        inner, outer = t.sqrt(), (1 - t).sqrt()
        points = [inner * first.sin(), inner * first.cos(), outer * second.sin(), outer * second.cos()]
        elements = upper(torch.stack(points, -1))
        return self._compose(self._inverse(elements[:1]), elements)


def upper(quaternion: Tensor) -> Tensor:
    """Of the two quaternions of a rotation one with w >= 0; both of a half turn have that."""
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def polyhedral(count: int) -> Tensor:
    """The identity, the 12 rotations of a tetrahedron or the 24 of a cube, its corners on the axes' diagonals."""
    units = torch.eye(4, dtype=torch.float64, device="cpu")
    signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=torch.float64, device="cpu")] * 3)
    thirds = torch.cat([torch.ones_like(signs[:, :1]), signs], -1) / 2
    pairs = [units[i] + sign * units[j] for i in range(4) for j in range(i + 1, 4) for sign in (1.0, -1.0)]
    return torch.cat([units, thirds, torch.stack(pairs) / math.sqrt(2)])[:count]
