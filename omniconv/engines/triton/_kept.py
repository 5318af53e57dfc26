"""Tables on a device that are made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T", Tensor, tuple[Tensor, Tensor])


def kept(make: Callable[P, T]) -> Callable[P, T]:
    """What `make` returns, on the device that is its last argument; made once for the same arguments, never dropped.

    `make` computes on the CPU. A copy from there is over when it returns, so that every stream may read it; and a
    CUDA graph reads a table at its address for as long as it is replayed. A table that were made while a graph is
    recorded would lie in its memory: one that is missing then raises `RuntimeError`.
    """
    tables: dict[Hashable, T] = {}

    @wraps(make)
    def table(*given: P.args, **named: P.kwargs) -> T:
        assert not named
        if given not in tables:
            device: Any = given[-1]
            if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(
                    "a table that this convolution needs is not on the device yet, and cannot be copied while a CUDA "
                    "graph is recorded. Run the model once on inputs of the same shape and dtype before recording, "
                    "with gradients if they are recorded."
                )
            # Of two threads that make the same table at once, both take the one that came first.
            tables.setdefault(given, on(make(*given, **named), device))
        return tables[given]

    return table


def on(made: Any, device: Any) -> Any:
    """A tensor, or a pair of them, on the device."""
    return made.to(device) if isinstance(made, Tensor) else tuple(one.to(device) for one in made)
