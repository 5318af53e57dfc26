"""The scripts that train small networks to show one thing: what they write, and that their data are what they say."""

from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

soundfile = pytest.importorskip("soundfile")

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts there share a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)  # those of the other tests stay as they are


def run(script: str, *options: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{script}.py", *map(str, options)])
    runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / f"{name}.py"))


def test_hands_point_where_their_angle_says() -> None:
    names = script("learned_interval")
    side, angles = names["SIDE"], torch.tensor([0.0, math.pi / 2, math.pi])
    images = names["hands"](angles, torch.zeros(3), torch.full((3,), 7.0))[:, 0]
    middle = side // 2
    # Along x, y and -x, the axes of columns and rows.
    assert [float(images[0, middle, -2]), float(images[1, -2, middle]), float(images[2, middle, 1])] == [1.0] * 3
    assert float(images[0, middle, 1]) < 1e-6


def test_classes_are_what_the_page_says() -> None:
    names = script("learned_interval")
    images, labels = names["batch_of"]("window", 4000, 0.0, torch.Generator().manual_seed(0))
    assert labels.float().mean() == 0.5
    silent = images.flatten(1).abs().sum(1) == 0
    assert silent.float().mean() == 0.25
    assert not silent[labels == 1].any()
    side = names["SIDE"]
    y, x = torch.meshgrid(*[torch.arange(side) - side // 2] * 2, indexing="ij")
    shown = images[~silent, 0]
    angle = torch.rad2deg(torch.atan2((shown * y).sum((1, 2)), (shown * x).sum((1, 2)))).abs()
    assert (angle[labels[~silent] == 1] < 60.5).all()
    assert (angle[labels[~silent] == 0] > 59.5).all()


def test_learned_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("learned_interval", "--out", tmp_path, "--seeds", 1, "--steps", 2, "--batch", 8, monkeypatch=monkeypatch)
    results = json.loads((tmp_path / "learned_interval.json").read_text())["results"]
    settings = [(0.75, 0.03), (0.75, 0.0), (1.0, 0.0)]
    assert [(one["task"], one["begin"], one["pull"]) for one in results] == [
        (task, *setting) for setting in settings for task in ("window", "full")
    ]
    assert results[0]["half_width"] == pytest.approx(135, abs=5)
    page = (tmp_path / "learned_interval.md").read_text()
    assert "pull 0: within 10 degrees of 180 with 1 of 1 seeds" in page
    assert "Written by `python benchmarks/learned_interval.py --out" in page
    assert (tmp_path / "learned_interval.png").exists()


def write_speech(folder: Path, count: int = 4) -> None:
    random, parts = np.random.default_rng(0), dict[str, Any]()
    for split in ("train", "valid", "test"):
        soundfile.write(folder / f"{split}.ogg", 0.1 * random.standard_normal(16_000 * count), 16_000)
        parts[f"{split}_y"] = np.arange(count)
    np.savez(folder / "labels.npz", **parts)


def test_wavelet_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_speech(tmp_path)
    small = ("--epochs", 1, "--seeds", 2, "--scales", 2, "--width", 2, "--blocks", 1, "--every", 20)
    run("wavelet_network", tmp_path, "--out", tmp_path, *small, monkeypatch=monkeypatch)
    results = json.loads((tmp_path / "wavelet_network.json").read_text())["results"]
    assert [(one["network"], one["seed"]) for one in results] == [
        ("wavelet", 0), ("wavelet", 1), ("one scale", 0), ("one scale", 1)
    ]  # fmt: skip
    assert len({one["parameters"] for one in results}) == 1
    assert "0.8 kHz" in (tmp_path / "wavelet_network.md").read_text()
    assert (tmp_path / "wavelet_network.png").exists()


def test_clips_that_do_not_fit_their_labels(tmp_path: Path) -> None:
    write_speech(tmp_path)
    np.savez(tmp_path / "labels.npz", train_y=np.arange(5))
    with pytest.raises(ValueError, match=r"train.ogg must hold 5 clips of 16000 samples; it has 64000"):
        script("wavelet_network")["clips"](tmp_path, "train", 4, None)


def test_streaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--out", tmp_path, "--networks", "CCNN, modal", "--epochs", 1, "--rounds", 1)
    run("streaming", *options, monkeypatch=monkeypatch)
    results = json.loads((tmp_path / "streaming.json").read_text())["results"]
    assert [one["runs_as"] for one in results] == [
        "stream, exact", "stream, tol 0.001", "stream, tol 0.01", "stream, tol 0.1", "sliding window"
    ]  # fmt: skip
    exact, *others = results
    assert exact["same"] == 1.0
    assert exact["change"] < 1e-4
    assert exact["states"] == [16, 16, 16]  # eight complex numbers
    assert {one["nbytes"] for one in others[:-1]} == {exact["nbytes"]}
    assert len({one["accuracy"] for one in results}) <= 2


def test_distillation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("--channels", 2, "--length", 80, "--steps", 3, "--filters", 2, "--long", 80)
    run("distillation", "--out", tmp_path, *small, monkeypatch=monkeypatch)
    results = json.loads((tmp_path / "distillation.json").read_text())["results"]
    assert len(results) == 30
    ratios = {(one["lags"], one["order"]): max(one["ratios"]) for one in results if one["method"] == "esprit"}
    ratios.pop(("all", 32))  # of 80 taps: both are rounding
    assert len(ratios) == 5
    assert max(ratios.values()) < 2
    assert "the large layer took" in (tmp_path / "distillation.md").read_text()


def test_recall_has_an_answer() -> None:
    """The last key occurred before, and its value is that of every earlier time."""
    names = script("language")
    sequences, keys = names["recall_sequences"](50, 0), names["KEYS"]
    assert sequences.shape == (50, 2 * names["PAIRS"] + 2)
    for row in sequences:
        pairs = list(zip(row[::2].tolist(), row[1::2].tolist(), strict=True))
        assert all(0 <= key < keys <= value < 2 * keys for key, value in pairs)
        assert len(dict(pairs)) == len(set(pairs))
        assert pairs[-1] in pairs[:-1]


def test_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"the cat sat on the mat. " * 40)
    small = ("--epochs", 1, "--width", 8, "--length", 32, "--orders", "2,8", "--tols", "0.1", "--prompts", 2)
    less = ("--greedy", 4, "--recall", 128, "--recall_epochs", 1, "--recall_width", 4, "--models", tmp_path / "kept")
    run("language", text, "--out", tmp_path, *small, *less, monkeypatch=monkeypatch)
    found = json.loads((tmp_path / "language.json").read_text())
    exact = [one for one in found["results"] if one["runs_as"] == "taps, exact"]
    assert len(exact) == 2
    assert all(abs(one["change"]) < 1e-6 and one["greedy"] == 1.0 for one in exact)
    assert all(one["largest"] < 2 for one in found["bounds"])
    recall = {one["runs_as"]: one["accuracy"] for one in found["recall"] if one["network"] == "Hyena"}
    assert recall["taps, exact"] == recall["convolution"]
    assert len(list((tmp_path / "kept").iterdir())) == 4
    assert (tmp_path / "language.png").stat().st_size > 1000
    assert "| Hyena | order 2 |" in (tmp_path / "language.md").read_text()


def test_clouds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random, data = np.random.default_rng(0), tmp_path / "data"
    data.mkdir()
    count = 24
    np.savez(
        data / "ldraw20_points1024.npz",
        points=random.uniform(-1, 1, (count, 64, 3)).astype(np.float16),
        normals=random.integers(-127, 128, (count, 64, 3)).astype(np.int8),
        label=(np.arange(count) % 3).astype(np.uint8),
        part_label=random.integers(0, 2, (count, 64)).astype(np.uint8),
        is_test=np.arange(count) >= 16,
        classes=["a", "b", "c"],
        part_classes=["body", "stud"],
    )
    parts = {"train": 10, "test": 6}
    voxels: dict[str, Any] = {
        f"points_{name}": random.integers(0, 32, (n, 64, 3)).astype(np.uint8) for name, n in parts.items()
    }
    labels: dict[str, Any] = {f"label_{name}": (np.arange(n) % 2).astype(np.uint8) for name, n in parts.items()}
    np.savez(data / "modelnet10_points1024.npz", classes=["c", "d"], **voxels, **labels)
    small: tuple[object, ...] = ("--epochs", 1, "--every", 1, "--batch", 8, "--width", 4, "--lifted", 8, "--seeds", 0)
    small += ("--nn_points", 32, "--nn_neighbours", 4, "--resolution", 5, "--stages", 2)
    every = ("--sets", "ldraw20,modelnet10,parts", "--networks", "gridded,pointnet")
    run("clouds", data, "--out", tmp_path, *small, *every, monkeypatch=monkeypatch)
    run("clouds", data, "--out", tmp_path, *small, "--networks", "pointnn", monkeypatch=monkeypatch)
    results = json.loads((tmp_path / "clouds.json").read_text())["results"]
    assert [(one["set"], one["network"]) for one in results] == [
        ("ldraw20", "gridded"),
        ("ldraw20", "pointnet"),
        ("ldraw20", "pointnn"),
        ("modelnet10", "gridded"),
        ("modelnet10", "pointnet"),
        ("parts", "gridded"),
        ("parts", "pointnet"),
    ]
    assert all(0 <= one["test"] <= 1 for one in results)
    assert all(len(one["curve"]) == (one["network"] != "pointnn") for one in results)
    page = (tmp_path / "clouds.md").read_text()
    assert "- LDraw, 4 kinds of parts, *gridded*, 1 epochs, rate 0.01" in page
    assert (tmp_path / "clouds.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="Give the same settings, or another --out, or remove it"):
        run("clouds", data, "--out", tmp_path, *small, "--width", 5, monkeypatch=monkeypatch)


def test_mean_iou() -> None:
    score = script("clouds")["mean_iou"]
    labels = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]])
    outputs = torch.nn.functional.one_hot(torch.tensor([[0, 1, 1, 1], [0, 0, 0, 2]]), 4).transpose(1, 2).float()
    # kind 0: 4 of 6; kind 1: 2 of 3; kind 2 is not among the labels
    assert score(outputs, labels, 4) == pytest.approx((4 / 6 + 2 / 3) / 2)


