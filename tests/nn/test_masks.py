"""Masks: what is padded counts for nothing, and every signal of a batch has the outputs it has alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from omniconv import CCNN, SIREN, Conv, Gaussian
from omniconv.nn import (
    BatchNorm,
    DenseHead,
    LastHead,
    LayerNorm,
    Pointwise,
    PoolHead,
    ResidualBlock,
    check_mask,
    observed,
    synchronize,
)

F64 = torch.float64
GARBAGE = {"numbers": 1e3, "nan": math.nan, "inf": math.inf, "minus inf": -math.inf}
SIZES: dict[int, list[tuple[int, ...]]] = {
    1: [(11,), (7,), (4,), (11,)],
    2: [(6, 5), (4, 5), (3, 2), (5, 3)],
    3: [(4, 3, 2), (2, 3, 4), (1, 2, 2)],
}
small = partial(SIREN, hidden=4)


def signals(dim: int, channels: int = 2, dtype: torch.dtype = F64) -> list[Tensor]:
    """Signals of unequal size."""
    return [torch.randn(1, channels, *size, dtype=dtype) for size in SIZES[dim]]


def padded(parts: list[Tensor], fill: float) -> tuple[Tensor, Tensor]:
    """The signals as one batch, with `fill` times noise behind each, and the mask."""
    size = [max(axis) for axis in zip(*(part.shape[2:] for part in parts), strict=True)]
    x = torch.randn(len(parts), parts[0].shape[1], *size, dtype=parts[0].dtype).abs() * fill
    mask = torch.zeros(len(parts), *size, dtype=torch.bool)
    for row, part in enumerate(parts):
        inside = tuple(slice(n) for n in part.shape[2:])
        x[row][:, *inside] = part[0]
        mask[row][inside] = True
    return x, mask


def crop(y: Tensor, row: int, size: torch.Size) -> Tensor:
    """The outputs (1, channels, *size) of one signal of a batch."""
    return y[row : row + 1][:, :, *(slice(n) for n in size)]


def network(dim: int, head: str, causal: bool, dtype: torch.dtype = F64) -> CCNN:
    """A tiny network whose statistics, shifts and scales are not those of a new one."""
    size = tuple(max(axis) for axis in zip(*SIZES[dim], strict=True))
    model = CCNN(2, 3, size, blocks=1, width=4, kernel=small, causal=causal, head=head, dtype=dtype)
    shake(model)
    model.standardize.set([1.0, -2.0], [2.0, 0.5])
    return model.eval()


@torch.no_grad()
def shake(model: nn.Module) -> None:
    """Random norms: ones and zeros hide mistakes."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.weight.uniform_(0.5, 2.0)
            module.bias.normal_()
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
        elif isinstance(module, LayerNorm):
            module.weight.uniform_(0.5, 2.0)
            module.bias.normal_()
        elif isinstance(module, Pointwise) and module.bias is not None:
            module.bias.normal_()


# ---- the padding law


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("head", ["pool", "last", "dense"])
@pytest.mark.parametrize("spacing", [None, 0.5])
def test_a_padded_signal_has_the_outputs_it_has_alone(dim: int, causal: bool, head: str, spacing: float | None) -> None:
    model, parts = network(dim, head, causal), signals(dim)
    for fill in GARBAGE.values():
        x, mask = padded(parts, fill)
        y = model(x, spacing=spacing, mask=mask)
        for row, part in enumerate(parts):
            alone = model(part, spacing=spacing)
            together = crop(y, row, part.shape[2:]) if head == "dense" else y[row : row + 1]
            torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
        if head == "dense":
            assert torch.equal(y[~mask[:, None].expand_as(y)], torch.zeros_like(y[~mask[:, None].expand_as(y)]))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("head", ["pool", "last", "dense"])
