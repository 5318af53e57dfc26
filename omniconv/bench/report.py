"""The results of a benchmark of convolutions as a page, JSON and a figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from omniconv._errors import require
from omniconv.bench.conv import (
    CLOSE,
    HOPELESS,
    PEERS,
    SEED,
    SLACK,
    SLOWER,
    SURE,
    TOLERANCE,
    Cell,
    DisagreementError,
    Measured,
    as_data,
)
from omniconv.bench.measure import provenance
from omniconv.bench.pages import markdown, save, table, write
from omniconv.bench.summary import summarise
from omniconv.engines._costs import rates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMITS = ", ".join(f"{str(dtype).removeprefix('torch.')} {limit:.0e}" for dtype, limit in TOLERANCE.items())

ABOUT = f"""Contestants take turns in one process: medians over rounds of several sweeps over all cases, with the order
drawn anew for each round. A small case is repeated within a round until that lasts about a millisecond. After the
sweeps those cases get further rounds in which the median ratio of "auto" to the better peer, or to the best engine, is
less than {SURE:g} standard errors from {SLOWER:g}, or {CLOSE:g}, on either side. "auto" is
`convolve` with its automatic choice, followed by every engine by its name; "F.conv" is `torch.nn.functional.conv1d` and
its kin; "torch.fft" multiplies spectra in frames of a power of two, with autograd. All start from the same signal and
the same taps in the order of lags: padding and reversed taps are part of the time. "training" is the forward pass and
both gradients; every call transforms its taps anew, none are declared constant. A ratio of two contestants is the
median of their ratios in the same round. What takes more than {HOPELESS} times as long as the fastest, twice, takes no
part in the rounds: its shortest call is given, without a spread. Sums over the taps are left out where they have so
many products that one run takes many seconds. The framework's convolution runs without tf32.

