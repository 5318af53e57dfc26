"""CCNNClassifier and CCNNRegressor on series sampled at any times, and with values that were not observed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, r2_score

from omniconv.estimators import CCNNClassifier, CCNNRegressor
from omniconv.estimators.aeon import AeonCCNNClassifier, AeonCCNNRegressor
from omniconv.estimators.sktime import SktimeCCNNClassifier, SktimeCCNNRegressor
from omniconv.training import Predictor

Array = NDArray[Any]

NAN = np.nan
QUICK: dict[str, Any] = {"effort": "quick", "width": 8, "blocks": 1, "epochs": 3, "verbose": False, "random_state": 0}
MAKERS: list[type] = [CCNNClassifier, CCNNRegressor]


def made(kind: type, **parameters: Any) -> Any:
    """An estimator that trains for a moment."""
    return kind(**{**QUICK, **parameters})


def outputs(fitted: Any, X: Any, times: Any = None) -> Array:  # noqa: N803
    """The numbers behind the predictions: probabilities, or predicted numbers."""
    return np.asarray(
        fitted.predict_proba(X, times=times) if isinstance(fitted, CCNNClassifier) else fitted.predict(X, times=times)
    )


def ragged(n: int = 16, *, gaps: float = 0.0, seed: int = 0) -> tuple[list[Array], list[Array], Array]:
    """Slow and fast waves (2, length) with noise, their irregular times, and which they are."""
    random = np.random.default_rng(seed)
    y, X, times = np.arange(n) % 2, [], []
    for fast in y:
        when = np.cumsum(random.uniform(0.2, 1.8, random.integers(9, 17)))
        wave = np.sin(2 * np.pi * when / (12, 3)[fast] + random.uniform(0, 6, (2, 1)))
        hidden = random.random(wave.shape) < gaps
        hidden[:, 0] = False
        X.append(np.where(hidden, NAN, wave + 0.1 * random.standard_normal(wave.shape)))
        times.append(when)
    return X, times, y


def equal(n: int = 12, length: int = 14, *, gaps: float = 0.0, seed: int = 0) -> tuple[Array, Array, Array]:
    """The same with one length: (n, 2, length), (n, length) and (n,)."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 2
    times = np.cumsum(random.uniform(0.2, 1.8, (n, length)), axis=1)
    phase = random.uniform(0, 6, (n, 2, 1))
    X = np.sin(2 * np.pi * times[:, None] / np.where(y, 3, 12)[:, None, None] + phase)
    hidden = random.random(X.shape) < gaps
    hidden[..., 0] = False
    return np.where(hidden, NAN, X), times, y


# ---- arrays and lists


@pytest.mark.parametrize("kind", MAKERS)
def test_arrays_with_times_are_lists_with_times(kind: type) -> None:
    X, times, y = equal()
    array = made(kind).fit(X, y, times=times)
    assert array.model_.span is not None
    expected = outputs(array, X, times)
    assert len(expected) == 12
    parts = made(kind).fit(list(X), y, times=list(times))
    assert np.array_equal(outputs(parts, X, times), expected)
    assert np.array_equal(outputs(array, list(X), tuple(times)), expected)
    assert np.array_equal(outputs(array, X, times.tolist()), expected)


@pytest.mark.parametrize("kind", MAKERS)
def test_lists_of_unequal_length_have_times_of_their_own(kind: type) -> None:
    X, times, y = ragged()
    fitted = made(kind).fit(X, y, times=times)
    together = outputs(fitted, X, times)
    for index in (0, 3, 7):
        alone = outputs(fitted, [X[index]], [times[index]])[0]
        np.testing.assert_allclose(alone, together[index], rtol=0, atol=1e-10)
    assert np.abs(outputs(fitted, X, [2 * one for one in times]) - together).max() > 1e-4  # the times do count


@pytest.mark.parametrize("kind", MAKERS)
def test_a_matrix_is_series_of_one_channel(kind: type) -> None:
    X, times, y = equal()
    one = made(kind).fit(X[:, 0], y, times=times)
    other = made(kind).fit(X[:, :1], y, times=times)
    assert np.array_equal(outputs(one, X[:, 0], times), outputs(other, X[:, :1], times))


@pytest.mark.parametrize("kind", MAKERS)
def test_times_for_all_are_times_for_each(kind: type) -> None:
    X, times, y = equal()
    shared, each = made(kind).fit(X, y, times=times[0]), made(kind).fit(X, y, times=np.tile(times[0], (12, 1)))
    assert np.array_equal(outputs(shared, X, times[0]), outputs(each, X, np.tile(times[0], (12, 1))))


def test_irregular_waves_are_learned() -> None:
    X, times, y = ragged(60, gaps=0.2)
    fitted = made(CCNNClassifier, epochs=20, missing="absent").fit(X, y, times=times)
    X, times, y = ragged(60, gaps=0.2, seed=1)
    assert fitted.score(X, y, times=times) > 0.9


