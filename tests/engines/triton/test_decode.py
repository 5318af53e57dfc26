"""The kernels of decoding, interpreted, against the same step in plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.engines.decode import WIDEST, reference_gated_step, reference_multi_head_step, runs_fused
from omniconv.testing import TOLERANCE, assert_close
from tests.engines.triton.compiled import Kernel, compiled

pytest.importorskip("triton")
from omniconv.engines.triton.decode import gated_step, multi_head_step

# The interpreter's loops over a number that is known at run time alone.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # else in the interpreter
HALVES = [torch.float32, torch.bfloat16, torch.float16]
STATES = [(torch.float32, False), (torch.float32, True), (torch.bfloat16, True)]
"""Dtypes of the state, and whether `inputs` are given."""
POINTERS = ["projected", "window", "state", "out", "taps", "bias", "poles", "residues", "direct", "inputs"]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is not written holds no number."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)


def some_parameters(channels: int, filters: int, modes: int, *, inputs: bool) -> list[Any]:
    """In the order of the kernels' arguments."""
    poles = torch.polar(torch.rand(modes, filters) ** 0.1, torch.pi * torch.rand(modes, filters))
    found = [
        torch.randn(3 * channels, 3),
        torch.randn(3 * channels),
        torch.stack([poles.real, poles.imag], dim=1),
        torch.randn(modes, 2, filters),
        torch.randn(filters),
    ]
    return [*(values.to(DEVICE) for values in found), (0.5 + torch.rand(modes, filters)).to(DEVICE) if inputs else None]


def agree(step: Any, reference: Any, given: list[Any], window: Tensor, state: Tensor) -> None:
    """Three steps from the same memory give the same, and leave the same where it was."""
    names = ("short_taps", "short_bias", "poles", "residues", "direct", "inputs")
    for _ in range(3):
        # From the same numbers every time: two of float32 that differ by a rounding may be two of bfloat16.
        other = window.clone(), state.clone()
        places = window.data_ptr(), state.data_ptr()
        projected = torch.randn(window.shape[1:], device=DEVICE).to(window.dtype)
        y = step(projected, window, state, *given)
        expected = reference(projected, *other, **dict(zip(names, given, strict=True)))
        assert y.dtype == window.dtype
        assert (window.data_ptr(), state.data_ptr()) == places
        assert_close(y, expected, "output", TOLERANCE[y.dtype])
        assert torch.equal(window, other[0])
        assert_close(state, other[1], "state", TOLERANCE[state.dtype] / 8 if state.dtype == torch.bfloat16 else None)


@pytest.mark.parametrize(("kept", "inputs"), STATES)
@pytest.mark.parametrize(
    ("batch", "channels", "modes"), [(1, 1, 1), (1, 64, 3), (2, 7, 8), (3, 65, 1), (8, 64, 1), (11, 70, 3)]
)
def test_the_plain_form(batch: int, channels: int, modes: int, kept: torch.dtype, inputs: bool) -> None:
    given = some_parameters(channels, channels, modes, inputs=inputs)
    window = torch.randn(2, batch, 3 * channels, device=DEVICE)
    state = torch.randn(modes, 2, batch, channels, device=DEVICE).to(kept)
    agree(gated_step, reference_gated_step, given, window, state)


