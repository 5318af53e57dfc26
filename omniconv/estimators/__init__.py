"""fit, predict and score for arrays and lists of arrays, as scikit-learn does it."""

from omniconv._errors import require

require("sklearn", extra="estimators", purpose="omniconv.estimators")  # before what imports it, which names no extra

from omniconv.estimators.classifier import CCNNClassifier as CCNNClassifier  # noqa: E402
from omniconv.estimators.regressor import CCNNRegressor as CCNNRegressor  # noqa: E402

__all__ = ["CCNNClassifier", "CCNNRegressor"]
