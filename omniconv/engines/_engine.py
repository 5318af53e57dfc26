"""The contract of an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._problem import Problem


@dataclass(frozen=True)
class Engine:
    """One way to carry out a convolution: four pure functions and a name.

    `run(x, taps, problem)`: the convolution y[t] = sum_s taps[s] x[t + origin - s].
    `adjoint(grad, x, taps, problem, need_x, need_taps)`: its two gradients for a cotangent `grad` of y,
    dx[u] = sum_t taps[t + origin - u] grad[t] and dtaps[s] = sum_t grad[t] x[t + origin - s]; None where not needed.
    `reject(problem)`: None if the engine can run it, else the reason as a clause.
    `cost(problem)`: predicted seconds; infinite for an engine that is never chosen on its own.

    An engine sees float32 or float64 tensors of one dtype, and a kernel no longer than the signal can feel: at most
    2 size - 1 taps on a zero axis, size on a circular one. Shortening, low precision, derivatives of any order,
    `torch.compile` and `vmap` are handled once, for all engines.
    """

    name: str
    run: Callable[[Signal, Taps, Problem], Signal]
    adjoint: Callable[[Signal, Signal, Taps, Problem, bool, bool], tuple[Tensor | None, Tensor | None]]
    reject: Callable[[Problem], str | None]
    cost: Callable[[Problem], float]
