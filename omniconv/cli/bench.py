"""`omniconv bench`: speed and memory beside peers, in one run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
import tyro

from omniconv._errors import check_integer, check_number, require
from omniconv.bench import (
    Cell,
    DisagreementError,
    Measured,
    benchmark,
    decode,
    entrants,
    grid,
    groups,
    headlines,
    points,
    summarise,
    write_report,
)
from omniconv.bench.conv import FURTHER, QUICK_SWEEPS, SWEEPS
from omniconv.bench.pages import Table
from omniconv.cli._output import console, facts, lines

T = TypeVar("T")
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Convolutions:
    """Time our engines on convolutions, from short kernels to kernels as long as the signal, beside what people use
    instead, and say where each is faster.

    Ends with exit code 1, and without a report, if an engine of ours differs from float64.
    """

    device: Device = "cpu"
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
        check_device(self.device)
        measured = reported(self.measure)
        out = console()
        out.print(times(measured))
        out.print(facts("In short", headlines(summarise(measured))))
        if self.out is not None:
            name = named("conv", self.device)
            write_report(measured, self.out, name, command=typed())
            told(self.out, name)

    def measure(self) -> Measured:
        """The benchmark under a progress bar."""
        rich: Any = require("rich.progress", extra="cli", purpose="the progress bar")
        columns = (*rich.Progress.get_default_columns(), rich.TextColumn("{task.fields[case]}"))
        with rich.Progress(*columns, console=console()) as bar:
            task = bar.add_task("conv", total=None, case="")

            def report(done: int, total: int, cell: Cell | None) -> None:
                bar.update(task, completed=done, total=total, case="" if cell is None else cell.case.name)

            return benchmark(
                grid(self.device, quick=self.quick),
                self.device,
                entered=entrants(compiled=self.compiled),
                sweeps=QUICK_SWEEPS if self.quick else SWEEPS,
                further=0 if self.quick else FURTHER,
                minutes=self.minutes,
                progress=report,
            )


@dataclass(frozen=True)
class Decode:
    """Time language models of 1.3 billion random weights that write token by token: Transformers with their caches,
    Hyena with its cache, Hyena and MultiHyena as recurrences.

    Ends with exit code 1, and without a report, where a fused step differs from the plain one, or the steps of a model
    from its pass over the whole sequence.
    """

    device: Device = "cuda"
    """Where to compute; on a CPU only with --quick."""

    quick: bool = False
    """Tiny models, to see the benchmark work."""

    minutes: float = 8.5
    """After which no further measurement begins."""

    out: Path | None = None
    """Folder for decode.md, decode.json and decode.png, written anew after every contestant."""

    def run(self) -> None:
        """Measure, print, write."""
        check_number("--minutes", self.minutes, low=0.0)
        check_device(self.device)
        if self.device == "cpu" and not self.quick:
            raise ValueError("`--device cpu` needs `--quick`: models of that size take hours there.")
        measured = reported(self.measure)
        show(decode.tables(measured))
        if self.out is not None:
            told(self.out, "decode")

    def measure(self) -> decode.Measured:
        """The benchmark, with a line for all that is done."""
        out = console()
        with out.status("decoding"):
            return decode.benchmark(
                decode.SIZES["small" if self.quick else "full"],
                self.device,
                seconds=0.02 if self.quick else 0.4,
                minutes=self.minutes,
                progress=lambda line: out.print(line, style="dim", highlight=False),
                finished=self.report,
            )

    def report(self, measured: decode.Measured) -> None:
        """Write what there is so far."""
        if self.out is not None:
            decode.write_report(measured, self.out, typed())


@dataclass(frozen=True)
class Points:
    """Time a network of clouds on a lattice beside convolutions at the points, by the number of points.

    Ends with exit code 1, and without a report, if the two ways at the points differ.
    """

    device: Device = "cpu"
    """Where to compute."""

    quick: bool = False
    """Small clouds, once, to see the benchmark work."""

    repeats: int = 3
    """Runs, of which the shortest counts."""

    out: Path | None = None
    """Folder for points.md, points.json and points.png; on a graphics processor points_cuda.md and so on."""

    def run(self) -> None:
        """Measure, print, write."""
        check_integer("--repeats", self.repeats)
        check_device(self.device)
        counts = points.COUNTS[:1] if self.quick else points.COUNTS
        measured = reported(lambda: self.measure(counts))
        show(points.tables(measured))
        console().print(points.ratios(measured))
        if self.out is not None:
            points.write_report(measured, self.out, typed())
            told(self.out, named("points", self.device))

    def measure(self, counts: tuple[int, ...]) -> points.Measured:
        """The benchmark under a progress bar over all pairs of a number and a way."""
        rich: Any = require("rich.progress", extra="cli", purpose="the progress bar")
        with rich.Progress(console=console()) as bar:
            task = bar.add_task("points", total=sum(counts))
            ahead = iter(counts)

            def report(result: points.Result) -> None:
                if result.way == points.LATTICE:  # the first way of a number of points
                    bar.update(task, description=f"points: {result.points:,}", advance=next(ahead))

            repeats = 1 if self.quick else self.repeats
            return points.benchmark(counts, self.device, repeats=repeats, progress=report)


@dataclass(frozen=True)
class Groups:
    """Time group convolutions of every factorization beside the plain convolution of their size."""

    device: Device = "cpu"
    """Where to compute."""

    quick: bool = False
    """Small layers, three rounds, to see the benchmark work."""

    minutes: float = 3.0
    """After which no further round is begun; three are always finished."""

    out: Path | None = None
    """Folder for groups.md, groups.json and groups.png; on a graphics processor groups_cuda.md and so on."""

    def run(self) -> None:
        """Measure, print, write."""
        check_number("--minutes", self.minutes, low=0.0)
        check_device(self.device)
        measured = self.measure()
        show(groups.tables(measured))
        if self.out is not None:
            groups.write_report(measured, self.out, typed())
            told(self.out, named("groups", self.device))

    def measure(self) -> groups.Measured:
        """The benchmark under a progress bar over the rounds."""
        rich: Any = require("rich.progress", extra="cli", purpose="the progress bar")
        with rich.Progress(console=console()) as bar:
            task = bar.add_task("groups", total=None)

            def report(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            size = {"batch": 1, "channels": 4, "rounds": 3} if self.quick else {}
            return groups.benchmark(self.device, minutes=self.minutes, progress=report, **size)


Command = Annotated[
    Annotated[Convolutions, tyro.conf.subcommand("conv")]
    | Annotated[Decode, tyro.conf.subcommand("decode")]
    | Annotated[Points, tyro.conf.subcommand("points")]
    | Annotated[Groups, tyro.conf.subcommand("groups")],
    tyro.conf.OmitArgPrefixes,
]


@dataclass(frozen=True)
class Bench:
    """Time ours beside what people use instead, in one run: tables, JSON and figures."""

    what: Command
    """What to time."""

    def run(self) -> None:
        """Do it."""
        self.what.run()


def check_device(device: Device) -> None:
    """Raise `ValueError` where there is no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("`--device cuda` needs a graphics processor, and torch finds none. Use --device cpu.")


