"""`omniconv resume`: go on with a run that was stopped or killed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from omniconv.cli import fit, lm
from omniconv.cli._config import read_options
from omniconv.training.checkpoints import list_checkpoints

RUNS: dict[str, type[fit.Fit] | type[lm.Train]] = {fit.OPTIONS: fit.Fit, lm.OPTIONS: lm.Train}
"""Which command writes which file of options."""


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
        """Train what is left; raises `FileNotFoundError` that says how, where no command began it."""
        for file, command in RUNS.items():
            options = self.run_folder / file
            if options.is_file():
                given = {"time_limit": self.time_limit, "batch_size": self.batch_size}
                changed = {name: value for name, value in given.items() if value is not None}
                begun = command(**{**read_options(options, command), **changed})
                return replace(begun, out=self.run_folder).train(resume=True)
        raise FileNotFoundError(other_way(self.run_folder))


def other_way(folder: Path) -> str:
    """How a run goes on that no command began, or that there is none."""
    if list_checkpoints(folder / "checkpoints"):
        return f"{folder} was begun in Python. Go on there, with the same call and `Run(folder, resume=True)`."
    return f"{folder} holds no run: there is no {' or '.join(str(folder / file) for file in RUNS)}."
