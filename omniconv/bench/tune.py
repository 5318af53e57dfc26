"""Measures what the engines' work takes on a machine: the rates from which `auto` predicts."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omniconv.bench.measure import finish, interleaved, provenance, wait_until_quiet
from omniconv.engines import ENGINES, Engine, Problem, convolve
from omniconv.engines._costs import Rates, name
from omniconv.engines._operator import gradients
from omniconv.engines._shorten import shortened

SEED = 0
SWEEPS = 6
REPEATS, SECONDS = 20, 0.03
"""Most repeats of one action per sweep, and the time after which it is not repeated."""
HOPELESS = 20.0
"""An engine that once took this many times the best is not measured again: it will not be chosen."""
MULTIPLICATIONS = 1e10
"""The most that an engine which sums over the taps is given: more would take seconds."""
NEEDS = ((True, False), (False, True), (True, True))
"""Which gradients are measured: of the signal, of the taps, of both."""

Array = NDArray[np.float64]


@dataclass
class Timing:
    """A problem, and seconds by (engine, pass), a pass being "run" or which gradients were needed.

    The least median of the sweeps: a median is what users wait for, a sweep may meet other work on the machine.
    """

    problem: Problem
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)

    def of_pass(self, part: str) -> dict[str, float]:
        """Seconds by engine."""
        return {engine: time for (engine, other), time in self.seconds.items() if other == part}


def label(need_x: bool, need_taps: bool) -> str:
    """The name of a pass of gradients."""
    return f"adjoint {need_x:d}{need_taps:d}"


PARTS = ("run", *(label(*need) for need in NEEDS))


def candidates(problem: Problem) -> list[Engine]:
    """Engines whose rates are wanted for a problem."""
    short = shortened(problem)
    able = [engine for engine in ENGINES.values() if engine.reject(short) is None and engine.work(short) is not None]
    slow = short.pairs * short.positions * short.tap_count > MULTIPLICATIONS
    return [engine for engine in able if not (slow and engine.sums)]


def operands(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, taps and cotangent; the taps of signals in half precision are in float32."""
    pair = (problem.out_channels,) if problem.depthwise else (problem.out_channels, problem.in_channels)
    shapes = (
        (problem.batch, problem.in_channels, *problem.size),
        (*pair, *problem.kernel_size),
        (problem.batch, problem.out_channels, *problem.size),
    )
    device = problem.device
    generator = torch.Generator(device).manual_seed(SEED)  # a copy of a large signal takes longer than its convolution
    x, taps, grad = (torch.randn(shape, generator=generator, dtype=torch.float64, device=device) for shape in shapes)
    exact = problem.dtype if problem.dtype == torch.float64 else torch.float32
    return x.to(problem.dtype), taps.to(exact), grad.to(problem.dtype)


def actions(problem: Problem) -> dict[tuple[str, str], Callable[[], object]]:
    """Every pass of every engine."""
    x, taps, grad = operands(problem)
    made: dict[tuple[str, str], Callable[[], object]] = {}
    how = (problem.causal, problem.circular)
    for engine in candidates(problem):

        def run(engine: str = engine.name) -> object:
            return convolve(x, taps, causal=problem.causal, boundary=problem.boundary, engine=engine)

        made[engine.name, "run"] = run
        for need in NEEDS:

            def adjoint(engine: str = engine.name, need: tuple[bool, bool] = need) -> object:
                return gradients(grad, x, taps, *how, engine, *need)

            made[engine.name, label(*need)] = adjoint
    return made


