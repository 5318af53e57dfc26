"""Windows of a long series of tokens."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omniconv._errors import check_integer
from omniconv.data.samples import Samples

Array = NDArray[Any]


class Windows(Samples):
    """Every window of `length` tokens and the one that follows it, `step` tokens apart, as signals 1 x (length + 1).

    `ids`: (n,) integers, at least 0 and below 2^24, in memory or in a memory map. `length`: at least 1. `step`: at
    least 1; None for `length`, windows side by side. What is left at the end is in no window.
    `targets` are checksums of the windows, which tell one text from another. Raises `TypeError` or `ValueError` that
    names the argument.

    >>> windows = Windows(np.arange(10), length=3)
    >>> len(windows), windows[1].tolist()
    (3, [[3.0, 4.0, 5.0, 6.0]])
    """

    def __init__(self, ids: Array, length: int, step: int | None = None):
        if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise TypeError(f"`ids` must be an array (n,) of integers; got {type(ids).__name__}.")
        self.ids, self.length = ids, check_integer("length", length)
        self.step = length if step is None else check_integer("step", step)
        count = (len(ids) - 1 - length) // self.step + 1
        if count < 1:
            raise ValueError(f"`ids` must hold a window of {length} tokens and the next one; got {len(ids)} tokens.")
        if int(ids.min()) < 0 or int(ids.max()) >= 2**24:
            raise ValueError(f"`ids` must be from 0 to {2**24 - 1}; got {int(ids.min())} to {int(ids.max())}.")
        sums = [zlib.crc32(np.ascontiguousarray(self._window(i)).tobytes()) for i in range(count)]
        super().__init__(1, np.full((count, 1), length + 1), np.array(sums, dtype=np.int64))

    def _window(self, index: int) -> Array:
        return self.ids[index * self.step : index * self.step + self.length + 1]

    def __getitem__(self, index: int) -> Array:
        return self._window(index).astype(np.float32)[None]


def read_tokens(path: str | Path) -> tuple[Array, int]:
    """The ids of a file and how many tokens there are: its bytes, of 256, or those of an array of integers, .npy.

    For a .npy file the number is the largest id + 1. Files that end in .xz or .gz are unpacked. Raises `ValueError` for
    an empty file, or an array of another kind; `OSError` for what cannot be read.
    """
    path = Path(path)
    if path.suffix == ".npy":
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) == 0:
            raise ValueError(f"{path} must hold integers (n,), one at least; got {ids.dtype} {ids.shape}.")
        return ids, int(ids.max()) + 1
    data = unpacked(path)
    if not data:
        raise ValueError(f"{path} is empty.")
    return np.frombuffer(data, np.uint8), 256


def unpacked(path: Path) -> bytes:
    """The bytes of a file that may be packed."""
    import gzip
    import lzma

    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
    with openers.get(path.suffix, open)(path, "rb") as file:
        data: bytes = file.read()
    return data
