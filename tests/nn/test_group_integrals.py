"""Layers of a group compute integrals: over space, scales and poses, whatever the samples; and keep the variance."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omniconv._typing import Positions, Values
from omniconv.groups import O2, SO2, SO3, Cyclic, Dihedral, Group, Product, Samples, Scaling
from omniconv.kernels import SIREN, Gabor, KernelFactory
from omniconv.nn import GroupConv, GroupProject, LiftingConv
from omniconv.supports import Disk, Full, SupportFactory
from tests.cases import FACTORIZATIONS
from tests.nn.group_makers import F64, Bump, relative_error, waves

narrow = partial(Bump, width=0.15)
"""Zero to the last digits where the reach ends."""
AT_ALL_SCALES: list[tuple[KernelFactory, SupportFactory, float]] = [
    (narrow, Full, 1e-7),
    (partial(Bump, width=0.3), partial(Disk, radius=0.75), 5e-4),
]


@pytest.mark.parametrize(("kernel", "support", "tolerance"), AT_ALL_SCALES, ids=["full", "disk"])
@pytest.mark.parametrize(("group", "size"), [(Scaling(1, high=8.0), 129), (Scaling(2, high=4.0), 65)], ids=str)
def test_a_constant_looks_the_same_at_all_scales(
    group: Group, size: int, kernel: KernelFactory, support: SupportFactory, tolerance: float
) -> None:
    layer = LiftingConv(
        *(1, 2, size, group, 3), kernel=kernel, support=support, reach=8, boundary="circular", dtype=F64
    )
    y = layer(torch.ones(1, 1, *[size] * group.dim, dtype=F64))
    assert relative_error(y, y[:, :, :1].expand_as(y)) < tolerance


AS_SMOOTH = [
    *AT_ALL_SCALES,
    (partial(Gabor, bandwidth=0.25), partial(Disk, radius=0.75), 5e-3),
    (partial(Gabor, bandwidth=0.5), partial(Disk, radius=0.5, edge=0.5), 2e-3),
]


@pytest.mark.parametrize(("kernel", "support", "tolerance"), AS_SMOOTH, ids=["full", "disk", "gabor", "wide-edge"])
@pytest.mark.parametrize("mixing", ["dense", "separable"])
def test_a_signal_that_is_dilated_moves_by_a_step_along_the_scales(
    kernel: KernelFactory, support: SupportFactory, tolerance: float, mixing: str
) -> None:
    """Scales 1, 2 and 4: what scale 1 saw is seen by scale 2, where the signal is twice as long."""
    layer = LiftingConv(
        *(2, 3, 64, Scaling(1, high=8.0), 3),
        kernel=kernel,
        support=support,
        mixing=mixing,
        reach=8,
        boundary="circular",
        dtype=F64,
    )
    y = layer(waves((1, 2), (64,), highest=6))
    dilated = layer(waves((1, 2), (128,), highest=6))[..., ::2]
    assert relative_error(dilated[:, :, 1:], y[:, :, :-1]) < tolerance
    assert relative_error(dilated[:, :, :-1], y[:, :, :-1]) > 0.1


@pytest.mark.parametrize(
    ("kernel", "tolerance"), [(Bump, 1e-9), (Gabor, 1e-5), (SIREN, 2e-3)], ids=["bump", "gabor", "siren"]
)
@pytest.mark.parametrize("factorization", FACTORIZATIONS)
@pytest.mark.parametrize(("group", "count"), [(SO2(), 8), (O2(), 16)], ids=str)
def test_more_samples_of_the_group_are_the_same_integral(
    group: Group, count: int, factorization: str, kernel: KernelFactory, tolerance: float
) -> None:
    layer = GroupConv(2, 2, 5, group, count, kernel=kernel, factorization=factorization, reach=2, dtype=F64)
    parts = torch.randn(4, 2, 2, 1, 5, 5, dtype=F64)

    def signal(samples: Samples) -> Tensor:
        features = [feature[:, None, None] for feature in group.describe(samples.elements).unbind(-1)]
        return sum((x * feature for x, feature in zip(parts, features, strict=False)), start=parts[-1])

    few, many = layer.samples, group.grid(2 * count)
    shared = group.distance(few.elements[:, None], many.elements).argmin(1)
    y = layer(signal(few))
    assert relative_error(layer(signal(many), many, few), y) < tolerance
    assert relative_error(layer(signal(many), many, many)[:, :, shared], y) < tolerance


RESOLVED: list[tuple[KernelFactory, SupportFactory]] = [
    (partial(Bump, width=0.3), partial(Disk, radius=0.75)),
    (partial(Gabor, bandwidth=0.25), partial(Disk, radius=0.75)),
    (partial(Gabor, bandwidth=0.5), partial(Disk, radius=0.5, edge=0.5)),
]


@pytest.mark.parametrize(("kernel", "support"), RESOLVED, ids=["bump", "gabor", "wide-edge"])
@pytest.mark.parametrize(
    ("group", "count"), [(SO2(), 4), (Product((Cyclic(4), Scaling(2))), (4, 2))], ids=["so2", "scaled"]
)
def test_a_finer_grid_is_the_same_integral(
    group: Group, count: Any, kernel: KernelFactory, support: SupportFactory
) -> None:
    parts: dict[str, Any] = {"kernel": kernel, "support": support, "reach": 6, "boundary": "circular", "dtype": F64}
    lifting = LiftingConv(1, 2, 16, group, count, **parts)
    layer = GroupConv(2, 2, 16, group, count, factorization="separable", **parts)
    few, many = waves((1, 1), (16, 16)), waves((1, 1), (32, 32))
    coarse, fine = lifting(few), lifting(many, spacing=0.5)
    assert relative_error(fine[..., ::2, ::2], coarse) < 0.01
    assert relative_error(layer(fine, spacing=0.5)[..., ::2, ::2], layer(coarse)) < 0.01
    oblong = lifting(waves((1, 1), (32, 16)), spacing=(0.5, 1.0))
    assert relative_error(oblong[..., ::2, :], coarse) < 0.01


def pooled(layer: LiftingConv, x: Tensor, count: int, seeds: range, turn: float = 0.0) -> Tensor:
    """A number that does not know the pose: squares averaged over space, channels and group, for many offsets."""
    results = []
    with torch.no_grad():
        for seed in seeds:
            offset = torch.rand(1, generator=torch.Generator().manual_seed(seed), dtype=F64)
            samples = layer.group.grid(count, offset=offset)
            moved = layer.group.compose(torch.tensor([turn], dtype=F64).expand_as(samples.elements), samples.elements)
            y = layer(x, Samples(moved, samples.weights))
            results.append((y.square().mean((0, 1, 3, 4)) * samples.weights).sum())
    return torch.stack(results)


def test_a_mean_over_random_offsets_does_not_know_the_pose() -> None:
    layer = LiftingConv(1, 2, 9, SO2(), 4, kernel=partial(Gabor, hidden=4, depth=1), reach=3, dtype=F64)
    x = torch.randn(1, 1, 9, 9, dtype=F64)
    one = pooled(layer, x, 4, range(256))
    for turn in (0.4, 2.0):
        other = pooled(layer, x, 4, range(256, 512), turn)
        z = (one.mean() - other.mean()) / (one.var() / len(one) + other.var() / len(other)).sqrt()
        assert abs(z.item()) < 4


class Edge(Bump):
    """The slope of a bump along a direction per channel: it tells how a bar lies."""

    def forward(self, positions: Positions) -> Values:
        return super().forward(positions) * (positions @ nn.functional.normalize(self.centre, dim=1).T)


def bar(turn: float) -> Tensor:
    """A smooth bar, turned about the middle of 33 x 33 samples before it is sampled."""
    axis, far = torch.arange(33, dtype=F64) - 16, torch.linspace(-4, 4, 5, dtype=F64)
    rows, columns = ((axis - far[:, None] * part).square() for part in (math.cos(turn), math.sin(turn)))
    return torch.exp(-(rows[:, :, None] + columns[:, None]) / 4.5).sum(0)[None, None]


def test_outputs_of_networks_whose_layers_draw_do_not_know_the_pose_in_expectation() -> None:
    """Two rotations half a circle apart know it well, unless every layer's offset is drawn from all of its cell."""
    parts: dict[str, Any] = {"support": partial(Disk, radius=0.75), "reach": 4, "dtype": F64, "sampling": "offset"}
    lift = LiftingConv(1, 2, 33, SO2(), 2, kernel=partial(Edge, width=0.35), **parts).train()
    conv = GroupConv(2, 2, 33, SO2(), 2, kernel=Bump, **parts).train()

    @torch.no_grad()
    def energies(turn: float) -> Tensor:
        found, x = [], bar(turn)
        for _ in range(256):
            at, between = lift.draw(), conv.draw()
            y = GroupProject("mean")(conv(lift(x, at).relu(), at, between).relu(), between)
            found.append(y.square().sum())
        return torch.stack(found)

    one = energies(0.0)
    assert one.std() > 0.01 * one.mean()
    for turn in (math.pi / 4, 2.0):
        other = energies(turn)
        z = (one.mean() - other.mean()) / (one.var() / len(one) + other.var() / len(other)).sqrt()
        assert abs(z.item()) < 4