def test_state_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, that is the question. " * 60)
    small = ("--epochs", 1, "--width", 8, "--blocks", 1, "--length", 16, "--batch", 4, "--hidden", 8)
    run("state_precision", text, "--out", tmp_path, *small, "--orders", 4, "--windows", 10, monkeypatch=monkeypatch)
    found = json.loads((tmp_path / "state_precision.json").read_text())["results"]
    assert [(one["network"], one["state"]) for one in found] == [
        (name, state) for name in ("Hyena", "MultiHyena") for state in ("float32", "bfloat16")
    ]
    assert [one["as_float32"] for one in found[::2]] == [1.0, 1.0]
    assert all(abs(one["change"]) < 0.05 for one in found)
    assert all(one["nbytes"] < other["nbytes"] for one, other in zip(found[1::2], found[::2], strict=True))
    page = (tmp_path / "state_precision.md").read_text()
    assert "steps through 8 held-out windows" in page
    assert "over\n128 bytes" in page


def test_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("reading", "--out", tmp_path, "--count", 8, "--rounds", 1, monkeypatch=monkeypatch)
    rows = json.loads((tmp_path / "reading.json").read_text())["rows"]
    assert [(row["step_ms"], row["workers"]) for row in rows] == [
        (step, workers) for step in (0.0, 50.0) for workers in (0, 1, 2)
    ] * 2
    assert all(row["omniconv"] > 0 for row in rows)
    assert "| JPEG files, 224 x 224 |" in (tmp_path / "reading.md").read_text()
