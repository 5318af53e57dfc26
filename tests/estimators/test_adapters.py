"""The estimators as members of aeon and sktime: the same predictions, and imported only when asked for."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from omniconv.estimators import CCNNClassifier, CCNNRegressor
from omniconv.estimators.aeon import AeonCCNNClassifier, AeonCCNNRegressor
from omniconv.estimators.sktime import SktimeCCNNClassifier, SktimeCCNNRegressor, as_arrays

Array = NDArray[Any]

QUICK: dict[str, Any] = {"effort": "quick", "epochs": 2, "random_state": 0, "verbose": False}
CLASSIFIERS = [AeonCCNNClassifier, SktimeCCNNClassifier]
REGRESSORS = [AeonCCNNRegressor, SktimeCCNNRegressor]


def equal() -> tuple[Array, Array]:
    """Ten signals (2, 15) of two classes."""
    return np.random.default_rng(0).standard_normal((10, 2, 15)), np.repeat(["up", "down"], 5)


def unequal() -> list[Array]:
    """Ten signals (2, length) of other lengths."""
    random = np.random.default_rng(1)
    return [random.standard_normal((2, length)) for length in range(9, 19)]


def passed(kind: type, signals: list[Array]) -> Any:
    """Signals of unequal length as the library of `kind` wants them."""
    return [pd.DataFrame(signal.T) for signal in signals] if kind.__name__.startswith("Sktime") else signals


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classifiers_predict_what_the_plain_one_does(kind: type) -> None:
    X, y = equal()
    plain, member = CCNNClassifier(**QUICK).fit(X, y), kind(**QUICK).fit(X, y)
    np.testing.assert_allclose(member.predict_proba(X), plain.predict_proba(X), rtol=0, atol=1e-12)
    assert member.predict(X).tolist() == plain.predict(X).tolist()
    assert list(member.classes_) == plain.classes_.tolist() == member.estimator_.classes_.tolist()


@pytest.mark.parametrize("kind", REGRESSORS)
def test_regressors_predict_what_the_plain_one_does(kind: type) -> None:
    X, _ = equal()
    y = 1e3 + np.arange(10.0)
    plain, member = CCNNRegressor(**QUICK).fit(X, y), kind(**QUICK).fit(X, y)
    np.testing.assert_allclose(member.predict(X), plain.predict(X), rtol=1e-12)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classifiers_take_signals_of_unequal_length(kind: type) -> None:
    X, (_, y) = unequal(), equal()
    plain, member = CCNNClassifier(**QUICK).fit(X, y), kind(**QUICK).fit(passed(kind, X), y)
    np.testing.assert_allclose(member.predict_proba(passed(kind, X)), plain.predict_proba(X), rtol=0, atol=1e-12)
    some = X[2:5]
    np.testing.assert_allclose(
        member.predict_proba(passed(kind, some)), plain.predict_proba(X)[2:5], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("kind", REGRESSORS)
def test_regressors_take_signals_of_unequal_length(kind: type) -> None:
    X, y = unequal(), np.arange(10.0)
    plain, member = CCNNRegressor(**QUICK).fit(X, y), kind(**QUICK).fit(passed(kind, X), y)
    np.testing.assert_allclose(member.predict(passed(kind, X)), plain.predict(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_gaps_are_interpolated_unless_another_policy_is_named(kind: type) -> None:
    X, y = equal()
    X[3, 1, 4:7] = np.nan
    for missing in ("interpolate", "mean"):
        plain = CCNNClassifier(**QUICK, missing=missing).fit(X, y)
        member = kind(**QUICK, missing=missing).fit(X, y)
        np.testing.assert_allclose(member.predict_proba(X), plain.predict_proba(X), rtol=0, atol=1e-12)
    assert kind().missing == "interpolate"


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_options_reach_the_plain_classifier(kind: type) -> None:
    X, y = equal()
    member = kind(**QUICK, class_weight="balanced", missing="mean").fit(X, y)
    parameters = member.estimator_.get_params()
    assert {name: parameters[name] for name in (*QUICK, "class_weight", "missing")} == {
        **QUICK,
        "class_weight": "balanced",
        "missing": "mean",
    }


def test_frames_become_arrays_with_channels_first() -> None:
    X = unequal()
    for array, signal in zip(as_arrays([pd.DataFrame(signal.T) for signal in X]), X, strict=True):
        assert np.array_equal(array, signal)
    stacked = as_arrays([pd.DataFrame(signal.T) for signal in equal()[0]])
    assert np.array_equal(stacked, equal()[0])


def test_the_plain_estimators_import_neither_library() -> None:
    script = """
import sys
import omniconv, omniconv.estimators
assert not {"aeon", "sktime"} & {name.split(".")[0] for name in sys.modules}
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
