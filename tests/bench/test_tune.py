"""Measuring rates, and predicting from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from omniconv._machine import processor
from omniconv.bench import tune
from omniconv.bench.tune import NEEDS, PARTS, Timing, candidates, fit, fitted, judge, measure, work_of
from omniconv.bench.tune_problems import DEPTHWISE, problems, tuning_problems
from omniconv.engines import ENGINES, Problem, select_engine
from omniconv.engines._costs import Rates, adjoint_seconds, measured_file, name, rates, run_seconds
from omniconv.engines._plan import forget_plans
from omniconv.engines._shorten import shortened


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "wait_until_quiet", lambda stop: None)


def test_the_fit_recovers_rates_and_leaves_out_what_costs_nothing() -> None:
    generator = np.random.default_rng(0)
    work = np.exp(generator.uniform(0, 12, (60, 4)))
    work[:, 0] = 1
    work[:, 3] = 0
    true = np.array([1e-4, 3e-9, 0.0, 0.0])
    made = fit(work, work @ true, np.ones(60))
    np.testing.assert_allclose(made[:2], true[:2], rtol=0.02)
    assert made[2] == made[3] == 0


def test_rows_that_contradict_each_other_are_settled_by_their_weights() -> None:
    work, seconds = np.ones((2, 1)), np.array([1.0, 4.0])
    assert fit(work, seconds, np.array([1.0, 1.0]))[0] == pytest.approx(2.0, rel=1e-3)
    assert fit(work, seconds, np.array([1.0, 0.1]))[0] == pytest.approx(4 ** (0.01 / 1.01), rel=1e-3)


def test_an_engine_weighs_as_much_as_it_may_be_chosen() -> None:
    rows = [tune.Row(DEPTHWISE[0], (1.0, 2.0), 4.0, 1.0), tune.Row(DEPTHWISE[0], (3.0, 4.0), 2.0, 2.0)]
    work, seconds, weights = tune.as_arrays(rows)
    assert (work.tolist(), seconds.tolist(), weights.tolist()) == ([[1, 2], [3, 4]], [4, 2], [0.25, 1])


def made_up(grid: list[Problem], seconds_per_unit: float) -> list[Timing]:
    """Timings of machines on which every unit of work takes as long; float64 three times."""
    timings = []
    for problem in grid:
        timing = Timing(problem)
        for engine in candidates(problem):
            for part in PARTS:
                calls, *busy = work_of(engine, problem, part)
                slower = 3 if problem.dtype == torch.float64 else 1
                timing.seconds[engine.name, part] = seconds_per_unit * (calls + slower * sum(busy))
        timings.append(timing)
    return timings


def test_rates_predict_what_they_were_fitted_to() -> None:
    grid = [*DEPTHWISE[:60], *(replace(problem, dtype=torch.float64) for problem in DEPTHWISE[20:40])]
    timings = made_up(grid, 1e-7)
    made = fitted(timings)
    fit = judge(timings, made)
    assert fit.share == 1
    assert fit.worst < 1.1
    assert max(fit.error.values()) < 1.1
    large = replace(DEPTHWISE[20], batch=64)
    key, amounts = "fft depthwise 1 run", work_of(ENGINES["fft"], replace(DEPTHWISE[20], batch=64), "run")
    assert large.dim == 1
    single, double = (made.seconds(key, amounts, dtype) for dtype in (torch.float32, torch.float64))
    assert double == pytest.approx(3 * single, rel=0.2)
    assert Rates.from_json(made.to_json()).units == made.units


def test_a_choice_by_wrong_rates_is_judged() -> None:
    timings = made_up(DEPTHWISE[:40], 1e-7)
    right = fitted(timings)
    wrong = replace(right, units={k: tuple(100 * u for u in v) if "fft" in k else v for k, v in right.units.items()})
    assert judge(timings, wrong).worst > judge(timings, right).worst
    assert judge(timings, wrong).share < 1


def test_engines_that_sum_over_the_taps_are_left_out_of_long_kernels_by_what_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (long,) = problems(1, 8, (65536,), (32767,), causal=True)
    (short,) = problems(1, 8, (65536,), (31,), causal=True)
    monkeypatch.setitem(ENGINES, "windows", replace(ENGINES["direct"], name="windows"))
    found = [{engine.name for engine in candidates(problem)} for problem in (short, long)]
    assert found[0] - found[1] == {"direct", "shifts", "windows"}


def test_every_pass_of_every_engine_is_measured() -> None:
    (problem,) = problems(1, 2, (16,), (3,), causal=True)
    steps: list[tuple[int, int]] = []
    (timing,) = measure([problem], minutes=0.0, sweeps=2, progress=lambda *step: steps.append(step))
    names = [engine.name for engine in candidates(problem)]
    assert set(timing.seconds) == {(engine, part) for engine in names for part in PARTS}
    assert all(0 < seconds < math.inf for seconds in timing.seconds.values())
    assert "reference" not in names
    assert steps == [(1, 2)]  # the time was up after the first sweep
    assert len(NEEDS) == len(PARTS) - 1


def test_what_there_was_no_time_for_has_no_times_and_is_not_fitted() -> None:
    grid = [*problems(1, 2, (16,), (3, 16), causal=True), *problems(1, 2, (4, 4), (3,))]
    steps: list[tuple[int, int]] = []
    timings = measure(grid, minutes=0.0, progress=lambda *step: steps.append(step))
    assert [timing.problem for timing in timings] == grid
    (done,) = [timing for timing in timings if timing.seconds]
    assert steps == [(1, 3 * tune.SWEEPS)]
    made = fitted(timings)
    kind = f"depthwise {done.problem.dim}"
    assert {key.split(maxsplit=1)[1] for key in made.units} == {f"{kind} run", f"{kind} adjoint"}
    assert judge(timings, made).error


def test_kinds_that_were_not_measured_take_other_rates_as_a_whole() -> None:
    mine = Rates({"fft depthwise 1 run": (1.0,)}, {}, {"processor": "here"})
    both: dict[str, tuple[float, ...]] = {
        "fft depthwise 1 run": (2.0,),
        "direct depthwise 1 run": (3.0,),
        "fft dense 1 run": (4.0,),
    }
    made = mine.completed(Rates(both, both, {"processor": "there"}))
    assert made.units == {"fft depthwise 1 run": (1.0,), "fft dense 1 run": (4.0,)}
    assert made.double == {"fft dense 1 run": (4.0,)}
    assert made.about == {"processor": "here"}


def test_operands_are_drawn_where_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = problems(2, 3, (8,), (3,), dtype=torch.float64)
    drawn: list[object] = []
    randn = torch.randn

    def noted(*size: object, device: object = None, **given: object) -> torch.Tensor:
        drawn.append(device)
        return randn(*size, device=device, **given)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "randn", noted)
    tune.operands(problem)
    assert drawn == ["cpu"] * 3


def test_problems_of_both_devices_can_be_run() -> None:
    for device in ("cpu", "cuda"):
        grid = tuning_problems(device)
        assert {problem.device for problem in grid} == {device}
        assert 0 < len(tuning_problems(device, quick=True)) < len(grid) / 5


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache directory; the choices made so far are forgotten before and after."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    forget_plans()


def test_rates_of_this_machine_come_before_those_of_the_package(cache: Path) -> None:
    (problem,) = problems(8, 64, (1024,), (1024,), causal=True)
    assert select_engine(problem).name == "fft"
    shipped = rates("cpu")
    slow = {
        key: tuple(1e6 * unit for unit in units) if key.startswith("fft") else units
        for key, units in shipped.units.items()
    }
    forget()
    path = measured_file("cpu")
    assert path.is_relative_to(cache)
    path.parent.mkdir()
    path.write_text(replace(shipped, units=slow, about={"processor": processor()}).to_json())
    assert select_engine(problem).name != "fft"
    assert run_seconds(ENGINES["fft"], shortened(problem)) > 1


@pytest.mark.parametrize("text", ["", "{}", '{"units": 3, "double": {}, "about": {}}', '{"units": {"a": 1}}'])
def test_a_file_that_holds_no_rates_is_named(cache: Path, text: str) -> None:
    path = measured_file("cpu")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError, match=r"rates-cpu\.json .*omniconv tune"):
        rates("cpu")


def test_rates_of_another_machine_or_unreadable_ones_are_left_out_with_a_warning(cache: Path) -> None:
    shipped = rates("cpu")
    forget()
    path = measured_file("cpu")
    path.parent.mkdir()
    path.write_text(replace(shipped, about={"processor": "another"}).to_json())
    with pytest.warns(UserWarning, match="was measured on another, and this is"):
        assert rates("cpu").units == shipped.units
    forget()
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="cannot be read"):
        assert rates("cpu").units == shipped.units


def test_rates_of_another_version_are_named(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"'fft depthwise 1 run' are 2 numbers for 3 kinds of work.*omniconv tune"):
        Rates({"fft depthwise 1 run": (1.0, 2.0)}, {}, {}).seconds("fft depthwise 1 run", (1.0,) * 3, torch.float32)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_package_brings_rates_of_every_engine(device: str, cache: Path) -> None:
    shipped = rates(device)
    for problem in tuning_problems(device):
        for engine in ENGINES.values():
            short = shortened(problem)
            if engine.reject(replace(short, device="cpu")) is None and engine.work(short) is not None:
                assert 0 < run_seconds(engine, short) < math.inf, engine.name
                assert 0 < adjoint_seconds(engine, short, True, True) < math.inf, engine.name
    assert shipped.units


def test_an_engine_without_rates_is_never_chosen(cache: Path) -> None:
    (problem,) = problems(8, 64, (1024,), (1024,), causal=True)
    key = name(ENGINES["fft"], problem, "run")
    assert Rates({}, {}, {}).seconds(key, (1.0,), torch.float32) == math.inf
    assert run_seconds(ENGINES["reference"], problem) == math.inf


def test_a_device_without_rates_borrows_those_of_a_cpu(cache: Path) -> None:
    assert rates("meta").units == rates("cpu").units