def test_in_single_precision_the_probabilities_agree_to_a_millionth(dim: int, head: str) -> None:
    model, parts = network(dim, head, causal=False, dtype=torch.float32), signals(dim, dtype=torch.float32)
    x, mask = padded(parts, math.nan)
    y = model(x, mask=mask).softmax(1)
    for row, part in enumerate(parts):
        together = crop(y, row, part.shape[2:]) if head == "dense" else y[row : row + 1]
        torch.testing.assert_close(together, model(part).softmax(1), rtol=0, atol=1e-6)


def test_each_axis_may_be_causal_or_not() -> None:
    model = CCNN(2, 3, (6, 5), blocks=1, width=4, kernel=small, causal=(True, False), head="last", dtype=F64).eval()
    parts = signals(2)
    x, mask = padded(parts, math.nan)
    torch.testing.assert_close(model(x, mask=mask), torch.cat([model(part) for part in parts]), rtol=1e-10, atol=1e-10)


def test_at_another_resolution_a_padded_signal_has_the_outputs_it_has_alone() -> None:
    model, parts = network(1, "pool", causal=True).at_resolution(2.0), signals(1)
    x, mask = padded(parts, math.nan)
    torch.testing.assert_close(model(x, mask=mask), torch.cat([model(part) for part in parts]), rtol=1e-10, atol=1e-10)


def block() -> ResidualBlock:
    conv = Conv(2, 2, 11, kernel=small, support=Gaussian, mixing="separable", dtype=F64)
    return ResidualBlock(BatchNorm(2, dtype=F64), conv, Pointwise(2, 2, dtype=F64))


def layer_block() -> ResidualBlock:
    conv = Conv(2, 2, 11, kernel=small, support=Gaussian, mixing="separable", causal=True, dtype=F64)
    return ResidualBlock(LayerNorm(2, dtype=F64), conv, Pointwise(2, 2, dtype=F64))


PARTS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: BatchNorm(2, dtype=F64),
    "layer norm": lambda: LayerNorm(2, dtype=F64),
    "block": block,
    "block with layer norm": layer_block,
    "pool": lambda: PoolHead(2, 3, dtype=F64),
    "last": lambda: LastHead(2, 3, dtype=F64),
    "dense": lambda: DenseHead(2, 3, dtype=F64),
}
VECTORS = ("pool", "last")
"""Parts with one output per signal."""


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", PARTS)
def test_every_part_gives_a_padded_signal_the_outputs_it_has_alone(name: str, garbage: str) -> None:
    part, parts = PARTS[name]().eval(), signals(1)
    shake(part)
    x, mask = padded(parts, GARBAGE[garbage])
    y = part(x, mask=mask)
    for row, signal in enumerate(parts):
        together = y[row : row + 1] if name in VECTORS else crop(y, row, signal.shape[2:])
        torch.testing.assert_close(together, part(signal), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", PARTS)
def test_gradients_neither_come_from_nor_reach_what_is_padded(name: str, training: bool, garbage: str) -> None:
    part, parts = PARTS[name](), signals(1)
    shake(part)
    part.train(training)
    clean, mask = padded(parts, 0.0)
    dirty = torch.where(mask[:, None], clean, padded(parts, GARBAGE[garbage])[0])
    results: list[list[Tensor]] = []
    for values in (clean, dirty):
        x = values.clone().requires_grad_()
        y = part(x, mask=mask)
        seen = y if name in VECTORS else torch.where(mask[:, None], y, 0.0)
        results.append(list(torch.autograd.grad(seen.square().sum(), [x, *part.parameters()])))
        hidden = results[-1][0][~mask[:, None].expand_as(x)]
        assert torch.equal(hidden, torch.zeros_like(hidden))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("head", ["pool", "last", "dense"])
def test_networks_learn_nothing_from_what_is_padded(head: str, training: bool) -> None:
    model, parts = network(2, head, causal=False).train(training), signals(2)
    clean, mask = padded(parts, 0.0)
    gradients = []
    for fill in (0.0, 1e3, math.nan, math.inf):
        x = torch.where(mask[:, None], clean, padded(parts, fill)[0]).requires_grad_()
        model(x, mask=mask).square().sum().backward()
        assert x.grad is not None
        hidden = x.grad[~mask[:, None].expand_as(x)]
        assert torch.equal(hidden, torch.zeros_like(hidden))
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
        model.zero_grad()
    assert len(gradients[0]) == len(list(model.parameters()))
    for others in gradients[1:]:
        for one, other in zip(gradients[0], others, strict=True):
            assert torch.equal(other, one)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_mask_without_a_gap_is_no_mask(dim: int, training: bool) -> None:
    for head in ("pool", "last", "dense"):
        model = network(dim, head, causal=False).train(training)
        twin = network(dim, head, causal=False).train(training)
        twin.load_state_dict(model.state_dict())
        x = torch.randn(3, 2, *SIZES[dim][0], dtype=F64)
        everything = torch.ones(3, *SIZES[dim][0], dtype=torch.bool)
        torch.testing.assert_close(model(x, mask=everything), twin(x), rtol=1e-10, atol=1e-10)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-10, atol=1e-10)


