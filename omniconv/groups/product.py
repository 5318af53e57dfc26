"""Direct products of groups that commute."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from omniconv.groups._group import Coordinates, Count, Elements, Group, Samples, times

NEAR = 1e-6
"""Elements that differ by less are the same."""


@dataclass(frozen=True)
class Product(Group):
    """The transformations that are one of each factor, one after the other, where their order does not matter.

    `factors`: two groups or more that act on the same space and commute, as rotations and scalings do. An element is
    the elements of the factors, side by side, and so are its coordinates and features. Factors should have nothing but
    the identity in common: elements that act alike are told apart. Raises `ValueError` for factors that do not commute.

    >>> from omniconv.groups import SO2, Scaling
    >>> group = Product((SO2(), Scaling(2)))
    >>> len(group.grid((8, 3)))
    24
    """

    factors: tuple[Group, ...]

    def __post_init__(self) -> None:
        if (
            not isinstance(self.factors, tuple)
            or len(self.factors) < 2
            or not all(isinstance(factor, Group) for factor in self.factors)
        ):
            raise TypeError(f"`factors` must be a tuple of two groups or more; got {self.factors!r}.")
        if len({factor.dim for factor in self.factors}) > 1:
            dims = [factor.dim for factor in self.factors]
            raise ValueError(f"`factors` must act on the same space; got groups on spaces of {dims} dimensions.")
        matrices = [probe(factor) for factor in self.factors]
        for i, first in enumerate(matrices):
            for j, second in enumerate(matrices[:i]):
                if not torch.allclose(first[:, None] @ second, second @ first[:, None]):
                    raise ValueError(f"`factors` must commute; {self.factors[i]} and {self.factors[j]} do not.")

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Of the space on which all factors act."""
        return self.factors[0].dim

    @property
    def numbers(self) -> int:  # type: ignore[override]
        """Of all factors together."""
        return sum(factor.numbers for factor in self.factors)

    @property
    def features(self) -> int:  # type: ignore[override]
        """Of all factors together."""
        return sum(factor.features for factor in self.factors)

    @property
    def continuous(self) -> tuple[bool, ...]:  # type: ignore[override]
        """Those of the factors, one after the other."""
        return tuple(flag for factor in self.factors for flag in factor.continuous)

    @property
    def order(self) -> int | None:  # type: ignore[override]
        """The product of the factors' orders; None if one is infinite."""
        orders = [factor.order for factor in self.factors if factor.order is not None]
        return math.prod(orders) if len(orders) == len(self.factors) else None

    @property
    def magnification(self) -> float:  # type: ignore[override]
        """That of the factors one after the other."""
        return math.prod(factor.magnification for factor in self.factors)

    def parts(self, g: Elements) -> list[Elements]:
        """The elements of the factors."""
        return list(g.split([factor.numbers for factor in self.factors], -1))

    def _charts(self, a: Coordinates) -> list[Coordinates]:
        return list(a.split([factor.coordinates for factor in self.factors], -1))

    def _compose(self, g: Elements, h: Elements) -> Elements:
        pairs = zip(self.factors, self.parts(g), self.parts(h), strict=True)
        return torch.cat([factor._compose(first, second) for factor, first, second in pairs], -1)

    def _inverse(self, g: Elements) -> Elements:
        return torch.cat([factor._inverse(part) for factor, part in zip(self.factors, self.parts(g), strict=True)], -1)

    def _exp(self, a: Coordinates) -> Elements:
        return torch.cat([factor._exp(part) for factor, part in zip(self.factors, self._charts(a), strict=True)], -1)

    def _log(self, g: Elements) -> Coordinates:
        return torch.cat([factor._log(part) for factor, part in zip(self.factors, self.parts(g), strict=True)], -1)

    def _outside(self, g: Elements) -> Tensor | None:
        found = [factor._outside(part) for factor, part in zip(self.factors, self.parts(g), strict=True)]
        where = [part for part in found if part is not None]
        return torch.stack(where).any(0) if where else None

    def _matrix(self, g: Elements) -> Tensor:
        matrices = [factor._matrix(part) for factor, part in zip(self.factors, self.parts(g), strict=True)]
        return reduce(times, matrices)

    def _describe(self, g: Elements) -> Tensor:
        return torch.cat([factor._describe(part) for factor, part in zip(self.factors, self.parts(g), strict=True)], -1)

    def _density(self, a: Coordinates) -> Tensor:
        parts = zip(self.factors, self._charts(a), strict=True)
        return torch.stack([factor._density(part) for factor, part in parts]).prod(0)

    def _at(self, uniform: Tensor) -> Elements:
        parts = zip(self.factors, self._charts(uniform), strict=True)
        return torch.cat([factor._at(part) for factor, part in parts], -1)

    def _all(self) -> Count:
        return tuple(factor._all() for factor in self.factors)  # type: ignore[misc]  # a product's is a tuple again

    def _grid(self, count: Count, offset: Tensor) -> Samples:
        if not isinstance(count, tuple) or len(count) != len(self.factors):
            raise ValueError(f"`count` must be {len(self.factors)} numbers, one per factor of {self}; got {count!r}.")
        parts = zip(self.factors, count, self._charts(offset), strict=True)
        grids = [factor._grid(number, part) for factor, number, part in parts]
        weights = cartesian([grid.weights[:, None] for grid in grids]).prod(-1)
        return Samples(cartesian([grid.elements for grid in grids]), weights, counts=tuple(map(len, grids)))

    def combines(self, samples: Samples, counts: tuple[int, ...]) -> bool:
        """Whether these are every one with every other of so many elements of each factor, the last changing fastest,
        and the weights products too. What is not known of the samples is looked up in their numbers.
        """
        if samples.counts is not None or len(samples) != math.prod(counts):
            return samples.counts == counts
        elements, weights = samples.elements.unflatten(0, counts), samples.weights.detach().unflatten(0, counts)
        product = torch.ones_like(weights[(0,) * len(counts)])
        for axis, (factor, part) in enumerate(zip(self.factors, self.parts(elements), strict=True)):
            others = [other for other in range(len(counts)) if other != axis]
            first = part
            for other in others:
                first = first.narrow(other, 0, 1)
            if bool((factor.distance(first.expand_as(part), part) > NEAR).any()):
                return False
            product = product * weights.sum(others, keepdim=True)
        return bool(((product - weights).abs() <= NEAR * weights.max()).all())


def probe(group: Group) -> Tensor:
    """Matrices of some elements, by which it is seen whether groups commute."""
    return group.matrix(group.draw(8, generator=torch.Generator("cpu").manual_seed(0)).elements)


def cartesian(parts: list[Tensor]) -> Tensor:
    """Every row of the first with every row of the second and so on, side by side; the last changes fastest."""
    joined = parts[0]
    for part in parts[1:]:
        left, right = len(joined), len(part)
        joined = torch.cat([joined.repeat_interleave(right, 0), part.repeat(left, 1)], -1)
    return joined
