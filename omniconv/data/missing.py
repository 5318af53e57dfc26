"""What NaN means: an error, or a gap to fill."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omniconv._errors import check_choice
from omniconv.data.samples import Samples
from omniconv.data.timed import TimedSamples

Array = NDArray[Any]

FILLED = ("raise", "interpolate", "mean")
MISSING = (*FILLED, "absent")

OF_CLOUDS = (
    'Use missing="mean", the mean of a feature over the cloud, or leave out the points of which something is missing.'
)
OF_SIGNALS = 'Say what it means: missing="interpolate", missing="mean" or, for series, missing="absent"; or repair it.'


class GapError(ValueError):
    """NaN where nothing says what it means. `gap`: where, as a clause, for those who know another way to say it."""

    def __init__(self, message: str, gap: str = ""):
        super().__init__(message)
        self.gap = gap


class FilledSamples(Samples):
    """Samples with their gaps filled when they are read.

    `missing`: what NaN means: "raise" (an error that names the sample), "interpolate" (linearly between the neighbours
    in time, the nearest at the ends; sequences only) or "mean" (the mean of the channel in that signal).
    """

    def __init__(self, samples: Samples, missing: str):
        super().__init__(samples.channels, samples.sizes, samples.targets, samples.names)
        self.samples, self.missing = samples, check_choice("missing", missing, FILLED)
        self.rate, self.space, self.vectors = samples.rate, samples.space, samples.vectors

    def __getitem__(self, index: int) -> Array:
        return fill(self.samples[index], self.missing, self.names[index], cloud=self.space > 0)


def without_gaps(samples: Samples, missing: str) -> Samples:
    """Samples as a network takes them.

    `missing`: what NaN means: as in `FilledSamples`, or "absent": not observed at that time, for series. Series that
    come with times are never filled: for them it is "raise" or "absent". Raises `ValueError` otherwise.
    """
    check_choice("missing", missing, MISSING)
    if samples.times is not None:
        if missing not in ("raise", "absent"):
            raise ValueError(
                f'missing="{missing}" and times exclude each other: with times, what is NaN was not observed, and '
                'nothing needs to be filled. Use missing="absent".'
            )
        if missing == "absent":
            return samples
        return TimedSamples(FilledSamples(samples, missing), None if samples.counted else samples.times)
    if samples.space and missing not in ("raise", "mean"):
        raise ValueError(
            f'missing="{missing}" is for series; these samples are clouds of points. Use missing="mean", or leave out '
            "the points of which something is missing."
        )
    if missing != "absent":
        return FilledSamples(samples, missing)
    if samples.dim != 1:
        raise ValueError(
            f'missing="absent" needs series, of one axis; these samples have {samples.dim} axes. Use missing="mean".'
        )
    return TimedSamples(samples)


def fill(signal: Array, missing: str, name: str, *, cloud: bool = False) -> Array:
    """A signal (channels, *size) with its gaps filled as in `FilledSamples`; `name` and `cloud` are for errors.

    Raises `GapError` for a gap if `missing` is "raise", `ValueError` for gaps in images or volumes that shall be
    interpolated, and for a channel without any value.

    >>> fill(np.array([[1.0, np.nan, 3.0]]), "interpolate", "a").tolist()
    [[1.0, 2.0, 3.0]]
    """
    gaps = np.isnan(signal)
    if not gaps.any():
        return signal
    if missing == "raise":
        gap = f"{'cloud' if cloud else 'signal'} {name} contains NaN"
        raise GapError(f"{gap}. {OF_CLOUDS if cloud else OF_SIGNALS}", gap)
    if missing == "interpolate" and signal.ndim != 2:
        raise ValueError(f'missing="interpolate" needs sequences; signal {name} has {signal.ndim - 1} axes.')
    complete = signal.copy()
    for channel, gap in zip(complete, gaps, strict=True):
        if gap.all():
            raise ValueError(f"signal {name} has a channel without any value. Remove the signal or fill it.")
        if missing == "interpolate":
            channel[gap] = np.interp(np.flatnonzero(gap), np.flatnonzero(~gap), channel[~gap])
        else:
            channel[gap] = channel[~gap].mean()
    return complete
