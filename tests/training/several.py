"""A program for several processes, started by torchrun: it trains as it is told to, one training after the other."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from omniconv._errors import NonFiniteError
from omniconv.data import ArraySamples
from omniconv.training import Recipe, Run, train
from omniconv.training.processes import disconnect
from tests.training.makers import TASK, network, waves, weights


class Double(nn.Module):
    """A network in float64: AdamW magnifies rounding where gradients vanish, as those of a bias before a norm do."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.double()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.model(x.double(), mask=mask)


def training(folder: Path, options: dict[str, Any], *, killed_after: int = -1) -> None:
    """Train; the first process writes the record and the weights that are kept."""
    first = os.environ.get("RANK", "0") == "0"

    def report(step: int, steps: int, loss: float) -> None:
        if step == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)

    model: nn.Module = network(options.get("dropout", 0.0))
    if options.get("double", True):
        model = Double(model)
    samples = waves(13, ragged=True, noise=1.0)
    if "spoilt" in options:
        signals = [samples[index] for index in range(13)]
        signals[options["spoilt"]][:] = np.nan
        samples = ArraySamples(signals, samples.targets)
    validation = waves(7, ragged=True, seed=5, noise=2.0) if options.get("validation") else None
    run = Run(folder=folder, resume=True, every=options.get("every", 100), keep=9)
    recipe = Recipe(**options["recipe"])
    record = train(model, TASK, samples, recipe=recipe, validation=validation, run=run, report=report)
    folder.mkdir(exist_ok=True)
    (folder / f"record-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(record))
    if first:
        save_file(weights(model), folder / "final.safetensors")


def main(folder: Path, trainings: dict[str, dict[str, Any]]) -> None:
    """Each training in a folder of its name; one with `killed_after` ends all."""
    torch.set_num_threads(1)
    for name, options in trainings.items():
        try:
            training(folder / name, options, killed_after=options.get("killed_after", -1))
        except NonFiniteError as error:
            (folder / f"{name}-{os.environ.get('RANK', '0')}.txt").write_text(str(error))
    disconnect()
    left = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]  # none where there is no /proc
    assert not [name for name in left if "gloo" in name], "threads that are left can abort the process as it ends"


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
