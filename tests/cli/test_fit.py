from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from omniconv.cli import main
from omniconv.cli._config import read_options, write_options
from omniconv.cli.fit import Fit
from omniconv.data import ArraySamples, CloudSamples, read
from omniconv.models import CKCNN, FlexNet, Network
from omniconv.training import (
    EXIT_CODE,
    Architecture,
    Classification,
    CloudAugmentation,
    Predictor,
    Recipe,
    Run,
    fit,
)
from omniconv.training.loading import TIMEOUT
from omniconv.training.logs import read_log

pytestmark = pytest.mark.timeout(280)
SMALL = ("--blocks", "1", "--width", "8", "--epochs", "3")

EVERY_OPTION: dict[str, Any] = {
    "data": "aeon:GunPoint",
    "out": Path("runs/a"),
    "target": "label",
    "task": "classification",
    "limit": 40,
    "corrupt": "skip",
    "missing": "mean",
    "validation": 0.25,
    "effort": "quick",
    "blocks": 2,
    "width": 12,
    "support_width": 3.5,
    "bandwidth": 0.5,
    "causal": True,
    "head": "last",
    "dropout": 0.2,
    "resolution": 7,
    "group": "O2",
    "group_samples": 6,
    "turn": 30.0,
    "flip": True,
    "vectors": 1,
    "zoom": 0.1,
    "jitter": 0.01,
    "thin": 0.25,
    "epochs": 5,
    "batch_size": 7,
    "accumulate": 2,
    "lr": 0.02,
    "weight_decay": 0.1,
    "warmup": 0.2,
    "clip": 2.0,
    "label_smoothing": 0.1,
    "balanced": True,
    "kernel_norm": 1e-3,
    "all_pass": 1e-2,
    "antialias": 0.1,
    "average": 0.99,
    "patience": 4,
    "precision": "bf16",
    "compile": True,
    "workers": 1,
    "read_timeout": 30.0,
    "seed": 3,
    "device": "cpu",
    "checkpoint_steps": 10,
    "keep": 3,
    "time_limit": 60.0,
    "track": ("tensorboard",),
}

OF_GROUPS = ("admissibility", "narrowness", "regrowth", "relaxation")
"""Penalties in a recipe that concern networks which the command does not build."""


def omniconv(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    """The command in this process."""
    monkeypatch.setattr(sys, "argv", ["omniconv", *map(str, arguments)])
    main()


def started(*arguments: str | Path, launcher: tuple[str, ...] = (), group: bool = False) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "omniconv", *map(str, arguments)],
        env=environment,
        start_new_session=group,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slow and fast noisy waves, in a file with a test part."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("waves") / "waves.npz"
    parts: dict[str, Any] = {}
    for part, n in (("train", 30), ("test", 20)):
        labels = np.arange(n) % 2
        turns = np.where(labels, 5, 2)[:, None] * np.linspace(0, 2 * np.pi, 40) + random.uniform(0, 6, (n, 1))
        parts[f"X_{part}"] = (np.sin(turns) + 0.1 * random.standard_normal((n, 40))).astype(np.float32)
        parts[f"y_{part}"] = np.array(["slow", "fast"])[labels]
    np.savez(path, **parts)
    return path


