"""Networks, tasks, samples and options that do not fit together are refused by name, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from omniconv import CCNN
from omniconv.data import ArraySamples
from omniconv.training import (
    Architecture,
    Classification,
    Language,
    NextToken,
    Predictor,
    Recipe,
    Regression,
    accuracy,
    choose,
    fit,
    infer_task,
    outputs_of,
    train,
)
from tests.training.makers import LENGTH, TASK, Means, network, waves

SAMPLES = waves(6)
SHORT = Recipe(epochs=1, batch_size=3)
THREE = Classification(("fast", "slow", "still"))
ONE = Regression()


def of_numbers() -> ArraySamples:
    return ArraySamples(np.zeros((4, 1, LENGTH)), np.arange(4.0))


def trained(**changes: Any) -> Callable[[], Any]:
    given: dict[str, Any] = {"model": network(), "task": TASK, "samples": SAMPLES} | changes
    return lambda: train(**given)


def fitted(**changes: Any) -> Callable[[], Any]:
    given: dict[str, Any] = {
        "samples": SAMPLES,
        "task": TASK,
        "architecture": Architecture(blocks=1, width=4),
        "recipe": SHORT,
    }
    return lambda: fit(**(given | changes))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (trained(task=THREE), "`model` must have 3 outputs for this classification; got CCNN with 2"),
        (trained(task=ONE, samples=of_numbers()), "`model` must have 1 output for this regression; got CCNN with 2"),
        (trained(task=THREE, model=Means()), r"`model` must give \(n, 3\) outputs for this classification; .*\(6, 2\)"),
        (
            trained(task=ONE, samples=of_numbers(), model=Means()),
            r"`model` must give \(n, 1\) outputs for this regression; .*\(4, 2\)",
        ),
        (lambda: Predictor(network(), THREE), "`model` must have 3 outputs for this classification; got CCNN with 2"),
        (lambda: Predictor(network(), ONE), "`model` must have 1 output for this regression; got CCNN with 2"),
    ],
)
def test_a_network_with_other_outputs_than_the_task_is_refused(call: Callable[[], Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (trained(model=None), "`model` must be a torch.nn.Module; got NoneType None"),
        (trained(task=None), "`task` must be a Task; got NoneType None. .*infer_task"),
        (trained(task="classification"), "`task` must be a Task; got str 'classification'"),
        (trained(samples=None), "`samples` must be Samples; got NoneType None. .*ArraySamples"),
        (trained(samples=np.zeros((2, 1, 4))), "`samples` must be Samples; got a float64 array"),
        (trained(validation=3), "`validation` must be Samples; got int 3"),
        (trained(recipe=3), "`recipe` must be a Recipe; got int 3"),
        (trained(run=3), "`run` must be a Run; got int 3"),
        (trained(run="folder"), r"`run` must be a Run; got str 'folder'. Write Run\(folder=...\)"),
        (fitted(samples=None), "`samples` must be Samples; got NoneType None"),
        (fitted(task=None), "`task` must be a Task; got NoneType None"),
        (fitted(architecture=None), "`architecture` must be an Architecture; got NoneType None. .*choose"),
        (fitted(recipe=None), "`recipe` must be a Recipe; got NoneType None"),
        (fitted(recipe="quick"), "`recipe` must be a Recipe; got str 'quick'"),
        (fitted(run=1), "`run` must be a Run; got int 1"),
        (fitted(validation="0.2"), "`validation` must be a number; got str '0.2'"),
        (fitted(validation=None), "`validation` must be a number; got NoneType None"),
        (lambda: choose(None), "`samples` must be Samples; got NoneType None"),  # type: ignore[arg-type]
        (lambda: choose(SAMPLES, processes=1.5), "`processes` must be an integer; got float 1.5"),  # type: ignore[arg-type]
        (lambda: outputs_of(None, SAMPLES), "`model` must be a torch.nn.Module; got NoneType None"),  # type: ignore[arg-type]
        (lambda: outputs_of(network(), 3), "`samples` must be Samples; got int 3"),  # type: ignore[arg-type]
        (lambda: Predictor(None, TASK), "`model` must be a Network; got NoneType None"),  # type: ignore[arg-type]
        (lambda: Predictor(nn.Identity(), TASK), "`model` must be a Network; got Identity"),  # type: ignore[arg-type]
        (lambda: Predictor(network(), None), "`task` must be a Task; got NoneType None"),  # type: ignore[arg-type]
        (lambda: Predictor(network(), TASK).predict(3), "`samples` must be Samples; got int 3"),  # type: ignore[arg-type]
        (lambda: accuracy(None, torch.zeros(2, 1, 4), torch.zeros(2)), "`model` must be a torch.nn.Module"),  # type: ignore[arg-type]
        (lambda: NextToken(None), "`network` must be a torch.nn.Module; got NoneType None"),  # type: ignore[arg-type]
        (lambda: Language("a"), "`tokens` must be an integer; got str 'a'"),  # type: ignore[arg-type]
        (lambda: Classification("ab"), "`classes` must be a tuple of labels; got str 'ab'"),  # type: ignore[arg-type]
        (lambda: Classification(None), "`classes` must be a tuple of labels; got NoneType None"),  # type: ignore[arg-type]
        (lambda: Classification((0, 1), weights=3.0), "`weights` must be a tuple of numbers; got float 3.0"),  # type: ignore[arg-type]
        (lambda: Classification((0, 1), weights=("a", 1)), "`weights` must be a number; got str 'a'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_of_another_kind_is_refused_by_name(call: Callable[[], Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        call()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Language(1), "`tokens` must be at least 2; got 1"),
        (lambda: Classification(("a", "a")), r"`classes` must differ; got \['a', 'a'\]"),
        (lambda: Classification((1, 1.0, 2)), r"`classes` must differ; got \[1, 1.0, 2\]"),
        (lambda: Classification((0, 1), weights=(-1.0, 1.0)), "`weights` must be finite and at least 0; got -1.0"),
        (lambda: Classification((0, 1), weights=(math.nan, 1.0)), "`weights` must be finite and at least 0; got nan"),
        (lambda: Classification((0, 1), weights=(math.inf, 1.0)), "`weights` must be finite and at least 0; got inf"),
        (lambda: Classification((0, 1), weights=(0.0, 0.0)), "`weights` must not all be 0"),
        (lambda: Classification((0, 1), label_smoothing=1), "`label_smoothing` must be a probability below 1; got 1"),
        (lambda: infer_task(np.array([0, 1]), label_smoothing=1.0), "`label_smoothing` must be a probability below 1"),
        (lambda: Architecture(dropout=1), "`dropout` must be a probability below 1; got 1"),
        (lambda: Architecture(dropout=1.5), "`dropout` must be a probability below 1; got 1.5"),
        (lambda: choose(SAMPLES, processes=0), "`processes` must be at least 1; got 0"),
        (lambda: accuracy(network(), torch.zeros(2, 1, 4), torch.zeros(2), batch_size=0), "`batch_size` must be at le"),
        (lambda: outputs_of(network(), SAMPLES, workers=-1), "`workers` must be at least 0; got -1"),
        (lambda: outputs_of(network(), SAMPLES, read_retries=-1), "`read_retries` must be at least 0; got -1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(call: Callable[[], Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call()


def test_a_class_may_count_for_nothing() -> None:
    assert Classification((0, 1), weights=(0.0, 1.0)).weights == (0.0, 1.0)


def test_a_network_for_points_or_times_has_its_outputs_checked_too() -> None:
    samples = ArraySamples([np.zeros((1, LENGTH), np.float32)] * 3, ["fast", "slow", "still"])
    with pytest.raises(ValueError, match="`model` must have 3 outputs"):
        train(CCNN(1, 4, LENGTH, blocks=1, width=4), THREE, samples)
