"""The recurrence in chunks against the recurrence step by step, and against convolution with all of its taps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.engines import Problem
from omniconv.engines.recurrent import convolve_modes, prefill_modes
from omniconv.engines.reference import REFERENCE
from omniconv.kernels import Modes
from omniconv.testing import assert_close

F64, C128 = torch.float64, torch.complex128
LENGTHS = [1, 2, 3, 7, 64, 100, 127, 128]
CHUNKS = [1, 3, 16, 64, 1000]


def some_modes(channels: int, modes: int, slowest: float = 1e-4) -> Modes:
    """Decays from `slowest` to 2 per sample, and all frequencies."""
    decay = torch.exp(torch.empty(channels, modes, dtype=F64).uniform_(math.log(slowest), math.log(2)))
    frequency = torch.empty(channels, modes, dtype=F64).uniform_(0, math.pi)
    return Modes(torch.polar(torch.exp(-decay), frequency), torch.randn(channels, modes, dtype=C128))


def by_taps(x: Tensor, modes: Modes) -> Tensor:
    """The convolution with the taps of the whole length, in float64."""
    x = x.double()
    taps = modes.taps(x.shape[-1])
    return REFERENCE.run(x, taps, Problem.of(x, taps, causal=True))


def by_steps(x: Tensor, modes: Modes, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Outputs and last state of the recurrence, a sample at a time."""
    outputs = []
    for t in range(x.shape[-1]):
        y, state = modes.step(x[..., t], state)
        outputs.append(y)
    return torch.stack(outputs, dim=-1), state


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_any_length_in_any_chunks(length: int, chunk: int) -> None:
    modes = some_modes(3, 5)
    x = torch.randn(2, 3, length, dtype=F64)
    expected = by_taps(x, modes)
    assert_close(convolve_modes(x, modes.poles, modes.residues, chunk=chunk), expected)
    assert_close(convolve_modes(x.float(), modes.poles, modes.residues, chunk=chunk), by_taps(x.float(), modes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_and_out(dtype: torch.dtype) -> None:
    modes = some_modes(3, 4)
    x = torch.randn(2, 3, 200).to(dtype)
    y = convolve_modes(x, modes.poles, modes.residues, chunk=16)
    assert y.dtype == dtype
    assert_close(y, by_taps(x, modes))
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(convolve_modes(x.float(), modes.poles, modes.residues), by_taps(x, modes))


@pytest.mark.parametrize("modulus", [1.0, 1 - 1e-7, 1e-3, 1e-300, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_poles_near_the_unit_circle_and_near_zero(modulus: float, dtype: torch.dtype) -> None:
    modes = some_modes(2, 4)
    modes = Modes(torch.polar(torch.full((2, 4), modulus, dtype=F64), modes.poles.angle()), modes.residues)
    x = torch.randn(1, 2, 1000, dtype=dtype)
    assert_close(convolve_modes(x, modes.poles, modes.residues), by_taps(x, modes))


@pytest.mark.parametrize("length", [1, 5, 48, 50])
@pytest.mark.parametrize("continued", [False, True])
def test_chunks_and_steps_continue_each_other(length: int, continued: bool) -> None:
    modes = some_modes(3, 4)
    before = torch.randn(2, 3, 4, dtype=C128) if continued else None
    x = torch.randn(2, 3, length, dtype=F64)
    y, state = prefill_modes(x, modes.poles, modes.residues, before, chunk=16)
    expected, last = by_steps(x, modes, before)
    assert last is not None
    assert_close(y, expected)
    assert state.dtype == C128
    assert_close(torch.view_as_real(state), torch.view_as_real(last))
    more = torch.randn(2, 3, dtype=F64)
    assert_close(modes.step(more, state)[0], modes.step(more, last)[0])


def test_a_signal_in_pieces() -> None:
    modes = some_modes(2, 3)
    x, state, pieces = torch.randn(2, 2, 300), None, []
    for part in x.split([1, 99, 64, 136], dim=-1):
        y, state = prefill_modes(part, modes.poles, modes.residues, state)
        pieces.append(y)
    assert_close(torch.cat(pieces, dim=-1), by_taps(x, modes))


def test_a_long_signal_in_single_precision() -> None:
    """Of modes that hardly decay: what a step rounds is there in all that follow."""
    modes = some_modes(1, 4, slowest=1e-7)
    modes = Modes(modes.poles / modes.poles.abs() * (1 - 1e-7), modes.residues)
    x = torch.randn(1, 1, 2**16)
    exact = convolve_modes(x.double(), modes.poles, modes.residues, chunk=512)
    assert_close(convolve_modes(x, modes.poles, modes.residues, chunk=8), exact)


@pytest.mark.parametrize(("length", "chunk"), [(1, 4), (4, 4), (11, 4), (5, 1)])
def test_derivatives_of_first_and_second_order(length: int, chunk: int) -> None:
    modes = some_modes(2, 3)
    modes.poles[0, 0] = 0
    state = torch.randn(2, 2, 3, dtype=C128)
    point = [v.requires_grad_() for v in (torch.randn(2, 2, length, dtype=F64), modes.poles, modes.residues, state)]

    def run(*operands: Tensor) -> tuple[Tensor, Tensor]:
        return prefill_modes(*operands, chunk=chunk)

    torch.autograd.gradcheck(run, point, fast_mode=True)
    torch.autograd.gradgradcheck(run, point, fast_mode=True)


@pytest.mark.parametrize("chunk", [1, 16, 200])
def test_derivatives_in_single_precision(chunk: int) -> None:
    modes = some_modes(2, 3)
    x, weights = torch.randn(2, 2, 130), torch.randn(2, 2, 130)
    point = [values.requires_grad_() for values in (x, modes.poles, modes.residues)]
    exact = [values.detach().to(torch.promote_types(values.dtype, F64)).requires_grad_() for values in point]
    one = torch.autograd.grad((convolve_modes(*point, chunk=chunk) * weights).sum(), point)
    other = torch.autograd.grad((convolve_modes(*exact, chunk=7) * weights).sum(), exact)
    assert_close(one[0], other[0])
    for actual, expected in zip(one[1:], other[1:], strict=True):
        assert_close(torch.view_as_real(actual), torch.view_as_real(expected), tolerance=1e-6)


def test_little_is_kept_for_the_gradients() -> None:
    """Less than four times the signal, with 16 modes per channel."""
    modes, x = some_modes(2, 16), torch.randn(1, 2, 2**14).requires_grad_()
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        convolve_modes(x, modes.poles.requires_grad_(), modes.residues.requires_grad_())
    assert sum(kept.values()) < 4 * x.nbytes + 2**20  # the tables of a chunk


def test_an_empty_batch_and_strided_signals() -> None:
    modes = some_modes(3, 2)
    assert convolve_modes(torch.zeros(0, 3, 5), modes.poles, modes.residues).shape == (0, 3, 5)
    x = torch.randn(40, 3, 2, dtype=F64).permute(2, 1, 0)
    assert_close(convolve_modes(x, modes.poles, modes.residues, chunk=16), by_taps(x, modes))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"x": torch.zeros(1, 2, 0)}, ValueError, r"`x` must be \(batch, 2, length\) of a length of at least 1; got"),
        ({"x": torch.zeros(1, 3, 4)}, ValueError, r"`x` must be \(batch, 2, length\) .* \(1, 3, 4\)"),
        ({"x": torch.zeros(1, 2, 4, dtype=torch.long)}, TypeError, "`x` must hold floating-point numbers"),
        ({"poles": torch.zeros(2, 3)}, TypeError, "`poles` must hold complex numbers; got a float32 tensor"),
        ({"residues": torch.zeros(2, 4, dtype=C128)}, ValueError, r"`poles` and `residues` must both be \(channels"),
        ({"chunk": 0}, ValueError, "`chunk` must be at least 1; got 0"),
        ({"state": torch.zeros(1, 2, 4, dtype=C128)}, ValueError, r"`state` must be complex, .* here \(1, 2, 3\)"),
        ({"state": torch.zeros(1, 2, 3)}, ValueError, r"`state` must be complex, .* got a float32 tensor"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    right = {"x": torch.zeros(1, 2, 4), "poles": torch.zeros(2, 3, dtype=C128), "residues": torch.zeros(2, 3) + 0j}
    with pytest.raises(kind, match=message):
        prefill_modes(**{**right, **arguments})
