"""Taps that stay as they are: what an engine prepares of them, such as their spectrum, is kept for the next signal."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import RLock

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from omniconv._typing import Taps
from omniconv.engines._engine import Engine, as_they_are
from omniconv.engines._problem import Problem

MOST = 2
"""Problems for which the preparations of one kernel are kept: the latest ones."""


@dataclass
class Prepared:
    """What was prepared of taps at one version of their memory, by problem, and a lock for its threads."""

    version: int
    by_problem: dict[Hashable, Tensor] = field(default_factory=dict)
    lock: RLock = field(default_factory=RLock)


CONSTANT = WeakIdKeyDictionary()
"""By tensor of constant taps, what was prepared of it; gone with the tensor."""


def constant(taps: Taps) -> Taps:
    """Declare that `taps` will be convolved with many signals, and return them.

    `convolve` then keeps what it prepares of them for the latest two sizes of signals (a spectrum takes two to four
    times their memory), as long as the tensor lives. Results do not change: taps changed in place are prepared anew.
    Nothing is kept of tensors that were made in inference mode, whose changes the framework does not count.

    >>> import torch
    >>> from omniconv import convolve
    >>> taps = constant(torch.ones(1, 3))
    >>> convolve(torch.ones(1, 1, 4), taps, causal=True).tolist()
    [[[1.0, 2.0, 3.0, 3.0]]]
    """
    if not taps.is_inference() and taps not in CONSTANT:
        CONSTANT[taps] = Prepared(taps._version)
    return taps


def prepared(taps: Taps, engine: Engine, problem: Problem, prepare: Callable[[], Tensor]) -> Tensor:
    """`prepare()`, or what it returned for such a problem if `taps` were declared constant and have not changed.

    Taps that an engine takes as they are are not kept: they would keep themselves. Nor is anything while a CUDA graph
    is recorded, in whose memory it would lie.
    """
    kept = CONSTANT.get(taps) if len(CONSTANT) else None
    if kept is None or engine.prepare is as_they_are or (taps.is_cuda and torch.cuda.is_current_stream_capturing()):
        return prepare()
    with kept.lock:
        return kept_for(kept, taps, (engine.name, for_any_batch(problem)), prepare)


@lru_cache(maxsize=4096)
def for_any_batch(problem: Problem) -> Problem:
    """What is prepared of taps does not depend on the number of signals."""
    return replace(problem, batch=1)


def kept_for(kept: Prepared, taps: Taps, key: Hashable, prepare: Callable[[], Tensor]) -> Tensor:
    """What is kept for the key, made if it is not there or the taps have changed."""
    if kept.version != taps._version:
        kept.by_problem.clear()
        kept.version = taps._version
    if key not in kept.by_problem:
        while len(kept.by_problem) >= MOST:
            del kept.by_problem[next(iter(kept.by_problem))]
        kept.by_problem[key] = prepare()
    return kept.by_problem[key]
