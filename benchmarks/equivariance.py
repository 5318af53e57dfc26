"""Measures how far untrained networks are from invariance under rotations, by angle and by the number of samples.

python benchmarks/equivariance.py --out docs/results
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from _report import markdown, provenance, table, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from omniconv.groups import SO2
from omniconv.kernels import SIREN
from omniconv.models import CCNN, GCNN
from omniconv.nn import GroupConv, LiftingConv
from omniconv.symmetry import equivariance_report

SEED = 0
GROUP, SIZE, IMAGES, BLOBS, OUTPUTS = SO2(), 33, 8, 8, 10
SAMPLES = (1, 2, 4, 8, 16)
FINER = (4, 8, 16)
"""Samples at which one function is evaluated, which is made for the last."""
BANDWIDTHS = (0.5, 0.25)
OFFSET_SAMPLES = 4
"""Samples of the networks whose grid is moved at random."""

ABOUT = """The error |f(g x) - f(x)| / |f(x)| of the outputs of untrained networks under rotations g over 360 degrees
({angles} of them), by `omniconv.symmetry.equivariance_report`: the mean over {seeds} draws of the parameters. `quarter
turns`: the mean at 90, 180 and 270 degrees, which map the grid to itself. `turns by a sample`: the mean at the other
angles that map the samples of the group to themselves, but not the grid of space: this error is of space alone.
`largest`: over the angles. `other image`: |f(x') - f(x)| / |f(x)| for another image x', for scale: an error as large
means that a rotated image is another image to the network. GCNN: two stages of 8 and 16 channels, reach 3,
{size}x{size} samples, maximum over group and space. CCNN: 2 blocks, 16 channels, no group. {images} images, each a sum
of {blobs} smooth blobs. What interpolation of the turned images adds, and the grid of space, is in the error, and more
samples of the group do not remove it. Every row of this table is of other networks: new kernels vary on the group as
fast as the network's own samples can tell, so those of 16 samples vary faster than those of 8, and their error need
not be less. How one function gains by samples is the next table."""
REFINED = """Networks with the parameters of one that was made for {finest} samples, evaluated on fewer: one function of
the group, sampled more and more finely. `bandwidth` is that of its kernels, as a part of the highest frequency that
{finest} samples carry: the network's own is 0.5, which 8 samples just carry, and 0.25 is what 4 just carry. What is
left at {finest} is the error of space."""
OFFSETS = """Networks of {samples} samples again, but every layer's grid of rotations is moved as a whole by a random
part of a cell, as in training with `sampling="offset"`, and the outputs are averaged over so many draws, the same ones
for every angle and image. In expectation such an output does not depend on the angle, whatever the number of samples;
what is left with many draws is the error of space and the noise of the mean, which falls with the root of the draws."""
HEAD = ("network", "mean error", "of the seeds", "largest", "quarter turns", "turns by a sample", "other image")


@dataclass
class Row:
    """Errors of a network: by angle in degrees, the mean over seeds; the mean of every seed; and of another image.

    `samples`: of the group at evaluation; None without one, or where they are moved.
    """

    name: str
    samples: int | None
    degrees: list[float]
    curve: list[float]
    means: list[float]
    other: float

    @property
    def mean(self) -> float:
        return sum(self.means) / len(self.means)

    @property
    def quarter_turns(self) -> float:
        """The mean at 90, 180 and 270 degrees."""
        return self.mean_where(lambda angle: angle > 0 and angle % 90 == 0)

    @property
    def own_turns(self) -> float:
        """The mean where the samples are mapped to themselves and the grid is not; NaN if that is nowhere."""
        return self.mean_where(
            lambda angle: angle % 90 > 0 and self.samples is not None and angle * self.samples % 360 == 0
        )

    def mean_where(self, chosen: Callable[[float], bool]) -> float:
        """The mean at the angles that are chosen."""
        errors = [error for angle, error in zip(self.degrees, self.curve, strict=True) if chosen(angle)]
        return sum(errors) / len(errors) if errors else math.nan


class Averaged(nn.Module):
    """The mean output over random offsets of every layer's grid, the same ones at every call.

    The network is no part of this module, which is looked at as a whole: its layers draw at evaluation too.
    """

    def __init__(self, network: GCNN, draws: int):
        super().__init__()
        self.draws, self.run = draws, network.eval().forward
        for layer in network.modules():
            if isinstance(layer, (GroupConv, LiftingConv)):
                layer.train()

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x), OUTPUTS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            for _ in range(self.draws):
                total += self.run(x)
        return total / self.draws


def smooth_images() -> Tensor:
    """Sums of round blobs of 2 to 3.3 samples, well within the ball that the grid holds."""
    generator = torch.Generator().manual_seed(SEED)
    radius = SIZE / 2
    angle = 2 * math.pi * torch.rand(IMAGES, BLOBS, generator=generator)
    distance = 0.4 * radius * torch.rand(IMAGES, BLOBS, generator=generator).sqrt()
    width = radius * (0.12 + 0.08 * torch.rand(IMAGES, BLOBS, generator=generator))
    height = torch.randn(IMAGES, BLOBS, generator=generator)
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    apart = [axis - (distance * where(angle))[..., None] for where in (torch.cos, torch.sin)]
    rows, columns = [torch.exp(-0.5 * (lag / width[..., None]).square()) for lag in apart]
    x = torch.einsum("ib,ibr,ibc->irc", height, rows, columns)
    return (x / x.std())[:, None]


def gcnn(samples: int, bandwidth: float = 0.5) -> GCNN:
    """A small network on the group."""
    kernel = partial(SIREN, bandwidth=bandwidth)
    return GCNN(1, OUTPUTS, SIZE, group=GROUP, samples=samples, widths=(8, 16), reach=3, kernel=kernel)


def refined(samples: int, bandwidth: float) -> GCNN:
    """The function of a network that was made for the most samples, on so many."""
    model = gcnn(max(FINER), bandwidth)
    on_few = gcnn(samples, bandwidth)
    on_few.load_state_dict(model.state_dict())
    return on_few


def averaged(draws: int) -> Averaged:
    """A small network of few samples, at so many offsets of them."""
    return Averaged(gcnn(OFFSET_SAMPLES), draws)


def ccnn() -> CCNN:
    """A small network without a group."""
    return CCNN(1, OUTPUTS, size=(SIZE, SIZE), blocks=2, width=16)


@torch.no_grad()
def other_image(model: nn.Module, x: Tensor) -> float:
    """How far outputs of different images are from each other, in the measure of the error."""
    y = model.eval()(x)
    return ((y.roll(1, 0) - y).norm() / y.norm()).item()


def looked_at(
    name: str, make: Callable[[], nn.Module], x: Tensor, options: argparse.Namespace, samples: int | None = None
) -> Row:
    """The errors of networks with other parameters each."""
    errors, others = [], []
    for seed in range(options.seeds):
        torch.manual_seed(SEED + seed)
        model = make()
        report = equivariance_report(model, x, GROUP, count=options.angles)
        errors.append(report.errors)
        others.append(other_image(model, x))
    degrees = report.elements[:, 0].rad2deg().remainder(360).mul(1e6).round().div(1e6)
    order, found = degrees.argsort(), torch.stack(errors)
    curve = found.mean(0)[order].tolist()
    return Row(name, samples, degrees[order].tolist(), curve, found.mean(1).tolist(), sum(others) / len(others))


def as_table(rows: list[Row]) -> str:
    """A line for each network."""
    return table(
        HEAD,
        [
            (
                *(row.name, f"{row.mean:.2e}", f"{min(row.means):.1e} to {max(row.means):.1e}"),
                *(f"{max(row.curve):.2e}", f"{row.quarter_turns:.1e}"),
                *("-" if math.isnan(row.own_turns) else f"{row.own_turns:.2e}", f"{row.other:.2f}"),
            )
            for row in rows
        ],
    )


def by_number(panel: Axes, numbers: tuple[int, ...], rows: list[Row], label: str, name: str = "") -> None:
    """Mean errors over a number, on logarithmic axes."""
    panel.plot(numbers, [row.mean for row in rows], "o-", label=name or None)
    panel.set(xscale="log", yscale="log", xlabel=label)
    panel.set_xticks(numbers, [str(number) for number in numbers])
    panel.minorticks_off()


def draw(grids: list[Row], plain: Row, finer: dict[float, list[Row]], offsets: dict[int, Row]) -> Figure:
    """The error by angle; the mean error by samples, and by draws of an offset."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    angles, samples, draws = figure.subplots(1, 3)
    for row in [*grids, plain]:
        style = {"color": "0.4", "linestyle": "--"} if row is plain else {}
        angles.plot(row.degrees, row.curve, label=row.name, **style)
    angles.set(xlabel="rotation, degrees", ylabel="relative error of the output", yscale="log")
    angles.set_ylim(bottom=min(row.mean for row in grids) / 30)  # quarter turns are below
    angles.set_xticks(range(0, 361, 90))
    angles.legend(fontsize="small")
    draws.sharey(samples)
    for bandwidth, rows in finer.items():
        by_number(samples, FINER, rows, "samples of the group", f"one function, bandwidth {bandwidth}")
    by_number(samples, SAMPLES, grids, "samples of the group", "a network for each number")
    by_number(draws, tuple(offsets), list(offsets.values()), f"random offsets of {OFFSET_SAMPLES} samples, averaged")
    for panel in (samples, draws):
        panel.axhline(plain.mean, color="0.4", linestyle="--", label=plain.name)
        panel.set_ylabel("mean relative error")
        panel.legend(fontsize="small")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of equivariance.md, .json, .png")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--angles", type=int, default=80, help="a multiple of 4")
    parser.add_argument("--draws", type=int, default=64, help="most offsets that are averaged")
    options = parser.parse_args()
    if options.angles % 4:
        parser.error(f"--angles must be a multiple of 4; got {options.angles}")
    x = smooth_images()
    grids = [looked_at(f"GCNN, {n} sample{'s' * (n > 1)}", partial(gcnn, n), x, options, n) for n in SAMPLES]
    plain = looked_at("CCNN", ccnn, x, options)
    finer = {
        bandwidth: [
            looked_at(f"bandwidth {bandwidth}, {n} samples", partial(refined, n, bandwidth), x, options, n)
            for n in FINER
        ]
        for bandwidth in BANDWIDTHS
    }
    offsets = {
        4**i: looked_at(f"mean of {4**i}", partial(averaged, 4**i), x, options)
        for i in range(1 + int(math.log2(options.draws)) // 2)
    }
    about = provenance(SEED)
    sizes = {"size": SIZE, "images": IMAGES, "blobs": BLOBS, "seeds": options.seeds}
    parts = [ABOUT.format(angles=options.angles, **sizes), "![errors of invariance](equivariance.png)"]
    parts += [as_table([*grids, plain]), "## One function", REFINED.format(finest=max(FINER))]
    parts += [as_table([row for rows in finer.values() for row in rows]), "## Random offsets"]
    parts += [OFFSETS.format(samples=OFFSET_SAMPLES), as_table(list(offsets.values()))]
    page = markdown("Invariance under rotations", about, *parts)
    print(page)
    data = {"grids": [*grids, plain], "offsets": list(offsets.values())}
    data["finer"] = [row for rows in finer.values() for row in rows]
    lists = {name: [asdict(row) for row in rows] for name, rows in data.items()}
    write(options.out, "equivariance", page, {"about": about, **lists})
    draw(grids, plain, finer, offsets).savefig(options.out / "equivariance.png", dpi=120)


if __name__ == "__main__":
    main()
