"""The laws of every group on elements from anywhere in its chart, far beyond what is sampled, in float64.

Errors are at most 1e-12, relative to the size of the numbers: the product of the norms of the matrices that take part.
Where a law holds an inverse, or the logarithm of a matrix, no algorithm does better than the rounding of its input,
which it magnifies by the condition number |g| |g^-1|: then 1e-12 is times that of the elements that take part. It is 1
for rotations, reflections and scalings, 3e5 for the most stretched matrices here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from omniconv.groups import (
    GL2,
    O2,
    SL2,
    SO2,
    SO3,
    Cyclic,
    Dihedral,
    Group,
    Product,
    Scaling,
    SemidirectProduct,
    Trivial,
)
from tests.cases import GROUPS

EXACT = 1e-12
FAR = 12.0
"""Largest logarithm of a scale: from 6e-6 to 2e5."""
STRETCH = 6.0
"""Largest stretch: the condition number of a matrix is up to exp(2 STRETCH), nearly singular."""


def within(far: float) -> st.SearchStrategy[float]:
    """Numbers up to so far, the ends and small ones among them."""
    return st.one_of(st.floats(-1, 1), st.floats(-far, far), st.sampled_from([-far, 0.0, far]))


ANGLE, SCALE, STRETCHES = within(math.pi), within(FAR), st.tuples(*[within(STRETCH / math.sqrt(2))] * 2)


def turns(order: int) -> st.SearchStrategy[float]:
    """Angles of a finite group."""
    return st.integers(0, order - 1).map(lambda i: 2 * math.pi * i / order)


def rotation_vectors() -> st.SearchStrategy[tuple[float, ...]]:
    """Of a length up to pi."""
    directions = st.tuples(*[st.floats(-1, 1)] * 3)
    lengths = st.one_of(st.floats(0, math.pi), st.sampled_from([0.0, 1e-9, math.pi]))
    return st.tuples(directions, lengths).map(
        lambda drawn: tuple(drawn[1] * part / (math.hypot(*drawn[0]) or 1.0) for part in drawn[0])
    )


# A new group needs no line: without one its elements are those that it samples.
CHARTS: dict[type[Group], Callable[[Group], st.SearchStrategy[tuple[float, ...]]]] = {
    Trivial: lambda group: st.just(()),
    Cyclic: lambda group: st.tuples(turns(group.order or 1)),
    Dihedral: lambda group: st.tuples(turns((group.order or 2) // 2), st.sampled_from([0.0, 1.0])),
    SO2: lambda group: st.tuples(ANGLE),
    O2: lambda group: st.tuples(ANGLE, st.sampled_from([0.0, 1.0])),
    Scaling: lambda group: st.tuples(SCALE),
    SO3: lambda group: rotation_vectors(),
    GL2: lambda group: st.tuples(ANGLE, SCALE, STRETCHES).map(lambda drawn: (*drawn[:2], *drawn[2])),
    SL2: lambda group: st.tuples(ANGLE, STRETCHES).map(lambda drawn: (drawn[0], *drawn[1])),
    Product: lambda group: st.tuples(*[chart(factor) for factor in group.factors]).map(  # type: ignore[attr-defined]
        lambda parts: tuple(number for part in parts for number in part)
    ),
}


def sampled(group: Group) -> st.SearchStrategy[tuple[float, ...]]:
    """Coordinates of elements within what a group samples, which its contract gives."""
    uniform = st.tuples(*[st.floats(0, 1, exclude_max=True)] * group.coordinates)
    return uniform.map(lambda drawn: tuple(group.log(group.at(torch.tensor(drawn, dtype=torch.float64))).tolist()))


def chart(group: Group) -> st.SearchStrategy[tuple[float, ...]]:
    """Coordinates of elements: from all of the chart where it is known here."""
    return CHARTS.get(type(group), sampled)(group)


def element(group: Group, drawn: tuple[float, ...]) -> Tensor:
    """With these coordinates."""
    return group.exp(torch.tensor(drawn, dtype=torch.float64))


def norm(group: Group, *elements: Tensor) -> float:
    """The product of the norms of the matrices."""
    return math.prod(torch.linalg.matrix_norm(group.matrix(g), ord=2).item() for g in elements)


def condition(group: Group, *elements: Tensor) -> float:
    """The product of the condition numbers of the matrices."""
    values = [torch.linalg.svdvals(group.matrix(g)) for g in elements]
    return math.prod((found[0] / found[-1]).item() for found in values)


def near(actual: Tensor, expected: Tensor, size: float) -> None:
    """Raise unless the numbers differ by at most 1e-12 of the size."""
    assert actual.isfinite().all()
    assert ((actual - expected).abs() <= EXACT * size).all(), (actual, expected, size)


def same(group: Group, actual: Tensor, expected: Tensor, size: float) -> None:
    """Raise unless the matrices agree, and where the group has components or angles, these."""
    near(group.matrix(actual), group.matrix(expected), size)
    near(group.describe(actual), group.describe(expected), size / norm(group, expected) * condition(group, expected))


class New(GL2):
    """A group without a line in `CHARTS`."""


@given(data=st.data())
def test_a_group_without_a_chart_here_is_drawn_from_by_its_contract(data: st.DataObject) -> None:
    for group in (New(), Product((New(), Trivial(2)))):
        g = element(group, data.draw(chart(group)))
        near(
            group.act(group.inverse(g), group.act(g, torch.ones(2, dtype=torch.float64))),
            torch.ones(2),
            condition(group, g),
        )


@pytest.mark.parametrize("name", GROUPS)
@given(data=st.data())
def test_products_are_elements_associative_and_those_of_the_matrices(name: str, data: st.DataObject) -> None:
    group = GROUPS[name]
    g, h, k = (element(group, data.draw(chart(group))) for _ in range(3))
    point = torch.tensor(data.draw(st.tuples(*[st.floats(-10, 10)] * group.dim)), dtype=torch.float64)
    product = group.compose(g, h)
    near(group.matrix(product), group.matrix(g) @ group.matrix(h), norm(group, g, h))
    near(group.act(product, point), group.act(g, group.act(h, point)), norm(group, g, h) * (1 + point.norm().item()))
    left, right = group.compose(product, k), group.compose(g, group.compose(h, k))
    near(group.matrix(left), group.matrix(right), norm(group, g, h, k))
    if group.order is not None:  # closure
        assert group.distance(product, group.grid().elements).min() < EXACT
    determinant = group.determinant(g) * group.determinant(h)
    near(group.determinant(product), determinant, determinant.item() * condition(group, g, h))


@pytest.mark.parametrize("name", GROUPS)
@given(data=st.data())
def test_identity_and_inverse_undo(name: str, data: st.DataObject) -> None:
    group = GROUPS[name]
    g, identity = element(group, data.draw(chart(group))), group.identity()
    for product in (group.compose(g, identity), group.compose(identity, g)):
        same(group, product, g, norm(group, g))
    for product in (group.compose(g, group.inverse(g)), group.compose(group.inverse(g), g)):
        near(group.matrix(product), torch.eye(group.dim, dtype=torch.float64), condition(group, g))
    near(group.matrix(group.inverse(group.inverse(g))), group.matrix(g), norm(group, g) * condition(group, g))


@pytest.mark.parametrize("name", GROUPS)
@given(data=st.data())
def test_logarithms_are_undone(name: str, data: st.DataObject) -> None:
    group = GROUPS[name]
    a = torch.tensor(data.draw(chart(group)), dtype=torch.float64)
    g = group.exp(a)
    assert group.log(g).shape == a.shape
    size = norm(group, g) * condition(group, g) * (1 + a.abs().sum().item())
    same(group, group.exp(group.log(g)), g, size)


@pytest.mark.parametrize("name", GROUPS)
@given(data=st.data())
def test_distances_stay_when_both_elements_are_moved(name: str, data: st.DataObject) -> None:
    group = GROUPS[name]
    g, h, k = (element(group, data.draw(chart(group))) for _ in range(3))
    apart = group.distance(g, h)
    size = condition(group, g, h) * (1 + apart.item())
    near(group.distance(h, g), apart, size)
    near(group.distance(g, g), torch.zeros((), dtype=torch.float64), condition(group, g))
    near(group.distance(group.compose(k, g), group.compose(k, h)), apart, size * condition(group, k))


@pytest.mark.parametrize("name", GROUPS)
@given(data=st.data())
def test_coordinates_of_affine_maps_are_undone(name: str, data: st.DataObject) -> None:
    group = GROUPS[name]
    affine, drawn = SemidirectProduct(group), data.draw(chart(group))
    shift = data.draw(st.tuples(*[st.floats(-10, 10)] * group.dim))
    g = affine.exp(torch.tensor([*shift, *drawn], dtype=torch.float64))
    again = affine.exp(affine.log(g))
    assert torch.equal(again[0], g[0])
    size = norm(group, g[1]) * condition(group, g[1]) * (1 + sum(map(abs, drawn)))
    near(group.matrix(again[1]), group.matrix(g[1]), size)
    assert torch.equal(affine.log(affine.identity()), torch.zeros(group.dim + group.coordinates, dtype=torch.float64))


@pytest.mark.parametrize(
    ("group", "numbers"),
    [
        (GL2(), [1.0, 0.0, 0.0, -1.0]),
        (GL2(), [1.0, 2.0, 2.0, 4.0]),
        (SL2(), [0.0, 1.0, 1.0, 0.0]),
        (Scaling(2), [-2.0]),
        (Scaling(1), [0.0]),
        (Product((SO2(), Scaling(2))), [0.5, -1.0]),
        (Scaling(3), [math.nan]),
    ],
)
def test_what_is_no_element_has_no_logarithm(group: Group, numbers: list[float]) -> None:
    bad = torch.tensor(numbers, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"`g` must be elements of .*; got \["):
        group.log(bad)
    with pytest.raises(ValueError, match=r"`g` must be elements of"):
        group.log(torch.stack([group.identity(), bad]))
    with pytest.raises(ValueError, match=r"`g` and `h` must be elements of"):
        group.distance(group.identity(), bad)


def test_bad_coordinates_of_affine_maps_are_named() -> None:
    with pytest.raises(ValueError, match="`a` must have 3 numbers on its last axis"):
        SemidirectProduct(SO2()).exp(torch.zeros(2))
