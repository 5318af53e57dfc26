"""Symmetries of a regular polygon."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv.groups._group import Count, Elements, Samples, check_order, evenly, line, whole
from omniconv.groups.o2 import PlaneIsometries, both


@dataclass(frozen=True)
class Dihedral(PlaneIsometries):
    """The rotations by multiples of 2 pi / corners, and as many reflections. An element is that of `O2`.

    >>> len(Dihedral(4).grid())
    8
    """

    corners: int = 4
    continuous = (False, False)

    def __post_init__(self) -> None:
        check_integer("corners", self.corners)

    @property
    def order(self) -> int:  # type: ignore[override]
        """Rotations and reflections together."""
        return 2 * self.corners

    def _at(self, uniform: Tensor) -> Elements:
        return self._exp(torch.stack([2 * torch.pi * whole(uniform[..., 0], self.corners), uniform[..., 1]], -1))

    def _grid(self, count: Count, offset: Tensor) -> Samples:
        return evenly(self._at(both(line(check_order(self, count) // 2, torch.zeros_like(offset[:1])))))
