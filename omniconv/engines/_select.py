"""The choice of an engine: a pure function of the problem."""

from __future__ import annotations

import math
from functools import lru_cache

from omniconv._errors import EngineError, check_choice
from omniconv.engines._engine import Engine
from omniconv.engines._problem import Problem
from omniconv.engines._shorten import shortened
from omniconv.engines.direct import DIRECT
from omniconv.engines.fft import FFT
from omniconv.engines.reference import REFERENCE

ENGINES = {engine.name: engine for engine in (REFERENCE, DIRECT, FFT)}


@lru_cache(maxsize=4096)
def select_engine(problem: Problem, engine: str = "auto") -> Engine:
    """The engine that runs `problem`: the cheapest by prediction, or the one named.

    Raises `ValueError` for an unknown name, and `EngineError` (a `ValueError`) that quotes the reason if the named
    engine cannot run the problem.
    """
    problem = shortened(problem)
    if check_engine_name(engine) != "auto":
        chosen = ENGINES[engine]
        if (reason := chosen.reject(problem)) is not None:
            raise EngineError(
                f'engine="{engine}" cannot run this convolution: {reason}. Use another engine or engine="auto".'
            )
        return chosen
    able = [candidate for candidate in ENGINES.values() if candidate.reject(problem) is None]
    return min(able, key=lambda candidate: seconds_of(candidate, problem))


def seconds_of(engine: Engine, problem: Problem) -> float:
    """Predicted seconds of the convolution, with both gradients where `problem.training`."""
    seconds = engine.cost(problem)
    return seconds + engine.adjoint_cost(problem, True, True) if problem.training else seconds


def check_engine_name(engine: str) -> str:
    """Return the name, or raise `ValueError` with the names that exist."""
    return check_choice("engine", engine, ("auto", *ENGINES))


def explain_engine(problem: Problem) -> str:
    """A table of every engine with its predicted time, or its reason for refusing; the choice is marked.

    >>> import torch
    >>> table = explain_engine(Problem.of(torch.zeros(1, 1, 64), torch.zeros(1, 64), causal=True))
    >>> table.splitlines()[0].split()
    ['engine', 'predicted', 'remark']
    """
    chosen = select_engine(problem)
    rows = [("", "engine", "predicted", "remark")]
    for engine in ENGINES.values():
        reason, seconds = engine.reject(shortened(problem)), seconds_of(engine, shortened(problem))
        time = "-" if reason is not None or math.isinf(seconds) else f"{seconds * 1e3:.3f} ms"
        remark = (
            f"refuses: {reason}" if reason is not None else "for checking, never chosen" if math.isinf(seconds) else ""
        )
        rows.append(("*" if engine is chosen else "", engine.name, time, "chosen" if engine is chosen else remark))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
