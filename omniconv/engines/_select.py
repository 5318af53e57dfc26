"""The choice of an engine: a pure function of the problem and of the device's measured rates."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from omniconv._errors import EngineError, check_choice, describe
from omniconv.engines._costs import adjoint_seconds, rates, run_seconds
from omniconv.engines._engine import Engine
from omniconv.engines._problem import Problem
from omniconv.engines._shorten import shortened
from omniconv.engines.direct import DIRECT
from omniconv.engines.fft import FFT
from omniconv.engines.monarch import MONARCH
from omniconv.engines.monarch2d import MONARCH2D
from omniconv.engines.overlap_save import OVERLAP_SAVE
from omniconv.engines.reference import REFERENCE
from omniconv.engines.shifts import SHIFTS
from omniconv.engines.toeplitz import TOEPLITZ

ENGINES = {
    engine.name: engine for engine in (REFERENCE, SHIFTS, DIRECT, FFT, OVERLAP_SAVE, TOEPLITZ, MONARCH, MONARCH2D)
}


@lru_cache(maxsize=4096)
def select_engine(problem: Problem, engine: str = "auto") -> Engine:
    """The engine that convolves `problem`: the fastest by prediction, or the one named.

    Raises `ValueError` for an unknown name, and `EngineError` (a `ValueError`) that quotes the reason if the named
    engine cannot run the problem.
    """
    check_problem(problem)
    problem = shortened(problem)
    if check_engine_name(engine) != "auto":
        return named(problem, engine)
    return min(able(problem), key=lambda candidate: (candidate.work(problem) is None, run_seconds(candidate, problem)))


@lru_cache(maxsize=4096)
def select_adjoint(problem: Problem, engine: str, need_x: bool, need_taps: bool) -> tuple[Engine, Engine]:
    """The engines of the gradients of the signal and of the taps: one for both, or the fastest for each."""
    problem = shortened(problem)
    if check_engine_name(engine) != "auto":
        return (named(problem, engine),) * 2

    def fastest(need_x: bool, need_taps: bool) -> tuple[float, Engine]:
        seconds = [adjoint_seconds(candidate, problem, need_x, need_taps) for candidate in able(problem)]
        return min(zip(seconds, able(problem), strict=True), key=lambda pair: pair[0])

    together, both = fastest(need_x, need_taps)
    if not (need_x and need_taps):
        return both, both
    (for_x, of_x), (for_taps, of_taps) = fastest(True, False), fastest(False, True)
    return (of_x, of_taps) if for_x + for_taps < together else (both, both)


def able(problem: Problem) -> list[Engine]:
    """The engines that can run the problem."""
    return [candidate for candidate in ENGINES.values() if candidate.reject(problem) is None]


def named(problem: Problem, engine: str) -> Engine:
    """The engine of that name; raises `EngineError` if it cannot run the problem."""
    chosen = ENGINES[engine]
    if (reason := chosen.reject(problem)) is not None:
        raise EngineError(
            f'engine="{engine}" cannot run this convolution: {reason}. Use another engine or engine="auto".'
        )
    return chosen


def check_engine_name(engine: str) -> str:
    """Return the name, or raise `ValueError` with the names that exist."""
    return check_choice("engine", engine, ("auto", *ENGINES))


def check_problem(problem: Any) -> None:
    """Raise `TypeError` for what is no problem."""
    if not isinstance(problem, Problem):
        raise TypeError(f"`problem` must be an omniconv.Problem, as from Problem.of(x, taps); got {describe(problem)}.")


def explain_engine(problem: Problem) -> str:
    """A table of every engine with its predicted time, or its reason for refusing; the choice is marked.

    Where `problem.training`, with those of both gradients, each of which may have an engine of its own.

    >>> import torch
    >>> table = explain_engine(Problem.of(torch.zeros(1, 1, 64), torch.zeros(1, 64), causal=True))
    >>> table.splitlines()[0].split()
    ['engine', 'convolution', 'remark']
    """
    check_problem(problem)
    short, training = shortened(problem), problem.training
    head = ("engine", "convolution", *(("gradient of signal", "of taps") if training else ()), "remark")
    chosen = [select_engine(problem), *(select_adjoint(problem, "auto", True, True) if training else ())]
    rows = [head]
    for engine in ENGINES.values():
        reason = engine.reject(short)
        if reason is not None:
            rows.append((engine.name, *["-"] * len(chosen), f"refuses: {reason}"))
            continue
        seconds = [run_seconds(engine, short)]
        if training:
            seconds += [adjoint_seconds(engine, short, *need) for need in ((True, False), (False, True))]
        cells = [
            f"{milliseconds(time)}{' *' if engine is choice else ''}"
            for time, choice in zip(seconds, chosen, strict=True)
        ]
        rows.append((engine.name, *cells, remark(engine, short, chosen)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"Predicted from {rates(problem.device).origin}."])


def milliseconds(seconds: float) -> str:
    """A time in words."""
    return "-" if math.isinf(seconds) else f"{seconds * 1e3:.3f} ms"


def remark(engine: Engine, problem: Problem, chosen: list[Engine]) -> str:
    """Why an engine that can run the problem is taken or not."""
    if engine in chosen:
        return "chosen"
    if engine.work(problem) is None:
        return "for checking, never chosen"
    return "slower" if math.isfinite(run_seconds(engine, problem)) else "no rates; run `omniconv tune`"
