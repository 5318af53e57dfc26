"""Choosing an engine, and being told why."""

from __future__ import annotations

import math

import pytest
import torch

from omniconv import EngineError, Problem, convolve, explain_engine, select_engine
from omniconv.engines import ENGINES, Engine, _select
from omniconv.engines.fft import fast_length, frame


def problem(n: int = 64, k: int = 64, **options: object) -> Problem:
    return Problem.of(torch.zeros(2, 3, n), torch.zeros(3, k), **options)  # type: ignore[arg-type]


def test_auto_takes_the_cheapest_by_prediction() -> None:
    for k in (1, 3, 17, 300, 1024):
        costs = {name: engine.cost(problem(1024, k)) for name, engine in ENGINES.items()}
        assert select_engine(problem(1024, k)).name == min(costs, key=lambda name: costs[name])


def test_a_name_is_obeyed() -> None:
    assert select_engine(problem(), "reference") is ENGINES["reference"]


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine that refuses circular problems and is cheaper than all others."""
    direct = ENGINES["direct"]
    engine = Engine(
        "picky",
        direct.run,
        direct.adjoint,
        lambda problem: 'boundary "circular" on axis 0' if problem.circular[0] else None,
        lambda problem: 1e-12,
        lambda problem, need_x, need_taps: 1e-12,
    )
    monkeypatch.setitem(ENGINES, "picky", engine)
    _select.select_engine.cache_clear()
    return engine


def test_a_named_engine_that_cannot_run_quotes_its_reason(picky: Engine) -> None:
    x, taps = torch.zeros(1, 1, 8), torch.zeros(1, 3)
    message = 'engine="picky" cannot run this convolution: boundary "circular" on axis 0. Use another engine'
    with pytest.raises(EngineError, match=message):
        convolve(x, taps, boundary="circular", engine="picky")
    assert select_engine(problem(boundary="circular")) is not picky
    assert select_engine(problem()) is picky


def test_explanation_shows_costs_reasons_and_the_choice(picky: Engine) -> None:
    lines = explain_engine(problem(boundary="circular")).splitlines()
    assert lines[0].split() == ["engine", "predicted", "remark"]
    rows = {line.split()[1 if line.startswith("*") else 0]: line for line in lines[1:]}
    assert set(rows) == set(ENGINES)
    assert 'refuses: boundary "circular" on axis 0' in rows["picky"]
    assert "never chosen" in rows["reference"]
    marked = [name for name, line in rows.items() if line.startswith("*")]
    assert marked == [select_engine(problem(boundary="circular")).name]
    assert "ms" in rows[marked[0]]


@pytest.mark.parametrize("n", [1, 2, 7, 11, 100, 127, 128, 1031, 2047, 10007, 48001])
def test_fast_lengths_are_the_next_even_numbers_without_large_primes(n: int) -> None:
    def factors(m: int) -> list[int]:
        found, p = [], 2
        while m > 1:
            while m % p == 0:
                found.append(p)
                m //= p
            p += 1
        return found

    length = fast_length(n)
    assert length >= n
    assert length % 2 == 0
    assert max(factors(length)) <= 7
    for between in range(n + n % 2, length, 2):
        assert max(factors(between)) > 7


def test_frames_have_room_for_the_farthest_lag_and_no_more() -> None:
    assert frame(problem(1000, 1000, causal=True)) == (fast_length(1999),)
    assert frame(problem(1000, 101)) == (fast_length(1050),)  # half the kernel hangs over
    assert frame(problem(1031, 101, boundary="circular")) == (1031,)


def test_reference_is_never_chosen() -> None:
    assert math.isinf(ENGINES["reference"].cost(problem(1, 1)))
