"""Group layers at their limits: trivial groups, circles, the meta device, sizes that are no numbers, bad input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from omniconv.groups import SO2, Samples, Scaling, Trivial, transform
from omniconv.kernels import SIREN, Table
from omniconv.nn import Conv, Conv2d, GroupConv, GroupProject, LiftingConv
from omniconv.nn._poses import Poses
from omniconv.supports import Disk, Full
from omniconv.testing import assert_close
from tests.nn.group_makers import F64, Bump

EXACT = 1e-12
QUARTER = torch.tensor([torch.pi / 2], dtype=F64)


@pytest.mark.parametrize("size", [(9,), (6, 7), (5, 4, 3)], ids=len)
def test_lifting_to_the_trivial_group_is_a_convolution(size: tuple[int, ...]) -> None:
    parts: dict[str, Any] = {"kernel": SIREN, "support": Full, "reach": 2, "dtype": F64}
    lifting = LiftingConv(2, 3, size, Trivial(len(size)), **parts)
    conv = Conv(2, 3, size, **parts)
    conv.kernel.load_state_dict(lifting.get_submodule("steps.0.kernel").state_dict())
    conv.gain.copy_(lifting.gain)
    x = torch.randn(2, 2, *size, dtype=F64)
    assert_close(lifting(x)[:, :, 0], conv(x), tolerance=EXACT)


def test_a_group_convolution_on_the_trivial_group_is_a_convolution() -> None:
    parts: dict[str, Any] = {"kernel": Table, "support": Full, "reach": 2, "dtype": F64}
    layer = GroupConv(2, 3, (6, 7), Trivial(2), **parts)
    conv = Conv(2, 3, (6, 7), **parts)
    with torch.no_grad():  # taps: y, x, the one feature, which is 0, and channels
        conv.get_parameter("kernel.taps").copy_(layer.get_parameter("steps.0.kernel.taps")[:, :, 1])
    conv.gain.copy_(layer.gain)
    x = torch.randn(2, 2, 6, 7, dtype=F64)
    assert_close(layer(x[:, :, None])[:, :, 0], conv(x), tolerance=EXACT)


@pytest.mark.parametrize("mixing", ["dense", "separable"])
def test_lifting_samples_its_kernel_once_at_evaluation(mixing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LiftingConv(1, 2, 7, SO2(), 4, mixing=mixing, reach=2).eval()
    made: list[object] = []
    poses = layer._poses

    def counted(*arguments: Any) -> Poses:
        made.append(arguments)
        return poses(*arguments)

    monkeypatch.setattr(layer, "_poses", counted)
    with torch.no_grad():
        for _ in range(3):
            layer(torch.randn(2, 1, 7, 7))
    assert len(made) == 1


@pytest.mark.parametrize("mixing", ["dense", "separable"])
def test_lifting_on_the_meta_device_tells_its_shape(mixing: str) -> None:
    layer = LiftingConv(2, 3, 5, SO2(), 4, mixing=mixing, reach=2, device="meta")
    assert layer(torch.empty(7, 2, 6, 5, device="meta")).shape == (7, 3, 4, 6, 5)


@pytest.mark.parametrize("high", [2.0, 8.0])
def test_new_layers_keep_the_variance_around_a_circle(high: float) -> None:
    """Taps that coincide a period apart add up before their energy counts."""
    for width in (0.3, 1.0):
        smooth = partial(Bump, width=width)
        layer = LiftingConv(8, 64, 16, Scaling(1, high=high), 3, kernel=smooth, support=Full, boundary="circular")
        with torch.no_grad():
            assert 0.8 < layer(torch.randn(2000, 8, 16)).var().item() < 1.25


def test_a_disk_that_diverged_says_so() -> None:
    for layer in (GroupConv(1, 1, 5, SO2(), 4, reach=2), Conv2d(1, 1, 9, support=Disk)):
        with torch.no_grad():
            layer.get_parameter("support.radius_logit").fill_(float("nan"))
        with pytest.raises(ValueError, match=r"extent of Disk must be in \(0, 1\].*training has diverged"):
            layer.eval()


BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: transform(torch.randn(1, 1, 5, 4, 4), SO2(), QUARTER, SO2().grid(4)), ValueError, "`x` must .*4"),
    (lambda: transform(torch.randn(1, 1, 3, 4, 4), SO2(), QUARTER, SO2().grid(4)), ValueError, "`x` must .*4"),
    (lambda: transform(torch.randn(1, 1, 4, 4), SO2(), QUARTER.expand(2, 1)), ValueError, "`g` must be one element"),
    (lambda: transform(torch.randn(1, 1, 4, 4), "so2", QUARTER), TypeError, "`group` must be"),  # type: ignore[arg-type]
    (lambda: transform(torch.randn(1, 1, 4, 4, 4), SO2(), QUARTER, 4), TypeError, "`samples` must be"),  # type: ignore[arg-type]
    (lambda: GroupProject()(torch.ones(1, 2, 3, 4), 3), TypeError, "`inputs` must be"),
    (lambda: GroupProject()(torch.ones(1, 2, 3, 4), [1, 2, 3]), TypeError, "`inputs` must be"),
    (lambda: GroupProject("mean")(torch.ones(1, 2, 3, 4).long()), TypeError, "`x` must hold floating-point numbers"),
    (
        lambda: GroupProject()(torch.ones(1, 2, 3, 4).long(), Samples(torch.zeros(3, 1), torch.ones(3) / 3)),
        TypeError,
        "`x` must hold floating-point numbers",
    ),
    (lambda: LiftingConv(1, 1, 5, SO2()), ValueError, "`samples` must be given for SO2"),
    (lambda: LiftingConv(1, 1, 5, SO2(), "8"), TypeError, "`samples` must be an integer"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_bad_input_is_named(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