# ---- normalisation


def concatenated(parts: list[Tensor]) -> Tensor:
    """All observed positions of all signals, one behind the other: (1, channels, positions)."""
    return torch.cat([part.flatten(2) for part in parts], dim=-1)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("garbage", ["numbers", "nan", "inf"])
def test_masked_batch_norm_is_that_of_the_observed_positions(dim: int, momentum: float | None, garbage: str) -> None:
    layer = BatchNorm(2, momentum=momentum, dtype=F64)
    shake(layer)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, variance = layer.running_mean.clone(), layer.running_var.clone()
    for step in range(1, 4):
        parts = [3 + 2 * part for part in signals(dim)]
        x, mask = padded(parts, GARBAGE[garbage])
        y = layer(x, mask)
        share = 1 / step if momentum is None else momentum
        expected = F.batch_norm(
            concatenated(parts), mean, variance, layer.weight, layer.bias, training=True, momentum=share, eps=layer.eps
        )
        got = concatenated([crop(y, row, part.shape[2:]) for row, part in enumerate(parts)])
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.running_mean, mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.running_var, variance, rtol=1e-12, atol=1e-12)
        assert layer.num_batches_tracked is not None
        assert layer.num_batches_tracked.item() == step


@pytest.mark.parametrize("training", [False, True])
def test_masked_batch_norm_without_running_statistics_is_that_of_the_observed_positions(training: bool) -> None:
    layer = BatchNorm(2, track_running_stats=False, dtype=F64).train(training)
    shake(layer)
    parts = signals(1)
    x, mask = padded(parts, math.nan)
    got = concatenated([crop(layer(x, mask), row, part.shape[2:]) for row, part in enumerate(parts)])
    expected = F.batch_norm(concatenated(parts), None, None, layer.weight, layer.bias, training=True)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_masked_batch_norm_without_scale_and_shift_normalises() -> None:
    layer = BatchNorm(2, affine=False, dtype=F64)
    parts = signals(2)
    x, mask = padded(parts, 1e3)
    y = layer(x, mask)
    values = concatenated([crop(y, row, part.shape[2:]) for row, part in enumerate(parts)])
    torch.testing.assert_close(values.mean(-1), torch.zeros(1, 2, dtype=F64), rtol=0, atol=1e-12)
    variance = concatenated(parts).var(-1, unbiased=False)
    torch.testing.assert_close(values.var(-1, unbiased=False), variance / (variance + layer.eps))


def test_masked_batch_norm_in_evaluation_is_the_formula() -> None:
    layer = BatchNorm(2, dtype=F64)
    shake(layer)
    layer.eval()
    x, mask = padded(signals(1), 1e3)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    column = (-1, 1)
    scale = (layer.weight / torch.sqrt(layer.running_var + layer.eps)).reshape(column)
    expected = (x - layer.running_mean.reshape(column)) * scale + layer.bias.reshape(column)
    torch.testing.assert_close(layer(x, mask)[mask[:, None].expand_as(x)], expected[mask[:, None].expand_as(x)])


