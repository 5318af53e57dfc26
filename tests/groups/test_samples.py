"""Samples of groups: means over them are means over the Haar measure."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from omniconv.groups import GL2, O2, SL2, SO2, SO3, Cyclic, Dihedral, Group, Product, Samples, Scaling
from omniconv.testing.groups import near
from tests.cases import GROUPS

COUNTS: dict[str, int | tuple[int, ...]] = {
    "trivial-1": 1, "trivial": 1, "trivial-3": 1, "cyclic": 4, "cyclic-7": 7, "dihedral": 8, "dihedral-3": 6,
    "so2": 8, "o2": 16, "scaling-1": 3, "scaling": 3, "scaling-3": 2, "sim2": (8, 3), "cyclic-scaling": (8, 3),
    "so3": 24, "similarities-3": (24, 2), "gl2": (8, 2, 3), "gl2-far": (4, 3, 5), "sl2": (8, 3),
}  # fmt: skip


def mean(samples: Samples, values: Tensor) -> Tensor:
    return (samples.weights.reshape(-1, *[1] * (values.ndim - 1)) * values).sum(0)


def polynomials(group: Group, elements: Tensor) -> Tensor:
    """All products of two entries of the matrices."""
    entries = group.matrix(elements).flatten(-2)
    return (entries[..., :, None] * entries[..., None, :]).flatten(-2)


@pytest.mark.parametrize("name", GROUPS)
def test_grids_hold_the_identity_and_weights_that_sum_to_one(name: str) -> None:
    group = GROUPS[name]
    samples = group.grid(COUNTS[name])
    assert samples.elements.dtype == samples.weights.dtype == torch.float64
    assert samples.elements.shape == (len(samples), group.numbers)
    assert samples.weights.sum().item() == pytest.approx(1.0)
    assert group.distance(samples.elements, group.identity()).min().item() < 1e-12
    apart = group.distance(samples.elements[:, None], samples.elements) + torch.eye(len(samples))
    assert apart.min().item() > 1e-2


@pytest.mark.parametrize("group", [SO2(), O2(), Cyclic(5), Dihedral(5), SO3()], ids=str)
@pytest.mark.parametrize("offset", [False, True])
def test_means_over_grids_of_compact_groups_are_invariant(group: Group, offset: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    count = {1: 5, 2: 10, 4: 24}[group.numbers]
    part = torch.rand(group.coordinates, generator=generator, dtype=torch.float64) if offset else None
    samples = group.grid(count, offset=part)
    expected = mean(samples, polynomials(group, samples.elements))
    for element in group.draw(5, generator=generator).elements:
        moved = group.compose(element, samples.elements)
        near(mean(samples, polynomials(group, moved)), expected, "mean of products of entries")


@pytest.mark.parametrize("name", GROUPS)
def test_an_offset_drawn_at_random_gives_the_mean_over_draws(name: str) -> None:
    group, draws = GROUPS[name], 400
    generator = torch.Generator().manual_seed(1)

    def values(samples: Samples) -> Tensor:
        return mean(samples, polynomials(group, samples.elements))

    offsets = torch.rand(draws, group.coordinates, generator=generator, dtype=torch.float64)
    by_grid = torch.stack([values(group.grid(COUNTS[name], offset=offset)) for offset in offsets])
    drawn = polynomials(group, group.draw(20_000, generator=generator).elements)
    error = by_grid.var(0) / draws + drawn.var(0) / len(drawn)
    score = (by_grid.mean(0) - drawn.mean(0)).abs() / (error.sqrt() + 1e-9)
    assert score.max().item() < 4.5


@pytest.mark.parametrize("order", [3, 7, 25, 49, 63])
def test_finite_groups_lose_no_element_in_float32(order: int) -> None:
    numbers = torch.arange(order, dtype=torch.float32)[:, None] / order
    found = (Cyclic(order).at(numbers)[:, 0] * order / (2 * math.pi)).round() % order
    assert found.tolist() == list(range(order))


def test_samples_are_made_on_the_cpu_whatever_the_default_device() -> None:
    for name, group in GROUPS.items():
        with torch.device("meta"):
            samples = group.grid(COUNTS[name])
        assert samples.elements.device.type == "cpu"
        assert samples.to(dtype=torch.float32).weights.dtype == torch.float32
    with torch.device("meta"):
        Product((SO2(), Scaling(2)))


def test_an_offset_stays_within_a_cell() -> None:
    moved = SO2().grid(8, offset=torch.tensor([0.5])).elements - SO2().grid(8).elements
    assert moved[:4, 0].tolist() == pytest.approx([math.pi / 8] * 4)
    scales = Scaling(1, high=8.0).grid(3, offset=torch.tensor([0.5])).elements[:, 0]
    assert scales.log2().tolist() == pytest.approx([0.5, 1.5, 2.5])


@pytest.mark.parametrize("group", [GL2(high=3.0, shear=0.8), SL2(shear=0.8)], ids=str)
def test_stretches_are_drawn_by_the_haar_measure(group: Group) -> None:
    elements = group.draw(40_000, generator=torch.Generator().manual_seed(0)).elements
    r = group.log(elements)[:, -2:].norm(dim=-1)
    grid = torch.linspace(0, 0.8, 2001, dtype=torch.float64)
    density = torch.sinh(2 * grid)  # the area element r dr times sinh(2 r) / (2 r)
    expected = (density * grid).sum() / density.sum()
    assert r.mean().item() == pytest.approx(expected.item(), abs=4 * r.std().item() / 200)
    assert r.max().item() < 0.8


def test_rotations_of_space_are_drawn_by_the_haar_measure() -> None:
    group = SO3()
    angle = group.log(group.draw(40_000, generator=torch.Generator().manual_seed(0)).elements).norm(dim=-1)
    expected = math.pi / 2 + 2 / math.pi  # of the density (1 - cos t) / pi
    assert angle.mean().item() == pytest.approx(expected, abs=4 * angle.std().item() / 200)


def test_spirals_cover_the_rotations_evenly() -> None:
    group = SO3()

    def values(samples: Samples) -> Tensor:
        return mean(samples, polynomials(group, samples.elements))

    exact = values(group.grid(24))
    for count in (60, 200):
        drawn = group.draw(count, generator=torch.Generator().manual_seed(0))
        assert (values(group.grid(count)) - exact).norm() < 0.5 * (values(drawn) - exact).norm()


def test_draws_are_repeatable() -> None:
    group = Product((SO2(), Scaling(2)))
    one, two = (group.draw(5, generator=torch.Generator().manual_seed(3)).elements for _ in range(2))
    assert torch.equal(one, two)
