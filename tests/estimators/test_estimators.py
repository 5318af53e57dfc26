"""CCNNClassifier and CCNNRegressor: what they take, what they learn, and that they repeat themselves."""

from __future__ import annotations

import functools
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from omniconv.data import ArraySamples
from omniconv.estimators import CCNNClassifier, CCNNRegressor
from omniconv.nn import Conv
from omniconv.training import Predictor, choose

Array = NDArray[Any]

QUICK: dict[str, Any] = {"effort": "quick", "width": 8, "blocks": 1, "epochs": 3, "verbose": False, "random_state": 0}


def classifier(**parameters: Any) -> CCNNClassifier:
    """A classifier that trains for a moment."""
    return CCNNClassifier(**{**QUICK, **parameters})


def regressor(**parameters: Any) -> CCNNRegressor:
    """A regressor that trains for a moment."""
    return CCNNRegressor(**{**QUICK, **parameters})


def waves(n: int = 24, length: int = 30, seed: int = 0) -> tuple[Array, Array]:
    """Slow waves of class 0 and fast ones of class 1, (n, length)."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 2
    phase = random.uniform(0, 2 * np.pi, (n, 1))
    return np.sin(np.linspace(0, 6, length) * (1 + 3 * y[:, None]) + phase), y


def ragged(n: int = 16, axes: int = 1, seed: int = 0) -> tuple[list[Array], Array]:
    """Signals of unequal size with 2 channels, (2, *size)."""
    random = np.random.default_rng(seed)
    sizes = random.integers(4, 9, (n, axes)) if axes > 1 else random.integers(12, 31, (n, 1))
    return [random.standard_normal((2, *size)) + i % 2 for i, size in enumerate(sizes)], np.arange(n) % 2


# ---- what X may be


@pytest.mark.parametrize("shape", [(12, 20), (12, 3, 20), (12, 2, 6, 5), (12, 1, 4, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_arrays_are_sequences_images_and_volumes(shape: tuple[int, ...], dtype: type) -> None:
    random = np.random.default_rng(0)
    X: Array = (10 * random.standard_normal(shape)).astype(dtype)
    y = np.arange(12) % 3
    fitted = classifier().fit(X, y)
    channels, size = (1, shape[1:]) if len(shape) == 2 else (shape[1], shape[2:])
    assert (fitted.model_.in_channels, fitted.model_.grid.size) == (channels, size)
    proba = fitted.predict_proba(X)
    assert proba.shape == (12, 3)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-12)
    numbers = regressor().fit(X, y).predict(X)
    assert numbers.shape == (12,)
    assert numbers.dtype == np.float64


def test_a_matrix_is_signals_of_one_channel() -> None:
    X, y = waves()
    assert np.array_equal(
        classifier().fit(X, y).predict_proba(X), classifier().fit(X[:, None], y).predict_proba(X[:, None])
    )


def test_the_layout_and_the_length_may_change_after_the_fit() -> None:
    X, y = waves()
    by_matrix, by_channels = classifier().fit(X, y), classifier().fit(X[:, None], y)
    assert by_matrix.n_features_in_ == 30
    assert not hasattr(by_channels, "n_features_in_")
    expected = by_matrix.predict_proba(X)
    for fitted in (by_matrix, by_channels):
        for same in (X, X[:, None], list(X)):
            np.testing.assert_array_equal(fitted.predict_proba(same), expected)
        shorter = fitted.predict_proba(X[:, None, :25])
        np.testing.assert_array_equal(fitted.predict_proba(list(X[:, :25])), shorter)
    np.testing.assert_array_equal(by_channels.predict_proba(X[:, :25]), shorter)
    with pytest.raises(ValueError, match=r"has 25 features.*another length as \(n, 1, length\), or as a list"):
        by_matrix.predict(X[:, :25])
    assert not hasattr(by_matrix.fit(X[:, None], y), "n_features_in_")


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_lists_hold_signals_of_unequal_size(axes: int) -> None:
    X, y = ragged(axes=axes)
    fitted = classifier().fit(X, y)
    assert fitted.model_.grid.size == tuple(np.max([signal.shape[1:] for signal in X], axis=0))
    assert not hasattr(fitted, "n_features_in_")
    assert fitted.predict(X).shape == (len(X),)
    assert regressor().fit(X, y).predict(X).shape == (len(X),)


def test_lists_of_vectors_have_one_channel() -> None:
    X, y = ragged()
    vectors = [signal[0] for signal in X]
    one, other = classifier().fit(vectors, y), classifier().fit([signal[:1] for signal in X], y)
    assert one.model_.in_channels == 1
    assert np.array_equal(one.predict_proba(vectors), other.predict_proba([signal[:1] for signal in X]))


@pytest.mark.parametrize("shape", [(12, 20), (12, 2, 20), (12, 1, 5, 6)])
def test_a_list_of_equal_signals_is_the_array_of_them(shape: tuple[int, ...]) -> None:
    X, y = np.random.default_rng(0).standard_normal(shape), np.arange(12) % 2
    array, parts = classifier().fit(X, y), classifier().fit(list(X), y)
    assert np.array_equal(array.predict_proba(X), parts.predict_proba(X))
    assert np.array_equal(array.predict_proba(X), array.predict_proba(list(X)))
    assert np.array_equal(array.predict_proba(X), array.predict_proba(tuple(X)))


def test_nested_lists_of_numbers_are_an_array() -> None:
    X, y = waves()
    assert np.array_equal(
        classifier().fit(X.tolist(), y.tolist()).predict(X.tolist()), classifier().fit(X, y).predict(X)
    )


def test_tables_keep_their_names() -> None:
    X, y = waves(length=4)
    table = pd.DataFrame(X, columns=list("abcd"))
    fitted = classifier().fit(table, y)
    assert fitted.feature_names_in_.tolist() == list("abcd")
    assert np.array_equal(fitted.predict_proba(table), classifier().fit(X, y).predict_proba(X))
    fitted.fit(ragged()[0], ragged()[1])
    assert not hasattr(fitted, "feature_names_in_")


@pytest.mark.parametrize("parameters", [{}, {"missing": "mean"}])
def test_one_signal_of_any_length_is_predicted(parameters: dict[str, Any]) -> None:
    X, y = waves()
    fitted = classifier(**parameters).fit(X, y)
    together = fitted.predict_proba([X[0], X[1][:17], X[2][:8]])
    for row, signal in enumerate([X[0], X[1][:17], X[2][:8]]):
        np.testing.assert_allclose(fitted.predict_proba([signal])[0], together[row], rtol=0, atol=1e-12)
    many, labels = ragged()
    np.testing.assert_allclose(
        classifier().fit(many, labels).predict_proba([many[3]])[0],
        classifier().fit(many, labels).predict_proba(many)[3],
        rtol=0,
        atol=1e-12,
    )


# ---- labels


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["wind", "calm", "gale"]),
        np.array(["wind", "calm", "gale"], dtype=object),
        np.array([10, -3, 7]),
        np.array([10, 3, 7], dtype=np.uint8),
        np.array([2.0, 1.0, 5.0]),
        np.array([True, False, True]),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_come_back_as_they_are_in_sorted_order(labels: Array) -> None:
    X, _ = waves(n=12)
    y = np.tile(labels, 4)
    fitted = classifier().fit(X, y)
    assert fitted.classes_.tolist() == sorted(set(labels.tolist()))
    assert fitted.classes_.dtype == fitted.predict(X).dtype == y.dtype
    assert set(fitted.predict(X).tolist()) <= set(labels.tolist())
    assert fitted.predict_proba(X).shape == (12, len(fitted.classes_))


def test_the_names_of_labels_do_not_matter_but_for_their_order() -> None:
    X, y = waves()
    plain = classifier().fit(X, y)
    for names in (np.array(["a", "b"]), np.array([-5, 9]), np.array([1.0, 2.0])):
        named = classifier().fit(X, names[y])
        assert np.array_equal(named.predict_proba(X), plain.predict_proba(X))
        assert np.array_equal(named.predict(X), names[plain.predict(X)])


def test_waves_are_learned() -> None:
    X, y = waves(n=60)
    fitted = classifier(epochs=30).fit(X, y)
    assert fitted.score(*waves(n=60, seed=1)) > 0.9


def test_balanced_weights_are_those_of_the_formula() -> None:
    X, _ = waves(n=12)
    y = np.repeat([0, 1], [9, 3])
    balanced = classifier(class_weight="balanced").fit(X, y)
    weights = balanced.predictor_.classification.weights
    assert weights == pytest.approx((12 / (2 * 9), 12 / (2 * 3)))
    mapping = classifier(class_weight={0: 1.0, 1: 3.0}).fit(X, y)  # the same ratio
    assert mapping.predictor_.classification.weights == pytest.approx(weights)
    assert np.array_equal(mapping.predict_proba(X), balanced.predict_proba(X))
    assert not np.array_equal(classifier().fit(X, y).predict_proba(X), balanced.predict_proba(X))


def test_a_heavy_class_is_predicted_more() -> None:
    X, y = np.random.default_rng(0).standard_normal((20, 12)), np.tile(["a", "b"], 10)
    light, heavy = (
        classifier(epochs=20, class_weight={"a": 1.0, "b": weight}).fit(X, y).predict_proba(X)[:, 1].mean()
        for weight in (0.1, 10.0)
    )
    assert light < 0.5 < heavy


def test_smoothed_labels_make_less_certain_probabilities() -> None:
    X, y = waves(n=40)
    sharp, soft = (classifier(epochs=30, label_smoothing=smoothing).fit(X, y) for smoothing in (0.0, 0.5))
    assert soft.predict_proba(X).max(1).mean() < sharp.predict_proba(X).max(1).mean()


# ---- numbers


@pytest.mark.parametrize(("mean", "unit"), [(0.0, 1.0), (1e6, 1e3), (-1e6, 50.0), (0.0, 1e-6), (1e6, 1e6)])
def test_targets_in_any_unit_are_learned(mean: float, unit: float) -> None:
    random = np.random.default_rng(0)
    level = random.uniform(-1, 1, 60)
    X = level[:, None] + 0.1 * random.standard_normal((60, 16))
    fitted = regressor(epochs=40).fit(X, mean + unit * level)
    assert fitted.score(X, mean + unit * level) > 0.9
    y = mean + unit * level
    raw = fitted.model_.double()(torch.from_numpy(X[:, None].astype(np.float32)).double())[:, 0].detach().numpy()
    np.testing.assert_allclose(raw * y.std() + y.mean(), fitted.predict(X), rtol=1e-12, atol=1e-9 * unit)


def test_targets_may_be_integers_booleans_or_numbers_as_objects() -> None:
    X, y = waves()
    expected = regressor().fit(X, y.astype(float)).predict(X)
    for targets in (y, y.astype(bool), y.astype(object), y.astype(np.float32), y.tolist()):
        assert np.array_equal(regressor().fit(X, targets).predict(X), expected)


def test_equal_targets_are_predicted() -> None:
    X, _ = waves()
    np.testing.assert_allclose(regressor(epochs=30).fit(X, np.full(24, 5.0)).predict(X), 5.0, atol=0.5)


# ---- random states


def test_equal_seeds_give_equal_predictions_bit_for_bit() -> None:
    X, y = waves()
    for make in (classifier, regressor):
        one, two, three = (make(random_state=seed).fit(X, y) for seed in (3, 3, 4))
        assert np.array_equal(one.predict(X), two.predict(X))
        for name, value in one.model_.state_dict().items():
            assert torch.equal(value, two.model_.state_dict()[name]), name
        assert any(
            not torch.equal(a, b) for a, b in zip(one.model_.parameters(), three.model_.parameters(), strict=True)
        )


def test_fitting_again_starts_anew() -> None:
    X, y = waves()
    fitted = classifier().fit(X, y)
    before = fitted.predict_proba(X)
    assert np.array_equal(fitted.fit(X[::-1], y).fit(X, y).predict_proba(X), before)


def test_a_generator_gives_another_network_every_time() -> None:
    X, y = waves()
    first, again = (classifier(random_state=np.random.RandomState(5)).fit(X, y).predict_proba(X) for _ in range(2))
    assert np.array_equal(first, again)
    generator = np.random.RandomState(5)
    one, two = (classifier(random_state=generator).fit(X, y).predict_proba(X) for _ in range(2))
    assert np.array_equal(one, first)
    assert not np.array_equal(one, two)


def test_without_a_seed_numpy_draws_one() -> None:
    X, y = waves()
    state = np.random.get_state()  # noqa: NPY002, scikit-learn's None is the global state
    try:
        predictions = []
        for _ in range(2):
            np.random.seed(1)  # noqa: NPY002
            predictions += [classifier(random_state=None).fit(X, y).predict_proba(X) for _ in range(2)]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    assert np.array_equal(predictions[0], predictions[2])
    assert np.array_equal(predictions[1], predictions[3])
    assert not np.array_equal(predictions[0], predictions[1])


def test_the_global_random_states_are_left_alone(tmp_path: Path) -> None:
    X, y = waves()
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    fitted = classifier(validation=0.25, patience=2).fit(X, y)
    fitted.predict(X)
    fitted.save(tmp_path)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_the_global_random_state_does_not_matter() -> None:
    X, y = waves()
    torch.manual_seed(1)
    one = classifier().fit(X, y).predict_proba(X)
    torch.manual_seed(2)
    assert np.array_equal(classifier().fit(X, y).predict_proba(X), one)


# ---- missing values


def with_gaps() -> tuple[Array, Array]:
    X, y = waves()
    X = np.stack([X, X[:, ::-1]], axis=1)
    X[3, 0, 5:9] = math.nan
    X[7, 1, :2] = X[8, 0, -3:] = math.nan
    return X, y


def test_gaps_are_an_error_that_tells_the_options() -> None:
    X, y = with_gaps()
    with pytest.raises(ValueError, match=r'NaN in 3 of 24 .* number 3.*missing="interpolate" or missing="mean"'):
        classifier().fit(X, y)
    fitted = classifier().fit(np.nan_to_num(X), y)
    with pytest.raises(ValueError, match=r'X contains NaN in 1 of 2 signals.*missing="interpolate"'):
        fitted.predict(X[2:4])


def test_interpolated_gaps_are_those_of_numpy() -> None:
    X, y = with_gaps()
    by_hand = X.copy()
    for channel in by_hand.reshape(-1, X.shape[-1]):
        known = np.flatnonzero(~np.isnan(channel))
        channel[:] = np.interp(np.arange(len(channel)), known, channel[known])
    before = X.copy()
    fitted, expected = classifier(missing="interpolate").fit(X, y), classifier().fit(by_hand, y)
    np.testing.assert_allclose(fitted.predict_proba(X), expected.predict_proba(by_hand), rtol=0, atol=0.01)
    np.testing.assert_allclose(fitted.predict_proba(X), fitted.predict_proba(by_hand), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(X, before)


def test_gaps_may_take_the_mean_of_their_channel() -> None:
    X, y = with_gaps()
    by_hand = np.where(np.isnan(X), np.nanmean(X, axis=-1, keepdims=True), X)
    fitted = classifier(missing="mean").fit(X, y)
    np.testing.assert_allclose(fitted.predict_proba(X), fitted.predict_proba(by_hand), rtol=0, atol=1e-6)
    images = X.reshape(24, 2, 5, 6)
    seen = classifier(missing="mean").fit(images, y)
    np.testing.assert_allclose(
        seen.predict_proba(images), seen.predict_proba(by_hand.reshape(images.shape)), rtol=0, atol=1e-6
    )


def test_gaps_in_lists_are_filled_alike() -> None:
    X, y = with_gaps()
    fitted = regressor(missing="interpolate").fit(X, y)
    np.testing.assert_allclose(fitted.predict(list(X)), fitted.predict(X), rtol=0, atol=1e-12)
    shorter = [X[3][:, :20], X[7][:, :25]]
    assert np.isfinite(fitted.predict(shorter)).all()


@pytest.mark.parametrize("missing", ["interpolate", "mean"])
def test_a_channel_without_any_value_is_an_error(missing: str) -> None:
    X, y = with_gaps()
    X[5, 1] = math.nan
    with pytest.raises(ValueError, match="signal 5 has a channel without any value"):
        classifier(missing=missing).fit(X, y)


def test_images_are_not_interpolated() -> None:
    X, y = with_gaps()
    with pytest.raises(ValueError, match='missing="interpolate" needs sequences; signal 3 has 2 axes'):
        classifier(missing="interpolate").fit(X.reshape(24, 2, 5, 6), y)


@pytest.mark.parametrize("missing", ["raise", "interpolate", "mean"])
@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinity_is_an_error(missing: str, value: float) -> None:
    X, y = waves()
    fitted = classifier(missing=missing).fit(X, y)
    X[4, 2] = value
    for call in (
        lambda: fitted.predict(X),
        lambda: fitted.predict([X[4]]),
        lambda: classifier(missing=missing).fit(X, y),
    ):
        with pytest.raises(ValueError, match="X contains infinity"):
            call()


# ---- what does not fit


def fit_with(signals: Any = None, y: Any = None, make: Callable[..., Any] = classifier, **parameters: Any) -> Any:
    X, labels = waves()
    return make(**parameters).fit(X if signals is None else signals, labels if y is None else y)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fit_with(y=np.ones(24)), ValueError, "at least two classes; got one class only, .*1"),
        (lambda: fit_with(y=np.arange(23) % 2), ValueError, "inconsistent numbers of samples"),
        (lambda: fit_with(y=np.arange(23.0), make=regressor), ValueError, "inconsistent numbers of samples"),
        (lambda: fit_with(ragged()[0], np.arange(15) % 2), ValueError, "inconsistent numbers of samples"),
        (lambda: fit_with(y=np.linspace(0, 1, 24)), ValueError, "Unknown label type: continuous"),
        (lambda: fit_with(y=np.zeros((24, 2))), ValueError, "y should be a 1d array"),
        (lambda: fit_with(y=np.full(24, math.nan), make=regressor), ValueError, "y contains NaN or infinity"),
        (lambda: fit_with(y=np.array(["a", "b"] * 12), make=regressor), ValueError, "y must be numbers; got <U1"),
        (lambda: fit_with(np.zeros((24, 1, 2, 2, 2, 2))), ValueError, "up to 3 axes"),
        (lambda: fit_with(np.zeros(24)), ValueError, "Expected 2D array, got 1D array"),
        (lambda: fit_with([np.zeros(3), np.zeros((1, 4))], [0, 1]), ValueError, r"signal 1 has \(1, 4\)"),
        (lambda: fit_with([np.zeros((1, 3)), np.zeros((2, 4))], [0, 1]), ValueError, "same channels"),
        (lambda: fit_with([np.zeros(3), np.array(["a"] * 4)], [0, 1]), TypeError, "X must hold real numbers; signal 1"),
        (lambda: fit_with([np.zeros(3), np.zeros(0)], [0, 1]), ValueError, "number 1 has an axis of length 0"),
        (lambda: fit_with(effort="huge"), ValueError, "'quick', 'standard', 'strong'; got 'huge'"),
        (lambda: fit_with(missing="zero"), ValueError, "`missing` must be one of"),
        (lambda: fit_with(blocks=0), ValueError, "`blocks` must be at least 1; got 0"),
        (lambda: fit_with(width=2.5), TypeError, "`width` must be an integer; got float 2.5"),
        (lambda: fit_with(support_width=-1.0), ValueError, "`support_width` must be finite and above 0"),
        (lambda: fit_with(causal=1), TypeError, "`causal` must be True or False; got int 1"),
        (lambda: fit_with(dropout=1.0), ValueError, "`dropout` must be a probability below 1; got 1.0"),
        (lambda: fit_with(epochs=0), ValueError, "`epochs` must be at least 1; got 0"),
        (lambda: fit_with(batch_size=0), ValueError, "`batch_size` must be at least 1; got 0"),
        (lambda: fit_with(lr=0.0), ValueError, "`lr` must be finite and above 0"),
        (lambda: fit_with(weight_decay=-1.0), ValueError, "`weight_decay` must be finite and at least 0"),
        (lambda: fit_with(label_smoothing=2.0), ValueError, "`label_smoothing` must be a probability below 1; got 2.0"),
        (lambda: fit_with(validation=0.01), ValueError, "cannot be held out"),
        (lambda: fit_with(validation=-0.5), ValueError, "`validation` must be finite and at least 0"),
        (lambda: fit_with(random_state="lucky"), ValueError, "'lucky' cannot be used to seed"),
        (lambda: fit_with(class_weight="fair"), ValueError, "`class_weight` must be None, \"balanced\" or a .*'fair'"),
        (lambda: fit_with(class_weight=3), ValueError, '`class_weight` must be None, "balanced" or a dict .*got 3'),
        (
            lambda: fit_with(class_weight={0: -1, 1: 1}),
            ValueError,
            r"`class_weight\[0\]` must be finite and at least 0",
        ),
        (lambda: fit_with(class_weight={0: 1, 1: math.nan}), ValueError, r"`class_weight\[1\]` must be finite"),
        (lambda: fit_with(class_weight={0: "a", 1: 1}), TypeError, r"`class_weight\[0\]` must be a number; got str"),
        (lambda: fit_with(class_weight={0: 0, 1: 0}), ValueError, "`class_weight` must not be 0 for all classes"),
        (
            lambda: fit_with().predict(np.zeros((2, 2, 30))),
            ValueError,
            "takes signals with 1 channels and 1 axes; got 2 channels and 1 axes",
        ),
        (lambda: fit_with().predict([np.zeros((2, 9)), np.zeros((2, 8))]), ValueError, "1 channels and 1 axes; got 2"),
        (lambda: fit_with().predict([np.zeros((1, 9, 9))]), ValueError, "1 channels and 1 axes; got 1 channels and 2"),
        (lambda: fit_with().predict(np.zeros((2, 29))), ValueError, "29 features, but CCNNClassifier is expecting 30"),
        (lambda: classifier().predict(np.zeros((2, 9))), NotFittedError, "not fitted yet"),
        (lambda: regressor().predict([np.zeros(9)]), NotFittedError, "not fitted yet"),
        (lambda: classifier().model_, NotFittedError, "not fitted yet"),
        (lambda: classifier().save("nowhere"), NotFittedError, "not fitted yet"),
    ],
)
def test_what_does_not_fit_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- files


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["x", "y"]),
        np.array(["x", "y"], dtype=object),
        np.array([3, 5]),
        np.array([3, 5], dtype=np.int8),
        np.array([1.0, 2.0], dtype=np.float32),
        np.array([False, True]),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_a_loaded_classifier_is_the_saved_one(labels: Array, tmp_path: Path) -> None:
    X, y = waves()
    fitted = classifier(class_weight={labels[0]: 1.0, labels[1]: 2.0}, lr=np.float64(0.02)).fit(X, labels[y])
    fitted.save(tmp_path)
    loaded = CCNNClassifier.load(tmp_path)
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert np.array_equal(loaded.predict(X), fitted.predict(X))
    assert loaded.classes_.dtype == fitted.classes_.dtype
    assert loaded.n_features_in_ == fitted.n_features_in_
    assert loaded.get_params() == fitted.get_params()
    assert np.array_equal(loaded.fit(X, labels[y]).predict_proba(X), fitted.predict_proba(X))


def test_a_loaded_regressor_is_the_saved_one(tmp_path: Path) -> None:
    X, y = ragged()
    fitted = regressor(causal=True, missing="mean").fit(X, 1e6 + y)
    fitted.save(str(tmp_path))
    loaded = CCNNRegressor.load(str(tmp_path))
    assert np.array_equal(loaded.predict(X), fitted.predict(X))
    assert loaded.get_params() == fitted.get_params()
    assert not hasattr(loaded, "n_features_in_")


def test_a_loaded_estimator_knows_the_names_of_its_columns(tmp_path: Path) -> None:
    X, y = waves(length=4)
    table = pd.DataFrame(X, columns=list("abcd"))
    classifier().fit(table, y).save(tmp_path)
    loaded = CCNNClassifier.load(tmp_path)
    assert loaded.feature_names_in_.dtype == object
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(table[list("dcba")])


def test_other_kinds_of_folder_are_refused(tmp_path: Path) -> None:
    X, y = waves()
    regressor().fit(X, y).save(tmp_path / "regressor")
    with pytest.raises(ValueError, match="holds CCNNRegressor, not a CCNNClassifier"):
        CCNNClassifier.load(tmp_path / "regressor")
    fitted = classifier().fit(X, y)
    fitted.model_.save_pretrained(tmp_path / "network")
    with pytest.raises(ValueError, match="holds a network without a task"):
        CCNNClassifier.load(tmp_path / "network")
    Predictor(fitted.model_, fitted.predictor_.task).save(tmp_path / "predictor")
    with pytest.raises(ValueError, match="holds no estimator, not a CCNNClassifier"):
        CCNNClassifier.load(tmp_path / "predictor")
    with pytest.raises(FileNotFoundError, match=r"There is no .*config.json"):
        CCNNClassifier.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    "change",
    [
        lambda estimator: estimator.pop("parameters"),
        lambda estimator: estimator.pop("fitted"),
        lambda estimator: estimator.update(parameters=3),
        lambda estimator: estimator["parameters"].update(colour="red"),
        lambda estimator: estimator["fitted"].update(classes_={"dtype": "nonsense", "values": [0, 1]}),
    ],
)
def test_a_damaged_description_is_refused(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    X, y = waves()
    classifier().fit(X, y).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(config["about"]["estimator"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not fit this version of CCNNClassifier"):
        CCNNClassifier.load(tmp_path)


def test_a_generator_cannot_be_saved(tmp_path: Path) -> None:
    fitted = classifier(random_state=np.random.RandomState(0)).fit(*waves())
    with pytest.raises(TypeError, match="`random_state` must be an integer or None to be saved"):
        fitted.save(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_the_saved_predictor_predicts_the_same(tmp_path: Path) -> None:
    X, y = waves()
    fitted = classifier().fit(X, np.array(["slow", "fast"])[y])
    fitted.save(tmp_path)
    samples = ArraySamples(X[:, None])
    assert np.array_equal(Predictor.load(tmp_path, device="cpu").predict(samples), fitted.predict(X))
    card = (tmp_path / "README.md").read_text()
    assert "Classes: fast, slow." in card


# ---- a citizen of scikit-learn


@pytest.mark.parametrize("make", [classifier, regressor])
def test_clones_and_pickles(make: Callable[..., Any]) -> None:
    X, y = waves()
    fitted = make(causal=True).fit(X, y)
    twin = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(twin.predict(X), fitted.predict(X))
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    assert not hasattr(fresh, "predictor_")
    assert np.array_equal(fresh.fit(X, y).predict(X), fitted.predict(X))


def test_grids_are_searched() -> None:
    X, y = waves()
    search = GridSearchCV(classifier(), {"epochs": [1, 20]}, cv=2).fit(X, y)
    assert search.best_params_["epochs"] in (1, 20)
    assert search.best_estimator_.predict(X).shape == (24,)


def test_pipelines_end_in_a_network() -> None:
    X, y = waves()
    scaled = make_pipeline(FunctionTransformer(np.negative), classifier()).fit(X, y)
    assert np.array_equal(scaled.predict_proba(X), classifier().fit(-X, y).predict_proba(-X))


def test_the_torch_module_takes_raw_signals() -> None:
    X, y = waves()
    X = 1e3 + 50 * X
    fitted = classifier(epochs=10).fit(X, y)
    assert not fitted.model_.training
    with torch.no_grad():
        outputs = fitted.model_(torch.tensor(X[:, None], dtype=torch.float32))
    assert np.array_equal(fitted.classes_[outputs.argmax(1).numpy()], fitted.predict(X))
    np.testing.assert_allclose(outputs.softmax(1).numpy(), fitted.predict_proba(X), rtol=0, atol=1e-4)


def test_a_causal_network_does_not_see_the_future() -> None:
    X, y = waves()
    for causal in (False, True):
        fitted = classifier(causal=causal).fit(X, y)
        assert {layer.causal for layer in fitted.model_.modules() if isinstance(layer, Conv)} == {(causal,)}
    images = classifier(causal=True).fit(X.reshape(24, 1, 5, 6), y)
    assert {layer.causal for layer in images.model_.modules() if isinstance(layer, Conv)} == {(True, True)}


@pytest.mark.parametrize("effort", ["quick", "standard", "strong"])
def test_efforts_choose_the_size_of_the_network(effort: str) -> None:
    X, y = waves(n=4, length=6)
    chosen, _ = choose(ArraySamples(X[:, None]), effort)
    width, blocks = chosen.width, chosen.blocks
    fitted = CCNNClassifier(effort=effort, epochs=1, random_state=0, verbose=False).fit(X, y)
    assert (fitted.model_.arguments["width"], fitted.model_.arguments["blocks"]) == (width, blocks)
    smaller = CCNNClassifier(effort=effort, epochs=1, width=4, blocks=1, random_state=0, verbose=False).fit(X, y)
    assert (smaller.model_.arguments["width"], smaller.model_.arguments["blocks"]) == (4, 1)


def test_parameters_reach_the_training() -> None:
    X, y = waves()
    options = {"epochs": 2, "batch_size": 5, "lr": 0.003, "weight_decay": 0.2, "patience": 1}
    fitted = classifier(validation=0.25, support_width=3.0, dropout=0.3, **options).fit(X, y)
    about = fitted.predictor_.about
    assert {name: about["recipe"][name] for name in options} == options
    assert about["training_samples"] == 18
    assert (about["architecture"]["support_width"], about["architecture"]["dropout"]) == (3.0, 0.3)


def test_patience_ends_a_training_that_does_not_improve() -> None:
    X, y = waves(n=40)
    first = CCNNClassifier(**{**QUICK, "epochs": 60}, validation=0.25, patience=0).fit(X, y)
    soon = CCNNClassifier(**{**QUICK, "epochs": 60}, validation=0.25, patience=2)
    steps: list[int] = []
    original = torch.optim.AdamW.step

    def counted(self: Any, *arguments: Any, **keywords: Any) -> Any:
        steps.append(1)
        return original(self, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", functools.wraps(original)(counted))
        soon.fit(X, y)
    assert 0 < len(steps) < 60
    assert first.predict(X).shape == soon.predict(X).shape


def test_progress_is_shown_when_it_is_asked_for(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = waves()
    monkeypatch.setattr("omniconv.training.progress.SILENT_SECONDS", 0.0)
    monkeypatch.setattr("omniconv.training.progress.LINE_SECONDS", 0.0)
    classifier(verbose=False).fit(X, y).predict(X)
    classifier(verbose=None).fit(X, y).predict(X)  # standard error is no terminal here
    assert "".join(capfd.readouterr()) == ""
    fitted = classifier(verbose=True).fit(X, y)
    assert "step 3/3" in capfd.readouterr().err
    fitted.predict(X)
    assert "step 1/1" in capfd.readouterr().err


# ---- a prediction depends on its signal alone


@functools.cache
def fitted_on_ragged(axes: int) -> tuple[CCNNClassifier, CCNNRegressor, list[Array]]:
    X, y = ragged(n=20, axes=axes)
    X = [5 + 2 * signal for signal in X]
    return classifier().fit(X, y), regressor().fit(X, 100.0 * y), X


@settings(max_examples=30)
@given(st.sampled_from([1, 2, 3]), st.lists(st.integers(0, 19), min_size=1, max_size=20))
def test_predictions_depend_neither_on_company_nor_on_order_nor_on_padding(axes: int, chosen: list[int]) -> None:
    labels, numbers, X = fitted_on_ragged(axes)
    some = [X[i] for i in chosen]
    np.testing.assert_allclose(labels.predict_proba(some), labels.predict_proba(X)[chosen], rtol=0, atol=1e-12)
    np.testing.assert_allclose(numbers.predict(some), numbers.predict(X)[chosen], rtol=1e-11, atol=1e-9)


def test_predictions_of_many_signals_are_those_of_each() -> None:
    labels, numbers, X = fitted_on_ragged(1)
    many = X * 5  # more than a batch
    alone = np.concatenate([labels.predict_proba([signal]) for signal in X])
    np.testing.assert_allclose(labels.predict_proba(many), np.tile(alone, (5, 1)), rtol=0, atol=1e-12)
    single = np.concatenate([numbers.predict([signal]) for signal in X])
    np.testing.assert_allclose(numbers.predict(many), np.tile(single, 5), rtol=1e-11, atol=1e-9)


def squares(n: int = 16, size: int = 6, axes: int = 2) -> tuple[Array, Array]:
    """Noise of one channel, and labels in turn."""
    return np.random.default_rng(0).standard_normal((n, 1, *(size,) * axes)), np.arange(n) % 2


@pytest.mark.parametrize("make", [classifier, regressor])
def test_an_estimator_on_a_group_answers_turned_images_as_upright_ones(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    X, y = squares()
    fitted = make(group="SO2", group_samples=4, epochs=1).fit(X, y + 0.5 * (make is regressor))
    answers = fitted.predict_proba if make is classifier else fitted.predict
    np.testing.assert_allclose(answers(np.rot90(X, 1, (2, 3)).copy()), answers(X), atol=1e-5)
    fitted.save(tmp_path)
    loaded = type(fitted).load(tmp_path)
    assert loaded.get_params() == fitted.get_params()
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))


def test_the_width_on_a_group_is_chosen_for_it_unless_it_is_given() -> None:
    X, y = squares()
    chosen = classifier(group="SO2", group_samples=4, epochs=1, width=None).fit(X, y)
    assert chosen.model_.arguments["width"] == 16  # 32 of the effort "quick", by the root of 4
    assert classifier(group="SO2", group_samples=4, epochs=1).fit(X, y).model_.arguments["width"] == QUICK["width"]


def test_an_estimator_on_a_group_predicts_images_of_other_sizes_and_learns_from_one() -> None:
    X, y = squares()
    fitted = classifier(group="SO2", group_samples=4, epochs=1).fit(X, y)
    others = [X[0], np.random.default_rng(1).standard_normal((1, 7, 9)), X[1]]
    shares = fitted.predict_proba(others)
    np.testing.assert_allclose(shares[[0, 2]], fitted.predict_proba(X[:2]), atol=1e-9)
    with pytest.raises(ValueError, match="`samples` must all have one size for a network on a group"):
        fitted.fit(others, [0, 1, 0])
    with pytest.raises(ValueError, match="`group` must act on the axes of the signals; 'SO2' acts on 2, and these"):
        fitted.fit(*waves())
    with pytest.raises(ValueError, match="`causal` and `group` exclude each other"):
        classifier(group="SO2", causal=True).fit(X, y)
