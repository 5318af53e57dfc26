"""Reports of symmetry: small where there is one, large where there is none, with what was learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import omniconv as oc
from omniconv.groups import GL2, O2, SO2, SO3, Dihedral, Product, Scaling, transform
from omniconv.kernels import SIREN
from omniconv.models import GCNN, WaveletNet
from omniconv.nn import GroupProject, GroupSelfAttention, LiftingConv, LiftingSelfAttention
from omniconv.symmetry import equivariance_report

F64 = torch.float64


def smooth(size: int) -> torch.Tensor:
    """A few soft spots."""
    axis = torch.linspace(-1, 1, size, dtype=F64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    spots = [((y - a) ** 2 + (x - b) ** 2).div(-0.05).exp() for a, b in ((0.4, 0.0), (-0.2, 0.3), (0.1, -0.5))]
    return torch.stack(spots).sum(0)[None, None]


def gcnn(**options: Any) -> GCNN:
    """A small network in evaluation mode."""
    arguments = {"group": SO2(), "samples": 8, "widths": (4,), "reach": 3, "reduce": "mean", "dtype": F64, **options}
    return GCNN(1, 3, 21, **arguments).eval()


def test_quarter_turns_are_exact_and_all_turns_are_near() -> None:
    report = equivariance_report(gcnn(), smooth(21), count=16)
    quarter = report.elements[:, 0].abs() % (torch.pi / 2) < 1e-9
    assert quarter.sum() == 4
    assert report.errors[quarter].max() < 1e-12
    assert report.errors.max() < 0.1
    assert [layer.name for layer in report.layers][:2] == ["lift", "blocks.0.conv_1"]
    assert all(layer.error < 0.2 for layer in report.layers)


def mean_error(samples: int) -> float:
    """Over the orbit, of four networks."""
    errors = []
    for seed in range(4):
        torch.manual_seed(seed)
        errors.append(equivariance_report(gcnn(samples=samples, body="plain"), smooth(21), count=24).errors.mean())
    return torch.stack(errors).mean().item()


def test_invariance_improves_with_samples() -> None:
    best = mean_error(8)
    assert mean_error(1) > 2 * best
    assert mean_error(2) > 1.5 * best


def on_samples(samples: int, state: dict[str, Any] | None = None) -> GCNN:
    """A network whose kernels 16 samples resolve well, with these parameters or new ones."""
    kernel = partial(SIREN, bandwidth=0.25)
    model = GCNN(1, 3, 33, group=SO2(), samples=samples, widths=(4,), reach=3, kernel=kernel, dtype=F64)
    if state is not None:
        model.load_state_dict(state)
    return model


def test_one_function_improves_with_samples() -> None:
    """Networks made for 16 samples, evaluated on 4, 8 and 16: over the orbit, of six draws of the parameters."""
    errors = []
    for seed in range(6):
        torch.manual_seed(seed)
        state = on_samples(16).state_dict()
        reports = [equivariance_report(on_samples(samples, state), smooth(33), count=16) for samples in (4, 8, 16)]
        errors.append(torch.stack([report.errors.mean() for report in reports]))
    four, eight, sixteen = torch.stack(errors).mean(0).tolist()
    assert four > 1.5 * eight
    assert eight > 1.1 * sixteen


def test_a_plain_network_is_not_invariant() -> None:
    torch.manual_seed(0)
    plain = oc.CCNN(1, 3, (21, 21), blocks=1, width=8, dtype=F64)
    report = equivariance_report(plain, smooth(21), SO2(), count=8)
    assert report.layers == ()
    assert report.errors.max() > 0.1
    assert plain.training


def test_what_was_learned_is_told() -> None:
    model = gcnn(group=O2(), partial=True, relaxed=1)
    with torch.no_grad():
        model.last.conv.get_parameter("partial.width").fill_(0.25)
    report = equivariance_report(model, smooth(21), count=4)
    last = {layer.name: layer for layer in report.layers}["last.conv"]
    assert last.learned["widths"] == (0.25,)
    assert last.learned["kept with"] == pytest.approx((0.8808,), abs=1e-4)
    assert last.learned["relaxed by"] == pytest.approx((0.01,))
    assert last.error < 0.1  # reflections map the part to itself
    assert "widths 0.25" in str(report)
    assert str(report).count("\n") == 2 + len(report.layers)


def test_a_part_that_no_element_maps_to_itself_has_no_error() -> None:
    model = gcnn(partial=True)
    with torch.no_grad():
        model.last.conv.get_parameter("partial.width").fill_(0.1)
    report = equivariance_report(model, smooth(21), count=4)
    assert math.isnan(report.layers[-1].error)
    assert "last.conv                        GroupConv                    -" in str(report)
    assert all(layer.error < 0.2 for layer in report.layers[:-1])


SOME_LEAVE: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "scales": (lambda: gcnn(group=Scaling(2), samples=2), 21),
    "similarities": (lambda: gcnn(group=Product((SO2(), Scaling(2))), samples=(4, 2)), 21),
    "linear maps": (lambda: gcnn(group=GL2(high=1.5, shear=0.2), samples=(4, 2, 2), reach=2), 21),
    "rotations of space": (
        lambda: GCNN(1, 2, 9, group=SO3(), samples=16, widths=(3,), reach=1, reduce="mean", dtype=F64),
        9,
    ),
    "scales of series": (lambda: WaveletNet(1, 2, 64, scales=3, blocks=2, width=4, reach=2, dtype=F64), 64),
}
"""Networks of whose samples most elements take some to others that are none."""


@pytest.mark.parametrize("name", SOME_LEAVE)
def test_layers_are_compared_at_the_poses_that_stay_among_the_samples(name: str) -> None:
    make, size = SOME_LEAVE[name]
    model = make()
    dim = next(layer.dim for layer in model.modules() if isinstance(layer, LiftingConv))
    axis = torch.linspace(-1, 1, size, dtype=F64)
    spot = torch.stack(torch.meshgrid(*[axis] * dim, indexing="ij")).square().sum(0).div(-0.1).exp()
    report = equivariance_report(model, spot[None, None] * (1 + axis), count=None)
    assert len(report.layers) > 2
    assert all(0 < layer.error < 2 for layer in report.layers)
    assert report.layers[0].error < 0.3  # deeper layers see what left the range of the samples


def test_the_error_of_a_lifting_on_scales_is_that_worked_out_by_hand() -> None:
    """Of three scales the second maps two to others, and the third one."""
    lift, x = LiftingConv(1, 2, 33, Scaling(1, high=8.0), 3, reach=2, dtype=F64), torch.randn(1, 1, 33, dtype=F64)
    report = equivariance_report(nn.Sequential(lift, GroupProject("mean")), x)
    y, errors = lift(x), []
    for power in (1, 2):
        g = torch.tensor([2.0**power], dtype=F64)
        source = y[:, :, : 3 - power].flatten(1, 2)
        moved = lift(transform(x, lift.group, g))[:, :, power:].flatten(1, 2)
        errors.append(((moved - transform(source, lift.group, g)).norm() / source.norm()).item())
    assert report.layers[0].error == pytest.approx(sum(errors) / 2, rel=1e-12)


def test_every_part_keeps_its_mode() -> None:
    model = gcnn().train()
    model.lift_norm.eval()  # frozen
    equivariance_report(model, smooth(21), count=4)
    assert model.training
    assert model.last.training
    assert not model.lift_norm.training


@pytest.mark.parametrize(
    ("group", "samples"), [(Dihedral(4), None), (Product((SO2(), Scaling(2, high=2.0))), (4, 2)), (Scaling(2), 2)]
)
def test_other_groups(group: Any, samples: Any) -> None:
    report = equivariance_report(gcnn(group=group, samples=samples), smooth(21), count=None)
    assert report.errors.isfinite().all()
    assert report.distances.min() < 0.6


def test_self_attention_is_looked_at_too() -> None:
    layers = [
        LiftingSelfAttention(1, 4, 9, SO2(), 4, dtype=F64),
        GroupSelfAttention(4, 4, 9, SO2(), 4, dtype=F64),
    ]
    model = nn.Sequential(*layers, nn.Flatten(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    report = equivariance_report(model, smooth(9), count=4)
    assert [layer.kind for layer in report.layers] == ["LiftingSelfAttention", "GroupSelfAttention"]
    assert all(layer.error < 1e-12 for layer in report.layers)


def test_the_figure_has_both_views() -> None:
    axes = equivariance_report(gcnn(), smooth(21), count=4).figure().axes
    assert [axis.get_xlabel() for axis in axes] == ["distance from the identity", "relative error of the layer"]


def test_the_figure_shows_what_was_learned() -> None:
    model = gcnn(group=O2(), partial=True, relaxed=1)
    with torch.no_grad():
        model.last.conv.get_parameter("partial.width").fill_(0.25)
    report = equivariance_report(model, smooth(21), count=4)
    parts, relaxed = report.figure().axes[2:]
    assert [panel.get_xlabel() for panel in (parts, relaxed)] == ["widths / kept with", "relaxed by"]
    widths, kept = parts.lines
    names = [layer.name for layer in report.layers if layer.learned.get("widths")]
    assert list(np.asarray(widths.get_ydata())) == names
    assert np.asarray(widths.get_xdata()).tolist() == pytest.approx([1.0, 1.0, 0.25])
    assert np.asarray(kept.get_xdata()).tolist() == pytest.approx([0.8808] * 3, abs=1e-4)
    assert np.asarray(relaxed.lines[0].get_xdata()).tolist() == pytest.approx([0.01] * 4)
    only = equivariance_report(gcnn(partial=True), smooth(21), count=4).figure().axes[2:]
    assert [panel.get_xlabel() for panel in only] == ["widths / kept with"]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="`model` must be"):
        equivariance_report("model", smooth(9))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`group` must be given"):
        equivariance_report(nn.Identity(), smooth(9))
    with pytest.raises(ValueError, match="`x` must be"):
        equivariance_report(gcnn(), torch.zeros(3, 9))


def test_signals_that_move_are_compared_moved() -> None:
    model = oc.CCNN(1, 2, (9, 9), blocks=1, width=4, group=SO2(), samples=4, reach=2, head="dense", dtype=F64)
    report = equivariance_report(model, smooth(9), count=4)
    assert report.errors.max() < 1e-12


def test_what_is_no_group_is_named() -> None:
    with pytest.raises(TypeError, match=r"`group` must be an omniconv.groups.Group"):
        equivariance_report(nn.Identity(), torch.zeros(1, 1, 5, 5), "a")  # type: ignore[arg-type]


def test_layers_on_another_group_are_left_out() -> None:
    """A network that knows rotations, over reflections too."""
    group = Dihedral(4)
    report = equivariance_report(gcnn(samples=4), smooth(21), group)
    mirrored = torch.linalg.det(group.matrix(report.elements)) < 0
    assert mirrored.sum() == 4
    assert report.errors[~mirrored].max() < 1e-12
    assert report.errors[mirrored].min() > 1e-3
    assert report.layers == ()
    assert report.figure().axes
