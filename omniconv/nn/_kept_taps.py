"""Taps of a layer that is only evaluated, kept from one forward to the next."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor

from omniconv._typing import Taps
from omniconv.engines._constant import constant, version

MOST = 4
"""Resolutions whose taps are kept: the latest ones."""


class KeptTaps:
    """The taps made of some tensors, until one of these is another tensor or was changed in place.

    Copies and pickles of a layer start without any. A change through `tensor.data` leaves no trace in the framework:
    after it, `clear()`.
    """

    def __init__(self) -> None:
        self.sources: list[tuple[weakref.ref[Tensor], int]] = []
        self.taps: dict[Hashable, Taps] = {}

    def get(self, key: Hashable, sources: Iterable[Tensor], make: Callable[[], Taps]) -> Taps:
        """`make()`, or what it returned for the same key while the sources were as they are now."""
        sources = list(sources)
        same = len(sources) == len(self.sources) and all(
            ref() is tensor and count == version(tensor)
            for (ref, count), tensor in zip(self.sources, sources, strict=True)
        )
        if not same:
            self.clear()
            self.sources = [(weakref.ref(tensor), version(tensor)) for tensor in sources]
        if key not in self.taps:
            while len(self.taps) >= MOST:
                del self.taps[next(iter(self.taps))]
            self.taps[key] = constant(make())
        return self.taps[key]

    def clear(self) -> None:
        """Forget all taps."""
        self.sources, self.taps = [], {}

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptTaps:
        return KeptTaps()

    def __reduce__(self) -> tuple[type[KeptTaps], tuple[()]]:
        return KeptTaps, ()


def may_be_kept(sources: Iterable[Tensor]) -> bool:
    """Whether nothing follows the taps back to their sources: no gradients, no compiler, no transform of functions."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in sources)
