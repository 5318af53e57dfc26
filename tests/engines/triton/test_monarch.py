"""The Monarch convolution against sums in float64: values, gradients, gates, magnitudes, in one pass and in three."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.engines import Problem, monarch
from omniconv.engines._shorten import shorten, shortened
from omniconv.engines.fft import FFT
from omniconv.engines.monarch import MONARCH
from omniconv.engines.reference import REFERENCE
from omniconv.testing import TENSOR_CORES, assert_close

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # the interpreter's loops

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

MODES: dict[str, Any] = {
    "causal": {"causal": True},
    "centred": {"causal": False},
    "circular": {"boundary": "circular"},
}
SIZES = [1, 2, 3, 7, 64, 100, 127, 128, 1000, 1031]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN, so that an element that is not written is seen."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of more than 256 points take three passes."""
    monkeypatch.setattr(monarch, "ONE_PASS", dict.fromkeys(monarch.ONE_PASS, ((16, 16),)))
    monkeypatch.setattr(monarch, "PASSES", dict.fromkeys(monarch.PASSES, ((16, 16, 16),)))


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers, the same on every device."""
    return torch.randn(*shape).to(DEVICE, dtype)


def posed(x: Tensor, taps: Tensor, mode: str) -> tuple[Tensor, Problem]:
    """Taps and problem as an engine meets them."""
    problem = Problem.of(x, taps, **MODES[mode])
    return shorten(taps, problem), shortened(problem)


def exactly(problem: Problem) -> tuple[Any, Problem]:
    """An engine and the problem for float64: sums where they are quick."""
    return (REFERENCE if problem.tap_count < 64 else FFT), replace(problem, dtype=torch.float64)


def in_float64(x: Tensor, taps: Tensor, problem: Problem) -> Tensor:
    """What `run` is to return."""
    slow, exact = exactly(problem)
    return slow.run(x.double(), slow.prepare(taps.double(), exact), exact)


def check(n: int, k: int, mode: str, dtype: torch.dtype, batch: int = 2, channels: int = 2, scale: float = 1.0) -> None:
    """Values and both gradients equal those in float64."""
    x, grad = scale * draw(batch, channels, n, dtype=dtype), scale * draw(batch, channels, n, dtype=dtype)
    compare(x, grad, *posed(x, draw(channels, k), mode))


def compare(x: Tensor, grad: Tensor, taps: Tensor, problem: Problem) -> None:
    """As `check`, for given numbers."""
    assert MONARCH.reject(problem) is None
    y = MONARCH.run(x, MONARCH.prepare(taps, problem), problem)
    dx, dtaps = MONARCH.adjoint(grad, x, taps, problem, True, True)
    slow, exact = exactly(problem)
    expected_dx, expected_dtaps = slow.adjoint(grad.double(), x.double(), taps.double(), exact, True, True)
    assert dx is not None
    assert dtaps is not None
    assert (y.dtype, dx.dtype, dtaps.dtype) == (x.dtype, x.dtype, torch.float32)
    assert_close(y, in_float64(x, taps, problem), "values", TENSOR_CORES[x.dtype])
    assert_close(dx, expected_dx, "gradient of the signal", TENSOR_CORES[x.dtype])
    assert_close(dtaps, expected_dtaps, "gradient of the taps", min(TENSOR_CORES[x.dtype], TENSOR_CORES[torch.float16]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", SIZES)
def test_values_and_gradients_equal_those_in_float64(n: int, mode: str, dtype: torch.dtype) -> None:
    if dtype == torch.float32 and n == 1031 and mode == "circular":
        pytest.skip("takes three passes, which other tests try with smaller factors")
    check(n, n, mode, dtype)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("n", "k"), [(64, 1), (64, 3), (64, 4), (100, 33), (100, 34), (100, 151), (100, 199), (64, 300)]
)
def test_kernels_are_of_any_length(n: int, k: int, mode: str) -> None:
    check(n, k, mode, torch.float16)


def test_a_circular_signal_whose_length_is_on_offer_is_its_own_frame() -> None:
    check(256, 255, "circular", torch.float16)
    check(256, 256, "circular", torch.float32)
    x = draw(1, 1, 256)
    assert monarch.frame_of(posed(x, draw(1, 256), "circular")[1]).points == 256


def test_a_production_frame() -> None:
    check(2500, 2500, "causal", torch.bfloat16, batch=1, channels=1)


def test_sums_over_the_batch_in_memory() -> None:
    check(4100, 4100, "causal", torch.float16, batch=2, channels=1)


@pytest.mark.usefixtures("small_passes")
class TestPasses:
    @pytest.mark.parametrize("mode", MODES)
    def test_values_and_gradients_equal_those_in_float64(self, mode: str) -> None:
        check(1031, 1031, mode, torch.float16, batch=1, channels=1)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_precision(self, dtype: torch.dtype) -> None:
        check(1500, 2999, "centred", dtype, batch=1, channels=1)

    def test_a_cyclic_frame(self) -> None:
        check(4096, 301, "circular", torch.float16, batch=1, channels=1)

    def test_slices_of_channels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from omniconv.engines.triton import monarch_passes

        monkeypatch.setattr(monarch_passes, "WORKSPACE", 2 * 4096 * 2 * 2)  # two channels of 4096 pairs of halves
        check(300, 300, "causal", torch.float16, batch=1, channels=3)

    def test_outer_transforms_in_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from omniconv.engines.triton import monarch_passes

        monkeypatch.setattr(monarch, "PASSES", dict.fromkeys(monarch.PASSES, ((32, 16, 16),)))
        monkeypatch.setattr(monarch_passes, "block", lambda frame, dtype: (16, 64))
        check(6000, 6000, "causal", torch.float16, batch=1, channels=1)

    def test_sums_over_the_batch_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from omniconv.engines.triton import monarch as single
        from omniconv.engines.triton import monarch_passes

        monkeypatch.setattr(single, "PROGRAMS", 16)  # which then take both rows
        monkeypatch.setattr(monarch_passes, "crowded", lambda frame, dtype: True)
        check(300, 300, "causal", torch.float16, batch=2, channels=1)

    def test_only_the_gradients_that_are_needed(self) -> None:
        check_gradients_alone(n=300)

    def test_gates_and_strides(self) -> None:
        check_gates(n=300, each=False)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_programs_share_a_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from omniconv.engines.triton import monarch as single

    monkeypatch.setattr(single, "PROGRAMS", 4)
    check(70, 70, "causal", torch.float16, batch=batch, channels=3)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_signals_are_of_any_magnitude(dtype: torch.dtype, scale: float) -> None:
    if dtype == torch.float16 and scale > 1:
        scale = 100.0  # more would not fit in the output
    check(200, 200, "centred", dtype, scale=scale)


@pytest.mark.parametrize("n", [200, 300])
def test_every_row_has_the_precision_of_its_own_magnitude(n: int, small_passes: None) -> None:
    magnitudes = torch.tensor([1e-20, 1e-3, 1.0, 1e20], device=DEVICE)[:, None, None]
    x = (draw(4, 1, n) * magnitudes).bfloat16()
    taps, problem = posed(x, draw(1, n), "causal")
    taps *= 1e-6
    y = MONARCH.run(x, MONARCH.prepare(taps, problem), problem)
    for row, row_expected in zip(y, in_float64(x, taps, problem), strict=True):
        assert_close(row, row_expected, tolerance=TENSOR_CORES[torch.bfloat16])


def test_rows_of_zeros_and_of_one_spike() -> None:
    x = torch.zeros(2, 1, 200, device=DEVICE, dtype=torch.float16)
    x[1, 0, 17] = 3.0
    taps, problem = posed(x, draw(1, 200), "causal")
    y = MONARCH.run(x, MONARCH.prepare(taps, problem), problem)
    assert not y[0].any()
    expected = torch.zeros(1, 200, dtype=torch.float64, device=DEVICE)
    expected[0, 17:] = 3 * taps[0, :183].double()
    assert_close(y[1], expected, tolerance=TENSOR_CORES[torch.float16])


def test_a_constant_signal_does_not_overflow() -> None:
    x = torch.full((1, 1, 4000), 6e4, device=DEVICE, dtype=torch.float16)
    taps, problem = posed(x, torch.full((1, 4000), 1 / 4000, device=DEVICE), "causal")
    y = MONARCH.run(x, MONARCH.prepare(taps, problem), problem)
    expected = 15 * torch.arange(1, 4001, device=DEVICE).double()
    assert_close(y[0, 0], expected, tolerance=TENSOR_CORES[torch.float16])


@pytest.mark.parametrize("mode", MODES)
def test_inputs_have_any_strides(mode: str) -> None:
    x, grad = draw(3, 90, 2, dtype=torch.float16).transpose(1, 2), draw(2, 6, 180, dtype=torch.float16)[:, ::2, ::2]
    grad = torch.cat([grad, grad[:1]])[:, :2]
    compare(x, grad, *posed(x, draw(2, 90), mode))
    compare(x.flip(-1)[:, :1], draw(1, 1, 1, dtype=torch.float16).expand(3, 1, 90), *posed(x[:, :1], draw(1, 90), mode))


@pytest.mark.parametrize("mode", MODES)
def test_gates(mode: str) -> None:
    check_gates(n=100, mode=mode)


def check_gates(n: int, mode: str = "causal", each: bool = True) -> None:
    """after * run(before * x), with both gates and with `each` alone."""
    x = (draw(2, n, 1) / 64).half().transpose(1, 2)
    before, after = (1024 * draw(2, 1, n)).half(), draw(1, 1, n, dtype=torch.float16).expand(2, 1, n)
    taps, problem = posed(x, draw(1, n), mode)
    prepared = MONARCH.prepare(taps, problem)
    assert MONARCH.gated is not None
    for first, last in ((before, after), (before, None), (None, after)) if each else ((before, after),):
        y = MONARCH.gated(x, prepared, problem, first, last)
        expected = in_float64(x if first is None else first.double() * x.double(), taps, problem)
        assert_close(y, expected if last is None else last.double() * expected, tolerance=TENSOR_CORES[torch.float16])


def test_only_the_gradients_that_are_needed() -> None:
    check_gradients_alone(n=50)


def check_gradients_alone(n: int) -> None:
    """Each gradient alone is that of both together."""
    x, grad = draw(2, 1, n, dtype=torch.float16), draw(2, 1, n, dtype=torch.float16)
    taps, problem = posed(x, draw(1, n), "centred")
    both = MONARCH.adjoint(grad, x, taps, problem, True, True)
    alone_x, none_taps = MONARCH.adjoint(grad, x, taps, problem, True, False)
    none_x, alone_taps = MONARCH.adjoint(grad, x, taps, problem, False, True)
    assert none_taps is None
    assert none_x is None
    for together, alone in zip(both, (alone_x, alone_taps), strict=True):
        assert together is not None
        assert alone is not None
        assert torch.equal(together, alone)


PROBLEM = Problem(2, 3, 3, True, (100,), (100,), (True,), ("zero",), torch.float32, DEVICE, False)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"size": (8, 8), "kernel_size": (8, 8), "causal": (True,) * 2, "boundary": ("zero",) * 2}, "2 axes"),
        ({"depthwise": False}, "mix channels"),
        ({"dtype": torch.float64}, "float64"),
        ({"device": "mps"}, "CUDA"),
        ({"size": (2**23,)}, "the longest has"),
    ],
)
def test_it_refuses_with_a_reason(changed: dict[str, Any], reason: str) -> None:
    assert MONARCH.reject(PROBLEM) is None
    assert reason in (MONARCH.reject(replace(PROBLEM, **changed)) or "")


def test_it_refuses_a_processor_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "CUDA" in (MONARCH.reject(replace(PROBLEM, device="cpu")) or "")
