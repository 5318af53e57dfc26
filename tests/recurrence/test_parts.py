"""Bounds through the parts of a stream: never violated, and nearly reached by the worst signals."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.kernels import HyenaFilter
from omniconv.nn import ChannelNorm, Conv, GatedConv, MultiHeadConv
from omniconv.nn.causal import (
    Activation,
    Affine,
    Bounds,
    Chain,
    Channels,
    Mean,
    Normalized,
    Part,
    Picked,
    Product,
    Repeated,
    Same,
    Shift,
    Sum,
    Total,
    Window,
    convolved_bounds,
    gelu,
    multiplied_bounds,
    relu,
)
from omniconv.nn.pointwise import Pointwise
from omniconv.recurrence import certify, distill
from omniconv.recurrence.distiller import Distiller
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


@pytest.mark.parametrize("dense", [False, True])
def test_other_taps_on_other_signals_reach_their_bounds(dense: bool) -> None:
    """Taps k and k' = 2 k, where signals differ by as much as they are large: the other signal meets the error of taps.

    Of one tap 1, |2 (1 + 1) - 1 1| = 3; without the error of the signal in the last term the bound would be 2.
    """
    one = torch.ones((1, 1, 1) if dense else (1, 1), dtype=F64)
    assert [values.item() for values in convolved_bounds(one, one[..., 0], bounds(1.0, 1.0, 1))] == [3.0, 1.0]
    taps, channels = (torch.stack([TAPS, TAPS.flip(1), TAPS.roll(1, 1)]), 2) if dense else (TAPS, 2)
    error, peak = convolved_bounds(taps, taps.abs().sum(-1), (ERROR[:channels], PEAK[:channels]))
    for row in range(len(taps)):
        likes = (taps[row] if dense else taps).flip(-1).sign()
        signal, off = likes * PEAK[:channels, None], likes * ERROR[:channels, None]
        found = worst(Window(2 * taps), signal[None], off[None], Window(taps))
        assert found[0][row].item() == pytest.approx(error[row].item(), rel=1e-12)
        assert found[1][row].item() == pytest.approx(peak[row].item(), rel=1e-12)


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


# ---- gates, groups and norms

F64 = torch.float64
FILTER = partial(HyenaFilter, bands=2, hidden=4)
ERROR, PEAK = torch.tensor([0.1, 0.02, 0.3, 0.05], dtype=F64), torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=F64)


def rough(length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Signals as large as `PEAK` allows, and differences as large as `ERROR` does; in half of the rows with any sign
    and size, in the others at the limits.
    """
    generator = torch.Generator().manual_seed(seed)
    x, off = 2 * torch.rand(2, 40, 4, length, generator=generator, dtype=F64) - 1
    x[:20], off[:20] = x[:20].sign(), off[:20].sign()
    return x * PEAK[:, None], off * ERROR[:, None]


def assert_bounded(part: Part, length: int = 30) -> None:
    x, off = rough(length)
    error, peak = worst(part, x, off)
    bound, most = part.bound((ERROR, PEAK))
    assert (error <= bound * (1 + 1e-12)).all()
    assert (peak <= most * (1 + 1e-12)).all()
    assert (error > 0.05 * bound).all()  # or the bound says little


def assert_reached(part: Part, x: Tensor, off: Tensor) -> None:
    """By these signals, whose sizes are those of `PEAK` and `ERROR`."""
    error, peak = worst(part, x * PEAK[:, None], off * ERROR[:, None])
    bound, most = part.bound((ERROR, PEAK))
    torch.testing.assert_close(error, bound, rtol=1e-12, atol=0)
    torch.testing.assert_close(peak, most, rtol=1e-12, atol=0)


