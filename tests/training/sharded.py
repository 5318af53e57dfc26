"""A program for several processes that shard their parameters: FSDP, on CPUs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from omniconv.training import Architecture, Recipe, Run, fit
from omniconv.training import loop as training_loop
from omniconv.training.processes import disconnect
from tests.training.makers import TASK, waves


def sharding(precision: str, device: str, trackers: tuple[str, ...], folder: Path | None) -> Any:
    """An accelerator that shards: accelerate's own configuration does so on accelerators only."""
    accelerator = Accelerator(cpu=True)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
    AcceleratorState._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
    return accelerator


def fitted(folder: Path, batch_size: int) -> None:
    """Fit, and let the first process save what came of it."""
    recipe = Recipe(epochs=3, batch_size=batch_size, average=0.8, kernel_norm=1e-3, all_pass=1e-2, antialias=0.1)
    network = Architecture(blocks=1, width=8, dropout=0.0, bandwidth=0.75)  # above the grid's, with harmonics
    samples, validation = waves(16, ragged=True, noise=1.0), waves(6, ragged=True, seed=5)
    predictor = fit(
        samples, TASK, network, recipe, validation=validation, run=Run(folder=folder, every=4, device="cpu")
    )
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        predictor.save(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    fitted(Path(sys.argv[1]) / "copied", 4)
    training_loop.make_accelerator = sharding  # type: ignore[attr-defined]
    fitted(Path(sys.argv[1]) / "sharded", 4)
    disconnect()
