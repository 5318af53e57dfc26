"""Predictions: of the engines that "auto" takes, and of times, by the rates of the device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omniconv.bench import Case
from omniconv.bench.predict import chosen_engines, predicted_seconds
from omniconv.engines import ENGINES, select_engine
from omniconv.engines._costs import adjoint_seconds, run_seconds
from omniconv.engines._select import select_adjoint

FORWARD = Case("sequence", 2, 8, (128,), (9,), causal=True)
CASES = [FORWARD, replace(FORWARD, kernel=(128,)), replace(FORWARD, size=(64, 64), kernel=(7, 7), causal=False)]


@pytest.mark.parametrize("case", CASES)
def test_the_convolution_alone_has_one_engine(case: Case) -> None:
    problem = case.problem("cpu")
    assert chosen_engines(problem) == (select_engine(problem).name,)
    seconds = predicted_seconds(problem)
    assert seconds["auto"] == seconds[select_engine(problem).name] == min(seconds.values())
    assert "reference" not in seconds
    assert seconds["fft"] == run_seconds(ENGINES["fft"], problem)


@pytest.mark.parametrize("case", CASES)
def test_training_adds_the_gradients_of_the_engines_that_are_chosen_for_them(case: Case) -> None:
    problem = replace(case, training=True).problem("cpu")
    of_x, of_taps = select_adjoint(problem, "auto", True, True)
    forward = select_engine(problem)
    assert chosen_engines(problem) == (forward.name, of_x.name, of_taps.name)
    seconds = predicted_seconds(problem)
    gradients = (
        adjoint_seconds(of_x, problem, True, True)
        if of_x is of_taps
        else adjoint_seconds(of_x, problem, True, False) + adjoint_seconds(of_taps, problem, False, True)
    )
    assert seconds["auto"] == pytest.approx(run_seconds(forward, problem) + gradients)
    assert seconds["auto"] <= min(seconds.values())
    assert seconds["fft"] > run_seconds(ENGINES["fft"], problem)


def test_gradients_by_two_engines_cost_what_each_does(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = replace(FORWARD, training=True).problem("cpu")
    pair = ENGINES["direct"], ENGINES["overlap_save"]
    monkeypatch.setattr("omniconv.bench.predict.select_adjoint", lambda *arguments: pair)
    forward = select_engine(problem)
    assert chosen_engines(problem) == (forward.name, "direct", "overlap_save")
    apart = adjoint_seconds(pair[0], problem, True, False) + adjoint_seconds(pair[1], problem, False, True)
    assert predicted_seconds(problem)["auto"] == pytest.approx(run_seconds(forward, problem) + apart)


def test_a_kernel_beyond_the_signal_costs_what_matters_of_it() -> None:
    long, full = (replace(FORWARD, kernel=(kernel,)).problem("cpu") for kernel in (1000, 128))
    assert predicted_seconds(long) == predicted_seconds(full)
