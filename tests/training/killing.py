"""A program that trains, kills itself as often as it is told to, goes on, and compares: for `test_resume`.

Every training is a process of its own, forked from this one, which has never trained: a kill is a real SIGKILL, and the
start costs nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import torch
import torch._dynamo
from safetensors.torch import save_file

from omniconv._errors import Interrupted
from omniconv.training import EXIT_CODE, Recipe, Run, train
from tests.training.makers import TASK, network, waves, weights

LOADED = (accelerate, torch._dynamo)
"""What a training would import late: here once, rather than in every process."""


def training(folder: Path, options: dict[str, Any], report: Callable[[int, int, float], None]) -> None:
    """Train or go on, and write the weights that are kept at the end."""
    recipe = Recipe(average=0.9, batch_size=4, **options["recipe"])
    model = network(dropout=0.2)
    validation = waves(8, ragged=True, seed=5, noise=2.0)
    run = Run(folder=folder, resume=True, every=options["every"])
    samples = waves(13, ragged=True, noise=1.0)
    train(model, TASK, samples, recipe=recipe, validation=validation, run=run, report=report)
    save_file(weights(model), folder / "final.safetensors")


def forked(folder: Path, options: dict[str, Any]) -> tuple[int, int]:
    """Start `training`; its process, and what to read a byte from for every step."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    code = 1
    try:
        os.close(reading)

        def report(step: int, steps: int, loss: float) -> None:
            os.write(writing, b".")

        training(folder, options, report)
        code = 0
    except Interrupted as stopped:
        (folder / "stopped.txt").write_text(str(stopped))
        code = EXIT_CODE
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def stopped(folder: Path, options: dict[str, Any], steps: int, delay: float, number: signal.Signals) -> int:
    """Train for that many steps and that many seconds more, send the signal; how the process ended."""
    process, reading = forked(folder, options)
    for _ in range(steps):
        if not os.read(reading, 1):
            break
    time.sleep(delay)
    os.kill(process, number)
    return ended(process, reading)


def ended(process: int, reading: int) -> int:
    """Wait for a process; its exit code, or minus the signal that it died of."""
    status = os.waitpid(process, 0)[1]
    os.close(reading)
    return os.waitstatus_to_exitcode(status)


def main(folder: Path, options: dict[str, Any]) -> None:
    """One run without a break in `whole`, one with breaks in `broken`; how each process ended in ends.json."""
    torch.set_num_threads(1)
    draws = random.Random(options["seed"])
    number = signal.Signals[options["signal"]]
    ends = [ended(*forked(folder / "whole", options))]
    for _ in range(options["breaks"]):
        steps, delay = draws.randint(*options["steps"]), draws.uniform(0, options["delay"])
        ends.append(stopped(folder / "broken", options, steps, delay, number))
    ends.append(ended(*forked(folder / "broken", options)))
    (folder / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
