from __future__ import annotations

import numpy as np
import pytest

from omniconv.data import ArraySamples, FilledSamples
from omniconv.data.missing import fill

NAN = np.nan


def gappy() -> np.ndarray:
    return np.array([[NAN, 1.0, NAN, NAN, 4.0, NAN], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]])


def test_gaps_are_interpolated_in_time_with_the_nearest_at_the_ends() -> None:
    expected = [[1.0, 1.0, 2.0, 3.0, 4.0, 4.0], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]]
    np.testing.assert_allclose(fill(gappy(), "interpolate", "a"), expected)


def test_gaps_become_the_mean_of_their_channel() -> None:
    expected = [[2.5, 1.0, 2.5, 2.5, 4.0, 2.5], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]]
    np.testing.assert_allclose(fill(gappy(), "mean", "a"), expected)


def test_the_signal_that_is_filled_stays_as_it_was() -> None:
    signal = gappy()
    fill(signal, "mean", "a")
    np.testing.assert_array_equal(signal, gappy())


@pytest.mark.parametrize(
    ("signal", "missing", "message"),
    [
        (gappy(), "raise", r'signal a contains NaN\. Say what it means: missing="interpolate"'),
        (gappy()[:, :, None], "interpolate", 'missing="interpolate" needs sequences; signal a has 2 axes'),
        (np.full((1, 3), NAN), "mean", "signal a has a channel without any value"),
    ],
)
def test_what_cannot_be_filled_is_named(signal: np.ndarray, missing: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill(signal, missing, "a")


def test_filled_samples_keep_everything_but_the_gaps() -> None:
    samples = ArraySamples([gappy(), np.ones((2, 3))], targets=["x", "y"], names=["p", "q"])
    samples.rate = 16000
    filled = FilledSamples(samples, "mean")
    assert (filled.names, filled.rate, filled.channels, len(filled)) == (["p", "q"], 16000, 2, 2)
    assert filled.targets is not None
    assert filled.targets.tolist() == ["x", "y"]
    assert filled[0][0, 0] == 2.5
    np.testing.assert_array_equal(filled[1], np.ones((2, 3)))


def test_an_unknown_meaning_is_refused() -> None:
    with pytest.raises(ValueError, match="`missing` must be one of 'raise', 'interpolate', 'mean'; got 'zero'"):
        FilledSamples(ArraySamples([np.ones((1, 3))]), "zero")
