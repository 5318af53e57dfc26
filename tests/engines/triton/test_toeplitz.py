"""Block-Toeplitz products against the definition, in Triton's interpreter where there is no graphics processor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv import Problem
from omniconv.engines._tensor_cores import refuse_package
from omniconv.engines.reference import REFERENCE
from omniconv.engines.toeplitz import (
    TOEPLITZ,
    adjoint_work,
    convolve_tile,
    correlate_tile,
    lags,
    operations,
    splits,
    work,
)
from omniconv.engines.triton.toeplitz import Tile, convolve, correlate, toeplitz_table
from omniconv.testing import TENSOR_CORES, assert_close

# The interpreter takes the bounds of a loop out of arrays of one element.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODES = {"causal": (True, "zero"), "centred": (False, "zero"), "circular": (False, "circular")}
SIZES = (1, 2, 3, 7, 64, 100, 127, 128, 1000, 1031)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fresh memory is NaN: an element that is never written shows."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def lengths(n: int, mode: str) -> list[int]:
    """Kernel sizes, odd and even, shorter than the signal, as long and longer, as far as a signal can feel."""
    longest = 2 * n - 1 if mode == "centred" else n
    return sorted({k for k in (1, 4, 33, n // 2 + 1, n, n + n // 3, 2 * n - 1) if 1 <= k <= longest})


def operands(n: int, k: int, dtype: torch.dtype, batch: int = 3, channels: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """A cotangent, a signal and taps."""
    grad, x = torch.randn(2, batch, channels, n, device=DEVICE).to(dtype)
    return grad, x, torch.randn(channels, k, device=DEVICE)


def problem_of(x: Tensor, taps: Tensor, mode: str) -> Problem:
    causal, boundary = MODES[mode]
    problem = Problem.of(x, taps, causal=causal, boundary=boundary, training=True)
    assert TOEPLITZ.reject(problem) is None
    return problem


def run(x: Tensor, taps: Tensor, problem: Problem) -> Tensor:
    return TOEPLITZ.run(x, TOEPLITZ.prepare(taps, problem), problem)


def check(grad: Tensor, x: Tensor, taps: Tensor, mode: str) -> None:
    """Values and both gradients against the definition in float64."""
    problem = problem_of(x, taps, mode)
    y = run(x, taps, problem)
    dx, dtaps = TOEPLITZ.adjoint(grad, x, taps, problem, True, True)
    expected_dx, expected_dtaps = REFERENCE.adjoint(grad.double(), x.double(), taps.double(), problem, True, True)
    expected_y = REFERENCE.run(x.double(), taps.double(), problem)
    results = {"y": (y, expected_y), "dx": (dx, expected_dx), "dtaps": (dtaps, expected_dtaps)}
    for name, (result, expected) in results.items():
        assert result is not None
        assert expected is not None
        # The gradient in the taps is exact to float32: its operands are not rounded.
        dtype = torch.float32 if name == "dtaps" else x.dtype
        assert result.dtype == dtype
        assert result.is_contiguous()
        assert_close(result, expected, f"{name} at {x.shape[-1]}, {taps.shape[-1]}", TENSOR_CORES[dtype])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_values_and_gradients_equal_the_definition(mode: str, n: int) -> None:
    for k in lengths(n, mode)[:: 2 if n > 500 else 1]:
        check(*operands(n, k, torch.float32, batch=2 if n > 500 else 3), mode)


@pytest.mark.parametrize(("mode", "n", "k"), [("causal", 1024, 1024), ("centred", 999, 200), ("circular", 512, 65)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_two_roundings(dtype: torch.dtype, mode: str, n: int, k: int) -> None:
    grad, x, taps = operands(n, k, dtype)
    check(grad, x, taps * torch.logspace(0, -2, k, device=DEVICE), mode)


@pytest.mark.parametrize("mode", MODES)
def test_signals_may_have_any_strides(mode: str) -> None:
    grad, x, taps = operands(100, 37, torch.float32, batch=4, channels=3)
    check(
        grad.transpose(0, 1).contiguous().transpose(0, 1), x.permute(2, 1, 0).contiguous().permute(2, 1, 0), taps, mode
    )
    wide = torch.randn(4, 6, 203, device=DEVICE)
    check(grad.expand(4, 3, 100), wide[:, ::2, 3:103], taps.t().contiguous().t(), mode)
    check(grad[..., :1].expand(4, 3, 100), wide[:1, ::2, ::2][..., :100].expand(4, 3, 100), taps, mode)


def far_apart(signal: Tensor) -> Tensor:
    """The same signal in bfloat16, its rows of the batch 2^31 samples apart; memory between them is not touched."""
    batch, channels, n = signal.shape
    torch.use_deterministic_algorithms(False)
    room = torch.empty((batch - 1) * 2**31 + channels * n, dtype=signal.dtype, device=DEVICE)
    torch.use_deterministic_algorithms(True)
    return room.as_strided(signal.shape, (2**31, n, 1)).copy_(signal)


@pytest.mark.parametrize("mode", MODES)
def test_signals_may_lie_further_apart_than_32_bits_count(mode: str) -> None:
    grad, x, taps = operands(64, 9, torch.bfloat16, batch=2, channels=1)
    problem = problem_of(x, taps, mode)
    table, far = TOEPLITZ.prepare(taps, problem), far_apart(x)
    assert torch.equal(TOEPLITZ.run(far, table, problem), TOEPLITZ.run(x, table, problem))
    assert TOEPLITZ.gated is not None
    assert torch.equal(*(TOEPLITZ.gated(x, table, problem, gate, gate) for gate in (x, far)))
    found = TOEPLITZ.adjoint(far_apart(grad), far, taps, problem, True, True)
    for gradient, expected in zip(found, TOEPLITZ.adjoint(grad, x, taps, problem, True, True), strict=True):
        assert gradient is not None
        assert expected is not None
        assert torch.equal(gradient, expected)


def test_many_blocks_and_many_signals_share_tiles() -> None:
    for batch, n, k in ((1, 2100, 130), (37, 300, 20), (200, 40, 40)):
        check(*operands(n, k, torch.float32, batch=batch, channels=1), "causal")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_gates_are_products_before_and_after(mode: str, dtype: torch.dtype) -> None:
    assert TOEPLITZ.gated is not None
    _, x, taps = operands(130, 70, dtype)
    problem = problem_of(x, taps, mode)
    prepared = TOEPLITZ.prepare(taps, problem)
    before, after = torch.randn(2, 130, 3, 2, device=DEVICE).to(dtype).movedim(1, -1)
    after = after.contiguous()
    for first, last in ((None, None), (before, None), (None, after), (before, after)):
        gated = x.double() if first is None else x.double() * first.double()
        expected = REFERENCE.run(gated, taps.double(), problem)
        expected = expected if last is None else expected * last.double()
        assert_close(TOEPLITZ.gated(x, prepared, problem, first, last), expected, "gated", TENSOR_CORES[dtype])


def test_only_needed_gradients_are_computed() -> None:
    grad, x, taps = operands(50, 9, torch.float32)
    problem = problem_of(x, taps, "centred")
    dx, dtaps = TOEPLITZ.adjoint(grad, x, taps, problem, True, True)
    for need_x, need_taps in ((True, False), (False, True), (False, False)):
        only_dx, only_dtaps = TOEPLITZ.adjoint(grad, x, taps, problem, need_x, need_taps)
        assert (only_dx is not None, only_dtaps is not None) == (need_x, need_taps)
        assert only_dx is None or dx is None or torch.equal(only_dx, dx)
        assert only_dtaps is None or dtaps is None or torch.equal(only_dtaps, dtaps)


@pytest.mark.parametrize("mode", MODES)
def test_every_tile_gives_the_same_sums(mode: str) -> None:
    grad, x, taps = operands(140, 70, torch.float32, batch=16, channels=1)
    problem = problem_of(x, taps, mode)
    (first, last), circular = lags(problem), problem.circular[0]
    expected = REFERENCE.run(x.double(), taps.double(), problem)
    _, expected_dtaps = REFERENCE.adjoint(grad.double(), x.double(), taps.double(), problem, False, True)
    assert expected_dtaps is not None
    for rows, outputs, step, copies in ((16, 32, 16, 1), (32, 64, 32, 2), (64, 16, 16, 8), (16, 64, 64, 4)):
        tile = Tile(rows, outputs, step, copies, num_warps=4, num_stages=2)
        table = toeplitz_table(taps, x.dtype, first, last, False, tile)
        assert_close(convolve(x, table, first, last, circular, tile), expected, str(tile), TENSOR_CORES[x.dtype])
    for rows, outputs, step, shares in ((16, 32, 32, 1), (16, 32, 64, 3), (32, 64, 128, 2), (64, 16, 16, 7)):
        tile = Tile(rows, outputs, step, 1, num_warps=4, num_stages=2)
        dtaps = correlate(grad, x, first, last, circular, tile, shares)
        assert_close(dtaps, expected_dtaps, f"{tile}, {shares}", TENSOR_CORES[x.dtype])


def test_repeated_gradients_are_equal_to_the_bit() -> None:
    grad, x, taps = operands(700, 30, torch.float32, batch=8, channels=1)
    problem = problem_of(x, taps, "causal")
    assert splits(dataclasses.replace(problem, batch=64)) > 1
    runs = [TOEPLITZ.adjoint(grad, x, taps, problem, True, True) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


def test_tiles_are_no_larger_than_the_problem() -> None:
    shapes = [(batch, n, k) for batch in (1, 5, 1000) for n in (1, 3, 17, 90, 5000) for k in (1, 50, 400) if k < 2 * n]
    for batch, n, k in shapes:
        for dtype in TENSOR_CORES:
            x, taps = torch.empty(batch, 1, n, dtype=dtype, device="meta"), torch.empty(1, k, device="meta")
            problem = Problem.of(x, taps)
            for tile in (convolve_tile(problem), convolve_tile(problem, gate=True), correlate_tile(problem)):
                assert tile.outputs < max(2 * n, 17)
                assert tile.outputs % tile.step == 0
                assert tile.rows < max(2 * batch * -(-n // tile.outputs), 17)
                assert min(tile.rows, tile.outputs, tile.step) >= 16
            one = dataclasses.replace(problem, batch=1)
            same = [convolve_tile(p, g) for p in (problem, one) for g in (False, True)]
            assert len({(t.outputs, t.step, t.copies) for t in same}) == 1  # one table serves any batch, gated or not


@pytest.mark.parametrize(("n", "k"), [(1024, 1024), (1000, 1999), (5000, 33), (90, 50), (7, 13)])
@pytest.mark.parametrize("mode", MODES)
def test_operations_are_those_of_the_products(mode: str, n: int, k: int) -> None:
    causal, boundary = MODES[mode]
    x, taps = torch.empty(6, 5, n, device="meta"), torch.empty(5, min(k, n) if mode != "centred" else k, device="meta")
    problem = dataclasses.replace(Problem.of(x, taps, causal=causal, boundary=boundary), device="cuda")
    tile, (first, last), products = convolve_tile(problem), lags(problem), 0
    for block in range(0, n, tile.outputs):
        for offset in range(-tile.step * n, n + tile.outputs, tile.step):
            reached = -last < offset + tile.step and offset < tile.outputs - first
            inside = mode == "circular" or 0 <= block + offset < n
            products += reached and inside
    counted = operations(problem, tile) / (6 * 2 * 6 * 5 * tile.step * tile.outputs)
    assert products <= counted < products + tile.outputs / tile.step  # the last block counts as whole
    ahead, back = work(problem), adjoint_work(problem, True, True)
    assert ahead is not None
    assert back is not None
    parts = zip(ahead, adjoint_work(problem, True, False) or (), adjoint_work(problem, False, True) or (), strict=True)
    assert back == tuple(only_x + only_taps for _, only_x, only_taps in parts)
    assert adjoint_work(problem, True, False) == ahead
    assert ahead[1] >= 2 * x.nbytes
    assert work(dataclasses.replace(problem, device="cpu")) is None
    assert adjoint_work(dataclasses.replace(problem, device="cpu"), True, True) is None


def test_it_says_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(*operands(8, 3, torch.float32)[1:], "causal")
    changes: list[tuple[dict[str, object], str]] = [
        ({"device": "mps"}, "the device is mps; it needs a CUDA device"),
        ({"size": (8, 8)}, "the signal has 2 axes; it needs one"),
        ({"depthwise": False}, "the taps mix channels; it needs a kernel per channel"),
        ({"dtype": torch.float64}, "the dtype is torch.float64; it needs float32, float16 or bfloat16"),
    ]
    for change, reason in changes:
        assert TOEPLITZ.reject(dataclasses.replace(problem, **change)) == reason  # type: ignore[arg-type]
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    on_cpu = dataclasses.replace(problem, device="cpu")
    assert TOEPLITZ.reject(on_cpu) == "the device is cpu; it needs a CUDA device"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refuse_package.cache_clear()
    assert "omniconv[gpu]" in (TOEPLITZ.reject(on_cpu) or "")
    refuse_package.cache_clear()


class Grids:
    """What stands for a kernel: notes the programs that it is asked for."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.seen.append(grid)
        return lambda *given, **named: None


def test_kernels_may_have_more_blocks_than_an_axis_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    grids = Grids()
    for name in ("place_taps", "correlate_blocks", "add_windows"):
        monkeypatch.setattr(f"omniconv.engines.triton.toeplitz.{name}", grids)
    k, tile = 2**26, Tile(16, 128, 128, 4, 4, 2)
    toeplitz_table(torch.empty(2, k, device="meta"), torch.float32, 0, k - 1, False, tile)
    x = torch.empty(1, 2, k, device="meta")
    correlate(x, x, 0, k - 1, False, tile, 1)
    assert [len(grid) for grid in grids.seen] == [1, 1, 1]
    assert max(max(grid) for grid in grids.seen) > 2 * 65535
