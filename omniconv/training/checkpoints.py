"""Checkpoints: whole or absent, checked by their sums, the last good ones kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from omniconv._errors import CheckpointError, check_integer, check_path
from omniconv._files import flush_folder, write_flushed

TENSORS, STATE, SUMS = "tensors.safetensors", "state.json", "SHA256SUMS"
NAME = re.compile(r"step-(\d{9})")
STEPS = 10**9
"""So many have a name."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: JSON values and tensors."""

    state: dict[str, Any]
    tensors: dict[str, Tensor]


def write_checkpoint(folder: str | Path, step: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write `folder/step-000000042`: safetensors, JSON and SHA256SUMS, which `sha256sum --check` understands.

    The files are written to a temporary folder and flushed to the disk; then the folder is renamed, so that there never
    is half a checkpoint under that name. Raises `CheckpointError` if the folder cannot be written or the disk is full;
    earlier checkpoints are not touched. `step`: [0, 10^9), else `ValueError`.
    """
    folder = check_path("folder", folder)
    if check_integer("step", step, minimum=0) >= STEPS:
        raise ValueError(f"`step` must be below {STEPS:,}; got {step}.")
    target = folder / f"step-{step:09d}"
    temporary = folder / f".{target.name}.{os.getpid()}.tmp"
    contents = {
        TENSORS: save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}),
        STATE: (json.dumps(state, indent=1) + "\n").encode(),
    }
    contents[SUMS] = sums_of(contents)
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            write_flushed(temporary / name, data)
        flush_folder(temporary)
        replaced = folder / f".{target.name}.{os.getpid()}.old.tmp"
        if target.exists():  # a run that resumed from an earlier step comes by again
            target.rename(replaced)
        temporary.rename(target)
        flush_folder(folder)
        flush_folder(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"could not write the checkpoint {target}: {error.strerror or error}. Earlier checkpoints in {folder} are "
            "as they were; free space or fix the permissions, then resume."
        ) from error
    return target


def sums_of(contents: Mapping[str, bytes]) -> bytes:
    """The lines of SHA256SUMS for files with those contents."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in contents.items()).encode()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint in that folder; raises `CheckpointError` that says what is wrong with a damaged one."""
    path = check_path("path", path)
    try:
        contents = {name: (path / name).read_bytes() for name in (TENSORS, STATE)}
        if (path / SUMS).read_bytes() != sums_of(contents):
            raise CheckpointError(f"the checkpoint {path} is damaged: its files do not have the checksums in {SUMS}.")
        return Checkpoint(json.loads(contents[STATE]), load(contents[TENSORS]))
    except CheckpointError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {error}.") from error


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; unfinished ones have other names."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and NAME.fullmatch(path.name))


def read_latest(folder: str | Path) -> Checkpoint:
    """The newest sound checkpoint of a folder; warns about every damaged one that it passes over.

    Raises `CheckpointError` if there is none.
    """
    folder = check_path("folder", folder)
    problems = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            problems.append(str(error))
            warnings.warn(f"{error} The one before it is tried.", stacklevel=2)
    raise CheckpointError(f"there is no sound checkpoint in {folder}. " + " ".join(problems))


def remove_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of later steps: damaged ones, which a run that goes on from `step` writes again."""
    for path in list_checkpoints(folder):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path, ignore_errors=True)


def remove_old(folder: Path, keep: int) -> None:
    """Remove all but the last `keep` checkpoints, and what unfinished writes left behind."""
    for path in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
