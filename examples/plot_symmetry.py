"""Symmetry as a dial: what images that turn do to the outputs of a plain network, and of networks on rotations.

Three untrained networks of few parameters are shown handwritten digits of scikit-learn: a CCNN, whose convolutions know
translations alone, and two GCNNs on the rotations of the plane, with 4 and 8 samples. Writes `equivariance.png`: how
far the outputs change as digits are turned, over 360 degrees; quarter turns change those of a GCNN by rounding alone.
Writes `poses.png`: kernels of two lifting convolutions in all poses, rotations above, rotations and scalings below.
Prints how many digits a linear read-out of the networks' outputs recognises, fitted to digits that stand upright, on
upright digits and on digits that were turned by random angles: what a symmetry gives, and what it costs.

    python examples/plot_symmetry.py [folder]
"""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from omniconv import CCNN, SIREN, Gaussian
from omniconv.data import read
from omniconv.groups import SO2, Product, Scaling, transform
from omniconv.models import GCNN
from omniconv.nn import LiftingConv
from omniconv.symmetry import equivariance_report

SIZE = 20
"""Pixels of an image per axis: a digit of 16, and a margin so that its corners stay inside when it turns."""
FEATURES = 96
FLOOR = 1e-8
"""What is drawn for an error of zero, on a logarithmic axis."""
COLORS = ("#D55E00", "#009E73", "#0072B2")
SMALL = partial(SIREN, hidden=16)


def digits(split: str) -> tuple[Tensor, Tensor]:
    """Images (n, 1, SIZE, SIZE) of upright digits, from 0 to 1, and their labels."""
    samples = read("sklearn:digits", split=split)
    images = torch.stack([torch.from_numpy(samples[i]) for i in range(len(samples))])
    larger = F.interpolate(images, scale_factor=2, mode="bilinear")
    return F.pad(larger, [(SIZE - 16) // 2] * 4), torch.as_tensor(samples.targets)


def turned(images: Tensor) -> Tensor:
    """Every image turned by a random angle of its own."""
    angles = 2 * math.pi * torch.rand(len(images), 1, dtype=torch.float64)
    return torch.cat([transform(image[None], SO2(), angle) for image, angle in zip(images, angles, strict=True)])


def networks() -> dict[str, nn.Module]:
    """A plain network, and two on rotations."""
    window = partial(Gaussian, width=0.3)
    made: dict[str, nn.Module] = {
        "CCNN": CCNN(1, FEATURES, (SIZE, SIZE), blocks=2, width=32, kernel=SMALL, support=window)
    }
    for samples in (4, 8):
        shared: dict[str, Any] = {"group": SO2(), "samples": samples, "widths": (16,), "kernel": SMALL, "reach": 4}
        made[f"GCNN, {samples} samples"] = GCNN(1, FEATURES, SIZE, reduce="mean", **shared)
    return made


@torch.no_grad()
def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """What the model makes of the images, and a 1."""
    y = torch.cat([model(batch) for batch in images.split(120)])
    return F.pad(y.double(), (0, 1), value=1.0)


def read_out(features: Tensor, labels: Tensor) -> Tensor:
    """Weights of a linear map from features to classes: least squares, with a small ridge."""
    wanted = F.one_hot(labels, 10).double()
    squares = features.mT @ features
    ridge = 1e-4 * squares.diagonal().mean() * torch.eye(len(squares), dtype=squares.dtype)
    return torch.linalg.solve(squares + ridge, features.mT @ wanted)


def errors(models: dict[str, nn.Module], images: Tensor) -> Figure:
    """The error of equivariance of every model by the angle."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for (name, model), color in zip(models.items(), COLORS, strict=True):
        report = equivariance_report(model, images, SO2(), count=72)
        degrees = report.elements[:, 0].rad2deg().round() % 360
        order = degrees.argsort()
        count = sum(parameter.numel() for parameter in model.parameters())
        label = f"{name}, {count:,} parameters"
        axes.plot(degrees[order], report.errors[order].clamp(min=FLOOR), ".-", color=color, linewidth=0.8, label=label)
    axes.set(xlabel="angle (degrees)", ylabel="relative change of the output", yscale="log", xticks=range(0, 360, 45))
    figure.legend(loc="outside upper center", ncols=len(COLORS), frameon=False, fontsize="small")
    return figure


@torch.no_grad()
def poses() -> Figure:
    """The answers of lifting convolutions to one bright pixel, which are their kernels, in all poses."""
    similarities = Product((SO2(), Scaling(2, high=4.0)))
    layers = [
        LiftingConv(1, 1, 33, SO2(), 8, reach=12, bias=False),
        LiftingConv(1, 1, 33, similarities, (4, 2), reach=6, bias=False),
    ]
    pixel = torch.zeros(1, 1, 65, 65)
    pixel[..., 32, 32] = 1
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    for row, layer in zip(figure.subplots(2, 8), layers, strict=True):
        kernels = layer(pixel, spacing=0.5)[0, 0]
        for axes, kernel, element in zip(row, kernels, layer.samples.elements.tolist(), strict=True):
            limit = kernel.abs().max().item()
            axes.imshow(kernel.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
            scale = f", x{element[1]:.0f}" if len(element) > 1 else ""
            axes.set_title(f"{math.degrees(element[0]):.0f}°{scale}", fontsize="small")
            axes.set_axis_off()
    return figure


def main(out: Path) -> None:
    """Write the figures to the folder `out` and print what read-outs recognise."""
    torch.manual_seed(0)
    (images, labels), (held_out, answers) = digits("train"), digits("test")
    models = networks()
    shown = {"upright": held_out, "turned": turned(held_out)}
    for name, model in models.items():
        outputs(model.train(), images)  # the norms see the data once
        weights = read_out(outputs(model.eval(), images), labels)
        right = {kind: (outputs(model, x) @ weights).argmax(1).eq(answers) for kind, x in shown.items()}
        print(f"{name}: " + ", ".join(f"{kind} {found.double().mean():.1%}" for kind, found in right.items()))
    out.mkdir(parents=True, exist_ok=True)
    errors(models, held_out[:8]).savefig(out / "equivariance.png", dpi=150)
    poses().savefig(out / "poses.png", dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "figures"))
