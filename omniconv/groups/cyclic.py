"""Rotations by multiples of an angle."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv.groups._group import Count, Elements, Samples, check_order, evenly, line, whole, wrap
from omniconv.groups.so2 import PlaneRotations


@dataclass(frozen=True)
class Cyclic(PlaneRotations):
    """The rotations of the plane by multiples of 2 pi / order. An element is its angle, as in `SO2`.

    >>> (Cyclic(4).grid().elements[:, 0] * 2 / 3.141592653589793).tolist()
    [0.0, 1.0, 2.0, -1.0]
    """

    order: int = 4
    continuous = (False,)

    def __post_init__(self) -> None:
        check_integer("order", self.order)

    def _at(self, uniform: Tensor) -> Elements:
        return wrap(2 * torch.pi * whole(uniform, self.order))

    def _grid(self, count: Count, offset: Tensor) -> Samples:
        return evenly(self._at(line(check_order(self, count), torch.zeros_like(offset))))
