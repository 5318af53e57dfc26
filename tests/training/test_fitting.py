from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from omniconv.data import ArraySamples
from omniconv.training import (
    Architecture,
    Recipe,
    Regression,
    Run,
    fit,
    infer_task,
    outputs_of,
    train,
)
from omniconv.training.fitting import described_sizes, split, statistics
from tests.training.makers import TASK, differing, waves, weights

SMALL = Architecture(blocks=1, width=4)
SHORT = Recipe(epochs=3, batch_size=8)


def channels(count: int, *, ragged: bool = True) -> ArraySamples:
    """Two channels of other scales, one of them far from zero."""
    random = np.random.default_rng(0)
    lengths = random.integers(5, 30, count) if ragged else np.full(count, 12)
    scale, shift = np.array([[3.0], [0.01]]), np.array([[-1.0], [1000.0]])
    signals = [(random.standard_normal((2, length)) * scale + shift).astype(np.float32) for length in lengths]
    return ArraySamples(signals, np.arange(count) / 3)


@pytest.mark.parametrize("ragged", [False, True])
def test_statistics_are_those_over_all_positions_of_all_samples(ragged: bool) -> None:
    samples = channels(40, ragged=ragged)
    together = np.concatenate([samples[i] for i in range(40)], axis=1).astype(np.float64)
    mean, std = statistics(samples)
    assert mean.dtype == std.dtype == np.float64
    np.testing.assert_allclose(mean, together.mean(1), rtol=1e-12)
    np.testing.assert_allclose(std, together.std(1), rtol=1e-9)


def test_statistics_of_images_are_over_both_axes() -> None:
    images = np.random.default_rng(0).random((5, 3, 4, 6))
    mean, std = statistics(ArraySamples(images))
    np.testing.assert_allclose(mean, images.astype(np.float32).mean((0, 2, 3), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, images.astype(np.float32).std((0, 2, 3), dtype=np.float64), rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_a_constant_channel_has_deviation_one(value: float) -> None:
    signals = np.random.default_rng(0).random((7, 2, 13), dtype=np.float32)
    signals[:, 1] = value
    mean, std = statistics(ArraySamples(signals))
    assert std[1] == 1.0
    assert std[0] != 1.0
    assert mean[1] == pytest.approx(np.float32(value), rel=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_sample_that_is_not_finite_is_named(value: float) -> None:
    signals = np.zeros((4, 1, 5), np.float32)
    signals[2:, 0, 1] = value
    with pytest.raises(ValueError, match=r"sample 'c' has values that are NaN or infinite\. Say what they mean"):
        statistics(ArraySamples(signals, names=["a", "b", "c", "d"]))


def test_the_network_standardises_with_the_statistics_of_the_training_samples() -> None:
    samples = channels(20)
    predictor = fit(samples, infer_task(np.asarray(samples.targets)), SMALL, SHORT)
    mean, std = statistics(samples)
    np.testing.assert_array_equal(predictor.model.standardize.mean.numpy(), mean.astype(np.float32))
    np.testing.assert_array_equal(predictor.model.standardize.std.numpy(), std.astype(np.float32))


def test_a_validation_split_keeps_the_share_of_every_class() -> None:
    labels = np.array(["a"] * 40 + ["b"] * 20 + ["c"] * 8)
    samples = ArraySamples(np.arange(68.0)[:, None, None] * np.ones((1, 1, 4)), labels)
    kept, held_out = split(samples, infer_task(labels), 0.25, seed=3)
    assert [int((np.asarray(held_out.targets) == label).sum()) for label in "abc"] == [10, 5, 2]
    assert sorted(kept.names + held_out.names, key=int) == samples.names
    again = split(samples, infer_task(labels), 0.25, seed=3)[1].names
    assert held_out.names == again
    assert held_out.names != split(samples, infer_task(labels), 0.25, seed=4)[1].names


def test_a_class_of_one_sample_leaves_the_split_to_chance() -> None:
    labels = np.array(["a"] * 9 + ["b"])
    kept, held_out = split(ArraySamples(np.zeros((10, 1, 4)), labels), infer_task(labels), 0.2, seed=0)
    assert (len(kept), len(held_out)) == (8, 2)


def test_a_share_that_leaves_no_sample_of_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.1 of 4 samples cannot be held out: .* Hold out another share, or none"):
        split(waves(4), TASK, 0.1, seed=0)


def test_fitting_is_standardising_building_and_training() -> None:
    samples = waves(16, ragged=True)
    predictor = fit(samples, TASK, SMALL, SHORT)
    torch.manual_seed(SHORT.seed)
    model = SMALL.build(1, 2, (int(samples.sizes.max()),))
    mean, std = statistics(samples)
    model.standardize.set(mean.tolist(), std.tolist())
    train(model, TASK, samples, recipe=SHORT)
    assert differing(weights(predictor.model), weights(model)) == []
    assert not predictor.model.training


def test_the_seed_decides_the_network_and_the_global_state_does_not() -> None:
    found = []
    for state, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(state)
        found.append(weights(fit(waves(8), TASK, SMALL, Recipe(epochs=1, seed=seed)).model))
        assert torch.initial_seed() == state
    assert differing(found[0], found[1]) == []
    assert differing(found[1], found[2]) != []


def test_a_regression_predicts_in_the_unit_of_the_targets() -> None:
    samples = channels(20)
    task = infer_task(np.asarray(samples.targets))
    assert isinstance(task, Regression)
    predictor = fit(samples, task, SMALL, SHORT)
    assert predictor.task == task
    torch.manual_seed(SHORT.seed)
    model = SMALL.build(2, 1, (int(samples.sizes.max()),))
    mean, std = statistics(samples)
    model.standardize.set(mean.tolist(), std.tolist())
    train(model, task, samples, recipe=SHORT)
    expected = outputs_of(model.double(), samples)
    torch.testing.assert_close(predictor.outputs(samples), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(predictor.predict(samples), task.predictions(expected), rtol=1e-5, atol=1e-5)


def test_samples_for_validation_are_not_trained_on(tmp_path: Path) -> None:
    training, held_out = waves(12), waves(6, seed=5)
    fit(training, TASK, SMALL, SHORT, validation=held_out, run=Run(folder=tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(row["samples"] for row in rows) == 3 * 12
    assert ["validation_accuracy" in row for row in rows] == [row["step"] % 2 == 0 for row in rows]


@pytest.mark.parametrize(
    ("share", "message"),
    [(-0.1, "`validation` must be finite and at least 0; got -0.1"), (1.0, "`validation` must be a share below 1")],
)
def test_a_share_out_of_range_is_refused(share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(waves(8), TASK, SMALL, SHORT, validation=share)


def test_facts_of_the_training_go_into_the_card() -> None:
    reports: list[tuple[int, int]] = []
    predictor = fit(waves(12), TASK, SMALL, SHORT, report=lambda step, steps, loss: reports.append((step, steps)))
    assert reports == [(step, 6) for step in range(1, 7)]
    facts = {"training_samples": 12, "channels": 1, "sizes": "24", "epochs": 3}
    assert {name: predictor.about[name] for name in facts} == facts
    assert predictor.about["recipe"]["batch_size"] == 8
    assert predictor.about["architecture"]["width"] == 4


def test_sizes_are_told_in_words() -> None:
    assert described_sizes(ArraySamples(np.zeros((2, 1, 3, 4)))) == "3 x 4"
    assert described_sizes(ArraySamples([np.zeros((1, 3, 9)), np.zeros((1, 5, 2))])) == "3 to 5 x 2 to 9"
