"""The estimators as members of sktime: imported only when asked for, because it imports sktime."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sktime.classification.base import BaseClassifier
from sktime.regression.base import BaseRegressor

from omniconv.estimators.classifier import CCNNClassifier
from omniconv.estimators.regressor import CCNNRegressor

Array = NDArray[Any]

TAGS: dict[str, Any] = {
    "authors": ["The omniconv authors"],
    "maintainers": ["The omniconv authors"],
    "python_dependencies": ["torch", "accelerate"],
    "X_inner_mtype": "df-list",
    "y_inner_mtype": "numpy1D",
    "capability:multivariate": True,
    "capability:unequal_length": True,
    "capability:missing_values": True,
    "capability:random_state": True,
    "property:randomness": "derandomized",
}


class SktimeCCNNClassifier(BaseClassifier):
    """`CCNNClassifier` as an sktime classifier.

    `effort`, `epochs`, `missing`, `class_weight`, `verbose`, `random_state`: as there; other options are those of
    `CCNNClassifier`, whose fitted form is `estimator_`.

    >>> import numpy as np
    >>> from omniconv.estimators.sktime import SktimeCCNNClassifier
    >>> X = np.random.default_rng(0).standard_normal((8, 1, 12))
    >>> SktimeCCNNClassifier(effort="quick", epochs=2, random_state=0).fit(X, np.repeat(["a", "b"], 4)).predict(X).shape
    (8,)

    Parameters
    ----------
    effort : str
    epochs : int or None
    missing : str
    class_weight : dict, str or None
    verbose : bool or None
    random_state : int or None
    """

    _tags: ClassVar[dict[str, Any]] = {
        **TAGS,
        "capability:predict_proba": True,
        "capability:class_weight": True,
    }

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

    def _fit(self, X: Any, y: Array) -> SktimeCCNNClassifier:  # noqa: N803
        self.estimator_ = CCNNClassifier(**self.get_params(deep=False)).fit(as_arrays(X), y)
        return self

    def _predict(self, X: Any) -> Array:  # noqa: N803
        return self.estimator_.predict(as_arrays(X))

    def _predict_proba(self, X: Any) -> Array:  # noqa: N803
        return self.estimator_.predict_proba(as_arrays(X))

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Parameters with which a fit takes a moment."""
        return [{"effort": "quick", "epochs": 3}, {"effort": "quick", "epochs": 2, "missing": "mean"}]


class SktimeCCNNRegressor(BaseRegressor):
    """`CCNNRegressor` as an sktime regressor; parameters as in `SktimeCCNNClassifier`.

    >>> import numpy as np
    >>> from omniconv.estimators.sktime import SktimeCCNNRegressor
    >>> X = np.random.default_rng(0).standard_normal((8, 1, 12))
    >>> SktimeCCNNRegressor(effort="quick", epochs=2, random_state=0).fit(X, np.arange(8.0)).predict(X).shape
    (8,)

    Parameters
    ----------
    effort : str
    epochs : int or None
    missing : str
    verbose : bool or None
    random_state : int or None
    """

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

    def _fit(self, X: Any, y: Array) -> SktimeCCNNRegressor:  # noqa: N803
        self.estimator_ = CCNNRegressor(**self.get_params(deep=False)).fit(as_arrays(X), y)
        return self

    def _predict(self, X: Any) -> Array:  # noqa: N803
        return self.estimator_.predict(as_arrays(X))

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Parameters with which a fit takes a moment."""
        return [{"effort": "quick", "epochs": 3}, {"effort": "quick", "epochs": 2, "missing": "mean"}]


def as_arrays(frames: Any) -> Any:
    """Frames, a row per time and a column per channel, as arrays (channels, length); stacked where they are equal."""
    arrays = [frame.to_numpy(dtype=np.float64).T for frame in frames]
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
