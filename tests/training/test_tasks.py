from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from numpy.typing import NDArray
from torch import Tensor

from omniconv.training import Classification, Regression, Task, infer_task
from omniconv.training.tasks import balanced_weights, task_from

CLASSES = ("ebb", "flow", "slack")
ENCODED = torch.tensor([0, 2, 1, 1, 0, 2, 2])
OUTPUTS = torch.randn(7, 3, generator=torch.Generator().manual_seed(3))
"""Of seven samples, of which some are right."""


def labels(encoded: Tensor) -> NDArray[Any]:
    return np.array(CLASSES)[encoded.numpy()]


def cross_entropies(outputs: Tensor, encoded: Tensor, smoothing: float = 0.0) -> Tensor:
    """-sum over classes of target probability times log-probability, where smoothing shares out some of it alike."""
    target = torch.zeros_like(outputs)
    target[torch.arange(len(encoded)), encoded] = 1.0
    target = (1 - smoothing) * target + smoothing / outputs.shape[1]
    return -(target * (outputs - outputs.exp().sum(1, keepdim=True).log())).sum(1)


def test_labels_are_encoded_as_positions_among_the_classes_and_come_back() -> None:
    task = Classification(CLASSES)
    assert task.out_features == 3
    assert torch.equal(task.encode(labels(ENCODED)), ENCODED)
    assert task.predictions(torch.eye(3)[ENCODED]).tolist() == labels(ENCODED).tolist()


@pytest.mark.parametrize("classes", [(0, 1), (False, True), (-1.0, 2.0), ("a", "b")])
def test_labels_of_every_kind_come_back_as_they_were(classes: tuple[Any, ...]) -> None:
    task = Classification(classes)
    assert task.encode(np.array([classes[1], classes[0]])).tolist() == [1, 0]
    assert task.predictions(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist() == [classes[1], classes[0]]


def test_an_unknown_label_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"`targets` must be among the classes \['ebb', 'flow', 'slack'\]; got 'tide'"):
        Classification(CLASSES).encode(np.array(["ebb", "tide"]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_the_loss_is_the_smoothed_cross_entropy(smoothing: float) -> None:
    found = Classification(CLASSES, label_smoothing=smoothing).losses(OUTPUTS, ENCODED)
    torch.testing.assert_close(found, cross_entropies(OUTPUTS, ENCODED, smoothing))


def test_class_weights_multiply_the_loss_of_their_samples() -> None:
    found = Classification(CLASSES, weights=(1.0, 2.0, 0.5)).losses(OUTPUTS, ENCODED)
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0, 0.5])[ENCODED] * cross_entropies(OUTPUTS, ENCODED))


def test_balanced_weights_give_every_class_the_same_sum_and_the_samples_a_mean_of_one() -> None:
    counts = np.array([2, 8, 5])
    found = np.array(balanced_weights(counts))
    np.testing.assert_allclose(found * counts, np.full(3, 15 / 3))
    assert np.repeat(found, counts).mean() == pytest.approx(1.0)


def test_figures_of_classification_are_those_of_scikit_learn() -> None:
    task, targets = Classification(CLASSES), labels(ENCODED)
    found, predictions = task.metrics(OUTPUTS, targets), task.predictions(OUTPUTS)
    assert 0 < sklearn.metrics.accuracy_score(targets, predictions) < 1
    assert found == {
        "accuracy": pytest.approx(sklearn.metrics.accuracy_score(targets, predictions)),
        "balanced_accuracy": pytest.approx(sklearn.metrics.balanced_accuracy_score(targets, predictions)),
        "log_loss": pytest.approx(
            sklearn.metrics.log_loss(targets, task.probabilities(OUTPUTS), labels=list(CLASSES)), rel=1e-12
        ),
    }
    assert task.score(OUTPUTS, targets) == found["accuracy"]


def test_a_class_without_samples_leaves_balanced_accuracy_to_the_others() -> None:
    encoded = torch.tensor([0, 0, 0, 1])
    outputs = torch.eye(3)[torch.tensor([0, 0, 1, 1])]
    assert Classification(CLASSES).metrics(outputs, labels(encoded))["balanced_accuracy"] == pytest.approx(
        (2 / 3 + 1) / 2
    )


def test_probabilities_are_the_softmax_in_float64() -> None:
    found = Classification(CLASSES).probabilities(OUTPUTS)
    expected = OUTPUTS.double().exp() / OUTPUTS.double().exp().sum(1, keepdim=True)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12)


def test_numbers_are_learned_in_units_of_their_deviation_and_predicted_in_their_own() -> None:
    task, targets = Regression(mean=10.0, std=4.0), np.array([10.0, 14.0, 2.0])
    assert task.encode(targets).tolist() == [0.0, 1.0, -2.0]
    assert task.predictions(task.encode(targets)[:, None]).tolist() == targets.tolist()
    outputs = torch.tensor([[0.5], [1.0], [0.0]])
    assert task.losses(outputs, task.encode(targets)).tolist() == [0.25, 0.0, 4.0]


