"""`omniconv tune`: measure this machine, so that the choice of an engine fits it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from omniconv._errors import check_number, require
from omniconv._files import write_whole
from omniconv.bench.tune import SWEEPS, Fit, Timing, fitted, judge, measure
from omniconv.bench.tune_problems import tuning_problems
from omniconv.cli._output import check_file, console
from omniconv.engines._costs import measured_file, shipped
from omniconv.engines._plan import forget_plans


@dataclass(frozen=True)
class Tune:
    """Measure how fast this machine convolves, and keep it in your cache directory for `engine="auto"` to predict from.

    Leave the machine alone meanwhile. Delete the file to return to the rates that the package brings.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    """What to measure."""

    minutes: float = 8.0
    """After which no further problem is begun. The rates are fitted to those that were measured."""

    quick: bool = False
    """A few problems, measured once: to see it work, too few to predict well."""

    out: Path | None = None
    """Write the rates to this file instead."""

    def run(self) -> None:
        """Measure, fit, write, print."""
        check_number("--minutes", self.minutes, low=0.0)
        if self.quick and self.out is None:
            raise ValueError("`--quick` measures too little to predict from; say where to write it with `--out`.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("`--device cuda` needs a graphics processor, and torch finds none. Use --device cpu.")
        path = self.out or measured_file(self.device)
        check_file("--out", path)
        try:
            timings = self.measured()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("no rates were written. Give fewer `--minutes` to measure for less time") from None
        rates = fitted(timings, shlex.join(["omniconv", *sys.argv[1:]]))
        left = sum(not timing.seconds for timing in timings)
        if left:
            rates = rates.completed(shipped(self.device))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, rates.to_json().encode())
        forget_plans()
        out = console()
        fit = judge(timings, rates)
        out.print(errors(fit))
        out.print(
            f"The engine with the least predicted time is within 10 % of the fastest in {fit.share:.1%} of the passes, "
            f"at worst {fit.worst:.2f} times as slow."
        )
        if left:
            out.print(
                f"{left} of {len(timings)} problems were not measured, for want of time: where none of a kind was, the "
                "rates of the package stand. Give more `--minutes`."
            )
        out.print(f"The rates are in [bold]{path}[/].", soft_wrap=True)

    def measured(self) -> list[Timing]:
        """The times, under a progress bar."""
        rich: Any = require("rich.progress", extra="cli", purpose="the progress bar")
        with rich.Progress(console=console()) as bar:
            task = bar.add_task("measuring", total=None)
            return measure(
                tuning_problems(self.device, quick=self.quick),
                minutes=self.minutes,
                sweeps=1 if self.quick else SWEEPS,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )


def errors(fit: Fit) -> Any:
    """How well every engine is predicted."""
    table: Any = require("rich.table", extra="cli", purpose="the command omniconv").Table(
        title="Typical factor between predicted and measured time", title_justify="left"
    )
    for heading in ("engine", "kernels", "axes", "convolution", "gradients"):
        table.add_column(heading, justify="right" if heading in ("convolution", "gradients") else "left")
    kinds = dict.fromkeys(key.rsplit(" ", 1)[0] for key in fit.error)
    for kind in kinds:
        factors = [fit.error.get(f"{kind} {part}") for part in ("run", "adjoint")]
        table.add_row(*kind.split(), *("-" if factor is None else f"{factor:.2f}" for factor in factors))
    return table
