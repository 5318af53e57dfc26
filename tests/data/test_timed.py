"""Series with times: what times may be, what is refused, and what NaN means beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omniconv.data import ArraySamples, FilledSamples, Samples, TimedSamples, read, without_gaps
from omniconv.data.timed import mean_gap

NAN = np.nan
TIMES = [[0.0, 0.5, 2.5], [-3.0, 1e6]]


def ragged() -> ArraySamples:
    """Two series of two channels, with 3 and 2 steps."""
    signals = [np.arange(6.0).reshape(2, 3), np.arange(4.0).reshape(2, 2)]
    samples = ArraySamples(signals, targets=["a", "b"], names=["p", "q"])
    samples.rate = 50
    return samples


def equal(count: int = 3, length: int = 4) -> ArraySamples:
    """Series of one channel and of one length, each filled with its index."""
    return ArraySamples(np.arange(float(count))[:, None, None] * np.ones((1, 1, length)), np.arange(count) % 2)


def instants(samples: Samples) -> list[list[float]]:
    """The times of every series, which are float64."""
    assert samples.times is not None
    assert all(times.dtype == np.float64 for times in samples.times)
    return [times.tolist() for times in samples.times]


# ---- times


def test_without_times_the_samples_are_counted() -> None:
    samples = TimedSamples(ragged())
    assert instants(samples) == [[0, 1, 2], [0, 1]]
    assert samples.counted


@pytest.mark.parametrize("shared", [[0, 1, 3, 9], (0.0, 1.0, 3.0, 9.0), np.array([0, 1, 3, 9], np.uint8)])
def test_one_array_serves_all_series(shared: Any) -> None:
    samples = TimedSamples(equal(), shared)
    assert instants(samples) == [[0, 1, 3, 9]] * 3
    assert not samples.counted


@pytest.mark.parametrize("of", [list, tuple, lambda times: [np.array(one) for one in times]])
def test_every_series_may_have_its_own(of: Any) -> None:
    assert instants(TimedSamples(ragged(), of(TIMES))) == TIMES


def test_a_matrix_has_a_row_per_series() -> None:
    rows = np.cumsum(np.random.default_rng(0).random((3, 4)) + 0.1, axis=1)
    assert instants(TimedSamples(equal(), rows)) == rows.tolist()
    assert instants(TimedSamples(equal(), list(rows))) == rows.tolist()
    square = np.arange(16).reshape(4, 4)  # as many series as steps: rows are series all the same
    assert instants(TimedSamples(equal(4, 4), square)) == square.tolist()


def test_a_series_of_one_sample_has_one_time() -> None:
    assert instants(TimedSamples(equal(2, 1), [[5], [7]])) == [[5], [7]]
    assert instants(TimedSamples(equal(2, 1), [5])) == [[5], [5]]


def test_all_else_is_that_of_the_samples() -> None:
    samples = TimedSamples(ragged(), TIMES)
    assert (len(samples), samples.channels, samples.names, samples.rate) == (2, 2, ["p", "q"], 50)
    assert samples.targets is not None
    assert samples.targets.tolist() == ["a", "b"]
    np.testing.assert_array_equal(samples.sizes, [[3], [2]])
    np.testing.assert_array_equal(samples[1], [[0, 1], [2, 3]])


def test_what_is_not_observed_stays_nan() -> None:
    samples = TimedSamples(ArraySamples(np.array([[[1.0, NAN, 3.0]]])), [0, 1, 2])
    np.testing.assert_array_equal(samples[0], [[1, NAN, 3]])


@pytest.mark.parametrize(("times", "counted"), [(None, True), (TIMES, False)])
def test_a_subset_keeps_its_times(times: Any, counted: bool) -> None:
    whole = TimedSamples(ragged(), times)
    part = whole.subset([1, 0, 1]).subset([2, 1])
    first, second = instants(whole)
    assert instants(part) == [second, first]
    assert part.names == ["q", "p"]
    assert part.counted is counted


def test_a_subset_of_samples_without_times_has_none() -> None:
    assert ragged().subset([1]).times is None


@pytest.mark.parametrize(
    ("times", "error", "message"),
    [
        ("0123", TypeError, "`times` must be an array of numbers per series, or one for all; got str '0123'"),
        (b"0123", TypeError, "must be an array of numbers per series, or one for all; got bytes"),
        (3.0, TypeError, "must be an array of numbers per series, or one for all; got float 3.0"),
        (
            np.array(3.0),
            TypeError,
            "must be an array of numbers per series, or one for all; got a float64 array of shape",
        ),
        ({"p": [0, 1]}, TypeError, "must be an array of numbers per series, or one for all; got dict"),
        (["a", "b", "c"], TypeError, "`times` must be numbers in any one unit; those of all series are <U1"),
        ([[0, 1, 2], ["a", "b", "c"]], TypeError, "those of series 1 are <U1. Convert dates, for example to seconds"),
        ([[0, 1, 2], [True, False, True]], TypeError, "those of series 1 are bool"),
        ([[0, 1, 2], [0, 1j, 2]], TypeError, "those of series 1 are complex128"),
        ([[0, 1, 2], None], TypeError, "those of series 1 are object"),
        (
            np.array([["2024-01-01", "2024-01-02", "2024-01-03"]] * 2, "datetime64[s]"),
            TypeError,
            r"those of series 0 are datetime64\[s\]. Convert dates, for example to seconds",
        ),
        ([], ValueError, "`times` must be one array per series, 2; got 0"),
        ([[0, 1, 2]], ValueError, "`times` must be one array per series, 2; got 1"),
        (np.zeros((3, 3)), ValueError, "`times` must be one array per series, 2; got 3"),
        ([0, 1], ValueError, r"`times` of all series must be \(3,\), one per sample; got shape \(2,\)"),
        ([[0, 1, 2], [0, 1]], ValueError, r"`times` of series 1 must be \(3,\), one per sample; got shape \(2,\)"),
        (np.zeros((2, 1, 3)), ValueError, r"`times` of series 0 must be \(3,\), one per sample; got shape \(1, 3\)"),
        ([[0, 1, 2], [0, NAN, 2]], ValueError, "`times` of series 1 must be finite; got NaN or infinity. Leave such"),
        ([0, 1, np.inf], ValueError, "`times` of all series must be finite"),
        ([[0, 1, 1], [0, 1, 2]], ValueError, "`times` of series 0 must increase strictly from sample to sample. Sort"),
        ([2, 1, 0], ValueError, "`times` of all series must increase strictly"),
    ],
)
def test_what_is_no_time_is_refused(times: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TimedSamples(equal(2, 3), times)


@pytest.mark.parametrize("times", [[0, 1], [0, 1, 2], [0, 1, 2, 3]])
def test_one_array_does_not_serve_series_of_unequal_length(times: list[int]) -> None:
    with pytest.raises(ValueError, match="one array per series: the series have 2 to 3 samples; got one array for all"):
        TimedSamples(ragged(), times)


@pytest.mark.parametrize("axes", [2, 3])
def test_images_and_volumes_have_no_times(axes: int) -> None:
    with pytest.raises(ValueError, match=f"Times are for series, of one axis; these samples have {axes} axes"):
        TimedSamples(ArraySamples(np.zeros((2, 1, *[3] * axes))), [0, 1, 2])


def test_the_name_of_the_series_is_told() -> None:
    with pytest.raises(ValueError, match="`times` of series q must increase strictly"):
        TimedSamples(ragged(), [[0, 1, 2], [1, 0]])


# ---- the mean gap


def test_the_mean_gap_is_all_time_between_samples_by_all_gaps() -> None:
    samples = TimedSamples(ragged(), [[0.0, 0.5, 2.5], [10.0, 14.0]])
    assert mean_gap(samples, [0, 1]) == (2.5 + 4.0) / (2 + 1)
    assert mean_gap(samples, [0]) == 2.5 / 2
    assert mean_gap(samples, np.array([1])) == 4.0


def test_steps_at_which_nothing_was_observed_are_no_samples() -> None:
    signal = np.array([[NAN, 1.0, NAN, 1.0, 1.0, NAN], [NAN, NAN, NAN, 1.0, 1.0, 1.0]])
    samples = TimedSamples(ArraySamples([signal]), [[0.0, 1.0, 2.0, 4.0, 8.0, 10.0]])
    assert mean_gap(samples, [0]) == (10 - 1) / 3  # from 1 to 10, with 4 and 8 between


def test_without_two_samples_there_is_no_gap_to_take_a_mean_of() -> None:
    assert mean_gap(TimedSamples(equal(2, 1), [[3], [7]]), [0, 1]) == 1.0


# ---- what NaN means


def gappy(axes: int = 1) -> ArraySamples:
    signals = np.ones((2, 1, *[3] * axes))
    signals[1, 0, 1] = NAN
    return ArraySamples(signals)


@pytest.mark.parametrize("missing", ["raise", "interpolate", "mean"])
def test_without_times_gaps_are_filled_or_raise(missing: str) -> None:
    samples = without_gaps(gappy(), missing)
    assert isinstance(samples, FilledSamples)
    assert samples.times is None
    if missing == "raise":
        with pytest.raises(ValueError, match=r"signal 1 contains NaN\. .*for series, missing=\"absent\"; or repair"):
            samples[1]
    else:
        np.testing.assert_array_equal(samples[1], np.ones((1, 3)))


def test_absent_counts_the_samples_and_leaves_nan() -> None:
    samples = without_gaps(gappy(), "absent")
    assert instants(samples) == [[0, 1, 2]] * 2
    assert samples.counted
    np.testing.assert_array_equal(samples[1], [[1, NAN, 1]])


def test_with_times_nothing_is_filled() -> None:
    samples = TimedSamples(gappy(), [0, 1, 7])
    assert without_gaps(samples, "absent") is samples
    strict = without_gaps(samples, "raise")
    assert strict.times is not None
    assert [times.tolist() for times in strict.times] == [[0.0, 1.0, 7.0]] * len(samples)
    with pytest.raises(ValueError, match="contains NaN"):
        [strict[index] for index in range(len(samples))]


@pytest.mark.parametrize("missing", ["interpolate", "mean"])
def test_with_times_nothing_can_be_filled(missing: str) -> None:
    message = f'missing="{missing}" and times exclude each other: .* Use missing="absent"'
    for samples in (TimedSamples(gappy(), [0, 1, 7]), TimedSamples(gappy()).subset([0])):
        with pytest.raises(ValueError, match=message):
            without_gaps(samples, missing)


@pytest.mark.parametrize("axes", [2, 3])
def test_images_are_never_absent(axes: int) -> None:
    with pytest.raises(ValueError, match=f'missing="absent" needs series, of one axis; .* {axes} axes. Use missing="m'):
        without_gaps(gappy(axes), "absent")
    np.testing.assert_array_equal(without_gaps(gappy(axes), "mean")[1], np.ones((1, *[3] * axes)))


def test_an_unknown_meaning_is_refused() -> None:
    message = "`missing` must be one of 'raise', 'interpolate', 'mean', 'absent'; got 'zero'"
    for samples in (gappy(), TimedSamples(gappy())):
        with pytest.raises(ValueError, match=message):
            without_gaps(samples, "zero")


# ---- files


def written(path: Path, **arrays: Any) -> Path:
    np.savez(path / "a.npz", **arrays)
    return path / "a.npz"


def test_an_archive_may_hold_the_times_of_every_series(tmp_path: Path) -> None:
    X, times = np.ones((2, 3)), np.array([[0.0, 1.0, 5.0], [2.0, 2.5, 2.75]])
    X[0, 1] = NAN
    samples = read(written(tmp_path, X=X, y=[0, 1], times=times))
    assert instants(samples) == times.tolist()
    assert samples.targets is not None
    assert samples.targets.tolist() == [0, 1]
    np.testing.assert_array_equal(samples[0], X[:1])
    assert read(written(tmp_path, X=X, y=[0, 1])).times is None


def test_an_archive_may_hold_times_for_all_series(tmp_path: Path) -> None:
    assert instants(read(written(tmp_path, X=np.ones((2, 4, 3)), times=[0, 1, 5]))) == [[0, 1, 5]] * 2


def test_the_times_of_joined_series_are_joined(tmp_path: Path) -> None:
    times = [0.0, 1.0, 5.0, 0.25, 3.0, 3.5, 8.0]
    for lengths, expected in (([3, 4], [times[:3], times[3:]]), ([1, 1, 5], [times[:1], times[1:2], times[2:]])):
        increasing = [np.cumsum(np.abs(part) + 1) for part in expected]
        path = written(tmp_path, X=np.ones((2, 7)), lengths=lengths, times=np.concatenate(increasing))
        assert instants(read(path)) == [part.tolist() for part in increasing]
    assert instants(read(written(tmp_path, X=np.ones((2, 3)), lengths=[3], times=[0, 1, 5]))) == [[0, 1, 5]]


def test_every_split_has_its_times_or_those_for_all(tmp_path: Path) -> None:
    parts = {"X_train": np.ones((2, 3)), "X_test": np.ones((1, 3))}
    own = read(written(tmp_path, **parts, times_train=[[0, 1, 2], [3, 4, 5]], times_test=[[7, 8, 9]]))
    assert instants(own) == [[0, 1, 2], [3, 4, 5]]
    assert instants(read(tmp_path / "a.npz", split="test")) == [[7, 8, 9]]
    written(tmp_path, **parts, times=[0, 1, 5], times_test=[0, 2, 4])
    assert instants(read(tmp_path / "a.npz")) == [[0, 1, 5]] * 2
    assert instants(read(tmp_path / "a.npz", split="test")) == [[0, 2, 4]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.ones((2, 3)), "times": [0, 1]}, r"array times: `times` of all series must be \(3,\), .* \(2,\)"),
        ({"X": np.ones((2, 3)), "times": np.zeros((3, 3))}, "array times: `times` must be one array per series, 2; go"),
        ({"X": np.ones((2, 3)), "times": [0, 1, 1]}, "array times: `times` of all series must increase strictly"),
        ({"X": np.ones((2, 3)), "times": [0, 1, NAN]}, "array times: `times` of all series must be finite"),
        ({"X": np.ones((2, 3)), "times": ["a", "b", "c"]}, "array times: `times` must be numbers .* are <U1"),
        (
            {"X": np.ones((2, 3)), "times": np.array([0, 1, 2], "M8[s]")},
            r"array times: .* are datetime64\[s\]. Convert",
        ),
        ({"X": np.ones((2, 3)), "times": 3.0}, "array times: `times` must be an array of numbers per series"),
        ({"X": np.ones((2, 1, 3, 3)), "times": [0, 1, 2]}, "array times: Times are for series, .* have 2 axes"),
        (
            {"X": np.ones((2, 3)), "lengths": [1, 2], "times": [0, 1]},
            r"array times: times of signals that are joined must be joined too, \(3,\); got shape \(2,\)",
        ),
        ({"X": np.ones((2, 3)), "lengths": [1, 2], "times": [[0, 1, 2]]}, r"joined too, \(3,\); got shape \(1, 3\)"),
        ({"X": np.ones((2, 3)), "lengths": [1, 2], "times": [0, 2, 1]}, "`times` of series 1 must increase strictly"),
        ({"X_train": np.ones((2, 3)), "times_train": [0, 1]}, r"array times_train: `times` of all series must be \(3,"),
        ({"X": np.ones((2, 3)), "times": np.array([0, None, 2])}, r"array times holds Python objects.* never loaded"),
    ],
)
def test_wrong_times_in_an_archive_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = written(tmp_path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
