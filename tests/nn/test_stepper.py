"""Causal layers sample by sample: what they give at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from omniconv import Conv, Full
from omniconv.kernels import HyenaFilter
from omniconv.nn import (
    BasicBlock,
    BatchNorm,
    GatedBlock,
    GatedConv,
    LayerNorm,
    MultiHeadConv,
    Pointwise,
    ResidualBlock,
    State,
)
from omniconv.nn.stepper import Steps

SIZE = 12
causal = partial(Conv, size=SIZE, causal=True)
filters = partial(HyenaFilter, bands=2, hidden=4)
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: causal(3, 4),
    "depthwise": lambda: causal(3, 3, mixing="depthwise", support=Full, bias=False),
    "separable": lambda: causal(3, 5, mixing="separable"),
    "one tap": lambda: causal(3, 3, reach=0),
    "residual": lambda: ResidualBlock(BatchNorm(3), causal(3, 3), Pointwise(3, 3), dropout=0.5),
    "basic": lambda: BasicBlock(
        causal(3, 4), BatchNorm(4), causal(4, 4), BatchNorm(4), Pointwise(3, 4), dropout=0.5, rectify=True
    ),
    "gated": lambda: GatedConv(3, SIZE, order=3, kernel=filters),
    "multi-head": lambda: MultiHeadConv(1, 3, SIZE, kernel=filters),
    "gated block": lambda: GatedBlock(GatedConv(3, SIZE, kernel=filters), dropout=0.5),
}


@torch.no_grad()
def layer(name: str) -> nn.Module:
    """In training mode, with norms that have seen data, and biases."""
    torch.manual_seed(0)
    made = LAYERS[name]().double()
    for parameter in made.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    for _ in range(3):
        made(torch.randn(4, 3, SIZE, dtype=torch.float64))
    return made


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6))
@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_steps_and_chunks_are_the_layer(name: str, cuts: list[int]) -> None:
    made = layer(name)
    assert isinstance(made, Steps)
    stepper, x = made.stepper(), torch.randn(2, 3, sum(cuts) + 3, dtype=torch.float64)
    expected = made.eval()(x)
    state, outputs = stepper.init_state(2, dtype=torch.float64), []
    for chunk in x[..., :-3].split(cuts, dim=-1):
        y, state = stepper.prefill(chunk, state)
        outputs.append(y)
    for sample in x[..., -3:].unbind(-1):
        y, state = stepper.step(sample, state)
        outputs.append(y[..., None])
    torch.testing.assert_close(torch.cat(outputs, -1), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_are_what_they_are_alone(side: str) -> None:
    stepper, x = layer("gated block").stepper(), torch.randn(3, 3, 8, dtype=torch.float64)  # type: ignore[operator]
    lengths = torch.tensor([8, 3, 0])
    y, state = stepper.prefill(x, lengths=lengths, side=side)
    there: Tensor = x[1:2, :, :3] if side == "right" else x[1:2, :, -3:]
    alone, own = stepper.prefill(there)
    torch.testing.assert_close(y[1:2, :, :3] if side == "right" else y[1:2, :, -3:], alone)
    assert not y[2].any()
    for mine, other in zip(state.select(torch.tensor([1])).tensors, own.tensors, strict=True):
        torch.testing.assert_close(mine, other)
    last, _ = stepper.prefill(x, lengths=lengths, side=side, last=True)
    torch.testing.assert_close(last[1, :, 0], alone[0, :, -1])


def test_a_stepper_is_the_layer_as_it_was() -> None:
    made = layer("dense")
    assert isinstance(made, Conv)
    stepper, x = made.stepper(), torch.randn(1, 3, 5, dtype=torch.float64)
    before = stepper.prefill(x)[0]
    with torch.no_grad():
        made.gain.mul_(2)
    assert torch.equal(stepper.prefill(x)[0], before)
    assert made.training


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("gated block", "`state` must be a `State` of 1 tensors, as `init_state` gives it; got one of 2"),
        ("depthwise", r"tensor 0 must be real, \(2, 3, 10\), as in `init_state`; got a float64 tensor .*\(2, 3, 11\)"),
    ],
)
def test_states_of_other_layers_are_refused(other: str, message: str) -> None:
    stepper, x = layer("dense").stepper(), torch.randn(2, 3, 4, dtype=torch.float64)  # type: ignore[operator]
    given = layer(other).stepper().init_state(2)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        stepper.prefill(x, given)
    with pytest.raises(ValueError, match=message):
        stepper.step(x[..., 0], given)


def test_states_are_real_where_they_are() -> None:
    stepper, x = layer("dense").stepper(), torch.randn(2, 3, 4, dtype=torch.float64)  # type: ignore[operator]
    state = stepper.init_state(2)
    with pytest.raises(ValueError, match=r"`state`: tensor 0 must be real, \(2, 3, \d+\), .*got a complex64"):
        stepper.prefill(x, State(tuple(tensor.to(torch.complex64) for tensor in state.tensors)))
    with pytest.raises(ValueError, match=r"`state` must be a `State` of 2 rows, .*got int 3"):
        stepper.prefill(x, 3)
    with pytest.raises(ValueError, match=r"`state` must be a `State` of 2 rows, .*got one of 1 rows"):
        stepper.prefill(x, stepper.init_state(1))


def test_states_begin_in_the_dtype_of_the_parameters() -> None:
    for dtype in (torch.float32, torch.float64):
        assert causal(3, 4).to(dtype).stepper().init_state().tensors[0].dtype == dtype
    assert causal(3, 4).to(torch.bfloat16).stepper().init_state().tensors[0].dtype == torch.float32


def test_what_looks_ahead_is_refused() -> None:
    with pytest.raises(ValueError, match="the layer is not causal on one axis"):
        Conv(1, 1, 8).stepper()
    with pytest.raises(ValueError, match=r"the layer\.norm normalises by all samples"):
        ResidualBlock(LayerNorm(3), causal(3, 3), Pointwise(3, 3)).stepper()
    stepper = causal(3, 4).stepper()
    with pytest.raises(ValueError, match=r"`x` must be one sample, \(batch, 3\)"):
        stepper.step(torch.zeros(1, 3, 1), stepper.init_state())
    with pytest.raises(ValueError, match="`x` must have 3 channels"):
        stepper.prefill(torch.zeros(1, 2, 4))