An engine of ours that differs from float64 by more than a tolerance (relative, in the Euclidean norm: {LIMITS}) would
have ended the run without a report; a peer that differs by more than {SLACK} times that is left out. "copy" is the time
in which a copy moves the fewest bytes that the case has to move (x and y; in training 5 numbers per sample), at the
bandwidth of a large copy in the same run: small cases stay in caches, which are faster. Memory is what a contestant has
allocated at its peak beyond the inputs, results included; on a CPU buffers that libraries such as MKL take from the
system by themselves are outside."""


def write_report(measured: Measured, out: Path, name: str, command: str | None = None) -> None:
    """Write `name.md`, `name.json` and, where matplotlib is installed, `name.png` into the folder.

    `command`: how the benchmark was called; None takes it from the interpreter.
    Raises `DisagreementError` if an engine of ours was wrong.
    """
    if measured.wrong:
        raise DisagreementError("nothing is reported: " + "; ".join(measured.wrong))
    about = provenance(SEED, command=command)
    about |= {"device": device_name(measured.device), "bandwidth_GB_per_s": measured.bandwidth / 1e9}
    judged = summarise(measured)
    drawn = save(out / f"{name}.png", lambda: draw(measured.cells))
    tables = slower_table(judged), long_table(judged), left_out(measured), predictions_table(judged, measured.device)
    parts = [
        f"Device: {about['device']}; a copy moves {about['bandwidth_GB_per_s']:.0f} GB/s. {len(measured.cells)} cases, "
        f"{measured.sweeps} sweeps, {measured.further} further visits; the spread of auto is {scatter(measured):.0%} "
        "in the middle case: the less other work there was, the smaller it is.",
        ABOUT,
        table(("figure", "value"), list(headlines(judged).items())),
        *([f"![time per sample]({name}.png)"] if drawn else []),
        *(text for text in tables if text),
        *sections(measured),
    ]
    cells = [as_data(measured, cell) for cell in measured.cells]
    data = {"about": about, "summary": judged, "missing": [case.name for case in measured.missing], "cells": cells}
    write(out, name, markdown("Convolutions beside peers", about, *parts), data)


def scatter(measured: Measured) -> float:
    """Median over the cases of the spread of "auto", which says how quiet the machine was; 0 without cases."""
    return statistics.median([cell.spread("auto") for cell in measured.cells] or [0.0])


def device_name(device: str) -> str:
    """The name of the graphics processor, or the CPU."""
    return torch.cuda.get_device_name() if device == "cuda" else "the CPU"


def headlines(judged: Mapping[str, Any]) -> dict[str, str]:
    """The summary in a few lines, for people."""
    choice, peers = judged["choice"], judged["peers"]
    lines = {
        "cases measured": f"{judged['measured']} of {judged['measured'] + judged['missing']}",
        f"cases in which auto takes at most {CLOSE:g} times the best engine's time": share(
            choice["share_within_10_percent"], choice["cells"]
        ),
        "its largest ratio to the best engine": worst(choice),
        f"auto over the better of {' and '.join(PEERS)}, mean": f"{peers['mean']:.2f}",
        "the largest": worst(peers),
        f"cases in which that is above {SLOWER:g}": f"{len(peers['slower'])} of {peers['cells']}",
    }
    for goal in judged["goals"]:
        lines[f"{goal['case']}: times as fast as {goal['peer']}"] = wanted(goal["times_as_fast"], goal["wanted"])
        lines[f"{goal['case']}: memory over that of {goal['memory_peer']}"] = wanted(
            goal["memory"], goal["wanted_memory"]
        )
    return lines


def share(value: float, count: int) -> str:
    """A share of so many."""
    return f"{value:.1%} of {count}"


def worst(part: Mapping[str, Any]) -> str:
    """A largest ratio with its case."""
    return "-" if part["worst"] is None else f"{part['worst']:.2f} ({part['worst_case']})"


def wanted(value: float | None, goal: float) -> str:
    """A figure with what is wanted."""
    return f"{'not measured' if value is None else format(value, '.2f')} (wanted: {goal:g})"


def slower_table(judged: Mapping[str, Any]) -> str:
    """The cases in which a peer is faster."""
    rows = [(row["case"], row["peer"], f"{row['ratio']:.2f}") for row in judged["peers"]["slower"]]
    return "## Where a peer is faster\n\n" + table(("case", "peer", "auto over peer"), rows) if rows else ""


def predictions_table(judged: Mapping[str, Any], device: str) -> str:
    """Predicted beside measured times."""
    rows = [
        (name, str(row["cells"]), f"{row['typical']:.2f}", f"{row['worst']:.2f}", row["worst_case"])
        for name, row in judged["predictions"].items()
    ]
    words = (
        "The automatic choice takes the engine with the least predicted time. The typical factor between predicted and "
        "measured time, and the worst: above 1 where too much was predicted. A machine that does other work is slower "
        f"than its rates say. Predicted from {rates(device).origin}."
    )
    head = ("engine", "cases", "typical factor", "worst", "its case")
    return f"## Predictions\n\n{words}\n\n{table(head, rows)}" if rows else ""


def long_table(judged: Mapping[str, Any]) -> str:
    """The long sequences of the published comparisons."""
    names = sorted({name for row in judged["long"] for name in row["times_as_fast"]})
    rows = [
        (
            row["case"],
            row["chosen"],
            number(row["ms"]),
            f"{row['times_copy']:.1f}",
            *(f"{row['times_as_fast'][name]:.2f}" if name in row["times_as_fast"] else "-" for name in names),
        )
        for row in judged["long"]
    ]
    head = ("case", "engine", "ms", "over copy", *(f"times as fast as {name}" for name in names))
    return "## Long sequences\n\n" + table(head, rows) if rows else ""


def left_out(measured: Measured) -> str:
    """Peers that failed or disagree, and cases that the time did not suffice for."""
    lines = [
        f"- {cell.case.name}: {name} is left out: {reason}"
        for cell in measured.cells
        for name, reason in cell.left_out.items()
        if "differs" in reason or "it fails" in reason
    ]
    lines += [f"- {case.name}: the time did not suffice" for case in measured.missing]
    return "## Left out\n\n" + "\n".join(lines) if lines else ""


def sections(measured: Measured) -> list[str]:
    """Times, then memory and errors, a table per family each."""
    families = [(family, list(cells)) for family, cells in groupby(measured.cells, lambda cell: cell.case.family)]
    times = [f"### {family}\n\n{table(*times_of(measured, cells))}" for family, cells in families]
    rest = [
        f"### {family}\n\n{table(*values_of(cells, memory_text))}\n\n{table(*values_of(cells, error_text))}"
        for family, cells in families
    ]
    return [
        "## Milliseconds\n\nWith half the distance of the quartiles; `~` marks a shortest call.",
        *times,
        "## Memory and errors\n\nMiB beyond the inputs at the peak; largest relative error of y and gradients.",
        *rest,
    ]


def times_of(measured: Measured, cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: the chosen engine, every contestant, and the time of a copy."""
    names = names_of(cells)
    rows = [
        [
            cell.case.name,
            cell.chosen,
            *(time_text(cell, name) for name in names),
            number(1e3 * measured.floor(cell.case)),
            f"{cell.seconds('auto') / measured.floor(cell.case):.1f}",
        ]
        for cell in cells
    ]
    return ["case", "chosen", *names, "copy", "auto over copy"], rows


