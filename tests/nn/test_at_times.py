"""Convolution at any times: the grid layer on a lattice, a direct sum off it, an integral in the limit."""

from __future__ import annotations

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

import omniconv as oc
from omniconv.domains import Times
from omniconv.kernels import SIREN, Free, Table
from omniconv.nn import _over_edges
from omniconv.supports import Full, Gaussian

F64 = torch.float64
NARROW = partial(Gaussian, width=0.2)


def layer(size: int = 24, **options: object) -> oc.Conv1d:
    given = {"kernel": SIREN, "support": NARROW if size > 8 else Full, "dtype": F64, **options}
    found = oc.Conv1d(3, 3, size, **given)  # type: ignore[arg-type]
    if found.bias is not None:
        torch.nn.init.normal_(found.bias)
    return found


def random_times(batch: int, samples: int, span: float) -> Tensor:
    return torch.rand(batch, samples, dtype=F64).mul(span).sort().values


@pytest.mark.parametrize("mixing", ["dense", "depthwise", "separable"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", [1, 2, 17, 24])
def test_on_the_reference_grid_it_is_the_grid_layer(mixing: str, causal: bool, size: int) -> None:
    for support in (Full, NARROW if size > 8 else Full):
        conv = layer(size, mixing=mixing, causal=causal, support=support)
        x, times = torch.randn(2, 3, size, dtype=F64), torch.arange(size).expand(2, -1)
        torch.testing.assert_close(conv(x, times=times), conv(x), rtol=0, atol=1e-12)
        # The same pair by pair.
        torch.testing.assert_close(conv(x, times=times, output_times=times), conv(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [Table, partial(Free, squash=0.1)])
def test_taps_on_the_lattice_are_met_exactly_in_float32(kernel: object) -> None:
    conv = layer(17, kernel=kernel, dtype=torch.float32)
    x, times = torch.randn(2, 3, 17), 100 + torch.arange(17.0).expand(2, -1)
    torch.testing.assert_close(conv(x, times=times), conv(x))


def direct(conv: oc.Conv1d, x: Tensor, times: Tensor, output: Tensor, causal: bool) -> Tensor:
    """The sum as it is defined, sample by sample: one channel, one series."""
    reach = conv.window[0]
    result = torch.zeros(len(output), dtype=F64)
    last = len(times) - 1
    middle = (times[1:] + times[:-1]) / 2

    def k(lag: Tensor) -> Tensor:
        return conv.values(lag.reshape(1, 1))[0, 0]

    for i, now in enumerate(output):
        low, high = now - reach, now if causal else now + reach
        inside = [j for j in range(len(times)) if low <= times[j] <= high]
        if not inside:
            continue
        first, final = inside[0], inside[-1]
        for j in inside:
            begin = middle[j - 1] if j > first else ((low + times[j]) / 2 if j > 0 else times[0])
            end = middle[j] if j < final else (high if causal else (high + times[j]) / 2 if j < last else times[last])
            result[i] = result[i] + (end - begin) * k(now - times[j]) * x[j]
        if first > 0:
            share = (low - times[first - 1]) / (times[first] - times[first - 1])
            at_low = k(now - low) * ((1 - share) * x[first - 1] + share * x[first])
            result[i] = result[i] + (times[first] - low) / 2 * at_low
        else:
            at_low = k(now - times[0]) * x[0]
        if causal:
            at_high = k(now - now) * x[final]
        elif final < last:
            share = (high - times[final]) / (times[final + 1] - times[final])
            at_high = k(now - high) * ((1 - share) * x[final] + share * x[final + 1])
            result[i] = result[i] + (high - times[final]) / 2 * at_high
        else:
            at_high = k(now - times[last]) * x[last]
        result[i] = result[i] + (at_low + at_high) / 2
    return result


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("support", [Full, NARROW])
def test_it_is_the_direct_sum(causal: bool, support: object) -> None:
    conv = oc.Conv1d(1, 1, 20, kernel=SIREN, support=support, causal=causal, bias=False, dtype=F64)  # type: ignore[arg-type]
    times = random_times(2, 15, 20.0)
    x, output = torch.randn(2, 1, 15, dtype=F64), torch.linspace(-4, 24, 23, dtype=F64).expand(2, -1)
    for at in (output, times):
        y = conv(x, times=times, output_times=at)
        for series in range(2):
            expected = direct(conv, x[series, 0], times[series], at[series], causal)
            torch.testing.assert_close(y[series, 0], expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(conv(x, times=times), conv(x, times=times, output_times=times))


@pytest.mark.parametrize("mixing", ["dense", "depthwise", "separable"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_lattice_with_gaps_gives_what_pairs_give(mixing: str, causal: bool, per_channel: bool) -> None:
    conv = layer(24, mixing=mixing, causal=causal)
    mask = torch.rand(2, 3, 24) > 0.5 if per_channel else torch.rand(2, 24) > 0.5
    raw = torch.arange(24, dtype=F64) * 0.7 + torch.tensor([[3.0], [5.5]], dtype=F64)
    times, x = Times(raw, mask), torch.randn(2, 3, 24, dtype=F64)
    assert times.lattice() is not None
    seen = times.mask[:, None]
    difference = (conv(x, times=times) - conv(x, times=times, output_times=raw)) * seen
    assert difference.abs().max() < 1e-8


def test_channels_observed_at_their_own_times_are_as_each_alone() -> None:
    conv = layer(24, mixing="depthwise")
    times, x = random_times(1, 20, 24.0), torch.randn(1, 3, 20, dtype=F64)
    mask = torch.rand(1, 3, 20) > 0.4
    y = conv(x, times=Times(times, mask))
    output = times[:, mask[0].any(0)]
    for c in range(3):
        own = mask[0, c]
        alone = conv(x[:, :, own], times=times[:, own], output_times=output)
        torch.testing.assert_close(y[:, c, mask[0].any(0)], alone[:, c])


def legendre(low: float, high: float) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(200)
    half = (high - low) / 2
    return torch.from_numpy(nodes) * half + (low + high) / 2, torch.from_numpy(weights) * half


def smooth(t: Tensor) -> Tensor:
    return torch.sin(0.7 * t) + torch.cos(0.33 * t + 1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("support", [Full, NARROW])
def test_refining_a_random_sampling_converges_to_the_integral_with_order_two(causal: bool, support: object) -> None:
    """integral of k(t - s) x(s) over the window, and half a sample of its ends; at a causal layer's own samples."""
    conv = oc.Conv1d(1, 1, 24, kernel=SIREN, support=support, causal=causal, bias=False, dtype=F64)  # type: ignore[arg-type]
    output, span, reach = torch.tensor([0.0, 7.31, 12.0, 20.3], dtype=F64), 23.0, conv.window[0]
    exact = []
    for now in output.tolist():
        low, high = max(0.0, now - reach), now if causal else min(span, now + reach)
        ends = torch.tensor([low, high], dtype=F64)
        nodes, weights = legendre(low, high)
        k = conv.values((now - torch.cat([nodes, ends]))[:, None])[0, 0]
        exact.append((k * smooth(torch.cat([nodes, ends])) * torch.cat([weights, torch.full((2,), 0.5)])).sum())
    errors = []
    for count in (100, 200, 400, 800, 1600):
        when = torch.rand(16, count, dtype=F64) * span
        fixed = torch.cat([output, torch.tensor([span], dtype=F64)]).expand(16, -1)
        when = torch.cat([fixed, when], dim=-1).sort().values
        y = conv(smooth(when)[:, None], times=when, output_times=output.expand(16, -1))
        errors.append((y[:, 0] - torch.stack(exact)).square().mean().sqrt().item())
    order = math.log2(errors[0] / errors[-1]) / 4
    assert order > 1.75, f"errors {errors} fall with order {order:.2f}"
    assert errors[-1] < 2e-3


def test_a_causal_layer_looks_neither_at_later_values_nor_at_later_times() -> None:
    conv = layer(24, causal=True)
    times, x = random_times(1, 20, 24.0), torch.randn(1, 3, 20, dtype=F64, requires_grad=True)
    y = conv(x, times=times)
    for i in (0, 7, 19):
        (gradient,) = torch.autograd.grad(y[0, :, i].square().sum(), x, retain_graph=True)
        assert gradient[..., : i + 1].any()
        assert not gradient[..., i + 1 :].any()
    torch.testing.assert_close(conv(x[..., :9], times=times[:, :9]), y[..., :9], rtol=0, atol=1e-12)


def test_what_is_absent_may_be_anything_and_the_company_too() -> None:
    conv = layer(24)
    times, x = random_times(2, 20, 24.0), torch.randn(2, 3, 20, dtype=F64)
    mask = torch.rand(2, 20) > 0.4
    y = conv(x, times=Times(times, mask))
    other = conv(torch.where(mask[:, None], x, torch.nan), times=Times(torch.where(mask, times, torch.inf), mask))
    for series in range(2):
        seen = mask[series]
        alone = conv(x[series : series + 1, :, seen], times=times[series : series + 1, seen])[0]
        torch.testing.assert_close(y[series, :, seen], alone, rtol=0, atol=1e-12)
        torch.testing.assert_close(other[series, :, seen], alone, rtol=0, atol=1e-12)


def test_a_series_without_anything_observed_gives_the_bias() -> None:
    conv = layer(24, mixing="depthwise")
    y = conv(torch.randn(1, 3, 4, dtype=F64), times=Times(torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.bool)))
    assert conv.bias is not None
    torch.testing.assert_close(y, conv.bias[None, :, None].expand(1, 3, 4))


@pytest.mark.parametrize("mixing", ["dense", "separable"])
@pytest.mark.parametrize("on_lattice", [False, True])
def test_derivatives(mixing: str, on_lattice: bool) -> None:
    conv = oc.Conv1d(2, 2, 6, kernel=partial(SIREN, hidden=4), mixing=mixing, dtype=F64)
    times = torch.arange(5.0)[None] if on_lattice else random_times(1, 5, 6.0)
    names = [name for name, _ in conv.named_parameters()]

    def evaluate(x: Tensor, *values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        result: Tensor = torch.func.functional_call(conv, parameters, (x,), {"times": times})
        return result

    point = (torch.randn(1, 2, 5, dtype=F64, requires_grad=True), *conv.parameters())
    torch.autograd.gradcheck(evaluate, point, fast_mode=True)
    torch.autograd.gradgradcheck(evaluate, point, fast_mode=True)


def test_many_pairs_are_computed_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = layer(24, mixing="dense")
    times, x = random_times(2, 30, 24.0), torch.randn(2, 3, 30, dtype=F64)
    y = conv(x, times=times)
    monkeypatch.setattr(_over_edges, "NUMBERS", 1000)
    torch.testing.assert_close(conv(x, times=times), y)


@pytest.mark.parametrize("on_lattice", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_long_gaps_cost_no_digits(causal: bool, on_lattice: bool) -> None:
    conv = oc.Conv1d(1, 1, 64, support=NARROW, causal=causal)
    steps = torch.arange(12.0, dtype=F64) if on_lattice else torch.rand(12, dtype=F64).mul(12).sort().values
    times = torch.cat([steps, steps + (700.0 if on_lattice else 1e8)])[None]
    x = torch.randn(1, 1, 24)
    y, exact = conv(x, times=times), copy.deepcopy(conv).double()(x.double(), times=times)
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=2e-5)
    early = conv(x[..., :12], times=times[:, :12])
    if causal:
        torch.testing.assert_close(early, y[..., :12], rtol=0, atol=2e-6)


def test_parts_that_are_computed_again_have_the_same_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = oc.Conv1d(2, 2, 6, kernel=partial(SIREN, hidden=4), dtype=F64)
    times, x = random_times(1, 5, 6.0), torch.randn(1, 2, 5, dtype=F64, requires_grad=True)
    whole = torch.autograd.grad(conv(x, times=times).square().sum(), [x, *conv.parameters()])
    monkeypatch.setattr(_over_edges, "NUMBERS", 700)
    parts = torch.autograd.grad(conv(x, times=times).square().sum(), [x, *conv.parameters()])
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other)
    torch.autograd.gradgradcheck(lambda x: conv(x, times=times), x, fast_mode=True)


def test_empty_batches_and_no_outputs() -> None:
    conv = layer(24)
    assert conv(torch.zeros(0, 3, 5, dtype=F64), times=torch.zeros(0, 5)).shape == (0, 3, 5)
    none = conv(torch.zeros(2, 3, 5, dtype=F64), times=random_times(2, 5, 9.0), output_times=torch.zeros(2, 0))
    assert none.shape == (2, 3, 0)


def test_half_precision_comes_back_and_times_keep_theirs() -> None:
    conv = layer(24, dtype=torch.float32)
    times, x = 1e4 + random_times(2, 20, 24.0), torch.randn(2, 3, 20)
    half = conv(x.bfloat16(), times=times)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), conv(x.bfloat16().float(), times=times), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("mixing", ["dense", "depthwise"])
def test_autocast_does_not_reach_the_sum_over_pairs(mixing: str) -> None:
    conv = layer(24, dtype=torch.float32, mixing=mixing)
    times, x = random_times(2, 20, 24.0), torch.randn(2, 3, 20)
    expected = conv(x, times=times)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(conv(x, times=times), expected)


def test_a_single_series_needs_no_batch() -> None:
    conv = layer(24)
    times, x = random_times(1, 20, 24.0), torch.randn(3, 20, dtype=F64)
    torch.testing.assert_close(conv(x, times=times), conv(x[None], times=times)[0])


def test_errors_name_the_argument() -> None:
    conv, x = layer(24), torch.zeros(2, 3, 5, dtype=F64)
    times = torch.arange(5.0).expand(2, -1)
    with pytest.raises(ValueError, match=r"`times` must be \(batch, samples\), here \(2, 5\)"):
        conv(x, times=times[:1])
    with pytest.raises(ValueError, match="with a mask for all channels or for each of 3"):
        conv(x, times=Times(times, torch.ones(2, 2, 5, dtype=torch.bool)))
    with pytest.raises(ValueError, match="`times` and `spacing` exclude each other"):
        conv(x, 0.5, times=times)
    with pytest.raises(ValueError, match=r"`times` and `lowpass` exclude each other: .* Leave `lowpass` out"):
        conv(x, times=times, lowpass=True)
    with pytest.raises(TypeError, match="`lowpass` must be True or False; got int 0"):
        conv(x, times=times, lowpass=0)
    with pytest.raises(ValueError, match=r"`times` and `condition` exclude each other\. Leave one of them out"):
        conv(x, times=times, condition=torch.zeros(2, 1, dtype=F64))
    with pytest.raises(ValueError, match="`output_times` needs `times`"):
        conv(x, output_times=times)
    with pytest.raises(ValueError, match=r"`output_times` must be \(batch, outputs\) with a batch of 2"):
        conv(x, times=times, output_times=times[:1])
    with pytest.raises(ValueError, match="`output_times` must be finite"):
        conv(x, times=times, output_times=times * torch.nan)
    with pytest.raises(TypeError, match="`output_times` must be a tensor"):
        conv(x, times=times, output_times=[[0.0], [1.0]])
    circular = layer(24, boundary="circular")
    with pytest.raises(ValueError, match='`times` need boundary="zero"'):
        circular(x, times=times)
    image = oc.Conv2d(3, 3, 8, dtype=F64)
    with pytest.raises(ValueError, match="of one axis"):
        image(torch.zeros(2, 3, 8, 8, dtype=F64), times=times)
