"""Signals with their targets, one at a time: what every reader gives and every training takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omniconv._errors import describe

Array = NDArray[Any]


class Samples(ABC):
    """`len(samples)` signals: `samples[i]` is a float32 array `channels *size`, read when it is asked for.

    Of clouds of points it is float64, because of the positions.

    `channels`: the same for all signals. `sizes`: integers (n, dim), the size of every signal; they may differ.
    `targets`: (n,) labels or numbers, or None where there are none. `names`: (n,) what people call the samples, such as
    file names. All four are known without reading a signal. `rate`: samples per second, where that is known.
    `times`: where the samples are series taken at any times, these times, an array (length,) per series; there NaN says
    that a channel was not observed. `counted`: whether these times only count the samples.
    `space`: axes of clouds of points, whose coordinates are the first channels; 0 for other signals. `vectors`: so many
    features behind these, of `space` channels each, are vectors, such as normals: who turns a cloud turns them too.
    """

    rate: float | None = None
    times: Sequence[Array] | None = None
    counted: bool = False
    space: int = 0
    vectors: int = 0

    def __init__(self, channels: int, sizes: Array, targets: Array | None, names: Sequence[str] | None = None):
        self.channels = int(channels)
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.targets = None if targets is None else np.asarray(targets)
        self.names = [str(i) for i in range(len(self.sizes))] if names is None else list(names)
        if len(self.sizes) == 0:
            raise ValueError("There must be at least one sample; got none.")
        if self.targets is not None and self.targets.shape != (len(self.sizes),):
            raise ValueError(
                f"There must be one target per sample, {len(self.sizes)}; got targets of shape {self.targets.shape}."
            )
        if len(self.names) != len(self.sizes):
            raise ValueError(f"There must be one name per sample, {len(self.sizes)}; got {len(self.names)}.")

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def dim(self) -> int:
        """Number of axes of a signal."""
        return int(self.sizes.shape[1])

    @property
    def features(self) -> int:
        """Channels that a network is given: all, or of points what is no position; a constant if there is nothing."""
        return max(self.channels - self.space, 1)

    @property
    def equal(self) -> bool:
        """Whether all signals have one size."""
        return bool((self.sizes == self.sizes[0]).all())

    @abstractmethod
    def __getitem__(self, index: int) -> Array:
        """The signal of that index, float32 (of clouds float64), `channels *size`."""

    def subset(self, indices: Sequence[int] | Array) -> Samples:
        """The samples of those indices, in that order; nothing is read or copied.

        Raises `TypeError` for what is not an index, such as a mask; `IndexError` for what is beyond the samples.
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise TypeError(
                f"`indices` must be a sequence of integers; got {describe(indices)[:80]}. "
                "Turn a mask into indices with np.flatnonzero."
            )
        return Subset(self, chosen.astype(np.int64))


class Subset(Samples):
    """Some of the samples of another collection."""

    def __init__(self, samples: Samples, indices: Array):
        targets = None if samples.targets is None else samples.targets[indices]
        super().__init__(samples.channels, samples.sizes[indices], targets, [samples.names[i] for i in indices])
        self.samples, self.indices, self.rate = samples, indices, samples.rate
        self.times = None if samples.times is None else [samples.times[i] for i in indices]
        self.counted, self.space, self.vectors = samples.counted, samples.space, samples.vectors

    def __getitem__(self, index: int) -> Array:
        return self.samples[int(self.indices[index])]


class ArraySamples(Samples):
    """Signals in memory, or in a memory map: an array `n channels *size`, or a list of arrays `channels *size`.

    A signal that is asked for is a copy: who changes it leaves the data as they are. Raises `TypeError` for what is not
    numeric, `ValueError` for signals of different channels or numbers of axes, or with an empty axis.

    >>> samples = ArraySamples([np.zeros((2, 7)), np.zeros((2, 9))], targets=["a", "b"])
    >>> len(samples), samples.channels, samples.equal, samples[1].shape
    (2, 2, False, (2, 9))
    """

    def __init__(
        self,
        signals: Array | Sequence[Array],
        targets: Array | Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
    ):
        for signal in [signals] if isinstance(signals, np.ndarray) else signals:
            if not isinstance(signal, np.ndarray) or signal.dtype.kind not in "fiub":
                raise TypeError(f"`signals` must be arrays of real numbers; got {describe(signal)[:80]}.")
        # The signals of one array are not visited: a memory map may hold millions of them.
        if isinstance(signals, np.ndarray):
            shapes = [signals.shape[1:]] * len(signals)
        else:
            shapes = [signal.shape for signal in signals]
        if len({(shape[:1], len(shape)) for shape in shapes}) > 1 or any(len(shape) < 2 for shape in shapes):
            raise ValueError(
                "`signals` must all be (channels, *size) with the same channels and the same number of axes; got "
                f"shapes {sorted(set(shapes))[:4]}."
            )
        sizes = np.array([shape[1:] for shape in shapes], dtype=np.int64)
        channels = shapes[0][0] if shapes else 1
        if sizes.size and (sizes.min() == 0 or channels == 0):
            empty = 0 if channels == 0 else int(sizes.min(1).argmin())
            raise ValueError(f"`signals` must not be empty; number {empty} has an axis of length 0.")
        super().__init__(channels, sizes, None if targets is None else np.asarray(targets), names)
        self.signals = signals

    def __getitem__(self, index: int) -> Array:
        return np.array(self.signals[index], dtype=np.float32)
