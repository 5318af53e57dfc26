"""Signals with margins beyond their edges, as far as a kernel reaches."""

from __future__ import annotations

import math
from functools import lru_cache

import torch.nn.functional as F

from omniconv._typing import Signal
from omniconv.engines._problem import Problem

Margin = tuple[tuple[int, int], ...]
"""Samples (before, after) the signal, per axis."""


@lru_cache(maxsize=4096)
def margins(problem: Problem) -> Margin:
    """What the kernel needs."""
    return tuple((k - 1 - o, o) for k, o in zip(problem.kernel_size, problem.origin, strict=True))


@lru_cache(maxsize=4096)
def reversed_margins(problem: Problem) -> Margin:
    """What the reversed kernel needs."""
    return tuple((after, before) for before, after in margins(problem))


def extend(x: Signal, margin: Margin, problem: Problem) -> Signal:
    """The signal with margins of what its boundary says: zeros, or its own other end."""
    for pad, mode in pads(margin, problem.circular):
        x = F.pad(x, pad, mode=mode)
    return x


@lru_cache(maxsize=4096)
def pads(margin: Margin, circular: tuple[bool, ...]) -> tuple[tuple[list[int], str], ...]:
    """Arguments of the framework's padding, the last axis first: of the zero axes, then of the circular ones."""
    made = []
    for mode, kind in (("constant", False), ("circular", True)):
        sides = [
            side if edge == kind else 0
            for pair, edge in zip(reversed(margin), reversed(circular), strict=True)
            for side in pair
        ]
        if any(sides):
            made.append((sides, mode))
    return tuple(made)


@lru_cache(maxsize=4096)
def extended(problem: Problem) -> int:
    """Samples of a channel with its margins."""
    return math.prod(n + k - 1 for n, k in zip(problem.size, problem.kernel_size, strict=True))


def fold(x: Signal, margin: Margin, problem: Problem) -> Signal:
    """The adjoint of `extend`: margins are dropped, or added to the samples that they repeat."""
    for axis, (before, after), n, circular in zip(problem.axes, margin, problem.size, problem.circular, strict=True):
        inner = x.narrow(axis, before, n)
        if circular:
            inner = inner.clone()
            inner.narrow(axis, n - before, before).add_(x.narrow(axis, 0, before))
            inner.narrow(axis, 0, after).add_(x.narrow(axis, before + n, after))
        x = inner
    return x
