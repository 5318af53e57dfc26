"""Whether a layer that learns its part of the rotations finds the part that the data need: on hands of a clock.

python benchmarks/learned_interval.py --out docs/results
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from _report import called, markdown, provenance, table, write
from matplotlib.figure import Figure
from torch import Tensor, nn

from omniconv import refresh
from omniconv.groups import SO2
from omniconv.nn import BatchNorm, GroupProject, LiftingConv, Partial
from omniconv.nn.penalties import narrowness
from omniconv.training.optimizer import build_optimizer, warmup_cosine
from omniconv.training.progress import progress_for

SIDE, SAMPLES = 17, 16
THICKNESS = 0.7
"""Standard deviation of a hand across, in pixels."""
WINDOW = 60.0
"""Degrees to either side that the first task asks for."""
TASKS = ("window", "full")
SETTINGS = ((0.75, 0.03), (0.75, 0.0), (1.0, 0.0))
"""Where half-widths begin, as shares of all rotations, and the factor of `narrowness` in the loss."""
STYLES = ("-", "--", ":")
TESTS = 4096

ABOUT = """Images of {side} x {side} pixels with the hand of a clock (a line from the centre outwards, a Gaussian of
standard deviation {thickness:g} pixels across) and white noise of standard deviation {noise:g}, made anew for every
batch. The network is one filter: `LiftingConv(1, 1, {side}, SO2(), {samples}, sampling="offset")` on the elements of
a `Partial`, batch norm, the maximum over these elements at the centre of the image, and the log-odds of class 1 are
that times a positive number plus another. With several filters, or a number of either sign, other parts of the
rotations would do as well: the poses that do not belong to class 1 are a part of them, too.

*window*: class 1 are hands that are turned by up to {window:g} degrees to either side. Class 0 are hands that are
turned further, and as many images of noise alone. The half-width to learn is {window:g} degrees. *full*: class 1 are
hands in any pose, class 0 lines of the same length through the centre. No pose matters, and the half-width to learn
is 180.

*pull*: the factor of the penalty `narrowness`, -ln of the width, in the loss: a part then shrinks only where the task
gains by it. Without it nothing widens what is wide enough for *full* to be told without error, and *window* ends a
little too narrow.

{steps:,} steps of batches of {batch}, AdamW, highest learning rate {lr:g} (a tenth of it for widths), warm-up over a
tenth of the steps, cosine to zero. At 180 degrees *window* has a saddle: a filter that responds to all poses alike
tells little about the label, and no direction is much better for its width."""
HEAD = ("task", "begun at, degrees", "pull", "seed", "half-width, degrees", "test accuracy")


@dataclass
class Result:
    """One network with one seed."""

    task: str
    begin: float
    """Of the half-width, as a share of all rotations."""
    pull: float
    """Towards all rotations: the factor of the penalty."""
    seed: int
    half_width: float
    """In degrees; 180 is all rotations."""
    accuracy: float
    curve: list[float]
    """Half-widths on the way, at equal distances."""


class Detector(nn.Module):
    """The log-odds that an image shows a pattern: larger for a larger response of one filter at its centre.

    The largest over a learned part of the rotations counts.
    """

    def __init__(self, begin: float) -> None:
        super().__init__()
        group = SO2()
        self.lift = LiftingConv(1, 1, SIDE, group, SAMPLES, reach=SIDE // 2, sampling="offset", bias=False)
        self.partial = Partial(group, SAMPLES, begin=begin)
        self.norm, self.project = BatchNorm(1, affine=False), GroupProject("max")
        self.log_scale, self.bias = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        at = self.partial(self.lift.draw())
        found: Tensor = self.project(self.norm(self.lift(x, at)), at)
        return self.log_scale.exp() * found[:, 0, SIDE // 2, SIDE // 2] + self.bias

    @property
    def half_width(self) -> float:
        """In degrees."""
        return 180 * self.partial.widths[0].item()


def hands(angles: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """Lines from the centre towards the angles (n,), between two distances in pixels, negative ones behind the centre.

    (n, 1, side, side); the angle runs as `SO2` turns images.
    """
    y, x = torch.meshgrid(*[torch.arange(SIDE) - SIDE // 2] * 2, indexing="ij")
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    along, across = cos * x + sin * y, cos * y - sin * x
    beyond = torch.maximum(begin[:, None, None] - along, along - end[:, None, None]).clamp(min=0)
    return torch.exp(-(across.square() + beyond.square()) / (2 * THICKNESS**2))[:, None]


def batch_of(task: str, count: int, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and classes."""
    number = torch.arange(count)
    labels, others = number % 2, number % (2 if task == "full" else 4) == 0
    share = 2 * torch.rand(count, generator=generator) - 1
    angles, length, window = share * math.pi, SIDE // 2 - 1.0, math.radians(WINDOW)
    if task == "full":
        images = hands(angles, -length / 2 * others, length * torch.where(others, 0.5, 1.0))
    else:
        beyond = share.sign() * (window + share.abs() * (math.pi - window))
        angles = torch.where(labels == 1, share * window, beyond)
        images = hands(angles, torch.zeros(count), torch.full((count,), length)) * ~others[:, None, None, None]
    return images + noise * torch.randn(images.shape, generator=generator), labels