def test_figures_of_regression_are_those_of_scikit_learn() -> None:
    task, targets = Regression(mean=3.0, std=2.0), np.array([1.0, 2.5, 4.0, 8.0])
    outputs = torch.tensor([[-1.0], [0.0], [1.0], [2.0]])
    predictions = task.predictions(outputs)
    assert task.metrics(outputs, targets) == {
        "r2": pytest.approx(sklearn.metrics.r2_score(targets, predictions), rel=1e-12),
        "rmse": pytest.approx(sklearn.metrics.root_mean_squared_error(targets, predictions), rel=1e-12),
        "mae": pytest.approx(sklearn.metrics.mean_absolute_error(targets, predictions), rel=1e-12),
    }
    assert task.score(outputs, targets) == task.metrics(outputs, targets)["r2"]


@pytest.mark.parametrize(("output", "r2"), [(0.0, 1.0), (1.0, 0.0)])
def test_r2_of_targets_that_are_all_the_same_is_one_or_nothing(output: float, r2: float) -> None:
    assert Regression(mean=2.0).metrics(torch.full((3, 1), output), np.full(3, 2.0))["r2"] == r2


@pytest.mark.parametrize("targets", [np.array([1.0, math.nan]), np.array([1.0, math.inf]), np.array(["1", "2"])])
def test_targets_that_are_no_finite_numbers_are_refused(targets: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="`targets` must be finite numbers for regression"):
        Regression().encode(targets)


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        (np.array([3, 1, 1, 2]), (1, 2, 3)),
        (np.array([2.0, 1.0, 2.0]), (1.0, 2.0)),
        (np.array(["b", "a"]), ("a", "b")),
        (np.array(["b", "a"], dtype=object), ("a", "b")),
        (np.array([True, False]), (False, True)),
    ],
)
def test_whole_numbers_and_words_are_labels(targets: NDArray[Any], classes: tuple[Any, ...]) -> None:
    assert infer_task(targets) == Classification(classes)


def test_numbers_with_fractions_are_predicted_with_their_mean_and_deviation() -> None:
    assert infer_task(np.array([0.5, 2.0, 3.5])) == Regression(2.0, np.std([-1.5, 0.0, 1.5]).item())


def test_who_says_what_the_task_is_decides() -> None:
    assert infer_task(np.array([1, 3]), name="regression") == Regression(2.0, 1.0)
    assert infer_task(np.array([0.5, 1.5]), name="classification") == Classification((0.5, 1.5))


def test_numbers_that_are_all_the_same_are_not_divided_by_nothing() -> None:
    assert infer_task(np.full(3, 0.5)) == Regression(0.5, 1.0)


def test_balance_and_smoothing_go_into_the_task() -> None:
    found = infer_task(np.array(["a", "a", "a", "b"]), balanced=True, label_smoothing=0.2)
    assert found == Classification(("a", "b"), weights=(4 / 6, 4 / 2), label_smoothing=0.2)


@pytest.mark.parametrize(
    ("targets", "name", "message"),
    [
        (np.array(["a", "a"]), "auto", r"`classes` must be at least two; got \['a'\]"),
        (np.array([2.0, 2.0]), "auto", r"`classes` must be at least two; got \[2.0\]"),
        (np.array([1.0, math.nan, math.inf]), "auto", "`targets` must not be missing; 2 of 3 are"),
        (np.array(["a", None, "b"], dtype=object), "auto", "`targets` must not be missing; 1 of 3 are"),
        (np.array(["a", math.nan, "b"], dtype=object), "auto", "`targets` must not be missing; 1 of 3 are"),
        (np.array(["1", "2"]), "regression", "`targets` must be numbers for regression; got <U1"),
        (
            np.array([1.0, 2.0]),
            "ranking",
            "`name` must be one of 'auto', 'classification', 'regression'; got 'ranking'",
        ),
    ],
)
def test_targets_that_make_no_task_are_refused(targets: NDArray[Any], name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        infer_task(targets, name=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("a",)}, "`classes` must be at least two"),
        ({"classes": ("a", "b"), "weights": (1.0,)}, "`weights` must be one per class, 2; got 1"),
        (
            {"classes": ("a", "b"), "label_smoothing": 1.5},
            "`label_smoothing` must be a probability below 1; got 1.5",
        ),
    ],
)
def test_a_classification_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classification(**options)


def test_a_deviation_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`std` must be finite and above 0; got 0\.0"):
        Regression(std=0.0)


@pytest.mark.parametrize(
    "task",
    [
        Classification(("a", "b")),
        Classification((1, 2, 3), weights=(0.5, 1.0, 1.5)),
        Regression(),
        Regression(mean=0.1, std=1 / 3),
    ],
)
def test_a_task_comes_back_from_json(task: Task) -> None:
    assert task_from(json.loads(json.dumps(task.described()))) == task


@pytest.mark.parametrize(
    "described",
    [
        {},
        {"name": "ranking"},
        {"name": "classification"},
        {"name": "classification", "classes": "ab"},
        {"name": "regression", "mean": "0", "std": 1.0},
    ],
)
def test_what_describes_no_task_is_refused(described: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="does not describe a task"):
        task_from(described)
