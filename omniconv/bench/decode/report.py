"""The results of decoding as a page, JSON and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omniconv._errors import require
from omniconv.bench.conv import SEED
from omniconv.bench.decode.models import CONTESTANTS, MHA
from omniconv.bench.decode.results import Measured, Result
from omniconv.bench.measure import provenance
from omniconv.bench.pages import Table, chosen_columns, markdown, save, table, write
from omniconv.engines._tensor_cores import refuse_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABOUT = """Models of the same size with random weights, in {dtype}: {layers[0]} layers of attention with perceptrons of
{layers[1]}, or {hyena[0]} layers of Hyena with perceptrons of {hyena[1]}, width {width}, {vocabulary:,} tokens. *GQA*:
{kv_heads} heads of keys and values. *Hyena, cached*: remembers all inputs of the long convolution. *distilled*: filters
are recurrences of order {order}, {modes} complex modes, whose state is kept in float32 or, balanced, in bfloat16, and
stepped by `engines.decode`. *MultiHyena*: a filter for every head, over the products of its keys and values.

A step is one token for every signal of the batch, from its id to that of the most likely next token, on the device; on
a graphics processor in one CUDA graph. The cache is static; attention goes over that part of it which is filled in the
middle of the generation, without a mask, by the fastest of torch's backends; there are no positions to encode. *ms*:
the median step. Batches are 1, 2, 4, .. and then the largest that fits to within an eighth, {largest:,} at most;
*batch* is that of the most tokens per second. *bandwidth*: bytes per second that the step's operations over keys and
values, over the cached inputs or over the states move, as a share of that of a copy, {bandwidth:,.0f} GB/s. *prefill*:
the prompt, by causal attention or by convolution with the filters' taps and a product for the state; {prefilled:,}
tokens at a time. *end to end*: generated tokens per second with the prompts' time. The steps of models whose state does
not grow are those of the first workload. Weights include no taps of long filters, nor the networks that would make
them."""
HEAD = ("contestant", "parameters", "batch", "tokens/s", "times MHA", "ms", "MB per signal", "bandwidth", "prefill, ms",
        "end to end, tokens/s", "times MHA")  # fmt: skip

SHORT = (0, 2, 3, 4, 5, 6, 9)
"""Columns that a terminal has room for."""


def write_report(measured: Measured, out: Path, command: str | None = None) -> None:
    """Write `decode.md`, `decode.json` and, where matplotlib is installed, `decode.png`: of what there is so far.

    `command`: how the benchmark was called; None takes it from the interpreter.
    """
    about = provenance(SEED, measured.device, command) | {"triton": triton_version()}
    drawn = save(out / "decode.png", partial(draw, measured))
    sizes = asdict(measured.sizes)
    sizes |= {"layers": measured.sizes.transformer, "order": 2 * measured.sizes.modes}
    sizes |= {"dtype": str(measured.sizes.dtype).removeprefix("torch.")}
    told = ABOUT.format(**sizes, bandwidth=measured.bandwidth / 1e9)
    figure = ["![tokens per second, memory](decode.png)"] if drawn else []
    page = markdown("Decoding", about, told, *sections(measured), *figure)
    data = {
        "results": [asdict(one) for one in measured.results],
        "memory": [asdict(one) for one in measured.curves],
        "skipped": measured.skipped,
    }
    write(out, "decode", page, {"about": about, "bandwidth": measured.bandwidth, **data})


def triton_version() -> str | None:
    """Of the compiler of the kernels; None without it."""
    return None if refuse_package() is not None else import_module("triton").__version__


def tables(measured: Measured) -> list[Table]:
    """What a terminal has room for: a table for every workload."""
    found = [(title(workload), rows(here)) for workload in measured.sizes.workloads if (here := at(workload, measured))]
    return [chosen_columns(words, HEAD, lines, SHORT) for words, lines in found]


def row(result: Result, base: Result | None) -> list[str]:
    """The line of one result."""
    return [
        result.contestant + (f" ({result.backend.lower()})" if result.backend else ""),
        f"{result.weights / 1e9:.2f} B" if result.weights > 1e8 else f"{result.weights:,}",
        f"{result.best:,}",
        f"{result.rate:,.0f}",
        f"{result.rate / base.rate:.1f}" if base else "-",
        f"{result.best_point.milliseconds:.2f}",
        f"{result.nbytes / 1e6:.1f}",
        f"{result.share:.0%}",
        f"{result.prefill:.2f}",
        f"{result.end_to_end:,.0f}",
        f"{result.end_to_end / base.end_to_end:.1f}" if base else "-",
    ]


def rows(results: Sequence[Result]) -> list[list[str]]:
    """The lines of the results at one workload, beside the first Transformer's if it is there."""
    base = next((one for one in results if one.contestant == MHA), None)
    return [row(one, base) for one in results]


