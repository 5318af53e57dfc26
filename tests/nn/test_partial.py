"""Learned parts of a group: gradients that spread, subsets that come and go, the two ends."""

from __future__ import annotations

import math

import pytest
import torch

from omniconv import convolve
from omniconv.groups import O2, SL2, SO2, Cyclic, Dihedral, Samples
from omniconv.nn import GroupConv, GroupProject, LiftingConv, Partial, refresh
from omniconv.testing import assert_close
from tests.cases import GROUP_SAMPLES, GROUPS

F64 = torch.float64


def part_of(group: str, width: float = 1.0, choice: float = 10.0) -> tuple[Partial, Samples]:
    """A part of that width, and all samples of the group."""
    part = Partial(GROUPS[group], GROUP_SAMPLES[group], dtype=F64)
    with torch.no_grad():
        part.width.fill_(width)
        part.choice.fill_(choice)
    return part, GROUPS[group].grid(GROUP_SAMPLES[group])


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_each_angle_moves_in_proportion_to_its_distance(offset: float) -> None:
    part, _ = part_of("so2", 0.5)
    samples = SO2().grid(8, offset=torch.tensor([offset]))
    angles = part(samples).elements[:, 0]
    slopes = torch.stack([torch.autograd.grad(angle, part.width, retain_graph=True)[0][0] for angle in angles])
    assert_close(slopes, SO2().log(samples.elements)[:, 0])
    with torch.no_grad():
        part.width.add_(1e-6)
        assert_close((part(samples).elements[:, 0] - angles) / 1e-6, slopes, tolerance=1e-8)


@pytest.mark.parametrize("name", GROUPS)
def test_the_full_part_is_the_group(name: str) -> None:
    part, samples = part_of(name)
    found = part(samples)
    distance = GROUPS[name].distance(found.elements, samples.elements)
    assert distance.max() < 1e-12
    assert_close(found.weights, samples.weights)


@pytest.mark.parametrize("name", GROUPS)
def test_the_empty_part_is_the_identity(name: str) -> None:
    part, samples = part_of(name, 0.0, -10.0)
    found = part.eval()(samples)
    kept = found.elements[found.weights > 0]
    assert GROUPS[name].distance(kept, GROUPS[name].identity()).max() < 1e-12
    assert_close(found.weights.sum(), torch.ones((), dtype=F64))


def test_zero_width_is_the_plain_convolution() -> None:
    layer = GroupConv(2, 3, 9, SO2(), 8, reach=2, partial=True, dtype=F64)
    at_rest = Samples(SO2().identity()[None], torch.ones(1, dtype=F64))
    assert layer.partial is not None
    with torch.no_grad():
        layer.partial.width.zero_()
        x = torch.randn(1, 2, 9, 9, dtype=F64)
        part = layer.draw()
        many = layer(x[:, :, None].expand(-1, -1, 8, -1, -1), part, part)
        one = layer(x[:, :, None], at_rest, at_rest)
        assert_close(many, one.expand_as(many), tolerance=1e-12)
        taps = layer._sample(at_rest, at_rest, None)[0]
        assert_close(one[:, :, 0], convolve(x, taps), tolerance=1e-12)


def test_full_width_is_the_full_layer() -> None:
    torch.manual_seed(0)
    full = GroupConv(2, 3, 9, O2(), 8, reach=2, dtype=F64).eval()
    torch.manual_seed(0)
    part = GroupConv(2, 3, 9, O2(), 8, reach=2, partial=True, dtype=F64).eval()
    x = torch.randn(1, 2, 8, 9, 9, dtype=F64)
    assert_close(part(x), full(x))


def test_outputs_are_continuous_in_the_width() -> None:
    layer = GroupConv(2, 3, 9, SO2(), 8, reach=2, partial=True, dtype=F64).eval()
    x = torch.randn(1, 2, 8, 9, 9, dtype=F64)
    assert layer.partial is not None
    with torch.no_grad():
        layer.partial.width.fill_(0.5)
        before = layer(x)
        layer.partial.width.add_(1e-7)
        assert ((layer(x) - before).norm() / before.norm()).item() < 1e-5


@pytest.mark.parametrize("group", [Cyclic(8), Dihedral(4)])
def test_a_subset_can_be_learned_away_and_back(group: Cyclic | Dihedral) -> None:
    part, samples = Partial(group), group.grid()
    with torch.no_grad():
        part.choice.fill_(-10.0)
    kept = torch.stack([part(samples).weights > 0 for _ in range(50)])
    assert kept.sum() == 50, "all but the identity are dropped"
    with torch.no_grad():
        part.choice.fill_(10.0)
    assert torch.stack([part(samples).weights > 0 for _ in range(50)]).all()
    with torch.no_grad():
        part.choice.fill_(0.3)
    share = torch.stack([part(samples).weights > 0 for _ in range(2000)])[:, 1:].double().mean()
    assert abs(share.item() - torch.sigmoid(torch.tensor(0.6)).item()) < 0.02


@pytest.mark.parametrize("logit", [-1.0, 1.0])
def test_every_element_has_a_gradient_kept_or_not(logit: float) -> None:
    group = Cyclic(8)
    part, samples = Partial(group, dtype=F64).eval(), group.grid()
    with torch.no_grad():
        part.choice.fill_(logit)
    values = torch.randn(8, dtype=F64)
    (slope,) = torch.autograd.grad((part(samples).weights * values).sum(), part.choice)
    assert (slope.abs() > 1e-6).all()


