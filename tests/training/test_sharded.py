"""Sharded parameters change nothing but where they lie. On CPUs: nothing here was run on several GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import omniconv
from omniconv.training import Predictor, read_latest
from omniconv.training.logs import read_log
from tests.training import sharded
from tests.training.makers import waves, without_times

ROOT = Path(omniconv.__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes make of a fit, with a copy of the network each ("copied") and with shares ("sharded")."""
    path = tmp_path_factory.mktemp("runs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--module", "tests.training.sharded", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


def test_sharded_processes_have_the_losses_of_copies(folder: Path) -> None:
    copied, shares = (without_times(read_log(folder / name / "log.jsonl")) for name in ("copied", "sharded"))
    assert len(copied) == 6
    for first, second in zip(copied, shares, strict=True):
        assert second == pytest.approx(first, abs=1e-6)


def test_sharded_processes_have_the_losses_of_one(folder: Path, tmp_path: Path) -> None:
    sharded.fitted(tmp_path, 8)
    one, two = ([row["loss"] for row in read_log(at / "log.jsonl")] for at in (tmp_path, folder / "sharded"))
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)


def test_a_sharded_run_saves_whole_networks(folder: Path) -> None:
    copied, shares = (Predictor.load(folder / name, device="cpu") for name in ("copied", "sharded"))
    others = waves(9, ragged=True, seed=8)
    np.testing.assert_allclose(shares.probabilities(others), copied.probabilities(others), atol=1e-6)


def test_a_sharded_run_writes_whole_checkpoints(folder: Path) -> None:
    copied, shares = (read_latest(folder / name / "checkpoints").tensors for name in ("copied", "sharded"))
    torch.testing.assert_close(shares, copied, rtol=1e-5, atol=1e-6)
