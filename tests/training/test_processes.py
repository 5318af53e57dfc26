"""Several processes compute what one does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import omniconv
from omniconv.training import read_latest
from omniconv.training.checkpoints import list_checkpoints
from omniconv.training.logs import read_log
from tests.training import several
from tests.training.makers import differing, without_times

ROOT = Path(omniconv.__file__).parents[1]
PLAIN: dict[str, Any] = {"recipe": {"epochs": 3, "batch_size": 4}}
FULL: dict[str, Any] = {"recipe": {"epochs": 3, "batch_size": 4, "average": 0.8}, "validation": True, "every": 1}
PENALISED: dict[str, Any] = {
    "recipe": {"epochs": 2, "batch_size": 4, "kernel_norm": 0.05, "all_pass": 0.05, "lr": 0.003}
}


def launched(folder: Path, trainings: dict[str, dict[str, Any]], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `several.py` in two processes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--module", "tests.training.several", str(folder), json.dumps(trainings)]
    return subprocess.run(command, cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True)


def alone(folder: Path, trainings: dict[str, dict[str, Any]]) -> None:
    """The same trainings in this process, with batches of twice the size."""
    for name, options in trainings.items():
        recipe = {**options["recipe"], "batch_size": 2 * options["recipe"]["batch_size"]}
        several.training(folder / name, {**options, "recipe": recipe})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one process makes of every training, and what two make of them; the last of two is killed."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    trainings = {"plain": PLAIN, "single": {**PLAIN, "double": False}, "full": FULL, "penalised": PENALISED}
    alone(one, trainings)
    dropping = {**FULL, "dropout": 0.2}
    broken = {**dropping, "killed_after": 4}
    done = launched(two, {**trainings, "spoilt": {**PLAIN, "spoilt": 5}, "whole": dropping, "broken": broken})
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr or "-9" in done.stderr, done.stderr
    assert (two / "whole" / "final.safetensors").is_file(), done.stderr
    return one, two


def figures(folder: Path) -> list[dict[str, float]]:
    return without_times(read_log(folder / "log.jsonl"))


def check_close(first: Path, second: Path, tolerance: float) -> None:
    rows, others = figures(first), figures(second)
    assert len(rows) == len(others) > 0
    for row, other in zip(rows, others, strict=True):
        assert other == pytest.approx(row, rel=tolerance, abs=tolerance)


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "final.safetensors")


@pytest.mark.parametrize("name", ["plain", "full", "penalised"])
def test_two_processes_with_half_the_batch_learn_what_one_learns(folders: tuple[Path, Path], name: str) -> None:
    one, two = folders
    check_close(one / name, two / name, 1e-7)
    torch.testing.assert_close(tensors(one / name), tensors(two / name), rtol=1e-6, atol=1e-7)


def test_two_processes_have_the_losses_of_one_in_float32_too(folders: tuple[Path, Path]) -> None:
    check_close(folders[0] / "single", folders[1] / "single", 1e-5)


def test_every_process_has_the_same_record(folders: tuple[Path, Path]) -> None:
    found = [json.loads((folders[1] / "full" / f"record-{rank}.json").read_text()) for rank in (0, 1)]
    assert without_times(found[0]) == without_times(found[1])


def test_the_first_process_alone_writes_logs_and_checkpoints(folders: tuple[Path, Path]) -> None:
    full = folders[1] / "full"
    assert sorted(path.name for path in full.iterdir()) == [
        "checkpoints", "final.safetensors", "log.csv", "log.jsonl", "record-0.json", "record-1.json",
    ]  # fmt: skip
    assert [row["step"] for row in figures(full)] == list(range(1, 7))
    assert [path.name for path in sorted((full / "checkpoints").iterdir())] == [
        f"step-{step:09d}" for step in range(1, 7)
    ]


def test_the_checkpoints_of_two_processes_are_those_of_one(folders: tuple[Path, Path]) -> None:
    first, second = (read_latest(folder / "full" / "checkpoints") for folder in folders)
    torch.testing.assert_close(first.tensors, second.tensors, rtol=1e-6, atol=1e-7)
    assert first.state["identity"] == second.state["identity"]


def test_a_bad_sample_stops_all_processes_and_the_one_that_has_it_names_it(folders: tuple[Path, Path]) -> None:
    told = [(folders[1] / f"spoilt-{rank}.txt").read_text() for rank in (0, 1)]
    steps = [message.partition(";")[0] for message in told]
    assert steps[0] == steps[1]
    assert steps[0] in [f"the loss is nan at step {step}" for step in (1, 2)]
    kept = [read_latest(folders[1] / "spoilt" / f"nonfinite-{rank}").tensors["indices"].tolist() for rank in (0, 1)]
    assert ["begins with sample 5 of the training data" in message for message in told] == [
        5 in indices for indices in kept
    ]
    assert sorted(5 in indices for indices in kept) == [False, True]


def test_two_processes_that_are_killed_go_on_with_the_same_bits(folders: tuple[Path, Path]) -> None:
    whole, broken = folders[1] / "whole", folders[1] / "broken"
    steps = [int(path.name.removeprefix("step-")) for path in list_checkpoints(broken / "checkpoints")]
    assert 3 <= max(steps) <= 4
    done = launched(folders[1], {"broken": {**FULL, "dropout": 0.2}})
    assert done.returncode == 0, done.stderr
    assert figures(broken) == figures(whole)
    assert differing(tensors(broken), tensors(whole)) == []
    first, second = read_latest(whole / "checkpoints"), read_latest(broken / "checkpoints")
    assert first.state == second.state
    assert differing(first.tensors, second.tensors) == []


def cut(source: Path, target: Path, step: int) -> None:
    """A run as it was at the checkpoint of that step."""
    shutil.copytree(source, target)
    for path in list_checkpoints(target / "checkpoints"):
        if path.name != f"step-{step:09d}":
            shutil.rmtree(path)
    (target / "final.safetensors").unlink()


def test_one_process_goes_on_where_two_stopped(folders: tuple[Path, Path], tmp_path: Path) -> None:
    cut(folders[1] / "full", tmp_path / "full", step=3)
    alone(tmp_path, {"full": FULL})
    check_close(folders[0] / "full", tmp_path / "full", 1e-7)
    torch.testing.assert_close(tensors(tmp_path / "full"), tensors(folders[0] / "full"), rtol=1e-6, atol=1e-7)
