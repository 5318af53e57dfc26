"""A run that dies and goes on ends with the bits of one that does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import omniconv
from omniconv.training import EXIT_CODE, read_latest
from omniconv.training.checkpoints import list_checkpoints, read_checkpoint
from omniconv.training.logs import read_log
from tests.training.makers import differing, without_times

ROOT = Path(omniconv.__file__).parents[1]


def broken_and_whole(folder: Path, **options: Any) -> list[int]:
    """Run `killing.py`; how its trainings ended: the whole one, the broken ones, the last one."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.killing", str(folder), json.dumps(options)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ends: list[int] = json.loads((folder / "ends.json").read_text())
    assert ends[0] == ends[-1] == 0, done.stderr
    return ends[1:-1]


def check_equal(folder: Path, steps: int) -> None:
    """Weights, checkpoints and logs of `broken` are those of `whole`, bit for bit."""
    whole, broken = folder / "whole", folder / "broken"
    assert differing(load_file(whole / "final.safetensors"), load_file(broken / "final.safetensors")) == []
    first, second = read_latest(whole / "checkpoints"), read_latest(broken / "checkpoints")
    assert differing(first.tensors, second.tensors) == []
    assert first.state == second.state
    assert first.state["step"] == steps
    prefixes = {name.partition("/")[0] for name in first.tensors}
    assert prefixes == {"model", "average", "optimizer", "best"}
    rows = without_times(read_log(whole / "log.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert without_times(read_log(broken / "log.jsonl")) == rows
    assert sorted(path.name for path in (broken / "checkpoints").iterdir()) == [
        path.name for path in list_checkpoints(broken / "checkpoints")
    ]
    for path in list_checkpoints(broken / "checkpoints"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("every", "recipe", "seed"),
    [(1, {}, 1), (1, {"workers": 1}, 2), (2, {"accumulate": 2, "kernel_norm": 0.01}, 3)],
)
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bits(
    tmp_path: Path, every: int, recipe: dict[str, Any], seed: int
) -> None:
    epochs, breaks = 11 * every, 11
    ends = broken_and_whole(
        tmp_path,
        seed=seed,
        every=every,
        recipe={**recipe, "epochs": epochs},
        signal="SIGKILL",
        breaks=breaks,
        steps=(0, 2 * every),
        delay=0.02,
    )
    assert ends == [-signal.SIGKILL] * breaks
    check_equal(tmp_path, steps=4 * epochs)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_run_that_is_asked_to_stop_writes_a_checkpoint_and_goes_on_with_the_same_bits(
    tmp_path: Path, number: str
) -> None:
    ends = broken_and_whole(
        tmp_path, seed=5, every=1000, recipe={"epochs": 6}, signal=number, breaks=3, steps=(1, 5), delay=0.004
    )
    assert ends == [EXIT_CODE] * 3
    told = (tmp_path / "broken" / "stopped.txt").read_text()
    assert told.startswith(f"received {number} after step ")
    assert f"A checkpoint is in {tmp_path / 'broken'}; resume to go on: omniconv resume " in told
    check_equal(tmp_path, steps=24)