DRAWN: list[tuple[Group, Any, list[float]]] = [
    (SO2(), 8, [2 * math.pi / 8]),
    (O2(), 8, [2 * math.pi / 4]),
    (Scaling(2, high=4.0), 3, [math.log(4.0) / 3]),
    (Product((SO2(), Scaling(2, high=2.0))), (4, 2), [2 * math.pi / 4, math.log(2.0) / 2]),
]
"""Groups, samples, and how long a cell is in each continuous coordinate."""


@pytest.mark.parametrize("lifts", [True, False], ids=["lifting", "group"])
@pytest.mark.parametrize(("group", "count", "cell"), DRAWN, ids=lambda value: str(value))
def test_offsets_that_a_layer_draws_fill_their_cell_evenly(
    group: Group, count: Any, cell: list[float], lifts: bool
) -> None:
    """By the statistic of Kolmogorov and Smirnov, and each draw is the grid moved as a whole."""
    kind = LiftingConv if lifts else GroupConv
    layer = kind(1, 1, 5, group, count, reach=1, sampling="offset").train()
    continuous, draws = torch.tensor(group.continuous), 2000
    parts = []
    for _ in range(draws):
        at = layer.draw()
        shift = group.log(at.elements[0])[continuous]
        moved = group.log(layer.samples.elements)[:, continuous] + shift
        apart = (group.log(at.elements)[:, continuous] - moved).abs()
        assert (torch.minimum(apart, (apart - 2 * math.pi).abs()) < 1e-9).all()
        parts.append(shift / torch.tensor(cell, dtype=F64))
    found = torch.stack(parts).sort(0).values
    assert found.min() >= -1e-9
    assert found.max() <= 1
    ranks = (torch.arange(draws, dtype=F64)[:, None] + 0.5) / draws
    assert (found - ranks).abs().max() < 1.95 / math.sqrt(draws)  # passed by even draws in 999 of 1000 tests
    assert torch.equal(layer.eval().draw().elements, group.grid(count).elements)