def test_scores_are_those_of_the_predictions() -> None:
    X, times, y = ragged()
    weights = np.linspace(0, 1, 16)
    labels = made(CCNNClassifier).fit(X, y, times=times)
    numbers = made(CCNNRegressor).fit(X, 3.0 * y, times=times)
    assert labels.score(X, y, times=times) == accuracy_score(y, labels.predict(X, times=times))
    assert labels.score(X, y, weights, times=times) == accuracy_score(
        y, labels.predict(X, times=times), sample_weight=weights
    )
    assert numbers.score(X, 3.0 * y, times=times) == r2_score(3.0 * y, numbers.predict(X, times=times))
    assert numbers.score(X, 3.0 * y, weights, times=times) == r2_score(
        3.0 * y, numbers.predict(X, times=times), sample_weight=weights
    )
    probabilities = labels.predict_proba(X, times=times)
    np.testing.assert_array_equal(labels.predict(X, times=times), labels.classes_[probabilities.argmax(1)])


@pytest.mark.parametrize("kind", MAKERS)
def test_a_validation_share_and_equal_seeds(kind: type) -> None:
    X, times, y = ragged(20, gaps=0.1)
    one, two = (made(kind, validation=0.25, missing="absent").fit(X, y, times=times) for _ in range(2))
    assert np.array_equal(outputs(one, X, times), outputs(two, X, times))


# ---- regular times


@pytest.mark.parametrize("times", [np.arange(14), 0.125 * np.arange(14) - 7, 1e4 * np.arange(14)])
def test_regular_times_give_the_network_that_no_times_give(times: Array) -> None:
    """Not bit for bit: the sums are taken in another order, and Adam makes steps of what rounding leaves.

    That is so for biases in front of a batch norm, whose gradients are zero but for rounding; what they do is taken
    away again by the norm, in predictions by its running means, which follow later.
    """
    X, _, y = equal()
    plain, timed = made(CCNNClassifier, dropout=0.0).fit(X, y), made(CCNNClassifier, dropout=0.0).fit(X, y, times=times)
    assert plain.model_.grid.size == timed.model_.grid.size == (14,)
    assert timed.model_.span == pytest.approx(14 * (times[1] - times[0]))
    final = [fitted.predictor_.about["final_loss"] for fitted in (plain, timed)]
    assert final[0] == pytest.approx(final[1], rel=1e-5)
    for name, value in plain.model_.named_parameters():
        if name not in ("stem.bias", "stem.mixer.bias", "stem.mixer.weight"):
            np.testing.assert_allclose(
                timed.model_.get_parameter(name).detach(), value.detach(), rtol=0, atol=1e-4, err_msg=name
            )
    np.testing.assert_allclose(timed.predict_proba(X, times=times), plain.predict_proba(X), rtol=0, atol=0.02)


# ---- values that were not observed


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("with_times", [False, True])
@pytest.mark.parametrize("as_list", [False, True])
def test_absent_values_count_for_nothing(kind: type, with_times: bool, as_list: bool) -> None:
    X, times, y = ragged(gaps=0.2) if as_list else equal(gaps=0.2)
    given: Any = times if with_times else None
    before = [signal.copy() for signal in X]
    fitted = made(kind, missing="absent").fit(X, y, times=given)
    found = outputs(fitted, X, given)
    assert np.isfinite(found).all()
    for signal, kept in zip(X, before, strict=True):
        np.testing.assert_array_equal(signal, kept)
    if not with_times:  # steps behind the end, at which nothing was observed
        behind = [np.concatenate([signal, np.full((2, 3), NAN)], axis=1) for signal in X]
        np.testing.assert_allclose(outputs(fitted, behind, None), found, rtol=0, atol=1e-10)
        return
    longer = []  # the same series with steps between, at which nothing was observed
    for signal, when in zip(X, times, strict=True):
        between = (when[1:] + when[:-1]) / 2
        order = np.argsort(np.concatenate([when, between]))
        nothing = np.full((2, len(between)), NAN)
        longer.append((np.concatenate([signal, nothing], axis=1)[:, order], np.concatenate([when, between])[order]))
    more = outputs(fitted, [signal for signal, _ in longer], [when for _, when in longer])
    np.testing.assert_allclose(more, found, rtol=0, atol=1e-10)


def test_without_times_absent_counts_the_samples() -> None:
    X, _, y = equal(gaps=0.2)
    one = made(CCNNClassifier, missing="absent").fit(X, y)
    two = made(CCNNClassifier, missing="absent").fit(X, y, times=np.arange(14))
    assert np.array_equal(one.predict_proba(X), two.predict_proba(X, times=np.arange(14)))


def test_absent_is_said_even_where_nothing_is_missing() -> None:
    X, _, y = equal()
    fitted = made(CCNNClassifier, missing="absent").fit(X, y)
    X[3, 1, 4:7] = NAN
    assert np.isfinite(fitted.predict_proba(X)).all()


