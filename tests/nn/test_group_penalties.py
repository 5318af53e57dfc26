"""Penalties on what layers learn about symmetry."""

from __future__ import annotations

import math

import torch
from torch import nn

from omniconv.groups import O2, SO2, Scaling
from omniconv.nn import GroupConv, LiftingConv, Partial, admissibility, kernel_norm, narrowness, regrowth, relaxation


def part(width: float) -> Partial:
    """A part of the rotations of that width."""
    made = Partial(SO2(), 4)
    nn.init.constant_(made.width, width)
    return made


def test_narrowness_is_the_logarithm_of_widths_and_probabilities() -> None:
    total = narrowness(nn.ModuleList([part(1.0), part(0.5)])).item()
    assert abs(total - math.log(2.0)) < 1e-6
    mirrored = Partial(O2(), 4)
    assert abs(narrowness(mirrored).item() + math.log(1 / (1 + math.exp(-2.0)))) < 1e-6
    assert narrowness(part(0.0)).isfinite()
    assert narrowness(nn.ReLU()).item() == 0.0


def test_regrowth_counts_what_widens() -> None:
    assert abs(regrowth(nn.ModuleList([part(0.5), part(0.7), part(0.1)])).item() - 0.2) < 1e-6


def test_relaxation_is_the_square_of_the_amounts() -> None:
    model = nn.ModuleList([GroupConv(1, 1, 5, SO2(), 4, reach=1, relaxed=1) for _ in range(2)])
    assert abs(relaxation(model).item() - 2e-4) < 1e-9
    (slope,) = torch.autograd.grad(relaxation(model), model[0].get_parameter("relaxation.modulation.amount"))
    assert abs(slope.item() - 0.02) < 1e-7


def test_the_norm_of_kernels_counts_those_on_groups() -> None:
    layer = LiftingConv(1, 2, 7, SO2(), 4, reach=2)
    (taps, _), *rest = layer.flattened(layer.inputs, layer.samples)
    assert not rest
    assert torch.equal(kernel_norm(nn.Sequential(layer)), taps.square().sum())


def test_admissibility_is_the_square_of_the_sums_of_taps() -> None:
    layer = LiftingConv(2, 3, 16, Scaling(1, high=4.0), 2, reach=3)
    ((taps, _),) = layer.flattened(layer.inputs, layer.samples)
    assert torch.allclose(admissibility(nn.Sequential(layer)), taps.sum(-1).square().mean())
