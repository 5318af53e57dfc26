"""GatedConv, MultiHeadConv, GatedBlock and ChannelNorm: the formulas by loops, masks, copies, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, TypeAlias, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv import Gaussian
from omniconv.domains import Times
from omniconv.kernels import HyenaFilter, Table
from omniconv.nn import ChannelNorm, GatedBlock, GatedConv, MultiHeadConv, Pointwise
from omniconv.testing import assert_close, check_layer

F64 = torch.float64
filters = partial(HyenaFilter, bands=3, hidden=5, depth=3)
Mixer: TypeAlias = GatedConv | MultiHeadConv

MIXERS: dict[str, Callable[..., Mixer]] = {
    "gated, order 2": partial(GatedConv, 4, kernel=filters),
    "gated, order 3": partial(GatedConv, 4, order=3, kernel=filters),
    "gated, order 4": partial(GatedConv, 4, order=4, short=1, kernel=filters),
    "heads of width 2": partial(MultiHeadConv, 2, 2, kernel=filters),
    "one head": partial(MultiHeadConv, 1, 4, short=5, kernel=filters),
    "heads of width 1": partial(MultiHeadConv, 4, 1, kernel=filters),
}
every_mixer = pytest.mark.parametrize("name", MIXERS)


@torch.no_grad()
def shaken(layer: Any) -> Any:
    """The layer with biases and scales that are not those of a new one: ones and zeros hide mistakes."""
    for name, parameter in layer.named_parameters():
        if name.split(".")[-1] == "bias":
            parameter.normal_()
        if name.split(".")[0] in ("norm_1", "norm_2") or parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def mixer(name: str, size: Any, **options: Any) -> Mixer:
    layer: Mixer = shaken(MIXERS[name](size, dtype=F64, **options))
    return layer


# ---- by hand


def convolved(x: Tensor, taps: Tensor, causal: bool) -> Tensor:
    """y[c, t] = sum_s taps[c, s] x[c, t + origin - s], sample by sample; zero beyond the ends."""
    origin = [0 if causal else n // 2 for n in taps.shape[1:]]
    y = torch.zeros_like(x)
    for t in product(*(range(n) for n in x.shape[2:])):
        for s in product(*(range(n) for n in taps.shape[1:])):
            u = [now + o - lag for now, o, lag in zip(t, origin, s, strict=True)]
            if all(0 <= i < n for i, n in zip(u, x.shape[2:], strict=True)):
                here, tap, there = (cast(Any, (..., *place)) for place in (t, s, u))
                y[here] += taps[tap] * x[there]
    return y


def mixed(layer: Pointwise, x: Tensor) -> Tensor:
    assert layer.bias is not None
    return torch.einsum("oc,bc...->bo...", layer.weight, x) + layer.bias.reshape(-1, *[1] * (x.ndim - 2))


def projected(layer: Mixer, x: Tensor, causal: bool, **where: Any) -> Tensor:
    """short(W x)."""
    assert layer.short.bias is not None
    z = convolved(mixed(layer.project, x), layer.short.taps(**where), causal)
    return z + layer.short.bias.reshape(-1, *[1] * (x.ndim - 2))


def gated_by_hand(layer: GatedConv, x: Tensor, causal: bool, **where: Any) -> Tensor:
    c, order = layer.channels, layer.order
    z = projected(layer, x, causal, **where)
    gates, value = [z[:, n * c : (n + 1) * c] for n in range(order)], z[:, order * c :]
    for step, n in enumerate(range(order - 1, 0, -1)):
        driven, conv = gates[n] * value, layer.long[step]
        skipped = torch.stack([layer.skip[step, k] * driven[:, k] for k in range(c)], 1)
        value = convolved(driven, conv.taps(**where), causal) + skipped  # type: ignore[operator]
    return mixed(layer.mix, gates[0] * value)


def heads_by_hand(layer: MultiHeadConv, x: Tensor, causal: bool, **where: Any) -> Tensor:
    width, count = layer.head_width, layer.n_filters
    query, key, value = projected(layer, x, causal, **where).chunk(3, 1)
    taps, outputs = layer.long.taps(**where), []
    for m in range(count):
        for j in range(width):
            total = torch.zeros_like(x[:, :1])
            for i in range(width):
                driven = key[:, m * width + i, None] * value[:, m * width + j, None]
                kept = convolved(driven, taps[m : m + 1], causal) + layer.skip[m] * driven
                total = total + kept * query[:, m * width + i, None]
            outputs.append(total)
    return mixed(layer.mix, torch.cat(outputs, 1))


def by_hand(layer: Mixer, x: Tensor, causal: bool = True, **where: Any) -> Tensor:
    make = gated_by_hand if isinstance(layer, GatedConv) else heads_by_hand
    return make(layer, x, causal, **where)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "causal"), [(9, True), (8, False), ((4, 3), False), ((3, 4), True), ((2, 3, 2), True)]
)
@every_mixer
def test_the_formula_by_loops(name: str, size: Any, causal: bool) -> None:
    """Values and gradients, of the input and of every parameter."""
    layer = mixer(name, size, causal=causal, **({} if causal else {"short": 3}))
    shape = (size,) if isinstance(size, int) else size
    x = torch.randn(2, 4, *shape, dtype=F64, requires_grad=True)
    sources = [x, *layer.parameters()]
    found, expected = layer(x), by_hand(layer, x, causal)
    assert_close(found, expected, tolerance=1e-12)
    weight = torch.randn_like(found)
    pairs = zip(
        torch.autograd.grad((found * weight).sum(), sources),
        torch.autograd.grad((expected * weight).sum(), sources),
        strict=True,
    )
    for (key, _), (one, other) in zip([("x", x), *layer.named_parameters()], pairs, strict=True):
        assert other.abs().max() > 0, key
        assert_close(one, other, key, tolerance=1e-11)


@every_mixer
def test_any_length_and_any_resolution(name: str) -> None:
    layer = mixer(name, 6)
    for length in (1, 3, 11):
        x = torch.randn(1, 4, length, dtype=F64)
        assert_close(layer(x), by_hand(layer, x), tolerance=1e-12)
    x = torch.randn(1, 4, 12, dtype=F64)
    assert_close(layer(x, spacing=0.5), by_hand(layer, x, spacing=0.5), tolerance=1e-12)
    found, expected = layer(x, spacing=2.0, lowpass=True), by_hand(layer, x, spacing=2.0, lowpass=True)
    assert_close(found, expected, tolerance=1e-12)
    assert (found - layer(x, spacing=0.5)).norm() > 0.1 * found.norm()


def test_other_kernels_and_supports() -> None:
    layer = shaken(GatedConv(3, 9, kernel=Table, support=partial(Gaussian, width=0.4), reach=4, dtype=F64))
    assert layer.long[0].taps().shape == (3, 5)
    x = torch.randn(2, 3, 9, dtype=F64)
    assert_close(layer(x), by_hand(layer, x), tolerance=1e-12)
    circle = shaken(GatedConv(2, 5, kernel=Table, causal=False, boundary="circular", dtype=F64))
    x = torch.randn(1, 2, 5, dtype=F64)
    assert_close(circle(x.roll(2, -1)), circle(x).roll(2, -1), tolerance=1e-12)
    assert layer.long[0].engine == "auto"
    assert GatedConv(2, 5, engine="direct").long[0].engine == "direct"
    assert MultiHeadConv(2, 1, 5, engine="direct").long.engine == "direct"


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_heads_of_width_1_are_the_gated_one_of_order_2(causal: bool) -> None:
    gated = shaken(GatedConv(5, 7, kernel=filters, causal=causal, dtype=F64))
    heads = MultiHeadConv(5, 1, 7, kernel=filters, causal=causal, dtype=F64)
    state = {name.replace("long.0.", "long."): value for name, value in gated.state_dict().items()}
    state["skip"] = state["skip"][0]
    heads.load_state_dict(state)
    x = torch.randn(3, 5, 10, dtype=F64)
    assert_close(heads(x), gated(x), tolerance=1e-13)


@torch.no_grad()
def test_a_head_of_a_multi_head_layer_is_alone() -> None:
    """With projections and mixing that do nothing, channels of one head move none of another."""
    layer = MultiHeadConv(3, 2, 7, kernel=filters, dtype=F64)
    eye = torch.eye(6, dtype=F64)
    layer.project.weight.copy_(torch.cat([eye, eye, eye]))
    layer.mix.weight.copy_(eye)
    x = torch.randn(1, 6, 7, dtype=F64)
    moved = x.clone()
    moved[:, 2:4] += 1
    difference = (layer(moved) - layer(x)).abs().amax((0, 2))
    assert (difference[[0, 1, 4, 5]] == 0).all()
    assert (difference[[2, 3]] > 0.01).all()


# ---- what does not matter: the future, what is padded, company


@every_mixer
def test_causal_by_gradient(name: str) -> None:
    layer = mixer(name, 8)
    jacobian = torch.autograd.functional.jacobian(layer, torch.randn(1, 4, 8, dtype=F64))[0, :, :, 0]
    future = torch.triu(torch.ones(8, 8, dtype=torch.bool), 1)
    size = jacobian.movedim(2, 0).abs()
    assert size[:, :, future].max() <= 1e-13
    assert (size[:, :, ~future].amax((0, 1)) > 1e-6).all()  # all of the past counts


@pytest.mark.parametrize("fill", [1e3, math.nan, math.inf])
@pytest.mark.parametrize("causal", [True, False])
@every_mixer
def test_padding_changes_nothing(name: str, causal: bool, fill: float) -> None:
    for size, short in ((9, (5,)), ((4, 5), (3, 2))):
        layer = mixer(name, size, causal=causal)
        shape = (size,) if isinstance(size, int) else size
        whole, part = torch.randn(1, 4, *shape, dtype=F64), torch.randn(1, 4, *short, dtype=F64)
        inside = tuple(slice(n) for n in short)
        x, mask = torch.full((2, 4, *shape), fill, dtype=F64), torch.ones(2, *shape, dtype=torch.bool)
        x[0], x[1][:, *inside] = whole[0], part[0]
        mask[1] = False
        mask[1][inside] = True
        y = layer(x, mask=mask)
        assert_close(y[:1], layer(whole), tolerance=1e-12)
        assert_close(y[1:, :, *inside], layer(part), tolerance=1e-12)


@pytest.mark.parametrize("name", ["gated, order 3", "heads of width 2"])
def test_padding_teaches_nothing(name: str) -> None:
    """Not even NaN: gradients are those of the samples that were observed."""
    layer, mask = mixer(name, 9), torch.arange(9) < torch.tensor([[9], [5]])
    x, gradients = torch.randn(2, 4, 9, dtype=F64), []
    for fill in (0.0, math.nan):
        dirty = torch.where(mask[:, None], x, fill).requires_grad_()
        y = layer(dirty, mask=mask).movedim(1, -1)[mask]
        gradients.append(torch.autograd.grad(y.square().sum(), [dirty, *layer.parameters()]))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["gated, order 3", "heads of width 2"])
def test_at_times(name: str) -> None:
    """At those of the grid it is the layer of the grid; at its own, a series in company is what it is alone."""
    layer, x = mixer(name, 9), torch.randn(3, 4, 9, dtype=F64)
    grid = Times(torch.arange(9.0).expand(3, -1))
    assert_close(layer(x, times=grid), layer(x), tolerance=1e-12)
    own, mask = torch.rand(3, 9, dtype=F64).mul(8).sort().values, torch.rand(3, 9) > 0.2
    y = layer(x, mask=mask, times=Times(own, mask))
    for row in range(3):
        seen = mask[row]
        alone = layer(x[row : row + 1, :, seen], times=Times(own[row : row + 1, seen]))
        assert_close(y[row : row + 1, :, seen], alone, tolerance=1e-12)


def test_repeated_times_are_those_of_every_series_in_a_row() -> None:
    times, mask = torch.rand(2, 5, dtype=F64).sort().values, torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0]]).bool()
    for seen in (None, mask, mask[:, None] & (torch.rand(2, 3, 5) > 0.3)):
        twice = Times(times, seen).repeated(2)
        wide = None if seen is None else seen[[0, 0, 1, 1]]
        expected = Times(times[[0, 0, 1, 1]], wide)
        assert torch.equal(twice.observed, expected.observed)
        assert torch.equal(twice.times, expected.times)
        assert torch.equal(twice.cells, expected.cells)


@every_mixer
def test_no_rows(name: str) -> None:
    assert mixer(name, 8)(torch.zeros(0, 4, 8, dtype=F64)).shape == (0, 4, 8)


# ---- as a layer of torch


def block(of: Mixer, **options: Any) -> GatedBlock:
    made: GatedBlock = shaken(GatedBlock(of, **options))
    return made


LAYERS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "gated, order 2": lambda: (mixer("gated, order 2", 5), torch.randn(2, 4, 5, dtype=F64)),
    "gated, order 3": lambda: (mixer("gated, order 3", 5), torch.randn(1, 4, 5, dtype=F64)),
    "gated images": lambda: (mixer("gated, order 2", (3, 2), causal=False), torch.randn(1, 4, 3, 2, dtype=F64)),
    "heads of width 2": lambda: (mixer("heads of width 2", 5), torch.randn(2, 4, 5, dtype=F64)),
    "block": lambda: (block(mixer("heads of width 2", 5), depth=3), torch.randn(1, 4, 5, dtype=F64)),
    "channel norm": lambda: (shaken(ChannelNorm(3, dtype=F64)), torch.randn(2, 3, 5, dtype=F64)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_laws_of_layers(name: str) -> None:
    """First and second derivatives, copies, pickle, state dict, half precision."""
    check_layer(*LAYERS[name]())


@pytest.mark.parametrize("make", [*MIXERS, "block"])
def test_new_parameters_are_those_of_a_new_layer(make: str) -> None:
    """Drawn in the same order: with the same seed bit for bit."""

    def new(**options: Any) -> Any:
        if make == "block":
            return GatedBlock(GatedConv(4, 9, kernel=filters, **options), depth=5, expansion=3)
        return MIXERS[make](9, **options)

    layer: Any = new(device="meta")
    assert all(parameter.is_meta for parameter in layer.parameters())
    layer = layer.to_empty(device="cpu")
    torch.manual_seed(5)
    fresh = new()
    torch.manual_seed(5)
    layer.reset_parameters()
    for (name, drawn), expected in zip(layer.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(drawn, expected), name


@every_mixer
def test_on_no_device(name: str) -> None:
    layer = MIXERS[name](9, device="meta")
    y = layer(torch.zeros(2, 4, 7, device="meta"))
    assert y.is_meta
    assert y.shape == (2, 4, 7)


@every_mixer
def test_a_new_layer_in_bfloat16(name: str) -> None:
    layer = MIXERS[name](9, dtype=torch.bfloat16)
    x = torch.randn(2, 4, 9, dtype=torch.bfloat16)
    y = layer(x)
    assert y.dtype == torch.bfloat16
    exact = layer.double()(x.double())
    assert_close(y.double(), exact, tolerance=0.05)


def test_skips_are_standard_normal_and_the_mixing_keeps_variance() -> None:
    layer = GatedConv(2000, 4, order=3, kernel=Table)
    assert layer.skip.shape == (2, 2000)
    assert abs(layer.skip.mean().item()) < 0.1
    assert abs(layer.skip.std().item() - 1) < 0.1
    heads = MultiHeadConv(2000, 1, 4, kernel=Table)
    assert heads.skip.shape == (2000,)
    assert abs(heads.skip.std().item() - 1) < 0.1


# ---- the block


@pytest.mark.parametrize("name", ["gated, order 3", "heads of width 2"])
def test_the_formula_of_the_block(name: str) -> None:
    def norm(layer: ChannelNorm, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = centred.square().mean(1, keepdim=True)
        return centred / (variance + 1e-5).sqrt() * layer.weight[:, None] + layer.bias[:, None]

    layer = block(mixer(name, 7), expansion=3, dropout=0.4).eval()
    assert layer.up.weight.shape == (12, 4)
    x = torch.randn(2, 4, 7, dtype=F64)
    y = x + by_hand(layer.mixer, norm(layer.norm_1, x))
    wide = mixed(layer.up, norm(layer.norm_2, y))
    gelu = wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2)))
    assert_close(layer(x), y + mixed(layer.down, gelu), tolerance=1e-12)


def test_a_block_hands_on_what_it_is_told() -> None:
    layer, x = block(mixer("gated, order 2", 7)), torch.randn(2, 4, 7, dtype=F64)
    twin = block(mixer("gated, order 2", 7))
    twin.load_state_dict(layer.state_dict())
    told: dict[str, Any] = {}
    forward = twin.mixer.forward

    def spy(x: Tensor, *where: Any, **options: Any) -> Tensor:
        told.update(spacing=where[0], mask=where[1], **options)
        return forward(x, *where, **options)

    twin.mixer.forward = spy  # type: ignore[method-assign]
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    y = twin(torch.where(mask[:, None], x, math.nan), spacing=2.0, mask=mask, lowpass=True)
    assert told["spacing"] == 2.0
    assert told["mask"] is mask
    assert told["lowpass"] is True
    assert told["times"] is told["condition"] is None
    assert_close(y[1:, :, :4], layer(x[1:, :, :4], spacing=2.0, lowpass=True), tolerance=1e-12)


@pytest.mark.parametrize("depth", [1, 6])
def test_what_blocks_add_begins_small(depth: int) -> None:
    """A new `Pointwise` has a norm of exactly sqrt(out); those that end a half are 1 / sqrt(2 depth) of it, once."""
    layer = GatedBlock(GatedConv(8, 9, kernel=filters, dtype=F64), depth=depth, expansion=3)
    for _ in range(2):
        sizes = {
            layer.mixer.project: math.sqrt(24),
            layer.mixer.mix: math.sqrt(8 / (2 * depth)),
            layer.up: math.sqrt(24),
            layer.down: math.sqrt(8 / (2 * depth)),
        }
        for part, expected in sizes.items():
            assert part.weight.norm().item() == pytest.approx(expected, rel=1e-12)
        layer.reset_parameters()


@torch.no_grad()
def test_dropout_is_on_both_halves() -> None:
    torch.manual_seed(3)
    layer = block(mixer("gated, order 2", 50), dropout=0.5)
    x = torch.randn(8, 4, 50, dtype=F64)
    added = layer.mixer(layer.norm_1(x))
    layer.down.weight.zero_()
    assert layer.down.bias is not None
    layer.down.bias.zero_()
    share = (layer(x) - x) / added
    assert ((share.abs() < 1e-9) | ((share - 2).abs() < 1e-6)).all()
    assert abs(share.mean().item() - 1) < 0.1
    layer.mixer.mix.weight.zero_()
    assert layer.mixer.mix.bias is not None
    layer.mixer.mix.bias.zero_()
    layer.down.bias.fill_(1.0)
    share = layer(x) - x
    assert set(share.round(decimals=6).unique().tolist()) == {0.0, 2.0}
    assert torch.equal(layer.eval()(x), x + 1)


# ---- the norm


@pytest.mark.parametrize("size", [(), (7,), (4, 3), (2, 3, 2)])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_channel_norm_is_layer_norm_on_the_channels(size: tuple[int, ...], eps: float) -> None:
    layer, reference = shaken(ChannelNorm(5, eps, dtype=F64)), nn.LayerNorm(5, eps, dtype=F64)
    reference.load_state_dict(layer.state_dict())
    x = 3 * torch.randn(2, 5, *size, dtype=F64) + 1
    assert_close(layer(x), reference(x.movedim(1, -1)).movedim(-1, 1))
    mask = torch.rand(2, *size) > 0.5
    assert torch.equal(layer(x, mask), layer(x))
    assert torch.equal(layer(x, mask, torch.rand(2, *size)), layer(x))


def test_channel_norm_by_hand() -> None:
    layer = ChannelNorm(2, 3.0, dtype=F64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, -1.0]))
        layer.bias.copy_(torch.tensor([0.5, 0.0]))
    y = layer(torch.tensor([[[4.0, 7.0], [2.0, 7.0]]], dtype=F64))  # mean 3, variance 1; mean 7, variance 0
    assert_close(y, torch.tensor([[[2 * 0.5 + 0.5, 0.5], [0.5, 0.0]]], dtype=F64))


def test_channel_norm_is_taken_in_float32_at_least() -> None:
    layer = shaken(ChannelNorm(64))
    x = (100 + torch.randn(2, 64, 5)).to(torch.bfloat16)
    assert torch.equal(layer(x), layer(x.float()).to(torch.bfloat16))
    assert layer(torch.zeros(1, 64, 2, dtype=F64)).dtype == F64
    layer = layer.to(torch.bfloat16)
    assert torch.equal(layer(x), layer(x.float()).to(torch.bfloat16))


def test_channel_norm_begins_as_nothing_but_the_norm() -> None:
    layer = shaken(ChannelNorm(3))
    layer.reset_parameters()
    assert torch.equal(layer.weight, torch.ones(3))
    assert torch.equal(layer.bias, torch.zeros(3))
    assert str(layer) == "ChannelNorm(3, eps=1e-05)"
    x = torch.randn(2, 3, 4)
    assert torch.equal(layer(x), F.layer_norm(x.movedim(1, -1), (3,)).movedim(-1, 1))


# ---- errors


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GatedConv(4, 8, order=1), ValueError, "`order` must be at least 2; got 1"),
        (lambda: GatedConv(4, 8, order=2.0), TypeError, "`order` must be an integer; got float 2.0"),  # type: ignore[arg-type]
        (lambda: GatedConv(4, 8, short=0), ValueError, "`short` must be at least 1; got 0"),
        (lambda: GatedConv(4, 8, short=True), TypeError, "`short` must be an integer; got bool True"),
        (lambda: MultiHeadConv(4, 1, 8, short=0), ValueError, "`short` must be at least 1; got 0"),
        (lambda: GatedConv(0, 8), ValueError, "`channels` must be at least 1; got 0"),
        (lambda: GatedConv("4", 8), TypeError, "`channels` must be an integer; got str '4'"),  # type: ignore[arg-type]
        (lambda: MultiHeadConv(0, 2, 8), ValueError, "`n_filters` must be at least 1; got 0"),
        (lambda: MultiHeadConv(2.0, 2, 8), TypeError, "`n_filters` must be an integer"),  # type: ignore[arg-type]
        (lambda: MultiHeadConv(2, 0, 8), ValueError, "`head_width` must be at least 1; got 0"),
        (lambda: MultiHeadConv(2, 1.5, 8), TypeError, "`head_width` must be an integer"),  # type: ignore[arg-type]
        (lambda: GatedConv(4, 0), ValueError, "`size` must be at least 1"),
        (lambda: GatedConv(4, 8.5), TypeError, "`size` must be an integer; got float 8.5"),  # type: ignore[arg-type]
        (lambda: MultiHeadConv(4, 1, "8"), TypeError, "`size` must be an integer; got str '8'"),  # type: ignore[arg-type]
        (lambda: GatedConv(4, 8, reach=-1), ValueError, "`reach` must be at least 0"),
        (lambda: GatedConv(4, 8, kernel=None), TypeError, "`kernel` must be a Kernel class"),  # type: ignore[arg-type]
        (lambda: GatedConv(4, 8, causal=1), TypeError, "`causal` must be True or False; got int 1"),  # type: ignore[arg-type]
        (lambda: GatedConv(4, (8, 8), causal=(True,)), ValueError, "`causal` must be one value or 2 values"),
        (lambda: GatedConv(4, 8, boundary="circular"), ValueError, '`causal` and boundary "circular" exclude'),
        (lambda: MultiHeadConv(4, 1, 8, boundary="wrap"), ValueError, "`boundary` must be one of 'zero', 'circular'"),
        (lambda: MultiHeadConv(4, 1, 8, engine="best"), ValueError, "`engine` must be one of 'auto'"),
        (lambda: GatedBlock(GatedConv(4, 8), expansion=0), ValueError, "`expansion` must be at least 1; got 0"),
        (lambda: GatedBlock(GatedConv(4, 8), depth=0), ValueError, "`depth` must be at least 1; got 0"),
        (lambda: GatedBlock(GatedConv(4, 8), dropout=1.0), ValueError, "`dropout` must be a probability below 1"),
        (lambda: ChannelNorm(0), ValueError, "`channels` must be at least 1; got 0"),
        (lambda: ChannelNorm(3, 0.0), ValueError, "`eps` must be finite and above 0; got 0.0"),
        (lambda: ChannelNorm(3, math.inf), ValueError, "`eps` must be finite and above 0; got inf"),
        (lambda: ChannelNorm(3, "small"), TypeError, "`eps` must be a number"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", ["gated, order 2", "heads of width 2"])
def test_bad_signals_are_named(name: str) -> None:
    layer = MIXERS[name](8)
    with pytest.raises(
        ValueError, match=r"`x` must be \(batch, 4, \*size\); got a float32 tensor of shape \(1, 3, 8\)"
    ):
        layer(torch.zeros(1, 3, 8))
    with pytest.raises(ValueError, match=r"`x` must be \(batch, 4, \*size\); got a float32 tensor of shape \(4, 8\)"):
        layer(torch.zeros(4, 8))
    for shape in ((2, 4, 3), (4,), (2,)):
        with pytest.raises(ValueError, match=r"`x` must be \(batch, 3, \*size\); got a float"):
            ChannelNorm(3)(torch.zeros(shape))


def test_sizes_of_numpy_and_torch() -> None:
    """As `Conv` takes them."""
    for size in (np.int64(8), [8], np.array([8]), torch.tensor([8])):
        assert GatedConv(4, size).short.grid.size == (8,)  # type: ignore[arg-type]
        assert MultiHeadConv(4, 1, size).short.grid.size == (8,)  # type: ignore[arg-type]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("short", [1, 2, 3, 4])
def test_short_is_the_number_of_taps(short: int, causal: bool) -> None:
    """Or an even number is refused where taps lie to either side."""
    try:
        layer = GatedConv(2, 9, short=short, causal=causal)
    except ValueError as error:
        assert not causal
        assert short % 2 == 0
        assert "`short`" in str(error)  # noqa: PT017
    else:
        assert layer.short.taps().shape == (6, short)


@pytest.mark.parametrize("size", [8, (6, 5)], ids=["1d", "2d"])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("make", [GatedConv, partial(GatedConv, order=3), partial(MultiHeadConv, 1)])
def test_products_beyond_half_precision_are_never_nan(make: Callable[..., Any], autocast: bool, size: Any) -> None:
    """Of float16 signals of a thousand, products are a million, and float16 ends at 65504."""
    torch.manual_seed(0)
    layer = make(3, size, causal=False, kernel=filters)
    sizes = (size,) if isinstance(size, int) else size
    for scale in (1.0, 1e3, 1e4):
        x = torch.full((1, 3, *sizes), scale).half()
        with torch.autocast("cpu", torch.float16, enabled=autocast):
            y = layer(x)
        assert y.dtype == torch.float16
        assert not y.isnan().any()
        exact = layer(x.float())
        fits = exact.abs() < 6e4
        error = (y.float() - exact)[fits].norm() / exact.abs().clamp(min=1e-6)[fits].norm().clamp(min=1e-6)
        assert error < 0.02 or not fits.any()
