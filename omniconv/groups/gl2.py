"""Linear maps of the plane that keep its orientation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_number
from omniconv._references import LIE_DECOMPOSITION_PAPER
from omniconv.groups._group import Coordinates, Count, Elements, Group, line, rotation
from omniconv.groups.product import cartesian

NEAR = 1e-4
"""Stretch below which a series takes the place of a quotient that becomes 0 / 0."""
GOLDEN = (math.sqrt(5) - 1) / 2
"""The golden section: turns by it spread points evenly over a disk."""


@dataclass(frozen=True)
class GL2(Group):
    """The matrices of two rows with positive determinant. An element is the matrix, row by row.

    The exponential map does not reach all of them; the polar decomposition does:
    A = R(t) exp(s) exp([[a, b], [b, -a]]), a rotation, a scaling, and a stretch by exp(r) along an axis and exp(-r)
    across it, r^2 = a^2 + b^2. The coordinates are (t, s, a, b), and the Haar measure, which is the left and the right
    one, has the density sinh(2 r) / (2 r) in them.

    `high`: scales exp(s) are sampled over [1, high), high above 1. `shear`: stretches r are sampled over [0, shear),
    above 0. The group is not compact, and a network sees only a part of it.
    Grids have three counts: of rotations, scales and stretches.

    Mironenco and Forre 2024.

    >>> len(GL2().grid((8, 2, 3)))
    48
    """

    high: float = 2.0
    shear: float = 0.5
    dim = 2
    numbers = 4
    continuous = (True, True, True, True)
    features = 5
    references = (LIE_DECOMPOSITION_PAPER,)

    def __post_init__(self) -> None:
        check_number("high", self.high, low=1.0)
        check_number("shear", self.shear, low=0.0)

    def _compose(self, g: Elements, h: Elements) -> Elements:
        return (self._matrix(g) @ self._matrix(h)).flatten(-2)

    def _inverse(self, g: Elements) -> Elements:
        a, b, c, d = g.unbind(-1)
        return torch.stack([d, -b, -c, a], -1) / (a * d - b * c).unsqueeze(-1)

    def _exp(self, a: Coordinates) -> Elements:
        return (rotation(a[..., 0]) @ stretch(a[..., 2:]) * a[..., 1, None, None].exp()).flatten(-2)

    def _log(self, g: Elements) -> Coordinates:
        return polar(self._matrix(g))

    def _matrix(self, g: Elements) -> Tensor:
        return g.unflatten(-1, (2, 2))

    def _describe(self, g: Elements) -> Tensor:
        t, s, a, b = self._log(g).unbind(-1)
        far = 2 * self.shear
        return torch.stack([t.cos(), t.sin(), s / math.log(self.high), a / far, b / far], -1)

    def _density(self, a: Coordinates) -> Tensor:
        return stretch_density(a[..., 2:])

    def _at(self, uniform: Tensor) -> Elements:
        angle, size = 2 * torch.pi * uniform[..., :1], uniform[..., 1:2] * math.log(self.high)
        return self._exp(torch.cat([angle, size, stretch_at(uniform[..., 2:], self.shear)], -1))

    def _lattice(self, count: Count) -> tuple[Tensor, Tensor]:
        return polar_lattice(self, count, lines=2)


def polar(matrix: Tensor) -> Coordinates:
    """(t, s, a, b) of matrices with positive determinant."""
    (p, q), (u, v) = (row.unbind(-1) for row in matrix.unbind(-2))
    cosine, sine = p + v, u - q
    length = torch.hypot(cosine, sine)
    c, s = cosine / length, sine / length
    root = (p * v - q * u).sqrt()
    # What is left when the rotation and the scaling are taken off: cosh r + sinh r / r [[a, b], [b, -a]].
    along, across = (c * p + s * u + s * q - c * v) / (2 * root), (c * q + s * v) / root
    sinh = torch.hypot(along, across)
    ratio = torch.where(sinh < NEAR, 1 - sinh**2 / 6, sinh.asinh() / sinh.clamp(min=NEAR))
    return torch.stack([torch.atan2(sine, cosine), root.log(), ratio * along, ratio * across], -1)


def stretch(a: Tensor) -> Tensor:
    """exp([[a, b], [b, -a]]) of (a, b)."""
    r = torch.hypot(a[..., 0], a[..., 1])
    ratio = torch.where(r < NEAR, 1 + r**2 / 6, r.sinh() / r.clamp(min=NEAR))
    along, across = ratio * a[..., 0], ratio * a[..., 1]
    cosh = r.cosh()
    return torch.stack([torch.stack([cosh + along, across], -1), torch.stack([across, cosh - along], -1)], -2)


def stretch_density(a: Tensor) -> Tensor:
    """sinh(2 r) / (2 r)."""
    twice = 2 * torch.hypot(a[..., 0], a[..., 1])
    return torch.where(twice < NEAR, 1 + twice**2 / 6, twice.sinh() / twice.clamp(min=NEAR))


def stretch_at(uniform: Tensor, shear: float) -> Tensor:
    """(a, b) of uniform numbers: by the distribution of r, whose density is sinh(2 r), and an angle."""
    r = (1 + uniform[..., 0] * (math.cosh(2 * shear) - 1)).acosh() / 2
    angle = 2 * torch.pi * uniform[..., 1]
    return torch.stack([r * angle.cos(), r * angle.sin()], -1)


def polar_lattice(group: Group, count: Count, lines: int) -> tuple[Tensor, Tensor]:
    """Of so many coordinates on lines, and of stretches on a spiral, the first of them none."""
    if not isinstance(count, tuple) or len(count) != lines + 1:
        names = "rotations, scales and stretches" if lines == 2 else "rotations and stretches"
        raise ValueError(f"`count` must be {lines + 1} numbers for {group}, of {names}; got {count!r}.")
    parts = [line(number) for number in count]
    spiral, cell = parts[-1]
    turns = torch.arange(len(spiral), dtype=torch.float64)[:, None] * GOLDEN % 1.0
    numbers = cartesian([*[numbers for numbers, _ in parts[:-1]], torch.cat([spiral, turns], -1)])
    return numbers, torch.cat([*[size for _, size in parts[:-1]], cell, torch.ones_like(cell)])
