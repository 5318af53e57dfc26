"""What is learned: how targets become tensors, outputs become predictions, and how good they are."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from omniconv._errors import check_choice, check_number, check_probability, describe
from omniconv.models import Network

Array = NDArray[Any]


class Task(ABC):
    """`name`: in saved files. `metric`: what `score` is called; higher is better. `out_features`: of the network."""

    name: ClassVar[str]
    metric: ClassVar[str]

    @property
    @abstractmethod
    def out_features(self) -> int:
        """Outputs that the network needs."""

    @abstractmethod
    def encode(self, targets: Array) -> Tensor:
        """Targets (n,) as a tensor for `losses`; raises `ValueError` for a target that cannot be."""

    @abstractmethod
    def losses(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """The loss of every sample, (n,), from outputs (n, out_features)."""

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Array:
        """Predicted targets (n,)."""

    @abstractmethod
    def metrics(self, outputs: Tensor, targets: Array) -> dict[str, float]:
        """Every figure of merit by name, `metric` among them."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """The task as JSON, for `task_from`."""

    def score(self, outputs: Tensor, targets: Array) -> float:
        """The value of `metric`."""
        return self.metrics(outputs, targets)[self.metric]


@dataclass(frozen=True)
class Classification(Task):
    """One of `classes`, labels of one kind in sorted order.

    `weights`: how much a sample of each class counts in the loss, at least 0, or None for 1. `label_smoothing`: [0, 1).
    Raises `ValueError` or `TypeError` that names what cannot be.

    >>> Classification(("ebb", "flow")).encode(np.array(["flow", "ebb"])).tolist()
    [1, 0]
    """

    name = "classification"
    metric = "accuracy"

    classes: tuple[Any, ...]
    weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        labels: Any = self.classes
        if isinstance(labels, str) or not isinstance(labels, Iterable):
            raise TypeError(f"`classes` must be a tuple of labels; got {describe(labels)}.")
        plain = tuple(label.item() if isinstance(label, np.generic) else label for label in labels)
        object.__setattr__(self, "classes", plain)
        if len(self.classes) < 2:
            raise ValueError(
                f"`classes` must be at least two; got {list(self.classes)}. With one class there is nothing to learn."
            )
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"`classes` must differ; got {list(self.classes)}. Give every label once.")
        if self.weights is not None:
            object.__setattr__(self, "weights", check_weights(self.weights, len(self.classes)))
        check_probability("label_smoothing", self.label_smoothing)

    @property
    def out_features(self) -> int:
        return len(self.classes)

    def encode(self, targets: Array) -> Tensor:
        positions = {label: position for position, label in enumerate(self.classes)}
        labels = np.asarray(targets).tolist()
        unknown = sorted({repr(label) for label in labels if label not in positions})
        if unknown:
            raise ValueError(
                f"`targets` must be among the classes {list(self.classes)[:5]}; got {', '.join(unknown[:5])} too."
            )
        return torch.tensor([positions[label] for label in labels], dtype=torch.int64)

    def losses(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        check_outputs(outputs, self)
        losses = F.cross_entropy(outputs, encoded, reduction="none", label_smoothing=self.label_smoothing)
        if self.weights is None:
            return losses
        return losses * torch.tensor(self.weights, dtype=losses.dtype, device=losses.device)[encoded]

    def predictions(self, outputs: Tensor) -> Array:
        return np.asarray(self.classes)[outputs.argmax(-1).cpu().numpy()]

    def probabilities(self, outputs: Tensor) -> Array:
        """Probability of every class, (n, classes), float64."""
        return outputs.cpu().double().softmax(-1).numpy()

    def metrics(self, outputs: Tensor, targets: Array) -> dict[str, float]:
        outputs, encoded = outputs.cpu(), self.encode(targets)
        right = outputs.argmax(-1) == encoded
        recalls = [right[encoded == label].double().mean() for label in encoded.unique()]
        loss = F.cross_entropy(outputs.double(), encoded)
        return {
            "accuracy": right.double().mean().item(),
            "balanced_accuracy": torch.stack(recalls).mean().item(),
            "log_loss": loss.item(),
        }

    def described(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "classes": list(self.classes),
            "weights": None if self.weights is None else list(self.weights),
            "label_smoothing": self.label_smoothing,
        }


@dataclass(frozen=True)
class Regression(Task):
    """A number; the network learns (target - mean) / std.

    >>> Regression(mean=10.0, std=2.0).predictions(torch.tensor([[1.0]])).tolist()
    [12.0]
    """

    name = "regression"
    metric = "r2"

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", check_number("mean", self.mean, low=-math.inf))
        object.__setattr__(self, "std", check_number("std", self.std, low=0.0))

    @property
    def out_features(self) -> int:
        return 1

    def encode(self, targets: Array) -> Tensor:
        numbers = np.asarray(targets)
        if numbers.dtype.kind not in "fiub" or not np.isfinite(numbers).all():
            raise ValueError("`targets` must be finite numbers for regression; got others, or missing ones.")
        return torch.from_numpy((numbers.astype(np.float64) - self.mean) / self.std).float()

    def losses(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        check_outputs(outputs, self)
        return (outputs.squeeze(-1) - encoded).square()

    def predictions(self, outputs: Tensor) -> Array:
        return outputs.cpu().double().squeeze(-1).numpy() * self.std + self.mean

    def metrics(self, outputs: Tensor, targets: Array) -> dict[str, float]:
        numbers = np.asarray(targets, dtype=np.float64)
        errors = self.predictions(outputs) - numbers
        spread = float(np.square(numbers - numbers.mean()).sum())
        squares = float(np.square(errors).sum())
        r2 = 1 - squares / spread if spread > 0 else float(squares == 0)
        return {"r2": r2, "rmse": float(np.sqrt(np.mean(errors**2))), "mae": float(np.abs(errors).mean())}

    def described(self) -> dict[str, Any]:
        return {"name": self.name, "mean": self.mean, "std": self.std}


def check_weights(weights: Any, classes: int) -> tuple[float, ...]:
    """The weights of that many classes as floats; raises unless there is one for each, at least 0, and not all 0."""
    if isinstance(weights, str) or not isinstance(weights, Iterable):
        raise TypeError(f"`weights` must be a tuple of numbers; got {describe(weights)}.")
    numbers = tuple(check_number("weights", weight, low=0.0, closed=True) for weight in weights)
    if len(numbers) != classes:
        raise ValueError(f"`weights` must be one per class, {classes}; got {len(numbers)}.")
    if not any(numbers):
        raise ValueError("`weights` must not all be 0: nothing would be learned. Leave them out to count all alike.")
    return numbers


def check_network_of(model: Network, task: Task) -> None:
    """Raise `ValueError` unless the network has as many outputs as the task needs."""
    if model.out_features != task.out_features:
        raise ValueError(
            f"`model` must have {task.out_features} output{'s' if task.out_features > 1 else ''} for this {task.name}; "
            f"got {type(model).__name__} with {model.out_features}. Build it with that many, or choose another task."
        )


def check_outputs(outputs: Tensor, task: Task) -> None:
    """Raise `ValueError` unless there are as many outputs for every sample as the task needs."""
    if outputs.ndim != 2 or outputs.shape[1] != task.out_features:
        raise ValueError(
            f"`model` must give (n, {task.out_features}) outputs for this {task.name}; got {tuple(outputs.shape)}. "
            "Give it that many outputs, or choose another task."
        )


def infer_task(targets: Array, *, name: str = "auto", balanced: bool = False, label_smoothing: float = 0.0) -> Task:
    """The task that targets (n,) make: numbers to predict, or labels.

    Numbers are predicted if some have fractions, or if there are more than 20 different ones and every other sample has
    one of its own; everything else is labels. `name`: "auto", or "classification" or "regression" to decide it.
    `balanced`: weigh classes by one over their count. Raises `ValueError` for one class only, missing labels, words
    where numbers are asked for, and options of classification for regression.
    """
    check_choice("name", name, ("auto", "classification", "regression"))
    values = np.asarray(targets)
    numeric = values.dtype.kind == "f"
    if numeric and not np.isfinite(values).all():
        raise ValueError(f"`targets` must not be missing; {int((~np.isfinite(values)).sum())} of {len(values)} are.")
    if values.dtype.kind == "O" and (missing := sum(label is None or label != label for label in values)):
        raise ValueError(f"`targets` must not be missing; {missing} of {len(values)} are.")
    if name == "regression" or (name == "auto" and looks_like_numbers(values)):
        if balanced or label_smoothing:
            raise ValueError("`balanced` and `label_smoothing` are for classification; the targets are numbers.")
        if values.dtype.kind not in "fiu":
            raise ValueError(f"`targets` must be numbers for regression; got {values.dtype}.")
        std = float(values.astype(np.float64).std())
        return Regression(float(values.astype(np.float64).mean()), std if std > 0 else 1.0)
    classes, counts = np.unique(values, return_counts=True)
    return Classification(
        tuple(classes.tolist()), balanced_weights(counts) if balanced else None, label_smoothing=label_smoothing
    )


def looks_like_numbers(values: Array) -> bool:
    """Whether targets are quantities rather than labels."""
    if values.dtype.kind not in "fiu":
        return False
    different = len(np.unique(values))
    return bool((values != np.round(values)).any()) or different > max(20, len(values) / 2)


def balanced_weights(counts: Sequence[int] | Array) -> tuple[float, ...]:
    """Weights that let every class count alike: n / (classes * count), 1 on average over the samples."""
    total = np.asarray(counts, dtype=np.float64)
    return tuple((total.sum() / (len(total) * total)).tolist())


def task_from(described: Mapping[str, Any]) -> Task:
    """The task that `Task.described` described; raises `ValueError` for anything else."""
    match described:
        case {"name": "classification", "classes": list(classes)}:
            weights = described.get("weights")
            smoothing = described.get("label_smoothing", 0.0)
            return Classification(tuple(classes), None if weights is None else tuple(weights), smoothing)
        case {"name": "regression", "mean": int() | float() as mean, "std": int() | float() as std}:
            return Regression(mean, std)
    raise ValueError(f"{described!r} does not describe a task.")
