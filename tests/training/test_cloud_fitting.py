"""Training and prediction on clouds of points of unequal numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omniconv.data import ArraySamples, CloudSamples
from omniconv.training import Architecture, Classification, CloudAugmentation, Predictor, Recipe, Run, fit
from omniconv.training.batches import Signals, collate
from omniconv.training.diagnosis import first_bad_part
from omniconv.training.fitting import statistics

TASK = Classification(("flat", "round"))
SMALL = Architecture(blocks=1, width=4, resolution=3, dropout=0.2)
CHANGES = CloudAugmentation(turn=180.0, flip=True, zoom=0.2, jitter=0.02, thin=0.5)
SHORT = Recipe(epochs=2, batch_size=4, augmentation=CHANGES)


def shapes(count: int = 8, *, features: bool = True, seed: int = 0) -> CloudSamples:
    """Flat and round clouds of 5 to 12 points; their feature is around 100."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    places: list[Any] = []
    known: list[Any] = []
    for label in labels:
        points = random.normal(size=(random.integers(5, 13), 3)) * np.array([1.0, 1.0, label])
        places.append(points)
        known.append(100 + 3 * random.normal(size=(1, len(points))))
    return CloudSamples(places, known if features else None, np.array(TASK.classes)[labels])


def test_a_prediction_does_not_depend_on_the_company(tmp_path: Path) -> None:
    samples = shapes()
    predictor = fit(samples, TASK, SMALL, SHORT)
    together = predictor.outputs(samples)
    for index in range(len(samples)):
        alone = predictor.outputs(samples.subset([index]))[0]
        torch.testing.assert_close(alone, together[index], rtol=1e-9, atol=1e-9)
    predictor.save(tmp_path)
    torch.testing.assert_close(Predictor.load(tmp_path, device="cpu").outputs(samples), together)


def test_a_run_that_is_broken_off_ends_with_the_same_bits(tmp_path: Path) -> None:
    samples = shapes()
    whole = fit(samples, TASK, SMALL, SHORT)

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    run = Run(folder=tmp_path, every=1)
    with pytest.raises(KeyboardInterrupt):
        fit(samples, TASK, SMALL, SHORT, run=run, report=stop)
    again = fit(samples, TASK, SMALL, SHORT, run=dataclasses.replace(run, resume=True))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    other = fit(samples, TASK, SMALL, dataclasses.replace(SHORT, augmentation=None))
    assert not torch.equal(other.model.head.readout.weight, whole.model.head.readout.weight)


def test_features_are_standardised_and_positions_are_not() -> None:
    mean, std = statistics(shapes())
    assert mean.shape == std.shape == (1,)
    assert 98 < mean[0] < 102
    assert 2 < std[0] < 4
    assert [values.tolist() for values in statistics(shapes(features=False))] == [[0.0], [1.0]]
    assert fit(shapes(), TASK, SMALL, SHORT).model.standardize.mean.item() == pytest.approx(mean[0])
    bad = shapes()
    assert bad.known is not None
    bad.known[3][0, 2] = np.nan
    with pytest.raises(ValueError, match="sample '3' has values that are NaN or infinite"):
        fit(bad, TASK, SMALL, SHORT)


def test_a_network_takes_what_it_was_trained_on() -> None:
    predictor = fit(shapes(), TASK, SMALL, SHORT)
    with pytest.raises(ValueError, match="trained on clouds of points; got signals on a grid, or series"):
        predictor.predict(ArraySamples(np.zeros((1, 1, 8))))
    with pytest.raises(ValueError, match="takes signals with 1 channels and 3 axes; got 1 channels and 2 axes"):
        predictor.predict(CloudSamples([np.zeros((4, 2))]))
    grid = fit(ArraySamples(np.random.default_rng(0).random((8, 1, 9)), shapes().targets), TASK, SMALL, SHORT)
    with pytest.raises(ValueError, match="trained on signals on a grid, or series; got clouds of points"):
        grid.predict(shapes())
    with pytest.raises(ValueError, match='`causal` and head="last" are for signals on a grid'):
        fit(shapes(), TASK, dataclasses.replace(SMALL, causal=True), SHORT)


def test_a_bad_value_is_named() -> None:
    samples = shapes()
    predictor = fit(samples, TASK, SMALL, SHORT)
    batch = collate([Signals(samples)[index] for index in (4, 6)], samples.space)
    batch.signals[1, 0, 2] = torch.inf
    assert first_bad_part(predictor.model, batch, samples.names) == "sample 6 of the training data"
