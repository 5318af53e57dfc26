"""`omniconv resume`: go on with a run that was stopped or killed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from omniconv.cli._config import read_options
from omniconv.cli.fit import OPTIONS, Fit
from omniconv.cli.lm import Train
from omniconv.training import Recipe
from omniconv.training.checkpoints import list_checkpoints, read_latest
from omniconv.training.language import Language


@dataclass(frozen=True)
class Resume:
    """Go on from the last sound checkpoint of a run, with its options; the result is that of a run without a stop."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""

    time_limit: float | None = None
    """Seconds after which to stop again; without it the limit that the run began with."""

    batch_size: int | None = None
    """Samples per step and process, where their number has changed: of all processes together it must stay the same."""

    def run(self) -> None:
        """Train what is left; raises `FileNotFoundError` that says how, where `omniconv fit` did not begin it."""
        options = self.run_folder / OPTIONS
        if not options.is_file():
            raise FileNotFoundError(other_way(self.run_folder))
        given = {"time_limit": self.time_limit, "batch_size": self.batch_size}
        changed = {name: value for name, value in given.items() if value is not None}
        fit = Fit(**{**read_options(options, Fit), **changed})
        replace(fit, out=self.run_folder).train(resume=True)


def other_way(folder: Path) -> str:
    """How a run goes on that has no options of `omniconv fit`, or that there is none."""
    if not list_checkpoints(folder / "checkpoints"):
        return f"{folder} holds no run: there is no {folder / OPTIONS}."
    identity = read_latest(folder / "checkpoints").state["identity"]
    if identity["task"]["name"] != Language.name:
        return f"{folder} was begun in Python. Go on there, with the same call and `Run(folder, resume=True)`."
    command = shlex.join(["omniconv", "lm", "train", "TEXT", "--out", str(folder), "--resume", *changed(identity)])
    return (
        f"{folder} holds a language model. Go on with {command}, with the text and the options of the network that it "
        "began with."
    )


def changed(identity: Mapping[str, Any]) -> list[str]:
    """Options of `omniconv lm train` as a checkpoint has them, but those that were not given."""
    recipe = {field.name: identity[field.name] for field in fields(Recipe) if field.name in identity}
    recipe["batch_size"] = identity["batch_of_all_processes"]  # of one process, the usual number
    words: list[str] = []
    for field in fields(Train):
        if field.name in recipe and field.default is not MISSING and recipe[field.name] != field.default:
            words += [f"--{field.name.replace('_', '-')}"]
            words += [] if recipe[field.name] is True else [str(recipe[field.name])]
    return words
