"""One convolution at any times: what is missing is absent, and not a zero.

A convolution built for a grid of 64 samples is given a signal at 120 random times, of which a third is then dropped.
Writes `irregular_times.png`: above the samples, below the output of the layer on the full grid, at the random times
that are left, and on the grid with zeros in place of the third that is missing there. Prints how far the last two are
from the first.

    python examples/plot_irregular_times.py [folder]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from omniconv import Conv1d, Gaussian, Times


def signal(t: Tensor) -> Tensor:
    """Two waves that fade in and out, on a span of 63."""
    return torch.exp(-(((t - 31) / 16) ** 2)) * (torch.sin(0.35 * t) + 0.6 * torch.cos(0.6 * t))


@torch.no_grad()
def main(out: Path) -> None:
    """Write the figure to the folder `out`."""
    torch.manual_seed(0)
    layer = Conv1d(1, 1, 64, support=partial(Gaussian, width=0.15))
    grid = torch.arange(64.0)[None]
    times = (63 * torch.rand(1, 120)).sort().values
    observed = torch.rand(1, 120) < 2 / 3
    kept = torch.rand(64) < 2 / 3
    regular = layer(signal(grid)[None])[0, 0]
    irregular = layer(signal(times)[None], times=Times(times, observed), output_times=grid)[0, 0]
    with_zeros = layer((signal(grid) * kept)[None])[0, 0]

    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    above.plot(grid[0], signal(grid)[0], color="0.7", label="signal")
    above.plot(times[observed], signal(times)[observed], ".", color="#0072B2", label="observed")
    above.plot(grid[0, ~kept], torch.zeros(int((~kept).sum())), "x", color="#D55E00", label="missing, as zeros")
    below.plot(grid[0], regular, color="0.7", linewidth=4, label="whole grid")
    below.plot(grid[0], irregular, color="#0072B2", label="at the observed times")
    below.plot(grid[0], with_zeros, color="#D55E00", label="with zeros")
    below.set_xlabel("time, in samples of the grid")
    above.legend()
    below.legend()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "irregular_times.png", dpi=150)
    for name, found in (("at the observed times", irregular), ("with zeros", with_zeros)):
        print(f"{name}: {(found - regular).norm() / regular.norm():.1%} off")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "figures"))
