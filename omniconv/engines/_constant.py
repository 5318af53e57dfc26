"""Taps that stay as they are: what an engine prepares of them, such as their spectrum, is kept for the next signal."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from omniconv._typing import Taps

MOST = 8
"""Problems for which the preparations of one kernel are kept: the latest ones."""


@dataclass
class Prepared:
    """What was prepared of taps at one version of their memory."""

    version: int
    by_problem: dict[Hashable, Tensor] = field(default_factory=dict)


CONSTANT = WeakIdKeyDictionary()
"""By tensor of constant taps, what was prepared of it; gone with the tensor."""


def constant(taps: Taps) -> Taps:
    """Declare that `taps` will be convolved with many signals, and return them.

    `convolve` then keeps what it prepares of them (a spectrum takes two to four times their memory), as long as the
    tensor lives. Results do not change: taps changed in place are prepared anew.

    >>> import torch
    >>> from omniconv import convolve
    >>> taps = constant(torch.ones(1, 3))
    >>> convolve(torch.ones(1, 1, 4), taps, causal=True).tolist()
    [[[1.0, 2.0, 3.0, 3.0]]]
    """
    if taps not in CONSTANT:
        CONSTANT[taps] = Prepared(version(taps))
    return taps


def prepared(taps: Taps, key: Hashable, prepare: Callable[[], Tensor]) -> Tensor:
    """`prepare()`, or what it returned for the same key if `taps` were declared constant and have not changed."""
    kept = CONSTANT.get(taps)
    if kept is None:
        return prepare()
    if kept.version != version(taps):
        kept.by_problem.clear()
        kept.version = version(taps)
    if key not in kept.by_problem:
        while len(kept.by_problem) >= MOST:
            del kept.by_problem[next(iter(kept.by_problem))]
        kept.by_problem[key] = prepare()
    return kept.by_problem[key]


def version(tensor: Tensor) -> int:
    """Times that a tensor was changed in place; those of inference mode, which do not count, cannot be saved for later
    gradients either and stay as they are.
    """
    return 0 if tensor.is_inference() else tensor._version
