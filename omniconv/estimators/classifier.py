"""Classification of signals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from omniconv._errors import check_number
from omniconv.estimators._base import CCNNEstimator
from omniconv.training import Classification, CloudAugmentation

Array = NDArray[Any]


class CCNNClassifier(ClassifierMixin, CCNNEstimator):
    """Classifies sequences, images, volumes and clouds, of equal or unequal size, by continuous convolutions.

    X is (n, length), (n, channels, length), (n, channels, height, width), (n, channels, depth, height, width), or a
    list of arrays (length,) or (channels, *size) of unequal size. y is (n,) labels of any kind.

    `effort`: "quick", "standard" or "strong" chooses everything that is None, by the size of the data.
    `blocks`, `width`: residual blocks and their channels. `support_width`: initial width of the learned supports, in
    samples. `causal`: whether the network may look at the past only. `dropout`: [0, 1).
    `group`: transformations that are to leave the answer as it is, of signals of one size: "SO2" (rotations of images),
    "O2" (reflections too), "SO3" (rotations of volumes); None for translations alone. `group_samples`: so many of its
    elements; None for 8, 16 and 24. Signals of another size than those of the training can still be predicted.
    `epochs`, `batch_size`, `lr`, `weight_decay`: of the training.
    `class_weight`: None, "balanced" or a mapping from labels to weights. `label_smoothing`: [0, 1).
    `validation`: share of the training samples that chooses the best epoch, [0, 1); 0 trains on all. `patience`: epochs
    without improvement after which training ends, 0 for never.
    `missing`: what NaN means: "raise", "absent" (not observed at that time; series only), "interpolate" (linearly in
    time) or "mean" (of the channel in that signal).
    `augmentation`: how clouds are changed in every step of the training, a `CloudAugmentation`; its `vectors` say how
    many of the features, such as normals, turn with a cloud. None for as they are; only with `positions`.
    `device`: "auto" or "cpu". `verbose`: whether progress is shown; None: on a terminal.
    `random_state`: seed of weights, batches and drop-out; None draws one from numpy's global random state. Otherwise no
    global random state is touched.

    `fit`, `predict`, `predict_proba` and `score` take the `times` at which series were sampled: an array of numbers
    (length,) per series, or one for all, in any unit. Then the network convolves at these very times; with `times`, NaN
    in X needs missing="absent". With `positions`, an array (n, points, dim) or a list of arrays (points, dim), X is
    clouds of points: their features, (n, channels, points) or a list of arrays (channels, points), or None for points
    that are nothing but where they are. Then the network is a `GriddedNet`, and every cloud counts about its mean and
    in the unit of its largest coordinate.

    Fitted: `classes_`, `model_` (the torch module), `n_features_in_` (the length, of an array (n, length): signals of
    another are passed as (n, 1, length) or as a list). Raises `ValueError` or `TypeError` that names what is wrong with
    X, y or a parameter.

    >>> X = np.sin(np.linspace(0, 6, 50) * np.repeat([1, 3], 10)[:, None] + np.arange(20)[:, None])
    >>> classifier = CCNNClassifier(effort="quick", epochs=20, random_state=0).fit(X, ["slow"] * 10 + ["fast"] * 10)
    >>> classifier.predict(X[:2]).tolist()
    ['slow', 'slow']

    Romero et al. 2022 (CCNN).
    """

    def __init__(
        self,
        *,
        effort: str = "standard",
        blocks: int | None = None,
        width: int | None = None,
        support_width: float | None = None,
        causal: bool = False,
        dropout: float = 0.1,
        group: str | None = None,
        group_samples: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float = 0.01,
        weight_decay: float = 0.01,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        validation: float = 0.0,
        patience: int = 0,
        missing: str = "raise",
        augmentation: CloudAugmentation | None = None,
        device: str = "auto",
        verbose: bool | None = None,
        random_state: Any = None,
    ):
        super().__init__(
            effort=effort,
            blocks=blocks,
            width=width,
            support_width=support_width,
            causal=causal,
            dropout=dropout,
            group=group,
            group_samples=group_samples,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            validation=validation,
            patience=patience,
            missing=missing,
            augmentation=augmentation,
            device=device,
            verbose=verbose,
            random_state=random_state,
        )
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing

    def fit(self, X: Any, y: Any, *, times: Any = None, positions: Any = None) -> Self:  # noqa: N803
        """Train a new network on signals X with labels y."""
        samples = self._samples(X, times, positions, reset=True)
        labels = column_or_1d(np.asarray(y), warn=True)
        check_classification_targets(labels)
        check_consistent_length(samples.sizes, labels)
        self.classes_, encoded = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least two classes; got one class only, {self.classes_[0]!r}.")
        weights = self._weights(labels, encoded)
        samples.targets = labels
        task = Classification(
            tuple(self.classes_.tolist()),
            None if weights is None else tuple(weights.tolist()),
            label_smoothing=self.label_smoothing,
        )
        self._fit(samples, task)
        return self

    def _weights(self, labels: Array, encoded: Array) -> Array | None:
        """How much a sample of every class counts; raises unless `class_weight` says so, with numbers of at least 0."""
        given = self.class_weight
        if given is None:
            return None
        if given != "balanced" and not isinstance(given, Mapping):
            raise ValueError(
                f'`class_weight` must be None, "balanced" or a dict from labels to numbers; got {given!r}.'
            )
        if isinstance(given, Mapping):
            for label, weight in given.items():
                check_number(f"class_weight[{label!r}]", weight, low=0.0, closed=True)
        weights: Array = compute_class_weight(given, classes=self.classes_, y=labels)
        if not weights.any():
            raise ValueError("`class_weight` must not be 0 for all classes: nothing would be learned.")
        return weights / weights[encoded].mean()  # 1 on average: the learning rate keeps its meaning

    def predict_proba(self, X: Any, *, times: Any = None, positions: Any = None) -> Array:  # noqa: N803
        """The probability of every class, (n, classes), in the order of `classes_`."""
        check_is_fitted(self, "predictor_")
        return self.predictor_.probabilities(self._samples(X, times, positions, reset=False), progress=self._shown)

    def predict(self, X: Any, *, times: Any = None, positions: Any = None) -> Array:  # noqa: N803
        """The most probable label of every signal, (n,)."""
        # First: it checks whether there are classes at all.
        probabilities = self.predict_proba(X, times=times, positions=positions)
        return self.classes_[probabilities.argmax(1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, times: Any = None, positions: Any = None) -> float:  # noqa: N803
        """The share of labels y that are predicted."""
        return float(accuracy_score(y, self.predict(X, times=times, positions=positions), sample_weight=sample_weight))

    def _saved(self) -> tuple[str, ...]:
        return (*super()._saved(), "classes_")