@pytest.mark.parametrize("kind", [AeonCCNNClassifier, SktimeCCNNClassifier, AeonCCNNRegressor, SktimeCCNNRegressor])
@pytest.mark.parametrize("as_list", [False, True])
def test_the_members_of_other_libraries_know_absent_values(kind: type, as_list: bool) -> None:
    X: Any
    X, _, y = ragged(10, gaps=0.2) if as_list else equal(10, gaps=0.2)
    options = {name: QUICK[name] for name in ("effort", "epochs", "verbose", "random_state")} | {"missing": "absent"}
    passed = [pd.DataFrame(signal.T) for signal in X] if as_list and kind.__name__.startswith("Sktime") else X
    plain: Any = (CCNNClassifier if "Classifier" in kind.__name__ else CCNNRegressor)(**options)
    y = y if isinstance(plain, CCNNClassifier) else y + np.linspace(0, 0.5, 10)
    member = kind(**options).fit(passed, y)
    plain.fit(X, y)
    np.testing.assert_allclose(outputs(member.estimator_, X), outputs(plain, X), rtol=0, atol=1e-12)
    assert member.predict(passed).tolist() == plain.predict(X).tolist()


# ---- files


@pytest.mark.parametrize("kind", MAKERS)
def test_a_loaded_estimator_takes_times_as_the_saved_one(kind: type, tmp_path: Path) -> None:
    X, times, y = ragged(gaps=0.2)
    times = [60.0 * one for one in times]
    fitted = made(kind, missing="absent").fit(X, y, times=times)
    fitted.save(tmp_path)
    loaded: Any = kind.load(tmp_path)  # type: ignore[attr-defined]
    assert loaded.get_params() == fitted.get_params()
    assert loaded.model_.span == fitted.model_.span
    assert np.array_equal(outputs(loaded, X, times), outputs(fitted, X, times))
    assert Predictor.load(tmp_path).about["times"] == "given"
    with pytest.raises(ValueError, match="was trained on series with times; got samples without"):
        loaded.predict(X)


# ---- what does not fit


def fitted_with_times(**parameters: Any) -> CCNNClassifier:
    X, times, y = equal()
    fitted: CCNNClassifier = made(CCNNClassifier, **parameters).fit(X, y, times=times)
    return fitted


def fit_at(times: Any, X: Any = None, **parameters: Any) -> Any:  # noqa: N803
    signals, _, y = equal()
    return made(CCNNClassifier, **parameters).fit(signals if X is None else X, y, times=times)


def gappy() -> Array:
    return equal(gaps=0.2)[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: fit_at(np.arange(13)),
            ValueError,
            r"`times` of all series must be \(14,\), one per sample; got shape",
        ),
        (lambda: fit_at([np.arange(14)] * 11), ValueError, "`times` must be one array per series, 12; got 11"),
        (lambda: fit_at(3.0), TypeError, "`times` must be an array of numbers per series, or one for all; got float"),
        (lambda: fit_at(np.zeros(14)), ValueError, "`times` of all series must increase strictly"),
        (lambda: fit_at(["a"] * 14), TypeError, "`times` must be numbers in any one unit"),
        (lambda: fit_at(np.arange(14), np.zeros((12, 1, 14, 2))), ValueError, "Times are for series, .* have 2 axes"),
        (
            lambda: fit_at(np.arange(14), gappy()),
            ValueError,
            r"X contains NaN in .* of 12 signals.* missing=\"absent\"",
        ),
        (lambda: fit_at(None, gappy()), ValueError, r"X contains NaN in .* Say what it means: missing=\"absent\""),
        (
            lambda: fit_at(np.arange(14), gappy(), missing="mean"),
            ValueError,
            'missing="mean" and times exclude each other: .* Use missing="absent"',
        ),
        (
            lambda: fit_at(np.arange(14), missing="interpolate"),
            ValueError,
            'missing="interpolate" and times exclude each other',
        ),
        (
            lambda: fit_at(None, np.zeros((12, 1, 14, 2)), missing="absent"),
            ValueError,
            'missing="absent" needs series, of one axis; these samples have 2 axes. Use missing="mean"',
        ),
        (
            lambda: fit_at(None, np.full((12, 2, 14), NAN), missing="absent"),
            ValueError,
            "channel 0 is not observed in any of the samples",
        ),
        (
            lambda: fitted_with_times(missing="absent").predict([np.full((2, 5), NAN)], times=[np.arange(5)]),
            ValueError,
            "series 0 has no observed value. Remove it",
        ),
        (lambda: fitted_with_times().predict(equal()[0]), ValueError, "trained on series with times; .* Give their ti"),
        (
            lambda: fitted_with_times(missing="absent").predict_proba(equal()[0]),
            ValueError,
            "was trained on series with times; got samples without. Give their times",
        ),
        (
            lambda: fitted_with_times().score(equal()[0], equal()[2]),
            ValueError,
            "was trained on series with times; got samples without",
        ),
        (lambda: fitted_with_times().predict(gappy(), times=equal()[1]), ValueError, "X contains NaN"),
    ],
)
def test_what_does_not_fit_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("kind", MAKERS)
def test_times_are_named_and_not_counted_off(kind: type) -> None:
    X, times, y = equal()
    with pytest.raises(TypeError, match="positional argument"):
        made(kind).fit(X, y, times)
