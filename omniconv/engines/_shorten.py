"""Kernels longer than their signal, brought to the length that matters.

On a zero axis of n samples only the lags -(n - 1) .. n - 1 ever meet a sample: the other taps are dropped. On a
circular axis lags that differ by n are the same: their taps are added up. Both keep the zero lag where `Problem.origin`
expects it, so that engines never meet a longer kernel.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._typing import Taps
from omniconv.engines._problem import Problem


@lru_cache(maxsize=4096)
def shortened(problem: Problem) -> Problem:
    """The problem with the kernel sizes that matter."""
    matter = tuple(
        min(k, n) if circular else stop - start
        for k, n, circular, (start, stop) in zip(
            problem.kernel_size, problem.size, problem.circular, kept(problem), strict=True
        )
    )
    return problem if matter == problem.kernel_size else problem.with_kernel_size(matter)


@lru_cache(maxsize=4096)
def is_short(problem: Problem) -> bool:
    """Whether all taps matter. What is remembered of an equal problem is another object: identity tells nothing."""
    return shortened(problem).kernel_size == problem.kernel_size


def shorten(taps: Taps, problem: Problem) -> Taps:
    """The taps of `shortened(problem)`."""
    if is_short(problem):
        return taps
    for axis, n, circular, (start, stop) in zip(
        problem.axes, problem.size, problem.circular, kept(problem), strict=True
    ):
        taps = fold(taps, axis, n) if circular else taps.narrow(axis, start, stop - start)
    return taps


def fold(taps: Taps, axis: int, n: int) -> Taps:
    """Taps on a circular axis of n samples: those a period apart are added up, so that at most n are left."""
    k = taps.shape[axis]
    if k <= n:
        return taps
    shape = list(taps.shape)
    shape[axis] = n
    return taps.new_zeros(shape).index_add(axis, wrapped(k, n, taps.device), taps)


def lengthen(taps: Taps, problem: Problem) -> Taps:
    """The adjoint of `shorten`: a gradient for every tap of `problem`."""
    if is_short(problem):
        return taps
    for axis, k, n, circular, (start, stop) in zip(
        problem.axes, problem.kernel_size, problem.size, problem.circular, kept(problem), strict=True
    ):
        if circular and k > n:
            taps = taps.index_select(axis, wrapped(k, n, taps.device))
        elif not circular and stop - start < k:
            taps = F.pad(taps, [0, 0] * (-axis - 1) + [start, k - stop])
    return taps


def kept(problem: Problem) -> list[tuple[int, int]]:
    """Range of the taps that can meet a sample, per axis, were it a zero axis."""
    axes = zip(problem.kernel_size, problem.origin, problem.size, strict=True)
    return [(max(0, o - (n - 1)), min(k, o + n)) for k, o, n in axes]


def wrapped(k: int, n: int, device: torch.device) -> Tensor:
    """Index in a kernel of n taps of each of k taps, equal lags modulo n together."""
    return (torch.arange(k, device=device) - k // 2 + n // 2) % n