def test_reflections_are_chosen_and_rotations_shrink() -> None:
    part, samples = part_of("o2", 0.25, -10.0)
    found = part.eval()(samples)
    assert part.width.shape == (1,)
    assert part.choice.shape == (1,)
    assert (found.weights[4:] == 0).all()
    assert_close(found.weights[:4], torch.full((4,), 0.25, dtype=F64))
    assert found.elements[:4, 0].abs().max() <= math.pi / 4 + 1e-12


def test_weights_follow_the_density_of_the_group() -> None:
    group = SL2(shear=1.0)
    samples = group.grid((1, 4000))
    part = Partial(group, (1, 4000), dtype=F64)
    with torch.no_grad():
        part.width.fill_(0.5)
    found = part(samples)
    radius = group.log(found.elements)[:, 1:].norm(dim=1)  # sinh(2 r) dr on [0, 1/2): half of it below r_half
    half = math.acosh((1 + math.cosh(1.0)) / 2) / 2
    assert abs(found.weights[radius < half].sum().item() - 0.5) < 0.01


def test_gradients_reach_the_width_through_the_next_layer() -> None:
    torch.manual_seed(0)
    lift = LiftingConv(1, 4, 9, SO2(), 8, reach=2)
    first, second = (GroupConv(4, 4, 9, SO2(), 8, reach=2, partial=True) for _ in range(2))
    part = first.draw()
    y = second(first(lift(torch.randn(2, 1, 9, 9)), outputs=part).relu(), part, second.draw())
    y.square().sum().backward()
    for layer in (first, second):
        assert layer.partial is not None
        assert layer.partial.width.grad is not None
        assert layer.partial.width.grad.abs().item() > 0


def test_a_width_beyond_its_bounds_has_a_slope_and_comes_back() -> None:
    layer = GroupConv(1, 1, 5, SO2(), 4, reach=1, partial=True)
    assert layer.partial is not None
    with torch.no_grad():
        layer.partial.width.fill_(1.5)
    (slope,) = torch.autograd.grad(layer.draw().elements.abs().sum(), layer.partial.width)
    assert slope.item() > 0
    assert layer.partial.widths.item() == 1.0
    refresh(layer)
    assert layer.partial.width.item() == 1.0


def test_random_outputs_have_to_be_given() -> None:
    x = torch.randn(1, 1, 4, 5, 5)
    for layer in (
        GroupConv(1, 1, 5, SO2(), 4, reach=1, sampling="offset"),
        GroupConv(1, 1, 5, Cyclic(4), reach=1, partial=True),
    ):
        with pytest.raises(ValueError, match="`outputs` must be given in training"):
            layer(x)
        assert layer(x, outputs=layer.draw()).shape == x.shape
        assert layer.eval()(x).shape == x.shape


@pytest.mark.parametrize("sampling", ["offset", "independent"])
def test_draws_are_random_in_training_and_the_grid_at_evaluation(sampling: str) -> None:
    layer = LiftingConv(1, 1, 5, SO2(), 4, reach=1, sampling=sampling)
    first, second = layer.draw(), layer.draw()
    assert not torch.equal(first.elements, second.elements)
    torch.manual_seed(1)
    again = layer.draw()
    torch.manual_seed(1)
    assert torch.equal(again.elements, layer.draw().elements)
    assert torch.equal(layer.eval().draw().elements, SO2().grid(4).elements)


def test_the_part_is_kept_at_evaluation_until_the_width_changes() -> None:
    layer = GroupConv(1, 1, 5, SO2(), 4, reach=1, partial=True).eval()
    assert layer.partial is not None
    with torch.no_grad():
        assert layer.draw().elements is layer.draw().elements
        before = layer.draw().elements
        layer.partial.width.mul_(0.5)
        assert not torch.equal(layer.draw().elements, before)


def test_a_choice_with_a_fixed_grid_draws_no_other_elements() -> None:
    layer = GroupConv(1, 1, 5, O2(), 8, reach=1, partial=True)
    assert_close(layer.draw().elements, O2().grid(8).elements)


def test_a_maximum_is_felt_by_the_weights_it_is_part_of() -> None:
    part = Partial(Cyclic(4), dtype=F64).eval()
    x = torch.rand(1, 1, 4, 3, 3, dtype=F64) + 0.5
    y = GroupProject("max")(x, part(Cyclic(4).grid()))
    assert torch.equal(y, x.amax(2))
    (slope,) = torch.autograd.grad(y.sum(), part.choice)
    assert (slope != 0).all()


def test_elements_that_are_dropped_leave_gradients_finite() -> None:
    part = Partial(Cyclic(4), dtype=F64).eval()
    with torch.no_grad():
        part.choice[1] = -5.0
    x = torch.randn(1, 1, 4, 3, 3, dtype=F64, requires_grad=True)
    found = part(Cyclic(4).grid())
    y = GroupProject("max")(x, found)
    assert torch.equal(y, x[:, :, found.weights > 0].amax(2))
    for slope in torch.autograd.grad(y.sum(), [x, part.choice]):
        assert slope.isfinite().all()
