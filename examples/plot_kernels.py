"""Kernels and supports of convolutions on sequences and images, for three kernels: Gabor, SIREN and Table.

Writes two figures of layers as they are at construction: `kernels_1d.png` shows causal convolutions on a sequence of 64
samples, `kernels_2d.png` convolutions on images of 32 by 32. The Gabor and SIREN kernels are functions of the lag, that
a layer samples at the dots; the Table kernel has a free value at every lag. Each is multiplied by a Gaussian window
whose width is learned. A layer samples its kernel up to the dashed lines of the sequences, the grey of the images.

    python examples/plot_kernels.py [folder]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

from omniconv import SIREN, Conv1d, Conv2d, Gabor, Gaussian, Table, plots
from omniconv.kernels import KernelFactory

KERNELS: dict[str, KernelFactory] = {"Gabor": Gabor, "SIREN": SIREN, "Table": Table}


def main(out: Path) -> None:
    """Write the figures to the folder `out`."""
    torch.manual_seed(0)
    window = partial(Gaussian, width=0.2)
    sequences = {
        name: Conv1d(3, 3, 64, kernel=kernel, support=window, mixing="depthwise", causal=True)
        for name, kernel in KERNELS.items()
    }
    images = {
        name: Conv2d(4, 4, 32, kernel=kernel, support=window, mixing="depthwise") for name, kernel in KERNELS.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    plots.kernels(nn.ModuleDict(sequences)).savefig(out / "kernels_1d.png", dpi=150)
    plots.kernels(nn.ModuleDict(images)).savefig(out / "kernels_2d.png", dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "figures"))