@pytest.fixture(scope="module")
def fitted(waves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on these waves."""
    run = tmp_path_factory.mktemp("runs") / "a"
    with pytest.MonkeyPatch.context() as patch:
        omniconv(patch, "fit", waves, "--out", run, *SMALL, "--epochs", "30", "--validation", "0.2")
    return run


def test_the_options_of_the_test_are_all_there_are() -> None:
    assert list(EVERY_OPTION) == [field.name for field in fields(Fit)]
    plain = Fit(data="", out=Path())
    assert all(getattr(plain, name) != value for name, value in EVERY_OPTION.items())


def test_every_option_of_the_recipe_reaches_it() -> None:
    clouds = CloudSamples(np.zeros((8, 20, 3)), np.zeros((8, 4, 20)), np.arange(8) % 2)
    _, recipe = Fit(**EVERY_OPTION | {"group": None, "group_samples": None}).choose(clouds)
    names = [field.name for field in fields(Recipe) if field.name not in {"augmentation", *OF_GROUPS}]
    assert recipe.augmentation is not None
    changes = {name: EVERY_OPTION[name] for name in ("turn", "flip", "vectors", "zoom", "jitter", "thin")}
    assert recipe.augmentation == CloudAugmentation(**changes)
    assert {name: value for name, value in asdict(recipe).items() if name in names} == {
        name: EVERY_OPTION[name] for name in names
    }
    assert all(getattr(recipe, name) == 0.0 for name in OF_GROUPS)


def test_the_defaults_are_those_of_the_library() -> None:
    plain = Fit(data="", out=Path())
    for library in (Recipe(), Architecture(), CloudAugmentation()):
        for field in fields(library):
            if field.name in ("augmentation", "quarters", "vectors", "unsigned", *OF_GROUPS):
                continue  # made of the others, or of Python alone
            given = getattr(plain, field.name)
            assert given is None or given == getattr(library, field.name), field.name
    assert plain.read_timeout == TIMEOUT


def test_a_config_file_round_trips_every_option(tmp_path: Path) -> None:
    command = Fit(**EVERY_OPTION)
    write_options(tmp_path / "run.toml", command)
    assert Fit(**read_options(tmp_path / "run.toml", Fit)) == command


def test_the_command_line_goes_before_the_file(waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Fit] = []
    monkeypatch.setattr(Fit, "run", lambda self: seen.append(self))
    write_options(tmp_path / "run.toml", Fit(**EVERY_OPTION))
    omniconv(monkeypatch, "fit", waves, f"--config={tmp_path / 'run.toml'}", "--epochs", "9", "--no-causal")
    assert seen == [Fit(**EVERY_OPTION | {"data": str(waves), "epochs": 9, "causal": False})]


def test_a_file_can_be_all_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Fit] = []
    monkeypatch.setattr(Fit, "run", lambda self: seen.append(self))
    write_options(tmp_path / "run.toml", Fit(**EVERY_OPTION))
    omniconv(monkeypatch, "fit", "--config", tmp_path / "run.toml")
    assert seen == [Fit(**EVERY_OPTION)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epocs = 3", r"no option 'epocs'\. Did you mean 'epochs'\?"),
        ('epochs = "three"', r"`epochs` must be int; got 'three'"),
        ("causal = 1", r"`causal` must be bool; got 1"),
        ('head = "first"', r"`head` must be 'pool' or 'last'; got 'first'"),
        ('group = "SO4"', r"`group` must be 'SO2' or 'O2' or 'SO3'; got 'SO4'"),
        ("epochs = ", r"is not TOML"),
        ("epochs = 3", r"`data` is neither in .* nor on the command line"),
        ("epochs = [3]", r"`epochs` must be int; got \[3\]"),
        ('track = ["foo"]', r"`track` must be a list of 'tensorboard', 'wandb'; got \['foo'\]"),
    ],
)
def test_a_wrong_config_file_says_what_is_wrong(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(SystemExit, match=message):
        omniconv(monkeypatch, "fit", "--config", tmp_path / "run.toml", "--out", tmp_path / "a")


def test_a_misspelt_option_is_an_error_with_the_nearest_name(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        omniconv(monkeypatch, "fit", waves, "--out", tmp_path / "a", "--epocs", "3")
    assert stop.value.code == 2
    assert "--epochs" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_run_leaves_all_of_it(fitted: Path) -> None:
    names = {path.name for path in fitted.iterdir()}
    assert names >= {"run.toml", "log.jsonl", "log.csv", "checkpoints", "config.json", "model.safetensors"}
    assert names >= {"README.md", "metrics.json", "training.png", "kernels.png"}
    rows = read_log(fitted / "log.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert all("validation_accuracy" in row for row in rows)
    card = (fitted / "README.md").read_text()
    assert "@misc{omniconv" in card
    assert "slow" in card


def test_evaluate_prints_what_the_run_reported(
    fitted: Path, waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    omniconv(monkeypatch, "evaluate", fitted, waves, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures == {"samples": 20, **json.loads((fitted / "metrics.json").read_text())["test"]}
    assert figures["accuracy"] == 1.0
    assert "1.0000" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_predictions_have_a_row_per_sample(
    suffix: str, fitted: Path, waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"p.{suffix}"
    omniconv(monkeypatch, "predict", fitted, waves, "--out", path, "--probabilities", "--split", "train")
    samples = read(waves, split="train")
    expected = Predictor.load(fitted).probabilities(samples)
    if suffix == "csv":
        with path.open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["name", "prediction", "p_fast", "p_slow"]
        labels = [row["prediction"] for row in rows]
        shares = np.array([[float(row["p_fast"]), float(row["p_slow"])] for row in rows])
    else:
        with np.load(path) as columns:
            labels, shares = columns["prediction"].tolist(), np.stack([columns["p_fast"], columns["p_slow"]], axis=1)
    np.testing.assert_allclose(shares, expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert labels == [("fast", "slow")[column] for column in expected.argmax(1)]


def test_info_and_cite_tell_of_the_network(
    fitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    omniconv(monkeypatch, "info", fitted)
    told = capsys.readouterr().out
    assert "SIREN" in told
    assert "1 of width 8" in told
    omniconv(monkeypatch, "cite", fitted)
    assert "@misc{romero2022ccnn" in capsys.readouterr().out


@pytest.mark.parametrize(
    "build", [partial(CKCNN, 1, 2, 9, width=4), partial(FlexNet, 1, 2, 9, blocks=(1, 1), widths=(3, 4))]
)
def test_info_and_cite_take_every_network(
    build: Callable[[], Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build()
    network.save_pretrained(tmp_path)
    omniconv(monkeypatch, "info", tmp_path)
    told = capsys.readouterr().out
    assert type(network).__name__ in told
    assert "reference grid (9,)" in told
    omniconv(monkeypatch, "cite", tmp_path)
    assert network.references[0].key in capsys.readouterr().out


def test_numbers_with_fractions_are_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    heights = random.uniform(1000, 2000, 24)
    np.savez(tmp_path / "data.npz", X=heights[:, None] * np.ones((1, 10)), y=heights)
    omniconv(monkeypatch, "fit", tmp_path / "data.npz", "--out", tmp_path / "a", *SMALL, "--epochs", "60")
    told = capsys.readouterr().out
    assert "regression" in told
    assert "--probabilities" not in told  # numbers have none
    assert Predictor.load(tmp_path / "a").evaluate(read(tmp_path / "data.npz"))["r2"] > 0.9


def test_a_limit_takes_every_class_with_its_share(waves: Path, tmp_path: Path) -> None:
    samples, _ = Fit(data=str(waves), out=tmp_path, limit=10).read()
    again, _ = Fit(data=str(waves), out=tmp_path, limit=10).read()
    assert samples.names == again.names
    assert np.unique(np.asarray(samples.targets), return_counts=True)[1].tolist() == [5, 5]


@pytest.mark.parametrize("option", ["--blocks", "--width", "--epochs", "--batch-size"])
def test_a_zero_is_not_taken_for_left_out(
    option: str, waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=f"`{option[2:].replace('-', '_')}` must be at least 1; got 0"):
        omniconv(monkeypatch, "fit", waves, "--out", tmp_path / "a", option, "0")


def test_the_data_may_stand_anywhere(waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Fit] = []
    monkeypatch.setattr(Fit, "run", lambda self: seen.append(self))
    (tmp_path / "run.toml").write_text("seed = 4")
    omniconv(monkeypatch, "fit", "--epochs", "1", waves, "--config", tmp_path / "run.toml", "--out", tmp_path / "a")
    assert seen == [Fit(data=str(waves), out=tmp_path / "a", epochs=1, seed=4)]


@pytest.mark.parametrize("limit", [29, 3, 1])
def test_any_limit_below_all_samples_is_kept_exactly(limit: int, waves: Path, tmp_path: Path) -> None:
    assert len(Fit(data=str(waves), out=tmp_path, limit=limit).read()[0]) == limit


def test_a_device_that_is_not_there_is_one_line(fitted: Path, waves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="`device` must be auto, cpu or an accelerator"):
        omniconv(monkeypatch, "evaluate", fitted, waves, "--device", "gpu")


@pytest.mark.parametrize("stage", ["read", "finish"])
def test_sigterm_before_and_after_the_steps_exits_with_75_too(
    stage: str, waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(self: Fit, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.0)
        raise AssertionError("nothing happened")

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Fit, stage, killed)
        with pytest.raises(SystemExit) as stop:
            omniconv(patch, "fit", waves, "--out", tmp_path / "a", *SMALL)
    assert stop.value.code == EXIT_CODE
    assert "received SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
    if stage == "finish":
        omniconv(monkeypatch, "resume", tmp_path / "a")
        assert (tmp_path / "a" / "model.safetensors").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_with_workers_writes_a_checkpoint(
    number: signal.Signals, waves: Path, tmp_path: Path
) -> None:
    options = (*SMALL, "--epochs", "100000", "--workers", "1")
    process = started("fit", waves, "--out", tmp_path / "a", *options, group=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "a" / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2.0)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE, errors
    assert f"received {number.name}" in errors
    assert "Traceback" not in errors
    assert len(list((tmp_path / "a" / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize("stage", ["read", "finish"])
def test_ctrl_c_before_and_after_the_steps_says_whether_there_is_something_to_resume(
    stage: str, waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(self: Fit, *arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Fit, stage, killed)
    with pytest.raises(SystemExit) as stop:
        omniconv(monkeypatch, "fit", waves, "--out", tmp_path / "a", *SMALL)
    kept = stage == "finish"
    assert stop.value.code == (EXIT_CODE if kept else 130)
    assert ("Resume to go on" in capsys.readouterr().err) == kept


def test_where_nothing_can_be_written_is_told_before_anything_is_read(
    fitted: Path, waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr("omniconv.cli.fit.read", unread)
    monkeypatch.setattr("omniconv.cli.predict.read", unread)
    taken = tmp_path / "taken"
    taken.write_text("")
    for out in (taken, taken / "a", Path("/proc/x"), Path("/proc/x/y")):
        with pytest.raises(
            SystemExit, match=f"`--out` must be a folder to write in, or a new one; got {out}: .*Give another"
        ):
            omniconv(monkeypatch, "fit", waves, "--out", out)
        with pytest.raises(SystemExit, match=r"`--out` must be a file in a folder .*; got /.*x\.csv: .*Give another"):
            omniconv(monkeypatch, "predict", fitted, waves, "--out", out / "x.csv")
    with pytest.raises(SystemExit, match=r"`--json` must be a file in a folder"):
        omniconv(monkeypatch, "evaluate", fitted, waves, "--json", taken / "a.json")
    with pytest.raises(AssertionError, match="were read"):
        omniconv(monkeypatch, "fit", waves, "--out", tmp_path / "new" / "a")
    assert list(tmp_path.iterdir()) == [taken]


def test_a_target_that_is_not_there_is_told_in_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kind.csv").write_text("a,b,kind\n1,2,x\n3,4,y\n")
    with pytest.raises(SystemExit, match=r"kind\.csv: --target nope: there is no such column, only kind, a, b\."):
        omniconv(monkeypatch, "fit", tmp_path / "kind.csv", "--target", "nope", "--out", tmp_path / "a")


def test_a_run_is_not_overwritten(fitted: Path, waves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (fitted / "model.safetensors").read_bytes()
    with pytest.raises(SystemExit, match=r"holds a run already\. Go on with `omniconv resume"):
        omniconv(monkeypatch, "fit", waves, "--out", fitted)
    assert (fitted / "model.safetensors").read_bytes() == before


def test_a_run_stopped_by_the_time_limit_exits_with_75_and_is_resumed_to_the_same_weights(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    omniconv(monkeypatch, "fit", waves, "--out", tmp_path / "whole", *SMALL)
    with pytest.raises(SystemExit) as stop:
        omniconv(monkeypatch, "fit", waves, "--out", tmp_path / "parts", *SMALL, "--time-limit", "0")
    assert stop.value.code == EXIT_CODE == 75
    assert "reached the time limit" in capsys.readouterr().err
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    with pytest.raises(SystemExit) as stop:
        omniconv(monkeypatch, "resume", tmp_path / "parts", "--time-limit", "0")
    assert stop.value.code == EXIT_CODE
    omniconv(monkeypatch, "resume", tmp_path / "parts", "--time-limit", "1000")
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_sigterm_writes_a_checkpoint_and_exits_with_75(waves: Path, tmp_path: Path) -> None:
    process = started("fit", waves, "--out", tmp_path / "a", *SMALL, "--epochs", "100000")
    deadline = time.monotonic() + 120
    while not (tmp_path / "a" / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)  # some steps
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE, errors
    assert "received SIGTERM" in errors
    assert len(list((tmp_path / "a" / "checkpoints").iterdir())) == 1


def test_a_run_begun_in_python_is_not_resumed_from_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ArraySamples(np.random.default_rng(0).standard_normal((8, 1, 12)), np.arange(8) % 2)
    fit(samples, Classification((0, 1)), Architecture(blocks=1, width=4), Recipe(epochs=1), run=Run(tmp_path / "a"))
    with pytest.raises(
        SystemExit, match=r"a was begun in Python\. Go on there, with the same call and `Run\(folder, res"
    ):
        omniconv(monkeypatch, "resume", tmp_path / "a")
    with pytest.raises(SystemExit, match=r"b holds no run: there is no .*run\.toml"):
        omniconv(monkeypatch, "resume", tmp_path / "b")


def test_two_processes_compute_what_one_does_with_the_double_batch(waves: Path, tmp_path: Path) -> None:
    options = (*SMALL, "--dropout", "0")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    runs = [
        started("fit", waves, "--out", tmp_path / "two", *options, "--batch-size", "5", launcher=torchrun),
        started("fit", waves, "--out", tmp_path / "one", *options, "--batch-size", "10"),
    ]
    for process in runs:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    two, one = ([row["loss"] for row in read_log(tmp_path / name / "log.jsonl")] for name in ("two", "one"))
    assert len(two) == 9
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)


def write_image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 6), value).save(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda at: None, "There is no file or folder"),
        (lambda at: at.mkdir(), "empty folder"),
        (lambda at: write_image(at / "only" / "a.png", 3), "at least two"),
        (lambda at: write_image(at / "a.png", 3), "has no targets to learn from"),
    ],
    ids=["nothing", "empty folder", "one class", "no targets"],
)
def test_bad_data_is_one_clear_line(make: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "data")
    with pytest.raises(SystemExit, match=message):
        omniconv(monkeypatch, "fit", tmp_path / "data", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_and_samples_of_different_counts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "data.npz", X=np.zeros((4, 10)), y=np.arange(3))
    with pytest.raises(SystemExit, match=r"4.*3"):
        omniconv(monkeypatch, "fit", tmp_path / "data.npz", "--out", tmp_path / "run")


def test_nan_is_refused_by_name_or_filled_by_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signals = np.random.default_rng(0).standard_normal((8, 12))
    signals[5, 3] = np.nan
    np.savez(tmp_path / "data.npz", X=signals, y=np.arange(8) % 2)
    with pytest.raises(
        SystemExit, match=r"signal 5 contains NaN\..*: --missing interpolate, --missing mean or, .* --m"
    ):
        omniconv(monkeypatch, "fit", tmp_path / "data.npz", "--out", tmp_path / "a", *SMALL)
    omniconv(monkeypatch, "fit", tmp_path / "data.npz", "--out", tmp_path / "b", *SMALL, "--missing", "interpolate")
    omniconv(monkeypatch, "predict", tmp_path / "b", tmp_path / "data.npz", "--out", tmp_path / "p.csv")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 9
    np.savez(tmp_path / "whole.npz", X=np.nan_to_num(signals), y=np.arange(8) % 2)
    omniconv(monkeypatch, "fit", tmp_path / "whole.npz", "--out", tmp_path / "c", *SMALL)
    commands: list[tuple[str, tuple[str | Path, ...]]] = [("evaluate", ()), ("predict", ("--out", tmp_path / "q.csv"))]
    for name, options in commands:
        with pytest.raises(
            SystemExit, match=r"signal 5 contains NaN\. .* settled in the training.* fit --missing inter"
        ):
            omniconv(monkeypatch, name, tmp_path / "c", tmp_path / "data.npz", *options)


def irregular(path: Path, *, gaps: bool) -> Path:
    """Slow and fast waves at irregular times, joined, in two parts; with gaps some values were not observed."""
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, n in (("train", 12), ("test", 8)):
        lengths, labels = random.integers(9, 15, n), np.arange(n) % 2
        times = [np.cumsum(random.uniform(20, 180, length)) for length in lengths]
        waves = [np.sin(2 * np.pi * at / (300, 1200)[label]) for at, label in zip(times, labels, strict=True)]
        joined = np.concatenate(waves)[None].repeat(2, axis=0)
        if gaps:
            joined[random.random(joined.shape) < 0.2] = np.nan
        arrays |= {f"X_{part}": joined, f"lengths_{part}": lengths, f"times_{part}": np.concatenate(times)}
        arrays[f"y_{part}"] = np.array(["fast", "slow"])[labels]
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(("gaps", "options"), [(False, ()), (True, ("--missing", "absent"))])
def test_series_with_times_are_fitted_evaluated_and_predicted(
    gaps: bool, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = irregular(tmp_path / "data.npz", gaps=gaps), tmp_path / "a"
    omniconv(monkeypatch, "fit", data, "--out", run, *SMALL, "--validation", "0.25", *options)
    predictor, samples = Predictor.load(run, device="cpu"), read(data, split="test")
    assert predictor.about["times"] == "given"
    assert isinstance(predictor.model.span, float)
    assert predictor.model.span > 1000  # in the unit of the times
    omniconv(monkeypatch, "evaluate", run, data, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures == {"samples": 8, **json.loads((run / "metrics.json").read_text())["test"]}
    omniconv(monkeypatch, "predict", run, data, "--out", tmp_path / "p.npz", "--probabilities")
    with np.load(tmp_path / "p.npz") as columns:
        shares = np.stack([columns["p_fast"], columns["p_slow"]], axis=1)
    np.testing.assert_allclose(shares, predictor.probabilities(samples), rtol=1e-12)


def test_series_without_times_are_refused_by_a_network_with_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = irregular(tmp_path / "data.npz", gaps=True), tmp_path / "a"
    omniconv(monkeypatch, "fit", data, "--out", run, *SMALL, "--missing", "absent")
    with np.load(data) as arrays:
        kept = {name: arrays[name] for name in arrays.files if not name.startswith("times")}
    np.savez(tmp_path / "bare.npz", **kept)
    commands: list[list[str | Path]] = [["evaluate"], ["predict", "--out", tmp_path / "p.csv"]]
    for command in commands:
        with pytest.raises(SystemExit, match="trained on series with times; got samples without"):
            omniconv(monkeypatch, command[0], run, tmp_path / "bare.npz", *command[1:])
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("missing", ["interpolate", "mean"])
def test_series_with_times_cannot_be_filled(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = irregular(tmp_path / "data.npz", gaps=True)
    with pytest.raises(SystemExit, match=f"--missing {missing} and times exclude each other.*--missing absent"):
        omniconv(monkeypatch, "fit", data, "--out", tmp_path / "a", *SMALL, "--missing", missing)
    assert not (tmp_path / "a").exists()


def test_wrong_times_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "data.npz", X=np.zeros((4, 3)), y=np.arange(4) % 2, times=[0, 2, 1])
    with pytest.raises(SystemExit, match=r"data\.npz, array times: `times` of all series must increase strictly"):
        omniconv(monkeypatch, "fit", tmp_path / "data.npz", "--out", tmp_path / "a", *SMALL)


def test_absent_values_need_no_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signals = np.random.default_rng(0).standard_normal((8, 2, 12))
    signals[5, 1, 3] = signals[6, :, 7] = np.nan
    data = tmp_path / "data.npz"
    np.savez(data, X=signals, y=np.arange(8) % 2)
    omniconv(monkeypatch, "fit", data, "--out", tmp_path / "a", *SMALL, "--missing", "absent")
    omniconv(monkeypatch, "predict", tmp_path / "a", data, "--out", tmp_path / "p.csv")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 9
    assert Predictor.load(tmp_path / "a").about["times"] == "counted"
    np.savez(data, X=np.zeros((8, 1, 4, 5)), y=np.arange(8) % 2)
    with pytest.raises(SystemExit, match="--missing absent needs series, of one axis; these samples have 2 axes"):
        omniconv(monkeypatch, "fit", data, "--out", tmp_path / "b", *SMALL, "--missing", "absent")


def test_a_corrupt_image_is_named_or_left_out_by_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, value in (("dark", 10), ("light", 240)):
        for number in range(4):
            write_image(tmp_path / "data" / kind / f"{number}.png", value + number)
    bad = tmp_path / "data" / "dark" / "broken.png"
    bad.write_bytes(b"no image")
    with pytest.raises(SystemExit, match=r"broken\.png"):
        omniconv(monkeypatch, "fit", tmp_path / "data", "--out", tmp_path / "a", *SMALL)
    with pytest.warns(UserWarning, match=r"broken\.png"):
        omniconv(monkeypatch, "fit", tmp_path / "data", "--out", tmp_path / "b", *SMALL, "--corrupt", "skip")
    assert (tmp_path / "b" / "model.safetensors").exists()


def test_probabilities_of_a_regression_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "data.npz", X=np.random.default_rng(0).standard_normal((6, 8)), y=np.linspace(0, 1.5, 6))
    omniconv(monkeypatch, "fit", tmp_path / "data.npz", "--out", tmp_path / "a", *SMALL)
    with pytest.raises(SystemExit, match="Only classification has probabilities"):
        omniconv(
            monkeypatch,
            "predict",
            tmp_path / "a",
            tmp_path / "data.npz",
            "--out",
            tmp_path / "p.csv",
            "--probabilities",
        )
