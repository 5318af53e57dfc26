"""`omniconv symmetry`: from images to their poses, and what is turned farther than its like."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from omniconv.cli import main
from omniconv.data import read
from omniconv.symmetry import Symmetries
from tests.symmetry.test_finding import shapes

pytestmark = pytest.mark.timeout(120)
COUNT, HALF = 240, math.radians(40)
FAST = ("--neighbours", "20", "--epochs", "16", "--batch-size", "20", "--centring", "1", "--device", "cpu")


def omniconv(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    """The command in this process."""
    monkeypatch.setattr(sys, "argv", ["omniconv", *map(str, arguments)])
    main()


def written(path: Path, angles: torch.Tensor) -> Path:
    """A file with two kinds of shapes, turned by these angles."""
    kinds = torch.arange(len(angles)) % 2
    np.savez(path, X=shapes(kinds, angles).numpy(), y=np.array(["bent", "spread"])[kinds.numpy()])
    return path


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawn = 2 * torch.rand(COUNT, generator=torch.Generator().manual_seed(1)) - 1
    return written(tmp_path_factory.mktemp("turned") / "turned.npz", HALF * drawn)


@pytest.fixture(scope="module")
def found(turned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command writes."""
    folder = tmp_path_factory.mktemp("found") / "symmetries"
    with pytest.MonkeyPatch.context() as patch:
        upright = ("--standardized", folder / "upright.npz")
        omniconv(patch, "symmetry", turned, "--out", folder, *FAST, "--family", "uniform", *upright)
    return folder


def test_every_image_has_a_row(found: Path, turned: Path) -> None:
    rows = pandas.read_csv(found / "poses.csv")
    assert list(rows.columns) == ["name", "target", "pose_degrees", "half_width_degrees"]
    assert len(rows) == COUNT
    assert set(rows.target) == {"bent", "spread"}
    assert 30 < rows.half_width_degrees.median() < 55
    again = Symmetries.load(found)
    np.testing.assert_allclose(rows.pose_degrees, torch.rad2deg(again.poses[:, 0]), atol=0.006)


def test_images_are_written_turned_back_with_their_targets(found: Path, turned: Path) -> None:
    before, after = read(str(turned)), read(str(found / "upright.npz"))
    assert list(after.targets) == list(before.targets)  # type: ignore[arg-type]
    for kind in ("bent", "spread"):
        mine = [i for i in range(COUNT) if before.targets[i] == kind]  # type: ignore[index]
        spread = [np.stack([samples[i] for i in mine]).std(0).mean() for samples in (before, after)]
        assert spread[1] < 0.5 * spread[0]


def test_a_figure_is_drawn(found: Path) -> None:
    assert (found / "symmetry.png").read_bytes()[:4] == b"\x89PNG"


def test_other_images_are_compared(
    found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    angles = torch.tensor([0.1, -0.2, 1.6, -1.6] * 6).repeat_interleave(2)
    other = written(tmp_path / "other.npz", angles)
    omniconv(monkeypatch, "symmetry", other, "--known", found, "--out", tmp_path / "compared")
    rows = pandas.read_csv(tmp_path / "compared" / "poses.csv")
    foreign = (rows.excess_degrees > 0).to_numpy()
    assert (foreign == (angles.abs() > 1).numpy()).mean() > 0.9
    assert not (tmp_path / "compared" / "config.json").exists()
    told = capsys.readouterr().out
    assert "turned farther than their like" in told
    assert "bent" in told


def test_what_is_found_is_told(
    turned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    once = ("--neighbours", "5", "--epochs", "1", "--limit", "40", "--device", "cpu")
    omniconv(monkeypatch, "symmetry", turned, "--out", tmp_path / "likeliest", *once)
    assert "the largest wins" in capsys.readouterr().out
    omniconv(monkeypatch, "symmetry", turned, "--out", tmp_path / "a", *once, "--family", "cyclic")
    told = capsys.readouterr().out
    assert "40 images of" in told
    assert "multiples of" in told
    assert "nats per angle" in told
    rows = pandas.read_csv(tmp_path / "a" / "poses.csv")
    assert list(rows.columns) == ["name", "target", "pose_degrees", "order", "deviation_degrees"]
    assert set(rows.order) <= set(range(1, 9))
    omniconv(monkeypatch, "symmetry", turned, "--out", tmp_path / "b", *once, "--family", "cyclic")
    assert (tmp_path / "b" / "poses.csv").read_bytes() == (tmp_path / "a" / "poses.csv").read_bytes()


def test_labels_may_be_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markup is text, numbers with fractions make no table, and colours are channels."""
    monkeypatch.setenv("COLUMNS", "200")
    colours = shapes(torch.zeros(30, dtype=torch.long), torch.linspace(-1, 1, 30)).repeat(1, 3, 1, 1).numpy()
    once = ("--neighbours", "5", "--epochs", "1", "--device", "cpu")
    for name, labels in (("markup", np.array(["[/a]", "[red]x"] * 15)), ("number", np.linspace(0, 1, 30))):
        np.savez(tmp_path / f"{name}.npz", X=colours, y=labels)
        omniconv(monkeypatch, "symmetry", tmp_path / f"{name}.npz", "--out", tmp_path / name, *once)
        told = capsys.readouterr().out
        assert ("[red]x" in told) == ("By class" in told) == (name == "markup")
        assert len(pandas.read_csv(tmp_path / name / "poses.csv")) == 30


def refused(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as stop:
        omniconv(monkeypatch, "symmetry", *arguments)
    return str(stop.value)


def test_what_is_wrong_is_told_in_a_line(
    found: Path, turned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ("--out", tmp_path / "new")
    assert "holds a config.json already. Give another --out" in refused(monkeypatch, turned, "--out", found)
    assert "takes images of one size" in refused(monkeypatch, "aeon:UnitTest", *out)
    assert "must be a new file that ends in .npz" in refused(
        monkeypatch, turned, *out, "--standardized", tmp_path / "a.csv"
    )
    assert "at least 47 signals" in refused(monkeypatch, turned, *out, "--limit", "40")
    assert "`--limit` must be at least 1" in refused(monkeypatch, turned, *out, "--limit", "0")
    assert "There is no" in refused(monkeypatch, turned, *out, "--known", tmp_path)
    assert "takes no --epochs, --lr" in refused(
        monkeypatch, turned, *out, "--known", found, "--epochs", "3", "--lr", "0.1"
    )
    np.savez(tmp_path / "wide.npz", X=np.zeros((3, 1, 16, 12), np.float32))
    assert "those of (16, 16)" in refused(monkeypatch, tmp_path / "wide.npz", *out, "--known", found)
    assert not (tmp_path / "new").exists()
