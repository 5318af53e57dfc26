"""`omniconv fit --group`: from files to a network that no turn changes, and every command on what it leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from omniconv.cli import main
from omniconv.models import CCNN, Network
from omniconv.training import EXIT_CODE

pytestmark = pytest.mark.timeout(120)
SMALL = ("--blocks", "1", "--width", "4", "--epochs", "2", "--device", "cpu")
GROUP = ("--group", "SO2", "--group-samples", "4")


def omniconv(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    """The command in this process."""
    monkeypatch.setattr(sys, "argv", ["omniconv", *map(str, arguments)])
    main()


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy images with one bar or with two, in a file with a test part."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("bars") / "bars.npz"
    parts: dict[str, Any] = {}
    for part, n in (("train", 24), ("test", 12)):
        labels = np.arange(n) % 2
        images = 0.1 * random.standard_normal((n, 1, 7, 7)).astype(np.float32)
        images[:, :, 2, 1:6] += 1
        images[labels == 1, :, 5, 1:6] += 1
        parts |= {f"X_{part}": images, f"y_{part}": np.array(["one", "two"])[labels]}
    np.savez(path, **parts)
    return path


@pytest.fixture(scope="module")
def run(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on these images, on four turns."""
    folder = tmp_path_factory.mktemp("runs") / "turning"
    with pytest.MonkeyPatch.context() as patch:
        omniconv(patch, "fit", bars, "--out", folder, *SMALL, *GROUP)
    return folder


def test_fit_tells_the_group_and_how_well_it_is_kept(
    bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    quick = ("--effort", "quick", "--epochs", "1", "--device", "cpu")
    omniconv(monkeypatch, "fit", bars, "--out", tmp_path / "a", *quick, "--group", "SO2")
    out = capsys.readouterr().out
    assert "CCNN on SO2 with 8 elements, 2 blocks of width 11" in out  # 32 by the root of 8
    told = json.loads((tmp_path / "a" / "config.json").read_text())["about"]["symmetry"]
    assert f"outputs change by {told['mean_error']:.1%} on average over 16 elements of SO2 that move a signal" in out
    assert f"at most by {told['largest_error']:.1%}" in out


def test_a_run_leaves_a_figure_of_its_symmetry(run: Path) -> None:
    assert {"symmetry.png", "training.png", "README.md", "run.toml"} <= {path.name for path in run.iterdir()}
    assert not (run / "kernels.png").exists()
    assert 'group = "SO2"\ngroup_samples = 4' in (run / "run.toml").read_text()


def test_a_network_of_a_run_answers_turned_images_as_upright_ones(run: Path, bars: Path) -> None:
    model = Network.from_pretrained(run, device="cpu").eval()
    assert isinstance(model, CCNN)
    assert model.arguments["samples"] == 4
    assert model.arguments["kernel"].keywords == {"bandwidth": 0.5}
    with torch.no_grad(), np.load(bars) as arrays:
        x = torch.from_numpy(arrays["X_test"])
        torch.testing.assert_close(model(x.rot90(1, (2, 3))), model(x), rtol=0, atol=1e-5)


def test_a_run_on_a_group_is_resumed_to_the_same_weights(
    run: Path, bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as stop:
        omniconv(monkeypatch, "fit", bars, "--out", tmp_path / "a", *SMALL, *GROUP, "--time-limit", "0")
    assert stop.value.code == EXIT_CODE
    omniconv(monkeypatch, "resume", tmp_path / "a", "--time-limit", "1000")
    whole, parts = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "a"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_on_a_group_is_evaluated_predicted_told_and_exported(
    run: Path, bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    omniconv(monkeypatch, "evaluate", run, bars, "--json", tmp_path / "figures.json")
    reported = json.loads((run / "metrics.json").read_text())["test"]
    assert json.loads((tmp_path / "figures.json").read_text())["accuracy"] == reported["accuracy"]
    omniconv(monkeypatch, "predict", run, bars, "--out", tmp_path / "p.npz")
    assert len(np.load(tmp_path / "p.npz")["prediction"]) == 12
    capsys.readouterr()
    omniconv(monkeypatch, "info", run)
    out = capsys.readouterr().out
    assert "SO2(), 4 samples" in out
    assert "group SO2, elements 4, moves 16, mean error" in out
    omniconv(monkeypatch, "export", run, "--out", tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    x = np.load(bars)["X_test"]
    (upright,), (turned,) = (session.run(None, {"x": y}) for y in (x, np.rot90(x, 1, (2, 3)).copy()))
    np.testing.assert_allclose(turned, upright, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--group", "SO3"), "`group` must act on the axes of the signals; 'SO3' acts on 3, and these have 2"),
        (("--group-samples", "4"), "`group_samples` counts elements of a `group`, and there is none; got 4"),
        (("--group", "O2", "--group-samples", "5"), "`group_samples` must be a multiple of 2 for O2"),
        ((*GROUP, "--causal"), "`causal` and `group` exclude each other"),
        ((*GROUP, "--head", "last"), '`head` "last" and `group` exclude each other'),
    ],
)
def test_what_does_not_go_together_is_one_line_and_leaves_nothing(
    options: tuple[str, ...], message: str, bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=message):
        omniconv(monkeypatch, "fit", bars, "--out", tmp_path / "a", *SMALL, *options)
    assert not (tmp_path / "a").exists()