def assert_in_pieces(part: Part, length: int = 12) -> None:
    """Any chunks are the whole, of a state whose first axis is the batch."""
    x = rough(length)[0][:3]
    whole, state = part.run(x, part.begin(3, F64, x.device))
    assert all(tensor.shape[0] == 3 for tensor in state)
    assert [tensor.shape for tensor in state] == [tensor.shape for tensor in part.begin(3, F64, x.device)]
    for cuts in ([1] * length, [5, 1, length - 6], [length - 1, 1]):
        state, pieces = part.begin(3, F64, x.device), []
        for chunk in x.split(cuts, -1):
            y, state = part.run(chunk, state)
            pieces.append(y)
        torch.testing.assert_close(torch.cat(pieces, -1), whole, rtol=1e-12, atol=1e-12)
    alone, _ = part.run(x[1:2], part.begin(1, F64, x.device))
    torch.testing.assert_close(alone, whole[1:2], rtol=1e-12, atol=1e-12)


TAPS = torch.tensor([[0.5, -1.0, 0.25, 0.0, 2.0], [1.0, 1.0, -1.0, 0.5, -0.5]], dtype=F64)


def test_gates_reach_their_bounds() -> None:
    """(h + e) (k + f) - h k, where all have one sign: with the product of both errors."""
    gate = Product(Channels(0, 2), Channels(2, 4))
    error, peak = gate.bound((ERROR, PEAK))
    expected = (PEAK[:2] + ERROR[:2]) * (PEAK[2:] + ERROR[2:]) - PEAK[:2] * PEAK[2:]
    torch.testing.assert_close(error, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(peak, PEAK[:2] * PEAK[2:], rtol=0, atol=0)
    for sign in (1.0, -1.0):
        flat = torch.full((1, 4, 3), sign, dtype=F64)
        assert_reached(gate, flat, flat)
    assert_bounded(gate)
    one = (torch.tensor([0.3], dtype=F64), torch.tensor([2.0], dtype=F64))
    other = (torch.tensor([0.1], dtype=F64), torch.tensor([5.0], dtype=F64))
    for both in (multiplied_bounds(one, other), multiplied_bounds(other, one)):
        assert both[0].item() == pytest.approx(2.3 * 5.1 - 10, rel=1e-12)
        assert both[1].item() == 10.0


def test_gates_of_convolutions_reach_their_bounds() -> None:
    """Where every tap meets the sign that it likes, in both factors at once."""
    gate = Product(Chain([Channels(0, 2), Window(TAPS)]), Chain([Channels(2, 4), Window(TAPS.flip(0))]))
    likes = torch.cat([TAPS, TAPS.flip(0)]).flip(1).sign()[None]
    assert_reached(gate, likes, likes)
    assert_bounded(gate)
    assert_in_pieces(gate)


def test_sums_of_convolutions_keep_their_states_apart() -> None:
    both = Sum(Chain([Channels(0, 2), Window(TAPS)]), Chain([Channels(1, 3), Window(TAPS.flip(0)[:, :3])]))
    assert_in_pieces(both)
    assert_bounded(both)


def test_picked_channels() -> None:
    index = torch.tensor([2, 0, 0, 3, 2])
    part = Picked(index)
    error, peak = part.bound((ERROR, PEAK))
    assert torch.equal(error, ERROR[index])
    assert torch.equal(peak, PEAK[index])
    x = rough(4)[0]
    assert torch.equal(outputs(part, x), torch.stack([x[:, 2], x[:, 0], x[:, 0], x[:, 3], x[:, 2]], 1))
    ones = torch.ones(1, 4, 2, dtype=F64)
    assert_reached(part, ones, ones)
    assert_reached(Channels(1, 3), ones, ones)
    assert torch.equal(outputs(Channels(1, 3), x), x[:, 1:3])
    assert_bounded(part)


def test_totals() -> None:
    part = Total(2)
    x = rough(4)[0]
    assert torch.equal(outputs(part, x), torch.stack([x[:, 0] + x[:, 2], x[:, 1] + x[:, 3]], 1))
    ones = torch.ones(1, 4, 2, dtype=F64)
    assert_reached(part, ones, ones)
    assert_reached(part, -ones, -ones)
    assert_bounded(part)
    assert outputs(Total(4), x).shape[1] == 1


def test_repeated_parts() -> None:
    """The same taps on either pair of channels, each with bounds of its own."""
    part = Repeated(Window(TAPS), 2)
    x = rough(9)[0]
    each = torch.cat([outputs(Window(TAPS), x[:, :2]), outputs(Window(TAPS), x[:, 2:])], 1)
    torch.testing.assert_close(outputs(part, x), each, rtol=1e-12, atol=1e-12)
    likes = TAPS.flip(1).sign().repeat(2, 1)[None]
    assert_reached(part, likes, likes)
    assert_bounded(part)
    assert_in_pieces(part)
    mixed = Repeated(Sum(Window(TAPS[:, :3]), Window(TAPS.flip(0)[:, :2])), 2)
    assert_bounded(mixed)
    assert_in_pieces(mixed)
    assert part.begin(0, F64, x.device)[0].shape == (0, 2, 2, 4)
    assert part.run(x[:0], part.begin(0, F64, x.device))[0].shape == (0, 4, 9)


def test_windows_and_shifts() -> None:
    taps = torch.cat([TAPS, TAPS.flip(1)])
    likes = taps.flip(1).sign()[None]
    assert_reached(Window(taps), likes, likes)
    assert_in_pieces(Window(taps))
    assert_in_pieces(Window(taps[:, :1]))  # which remembers nothing
    assert_in_pieces(Window(torch.randn(3, 4, 4, dtype=F64)))
    bias = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=F64)
    signs = torch.where(bias < 0, -1.0, 1.0)[None, :, None].to(F64)
    assert_reached(Shift(bias), signs, signs)
    scale = torch.tensor([2.0, -0.5, 1.0, 3.0], dtype=F64)
    assert_reached(Affine(lambda x: x * scale[:, None], scale, None), signs, signs)


