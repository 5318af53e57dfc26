"""The benchmark: what it measures, what it refuses, what it leaves out."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.bench import Case, Cell, Contestant, DisagreementError, Measured, benchmark, entrants
from omniconv.bench.contestants import by_transform, never
from omniconv.bench.conv import SWEEPS, TOLERANCE, admit, decide, in_doubt, measure, open_cell, relative_error, visit
from omniconv.bench.predict import chosen_engines, predicted_seconds

TINY = Case("tiny", 2, 3, (16,), (5,), causal=True)
TRAINING = replace(TINY, training=True)
CASES = [TINY, TRAINING]


@pytest.fixture(autouse=True)
def small_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omniconv.bench.conv.copy_bandwidth", lambda device: 1e9)
    monkeypatch.setattr("omniconv.bench.conv.wait_until_quiet", lambda stop: None)


def off_by(factor: float, name: str = "wrong", *, ours: bool = True) -> Contestant:
    """A contestant whose results are larger by a factor."""

    def run(x: Tensor, taps: Tensor, case: Case) -> Tensor:
        return factor * by_transform(x, taps, case)

    return Contestant(name, run, never, ours=ours)


def failing(*, ours: bool) -> Contestant:
    def run(x: Tensor, taps: Tensor, case: Case) -> Tensor:
        raise RuntimeError("out of luck\nsecond line")

    return Contestant("failing", run, never, ours=ours)


def sleeper(seconds: float) -> Contestant:
    def run(x: Tensor, taps: Tensor, case: Case) -> Tensor:
        time.sleep(seconds)
        return by_transform(x, taps, case)

    return Contestant("sleeper", run, never)


def test_every_cell_has_times_errors_and_memory() -> None:
    seen: list[tuple[int, int, str]] = []
    measured = benchmark(
        CASES,
        "cpu",
        entered=entrants(),
        sweeps=2,
        progress=lambda done, total, cell: seen.append((done, total, cell.case.name if cell else "")),
    )
    assert [cell.case for cell in measured.cells] == CASES
    assert (measured.sweeps, measured.missing, measured.wrong) == (2, [], [])
    assert seen == [(i + 1, 4, CASES[i % 2].name) for i in range(4)]
    for cell in measured.cells:
        names = chosen_engines(cell.case.problem("cpu"))
        assert cell.chosen == (names[0] if len(set(names)) == 1 else ", ".join(names))
        assert cell.predicted == predicted_seconds(cell.case.problem("cpu"))
        assert {"auto", "direct", "fft", "F.conv", "torch.fft"} <= set(cell.names)
        results = {"y", "dx", "dtaps"} if cell.case.training else {"y"}
        assert all(set(errors) == results for errors in cell.errors.values())
        assert all(0 < max(errors.values()) < 1e-6 for errors in cell.errors.values())
        outputs = 4 * (cell.case.outputs + cell.case.training * (2 * 3 * 16 + 3 * 5))
        assert all(memory >= outputs for memory in cell.memory.values())
        assert all(0 < cell.seconds(name) < math.inf and cell.spread(name) >= 0 for name in cell.names)
        assert cell.left_out["FlashFFTConv"].endswith("on CUDA only")
        assert 2 <= len(cell.rounds) <= 20
        assert set(cell.engines) | set(cell.peers) | {"auto"} == set(cell.names)
        assert cell.peers == ["F.conv", "torch.fft"]
    assert measured.floor(TINY) == 2 * 2 * 3 * 16 * 4 / 1e9


@pytest.mark.parametrize("case", CASES, ids=["forward", "training"])
def test_it_refuses_when_an_engine_of_ours_is_wrong(case: Case) -> None:
    entered = [*entrants(), off_by(1 + 3e-5)]
    with pytest.raises(
        DisagreementError, match=r"wrong differs from float64 by 3\.0e-05 in \w+ on 2 x 3, 16, 5 causal"
    ):
        benchmark([case], "cpu", entered=entered, sweeps=1)
    measured = benchmark(CASES, "cpu", entered=entered, sweeps=1, patient=True)
    assert measured.cells == []
    assert len(measured.wrong) == 2


def test_a_wrong_gradient_is_seen() -> None:
    class Wrong(torch.autograd.Function):
        """Right forward, the gradient of the taps too large."""

        @staticmethod
        def forward(ctx: object, y: Tensor) -> Tensor:
            return y.clone()

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return 1.001 * grad

    def run(x: Tensor, taps: Tensor, case: Case) -> Tensor:
        y: Tensor = Wrong.apply(by_transform(x, taps, case))
        return y

    wrong = Contestant("wrong", run, never, ours=True)
    assert "wrong" in open_cell(TINY, [wrong], "cpu").errors
    with pytest.raises(DisagreementError, match="in d"):
        open_cell(TRAINING, [wrong], "cpu")


def test_an_engine_that_fails_ends_it_too() -> None:
    with pytest.raises(DisagreementError, match=r"failing fails on 2 x 3, 16, 5 causal, forward: out of luck"):
        benchmark([TINY], "cpu", entered=[*entrants(), failing(ours=True)], sweeps=1)


def test_a_peer_that_disagrees_or_fails_is_left_out() -> None:
    entered = [
        *entrants(),
        off_by(1.001, "liar", ours=False),
        failing(ours=False),
        off_by(1 + 5e-5, "rough", ours=False),
    ]
    (cell,) = benchmark([TINY], "cpu", entered=entered, sweeps=1).cells
    assert cell.left_out["liar"].startswith("liar differs from float64 by 1.0e-03 in y")
    assert cell.left_out["failing"] == "it fails: RuntimeError: out of luck"
    assert {"liar", "failing"}.isdisjoint(cell.names)
    assert "rough" in cell.names


@pytest.mark.parametrize(("dtype", "limit"), TOLERANCE.items(), ids=str)
def test_the_tolerance_is_that_of_the_dtype(dtype: torch.dtype, limit: float) -> None:
    case = replace(TINY, dtype=torch.float64)
    cell = Cell(replace(TINY, dtype=dtype), "fft")
    x, taps = torch.ones(2, 3, 16, dtype=torch.float64), torch.ones(3, 5, dtype=torch.float64)
    expected = {"y": by_transform(x, taps, case)}
    assert (
        admit(cell, replace(off_by(1 + 0.9 * limit), convolve=exact(1 + 0.9 * limit)), (x, taps, x), expected, "cpu")
        is None
    )
    with pytest.raises(DisagreementError, match=f"{limit:.0e} may be"):
        admit(cell, replace(off_by(1), convolve=exact(1 + 1.1 * limit)), (x, taps, x), expected, "cpu")


def exact(factor: float) -> Callable[[Tensor, Tensor, Case], Tensor]:
    """In float64, whatever the case says."""
    return lambda x, taps, case: factor * by_transform(x, taps, replace(case, dtype=torch.float64))


def test_what_is_hopeless_is_measured_once() -> None:
    entered = [one for one in entrants() if one.name in ("auto", "direct", "fft")]
    (cell,) = benchmark([TINY], "cpu", entered=[*entered, sleeper(0.08)], sweeps=3).cells
    assert list(cell.once) == ["sleeper"]
    assert all("sleeper" not in row for row in cell.rounds)
    assert cell.seconds("sleeper") == cell.once["sleeper"] >= 0.08
    assert cell.spread("sleeper") == 0
    assert cell.ratio("sleeper", "auto") == cell.seconds("sleeper") / cell.seconds("auto")


def test_a_slow_contestant_sits_out_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omniconv.bench.conv.SECONDS", 0.5)
    entered = [off_by(1, "first"), off_by(1, "second"), sleeper(0.3)]
    cell = open_cell(TINY, entered, "cpu")
    cell.rounds.append({"first": 1.0, "second": 1.0})  # past the first visit: nobody is hopeless any more
    visit(cell, entered, "cpu", random.Random(0))
    assert len(cell.times("first")) - 1 == 10
    assert len(cell.times("sleeper")) == 2


def test_times_are_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omniconv.bench.conv.warm_seconds", lambda run, device: 1e-4)
    monkeypatch.setattr(
        "omniconv.bench.conv.interleaved", lambda actions, repeats, seconds: [[action() or 5e-3] for action in actions]
    )
    calls: list[str] = []

    def count(x: Tensor, taps: Tensor, case: Case) -> Tensor:
        calls.append("one")
        return by_transform(x, taps, case)

    entered = [Contestant("counting", count, never), off_by(1, "other")]
    cell = open_cell(TINY, entered, "cpu")
    calls.clear()
    visit(cell, entered, "cpu", random.Random(0))
    assert len(calls) == 10 * len(cell.rounds)  # ten calls of 0.1 ms make a round of 1 ms
    assert cell.seconds("counting") == pytest.approx(5e-4)


def test_the_time_is_kept() -> None:
    measured = benchmark(CASES, "cpu", entered=entrants(), minutes=0)
    assert measured.cells == []
    assert measured.missing == CASES


def test_ratios_are_of_the_same_round() -> None:
    rows = [{"auto": 1.0, "fft": 0.5}, {"auto": 10.0, "fft": 8.0}, {"auto": 1.2, "fft": 1.0, "F.conv": 3.0}]
    cell = Cell(TINY, "fft", errors={"auto": {}, "fft": {}, "F.conv": {}}, rounds=rows)
    assert cell.ratio("auto", "fft") == pytest.approx(1.25)  # not 1.2, the ratio of the medians
    assert cell.ratio("F.conv", "auto") == pytest.approx(2.5)
    assert cell.seconds("auto") == 1.2
    assert cell.fastest(["auto", "fft", "F.conv"]) == "fft"
    assert cell.spread("auto") == pytest.approx((10 - 1) / 2 / 1.2)


def test_errors_are_relative_and_infinite_for_nonsense() -> None:
    expected = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert relative_error(torch.tensor([3.0, 4.5]), expected) == pytest.approx(0.1)
    assert relative_error(torch.tensor([3.0]), expected) == float("inf")
    assert relative_error(torch.tensor([3.0, float("nan")]), expected) == float("inf")


def test_the_sweeps_are_many() -> None:
    assert SWEEPS >= 5
    assert Measured("cpu", 1.0).sweeps == 0


def compared(**ratios: list[float]) -> Cell:
    """A cell whose rounds have "auto" so many times as slow as the others."""
    count = len(next(iter(ratios.values())))
    rows = [{"auto": 1.0} | {name: 1 / values[i] for name, values in ratios.items()} for i in range(count)]
    return Cell(TINY, "fft", errors={name: {} for name in ("auto", *ratios)}, rounds=rows)


def around(middle: float, spread: float = 0.01) -> list[float]:
    return [middle * (1 + spread * step / 10) for step in range(-10, 11)]


def test_doubt_is_a_matter_of_standard_errors_from_a_bar() -> None:
    cell = compared(fft=around(1.0), **{"F.conv": around(0.5)})
    sigma = 1.2533 * 0.01 / 1.349 / math.sqrt(21)  # of a median of ratios whose quartiles are half a per cent away
    assert cell.standard_error("auto", "fft") == pytest.approx(sigma, rel=0.15)
    assert not in_doubt(cell)
    assert in_doubt(compared(fft=around(1.1005)))
    assert in_doubt(compared(fft=around(1.0), **{"F.conv": around(1.0495)}))
    assert not in_doubt(compared(fft=around(1.0), **{"F.conv": around(1.3)}))
    assert in_doubt(compared(fft=[1.0, 1.0]))  # two rounds say nothing
    assert not in_doubt(compared(nvSubquadratic=around(1.05)))


def test_cells_in_doubt_are_visited_until_they_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    sure, open_ = compared(fft=around(1.0)), compared(fft=around(1.1))
    visited: list[Cell] = []

    def visit(cell: Cell, *_: Any) -> None:
        visited.append(cell)
        if len(visited) == 3:
            cell.rounds = sure.rounds

    monkeypatch.setattr("omniconv.bench.conv.visit", visit)
    measured = Measured("cuda", 1.0, cells=[sure, open_], sweeps=5)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int, cell: Cell | None) -> None:
        told.append((done, total))

    decide(measured, [], 2, math.inf, progress=progress)
    assert (visited, measured.further) == ([open_] * 2, 2)
    decide(measured, [], 9, math.inf, progress=progress)
    assert (visited, measured.further) == ([open_] * 3, 3)
    assert told == [(11, 11), (12, 12), (13, 13)]
    decide(Measured("cuda", 1.0, cells=[compared(fft=around(1.1))], sweeps=1), [], 9, -math.inf, progress=progress)
    assert len(visited) == 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_idle_processors_are_waited_for_where_they_compute(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    cell = Cell(CASES[0], "fft", {})
    monkeypatch.setattr("omniconv.bench.conv.wait_until_quiet", waited.append)
    monkeypatch.setattr("omniconv.bench.conv.open_cell", lambda case, entered, device: cell)
    monkeypatch.setattr("omniconv.bench.conv.visit", lambda cell, entered, device, order: None)
    measured = Measured(device, 1e9)
    measure(measured, CASES[:1], [], 2, time.monotonic() + 60, patient=False, progress=lambda done, total, cell: None)
    assert measured.cells == [cell]
    assert len(waited) == (2 if device == "cpu" else 0)


def test_an_error_that_ends_the_run_is_noted_for_the_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    def illegal(case: Case, device: str, seed: int) -> Any:
        raise RuntimeError("illegal access")

    monkeypatch.setattr("omniconv.bench.conv.inputs", illegal)
    assert benchmark(CASES, "cpu", entered=[], patient=True).wrong == [
        "the run ended with RuntimeError: illegal access"
    ]
    with pytest.raises(RuntimeError, match="illegal access"):
        benchmark(CASES, "cpu", entered=[])
