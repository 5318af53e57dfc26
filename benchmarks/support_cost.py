"""Shows that a narrow support saves work: the taps and the time of the direct convolution for halved Gaussian widths.

python benchmarks/support_cost.py --out docs/results
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from _report import interleaved, markdown, provenance, table, wait_until_quiet, write
from matplotlib.figure import Figure

from omniconv import convolve
from omniconv.nn import Conv, Conv1d, Conv2d
from omniconv.supports import Gaussian

SEED = 0
WIDEST = 0.32
"""Width at which the support covers the whole reach: it falls to 1 % at 3 widths."""
ROUNDS, MINUTES = 31, 2.0

ABOUT = """`width`: standard deviation of the Gaussian support, in units of the reach, which covers the signal. `taps`:
taps that the layer samples, where the support is at least 1 % (rounded up to a power of 2^(1/4)). Milliseconds: medians
of interleaved runs, with the ratio to the widest support, of the direct convolution with those taps (forward pass;
forward pass and both gradients), and of the layer, which also samples its kernel (forward pass and gradients of all
parameters). On images the taps fall with the square of the width."""
HEAD = ("width", "taps", "ratio", "forward", "ratio", "with gradients", "ratio", "layer, with gradients", "ratio")


@dataclass
class Row:
    """A width, the taps per channel that it leaves, and the median seconds of three measurements."""

    width: float
    taps: tuple[int, ...]
    forward: float
    gradients: float
    layer: float

    @property
    def count(self) -> int:
        return math.prod(self.taps)


def sequence(width: float) -> Conv:
    """A causal depthwise layer on 1,024 samples."""
    support = partial(Gaussian, width=width)
    return Conv1d(64, 64, 1024, mixing="depthwise", causal=True, support=support, engine="direct")


def image(width: float) -> Conv:
    """A depthwise layer on images."""
    return Conv2d(16, 16, 64, mixing="depthwise", support=partial(Gaussian, width=width), engine="direct")


LAYERS: dict[str, tuple[Callable[[float], Conv], int, int]] = {
    "Conv1d, 4 x 64 channels, 1024 samples, causal": (sequence, 4, 7),
    "Conv2d, 2 x 16 channels, 64x64 samples": (image, 2, 5),
}
"""Layer, batch and number of widths."""


def actions(layer: Conv, batch: int) -> list[Callable[[], object]]:
    """The convolution, the convolution with both gradients, and the layer with the gradients of its parameters."""
    x = torch.randn(batch, layer.in_channels, *layer.grid.size)
    cotangent = torch.randn_like(x)
    taps = layer.taps().detach()
    operands = (x.clone().requires_grad_(), taps.clone().requires_grad_())
    parameters = list(layer.parameters())

    def forward(x: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        return convolve(x, taps, causal=layer.causal, engine="direct")

    return [
        lambda: forward(x, taps),
        lambda: torch.autograd.grad(forward(*operands), operands, cotangent),
        lambda: torch.autograd.grad(layer(x), parameters, cotangent),
    ]


def measure(make: Callable[[float], Conv], batch: int, widths: Sequence[float]) -> list[Row]:
    """A row per width; all of them take turns."""
    torch.manual_seed(SEED)
    layers = [make(width) for width in widths]
    turns = [action for layer in layers for action in actions(layer, batch)]
    interleaved(turns, repeats=1, seconds=1.0)
    stop = time.monotonic() + 60 * MINUTES
    rounds: list[list[float]] = []
    while len(rounds) < ROUNDS and (len(rounds) < 3 or time.monotonic() < stop):
        wait_until_quiet(stop)
        rounds.append([taken[0] for taken in interleaved(turns, repeats=1, seconds=1.0)])
    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    return [
        Row(width, tuple(layer.taps().shape[1:]), *medians[3 * i : 3 * i + 3])
        for i, (width, layer) in enumerate(zip(widths, layers, strict=True))
    ]


def as_table(rows: Sequence[Row]) -> str:
    """Taps and times of the widths, each with its ratio to the first."""
    lines = []
    for row in rows:
        cells = [f"{row.width:.3g}", "x".join(map(str, row.taps)), f"{row.count / rows[0].count:.3f}"]
        for name in ("forward", "gradients", "layer"):
            seconds, widest = getattr(row, name), getattr(rows[0], name)
            cells += [f"{1e3 * seconds:.3g}", f"{seconds / widest:.3f}"]
        lines.append(cells)
    return table(HEAD, lines)


def draw(results: dict[str, list[Row]]) -> Figure:
    """Time over taps, both relative to the widest support, on logarithmic axes."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True)
    for panel, (name, rows) in zip(panels, results.items(), strict=True):
        taps = [row.count / rows[0].count for row in rows]
        panel.plot(taps, taps, color="0.7", linestyle="--", label="proportional")
        for label, key, marker in (("forward", "forward", "o"), ("with gradients", "gradients", "s")):
            panel.plot(taps, [getattr(row, key) / getattr(rows[0], key) for row in rows], marker=marker, label=label)
        panel.set(xscale="log", yscale="log", title=name, xlabel="taps, relative to the widest support")
        panel.title.set_fontsize("medium")
    panels[0].set_ylabel("time of the direct convolution, relative")
    panels[0].legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of support_cost.md, .json and .png")
    out = parser.parse_args().out
    results = {
        name: measure(make, batch, [WIDEST / 2**i for i in range(count)])
        for name, (make, batch, count) in LAYERS.items()
    }
    about = provenance(SEED)
    sections = [f"## {name}\n\n{as_table(rows)}" for name, rows in results.items()]
    print("\n\n".join(sections))
    page = markdown("Work that a narrow support saves", about, ABOUT, "![time over taps](support_cost.png)", *sections)
    write(
        out,
        "support_cost",
        page,
        {"about": about, **{name: [asdict(row) for row in rows] for name, rows in results.items()}},
    )
    draw(results).savefig(out / "support_cost.png", dpi=120)


if __name__ == "__main__":
    main()
