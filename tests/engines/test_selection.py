"""Choosing an engine, and being told why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from omniconv import EngineError, Problem, convolve, explain_engine, select_engine
from omniconv.engines import ENGINES, Engine, _costs, _plan
from omniconv.engines._costs import Rates, adjoint_seconds, run_seconds
from omniconv.engines._plan import forget_plans
from omniconv.engines._select import select_adjoint
from omniconv.engines._shorten import shortened
from omniconv.engines.fft import STEPS, fast_length, frame, levels
from omniconv.testing import assert_close


def problem(n: int = 64, k: int = 64, **options: object) -> Problem:
    return Problem.of(torch.zeros(2, 3, n), torch.zeros(3, k), **options)  # type: ignore[arg-type]


def test_auto_takes_the_cheapest_by_prediction() -> None:
    for k in (1, 3, 17, 300, 1024):
        able = [engine for engine in ENGINES.values() if engine.reject(problem(1024, k)) is None]
        seconds = {engine.name: run_seconds(engine, shortened(problem(1024, k))) for engine in able}
        assert select_engine(problem(1024, k)).name == min(seconds, key=lambda name: seconds[name])


def test_each_gradient_may_have_its_own_engine() -> None:
    for k in (1, 3, 17, 300, 1024):
        asked = shortened(problem(1024, k))
        able = [engine for engine in ENGINES.values() if engine.reject(asked) is None]
        of_x, of_taps = select_adjoint(asked, "auto", True, True)
        alone = [
            min(adjoint_seconds(engine, asked, *need) for engine in able) for need in ((True, False), (False, True))
        ]
        together = min(adjoint_seconds(engine, asked, True, True) for engine in able)
        best = min(together, sum(alone))
        if of_x is of_taps:
            assert adjoint_seconds(of_x, asked, True, True) == pytest.approx(best)
        else:
            own = adjoint_seconds(of_x, asked, True, False) + adjoint_seconds(of_taps, asked, False, True)
            assert own == pytest.approx(best)
        assert select_adjoint(asked, "auto", True, False)[0] is select_adjoint(asked, "auto", True, False)[1]
        assert {engine.name for engine in select_adjoint(asked, "fft", True, True)} == {"fft"}


def test_gradients_by_two_engines_are_those_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the rates say: one engine for the signal, another for the taps."""
    x = torch.randn(2, 3, 20, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(convolve(x, taps, engine="reference").square().sum(), (x, taps))
    pair = (ENGINES["direct"], ENGINES["overlap_save"])
    asked: list[str] = []

    def noted(engine: Engine) -> Engine:
        def adjoint(*arguments: Any) -> Any:
            asked.append(f"{engine.name} {arguments[-2]:d}{arguments[-1]:d}")
            return engine.adjoint(*arguments)

        return replace(engine, adjoint=adjoint)

    monkeypatch.setattr(_plan, "select_adjoint", lambda *arguments: tuple(map(noted, pair)))
    _plan.remembered_call.cache_clear()
    _plan.remembered_plan.cache_clear()
    made = torch.autograd.grad(convolve(x, taps).square().sum(), (x, taps))
    monkeypatch.undo()
    forget_plans()
    assert asked == ["direct 10", "overlap_save 01"]
    for gradient, right in zip(made, expected, strict=True):
        assert_close(gradient, right)


def test_a_name_is_obeyed() -> None:
    assert select_engine(problem(), "reference") is ENGINES["reference"]


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine that refuses circular problems and is cheaper than all others."""
    direct = ENGINES["direct"]
    engine = Engine(
        "picky",
        direct.run,
        direct.adjoint,
        lambda problem: 'boundary "circular" on axis 0' if problem.circular[0] else None,
        lambda problem: (0.0,) * 4,
        lambda problem, need_x, need_taps: (0.0,) * 4,
    )
    known = _costs.rates("cpu")
    free = {f"picky {mixing} {dim} run": (0.0,) * 4 for mixing in ("depthwise", "dense") for dim in (1, 2, 3)}
    free |= {key.replace("run", "adjoint"): rates for key, rates in free.items()}
    monkeypatch.setattr(_costs, "rates", lambda device: Rates(known.units | free, known.double, known.about))
    monkeypatch.setitem(ENGINES, "picky", engine)
    forget_plans()
    yield engine
    forget_plans()


def test_a_named_engine_that_cannot_run_quotes_its_reason(picky: Engine) -> None:
    x, taps = torch.zeros(1, 1, 8), torch.zeros(1, 3)
    message = 'engine="picky" cannot run this convolution: boundary "circular" on axis 0. Use another engine'
    with pytest.raises(EngineError, match=message):
        convolve(x, taps, boundary="circular", engine="picky")
    assert select_engine(problem(boundary="circular")) is not picky
    assert select_engine(problem()) is picky


@pytest.mark.parametrize("training", [False, True])
def test_explanation_shows_costs_reasons_and_the_choice(training: bool, picky: Engine) -> None:
    asked = problem(boundary="circular", training=training)
    head, *lines, last = explain_engine(asked).splitlines()
    assert head.split()[:2] == ["engine", "convolution"]
    assert ("gradient of signal" in head) == training
    rows = {line.split()[0]: line for line in lines}
    assert set(rows) == set(ENGINES)
    assert 'refuses: boundary "circular" on axis 0' in rows["picky"]
    assert "never chosen" in rows["reference"]
    chosen = {select_engine(asked).name}
    if training:
        chosen |= {engine.name for engine in select_adjoint(asked, "auto", True, True)}
    assert {name for name, line in rows.items() if "*" in line} == chosen
    assert all("ms *" in rows[name] and rows[name].endswith("chosen") for name in chosen)
    assert last.startswith("Predicted from ")


@pytest.mark.parametrize("n", [1, 2, 7, 11, 100, 127, 128, 1031, 2047, 10007, 48001])
def test_fast_lengths_are_even_without_large_primes_and_take_the_least_time_of_these(n: int) -> None:
    def smooth(m: int) -> bool:
        for p in (2, 3, 5, 7):
            while m % p == 0:
                m //= p
        return m == 1

    def seconds(m: int) -> float:
        return m * (levels(m) + STEPS)

    length = fast_length(n)
    assert n <= length <= 2 ** max(1, (n - 1).bit_length())
    assert length % 2 == 0
    assert smooth(length)
    others = [m for m in range(n + n % 2, 2 * n + 2, 2) if smooth(m)]
    assert seconds(length) == min(map(seconds, others))


def test_a_power_of_two_is_taken_where_a_shorter_length_is_slower() -> None:
    assert [fast_length(n) for n in (191, 1500, 1999, 2000, 20013)] == [192, 1536, 2048, 2048, 20480]


def test_frames_have_room_for_the_farthest_lag_and_no_more() -> None:
    assert frame(problem(1000, 1000, causal=True)) == (fast_length(1999),)
    assert frame(problem(1000, 101)) == (fast_length(1050),)  # half the kernel hangs over
    assert frame(problem(1031, 101, boundary="circular")) == (1031,)


def test_reference_is_never_chosen() -> None:
    assert ENGINES["reference"].work(problem(1, 1)) is None
    assert ENGINES["reference"].adjoint_work(problem(1, 1), True, True) is None


@pytest.mark.parametrize("size", [(64,), (64, 64), (8, 8, 8), (2**25,)])
def test_every_device_is_explained_on_any_machine(size: tuple[int, ...]) -> None:
    for device in ("cpu", "cuda", "mps"):
        asked = Problem(1, 1, 1, True, size, (3,) * len(size), (False,) * len(size), ("zero",) * len(size),
                        torch.float32, device, True)  # fmt: skip
        assert explain_engine(asked).count("*") >= 1


def test_what_is_no_problem_is_named() -> None:
    for wrong in (None, "fft", 3):
        for function in (explain_engine, select_engine):
            with pytest.raises(TypeError, match=r"`problem` must be an omniconv.Problem, as from Problem.of"):
                function(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`training` must be True or False; got str 'yes'"):
        Problem.of(torch.zeros(1, 1, 8), torch.zeros(1, 3), training="yes")  # type: ignore[arg-type]
