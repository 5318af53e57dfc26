"""What users pass as X, as samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omniconv._errors import check_choice, describe
from omniconv.data import ArraySamples, Samples, TimedSamples, without_gaps
from omniconv.data.missing import MISSING

Array = NDArray[Any]


def as_samples(signals: Array | list[Array], missing: str, times: Any = None) -> Samples:
    """Signals as samples: an array (n, length) or (n, channels, *size), or a list of arrays of unequal size.

    In a list, arrays (length,) have one channel; the others are (channels, *size). `missing`: as in `without_gaps`.
    `times`: as in `TimedSamples`, or None for signals on a grid.
    """
    check_choice("missing", missing, MISSING)
    if isinstance(signals, np.ndarray):
        arrays: Any = signals[:, None] if signals.ndim == 2 else signals
    else:
        arrays = [signal[None] if signal.ndim == 1 else signal for signal in signals]
    gaps = [position for position, signal in enumerate(arrays) if np.isnan(signal).any()]
    if any(np.isinf(signal).any() for signal in arrays):
        raise ValueError("X contains infinity. Remove or replace it.")
    if gaps and missing == "raise":
        raise ValueError(
            f"X contains NaN in {len(gaps)} of {len(arrays)} signals, first in number {gaps[0]}. Say what it means: "
            'missing="absent", missing="interpolate" or missing="mean".'
        )
    samples: Samples = ArraySamples(arrays)
    if times is not None:
        samples = TimedSamples(samples, times)
    return without_gaps(samples, missing) if gaps or times is not None or missing == "absent" else samples


def is_ragged(X: Any) -> bool:  # noqa: N803
    """Whether X is a sequence of arrays that do not all have one shape."""
    return is_list(X) and len({item.shape for item in X}) > 1


def is_list(X: Any) -> bool:  # noqa: N803
    """Whether X is a sequence of arrays, one per signal; a list of numbers or of rows is an array."""
    return isinstance(X, (list, tuple)) and bool(X) and all(isinstance(item, np.ndarray) for item in X)


def checked_arrays(X: Sequence[Array]) -> list[Array]:  # noqa: N803
    """Arrays of unequal size as float arrays, or an error that names the one that does not fit."""
    for position, signal in enumerate(X):
        if signal.dtype.kind not in "fiub":
            raise TypeError(f"X must hold real numbers; signal {position} is {describe(signal.dtype)}.")
        if signal.ndim == 0 or signal.ndim > 4 or signal.ndim != X[0].ndim:
            raise ValueError(
                f"X must hold arrays (length,) or (channels, *size), all with the same number of axes; signal 0 has "
                f"shape {X[0].shape}, signal {position} has {signal.shape}."
            )
    return [np.asarray(signal, dtype=np.float64) for signal in X]
