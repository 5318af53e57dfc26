"""What the library predicts of a convolution before it runs: the engines it will take, and their times."""

from __future__ import annotations

import math

from omniconv.engines import ENGINES, Problem, select_engine
from omniconv.engines._costs import adjoint_seconds, run_seconds
from omniconv.engines._select import select_adjoint
from omniconv.engines._shorten import shortened


def chosen_engines(problem: Problem) -> tuple[str, ...]:
    """The engines behind "auto", by pass: the convolution, and where `problem.training` the gradients of the signal and
    of the taps.
    """
    adjoints = select_adjoint(problem, "auto", True, True) if problem.training else ()
    return tuple(engine.name for engine in (select_engine(problem), *adjoints))


def predicted_seconds(problem: Problem) -> dict[str, float]:
    """Seconds of "auto", and of every engine that can run the problem and has rates; gradients are included where
    `problem.training`.
    """
    short, training = shortened(problem), problem.training
    seconds = {}
    for engine in ENGINES.values():
        if engine.reject(short) is None:
            gradients = adjoint_seconds(engine, short, True, True) if training else 0.0
            seconds[engine.name] = run_seconds(engine, short) + gradients
    first, *others = chosen_engines(problem)
    chosen = run_seconds(ENGINES[first], short)
    if others and others[0] == others[1]:
        chosen += adjoint_seconds(ENGINES[others[0]], short, True, True)
    elif others:
        chosen += adjoint_seconds(ENGINES[others[0]], short, True, False)
        chosen += adjoint_seconds(ENGINES[others[1]], short, False, True)
    return {name: time for name, time in {"auto": chosen, **seconds}.items() if math.isfinite(time)}
