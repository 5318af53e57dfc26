"""Bounds through the parts of a stream: never violated, and nearly reached by the worst signals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from omniconv.nn.causal import (
    Activation,
    Affine,
    Bounds,
    Chain,
    Mean,
    Part,
    Same,
    Sum,
    Window,
    gelu,
    relu,
)
from omniconv.nn.pointwise import Pointwise
from omniconv.recurrence import certify, distill
from omniconv.recurrence.modal import Modal
from tests.recurrence.systems import system, taps_of


def outputs(part: Part, x: Tensor) -> Tensor:
    return part.run(x, part.begin(x.shape[0], x.dtype, x.device))[0]


def worst(part: Part, x: Tensor, off: Tensor, other: Part | None = None) -> tuple[Tensor, Tensor]:
    """The largest difference of outputs, where inputs differ by `off`, and the largest output, per channel."""
    first, second = outputs(part, x + off), outputs(other or part, x)
    return (first - second).abs().amax((0, 2)), second.abs().amax((0, 2))


def bounds(error: float, peak: float, channels: int) -> Bounds:
    return torch.full((channels,), error, dtype=torch.float64), torch.full((channels,), peak, dtype=torch.float64)


@pytest.mark.parametrize("make", [gelu, relu])
def test_activations(make: Callable[[], Activation]) -> None:
    part = make()
    x = torch.linspace(-4, 4, 40_001, dtype=torch.float64)[None, None]
    error, peak = worst(part, x, torch.tensor(1e-3, dtype=torch.float64))
    bound, most = part.bound(bounds(1e-3, 4.0, 1))
    assert 0.999 * bound <= error <= bound * (1 + 1e-9)
    assert peak <= most
    assert part.bound(bounds(10.0, 1.0, 1))[0] <= 12  # |f(x)| + |f(x')|


@torch.no_grad()
def test_linear_maps() -> None:
    layer = Pointwise(3, 2).double()
    assert layer.bias is not None
    layer.bias.copy_(torch.tensor([0.5, 0.25]))
    part, row = Affine(layer, layer.weight, layer.bias), layer.weight[0].sign()[None, :, None]
    error, peak = worst(part, row, 0.1 * row)
    bound, most = part.bound(bounds(0.1, 1.0, 3))
    assert bound[0] == pytest.approx(error[0].item(), rel=1e-12)
    assert most[0] == pytest.approx(peak[0].item(), rel=1e-12)


@pytest.mark.parametrize("dense", [False, True])
def test_convolutions(dense: bool) -> None:
    """The first output is driven by the signs of the error's taps, and of the taps."""
    taps = taps_of(*system(4, 3, radius=0.8), torch.ones(4).double(), 40)
    recurrence, _ = distill(taps, order=2)
    shape = (2, 2) if dense else (4,)
    exact = Window(taps.unflatten(0, shape))
    part = Modal(recurrence, exact.taps, certify(taps, recurrence).l1.unflatten(0, shape))

    def signs(kernels: Tensor) -> Tensor:
        return (kernels.flip(1).sign()[:2] if dense else kernels.flip(1).sign())[None]

    long = torch.nn.functional.pad(taps, (0, 160))
    signals, own = signs(long - recurrence.taps(200)), signs(long)
    channels = signals.shape[1]
    error, peak = worst(part, signals, torch.zeros(()).double(), exact)
    bound, most = part.bound(bounds(0.0, 1.0, channels))
    assert error[0] == pytest.approx(bound[0].item(), rel=1e-3)
    assert (error <= bound * (1 + 1e-12)).all()
    assert (peak <= most * (1 + 1e-12)).all()
    error, _ = worst(exact, torch.zeros_like(own), 0.1 * own)
    bound, _ = exact.bound(bounds(0.1, 1.0, channels))
    assert error[0] == pytest.approx(bound[0].item(), rel=1e-6)
    both, _ = part.bound(bounds(0.1, 1.0, channels))
    assert (worst(part, signals, 0.1 * own, exact)[0] <= both).all()


def test_sums_and_means() -> None:
    x = torch.randn(2, 3, 50, dtype=torch.float64).clamp(-1, 1)
    for part in (Sum(Same(), Same()), Mean(3), Chain([Same(), relu()])):
        error, peak = worst(part, x, torch.tensor(0.1, dtype=torch.float64))
        bound, most = part.bound(bounds(0.1, 1.0, 3))
        assert (error <= bound + 1e-12).all()
        assert (peak <= most).all()
    assert torch.equal(Sum(Same(), Same()).bound(bounds(0.1, 1.0, 3))[0], torch.full((3,), 0.2, dtype=torch.float64))


def test_a_mean_of_many_samples() -> None:
    signal = torch.full((1, 1, 1000), 0.1)
    torch.testing.assert_close(outputs(Mean(1), signal), signal)
