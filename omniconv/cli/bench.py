"""`omniconv bench`: speed and memory beside peers, in one run."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from omniconv._errors import check_number, require
from omniconv.bench import (
    Cell,
    DisagreementError,
    Measured,
    benchmark,
    entrants,
    grid,
    headlines,
    summarise,
    write_report,
)
from omniconv.bench.conv import QUICK_SWEEPS, SWEEPS
from omniconv.cli._output import console, facts


@dataclass(frozen=True)
class Bench:
    """Time our engines beside what people use instead, and say where each is faster.

    Ends with exit code 1, and without a report, if an engine of ours differs from float64.
    """

    what: Annotated[Literal["conv"], tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    """conv: convolutions, from short kernels to kernels as long as the signal."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute."""

    quick: bool = False
    """A few small convolutions, to see the benchmark work."""

    minutes: float = 10.0
    """After which nothing new is begun."""

    compiled: bool = False
    """Also time torch.compile, which builds for several seconds per convolution."""

    out: Path | None = None
    """Folder for conv.md, conv.json and conv.png; on a graphics processor conv_cuda.md and so on."""

    def run(self) -> None:
        """Measure, print, write."""
        check_number("--minutes", self.minutes, low=0.0)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("`--device cuda` needs a graphics processor, and torch finds none. Use --device cpu.")
        try:
            measured = self.measure()
        except DisagreementError as error:
            sys.exit(f"omniconv: nothing is reported: {error}")
        out = console()
        out.print(times(measured))
        out.print(facts("In short", headlines(summarise(measured))))
        if self.out is not None:
            name = "conv_cuda" if self.device == "cuda" else "conv"
            write_report(measured, self.out, name, command=shlex.join(["omniconv", *sys.argv[1:]]))
            out.print(f"Times, memory, errors and the figure are in [bold]{self.out}/{name}[/].md, .json and .png.")

    def measure(self) -> Measured:
        """The benchmark under a progress bar."""
        rich: Any = require("rich.progress", extra="cli", purpose="the progress bar")
        columns = (*rich.Progress.get_default_columns(), rich.TextColumn("{task.fields[case]}"))
        with rich.Progress(*columns, console=console()) as bar:
            task = bar.add_task("conv", total=None, case="")

            def show(done: int, total: int, cell: Cell | None) -> None:
                bar.update(task, completed=done, total=total, case="" if cell is None else cell.case.name)

            return benchmark(
                grid(self.device, quick=self.quick),
                self.device,
                entered=entrants(compiled=self.compiled),
                sweeps=QUICK_SWEEPS if self.quick else SWEEPS,
                minutes=self.minutes,
                progress=show,
            )


def times(measured: Measured) -> Any:
    """Milliseconds as a table for the terminal: ours, and the best of everything else."""
    table: Any = require("rich.table", extra="cli", purpose="the command omniconv").Table(title="Milliseconds")
    for heading in ("case", "chosen", "auto", "best engine", "best peer", "ratio"):
        table.add_column(heading, justify="left" if heading in ("case", "chosen") else "right")
    for cell in measured.cells:
        best = [cell.fastest(names) if names else None for names in (cell.engines, cell.peers)]
        table.add_row(
            cell.case.name,
            cell.chosen,
            f"{1e3 * cell.seconds('auto'):.3g}",
            *("-" if name is None else f"{name} {1e3 * cell.seconds(name):.3g}" for name in best),
            "-" if best[1] is None else f"{cell.ratio('auto', best[1]):.2f}",
        )
    return table
