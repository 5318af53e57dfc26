"""Linear maps of the plane that keep its orientation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_number
from omniconv._references import LIE_DECOMPOSITION_PAPER
from omniconv.groups._group import (
    Coordinates,
    Count,
    Elements,
    Group,
    Samples,
    evenly,
    line,
    of_radius,
    rotation,
    times,
)
from omniconv.groups.product import cartesian

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

    @property
    def magnification(self) -> float:  # type: ignore[override]
        """The largest scale, along the axis of the longest stretch."""
        return self.high * math.exp(self.shear)

    def _compose(self, g: Elements, h: Elements) -> Elements:
        return times(self._matrix(g), self._matrix(h)).flatten(-2)

    def _inverse(self, g: Elements) -> Elements:
        a, b, c, d = g.unbind(-1)
        return torch.stack([d, -b, -c, a], -1) / (a * d - b * c).unsqueeze(-1)

    def _exp(self, a: Coordinates) -> Elements:
        return (times(rotation(a[..., 0]), stretch(a[..., 2:])) * a[..., 1, None, None].exp()).flatten(-2)

    def _log(self, g: Elements) -> Coordinates:
        return polar(self._matrix(g))

    def _outside(self, g: Elements) -> Tensor:
        return is_singular(g)

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

    def _grid(self, count: Count, offset: Tensor) -> Samples:
        return evenly(self._at(polar_lattice(self, count, offset)))


def is_singular(g: Elements) -> Tensor:
    """Whether the determinant is not positive."""
    a, b, c, d = g.unbind(-1)
    return ~(a * d - b * c > 0)


def polar(matrix: Tensor) -> Coordinates:
    """(t, s, a, b) of matrices with positive determinant."""
    (p, q), (u, v) = (row.unbind(-1) for row in matrix.unbind(-2))
    cosine, sine = p + v, u - q
    length = torch.hypot(cosine, sine)
    c, s = cosine / length, sine / length
    root = (p * v - q * u).sqrt()
    # What is left when the rotation and the scaling are taken off: cosh r + sinh r / r [[a, b], [b, -a]].
    along, across = (c * p + s * u + s * q - c * v) / (2 * root), (c * q + s * v) / root
    ratio = of_radius(along**2 + across**2, lambda sinh: sinh.asinh() / sinh, 1.0, -1 / 6)
    return torch.stack([torch.atan2(sine, cosine), root.log(), ratio * along, ratio * across], -1)


def stretch(a: Tensor) -> Tensor:
    """exp([[a, b], [b, -a]]) of (a, b)."""
    square = (a * a).sum(-1)
    cosh = of_radius(square, torch.cosh, 1.0, 1 / 2)
    along, across = (of_radius(square, lambda r: r.sinh() / r, 1.0, 1 / 6).unsqueeze(-1) * a).unbind(-1)
    return torch.stack([torch.stack([cosh + along, across], -1), torch.stack([across, cosh - along], -1)], -2)


def stretch_density(a: Tensor) -> Tensor:
    """sinh(2 r) / (2 r)."""
    return of_radius((a * a).sum(-1), lambda r: (2 * r).sinh() / (2 * r), 1.0, 2 / 3)


def stretch_at(uniform: Tensor, shear: float) -> Tensor:
    """(a, b) of uniform numbers: by the distribution of r, whose density is sinh(2 r), so that sinh^2 r is uniform, and
    an angle.
    """
    r = (uniform[..., 0].sqrt() * math.sinh(shear)).asinh()
    angle = 2 * torch.pi * uniform[..., 1]
    return torch.stack([r * angle.cos(), r * angle.sin()], -1)


def polar_lattice(group: Group, count: Count, offset: Tensor) -> Tensor:
    """Numbers in [0, 1) of a grid: each coordinate on a line, and stretches on a spiral, the first of them none."""
    names = ("rotations", "scales", "stretches") if group.coordinates == 4 else ("rotations", "stretches")
    if not isinstance(count, tuple) or len(count) != len(names):
        raise ValueError(f"`count` must be {len(names)} numbers for {group}, of {', '.join(names)}; got {count!r}.")
    lines = [line(number, part) for number, part in zip(count, offset[:-1], strict=True)]
    turns = torch.arange(len(lines[-1]), dtype=torch.float64, device="cpu")[:, None] * GOLDEN + offset[-1]
    return cartesian([*lines[:-1], torch.cat([lines[-1], turns % 1.0], -1)])
