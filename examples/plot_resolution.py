"""One convolution, three resolutions: the output follows the signal, not the number of samples.

A causal convolution built for 64 samples is given the same band-limited signal on 64, 127 and 253 samples of the same
span, with `spacing` 1, 0.5 and 0.25. Writes `resolution.png` with the three outputs over each other, and prints how far
the finer ones are from the first at the points that they share: less than a percent, without any retraining.

    python examples/plot_resolution.py [folder]
"""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from omniconv import Conv1d, Gabor

SAMPLES = 64
SPACINGS = (1.0, 0.5, 0.25)
STYLES = (("#0072B2", "o", 5.0), ("#D55E00", "s", 3.0), ("#000000", ".", 2.0))
"""Colour, marker and marker size of a resolution."""


def signal(times: Tensor) -> Tensor:
    """Two waves in a Gaussian envelope, silent at the ends; they fill about a quarter of the band at spacing 1."""
    centred = times - (SAMPLES - 1) / 2
    waves = torch.sin(0.10 * math.pi * times) + 0.5 * torch.cos(0.16 * math.pi * times)
    return waves * torch.exp(-0.5 * (centred / 8) ** 2)


def main(out: Path) -> None:
    """Write the figure to the folder `out` and print the differences."""
    torch.manual_seed(0)
    layer = Conv1d(1, 1, SAMPLES, kernel=partial(Gabor, bandwidth=0.5), causal=True).eval()
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    reference = torch.empty(0)
    for step, (color, marker, size) in zip(SPACINGS, STYLES, strict=True):
        times = torch.arange(0, SAMPLES - 1 + step / 2, step)
        x = signal(times)
        with torch.no_grad():
            y = layer(x[None], spacing=step)[0]
        reference = y if step == 1 else reference
        difference = (y[:: round(1 / step)] - reference).norm() / reference.norm()
        print(f"spacing {step:4}: {len(times):3} samples, difference {difference.item():.2%}")
        style = {"color": color, "marker": marker}
        above.plot(times.numpy(), x.numpy(), markersize=size, linewidth=0.6, **style)
        below.plot(times.numpy(), y.numpy(), markersize=size, linewidth=0.6, label=f"{len(times)} samples", **style)
    above.set_ylabel("signal")
    below.set_ylabel("output")
    below.set_xlabel("time (samples of the reference grid)")
    figure.legend(loc="outside upper center", ncols=len(SPACINGS), frameon=False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "resolution.png", dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "figures"))
