"""Regression on signals."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from omniconv.estimators._base import CCNNEstimator
from omniconv.training import infer_task

Array = NDArray[Any]


class CCNNRegressor(RegressorMixin, CCNNEstimator):
    """Predicts a number from sequences, images, volumes and clouds, of equal or unequal size.

    Parameters, X and what is fitted are those of `CCNNClassifier`, but for what concerns classes; y is (n,) numbers,
    in any unit.

    >>> X = np.sin(np.linspace(0, 6, 50) * np.arange(1, 21)[:, None])
    >>> regressor = CCNNRegressor(effort="quick", epochs=30, random_state=0).fit(X, np.arange(1.0, 21.0))
    >>> bool(regressor.score(X, np.arange(1.0, 21.0)) > 0.9)
    True

    Romero et al. 2022 (CCNN).
    """

    def fit(self, X: Any, y: Any, *, times: Any = None, positions: Any = None) -> Self:  # noqa: N803
        """Train a new network on signals X with numbers y."""
        samples = self._samples(X, times, positions, reset=True)
        numbers = column_or_1d(np.asarray(y), warn=True)
        check_consistent_length(samples.sizes, numbers)
        if numbers.dtype.kind not in "fiub":
            try:
                numbers = numbers.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(f"y must be numbers; got {numbers.dtype}.") from error
        if not np.isfinite(numbers).all():
            raise ValueError("y contains NaN or infinity. Remove these samples.")
        samples.targets = numbers.astype(np.float64)
        self._fit(samples, infer_task(samples.targets, name="regression"))
        return self

    def predict(self, X: Any, *, times: Any = None, positions: Any = None) -> Array:  # noqa: N803
        """The predicted number of every signal, (n,), float64."""
        check_is_fitted(self, "predictor_")
        return self.predictor_.predict(self._samples(X, times, positions, reset=False), progress=self._shown)

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, times: Any = None, positions: Any = None) -> float:  # noqa: N803
        """The coefficient of determination of the predictions of y."""
        return float(r2_score(y, self.predict(X, times=times, positions=positions), sample_weight=sample_weight))
