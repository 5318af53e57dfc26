"""fit, predict and score for arrays and lists of arrays, as scikit-learn does it."""

from omniconv.estimators.classifier import CCNNClassifier as CCNNClassifier
from omniconv.estimators.regressor import CCNNRegressor as CCNNRegressor

__all__ = ["CCNNClassifier", "CCNNRegressor"]
