"""Taps of a layer that is only evaluated, kept from one forward to the next."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from omniconv._typing import Taps
from omniconv.engines import constant

STEPS = [0]
"""Steps of all optimisers so far: fused ones change parameters without the framework's count."""


def count_step(*arguments: object) -> None:
    """What optimisers call after a step."""
    STEPS[0] += 1


register_optimizer_step_post_hook(count_step)

MOST = 4
"""Resolutions whose taps are kept: the latest ones."""


class KeptTaps:
    """The taps made of some tensors, until one of these is another tensor or was changed in place.

    Copies and pickles of a layer start without any. A change through `tensor.data` leaves no trace in the framework:
    after it, `clear()`.
    """

    def __init__(self) -> None:
        self.sources: list[tuple[weakref.ref[Tensor], int, int]] = []
        self.steps = -1
        self.taps: dict[Hashable, list[Taps]] = {}
        self.lock = threading.RLock()  # layers may be called by several threads

    def get(self, key: Hashable, sources: Iterable[Tensor], make: Callable[[], list[Taps]]) -> list[Taps]:
        """`make()`, or what it returned for the same key while the sources were as they are now."""
        with self.lock:
            return self._get(key, list(sources), make)

    def _get(self, key: Hashable, sources: list[Tensor], make: Callable[[], list[Taps]]) -> list[Taps]:
        same = (
            self.steps == STEPS[0]
            and len(sources) == len(self.sources)
            and all(
                ref() is tensor and (count, place) == (tensor._version, tensor.data_ptr())
                for (ref, count, place), tensor in zip(self.sources, sources, strict=True)
            )
        )
        if not same:
            self.clear()
            self.steps = STEPS[0]
            self.sources = [(weakref.ref(tensor), tensor._version, tensor.data_ptr()) for tensor in sources]
        if key not in self.taps:
            while len(self.taps) >= MOST:
                del self.taps[next(iter(self.taps))]
            with torch.inference_mode(False), torch.no_grad():  # a change of what is made there would not be counted
                self.taps[key] = [constant(taps) for taps in make()]
        return self.taps[key]

    def clear(self) -> None:
        """Forget all taps."""
        with self.lock:
            self.sources, self.taps = [], {}

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptTaps:
        return KeptTaps()

    def __reduce__(self) -> tuple[type[KeptTaps], tuple[()]]:
        return KeptTaps, ()


def may_be_kept(sources: Iterable[Tensor]) -> bool:
    """Whether nothing follows the taps back to their sources (gradients, a compiler, a transform of functions), and
    every change of the sources is counted: not in inference mode, nor in memory shared with other processes.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._is_tracing():
        return False
    if torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack():
        return False
    return all(
        type(tensor) in (Tensor, torch.nn.Parameter)
        and not tensor.is_inference()
        and not (tensor.is_cpu and tensor.is_shared())
        and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
        for tensor in sources
    )
