"""A learned support saves work: taps and time of direct convolutions against the width of their Gaussian.

For a causal sequence and an image, the width halves from row to row. The layers take turns on one input; the medians of
their times are compared with the widest. Writes support_cost.json, .md and .png into `--out`.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from _report import interleaved, markdown, provenance, table, write
from matplotlib.figure import Figure
from torch import Tensor

from omniconv import Conv, Gaussian

SEED = 0
HALVINGS = 5


@dataclass(frozen=True)
class Case:
    """A kind of signal: its size, the widest support, and the batch and channels that make it worth timing."""

    name: str
    size: tuple[int, ...]
    causal: bool
    widest: float
    batch: int
    channels: int


CASES = (
    Case("causal sequence of 2048", (2048,), True, 0.32, 8, 64),
    Case("image of 64 by 64", (64, 64), False, 0.32, 4, 32),
)


@dataclass(frozen=True)
class Row:
    """One width: taps per channel, and milliseconds forward, and forward with both gradients."""

    width: float
    taps: int
    forward: float
    training: float


def measure(case: Case, repeats: int) -> list[Row]:
    """Rows from the widest to the narrowest."""
    torch.manual_seed(SEED)
    x = torch.randn(case.batch, case.channels, *case.size, requires_grad=True)
    widths = [case.widest / 2**i for i in range(HALVINGS)]
    layers = [
        Conv(
            case.channels,
            case.channels,
            case.size,
            support=partial(Gaussian, width=width),
            mixing="depthwise",
            causal=case.causal,
            engine="direct",
        )
        for width in widths
    ]
    forward = interleaved([partial(run, layer, x) for layer in layers], repeats=repeats, seconds=20)
    training = interleaved([partial(step, layer, x) for layer in layers], repeats=repeats, seconds=20)
    return [
        Row(width, layer.taps()[0].numel(), 1e3 * statistics.median(ahead), 1e3 * statistics.median(both))
        for width, layer, ahead, both in zip(widths, layers, forward, training, strict=True)
    ]


@torch.no_grad()
def run(layer: Conv, x: Tensor) -> None:
    """One forward pass."""
    layer(x)


def step(layer: Conv, x: Tensor) -> None:
    """One forward pass and all gradients."""
    layer(x).sum().backward()


def lines(rows: list[Row]) -> str:
    """The rows as a table, each with its ratios to the row above."""
    body = [cells(row, None if i == 0 else rows[i - 1]) for i, row in enumerate(rows)]
    return table(["width", "taps", "ratio", "forward, ms", "ratio", "with gradients, ms", "ratio"], body)


def cells(row: Row, wider: Row | None) -> list[str]:
    """One line of the table."""
    texts = [f"{row.width:g}"]
    for what, form in (("taps", "{:.0f}"), ("forward", "{:.2f}"), ("training", "{:.2f}")):
        value = getattr(row, what)
        texts += [form.format(value), "-" if wider is None else f"{value / getattr(wider, what):.2f}"]
    return texts


def figure(results: dict[str, list[Row]]) -> Figure:
    """Time against width, both logarithmic."""
    drawing = Figure(figsize=(4 * len(results), 3.4), layout="constrained")
    for column, (name, rows) in enumerate(results.items(), start=1):
        axes = drawing.add_subplot(1, len(results), column)
        widths = [row.width for row in rows]
        for what, colour in (("forward", "#0072B2"), ("training", "#D55E00")):
            axes.loglog(widths, [getattr(row, what) for row in rows], "o-", color=colour, label=what, base=2)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("width of the support (of the reach)")
        axes.set_ylabel("milliseconds")
        axes.legend(frameon=False)
    return drawing


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    results = {}
    for case in CASES:
        print(f"timing the {case.name} ...", flush=True)
        results[case.name] = measure(case, options.repeats)
    about = provenance(SEED)
    parts = [f"## {name}\n\n{lines(rows)}" for name, rows in results.items()]
    note = "Medians of interleaved runs, engine direct, depthwise; a ratio is to the row above, of twice the width."
    data = {name: [asdict(row) for row in rows] for name, rows in results.items()}
    write(options.out, "support_cost", markdown("A learned support saves work", about, note, *parts), {**about, **data})
    figure(results).savefig(options.out / "support_cost.png", dpi=120)
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
