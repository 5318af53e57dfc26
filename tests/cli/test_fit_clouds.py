"""From clouds of points in files to a trained network, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omniconv.cli import main
from omniconv.data import ArraySamples, CloudSamples
from omniconv.estimators import CCNNClassifier
from omniconv.models import GriddedNet
from omniconv.training import Predictor

SMALL = (
    "--epochs",
    "40",
    "--batch-size",
    "16",
    "--width",
    "8",
    "--blocks",
    "2",
    "--resolution",
    "5",
    "--device",
    "cpu",
)


def rings_and_disks(count: int, dim: int = 2, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Clouds of 20 to 40 points, somewhere, of any size: on a ring, or in a disk."""
    random, clouds = np.random.default_rng(seed), []
    labels = np.array(["ring", "disk"])[np.arange(count) % 2]
    for label in labels:
        points = random.normal(size=(random.integers(20, 41), dim))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        radii = 1.0 if label == "ring" else random.random((len(points), 1)) ** (1 / dim)
        clouds.append(random.uniform(1, 9) * points * radii + random.uniform(-50, 50, dim))
    return clouds, labels


def omniconv(monkeypatch: pytest.MonkeyPatch, *args: object) -> None:
    monkeypatch.setattr("sys.argv", ["omniconv", *map(str, args)])
    main()


def test_from_an_archive_to_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays: dict[str, Any] = {}
    for split, count, seed in (("train", 64, 0), ("test", 40, 1)):
        clouds, labels = rings_and_disks(count, seed=seed)
        arrays |= {
            f"positions_{split}": np.concatenate(clouds),
            f"lengths_{split}": [len(cloud) for cloud in clouds],
            f"y_{split}": labels,
        }
    np.savez(tmp_path / "rings.npz", **arrays)
    run = tmp_path / "run"
    omniconv(
        monkeypatch, "fit", tmp_path / "rings.npz", "--out", run, *SMALL, "--turn", 180, "--zoom", 0.2, "--thin", 0.1
    )
    score = json.loads((run / "metrics.json").read_text())["test"]["accuracy"]
    assert score > 0.9
    assert (run / "cloud.png").read_bytes().startswith(b"\x89PNG")
    predictor = Predictor.load(run, device="cpu")
    assert isinstance(predictor.model, GriddedNet)
    assert predictor.about["sizes"].endswith("points in 2 axes")
    assert predictor.about["recipe"]["augmentation"]["turn"] == 180.0
    omniconv(monkeypatch, "predict", run, tmp_path / "rings.npz", "--out", tmp_path / "p.csv")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 41  # the test part
    with pytest.raises(ValueError, match="trained on clouds of points; got signals on a grid, or series"):
        predictor.predict(ArraySamples(np.zeros((2, 1, 30))))
    # A moved and scaled cloud is the same cloud.
    clouds, _ = rings_and_disks(4, seed=2)
    moved = [3 * cloud + 7 for cloud in clouds]
    np.testing.assert_allclose(
        predictor.probabilities(CloudSamples(moved)), predictor.probabilities(CloudSamples(clouds)), atol=1e-4
    )


def test_changes_of_clouds_are_for_clouds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", X=np.random.default_rng(0).random((8, 20)), y=[0, 1] * 4)
    with pytest.raises(SystemExit):
        omniconv(monkeypatch, "fit", tmp_path / "a.npz", "--out", tmp_path / "run", "--flip")
    with pytest.raises(SystemExit):
        omniconv(monkeypatch, "fit", tmp_path / "a.npz", "--out", tmp_path / "run", "--resolution", 5)


def test_the_estimator_takes_positions() -> None:
    clouds, labels = rings_and_disks(64)
    others, wanted = rings_and_disks(40, seed=1)
    classifier = CCNNClassifier(epochs=40, batch_size=16, width=8, blocks=2, random_state=0)
    classifier.fit(None, labels, positions=clouds)
    assert classifier.score(None, wanted, positions=others) > 0.9
    features = [np.ones((1, len(cloud))) for cloud in others]
    with pytest.raises(ValueError, match="`times` and `positions` exclude each other"):
        classifier.predict(features, positions=others, times=[0.0])
    with pytest.raises(ValueError, match="`features` must be of 40 clouds"):
        classifier.predict(features[:3], positions=others)