def reported(measure: Callable[[], T]) -> T:
    """What was measured; ends the program where ours is wrong."""
    try:
        return measure()
    except DisagreementError as error:
        sys.exit(f"omniconv: nothing is reported: {error}")


def show(tables: Sequence[Table]) -> None:
    """Print them."""
    for table in tables:
        console().print(lines(*table))


def named(what: str, device: Device) -> str:
    """Of the files."""
    return f"{what}_cuda" if device == "cuda" else what


def typed() -> str:
    """The command as it was given."""
    return shlex.join(["omniconv", *sys.argv[1:]])


def told(out: Path, name: str) -> None:
    """Say where the results are."""
    console().print(f"The page, the numbers and the figure are in [bold]{out}/{name}[/].md, .json and .png.")


def times(measured: Measured) -> Any:
    """Milliseconds as a table for the terminal: ours, and the best of everything else."""
    rows = []
    for cell in measured.cells:
        best = [cell.fastest(names) if names else None for names in (cell.engines, cell.peers)]
        rows.append(
            [
                cell.case.name,
                cell.chosen,
                f"{1e3 * cell.seconds('auto'):.3g}",
                *("-" if name is None else f"{name} {1e3 * cell.seconds(name):.3g}" for name in best),
                "-" if best[1] is None else f"{cell.ratio('auto', best[1]):.2f}",
            ]
        )
    return lines("Milliseconds", ("case", "chosen", "auto", "best engine", "best peer", "ratio"), rows)
