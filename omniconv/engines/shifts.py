"""One pass over the shifted signal for every tap: the engine for a few taps on small signals.

A pass costs little more than its call, and the framework's own convolution as much as several of them to begin.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from types import EllipsisType

import torch
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._blocks import beyond_cache
from omniconv.engines._engine import Engine
from omniconv.engines._extend import extend, extended, margins, reversed_margins
from omniconv.engines._problem import Problem

MOST = 512
"""Taps beyond which any other engine is faster by far."""

Window = tuple[EllipsisType | slice, ...]
"""An index of the samples that a tap meets."""


def run(x: Signal, taps: Taps, problem: Problem) -> Signal:
    """y[t] = sum_s taps[s] x[t + origin - s]."""
    return weighted(extend(x, margins(problem), problem), taps, windows(problem)[::-1], problem)


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dx: the same sum with the taps reversed;  dtaps: a sum over all samples per tap."""
    dx = dtaps = None
    if need_x:
        dx = weighted(extend(grad, reversed_margins(problem), problem), taps, windows(problem), problem)
    if need_taps:
        x = extend(x, margins(problem), problem)
        sums = [summed(x[window], grad, problem) for window in windows(problem)[::-1]]
        dtaps = torch.stack(sums, -1).unflatten(-1, problem.kernel_size)
    return dx, dtaps


def summed(x: Signal, grad: Signal, problem: Problem) -> Tensor:
    """The sum of x * grad per channel: on a CPU by dot products, which graphics processors may round to tf32."""
    if problem.device == "cpu":
        return torch.linalg.vecdot(x, grad).sum((0, *problem.axes[1:]))
    return (x * grad).sum((0, *problem.axes))


def weighted(x: Signal, taps: Taps, met: tuple[Window, ...], problem: Problem) -> Signal:
    """sum_s taps[s] x[met[s]], of a signal with margins."""
    first, *others = taps.reshape(len(taps), -1, *[1] * problem.dim).unbind(1)
    y = x[met[0]] * first
    for window, tap in zip(met[1:], others, strict=True):
        y.addcmul_(x[window], tap)
    return y


@lru_cache(maxsize=256)
def windows(problem: Problem) -> tuple[Window, ...]:
    """From every index of a tap as many samples as the signal has without margins."""
    firsts = product(*map(range, problem.kernel_size))
    return tuple(
        (..., *(slice(start, start + size) for start, size in zip(first, problem.size, strict=True)))
        for first in firsts
    )


def reject(problem: Problem) -> str | None:
    """Taps that mix channels, and many."""
    if not problem.depthwise:
        return "the taps mix channels"
    many = problem.tap_count > MOST
    return f"it takes a pass for each of {problem.tap_count} taps, and {MOST} are the most" if many else None


def work(problem: Problem) -> tuple[float, ...]:
    """See `passes`."""
    return passes(problem, 1.0, 0.0)


def adjoint_work(problem: Problem, need_x: bool, need_taps: bool) -> tuple[float, ...]:
    """See `passes`."""
    return passes(problem, float(need_x), float(need_taps))


def passes(problem: Problem, sums: float, products: float) -> tuple[float, ...]:
    """Units of work: calls, samples with margins; taps that are added up, the samples that they meet and those beyond
    the cache; taps whose gradient is summed and the same samples.
    """
    margin = (sums + products) * problem.pairs * extended(problem)
    met = float(problem.tap_count * problem.pairs * problem.positions)
    count = float(problem.tap_count)
    far = beyond_cache(problem, met)
    return (
        sums + products,
        margin,
        sums * count,
        sums * met,
        sums * far,
        products * count,
        products * met,
        products * far,
    )


SHIFTS = Engine("shifts", run, adjoint, reject, work, adjoint_work, sums=True)
