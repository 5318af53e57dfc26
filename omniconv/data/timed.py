"""Series with the times at which they were sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omniconv._errors import describe
from omniconv.data.samples import Samples

Array = NDArray[Any]


class TimedSamples(Samples):
    """Series that were sampled at any times; NaN says that a channel was not observed at that time.

    `times`: one array of numbers (length,) per series, or one array for all of them, in any unit, strictly increasing;
    None counts the samples, 0, 1, 2, ... Raises `TypeError` or `ValueError` for what is not, and for images and
    volumes.

    >>> from omniconv.data import ArraySamples
    >>> samples = TimedSamples(ArraySamples([np.array([[1.0, np.nan, 3.0]])]), times=[[0.0, 0.5, 2.5]])
    >>> samples.times[0].tolist()
    [0.0, 0.5, 2.5]
    """

    times: list[Array]

    def __init__(self, samples: Samples, times: Sequence[Any] | Array | None = None):
        super().__init__(samples.channels, samples.sizes, samples.targets, samples.names)
        if samples.dim != 1:
            raise ValueError(f"Times are for series, of one axis; these samples have {samples.dim} axes.")
        self.samples, self.rate = samples, samples.rate
        self.times, self.counted = as_times(times, samples.sizes[:, 0], samples.names), times is None

    def __getitem__(self, index: int) -> Array:
        return self.samples[index]


def as_times(times: Sequence[Any] | Array | None, lengths: Array, names: Sequence[str]) -> list[Array]:
    """One checked float64 array per series of these lengths."""
    if times is None:
        counted = np.arange(lengths.max(), dtype=np.float64)
        return [counted[:length] for length in lengths]
    if isinstance(times, np.ndarray) and times.ndim > 0:
        times = list(times)
    if isinstance(times, (str, bytes)) or not isinstance(times, Sequence):
        raise TypeError(f"`times` must be an array of numbers per series, or one for all; got {describe(times)}.")
    shared = len(times) > 0 and np.ndim(times[0]) == 0
    if shared:
        if (lengths != lengths[0]).any():
            raise ValueError(
                f"`times` must be one array per series: the series have {lengths.min()} to {lengths.max()} samples; "
                "got one array for all."
            )
        return [check_instants(times, int(lengths[0]), "all series")] * len(lengths)
    if len(times) != len(lengths):
        raise ValueError(f"`times` must be one array per series, {len(lengths)}; got {len(times)}.")
    return [
        check_instants(one, int(length), f"series {name}")
        for one, length, name in zip(times, lengths, names, strict=True)
    ]


def check_instants(times: Any, length: int, what: str) -> Array:
    """The times of one series, float64, or an error that names the series."""
    values = np.asarray(times)
    if values.dtype.kind not in "fiu":
        raise TypeError(
            f"`times` must be numbers in any one unit; those of {what} are {values.dtype}. Convert dates, for example "
            "to seconds."
        )
    if values.shape != (length,):
        raise ValueError(f"`times` of {what} must be ({length},), one per sample; got shape {values.shape}.")
    exact = values.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ValueError(f"`times` of {what} must be finite; got NaN or infinity. Leave such samples out.")
    if (np.diff(exact) <= 0).any() and (values[1:] > values[:-1]).all():
        raise ValueError(
            f"`times` of {what} are integers so large that neighbours are equal in double precision. Subtract the "
            "first one."
        )
    if (np.diff(exact) <= 0).any():
        raise ValueError(
            f"`times` of {what} must increase strictly from sample to sample. Sort the samples by time, and merge "
            "those of the same time."
        )
    return exact


def mean_gap(samples: Samples, indices: Sequence[int] | Array) -> float:
    """The mean time between neighbouring samples of some series, of those at which anything was observed.

    1 where no series has two such samples.
    """
    assert samples.times is not None
    span, gaps = 0.0, 0
    for index in indices:
        seen = samples.times[index][~np.isnan(samples[int(index)]).all(0)]
        if len(seen) > 1:
            span, gaps = span + float(seen[-1] - seen[0]), gaps + len(seen) - 1
    return span / gaps if gaps else 1.0