def test_offsets_of_rotations_of_space_turn_the_grid_evenly() -> None:
    layer = LiftingConv(1, 1, 3, SO3(), 12, reach=1, sampling="offset").train()
    turns = torch.stack([SO3().matrix(layer.draw().elements[0]) for _ in range(1000)])
    assert (turns.mean(0) / (1 / 3 / len(turns)) ** 0.5).abs().max() < 4  # entries have the mean 0, the variance 1/3


def test_the_variance_over_offsets_falls_with_the_number_of_samples() -> None:
    layer = LiftingConv(1, 2, 9, SO2(), 4, kernel=partial(Gabor, hidden=4, depth=1), reach=3, dtype=F64)
    x = torch.randn(1, 1, 9, 9, dtype=F64)
    spread = [pooled(layer, x, count, range(64)).var().item() for count in (2, 4, 8, 16)]
    assert all(after < 0.5 * before for before, after in pairwise(spread))


CALIBRATED: list[tuple[Group, Any]] = [
    (Cyclic(4), None),
    (Dihedral(4), None),
    (SO2(), 6),
    (Scaling(2, high=2.0), 3),
    (Product((SO2(), Scaling(2, high=2.0))), (4, 2)),
]


@pytest.mark.parametrize(("group", "count"), CALIBRATED, ids=lambda value: str(value))
def test_new_layers_keep_the_variance_of_white_noise(group: Group, count: Any) -> None:
    with torch.no_grad():
        for mixing in ("dense", "separable"):
            lifting = LiftingConv(8, 8, 17, group, count, mixing=mixing, reach=3)
            assert 0.8 < lifting(torch.randn(32, 8, 17, 17)).var().item() < 1.25, mixing
        for factorization in FACTORIZATIONS:
            layer = GroupConv(8, 8, 17, group, count, factorization=factorization, reach=3)
            x = torch.randn(8, 8, len(layer.samples), 17, 17)
            assert 0.8 < layer(x).var().item() < 1.25, factorization


@pytest.mark.parametrize("dim", [1, 2])
def test_new_layers_keep_the_variance_of_noise_that_fills_the_size(dim: int) -> None:
    """Kernels longer than half the signal, of which the edges cut off much."""
    layer = LiftingConv(8, 8, 12, Scaling(dim, high=4.0), 3)
    with torch.no_grad():
        assert 0.8 < layer(torch.randn(128, 8, *[12] * dim)).var().item() < 1.25


def test_the_weights_of_the_inputs_are_those_of_the_mean() -> None:
    layer = GroupConv(2, 3, 5, SO2(), 4, reach=1, bias=False, dtype=F64)
    x = torch.randn(1, 2, 4, 5, 5, dtype=F64)
    weights = torch.tensor([0.5, 0.0, 0.25, 0.25], dtype=F64)
    weighted = layer(x, Samples(layer.samples.elements, weights))
    expected = layer(x * 4 * weights[:, None, None])
    assert relative_error(weighted, expected) < 1e-12
    assert math.isclose(layer.samples.weights.sum().item(), 1.0)
