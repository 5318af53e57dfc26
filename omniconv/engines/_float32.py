"""The framework's products and convolutions in full float32, whatever the process has asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Any

import torch

LOCK = Lock()


def full_float32(device: str) -> AbstractContextManager[object]:
    """Without tf32, with which graphics processors convolve by default, and multiply matrices if they are told to.

    `device`: the type of the operands' device; elsewhere than on "cuda" nothing is changed. Nor is it while a graph is
    compiled: the products in it are made later.
    """
    return without_tf32() if device == "cuda" and not torch.compiler.is_compiling() else nullcontext()


@contextmanager
def without_tf32() -> Iterator[None]:
    """The switches of the whole process are set by the first thread that enters, and put back by the last that leaves.

    No thread waits for another meanwhile: gradients are computed in threads of their own, for which the first waits.
    """
    with LOCK:
        INSIDE.append(turned_off() if not INSIDE else ())
    try:
        yield
    finally:
        with LOCK:
            first = INSIDE[0]
            INSIDE.pop()
            if not INSIDE:
                for owner, name, value in first:
                    setattr(owner, name, value)


Switch = tuple[Any, str, Any]
"""Owner, name and value."""

INSIDE: list[tuple[Switch, ...]] = []
"""An entry for everyone inside, of which the first is what to put back."""


def turned_off() -> tuple[Switch, ...]:
    """Turn the switches off; returns those that were on, as they were: one that follows another one stays so."""
    before = tuple((owner, name, getattr(owner, name)) for owner, name, _ in switches())
    changed = tuple(old for old, new in zip(before, switches(), strict=True) if old[2] != new[2])
    for owner, name, off in switches():
        if getattr(owner, name) != off:
            setattr(owner, name, off)
    return changed


def switches() -> tuple[Switch, ...]:
    """Those for convolutions and for products, with the value that means full float32.

    The framework has new ones since its version 2.9, and raises where an old one is read after a new one was set.
    """
    convolutions = getattr(torch.backends.cudnn, "conv", None)
    if convolutions is None:
        return (torch.backends.cudnn, "allow_tf32", False), (torch.backends.cuda.matmul, "allow_tf32", False)
    return (convolutions, "fp32_precision", "ieee"), (torch.backends.cuda.matmul, "fp32_precision", "ieee")