def at(workload: tuple[int, int], measured: Measured) -> list[Result]:
    """The results at a workload."""
    return [one for one in measured.results if (one.prompt, one.generate) == workload]


def title(workload: tuple[int, int]) -> str:
    """The workload in words."""
    prompt, generate = workload
    return f"Prompts of {prompt:,}, {generate:,} generated"


def equal_rows(results: Iterable[Result], batches: Sequence[int]) -> list[list[str]]:
    """Tokens per second at the same batches."""
    rows = []
    for result in results:
        rates = {one.batch: f"{one.rate:,.0f}" for one in result.points}
        rows.append([result.contestant, *(rates.get(batch, "-") for batch in batches)])
    return rows


def sections(measured: Measured) -> list[str]:
    """Tables of every workload, and of memory; what is missing."""
    sizes, parts = measured.sizes, []
    for workload in sizes.workloads:
        if here := at(workload, measured):
            equal = ("tokens/s at a batch of", *(f"{batch:,}" for batch in sizes.equal))
            parts += [f"## {title(workload)}", table(HEAD, rows(here)), table(equal, equal_rows(here, sizes.equal))]
    if measured.curves:
        parts += memory_section(measured)
    if measured.skipped:
        parts.append("Not measured, for want of time or memory: " + "; ".join(measured.skipped) + ".")
    return parts


def memory_section(measured: Measured) -> list[str]:
    """Peaks of memory after more and more tokens."""
    sizes = measured.sizes
    head = ("gigabytes after", *(f"{generated:,}" for generated in sizes.remembered))
    rows = []
    for one in measured.curves:
        without = len(sizes.remembered) - len(one.gigabytes)
        rows.append([one.contestant, *(f"{peak:.3g}" for peak in one.gigabytes), *["-"] * without])
    told = (
        f"Peaks of memory of a step of {sizes.remembering} signals behind prompts of {sizes.workloads[0][0]:,} and so "
        "many generated tokens, weights included. A dash: there was no room."
    )
    return ["## Memory", told, table(head, rows)]


def draw(measured: Measured) -> Figure:
    """Tokens per second against the batch for every workload, memory against generated tokens."""
    matplotlib: Any = require("matplotlib.figure", extra="plots", purpose="figures")
    sizes = measured.sizes
    figure: Figure = matplotlib.Figure(figsize=(4 * (1 + len(sizes.workloads)), 4), layout="constrained")
    *panels, memory = figure.subplots(1, 1 + len(sizes.workloads))
    for panel, workload in zip(panels, sizes.workloads, strict=True):
        for result in at(workload, measured):
            points = sorted(result.points, key=lambda one: one.batch)
            draw_line(panel, [one.batch for one in points], [one.rate for one in points], result.contestant)
        panel.set(xscale="log", yscale="log", xlabel="batch", title=title(workload))
        panel.set_ylabel("tokens per second")
    for one in measured.curves:
        draw_line(memory, one.generated[: len(one.gigabytes)], one.gigabytes, one.contestant)
    memory.set(xlabel="generated tokens", ylabel="peak memory, GB", title=f"{sizes.remembering} signals")
    if measured.curves:
        memory.legend(fontsize="x-small", loc="upper left")
    return figure


def draw_line(axes: Axes, x: Sequence[float], y: Sequence[float], name: str) -> None:
    """One contestant's line, in the same color everywhere."""
    axes.plot(x, y, ".-", color=f"C{list(CONTESTANTS).index(name)}", label=name)
    axes.grid(alpha=0.3)