@pytest.mark.parametrize(("kept", "inputs"), STATES)
@pytest.mark.parametrize(
    ("batch", "filters", "width", "modes"),
    [(1, 1, 1, 3), (3, 5, 1, 1), (2, 3, 2, 8), (5, 33, 2, 1), (1, 3, 3, 3), (2, 3, 8, 3), (1, 2, 24, 1)],
)
def test_the_multi_head_form(batch: int, filters: int, width: int, modes: int, kept: torch.dtype, inputs: bool) -> None:
    given = some_parameters(filters * width, filters, modes, inputs=inputs)
    window = torch.randn(2, batch, 3 * filters * width, device=DEVICE)
    state = torch.randn(modes, 2, batch, filters, width, width, device=DEVICE).to(kept)
    agree(multi_head_step, reference_multi_head_step, given, window, state)


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("width", [0, 3])
def test_a_state_in_float32_is_rounded_once_a_step(width: int, inputs: bool) -> None:
    """As in float64 from the same numbers: rounding of poles, products and sums would add up over the steps."""
    given = some_parameters(6, 6 // max(1, width), 2, inputs=inputs)
    given[:2] = torch.eye(3, device=DEVICE)[0].expand(18, 3), torch.zeros(18, device=DEVICE)
    given[2] = given[2].double() * (1 - 1e-9)
    window = torch.zeros(2, 3, 18, device=DEVICE)
    state = torch.randn(2, 2, 3, 6 // max(1, width), *[width] * (2 if width else 0), device=DEVICE)
    step, reference = (multi_head_step, reference_multi_head_step) if width else (gated_step, reference_gated_step)
    # Products of key and value that float32 holds: they are formed in it.
    projected = torch.randn(3, 18, device=DEVICE).bfloat16().float()
    names = ("short_taps", "short_bias", "poles", "residues", "direct", "inputs")
    exact: dict[str, Any] = {
        name: None if values is None else values.double() for name, values in zip(names, given, strict=True)
    }
    ideal = state.double()
    reference(projected.double(), window.double(), ideal, **exact)
    step(projected, window, state, *given)
    assert torch.equal(state, ideal.float())


@pytest.mark.parametrize("dtype", HALVES)
def test_inputs_in_half_precision(dtype: torch.dtype) -> None:
    window, state = torch.randn(2, 3, 30, device=DEVICE).to(dtype), torch.randn(2, 2, 3, 10, device=DEVICE)
    given = some_parameters(10, 10, 2, inputs=True)
    agree(gated_step, reference_gated_step, given, window.clone(), state)
    given = [values if values is None else values.to(dtype) for values in some_parameters(10, 5, 2, inputs=False)]
    state = torch.randn(2, 2, 3, 5, 2, 2, device=DEVICE)
    agree(multi_head_step, reference_multi_head_step, given, window, state)


def test_a_sample_of_any_strides_and_no_signals() -> None:
    given = some_parameters(4, 4, 2, inputs=False)
    window, state = torch.zeros(2, 3, 12, device=DEVICE), torch.zeros(2, 2, 3, 4, device=DEVICE)
    other = window.clone(), state.clone()
    projected = torch.randn(12, 3, device=DEVICE)
    assert_close(gated_step(projected.T, window, state, *given), gated_step(projected.T.clone(), *other, *given))
    empty = window[:, :0], state[:, :, :0]
    assert gated_step(projected.T[:0], *empty, *given).shape == (0, 4)


def test_what_the_kernel_is_for() -> None:
    x, state = torch.zeros(1, 3, device=DEVICE), torch.zeros(1, 2, 1, 1, device=DEVICE)
    window = torch.zeros(2, 1, 3, device=DEVICE)
    assert runs_fused(x, window, state) == (DEVICE == "cuda")
    assert not runs_fused(x.double(), window, state)
    assert not runs_fused(x, window, state.double())


class OnCuda(Tensor):
    """Numbers that are said to lie on a graphics processor."""

    is_cuda = property(lambda self: True)


def test_wide_heads_and_other_short_convolutions_are_stepped_in_plain_pytorch() -> None:
    x, window = torch.zeros(1, 3).as_subclass(OnCuda), torch.zeros(2, 1, 3)
    assert runs_fused(x, window, torch.zeros(1, 2, 1, 1000))
    assert runs_fused(x, window, torch.zeros(1, 2, 1, 1, WIDEST, WIDEST))
    assert not runs_fused(x, window, torch.zeros(1, 2, 1, 1, WIDEST + 1, WIDEST + 1))
    for taps in (2, 4):
        assert not runs_fused(x, torch.zeros(taps - 1, 1, 3), torch.zeros(1, 2, 1, 1000))


def kernel(name: str, state: str, sizes: list[str], constants: dict[str, Any]) -> Kernel:
    """For sm_90, with inputs in bfloat16 and sizes that are multiples of 16."""
    poles = "fp64" if state == "fp32" else "fp32"
    types = ["bf16", "bf16", state, "bf16", "bf16", "bf16", poles, "fp32", "fp32", "fp32"]
    pointers = {f"{one}_ptr": f"*{dtype}" for one, dtype in zip(POINTERS, types, strict=True)}
    aligned = [*pointers, *(size for size in sizes if size not in ("batch", "heads", "modes"))]
    arguments = pointers | dict.fromkeys(sizes, "i32")
    return Kernel("omniconv.engines.triton.decode", name, arguments, constants, aligned=aligned)


def test_compiled_without_spills_and_with_vectors() -> None:
    plain, heads = ["batch", "channels", "modes", "sample", "plane"], ["heads", "filters", "modes", "sample", "plane"]
    widest = {"SCALED": False, "ROWS": 1, "WIDTH": WIDEST, "PADDED": WIDEST}
    made = compiled(
        kernel("gated_kernel", "fp32", plain, {"SCALED": False, "BATCH": 8, "CHANNELS": 64}),
        kernel("gated_kernel", "bf16", plain, {"SCALED": True, "BATCH": 8, "CHANNELS": 64}),
        kernel("multi_head_kernel", "fp32", heads, {"SCALED": False, "ROWS": 8, "WIDTH": 8, "PADDED": 8}),
        replace(kernel("multi_head_kernel", "fp32", heads, widest), num_warps=16),
    )
    for program, vector in zip(made, ("v4.b32", "v2.b32", "v4.b32", "v4.b32"), strict=True):
        assert program.stack == 0
        assert program.assembly.count(f"st.global.{vector}") >= 2  # the state: real and imaginary parts
        assert "bar.sync" in program.assembly  # the window is read before it is written
