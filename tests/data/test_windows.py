"""Windows of tokens, and reading them."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest

from omniconv.data import Windows, read_tokens


@pytest.mark.parametrize("step", [None, 1, 3, 9])
def test_windows_are_these(step: int | None) -> None:
    ids = np.arange(100, 131, dtype=np.int32)
    windows = Windows(ids, 7, step)
    starts = range(0, len(ids) - 7, step or 7)
    assert [windows[i].tolist() for i in range(len(windows))] == [[list(range(100 + s, 108 + s))] for s in starts]
    assert windows.sizes.tolist() == [[8]] * len(starts)


def test_targets_tell_texts_apart() -> None:
    ids = np.arange(50) % 7
    other = ids.copy()
    other[20] = 0
    first, second = Windows(ids, 9).targets, Windows(other, 9).targets
    assert first is not None
    assert second is not None
    assert (first != second).sum() == 1


def test_reading(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    with gzip.open(tmp_path / "a.gz", "wb") as file:
        file.write(b"ab\xff")
    with lzma.open(tmp_path / "a.xz", "wb") as file:
        file.write(b"ab\xff")
    for name in ("a.txt", "a.gz", "a.xz"):
        ids, tokens = read_tokens(tmp_path / name)
        assert (ids.tolist(), tokens) == ([97, 98, 255], 256)
    np.save(tmp_path / "a.npy", np.array([5, 0, 9]))
    ids, tokens = read_tokens(tmp_path / "a.npy")
    assert (ids.tolist(), tokens) == ([5, 0, 9], 10)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="`ids` must be an array"):
        Windows(np.zeros(9), 2)
    with pytest.raises(ValueError, match="`ids` must hold a window of 9 tokens and the next one; got 9"):
        Windows(np.zeros(9, dtype=int), 9)
    with pytest.raises(ValueError, match="`ids` must be from 0 to"):
        Windows(np.array([0, -1, 3]), 2)
    with pytest.raises(ValueError, match="`step` must be at least 1"):
        Windows(np.zeros(9, dtype=int), 2, 0)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        read_tokens(tmp_path / "empty")
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"must hold integers \(n,\)"):
        read_tokens(tmp_path / "a.npy")