def test_a_large_mean_costs_masked_statistics_no_digits() -> None:
    x = 1e4 + torch.randn(4, 2, 50)
    mask = torch.arange(50) < torch.tensor([50, 30, 20, 7])[:, None]
    y = BatchNorm(2)(x, mask)
    exact = BatchNorm(2, dtype=F64)(x.double(), mask)
    assert (y - exact).abs()[mask[:, None].expand_as(x)].max().item() < 0.01  # float32 holds 1e4 to 0.0005


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_masked_layer_norm_is_that_of_the_signal_alone(dim: int) -> None:
    layer = LayerNorm(2, dtype=F64)
    shake(layer)
    parts = [5 + 3 * part for part in signals(dim)]
    for fill in GARBAGE.values():
        x, mask = padded(parts, fill)
        y = layer(x, mask)
        for row, part in enumerate(parts):
            expected = F.group_norm(part, 1, layer.weight, layer.bias, layer.eps)
            torch.testing.assert_close(crop(y, row, part.shape[2:]), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masked_norms_of_half_precision_are_computed_in_single_and_come_back(dtype: torch.dtype) -> None:
    parts = [100 + part for part in signals(1, dtype=dtype)]
    x, mask = padded(parts, math.inf)
    for layer in (BatchNorm(2).to(dtype), LayerNorm(2).to(dtype)):
        exact = layer.float()(x.float(), mask)
        y = layer.to(dtype)(x, mask)
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), exact, rtol=2**-7, atol=1e-4)


@pytest.mark.parametrize("name", ["batch norm", "layer norm", "pool", "last", "dense"])
def test_derivatives_of_masked_parts_are_right(name: str) -> None:
    part = PARTS[name]()
    shake(part)
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    names, values = zip(*((n, p.detach().clone().requires_grad_()) for n, p in part.named_parameters()), strict=True)

    def outputs(x: Tensor, *parameters: Tensor) -> Tensor:
        arguments = dict(zip(names, parameters, strict=True))
        buffers = {key: buffer.clone() for key, buffer in part.named_buffers()}
        y = torch.func.functional_call(part, arguments | buffers, (x, mask))
        return y if name in VECTORS else torch.where(mask[:, None], y, 0.0)

    x = torch.randn(2, 2, 4, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(outputs, (x, *values))


# ---- heads and the mask itself


def test_the_pooled_mean_is_that_of_the_observed_positions() -> None:
    head, (x, mask) = PoolHead(2, 3, dtype=F64), padded(signals(2), math.nan)
    means = torch.stack([part[0].flatten(1).mean(1) for part in signals_of(x, mask)])
    torch.testing.assert_close(head(x, mask), means @ head.readout.weight.T, rtol=1e-12, atol=1e-12)


def signals_of(x: Tensor, mask: Tensor) -> list[Tensor]:
    """The observed positions of every signal, flat."""
    return [x[row][:, seen][None] for row, seen in enumerate(mask)]


def test_observed_is_zero_where_the_mask_is_false_and_the_signal_elsewhere() -> None:
    x, mask = padded(signals(2), math.nan)
    y = observed(x, mask)
    assert torch.equal(y.movedim(1, -1)[mask], x.movedim(1, -1)[mask])
    assert torch.equal(y.movedim(1, -1)[~mask], torch.zeros(int((~mask).sum()), 2, dtype=F64))
    assert observed(x, None) is x


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(2, 8), TypeError, "`mask` must be a tensor of bool, .*; got a float32 tensor of shape"),
        (torch.ones(2, 8, dtype=torch.uint8), TypeError, "got a uint8 tensor"),
        ([[True] * 8] * 2, TypeError, "`mask` must be a tensor of bool, .*; got list"),
        (torch.ones(2, 7, dtype=torch.bool), ValueError, r"here \(2, 8\); got shape \(2, 7\)"),
        (torch.ones(2, 1, 8, dtype=torch.bool), ValueError, r"here \(2, 8\); got shape \(2, 1, 8\)"),
        (torch.ones(8, dtype=torch.bool), ValueError, r"here \(2, 8\); got shape \(8,\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask: Any, error: type[Exception], message: str) -> None:
    model = CCNN(1, 2, 8, blocks=1, width=4)
    with pytest.raises(error, match=message):
        model(torch.zeros(2, 1, 8), mask=mask)
    with pytest.raises(error, match=message):
        check_mask(mask, torch.zeros(2, 1, 8))


def test_circles_take_no_mask() -> None:
    model = CCNN(1, 2, (8, 8), blocks=1, width=4, boundary=("zero", "circular"))
    with pytest.raises(ValueError, match='`mask` needs boundary="zero" on every axis: a padded circle'):
        model(torch.zeros(2, 1, 8, 8), mask=torch.ones(2, 8, 8, dtype=torch.bool))


# ---- compilation


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("head", ["pool", "last", "dense"])
def test_compiled_with_a_mask_equals_eager(head: str, training: bool) -> None:
    torch._dynamo.reset()
    model, twin = network(1, head, causal=True).train(training), network(1, head, causal=True).train(training)
    twin.load_state_dict(model.state_dict())
    x, mask = padded(signals(1), math.nan)
    y, expected = torch.compile(model, fullgraph=True, backend="aot_eager")(x, mask=mask), twin(x, mask=mask)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    if training:  # in evaluation mode this backend cannot differentiate torch's batch norm at every layout
        y.square().sum().backward()
        expected.square().sum().backward()
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-12, atol=1e-12)


