"""What all networks share: padding, resolution, saving, compilation, causality; CCNN has tests of its own too."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omniconv import CCNN, CKCNN, SIREN, Conv, FlexNet
from omniconv.groups import SO2
from omniconv.kernels import Conditional, HyenaFilter
from omniconv.models import Hyena, MultiHyena, Network, WaveletNet, create_model, register_model
from omniconv.models._registry import MODELS
from omniconv.nn import BatchNorm, ChannelNorm, LayerNorm

F64 = torch.float64
small, filters = partial(SIREN, hidden=4), partial(HyenaFilter, bands=2, hidden=4)
SIZES: dict[int, list[tuple[int, ...]]] = {
    1: [(11,), (7,), (4,)],
    2: [(6, 5), (4, 5), (3, 2)],
    3: [(4, 3, 2), (2, 3, 4)],
}

NETWORKS: dict[str, Callable[..., Network]] = {
    "ccnn": partial(CCNN, blocks=1, width=4, kernel=small),
    "ckcnn": partial(CKCNN, blocks=2, width=3, kernel=small),
    "flextcn": partial(CKCNN, blocks=1, width=4, kernel=small, norm="batch"),
    "hyena": partial(Hyena, blocks=1, width=4, kernel=filters),
    "multi_hyena": partial(MultiHyena, blocks=1, n_filters=2, head_width=2, kernel=filters),
    "flexnet": partial(FlexNet, blocks=(1, 2), widths=(3, 4), kernel=small),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


@torch.no_grad()
def shaken(model: Network) -> Network:
    """The network with norms that are not those of a new one, in evaluation mode: ones and zeros hide mistakes.

    Shifts are positive, so that no network of so few units is dead behind its ReLUs.
    """
    for module in model.modules():
        if isinstance(module, BatchNorm | ChannelNorm | LayerNorm):
            module.weight.uniform_(0.5, 2.0)
            module.bias.uniform_(0.0, 2.0)
        if isinstance(module, BatchNorm) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    model.standardize.set([1.0, -2.0], [2.0, 0.5])
    return model.eval()


def network(name: str, size: Any, **options: Any) -> Network:
    return shaken(NETWORKS[name](2, 3, size, dtype=F64, **options))


def padded(parts: list[Tensor], fill: float) -> tuple[Tensor, Tensor]:
    """The signals as one batch, with `fill` behind each, and the mask."""
    size = [max(axis) for axis in zip(*(part.shape[2:] for part in parts), strict=True)]
    x = torch.full((len(parts), parts[0].shape[1], *size), fill, dtype=parts[0].dtype)
    mask = torch.zeros(len(parts), *size, dtype=torch.bool)
    for row, part in enumerate(parts):
        inside = tuple(slice(n) for n in part.shape[2:])
        x[row][:, *inside] = part[0]
        mask[row][inside] = True
    return x, mask


@pytest.mark.parametrize("spacing", [None, 0.5])
@pytest.mark.parametrize("head", ["pool", "last", "dense"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3])
@every_network
def test_a_padded_signal_has_the_outputs_it_has_alone(
    name: str, dim: int, causal: bool, head: str, spacing: float | None
) -> None:
    size = tuple(max(axis) for axis in zip(*SIZES[dim], strict=True))
    model = network(name, size, head=head, causal=causal)
    parts = [torch.randn(1, 2, *shape, dtype=F64) for shape in SIZES[dim]]
    for fill in (1e3, math.nan, math.inf):
        x, mask = padded(parts, fill)
        y = model(x, spacing=spacing, mask=mask)
        for row, part in enumerate(parts):
            alone = model(part, spacing=spacing)
            inside = tuple(slice(n) for n in part.shape[2:])
            together = y[row : row + 1][:, :, *inside] if head == "dense" else y[row : row + 1]
            torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("head", ["pool", "last", "dense"])
@pytest.mark.parametrize("causal", [False, True])
@every_network
def test_at_the_times_of_the_reference_grid_it_is_the_network_of_the_grid(name: str, causal: bool, head: str) -> None:
    model = network(name, 13, causal=causal, head=head, span=26.0)
    x, times = torch.randn(2, 2, 13, dtype=F64), 2.0 * torch.arange(13).expand(2, -1) + 100
    torch.testing.assert_close(model(x, times=times), model(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("head", ["pool", "last", "dense"])
@every_network
def test_a_series_at_its_own_times_has_in_company_the_outputs_it_has_alone(name: str, head: str) -> None:
    model = network(name, 13, head=head)
    x, times = torch.randn(3, 2, 9, dtype=F64), torch.rand(3, 9, dtype=F64).mul(12).sort().values
    mask = torch.rand(3, 9) > 0.3
    y = model(torch.where(mask[:, None], x, math.nan), mask=mask, times=torch.where(mask, times, math.inf))
    for row, seen in enumerate(mask):
        alone = model(x[row : row + 1, :, seen], times=times[row : row + 1, seen])
        together = y[row : row + 1][..., seen] if head == "dense" else y[row : row + 1]
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


@every_network
def test_where_the_samples_are_dense_does_not_matter(name: str) -> None:
    """One smooth signal, sampled evenly and three times as densely in its first half, in its second half."""
    model = network(name, 30, causal=False, span=29.0, head="pool")
    even = torch.linspace(0, 29, 1201, dtype=F64)
    outputs = []
    for kept in (
        even % 1 >= 0,
        (even < 14.5) | (torch.arange(1201) % 3 == 0),
        (even > 14.5) | (torch.arange(1201) % 3 == 0),
    ):
        times = even[kept][None]
        window = torch.exp(-(((times - 14.5) / 5) ** 2))
        x = torch.stack([torch.sin(0.4 * times) * window, torch.cos(0.3 * times) * window], dim=1)
        outputs.append(model(x, times=times))
    for other in outputs[1:]:
        assert (other - outputs[0]).norm() < 2e-3 * outputs[0].norm()


@every_network
def test_a_condition_reaches_every_convolution(name: str) -> None:
    model = network(name, 7, kernel=partial(Conditional, conditions=2, kernel=small, hidden=3, strength=1.0))
    x, condition = torch.randn(2, 2, 7, dtype=F64), torch.rand(2, 2, dtype=F64)
    y = model(x, condition=condition)
    for row in range(2):
        alone = model(x[row : row + 1], condition=condition[row : row + 1])
        torch.testing.assert_close(y[row : row + 1], alone, rtol=0, atol=1e-10)
    asked = [module for module in model.modules() if isinstance(module, Conditional)]
    gradients = torch.autograd.grad(y.square().sum(), [kernel.output_weight for kernel in asked])
    assert all(bool(gradient.any()) for gradient in gradients)
    with pytest.raises(ValueError, match=r"`condition` needs a kernel that takes one; \w+ takes none"):
        network(name, 7)(x, condition=condition)


@every_network
def test_tokens_may_come_at_times_too(name: str) -> None:
    model = network(name, 9, tokens=5)
    ids, times = torch.randint(5, (2, 6)), torch.rand(2, 6, dtype=F64).mul(8).sort().values
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    y = model(torch.where(mask, ids, -7), mask=mask, times=times)
    torch.testing.assert_close(y[1:], model(ids[1:, :4], times=times[1:, :4]), rtol=0, atol=1e-10)


@every_network
def test_networks_learn_nothing_from_what_is_padded(name: str) -> None:
    model = network(name, 11, input_dropout=0.0).train()
    x, mask = padded([torch.randn(1, 2, n, dtype=F64) for n in (11, 5)], 0.0)
    gradients = []
    for fill in (0.0, math.nan):
        dirty = torch.where(mask[:, None], x, fill).requires_grad_()
        model(dirty, mask=mask).square().sum().backward()
        assert dirty.grad is not None
        assert torch.equal(dirty.grad[~mask[:, None].expand_as(x)], torch.zeros(2 * 6, dtype=F64))
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
        model.zero_grad()
    assert len(gradients[0]) == len(list(model.parameters()))
    assert sum(gradient.abs().max() > 0 for gradient in gradients[0]) > 0.9 * len(gradients[0])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@every_network
def test_a_view_at_another_resolution_shares_everything_and_agrees(name: str) -> None:
    model = network(name, 63, head="dense", causal=False)

    def signal(n: int) -> Tensor:
        t = torch.linspace(0, 1, n, dtype=F64)
        wave = torch.sin(6 * torch.pi * t) * torch.sin(torch.pi * t) ** 2
        return torch.stack([wave, wave.flip(0) + t])[None]

    fine = model.at_resolution(2.0)
    assert (type(fine), fine.spacing) == (type(model), (0.5,))
    assert all(a is b for a, b in zip(fine.parameters(), model.parameters(), strict=True))
    torch.testing.assert_close(model(signal(125), spacing=0.5), fine(signal(125)))
    reference = model(signal(63))
    error = (fine(signal(125))[..., ::2] - reference).norm() / reference.norm()
    assert error.item() < 0.1
    torch.testing.assert_close(fine.at_resolution(0.5)(signal(63)), reference)


@every_network
def test_the_number_of_axes_comes_from_the_size_alone(name: str) -> None:
    for size in ((9,), (5, 4), (3, 4, 2)):
        for head, shape in (("pool", ()), ("last", ()), ("dense", size)):
            model = network(name, size, head=head)
            assert model(torch.randn(2, 2, *size, dtype=F64)).shape == (2, 3, *shape)
            assert model.grid.size == size


@every_network
def test_causal_networks_do_not_see_the_future(name: str) -> None:
    norm = {"norm": "batch"} if name == "ckcnn" else {}  # layer norm is over all positions, the future too
    model = network(name, 13, head="dense", causal=True, **norm)
    jacobian = torch.autograd.functional.jacobian(model, torch.randn(1, 2, 13, dtype=F64))[0, :, :, 0]
    future = torch.triu(torch.ones(13, 13, dtype=torch.bool), 1)
    assert jacobian.movedim(2, 0)[:, :, future].abs().max().item() <= 1e-13
    assert jacobian[:, -1].abs().max().item() > 1e-6


@every_network
def test_saved_networks_come_back(name: str, tmp_path: Path) -> None:
    model = network(name, (6, 5), head="dense", dropout=0.25, input_dropout=0.5, causal=(True, False), reach=(2, 1))
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    x = torch.randn(2, 2, 6, 5, dtype=F64)
    assert torch.equal(loaded(x), model(x))
    assert loaded.input_dropout.p == 0.5
    assert {m.p for m in loaded.modules() if isinstance(m, nn.Dropout)} == {0.25, 0.5}
    assert loaded.arguments.keys() == model.arguments.keys()


@every_network
def test_new_parameters_are_those_of_a_new_model(name: str) -> None:
    model: Any = NETWORKS[name](2, 3, 16, device="meta").to_empty(device="cpu")
    model.reset_parameters()
    fresh = NETWORKS[name](2, 3, 16)
    assert fresh.state_dict().keys() == model.state_dict().keys()
    for layer in model.modules():
        if isinstance(layer, Conv):
            with torch.no_grad():
                assert 0.8 < layer(torch.randn(512, layer.in_channels, 16)).var().item() < 1.2
    for key, value in fresh.state_dict().items():
        drawn = model.state_dict()[key]
        assert bool(drawn.isfinite().all()), key
        if value.numel() > 5 and value.std() > 0:
            assert 0.2 < (drawn.std() / value.std()).item() < 5, key
        elif value.numel() > 1 and value.std() == 0:
            torch.testing.assert_close(drawn, value)


@every_network
def test_compiled_equals_eager(name: str) -> None:
    torch._dynamo.reset()
    model = NETWORKS[name](2, 3, 12).double()  # in float32 a gradient that is 0 is some rounding, on any machine other
    twin, x = copy.deepcopy(model), torch.randn(4, 2, 12, dtype=F64)
    mask = torch.ones(4, 12, dtype=torch.bool)
    mask[0, 7:] = False
    model(x, mask=mask).square().sum().backward()
    torch.compile(twin, fullgraph=True, backend="aot_eager")(x, mask=mask).square().sum().backward()
    for (key, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert a.grad is not None, key
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-9, atol=1e-11)


@every_network
def test_the_input_is_dropped_after_it_is_standardised(name: str) -> None:
    model = network(name, 8, input_dropout=0.5)
    seen: list[Tensor] = []
    first = next(module for module in model.modules() if isinstance(module, Conv))
    first.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    x = torch.randn(64, 2, 8, dtype=F64)
    exact = (x - torch.tensor([[1.0], [-2.0]], dtype=F64)) / torch.tensor([[2.0], [0.5]], dtype=F64)
    model(x)
    torch.testing.assert_close(seen[0], exact)
    model.input_dropout.train()
    model(x)
    kept = seen[1] != 0
    torch.testing.assert_close(seen[1][kept], 2 * exact[kept])
    assert 0.4 < kept.double().mean().item() < 0.6


@every_network
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"head": "mean"}, ValueError, "`head` must be one of 'pool', 'last', 'dense'; got 'mean'"),
        ({"dropout": 1.0}, ValueError, "`dropout` must be a probability below 1; got 1.0"),
        ({"input_dropout": 1.0}, ValueError, "`input_dropout` must be a probability below 1; got 1.0"),
        ({"input_dropout": -0.1}, ValueError, "`input_dropout` must be finite and at least 0; got -0.1"),
        ({"blocks": 0}, (ValueError, TypeError), "`blocks` must be"),
        ({"kernel": "siren"}, TypeError, "`kernel` must be a Kernel class"),
    ],
)
def test_bad_options_are_named(
    name: str, options: dict[str, Any], error: type[Exception] | tuple[type[Exception], ...], message: str
) -> None:
    with pytest.raises(error, match=message):
        NETWORKS[name](2, 3, 8, **options)


@every_network
def test_bad_input_is_named(name: str) -> None:
    model = NETWORKS[name](2, 3, 8)
    with pytest.raises(ValueError, match=r"`x` must be \(batch, 2, \*size\) with 1 axes in size; got a float32"):
        model(torch.randn(1, 8))
    with pytest.raises(ValueError, match=r"`x` must be \(batch, 2, \*size\) with 1 axes in size; got a float32"):
        model(torch.randn(1, 3, 8))
    with pytest.raises(ValueError, match=r"`mask` must be \(batch, \*size\), here \(1, 8\)"):
        model(torch.randn(1, 2, 8), mask=torch.ones(1, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"`factor` must be finite and above 0; got 0\.0"):
        model.at_resolution(0.0)
    circle = NETWORKS[name](2, 3, 8, causal=False, boundary="circular")
    with pytest.raises(ValueError, match='`mask` needs boundary="zero" on every axis'):
        circle(torch.randn(1, 2, 8), mask=torch.ones(1, 8, dtype=torch.bool))


# ---- tokens


@every_network
def test_ids_are_embedded_in_the_input_channels(name: str, tmp_path: Path) -> None:
    model, ids = network(name, 9, tokens=5, causal=True), torch.randint(5, (3, 9))
    assert model.embedding is not None
    seen: list[Tensor] = []
    first = next(module for module in model.modules() if isinstance(module, Conv))
    first.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    y = model(ids)
    vectors = model.embedding.vectors.weight.detach().clone()
    torch.testing.assert_close(seen[0], vectors[ids].transpose(1, 2))  # though `standardize` has constants
    model.save_pretrained(tmp_path)
    assert torch.equal(type(model).from_pretrained(tmp_path)(ids), y)
    model.reset_parameters()
    assert not torch.equal(model.embedding.vectors.weight, vectors)
    assert model.state_dict().keys() - network(name, 9).state_dict().keys() == {"embedding.vectors.weight"}


@every_network
@pytest.mark.parametrize("size", [(9,), (4, 5)])
def test_padded_ids_have_the_outputs_they_have_alone_whatever_the_padding(name: str, size: tuple[int, ...]) -> None:
    model, short = network(name, size, tokens=5), tuple(n - 2 for n in size)
    long, part = torch.randint(5, (1, *size)), torch.randint(5, (1, *short))
    for fill in (0, 4, -1, 99):
        ids, inside = torch.full((2, *size), fill), tuple(slice(n) for n in short)
        ids[0], ids[1][inside] = long[0], part[0]
        mask = torch.ones(2, *size, dtype=torch.bool)
        mask[1], mask[1][inside] = False, True
        expected = torch.cat([model(long), model(part)])
        torch.testing.assert_close(model(ids, mask=mask), expected, rtol=1e-10, atol=1e-10)


def test_networks_of_tokens_compile_and_learn_the_embedding() -> None:
    torch._dynamo.reset()
    model: Any = CCNN(4, 3, 12, blocks=1, width=4, kernel=small, tokens=256).eval()
    ids = torch.randint(256, (2, 12), dtype=torch.uint8)
    y = model(ids)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(ids), y)
    y.square().sum().backward()
    used = model.embedding.vectors.weight.grad.abs().amax(1) > 0
    assert set(used.nonzero().flatten().tolist()) == set(ids.flatten().tolist())


@every_network
def test_what_are_no_ids_is_named(name: str) -> None:
    model = NETWORKS[name](2, 3, 8, tokens=5)
    with pytest.raises(ValueError, match=r"`x` must be ids \(batch, \*size\), 1 axes in size; got a int64 tensor"):
        model(torch.zeros(1, 2, 8, dtype=torch.long))
    with pytest.raises(TypeError, match="`x` must be a tensor of integers, the ids of tokens; got a float32 tensor"):
        model(torch.zeros(1, 8))
    with pytest.raises(ValueError, match="`x` must hold ids from 0 to 4; got 0 to 5"):
        model(torch.tensor([[0, 5]]))
    with pytest.raises(ValueError, match="`tokens` must be at least 1; got 0"):
        NETWORKS[name](2, 3, 8, tokens=0)
    with pytest.raises(ValueError, match=r"`mask` must be \(batch, \*size\), here \(1, 8\)"):
        model(torch.zeros(1, 8, dtype=torch.long), mask=torch.ones(1, 7, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool])
def test_integers_are_no_signal(dtype: torch.dtype) -> None:
    """Constants of the data would be rounded to integers: a standard deviation below one to zero."""
    model = CCNN(1, 2, 8, blocks=1, width=4).eval()
    model.standardize.set([0.5], [0.25])
    with pytest.raises(TypeError, match=r"`x` must hold floating-point numbers; got a .* tensor .*\.float\(\)"):
        model(torch.tensor([[[0, 1, 2, 0, 1, 2, 0, 1]]]).to(dtype))


def test_an_empty_signal_is_named() -> None:
    with pytest.raises(ValueError, match=r"`x` must have at least one sample on every axis; got .*\(2, 1, 0\)"):
        CCNN(1, 2, 8, blocks=1, width=4)(torch.zeros(2, 1, 0))


def test_a_network_on_a_group_has_no_span() -> None:
    options: dict[str, Any] = {"blocks": 1, "width": 4, "samples": 4}
    with pytest.raises(ValueError, match=r"`span` is the unit of .* a network on a `group` takes none"):
        CCNN(1, 2, (6, 6), group=SO2(), span=99.0, **options)
    with pytest.raises(TypeError, match=r"`group` must be an omniconv.groups.Group"):
        CCNN(1, 2, (6, 6), group="SO2", **options)  # type: ignore[arg-type]


def test_a_reach_of_wavelets_is_named() -> None:
    with pytest.raises(ValueError, match="`lift_reach` must be at least 0; got -1"):
        WaveletNet(1, 2, 32, lift_reach=-1)
    with pytest.raises(TypeError, match="`reach` must be an integer"):
        WaveletNet(1, 2, 32, reach=1.5)  # type: ignore[arg-type]


def test_a_name_that_is_taken_stays() -> None:
    def mine() -> nn.Module:
        return nn.Identity()

    for name in ("ccnn_4_140", "flextcn_2", "flexnet_5"):
        with pytest.raises(ValueError, match=f"`name` must be a new one; '{name}' is taken by omniconv"):
            register_model(mine, name)
    with pytest.raises(TypeError, match="`builder` must be a function"):
        register_model("ccnn", "other")  # type: ignore[type-var]
    with pytest.raises(TypeError, match="`name` must be a string"):
        register_model(partial(mine))
    try:
        register_model(mine, "mine")
        register_model(mine, "mine")  # a cell of a notebook that is run again
        assert isinstance(create_model("mine"), nn.Identity)
    finally:
        del MODELS["mine"]