def measure(
    grid: Sequence[Problem],
    *,
    minutes: float,
    sweeps: int = SWEEPS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Timing]:
    """The times of all problems, in sweeps through the grid while there are `minutes`.

    Many short sweeps in an order of chance rather than one long one, so that no spell of other work on the machine
    decides a problem, and that what the first leaves out for want of time is of any kind: those problems have no times.
    One problem is measured at least. `progress(done, total)` is called after every problem.
    """
    stop, order = time.monotonic() + 60 * minutes, random.Random(SEED)
    timings = [Timing(problem) for problem in grid]
    for sweep in range(sweeps):
        for i, timing in enumerate(order.sample(timings, len(timings))):
            if sweep + i and time.monotonic() > stop:
                return timings
            if timing.problem.device == "cpu":
                wait_until_quiet(stop)
            visit(timing)
            progress(sweep * len(timings) + i + 1, sweeps * len(timings))
    return timings


def visit(timing: Timing) -> None:
    """Measure a problem once more; what was hopeless before is left out."""
    wanted = actions(timing.problem)
    for part in PARTS:
        seconds = timing.of_pass(part)
        limit = HOPELESS * min(seconds.values(), default=math.inf)
        for engine in [engine for engine, shortest in seconds.items() if shortest > limit]:
            del wanted[engine, part]

    def timed(action: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            action()
            finish(timing.problem.device)

        return run

    for action in wanted.values():  # what is made once, such as programs and tables, is no part of a rate
        action()
    finish(timing.problem.device)
    taken = interleaved([timed(action) for action in wanted.values()], repeats=REPEATS, seconds=SECONDS)
    for key, times in zip(wanted, taken, strict=True):
        timing.seconds[key] = min(timing.seconds.get(key, math.inf), statistics.median(times))


def fitted(timings: Sequence[Timing], command: str = "omniconv tune") -> Rates:
    """Rates of every engine for every mixing and number of axes that was measured."""
    units: dict[str, tuple[float, ...]] = {}
    double: dict[str, tuple[float, ...]] = {}
    for engine in ENGINES.values():
        for part in ("run", "adjoint"):
            for depthwise in (True, False):
                for dim in (1, 2, 3):
                    rows = [
                        row
                        for timing in timings
                        if (timing.problem.depthwise, timing.problem.dim) == (depthwise, dim)
                        for row in amounts(timing, engine, part)
                    ]
                    if rows:
                        key = name(engine, rows[0].problem, part)
                        units[key], of_double = fit_rows(rows)
                        if of_double is not None:
                            double[key] = of_double
    return Rates(units, double, provenance(SEED, timings[0].problem.device, command))


@dataclass(frozen=True)
class Fit:
    """How well rates predict what they were fitted to.

    `error`: by engine, mixing, axes and pass, the typical factor between predicted and measured time.
    `share`, `worst`: share of the problems and passes in which the engine with the least predicted time takes at most
    1.1 times as long as the fastest, and the largest such ratio.
    """

    error: dict[str, float]
    share: float
    worst: float


def judge(timings: Sequence[Timing], rates: Rates) -> Fit:
    """Predictions against what was measured."""
    logarithms: dict[str, list[float]] = {}
    losses = []
    for timing in timings:
        passes: dict[str, list[tuple[float, float]]] = {part: [] for part in PARTS}
        for engine in candidates(timing.problem):
            for part in PARTS:
                if (engine.name, part) not in timing.seconds:
                    continue
                key = name(engine, timing.problem, part.split()[0])
                predicted = rates.seconds(key, work_of(engine, timing.problem, part), timing.problem.dtype)
                measured = timing.seconds[engine.name, part]
                passes[part].append((predicted, measured))
                logarithms.setdefault(key, []).append(math.log(predicted / measured))
        losses += [min(pairs)[1] / min(measured for _, measured in pairs) for pairs in passes.values() if pairs]
    error = {key: math.exp(math.sqrt(sum(x * x for x in values) / len(values))) for key, values in logarithms.items()}
    return Fit(error, sum(loss <= 1.1 for loss in losses) / len(losses), max(losses))


def work_of(engine: Engine, problem: Problem, part: str) -> tuple[float, ...]:
    """Amounts of work of a pass."""
    short = shortened(problem)
    need = dict(zip(PARTS[1:], NEEDS, strict=True)).get(part)
    work = engine.work(short) if need is None else engine.adjoint_work(short, *need)
    return work or ()


class Row(NamedTuple):
    """A problem, the amounts of work, the seconds that they took, and those of the fastest engine."""

    problem: Problem
    work: tuple[float, ...]
    seconds: float
    fastest: float


def amounts(timing: Timing, engine: Engine, part: str) -> list[Row]:
    """What was measured of an engine's convolution or gradients on a problem."""
    return [
        Row(timing.problem, work_of(engine, timing.problem, key), seconds, min(timing.of_pass(key).values()))
        for (owner, key), seconds in timing.seconds.items()
        if owner == engine.name and key.split()[0] == part
    ]


def fit_rows(rows: Sequence[Row]) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
    """Seconds per unit of work, and those in float64 where it was measured.

    There are few rows in float64: its rates stay near those of float32 times one factor, but for the calls.
    """
    single = [row for row in rows if row.problem.dtype != torch.float64] or list(rows)
    rates = fit(*as_arrays(single))
    double = [row for row in rows if row.problem.dtype == torch.float64]
    if not double or len(double) == len(rows):
        return rounded(rates), None
    work, seconds, weights = as_arrays(double)
    calls, busy = work[:, 0] * rates[0], work[:, 1:] @ rates[1:]
    # Timings of small problems scatter by about a tenth of what is subtracted.
    factor = float(np.exp(np.log(np.maximum(seconds - calls, 0.1 * seconds) / (busy + 1e-9)).mean()))
    near = np.concatenate([rates[:1], rates[1:] * factor])
    return rounded(rates), rounded(fit(work, seconds, weights, near))


def as_arrays(rows: Sequence[Row]) -> tuple[Array, Array, Array]:
    """Amounts of work, seconds, and weights: an engine's time matters as far as it may be chosen."""
    work = np.array([row.work for row in rows], dtype=np.float64)
    seconds, fastest = (np.array(times) for times in zip(*[(row.seconds, row.fastest) for row in rows], strict=True))
    return work, seconds, fastest / seconds


def rounded(rates: Array) -> tuple[float, ...]:
    """Three digits are more than timings have."""
    return tuple(float(f"{rate:.3g}") for rate in rates)


def fit(work: Array, seconds: Array, weights: Array, near: Array | None = None) -> Array:
    """Rates r >= 0 that minimise sum_i w_i^2 (log(sum_j work_ij r_j) - log seconds_i)^2, and those `near` which they
    stay, sum_j (log r_j - log near_j)^2 / 4 too.

    Damped Gauss-Newton steps in log r.
    """
    used = work.any(axis=0) if near is None else work.any(axis=0) & (near > 0)
    prior = np.log(near[used]) if near is not None else None
    log_rates = np.log(seconds.mean() / used.sum() / work[:, used].mean(axis=0)) if prior is None else prior
    damping, previous = 1e-2, math.inf
    for _ in range(500):
        parts = work[:, used] * np.exp(log_rates)
        total = parts.sum(axis=1)
        residual, slope = weights * np.log(total / seconds), parts * (weights / total)[:, None]
        if prior is not None:
            residual = np.concatenate([residual, (log_rates - prior) / 2])
            slope = np.concatenate([slope, np.eye(len(prior)) / 2])
        if (error := float(residual @ residual)) < previous:
            accepted, previous, damping = log_rates, error, damping / 3
            normal, gradient = slope.T @ slope, slope.T @ residual
        else:
            damping *= 3
        step = np.linalg.solve(normal + (damping * normal.trace() + 1e-12) * np.eye(len(normal)), -gradient)
        log_rates = np.maximum(accepted + step.clip(-2, 2), -60)
    rates = np.zeros(work.shape[1])
    rates[used] = np.exp(accepted)
    # What is a thousandth of the time nowhere is nothing.
    return np.where((work * rates > 1e-3 * seconds[:, None]).any(axis=0), rates, 0.0)