# ---- several processes


def test_one_process_needs_no_synchronization() -> None:
    model = CCNN(1, 2, 8, blocks=1, width=4)
    synchronize(model)
    assert not any(module.synchronized for module in model.modules() if isinstance(module, BatchNorm))


SHARES = (slice(0, 3), slice(3, 4))
"""Unequal, as the last batch of an epoch may be."""


def synchronized_case(masked: bool) -> tuple[CCNN, Tensor, Tensor | None]:
    torch.manual_seed(0)
    model = network(1, "pool", causal=False).train()
    x, mask = padded(signals(1), math.nan if masked else 1.0)
    return model, x, mask if masked else None


def outcome(model: CCNN, x: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Outputs, gradients and statistics of a training step."""
    x = x.clone().requires_grad_()
    y = model(x, mask=mask)
    y.square().sum().backward()
    assert x.grad is not None
    result = {"outputs": y.detach(), "input": x.grad}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        result[f"gradient of {name}"] = parameter.grad
    return result | {f"buffer {name}": buffer for name, buffer in model.named_buffers()}


def one_of_two(rank: int, folder: str, masked: bool) -> None:
    """A process that computes its share of the batch."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        model, x, mask = synchronized_case(masked)
        synchronize(model)
        share = SHARES[rank]
        result = outcome(model, x[share], None if mask is None else mask[share])
        torch.save(result, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def told_of(name: str, told: str) -> str:
    """A message that says which tensor is wrong."""
    return f"{name}: {told}"


@pytest.mark.parametrize("masked", [False, True])
def test_two_processes_compute_what_one_does(masked: bool, tmp_path: Path) -> None:
    spawn(one_of_two, (str(tmp_path), masked), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    model, x, mask = synchronized_case(masked)
    for name, expected in outcome(model, x, mask).items():
        if name.startswith("gradient"):
            got = parts[0][name] + parts[1][name]
        elif name.startswith("buffer"):
            got = parts[0][name]
            assert torch.equal(parts[0][name], parts[1][name]), name
        else:
            got = torch.cat([part[name] for part in parts])
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10, msg=partial(told_of, name))
