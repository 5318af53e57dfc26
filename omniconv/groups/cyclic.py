"""Rotations by multiples of an angle."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from omniconv._errors import check_integer
from omniconv.groups._group import Count, Elements
from omniconv.groups.so2 import SO2


@dataclass(frozen=True)
class Cyclic(SO2):
    """The rotations of the plane by multiples of 2 pi / order. An element is its angle, as in `SO2`.

    >>> (Cyclic(4).grid(4).elements[:, 0] * 2 / 3.141592653589793).tolist()
    [0.0, 1.0, 2.0, -1.0]
    """

    order: int = 4
    continuous = (False,)

    def __post_init__(self) -> None:
        check_integer("order", self.order)

    def _at(self, uniform: Tensor) -> Elements:
        return super()._at(whole(uniform, self.order))

    def _lattice(self, count: Count) -> tuple[Tensor, Tensor]:
        numbers, cell = super()._lattice(check_order(self, count, self.order))
        return numbers, 0 * cell


def whole(uniform: Tensor, count: int) -> Tensor:
    """The numbers in [0, 1) brought down to multiples of 1 / count, from which rounding may have taken them."""
    return (uniform * count + 1e-9).floor() / count


def check_order(group: object, count: Count, order: int) -> int:
    """Return the count, or raise unless it is the order of the finite group."""
    if count != order:
        raise ValueError(f"`count` must be {order}, the number of elements of {group}; got {count!r}.")
    return order
