"""The scripts that train on MNIST: what they make of its images, and the pages and results that they write."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from omniconv.data.idx import PixelSamples

SCRIPTS = Path(__file__).parents[2] / "benchmarks"

Array = NDArray[Any]
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)  # those of the other tests stay as they are

    def from_file(script: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(SCRIPTS))
        spec = importlib.util.spec_from_file_location(script, SCRIPTS / f"{script}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, script, module)  # where its dataclasses look for their annotations
        spec.loader.exec_module(module)
        return module

    return from_file


def random_images(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def turned_pixel_by_pixel(image: Array, angle: float) -> Array:
    """The value at R(angle) (x, y) of the bilinear function through the pixels, which is 0 beyond them."""
    side, centre = len(image), (len(image) - 1) / 2
    made = np.empty_like(image)
    for row in range(side):
        for column in range(side):
            x, y = column - centre, row - centre
            across = math.cos(angle) * x - math.sin(angle) * y + centre
            down = math.sin(angle) * x + math.cos(angle) * y + centre
            value = sum(
                max(0.0, 1 - abs(across - j)) * max(0.0, 1 - abs(down - i)) * float(image[i, j])
                for i in range(side)
                for j in range(side)
            )
            made[row, column] = math.floor(value + 0.5)
    return made


def test_images_are_turned(load: Load) -> None:
    images, angles = random_images(2, 9, 9), np.array([0.7, 4.0])
    expected = [turned_pixel_by_pixel(image, angle) for image, angle in zip(images, angles, strict=True)]
    np.testing.assert_array_equal(load("rotated_mnist").turned(images, angles), expected)


def test_quarter_turns_lose_nothing(load: Load) -> None:
    images = random_images(4, 28, 28)
    found = load("rotated_mnist").turned(images, np.arange(4) * np.pi / 2)
    np.testing.assert_array_equal(found, [np.rot90(image, times) for times, image in enumerate(images)])


def test_other_images_are_refused(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("rotated_mnist")
    write_mnist(tmp_path, 8)
    for name, count in (("TRAINING", 8), ("VALIDATION", 2), ("TESTS", 4)):
        monkeypatch.setattr(script, name, count)
    with pytest.raises(ValueError, match=r"the MD5 sum of the rotated images must be e36d2f2f"):
        script.rotated_mnist(tmp_path)


def write_mnist(folder: Path, count: int, digits: int = 1, first: int = 6) -> None:
    """Files in the form of MNIST's, whose images are random and whose digits are 6, or so many others in turn."""
    images = random_images(count, 9, 9)
    for split in ("train", "t10k"):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx((first + np.arange(count) % digits).astype(np.uint8)))


def idx(array: Array) -> bytes:
    head = bytes([0, 0, 8, array.ndim])
    return head + b"".join(length.to_bytes(4, "big") for length in array.shape) + array.tobytes()


def call(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{script.__name__}.py", *map(str, options)])
    script.main()


def test_rotated_mnist_keeps_what_is_there(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("rotated_mnist")
    tiny = PixelSamples(random_images(8, 1, 9, 9), np.arange(8))
    monkeypatch.setattr(script, "rotated_mnist", lambda path: tiny)
    for name, count in (("TRAINING", 4), ("VALIDATION", 2)):
        monkeypatch.setattr(script, name, count)
    options = ("DATA", "--out", tmp_path, "--epochs", 2, "--widths", "1,2", "--tests", 2)
    for networks in ("partial", "plain"):
        call(script, monkeypatch, *options, "--networks", networks)
    results = json.loads((tmp_path / "rotated_mnist.json").read_text())["results"]
    assert [result["network"] for result in results] == ["plain", "partial"]
    assert [len(result["curve"]) for result in results] == [2, 2]
    assert [len(result["half_widths"]) for result in results] == [0, 3]
    assert results[0]["parameters"] <= script.parameters_of(script.build("separable", (1, 2), 2, 0)[0])
    assert (
        script.parameters_of(script.CCNN(1, 10, (28, 28), blocks=3, width=results[0]["width"] + 1, reach=2))
        > (results[0]["parameters"])
    )
    page = (tmp_path / "rotated_mnist.md").read_text()
    assert "--networks plain" in page
    assert "| partial | 2 | 0, 0 | 0 | 1 |" in page
    assert (tmp_path / "rotated_mnist.png").exists()
    call(script, monkeypatch, *options, "--networks", "partial", "--epochs", 1)
    results = json.loads((tmp_path / "rotated_mnist.json").read_text())["results"]
    assert [(one["network"], one["epochs"]) for one in results] == [("plain", 2), ("partial", 1), ("partial", 2)]
    with pytest.raises(ValueError, match=r"this run has .*'lr': 1[.]0.* another --out"):
        call(script, monkeypatch, *options, "--lr", 1)


def test_mnist_6_180_tells_partial_from_full(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, 4)
    call(
        load("mnist_6_180"),
        monkeypatch,
        tmp_path,
        "--out",
        tmp_path / "out",
        "--epochs",
        1,
        "--seeds",
        1,
        "--begin",
        0.5,
    )
    data = json.loads((tmp_path / "out" / "mnist_6_180.json").read_text())
    full, *partial = data["results"]
    assert full["scores"] == [0.5]  # one output for both classes
    assert [result["begin"] for result in partial] == [0.5]
    assert all(result["slope"] > 0 and len(result["widths"]) == 3 for result in partial)
    assert "| partial | 0.5 | 0 |" in (tmp_path / "out" / "mnist_6_180.md").read_text()


def test_symmetries(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, 60, digits=10, first=0)
    small = ("--train", 60, "--test", 60, "--epochs", 1, "--sets", "multiple", "cyclic")
    call(load("symmetries"), monkeypatch, tmp_path, "--out", tmp_path / "out", *small)
    results = json.loads((tmp_path / "out" / "symmetries.json").read_text())["results"]
    assert [(one["name"], one["family"]) for one in results] == [("multiple", "uniform"), ("cyclic", "cyclic")]
    assert results[0]["right"] == pytest.approx([18 * digit for digit in range(10)], abs=1e-3)
    assert results[1]["right"] == [2] * 5 + [4] * 5
    assert all(0 <= one["auroc"] <= 1 and 0.1 <= one["clusters"] <= 1 for one in results)
    page = (tmp_path / "out" / "symmetries.md").read_text()
    assert "60 other digits turned by any angle" in page
    assert "% right |" in page


def test_angles_are_those_of_the_sets(load: Load) -> None:
    script, classes = load("symmetries"), torch.arange(10).repeat(400)
    cases = {case.name: case for case in script.CASES}
    for name, half in (("60", [60] * 10), ("60-90", [60] * 5 + [90] * 5), ("multiple", range(0, 180, 18))):
        angles, right = cases[name].draw(classes, torch.Generator().manual_seed(0))
        largest = torch.stack([angles[classes == digit].abs().max() for digit in range(10)]).rad2deg()
        assert right[:10].rad2deg().tolist() == pytest.approx(list(half), abs=1e-3)
        assert largest.tolist() == pytest.approx(list(half), rel=0.02, abs=1e-3)
    angles, order = cases["cyclic"].draw(classes, torch.Generator().manual_seed(0))
    assert script.distance(angles, order).max() < 1e-5
    assert len(angles[classes == 2].rad2deg().round().unique()) == 2
    assert len(angles[classes == 7].rad2deg().round().unique()) == 4
    angles, deviation = cases["gaussian"].draw(classes, torch.Generator().manual_seed(0))
    assert angles[classes == 9].std().item() == pytest.approx(deviation[9].item(), rel=0.1)
