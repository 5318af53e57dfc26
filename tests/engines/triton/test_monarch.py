"""The Monarch convolution against sums in float64: values, gradients, gates, scales."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.engines import Problem
from omniconv.engines._shorten import shorten, shortened
from omniconv.engines.fft import FFT
from omniconv.engines.monarch import MONARCH
from omniconv.engines.reference import REFERENCE
from omniconv.testing import assert_close

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # the interpreter's loops

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALVES = [torch.bfloat16, torch.float16]
DTYPES = [torch.float32, *HALVES]

LIMIT = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 3e-3}
"""Relative errors: products of float16 operands, and the rounding of the output to bfloat16."""
if DEVICE == "cpu":
    LIMIT[torch.bfloat16] = 2**-7  # the interpreter rounds towards zero

MODES: dict[str, Any] = {
    "causal": {"causal": True},
    "centred": {"causal": False},
    "circular": {"boundary": "circular"},
}
SIZES = [1, 2, 3, 7, 64, 100, 127, 128, 1000, 1031]


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers, the same on every device."""
    return torch.randn(*shape).to(DEVICE, dtype)


def posed(x: Tensor, taps: Tensor, mode: str) -> tuple[Tensor, Problem]:
    """Taps and problem as an engine meets them."""
    problem = Problem.of(x, taps, **MODES[mode])
    return shorten(taps, problem), shortened(problem)


def check(n: int, k: int, mode: str, dtype: torch.dtype, batch: int = 2, channels: int = 2, scale: float = 1.0) -> None:
    """Values and both gradients equal those in float64."""
    x, grad = scale * draw(batch, channels, n, dtype=dtype), scale * draw(batch, channels, n, dtype=dtype)
    taps, problem = posed(x, draw(channels, k), mode)
    compare(x, grad, taps, problem)


def compare(x: Tensor, grad: Tensor, taps: Tensor, problem: Problem) -> None:
    assert MONARCH.reject(problem) is None
    exact, double = replace(problem, dtype=torch.float64), (grad.double(), x.double(), taps.double())
    slow = REFERENCE if problem.tap_count < 64 else FFT
    y = MONARCH.run(x, MONARCH.prepare(taps, problem), problem)
    dx, dtaps = MONARCH.adjoint(grad, x, taps, problem, True, True)
    expected_dx, expected_dtaps = slow.adjoint(*double, exact, True, True)
    assert dx is not None and dtaps is not None and expected_dx is not None and expected_dtaps is not None
    assert (y.dtype, dx.dtype, dtaps.dtype) == (x.dtype, x.dtype, torch.float32)
    assert_close(y, slow.run(double[1], double[2], exact), "values", LIMIT[x.dtype])
    assert_close(dx, expected_dx, "gradient of the signal", LIMIT[x.dtype])
    assert_close(dtaps, expected_dtaps, "gradient of the taps", min(LIMIT[x.dtype], LIMIT[torch.float16]))


@pytest.fixture(autouse=True)
def poisoned() -> Any:
    """Fresh memory holds NaN, so that an element that is not written is seen."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", SIZES)
def test_values_and_gradients_equal_those_in_float64(n: int, mode: str, dtype: torch.dtype) -> None:
    check(n, n, mode, dtype)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("n", "k"), [(64, 1), (64, 3), (64, 4), (100, 33), (100, 34), (100, 151), (100, 199), (64, 300)]
)
def test_kernels_are_of_any_length(n: int, k: int, mode: str) -> None:
    check(n, k, mode, torch.float16)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_programs_share_a_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from omniconv.engines.triton import monarch as single

    monkeypatch.setattr(single, "PROGRAMS", 4)
    check(70, 70, "causal", torch.float16, batch=batch, channels=3)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_signals_are_of_any_magnitude(dtype: torch.dtype, scale: float) -> None:
    if dtype == torch.float16:
        scale = min(scale, 100.0)  # the output has to fit, too
    check(200, 200, "centred", dtype, scale=scale)


def test_frames_of_a_production_size() -> None:
    check(2500, 2500, "causal", torch.bfloat16, batch=1, channels=1)