def values_of(cells: Sequence[Cell], text: Any) -> tuple[list[str], list[list[str]]]:
    """Head and rows of one value per contestant."""
    names = names_of(cells)
    head = ["MiB" if text is memory_text else "error", *names]
    return head, [
        [cell.case.name, *(text(cell, name) if name in cell.names else "-" for name in names)] for cell in cells
    ]


def names_of(cells: Sequence[Cell]) -> list[str]:
    """The contestants of any of the cells, in their order."""
    return list(dict.fromkeys(name for cell in cells for name in cell.names))


def time_text(cell: Cell, name: str) -> str:
    """Milliseconds and their spread."""
    if name not in cell.names:
        return "-"
    once = name in cell.once
    return (
        f"~{number(1e3 * cell.seconds(name))}"
        if once
        else f"{number(1e3 * cell.seconds(name))} ±{cell.spread(name):.0%}"
    )


def memory_text(cell: Cell, name: str) -> str:
    """MiB at the peak."""
    return number(cell.memory[name] / 2**20)


def error_text(cell: Cell, name: str) -> str:
    """The largest error of the results."""
    return f"{max(cell.errors[name].values()):.1e}"


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def draw(cells: Sequence[Cell]) -> Figure:
    """Nanoseconds per sample over the length or the taps per axis, a panel per family and pass, on logarithmic axes."""
    matplotlib: Any = require("matplotlib.figure", extra="plots", purpose="figures")
    keys = list(dict.fromkeys((cell.case.family, cell.case.training) for cell in cells))
    columns = min(6, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure: Figure = matplotlib.Figure(figsize=(2.8 * columns, 2.5 * rows + 0.6), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    styles = {name: f"C{i % 10}" for i, name in enumerate(names_of(cells))}
    for panel, (family, training) in zip(panels, keys, strict=False):
        panel.set_title(f"{family}, {'training' if training else 'forward'}", fontsize="x-small")
        draw_panel(panel, [c for c in cells if (c.case.family, c.case.training) == (family, training)], styles)
    for panel in panels[len(keys) :]:
        panel.set_axis_off()
    # The first panel comes last, and so gives the legend its lines: others may have dots alone.
    labelled = [axes.get_legend_handles_labels() for axes in reversed(figure.axes)]
    handles = {label: line for lines, labels in labelled for line, label in zip(lines, labels, strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize="small")
    figure.supylabel("nanoseconds per output sample", fontsize="small")
    return figure


def draw_panel(panel: Any, cells: Sequence[Cell], styles: Mapping[str, str]) -> None:
    """A line per contestant, over what changes in the family: the length if it does, else the kernel.

    Where both change there are dots alone.
    """
    lengths = len({cell.case.size for cell in cells}) > 1
    places = sorted({place(cell, lengths) for cell in cells})
    line = "-" if len(places) == len(cells) else ""
    for name in names_of(cells):
        points = sorted(
            (place(cell, lengths), 1e9 * cell.seconds(name) / cell.case.outputs) for cell in cells if name in cell.names
        )
        style = {"marker": "o", "markersize": 3, "linestyle": line, "color": styles[name], "label": name}
        panel.plot(*zip(*points, strict=True), linewidth=2.4 if name == "auto" else 1.2, **style)
    panel.set(xscale="log", yscale="log")
    panel.set_xticks(places, [f"{x:,}" for x in places], rotation=45)
    panel.set_xticks([], minor=True)
    panel.tick_params(labelsize="xx-small", which="both")
    panel.set_xlabel("length" if lengths else "taps per axis", fontsize="x-small")


def place(cell: Cell, lengths: bool) -> int:
    """Where a cell stands in its panel: the length of its last axis, or its taps there."""
    return (cell.case.size if lengths else cell.case.kernel)[-1]
