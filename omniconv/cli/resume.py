"""`omniconv resume`: go on with a run that was stopped or killed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from omniconv.cli._config import read_options
from omniconv.cli.fit import OPTIONS, Fit


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
        """Train what is left."""
        options = self.run_folder / OPTIONS
        if not options.is_file():
            raise FileNotFoundError(f"{self.run_folder} holds no run: there is no {options}.")
        given = {"time_limit": self.time_limit, "batch_size": self.batch_size}
        changed = {name: value for name, value in given.items() if value is not None}
        fit = Fit(**{**read_options(options, Fit), **changed})
        replace(fit, out=self.run_folder).train(resume=True)