def norm(weight: Tensor, bias: Tensor, eps: float) -> Part:
    layer = ChannelNorm(len(weight), eps, dtype=F64)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    part = layer.causal_part("norm")
    assert isinstance(part, Normalized)
    return part


@pytest.mark.parametrize("eps", [1e-5, 1e-2, 1.0])
@pytest.mark.parametrize("channels", [1, 2, 4, 50])
def test_norms_stay_within_their_bounds(channels: int, eps: float) -> None:
    """For signals and differences of all sizes, and at the steepest place, where all channels are the same."""
    weight, bias = torch.randn(channels, dtype=F64), torch.randn(channels, dtype=F64)
    part = norm(weight, bias, eps)
    for size in (0.0, 1e-4, 1e-2, 1.0, 100.0):
        for off in (1e-6, 1e-3, 0.1, 10.0):
            x = size * (2 * torch.rand(1, channels, 300, dtype=F64) - 1)
            move = off * (2 * torch.rand(1, channels, 300, dtype=F64) - 1).sign()
            error, peak = worst(part, x, move)
            bound, most = part.bound(bounds(off, size, channels))
            assert (error <= bound * (1 + 1e-9) + 1e-13).all()
            assert (peak <= most * (1 + 1e-12)).all()


@pytest.mark.parametrize("channel", [0, 17, 63])
def test_norms_nearly_reach_their_bounds(channel: int) -> None:
    channels, eps = 64, 1e-3
    weight, bias = torch.randn(channels, dtype=F64), torch.randn(channels, dtype=F64)
    part = norm(weight, bias, eps)
    spike = torch.zeros(1, channels, 1, dtype=F64)
    spike[0, channel] = bias[channel].sign() * weight[channel].sign()
    # The largest: one channel alone, far above the others.
    _, peak = worst(part, 1e4 * spike, torch.zeros((), dtype=F64))
    _, most = part.bound(bounds(0.0, 1e4, channels))
    assert 0.999 * most[channel] <= peak[channel] <= most[channel]
    # The steepest: from a signal without variance, in one channel.
    error, _ = worst(part, torch.ones_like(spike), 1e-4 * spike)
    bound, _ = part.bound((1e-4 * spike[0, :, 0].abs(), torch.ones(channels, dtype=F64)))
    assert 0.98 * bound[channel] <= error[channel] <= bound[channel]
    # The farthest: from one end to the other.
    error, _ = worst(part, -1e4 * spike, 2e4 * spike)
    bound, _ = part.bound(bounds(2e4, 1e4, channels))
    assert 0.999 * bound[channel] <= error[channel] <= bound[channel]
    assert bound[channel].item() == pytest.approx(2 * weight[channel].abs().item() * math.sqrt(63), rel=1e-12)


