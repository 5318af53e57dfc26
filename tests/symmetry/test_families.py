"""Distributions of poses: levels are recovered, strays do no harm, and the right family is the likeliest."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from omniconv.symmetry import Cyclic, Family, Gaussian, Uniform
from omniconv.symmetry.found import OWN

FAMILIES: list[Family] = [kind() for kind in OWN]
COUNT, NEIGHBOURS = 400, 45


def wrapped(angles: Tensor) -> Tensor:
    return torch.remainder(angles + math.pi, 2 * math.pi) - math.pi


def uniform(half: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return half * (2 * torch.rand(COUNT, NEIGHBOURS, generator=generator, dtype=torch.float64) - 1)


def gaussian(deviation: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return wrapped(deviation * torch.randn(COUNT, NEIGHBOURS, generator=generator, dtype=torch.float64))


def cyclic(order: int, deviation: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(order, (COUNT, NEIGHBOURS), generator=generator)
    return wrapped(2 * math.pi / order * which + gaussian(deviation, seed + 1))


def with_strays(angles: Tensor) -> Tensor:
    """One angle in fifteen is that of something else, anywhere."""
    angles = angles.clone()
    angles[:, ::15] = uniform(math.pi, 9)[:, ::15]
    return angles


@pytest.mark.parametrize("half", [18, 60, 90, 126, 180])
def test_a_half_width_is_recovered(half: int) -> None:
    """The bias is below 3 degrees."""
    found = torch.rad2deg(Uniform().estimate(uniform(math.radians(half))))[:, 0]
    assert abs(found.mean().item() - half) < (3 if half < 180 else 8)  # no estimate is above 180
    assert found.max() <= 180


@pytest.mark.parametrize("deviation", [9, 18, 36, 54])
def test_a_deviation_is_recovered(deviation: int) -> None:
    found = torch.rad2deg(Gaussian().estimate(gaussian(math.radians(deviation))))[:, 0]
    assert abs(found.mean().item() - deviation) < 3


@pytest.mark.parametrize("order", range(1, 9))
def test_every_order_is_recovered(order: int) -> None:
    found = Cyclic().estimate(cyclic(order, 0.08))
    assert (found[:, 0] == order).all()
    assert abs(found[:, 1].mean().item() - 0.08) < 0.01


def test_strays_move_levels_little() -> None:
    assert abs(torch.rad2deg(Uniform().estimate(with_strays(uniform(math.pi / 6)))).mean().item() - 30) < 5
    assert abs(torch.rad2deg(Gaussian().estimate(with_strays(gaussian(0.2)))).mean().item() - math.degrees(0.2)) < 3
    found = Cyclic().estimate(with_strays(cyclic(4, 0.1)))
    assert (found[:, 0] == 4).double().mean() > 0.99


def test_outliers_are_left_out_of_a_mean_and_zeros_are_not() -> None:
    """An upright signal is no outlier, and counts."""
    angles = torch.tensor([0.0, 0.0, 0.2, -0.2, 0.2, -0.2, 0.0, 0.0, 0.1, -0.1, 3.0])
    assert Uniform().estimate(angles).item() == pytest.approx(2 * 1.0 / 10)


def test_the_sign_of_an_angle_counts_where_it_must() -> None:
    """A third of a turn forth and back are different places: folded to one side they would be two of six."""
    assert Cyclic().estimate(torch.tensor([0.0, 2.0944, -2.0944] * 10))[0] == 3
    assert Cyclic().estimate(torch.tensor([0.0, 2.0944] * 15))[0] == 3


@pytest.mark.parametrize(
    ("angles", "right"),
    [
        (uniform(math.pi / 3), Uniform),
        (uniform(math.pi), Uniform),
        (uniform(0.2), Uniform),
        (gaussian(0.2), Gaussian),
        (gaussian(0.7), Gaussian),
        (cyclic(2, 0.15), Cyclic),
        (cyclic(4, 0.15), Cyclic),
        (cyclic(8, 0.05), Cyclic),
    ],
)
def test_the_right_family_has_the_most_evidence(angles: Tensor, right: type[Family]) -> None:
    evidence = {type(family): family.evidence(angles).mean().item() for family in FAMILIES}
    assert max(evidence, key=lambda kind: evidence[kind]) is right


@given(half=st.floats(0.0, math.pi), deviation=st.floats(0.0, 3.0), order=st.integers(1, 8))
def test_densities_are_those_of_a_circle(half: float, deviation: float, order: int) -> None:
    """They integrate to 1."""
    angles = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)[:-1]
    levels = [[half], [deviation], [float(order), deviation]]
    for family, level in zip(FAMILIES, levels, strict=True):
        total = family.log_density(angles, torch.tensor(level, dtype=torch.float64)).exp().mean() * 2 * math.pi
        assert abs(total.item() - 1) < 0.01, family


@given(deviation=st.floats(0.05, 3.0), order=st.integers(1, 8))
def test_densities_of_normal_angles_are_sums_over_all_turns(deviation: float, order: int) -> None:
    angles = torch.linspace(-math.pi, math.pi, 721, dtype=torch.float64)
    turns = torch.arange(-60, 61, dtype=torch.float64)

    def summed(turn: float) -> Tensor:
        x = (angles[:, None] + turn * turns) / deviation
        return torch.exp(-0.5 * x.square()).sum(1) / (deviation * math.sqrt(2 * math.pi))

    levels = torch.tensor([deviation]), torch.tensor([float(order), deviation])
    expected = summed(2 * math.pi), summed(2 * math.pi / order) / order
    for family, level, density in zip((Gaussian(), Cyclic()), levels, expected, strict=True):
        found = family._density(angles, level.double())
        assert (found - density).abs().max() < 1e-3 * density.max(), family


def test_angles_that_are_all_the_same_are_no_strays() -> None:
    """Their mean may be rounded to less than each of them."""
    for angle in torch.cat([torch.linspace(-3, 3, 601), 1e-25 * torch.linspace(1, 3, 101)]):
        same = angle.repeat(45)
        assert Uniform().estimate(same).item() == pytest.approx(min(2 * abs(angle.item()), math.pi), rel=1e-5, abs=0)
        assert all(bool(family.evidence(same).isfinite()) for family in FAMILIES)


def test_evidence_is_that_of_the_bayesian_criterion() -> None:
    angles = gaussian(0.3)[:3]
    for family in FAMILIES:
        best = family.log_density(angles, family.estimate(angles)).mean(-1)
        gain = len(family.numbers) * math.log(NEIGHBOURS) / (2 * NEIGHBOURS)
        torch.testing.assert_close(family.evidence(angles), best - gain)


@given(scale=st.floats(0.01, 1.0), seed=st.integers(0, 100))
def test_estimates_are_of_every_row_for_itself_and_of_both_sides_alike(scale: float, seed: int) -> None:
    angles = uniform(scale * math.pi, seed)[:5]
    for family in FAMILIES:
        levels = family.estimate(angles)
        torch.testing.assert_close(family.estimate(-angles), levels)
        torch.testing.assert_close(family.estimate(angles.flip(-1)), levels)
        torch.testing.assert_close(torch.stack([family.estimate(row) for row in angles]), levels)


def test_what_is_farther_than_the_distribution_goes_is_told() -> None:
    angles = torch.tensor([0.0, 0.5, -0.5, 1.5, -1.5, 3.0])
    assert (Uniform().excess(angles, torch.tensor([1.0])) > 0).tolist() == [False] * 3 + [True] * 3
    assert (Gaussian().excess(angles, torch.tensor([0.3])) > 0).tolist() == [False] * 3 + [True] * 3
    cyclic_excess = Cyclic().excess(angles, torch.tensor([4.0, 0.05]))
    assert (cyclic_excess > 0).tolist() == [False, True, True, False, False, True]
    assert Uniform().excess(torch.tensor(1.25), torch.tensor([1.0])).item() == pytest.approx(0.25)


def test_levels_are_told_in_words() -> None:
    assert Uniform().tell(torch.tensor([math.pi / 3])) == "up to 60°, all alike"
    assert Gaussian().tell(torch.tensor([0.2])) == "upright, ± 11°"
    assert Cyclic().tell(torch.tensor([4.0, 0.1])) == "multiples of 90°, each ± 6°"
    assert Cyclic().tell(torch.tensor([7.0, 0.1])) == "multiples of 51.4286°, each ± 6°"
    assert Cyclic().tell(torch.tensor([1.0, 0.2])) == "upright, ± 11°"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda family: family.estimate([0.1]), TypeError, "`angles` must be a torch.Tensor"),
        (lambda family: family.estimate(torch.tensor([1])), TypeError, "`angles` must hold floating-point numbers"),
        (lambda family: family.estimate(torch.zeros(3, 0)), ValueError, "one angle at least"),
        (lambda family: family.estimate(torch.tensor(1.0)), ValueError, "one angle at least"),
        (lambda family: family.log_density(torch.zeros(3), torch.zeros(3)), ValueError, r"`level` must be \(\*batch"),
        (lambda family: family.excess(torch.zeros(3), torch.zeros(())), ValueError, r"`level` must be \(\*batch"),
    ],
)
def test_what_is_wrong_is_named(family: Family, call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(family)


def test_an_order_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="`most` must be at least 1"):
        Cyclic(most=0)
