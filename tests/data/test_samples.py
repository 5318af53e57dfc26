from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omniconv.data import ArraySamples, Samples


def test_equal_signals_in_one_array() -> None:
    signals = np.arange(24, dtype=np.int16).reshape(4, 2, 3)
    samples = ArraySamples(signals, [0, 1, 0, 1])
    assert (len(samples), samples.channels, samples.dim, samples.equal) == (4, 2, 1, True)
    assert samples.names == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(samples.sizes, np.full((4, 1), 3))
    for index, signal in enumerate(signals):
        assert samples[index].dtype == np.float32
        np.testing.assert_array_equal(samples[index], signal)
    np.testing.assert_array_equal(samples[-1], signals[-1])


@pytest.mark.parametrize("size", [(7,), (5, 4), (3, 2, 6)])
def test_unequal_signals_in_a_sequence(size: tuple[int, ...]) -> None:
    longer = (size[0] + 1, *size[1:])
    signals = tuple(np.random.default_rng(0).normal(size=(2, *shape)) for shape in (size, longer))
    samples = ArraySamples(signals, names=["a", "b"])
    assert (samples.dim, samples.equal, samples.targets, samples.names) == (len(size), False, None, ["a", "b"])
    np.testing.assert_array_equal(samples.sizes, [size, longer])
    np.testing.assert_array_equal(samples[1], signals[1].astype(np.float32))


def test_iteration_ends() -> None:
    samples: Any = ArraySamples(np.zeros((3, 1, 2)))
    assert len(list(samples)) == 3
    assert len(list(samples.subset([2, 0]))) == 2


def test_a_subset_of_a_subset() -> None:
    samples = ArraySamples(np.arange(5.0).reshape(5, 1, 1), list("abcde"), list("ABCDE"))
    part = samples.subset([4, 2, 0]).subset(np.array([2, 0, 0]))
    assert isinstance(part, Samples)
    assert [part[i].item() for i in range(3)] == [0, 4, 4]
    assert part.targets is not None
    assert part.targets.tolist() == ["a", "e", "e"]
    assert part.names == ["A", "E", "E"]


def test_a_subset_reads_nothing() -> None:
    class Unread(Samples):
        def __getitem__(self, index: int) -> Any:
            raise AssertionError("a signal was read")

    assert len(Unread(1, np.ones((9, 1)), None).subset([3, 1])) == 2


@pytest.mark.parametrize("mask", [[True, False, True], [0.0, 1.0], [[0, 1]]])
def test_what_is_no_index_is_refused(mask: Sequence[Any]) -> None:
    with pytest.raises(TypeError, match="`indices` must be a sequence of integers"):
        ArraySamples(np.zeros((3, 1, 2))).subset(mask)


def test_an_index_beyond_the_samples_is_refused() -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        ArraySamples(np.zeros((3, 1, 2))).subset([3])


def test_who_changes_a_signal_leaves_the_data(tmp_path: Path) -> None:
    signals = np.zeros((2, 1, 3), dtype=np.float32)
    np.save(tmp_path / "a.npy", signals)
    for held in (signals, np.load(tmp_path / "a.npy", mmap_mode="r")):
        samples = ArraySamples(held)
        torch.from_numpy(samples[0]).add_(1)  # a read-only array would warn
        assert samples[0].sum() == 0


@pytest.mark.parametrize(
    ("signals", "targets", "names", "message"),
    [
        ([], None, None, "There must be at least one sample; got none"),
        (np.zeros((0, 1, 2)), None, None, "There must be at least one sample; got none"),
        (np.zeros((2, 1, 2)), [1], None, r"one target per sample, 2; got targets of shape \(1,\)"),
        (np.zeros((2, 1, 2)), None, ["a"], "one name per sample, 2; got 1"),
        (np.zeros((2, 3)), None, None, r"must all be \(channels, \*size\)"),
        ([np.zeros((1, 3)), np.zeros((2, 3))], None, None, r"same channels .* got shapes \[\(1, 3\), \(2, 3\)\]"),
        ([np.zeros((1, 3)), np.zeros((1, 3, 3))], None, None, "the same number of axes"),
        ([np.zeros((1, 3)), np.zeros((1, 0))], None, None, "number 1 has an axis of length 0"),
        (np.zeros((2, 0, 3)), None, None, "must not be empty"),
    ],
)
def test_wrong_values(signals: Any, targets: Any, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArraySamples(signals, targets, names)


@pytest.mark.parametrize("signals", [np.array([[["a"]]]), np.zeros((1, 1, 1), dtype=complex), [[[1.0]]]])
def test_what_is_no_array_of_numbers_is_refused(signals: Any) -> None:
    with pytest.raises(TypeError, match="`signals` must be arrays of real numbers"):
        ArraySamples(signals)
