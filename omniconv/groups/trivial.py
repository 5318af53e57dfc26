"""No transformation but the translations of the signal itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv.groups._group import Coordinates, Count, Elements, Group, Samples, check_order, evenly


@dataclass(frozen=True)
class Trivial(Group):
    """The group of the identity alone on R^dim; its semidirect product with R^dim are the translations.

    >>> Trivial(2).matrix(Trivial(2).identity()).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    dim: int = 2
    numbers = 0
    continuous = ()
    features = 1
    order = 1

    def __post_init__(self) -> None:
        check_integer("dim", self.dim)

    def _compose(self, g: Elements, h: Elements) -> Elements:
        return torch.broadcast_tensors(g, h)[0]

    def _inverse(self, g: Elements) -> Elements:
        return g

    def _exp(self, a: Coordinates) -> Elements:
        return a

    def _log(self, g: Elements) -> Coordinates:
        return g

    def _matrix(self, g: Elements) -> Tensor:
        return torch.eye(self.dim, dtype=g.dtype, device=g.device).expand(*g.shape[:-1], self.dim, self.dim)

    def _describe(self, g: Elements) -> Tensor:
        return g.new_zeros(*g.shape[:-1], 1)  # kernels are functions of one number at least

    def _density(self, a: Coordinates) -> Tensor:
        return a.new_ones(a.shape[:-1])

    def _at(self, uniform: Tensor) -> Elements:
        return uniform

    def _grid(self, count: Count, offset: Tensor) -> Samples:
        check_order(self, count)
        return evenly(offset[None])
