"""The contract of an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._problem import Problem

Launch = Callable[[Signal, Taps], Signal]
"""A convolution of operands of known shapes."""


def as_they_are(taps: Taps, problem: Problem) -> Tensor:
    """The taps: what an engine prepares that has nothing to prepare."""
    return taps


def not_bound(problem: Problem) -> Launch | None:
    """None: an engine whose steps are few, or long."""
    return None


@dataclass(frozen=True)
class Engine:
    """One way to carry out a convolution: pure functions and a name.

    `prepare(taps, problem)`: what depends on the taps alone, such as their spectrum; for a constant kernel it is kept.
    `run(x, prepared, problem)`: the convolution y[t] = sum_s taps[s] x[t + origin - s].
    `adjoint(grad, x, taps, problem, need_x, need_taps)`: its two gradients for a cotangent `grad` of y,
    dx[u] = sum_t taps[t + origin - u] grad[t] and dtaps[s] = sum_t grad[t] x[t + origin - s]; None where not needed.
    `reject(problem)`: None if the engine can run it, else the reason as a clause.
    `work(problem)`: amounts of each kind of work in `prepare` and `run`, calls first, to which a device's rates are
    fitted and from which its seconds are predicted; None where the engine is never to be chosen on its own.
    `adjoint_work(problem, need_x, need_taps)`: the same for `adjoint`.
    `gated(x, prepared, problem, before, after)`: after * run(before * x), either gate None; None where an engine has no
    pass that saves the gates' own.
    `bound(problem)`: one function of x and the taps that does what `prepare` and `run` do, with all that they look up
    found beforehand: what stands around a short convolution takes as long as it. Its result is contiguous and no view.
    None where nothing would be saved.
    `differentiable(problem)`: the same by operators of the framework which keep x and the taps alone for its gradients,
    where those are the engine's own; None elsewhere.
    `sums`: whether it multiplies every tap with every sample, so that long kernels take it seconds: nobody would choose
    it there, and `omniconv tune` does not measure it there.
    `half`: whether signals may be of float16 and bfloat16, with taps in float32 and gradients in the dtype of `x` and
    of the taps. An engine otherwise sees float32 or float64 tensors of one dtype.

    The kernel is no longer than the signal can feel: at most 2 size - 1 taps on a zero axis, size on a circular one.
    Results share no memory with arguments. Signals and cotangents may have any strides. Shortening, low precision,
    derivatives of any order, `torch.compile` and `vmap` are handled once, for all engines.
    """

    name: str
    run: Callable[[Signal, Tensor, Problem], Signal]
    adjoint: Callable[[Signal, Signal, Taps, Problem, bool, bool], tuple[Tensor | None, Tensor | None]]
    reject: Callable[[Problem], str | None]
    work: Callable[[Problem], tuple[float, ...] | None]
    adjoint_work: Callable[[Problem, bool, bool], tuple[float, ...] | None]
    prepare: Callable[[Taps, Problem], Tensor] = as_they_are
    gated: Callable[[Signal, Tensor, Problem, Tensor | None, Tensor | None], Signal] | None = None
    bound: Callable[[Problem], Launch | None] = not_bound
    differentiable: Callable[[Problem], Launch | None] = not_bound
    sums: bool = False
    half: bool = False
