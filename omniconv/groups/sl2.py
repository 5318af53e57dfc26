"""Linear maps of the plane that keep areas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_number
from omniconv._references import LIE_DECOMPOSITION_PAPER
from omniconv.groups._group import Coordinates, Count, Elements, Group, Samples, evenly, rotation, times
from omniconv.groups.gl2 import is_singular, polar, polar_lattice, stretch, stretch_at, stretch_density


@dataclass(frozen=True)
class SL2(Group):
    """The matrices of two rows with determinant 1. An element is the matrix, row by row.

    A = R(t) exp([[a, b], [b, -a]]), as in `GL2` without the scaling: the coordinates are (t, a, b), and the Haar
    measure has the density sinh(2 r) / (2 r), r^2 = a^2 + b^2.

    `shear`: stretches r are sampled over [0, shear), above 0. Grids have two counts: of rotations and stretches.

    Mironenco and Forre 2024.

    >>> len(SL2(shear=0.3).grid((8, 4)))
    32
    """

    shear: float = 0.5
    dim = 2
    numbers = 4
    continuous = (True, True, True)
    features = 4
    references = (LIE_DECOMPOSITION_PAPER,)

    def __post_init__(self) -> None:
        check_number("shear", self.shear, low=0.0)

    @property
    def magnification(self) -> float:  # type: ignore[override]
        """Along the axis of the longest stretch."""
        return math.exp(self.shear)

    def _compose(self, g: Elements, h: Elements) -> Elements:
        return times(self._matrix(g), self._matrix(h)).flatten(-2)

    def _inverse(self, g: Elements) -> Elements:
        a, b, c, d = g.unbind(-1)
        return torch.stack([d, -b, -c, a], -1)

    def _exp(self, a: Coordinates) -> Elements:
        return times(rotation(a[..., 0]), stretch(a[..., 1:])).flatten(-2)

    def _log(self, g: Elements) -> Coordinates:
        t, _, a, b = polar(self._matrix(g)).unbind(-1)
        return torch.stack([t, a, b], -1)

    def _outside(self, g: Elements) -> Tensor:
        return is_singular(g)

    def _matrix(self, g: Elements) -> Tensor:
        return g.unflatten(-1, (2, 2))

    def _describe(self, g: Elements) -> Tensor:
        t, a, b = self._log(g).unbind(-1)
        far = 2 * self.shear
        return torch.stack([t.cos(), t.sin(), a / far, b / far], -1)

    def _density(self, a: Coordinates) -> Tensor:
        return stretch_density(a[..., 1:])

    def _at(self, uniform: Tensor) -> Elements:
        angle = 2 * torch.pi * uniform[..., :1]
        return self._exp(torch.cat([angle, stretch_at(uniform[..., 1:], self.shear)], -1))

    def _grid(self, count: Count, offset: Tensor) -> Samples:
        return evenly(self._at(polar_lattice(self, count, offset)))
