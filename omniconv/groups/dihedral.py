"""Symmetries of a regular polygon."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv.groups._group import Count, Elements
from omniconv.groups.cyclic import check_order, whole
from omniconv.groups.o2 import O2


@dataclass(frozen=True)
class Dihedral(O2):
    """The rotations by multiples of 2 pi / corners, and as many reflections. An element is that of `O2`.

    >>> len(Dihedral(4).grid(8))
    8
    """

    corners: int = 4
    continuous = (False, False)

    def __post_init__(self) -> None:
        check_integer("corners", self.corners)

    def _at(self, uniform: Tensor) -> Elements:
        return super()._at(torch.cat([whole(uniform[..., :1], self.corners), uniform[..., 1:]], -1))

    def _lattice(self, count: Count) -> tuple[Tensor, Tensor]:
        numbers, cell = super()._lattice(check_order(self, count, 2 * self.corners))
        return numbers, 0 * cell