# ---- whole operators


def remembered(name: str, conv: Conv) -> Part:
    """The taps of a layer as they are."""
    return Window(conv.taps())


OPERATORS: dict[str, Callable[[], GatedConv | MultiHeadConv]] = {
    "order 2": lambda: GatedConv(4, 24, kernel=FILTER, dtype=F64),
    "order 3": lambda: GatedConv(4, 24, order=3, kernel=FILTER, dtype=F64),
    "heads": lambda: MultiHeadConv(2, 2, 24, kernel=FILTER, dtype=F64),
}


@pytest.mark.parametrize("tol", [None, 0.5])
@pytest.mark.parametrize("name", OPERATORS)
def test_gated_operators_stay_within_their_bounds(name: str, tol: float | None) -> None:
    """Errors that come in, and those of distilled kernels: by signals that climb to the worst.

    They get within a factor of fifty of the bound.
    """
    layer = OPERATORS[name]()
    with torch.no_grad():
        for key, parameter in layer.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(std=0.1)
    distiller = Distiller(1.0, False, tol, None, None, [])
    part, exact = layer.causal_part("mixer", distiller), layer.causal_part("mixer", remembered)
    x, off = (signal[:8].clone() for signal in rough(24))
    with torch.no_grad():
        torch.testing.assert_close(outputs(exact, x), layer(x), rtol=1e-11, atol=1e-11)
        assert_in_pieces(part, 24)
    size = ERROR
    if tol is not None:  # a perfect input, so that the errors are those of the kernels
        assert "distilled" in {one.form for one in distiller.layers}
        size, off = torch.zeros_like(ERROR), torch.zeros_like(off)
    bound, most = part.bound((size, PEAK))
    for _ in range(40):
        x.requires_grad_()
        off.requires_grad_()
        right = outputs(exact, x)
        error = (outputs(part, x + off) - right).abs()
        assert (error.amax((0, 2)) <= bound).all()
        assert (right.abs().amax((0, 2)) <= most).all()
        steps = torch.autograd.grad(error[..., -1].sum(), (x, off))
        with torch.no_grad():
            x = (x + 0.2 * PEAK[:, None] * steps[0].sign()).clamp(-PEAK[:, None], PEAK[:, None])
            off = (off + 0.2 * size[:, None] * steps[1].sign()).clamp(-size[:, None], size[:, None])
    assert (error.amax((0, 2)) > 0.02 * bound).all()


def test_the_last_output_alone() -> None:
    """With the state behind all of them."""
    scale = torch.tensor([2.0, -0.5], dtype=F64)
    last = Affine(lambda x: x * scale[:, None], scale, None)
    chain: Any = Chain([Channels(0, 2), Window(TAPS), last])
    x = rough(7)[0]
    whole, state = chain.run(x, chain.begin(40, F64, x.device))
    alone, same = chain.run_to_last(x, chain.begin(40, F64, x.device))
    assert torch.equal(alone, whole[..., -1:])
    assert all(torch.equal(one, other) for one, other in zip(state, same, strict=True))