def measured(task: str, begin: float, pull: float, seed: int, options: argparse.Namespace) -> Result:
    """Train one network, and test it."""
    torch.manual_seed(seed)
    model, generator = Detector(begin).train(), torch.Generator().manual_seed(seed)
    optimizer = build_optimizer(model, lr=options.lr)
    schedule = warmup_cosine(optimizer, steps=options.steps, warmup=options.steps // 10)
    curve = []
    with progress_for(True) as progress:
        for step in range(1, options.steps + 1):
            images, labels = batch_of(task, options.batch, options.noise, generator)
            loss = F.binary_cross_entropy_with_logits(model(images), labels.float())
            loss = loss + pull * narrowness(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            refresh(model)
            if step % max(1, options.steps // 50) == 0:
                curve.append(model.half_width)
                progress.update(step, options.steps, options.batch, loss.item(), f"{curve[-1]:.0f} degrees")
    images, labels = batch_of(task, TESTS, options.noise, torch.Generator().manual_seed(10_000 + seed))
    with torch.no_grad():
        right = (model.eval()(images) > 0) == (labels == 1)
    told = f"{task}, begun at {180 * begin:g}, pull {pull:g}, seed {seed}"
    print(f"{told}: {model.half_width:.1f} degrees, {right.float().mean():.4f}", flush=True)
    return Result(task, begin, pull, seed, model.half_width, right.float().mean().item(), curve)


def drawn(results: list[Result]) -> Figure:
    """Half-widths during training."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for result in results:
        share = [(i + 1) / len(result.curve) for i in range(len(result.curve))]
        color = {"window": "#0072B2", "full": "#D55E00"}[result.task]
        setting = (result.begin, result.pull)
        words = f"{result.task}, begun at {180 * result.begin:g} degrees, pull {result.pull:g}"
        style, label = STYLES[SETTINGS.index(setting)], words if result.seed == 0 else None
        axes.plot(share, result.curve, style, color=color, label=label)
    axes.axhline(WINDOW, color="black", linewidth=0.8, linestyle="--")
    axes.set(xlabel="share of the steps", ylabel="learned half-width, degrees", ylim=(0, 185))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def grouped(results: list[Result]) -> list[list[Result]]:
    """Those of one task that began alike, together."""
    kinds = dict.fromkeys((one.task, one.begin, one.pull) for one in results)
    return [[one for one in results if (one.task, one.begin, one.pull) == kind] for kind in kinds]


def told_of(results: list[Result]) -> str:
    """How near the half-widths of some seeds are to that which the task asks for."""
    first, asked = results[0], WINDOW if results[0].task == "window" else 180.0
    near = sum(abs(one.half_width - asked) <= 10 for one in results)
    middle = statistics.median(one.half_width for one in results)
    return (
        f"*{first.task}*, begun at {180 * first.begin:g} degrees, pull {first.pull:g}: within 10 degrees of {asked:g} "
        f"with {near} of {len(results)} seeds, median {middle:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the page, the figure and the JSON")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--noise", type=float, default=0.1)
    options = parser.parse_args()
    results = [
        measured(task, begin, pull, seed, options)
        for begin, pull in SETTINGS
        for task in TASKS
        for seed in range(options.seeds)
    ]
    about = provenance(0) | {"command": called("learned_interval.py", options, parser)}
    about |= {"seed": ", ".join(map(str, range(options.seeds)))}
    told = ABOUT.format(**vars(options), side=SIDE, samples=SAMPLES, window=WINDOW, thickness=THICKNESS)
    rows = [
        [
            one.task,
            f"{180 * one.begin:g}",
            f"{one.pull:g}",
            str(one.seed),
            f"{one.half_width:.1f}",
            f"{one.accuracy:.4f}",
        ]
        for one in results
    ]
    summary = "\n".join(f"- {told_of(some)}" for some in grouped(results))
    page = markdown("Learned parts of the rotations", about, told, table(HEAD, rows), summary,
                    "![half-widths during training](learned_interval.png)")  # fmt: skip
    write(options.out, "learned_interval", page, {"about": about, "results": [asdict(one) for one in results]})
    drawn(results).savefig(options.out / "learned_interval.png", dpi=120)


if __name__ == "__main__":
    main()
