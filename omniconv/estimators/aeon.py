"""The estimators as members of aeon: imported only when asked for, because it imports aeon."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from aeon.classification.base import BaseClassifier
from aeon.regression.base import BaseRegressor
from numpy.typing import NDArray

from omniconv.estimators.classifier import CCNNClassifier
from omniconv.estimators.regressor import CCNNRegressor

Array = NDArray[Any]

TAGS: dict[str, Any] = {
    "X_inner_type": ["numpy3D", "np-list"],
    "capability:multivariate": True,
    "capability:unequal_length": True,
    "capability:missing_values": True,
    "algorithm_type": "deeplearning",
    "python_dependencies": ["torch", "accelerate"],
}


class AeonCCNNClassifier(BaseClassifier):
    """`CCNNClassifier` as an aeon classifier.

    `effort`, `epochs`, `missing`, `class_weight`, `verbose`, `random_state`: as there; other options are those of
    `CCNNClassifier`, whose fitted form is `estimator_`.

    >>> from aeon.testing.data_generation import make_example_3d_numpy
    >>> X, y = make_example_3d_numpy(n_cases=10, n_timepoints=12, random_state=0)
    >>> AeonCCNNClassifier(effort="quick", epochs=2, random_state=0).fit(X, y).predict(X).shape
    (10,)
    """

    _tags: ClassVar[dict[str, Any]] = TAGS

    def __init__(
        self,
        effort: str = "standard",
        epochs: int | None = None,
        missing: str = "interpolate",
        class_weight: Any = None,
        verbose: bool | None = None,
        random_state: Any = None,
    ):
        self.effort = effort
        self.epochs = epochs
        self.missing = missing
        self.class_weight = class_weight
        self.verbose = verbose
        self.random_state = random_state
        super().__init__()

    def _fit(self, X: Any, y: Array) -> AeonCCNNClassifier:  # noqa: N803
        self.estimator_ = CCNNClassifier(**self.get_params(deep=False)).fit(X, y)
        return self

    def _predict(self, X: Any) -> Array:  # noqa: N803
        return self.estimator_.predict(X)

    def _predict_proba(self, X: Any) -> Array:  # noqa: N803
        return self.estimator_.predict_proba(X)

    @classmethod
    def _get_test_params(cls, parameter_set: str = "default") -> dict[str, Any]:
        return {"effort": "quick", "epochs": 3}


class AeonCCNNRegressor(BaseRegressor):
    """`CCNNRegressor` as an aeon regressor; parameters as in `AeonCCNNClassifier`."""

    _tags: ClassVar[dict[str, Any]] = TAGS

    def __init__(
        self,
        effort: str = "standard",
        epochs: int | None = None,
        missing: str = "interpolate",
        verbose: bool | None = None,
        random_state: Any = None,
    ):
        self.effort = effort
        self.epochs = epochs
        self.missing = missing
        self.verbose = verbose
        self.random_state = random_state
        super().__init__()

    def _fit(self, X: Any, y: Array) -> AeonCCNNRegressor:  # noqa: N803
        self.estimator_ = CCNNRegressor(**self.get_params(deep=False)).fit(X, y)
        return self

    def _predict(self, X: Any) -> Array:  # noqa: N803
        return np.asarray(self.estimator_.predict(X))

    @classmethod
    def _get_test_params(cls, parameter_set: str = "default") -> dict[str, Any]:
        return {"effort": "quick", "epochs": 3}
