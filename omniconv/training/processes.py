"""The processes of a training."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from omniconv._errors import require


def make_accelerator(precision: str, device: str, trackers: tuple[str, ...], folder: Path | None) -> Any:
    """Hugging Face's accelerator, which connects the processes that were launched.

    Raises `ImportError` that names the extra, `ValueError` if processes would train alone.
    """
    accelerate: Any = require("accelerate", extra="train", purpose="training")
    states: Any = require("accelerate.state", extra="train", purpose="training")
    if states.is_initialized() and states.AcceleratorState().mixed_precision != precision:
        states.AcceleratorState._reset_state()  # accelerate keeps the precision of the first training of a process
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    on_cpu = device == "cpu" or not torch.accelerator.is_available()  # else it connects no processes on CPUs
    before = states.PartialState._shared_state
    if launched == 1 and before and before.get("_cpu") != on_cpu:
        states.AcceleratorState._reset_state(reset_partial_state=True)  # it keeps the first device, too
    accelerator = accelerate.Accelerator(
        cpu=on_cpu,
        mixed_precision=precision,
        log_with=list(trackers) or None,
        project_dir=str(folder) if folder else None,
    )
    if accelerator.num_processes != launched:
        raise ValueError(
            f"{launched} processes were launched, but accelerate has connected {accelerator.num_processes}: each would "
            "train alone. Launch them with torchrun, or let accelerate's configuration say how."
        )
    return accelerator


def disconnect() -> None:
    """Wait for the other processes and part from them; at the end of a program, lest one ends while another talks.

    The group's threads end with the last reference to it, and those of a wrapped model lie in cycles. A thread that is
    left when the interpreter ends, and has a tensor to give back to it, aborts the process.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
        gc.collect()
