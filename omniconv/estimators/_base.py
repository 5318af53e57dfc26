"""What the classifier and the regressor share."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from omniconv.data import CloudSamples, Samples, without_gaps
from omniconv.estimators._inputs import as_samples, checked_arrays, is_list, is_ragged
from omniconv.models import Network
from omniconv.training import CloudAugmentation, Predictor, Run, Task, choose, fit
from omniconv.training.architecture import with_given


class CCNNEstimator(BaseEstimator):
    """The parameters, inputs and files of both estimators; not for use by itself."""

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
        validation: float = 0.0,
        patience: int = 0,
        missing: str = "raise",
        augmentation: CloudAugmentation | None = None,
        device: str = "auto",
        verbose: bool | None = None,
        random_state: Any = None,
    ):
        self.effort = effort
        self.blocks = blocks
        self.width = width
        self.support_width = support_width
        self.causal = causal
        self.dropout = dropout
        self.group = group
        self.group_samples = group_samples
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.validation = validation
        self.patience = patience
        self.missing = missing
        self.augmentation = augmentation
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.missing != "raise"
        return tags

    def _samples(self, X: Any, times: Any, positions: Any, *, reset: bool) -> Samples:  # noqa: N803
        """X, sampled at `times` or `positions`, as samples; `reset`: whether it is learned from, or predicted."""
        if positions is not None:
            return self._clouds(X, times, positions, reset=reset)
        if is_ragged(X) or (is_list(X) and not reset):  # one signal is predicted as it is in the company of others
            signals: Any = checked_arrays(X)
            self._forget_features(reset)
        else:
            signals = check_array(
                X, dtype="numeric", ensure_all_finite=False, allow_nd=True, estimator=self, input_name="X"
            )
            self._check_features(X, signals.shape, reset)
            if signals.ndim > 5:
                raise ValueError(
                    f"X must be (n, length) or (n, channels, *size) with up to 3 axes; got {signals.shape}."
                )
        samples = as_samples(signals, self.missing, times)
        if not reset:
            self.predictor_.check(samples)
        return samples

    def _check_features(self, X: Any, shape: tuple[int, ...], reset: bool) -> None:  # noqa: N803
        """What scikit-learn asks of the columns of matrices; their number is a length, which other arrays leave free.

        Raises `ValueError` for a matrix (n, length) of another length than that which was learned from.
        """
        if len(shape) != 2:
            self._forget_features(reset)
        elif reset or hasattr(self, "n_features_in_"):
            try:
                validate_data(self, X, reset=reset, skip_check_array=True)
            except ValueError as error:
                if reset or shape[1] == self.n_features_in_:
                    raise
                raise ValueError(f"{error} Pass signals of another length as (n, 1, length), or as a list.") from None

    def _clouds(self, X: Any, times: Any, positions: Any, *, reset: bool) -> Samples:  # noqa: N803
        """Features X of points at `positions`, as samples."""
        if times is not None:
            raise ValueError("`times` and `positions` exclude each other. Leave one of them out.")
        self._forget_features(reset)
        samples = without_gaps(CloudSamples(positions, X), self.missing)
        if not reset:
            self.predictor_.check(samples)
        return samples

    def _forget_features(self, reset: bool) -> None:
        """Lengths are free: what an array that was learned from earlier had per sample says nothing."""
        for name in ("n_features_in_", "feature_names_in_"):
            if reset and hasattr(self, name):
                delattr(self, name)

    def _fit(self, samples: Samples, task: Task) -> None:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        chosen, recipe = choose(samples, self.effort, group=self.group, group_samples=self.group_samples)
        architecture = with_given(
            chosen,
            blocks=self.blocks,
            width=self.width,
            support_width=self.support_width,
            causal=self.causal,
            dropout=self.dropout,
        )
        recipe = with_given(
            recipe,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            patience=self.patience,
            augmentation=self.augmentation,
            seed=seed,
        )
        if self.augmentation is not None and not samples.space:
            raise ValueError("`augmentation` is for clouds of points, with `positions`. Leave it out.")
        run = Run(device=self.device, progress=self._shown)
        self.predictor_ = fit(samples, task, architecture, recipe, validation=self.validation, run=run)
        self.predictor_.about["missing"] = self.missing

    @property
    def _shown(self) -> bool:
        return sys.stderr.isatty() if self.verbose is None else self.verbose

    @property
    def model_(self) -> Network:
        """The torch module, to export and inspect; it takes signals in their own unit."""
        check_is_fitted(self, "predictor_")
        return self.predictor_.model

    def save(self, folder: str | Path) -> None:
        """Write config.json, model.safetensors and a model card into a folder.

        What `Predictor.load` and the command line read too. Raises `TypeError` for a `random_state` that is neither a
        number nor None.
        """
        check_is_fitted(self, "predictor_")
        parameters = {name: to_json(value) for name, value in self.get_params().items()}
        if not isinstance(self.random_state, (int, np.integer, type(None))):
            raise TypeError("`random_state` must be an integer or None to be saved; a generator has no JSON form.")
        parameters["random_state"] = None if self.random_state is None else int(self.random_state)
        fitted = {name: to_json(getattr(self, name)) for name in self._saved() if hasattr(self, name)}
        self.predictor_.about["estimator"] = {"class": type(self).__name__, "parameters": parameters, "fitted": fitted}
        self.predictor_.save(folder)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> Self:
        """What `save` wrote. Raises `ValueError` for a folder with something else, or with damaged files."""
        predictor = Predictor.load(folder, device=device)
        described = predictor.about.get("estimator", {})
        if described.get("class") != cls.__name__:
            raise ValueError(
                f"{folder} holds {described.get('class') or 'no estimator'}, not a {cls.__name__}. Load it with "
                "omniconv.training.Predictor.load."
            )
        try:
            estimator = cls(**{name: from_json(value) for name, value in described["parameters"].items()})
            for name in estimator._saved():
                if name in described["fitted"]:
                    setattr(estimator, name, from_json(described["fitted"][name]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder} does not fit this version of {cls.__name__}: {error!r}.") from error
        estimator.predictor_ = predictor
        return estimator

    def _saved(self) -> tuple[str, ...]:
        """Names of the fitted attributes that go into a file."""
        return ("n_features_in_", "feature_names_in_")


def to_json(value: Any) -> Any:
    """An attribute or parameter as JSON: arrays with their dtype, mappings with keys that need not be strings."""
    if isinstance(value, CloudAugmentation):
        return {"augmentation": asdict(value)}
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "values": value.tolist()}
    if isinstance(value, Mapping):
        return {"pairs": [[to_json(key), to_json(item)] for key, item in value.items()]}
    return value.item() if isinstance(value, np.generic) else value


def from_json(value: Any) -> Any:
    """What `to_json` described."""
    match value:
        case {"dtype": str(dtype), "values": list(values)}:
            return np.array(values, dtype=dtype)
        case {"pairs": list(pairs)}:
            return dict(pairs)
        case {"augmentation": dict(options)}:
            return CloudAugmentation(**options)
    return value
