"""Training and prediction on clouds of points of unequal numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from omniconv.data import ArraySamples, CloudSamples
from omniconv.models import CCNN, CKCNN, GriddedNet, PointNet
from omniconv.training import (
    Architecture,
    Classification,
    CloudAugmentation,
    NonFiniteError,
    Predictor,
    Recipe,
    Run,
    fit,
    train,
)
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
        predictor.predict(CloudSamples([np.zeros((4, 2))], [np.ones((1, 4))]))
    grid = fit(ArraySamples(np.random.default_rng(0).random((8, 1, 9)), shapes().targets), TASK, SMALL, SHORT)
    with pytest.raises(ValueError, match="trained on signals on a grid, or series; got clouds of points"):
        grid.predict(shapes())
    with pytest.raises(ValueError, match='`causal` and head="last" are for signals on a grid'):
        fit(shapes(), TASK, dataclasses.replace(SMALL, causal=True), SHORT)


def test_large_coordinates_lose_nothing() -> None:
    """As on a map: float32 would keep half a metre."""
    samples = shapes(features=False)
    predictor = fit(samples, TASK, SMALL, SHORT)
    far = CloudSamples([place + np.array([5e6, 4e6, 100.0]) for place in samples.places])
    torch.testing.assert_close(predictor.outputs(far), predictor.outputs(samples), rtol=1e-6, atol=1e-6)


def test_points_without_features_are_not_points_with_one() -> None:
    samples = shapes(features=False)
    ones = CloudSamples(samples.places, [np.ones((1, len(place))) for place in samples.places])
    with pytest.raises(ValueError, match="trained on points that are nothing but where they are; got"):
        fit(samples, TASK, SMALL, SHORT).predict(ones)


def test_any_network_that_takes_clouds_predicts() -> None:
    torch.manual_seed(0)
    for model in (PointNet(1, 2, widths=(4,), hidden=(4,)), CCNN(1, 2, (4, 4, 4), blocks=1, width=4, span=4.0)):
        assert len(Predictor(model.eval(), TASK).predict(shapes())) == 8
    with pytest.raises(ValueError, match="trained on signals on a grid, or series; got clouds of points"):
        Predictor(CKCNN(1, 2, 8, blocks=1, width=4).eval(), TASK).predict(shapes())


def test_what_cannot_be_trained_is_refused_before_the_first_step() -> None:
    for recipe in (dataclasses.replace(SHORT, batch_size=1), dataclasses.replace(SHORT, accumulate=4)):
        with pytest.raises(ValueError, match="`batch_size` must leave 2 samples for every process and part"):
            fit(shapes(), TASK, SMALL, recipe)
    with pytest.raises(ValueError, match="`batch_size` must leave 2 samples"):
        fit(shapes(3), TASK, SMALL, dataclasses.replace(SHORT, batch_size=2))
    with pytest.raises(ValueError, match="`samples` must be signals on a grid, or series, for CKCNN; got clouds"):
        train(CKCNN(1, 2, 8, blocks=1, width=4), TASK, shapes(), recipe=SHORT)


class Burst(nn.Module):
    """Adds infinity where drop-out leaves all of three numbers, one time in eight."""

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        kept = torch.nn.functional.dropout(torch.ones(3), 0.5, self.training)
        return y + torch.where(kept.all() & self.training, torch.inf, 0.0)


class Bursting(nn.Module):
    """A network of clouds that bursts at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.burst = GriddedNet(1, 2, 3, width=4, blocks=1, dropout=0.5), Burst()

    def forward(self, x: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        y: torch.Tensor = self.burst(self.net(x, positions, mask))
        return y


def test_what_burst_is_found_with_the_same_changes_and_drop_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = dataclasses.replace(SHORT, epochs=50)
    with pytest.raises(NonFiniteError, match="the output of layer 'burst'"):
        train(Bursting(), TASK, shapes(), recipe=recipe, run=Run(folder=tmp_path))


def test_the_card_speaks_of_clouds(tmp_path: Path) -> None:
    fit(shapes(), TASK, SMALL, SHORT).save(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "for clouds of points in 3 axis or axes, with 1 feature(s)" in card
    assert "CloudSamples(positions, features)" in card


def test_a_bad_value_is_named() -> None:
    samples = shapes()
    predictor = fit(samples, TASK, SMALL, SHORT)
    batch = collate([Signals(samples)[index] for index in (4, 6)], samples.space)
    batch.signals[1, 0, 2] = torch.inf
    assert first_bad_part(predictor.model, batch, samples.names) == "sample 6 of the training data"
