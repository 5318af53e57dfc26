"""What the engines in Triton need of a machine."""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache

import torch

CAPABILITY, SHARED = (9, 0), 232_448
"""The architecture, and the bytes of memory beside its cores, for which the sizes of the products were chosen."""


def refuse_machine(device: str) -> str | None:
    """Why the engines in Triton cannot run on such a device, as a clause; None where they can.

    On a CPU they run while Triton's interpreter is on, which the environment variable TRITON_INTERPRET=1 says.
    """
    if device == "cuda":
        return refuse_processor()
    if device != "cpu" or os.environ.get("TRITON_INTERPRET") != "1":
        return f"the device is {device}; it needs a CUDA device"
    return refuse_package()


@lru_cache(maxsize=1)
def refuse_processor() -> str | None:
    """Why they cannot run on the graphics processors of this machine."""
    if torch.version.cuda is None:
        return "torch was not built for CUDA"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    for device in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(device)
        if (found.major, found.minor) < CAPABILITY or getattr(found, "shared_memory_per_block_optin", 0) < SHARED:
            return f"{found.name} is not one of the processors that its tiles are for, of which the H100 was the first"
    return refuse_package()


@lru_cache(maxsize=1)
def refuse_package() -> str | None:
    """Why Triton is not there."""
    if importlib.util.find_spec("triton") is None:
        return 'Triton is not installed; `pip install "omniconv[gpu]"` installs it'
    return None
