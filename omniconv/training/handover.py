"""Arrays from one process to another, by memory that both see: pipes take longer than many a step of a training.

The memory has no name, so that nothing of it is left when both processes are gone, however they end. The receiver
copies, and the sender uses it again for the next arrays, once it is asked for them.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[Any] | None]

LEAST = 2**21
"""Bytes from which arrays are not sent by value."""

LINE = 64
"""Bytes; arrays begin at multiples of it."""


@dataclass(frozen=True)
class Places:
    """Where arrays lie in the memory: dtype, shape and first byte of each, None for what is None.

    `size`: bytes of new memory, which follows as a file descriptor; 0 for that of the arrays before.
    """

    parts: tuple[tuple[str, tuple[int, ...], int] | None, ...]
    size: int


class Sender:
    """Sends whatever can be pickled; tuples of arrays, or None in place of one, by memory where they are large."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._memory: mmap.mmap | None = None

    def send(self, sent: Any) -> None:
        """Send it; what was sent before must have been received."""
        arrays = isinstance(sent, tuple) and all(part is None or isinstance(part, np.ndarray) for part in sent)
        if (
            not arrays
            or not hasattr(os, "memfd_create")
            or sum(part.nbytes for part in sent if part is not None) < LEAST
        ):
            self._connection.send(sent)
            return
        parts, end = places(sent)
        new = self._memory is None or len(self._memory) < end
        descriptor = self._made(end) if new else -1
        assert self._memory is not None
        memory = np.frombuffer(self._memory, np.uint8)
        for part, place in zip(sent, parts, strict=True):
            if part is not None and place is not None:
                into = memory[place[2] : place[2] + part.nbytes].view(part.dtype).reshape(part.shape)
                np.copyto(into, part)
        self._connection.send(Places(parts, end if new else 0))
        if new:
            send_handle(self._connection, descriptor, os.getppid())
            os.close(descriptor)

    def _made(self, size: int) -> int:
        """The descriptor of new memory."""
        descriptor = os.memfd_create("omniconv", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, size)
        self._memory = mmap.mmap(descriptor, size)
        return descriptor


class Receiver:
    """Receives what a `Sender` at the other end sends."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._memory: mmap.mmap | None = None

    def receive(self) -> Any:
        """What was sent; arrays are copies. Raises `EOFError` or `OSError` if the other end is gone."""
        received = self._connection.recv()
        if not isinstance(received, Places):
            return received
        if received.size:
            descriptor = recv_handle(self._connection)
            self._memory = mmap.mmap(descriptor, received.size)
            os.close(descriptor)
        return tuple(None if place is None else self._copied(*place) for place in received.parts)

    def _copied(self, dtype: str, shape: tuple[int, ...], first: int) -> NDArray[Any]:
        assert self._memory is not None
        count = math.prod(shape)
        # numpy takes large pages for large arrays; those of torch are small, and take longer than the copy.
        return (
            np.frombuffer(self._memory, dtype, count, first).reshape(shape).copy() if count else np.empty(shape, dtype)
        )


def places(arrays: Arrays) -> tuple[tuple[tuple[str, tuple[int, ...], int] | None, ...], int]:
    """Where the arrays go, one behind the other, and how many bytes that takes."""
    parts, end = list[tuple[str, tuple[int, ...], int] | None](), 0
    for array in arrays:
        if array is None:
            parts.append(None)
            continue
        parts.append((array.dtype.str, array.shape, end))
        end += -(-array.nbytes // LINE) * LINE
    return tuple(parts), end
