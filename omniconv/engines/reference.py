"""The definition of the convolution, one tap at a time: slow, readable, right for every problem."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._engine import Engine
from omniconv.engines._problem import Problem


def run(x: Signal, taps: Taps, problem: Problem) -> Signal:
    """y[t] = sum_s taps[s] x[t + origin - s]."""
    weigh = "c,bc...->bc..." if problem.depthwise else "oc,bc...->bo..."
    y = x.new_zeros(problem.batch, problem.out_channels, *problem.size)
    for s in product(*map(range, problem.kernel_size)):
        y += torch.einsum(weigh, at(taps, s), shift(x, lag(s, problem), problem))
    return y


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dx[u] = sum_s taps[s] grad[u - origin + s];  dtaps[s] = sum_t grad[t] x[t + origin - s]."""
    weigh = "c,bc...->bc..." if problem.depthwise else "oc,bo...->bc..."
    correlate = "bc...,bc...->c" if problem.depthwise else "bo...,bc...->oc"
    dx = torch.zeros_like(x) if need_x else None
    dtaps = torch.zeros_like(taps) if need_taps else None
    for s in product(*map(range, problem.kernel_size)):
        steps = lag(s, problem)
        if dx is not None:
            dx += torch.einsum(weigh, at(taps, s), shift(grad, tuple(-step for step in steps), problem))
        if dtaps is not None:
            at(dtaps, s).copy_(torch.einsum(correlate, grad.flatten(2), shift(x, steps, problem).flatten(2)))
    return dx, dtaps


def at(taps: Taps, index: tuple[int, ...]) -> Tensor:
    """The tap at an index, of every channel: a view."""
    for i in reversed(index):
        taps = taps[..., i]
    return taps


def lag(index: tuple[int, ...], problem: Problem) -> tuple[int, ...]:
    """The lag of a tap, per axis."""
    return tuple(i - o for i, o in zip(index, problem.origin, strict=True))


def shift(x: Signal, steps: tuple[int, ...], problem: Problem) -> Signal:
    """x delayed by `steps` samples per axis, with what the boundary says in the places that become free."""
    shifted = torch.roll(x, steps, problem.axes)
    for axis, step, circular in zip(problem.axes, steps, problem.circular, strict=True):
        if not circular and step:
            free = shifted.narrow(axis, 0, step) if step > 0 else shifted.narrow(axis, step, -step)
            free.zero_()
    return shifted


def reject(problem: Problem) -> str | None:
    """Never."""
    return None


def work(problem: Problem) -> None:
    """Never chosen on its own."""


def adjoint_work(problem: Problem, need_x: bool, need_taps: bool) -> None:
    """Never chosen on its own."""


REFERENCE = Engine("reference", run, adjoint, reject, work, adjoint_work)
