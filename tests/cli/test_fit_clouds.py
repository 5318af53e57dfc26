"""From clouds of points in files to a trained network, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omniconv.cli import main
from omniconv.cli.fit import Fit, described_network
from omniconv.data import ArraySamples, CloudSamples, read
from omniconv.estimators import CCNNClassifier
from omniconv.models import GriddedNet
from omniconv.nn import ResidualBlock
from omniconv.training import Architecture, CloudAugmentation, Predictor
from omniconv.training.batches import Signals, collate

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


@pytest.mark.parametrize(("resolution", "blocks"), [(9, 4), (9, 3), (5, 1), (4, 2)])
def test_as_many_blocks_are_told_as_are_built(resolution: int, blocks: int) -> None:
    architecture = Architecture(blocks=blocks, resolution=resolution, width=4)
    net = architecture.build(1, 2, (1, 1), space=2)
    built = sum(isinstance(part, ResidualBlock) for part in net.modules())
    assert described_network(architecture, True).startswith(f"GriddedNet, {built} blocks of width 4")
    assert described_network(architecture, False) == f"CCNN, {blocks} blocks of width 4"


def cube(path: Path, size: float) -> None:
    """A box with corners at plus and minus one, `size` in the last axis."""
    corners = [(x, y, z * size) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [(side[0], side[i], side[i + 1]) for side in sides for i in (1, 2)]
    lines = ["OFF", f"8 {len(faces)} 0", *(" ".join(map(str, corner)) for corner in corners)]
    path.write_text("\n".join([*lines, *(f"3 {a} {b} {c}" for a, b, c in faces)]) + "\n")


def test_normals_that_the_reader_gives_turn_with_the_surface(tmp_path: Path) -> None:
    """On a box about 0 the outward normal is the sign of one coordinate, wherever it is turned or mirrored to."""
    cube(tmp_path / "box.off", 1.0)
    samples = read(tmp_path)
    augmentation = Fit(data="", out=Path(), turn=180.0, flip=True).changes(samples)
    assert augmentation is not None
    batch = augmentation(collate([Signals(samples)[0]] * 5, samples.space))
    assert batch.positions is not None
    normals, places = batch.signals.double(), batch.positions.transpose(1, 2)
    assert (normals[:, :2].abs().amax(1) < 0.999).any()  # turned
    heights = (normals * places).sum(1).abs()  # every side is at distance 1
    torch.testing.assert_close(heights, torch.ones_like(heights), rtol=1e-5, atol=1e-5)
    plain = Fit(data="", out=Path(), turn=180.0, vectors=0).changes(samples)
    assert plain is not None
    assert plain.vectors == 0
    with pytest.raises(ValueError, match=r"`--vectors` \(=2\) in 3 axes need 6 channels"):
        Fit(data="", out=Path(), turn=180.0, vectors=2).changes(samples)


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
    with pytest.raises(ValueError, match="`augmentation` is for clouds of points"):
        CCNNClassifier(epochs=1, augmentation=CloudAugmentation(flip=True)).fit(np.zeros((4, 9)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="`times` and `positions` exclude each other"):
        classifier.predict(features, positions=others, times=[0.0])
    with pytest.raises(ValueError, match="`features` must be of 40 clouds"):
        classifier.predict(features[:3], positions=others)


def test_the_estimator_changes_clouds_in_training(tmp_path: Path) -> None:
    """And keeps how, when it is saved."""
    clouds, labels = rings_and_disks(16)
    augmentation = CloudAugmentation(turn=180.0, flip=True)
    parameters: dict[str, Any] = {"epochs": 2, "batch_size": 8, "width": 4, "blocks": 1, "random_state": 0}
    plain, turned = CCNNClassifier(**parameters), CCNNClassifier(**parameters, augmentation=augmentation)
    for classifier in (plain, turned):
        classifier.fit(None, labels, positions=clouds)
    one, other = (classifier.predict_proba(None, positions=clouds) for classifier in (plain, turned))
    assert not np.allclose(one, other)
    assert turned.predictor_.about["recipe"]["augmentation"]["turn"] == 180.0
    turned.save(tmp_path)
    again = CCNNClassifier.load(tmp_path)
    assert again.augmentation == augmentation
    assert again.predict(None, positions=clouds).tolist() == turned.predict(None, positions=clouds).tolist()
