"""Trains networks with and without rotations built in on rotated MNIST: accuracy, learning curves, time and size.

python benchmarks/rotated_mnist.py DATA --out docs/results

DATA: a folder with the four idx files of MNIST, from which the rotated images are made; nothing is downloaded. Results
that are in the JSON there already, with the same settings, are kept: long runs can be done one by one or two at a time,
with --networks and --threads.
"""

from __future__ import annotations

import argparse
import bisect
import hashlib
import json
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import called, markdown, provenance, table, write
from matplotlib.figure import Figure
from numpy.typing import NDArray

from omniconv.data import Samples, load_mnist
from omniconv.data.idx import PixelSamples
from omniconv.groups import SO2, Product, Scaling, Trivial
from omniconv.models import CCNN, GCNN, Network
from omniconv.nn import Partial
from omniconv.training import Classification, Recipe, Run, train
from omniconv.training.evaluation import outputs_of
from omniconv.training.progress import progress_for

Array = NDArray[Any]

TRAINING, VALIDATION, TESTS = 10_000, 2_000, 50_000
MD5 = {"images": "e36d2f2f727dee9135040001944135ea", "labels": "3a8f1ffcac6e9914d832de5be9e7f5e6"}
GROUPS: dict[str, dict[str, Any]] = {
    "translations": {"group": Trivial(2)},
    "full": {"group": SO2(), "samples": 8, "factorization": "none"},
    "separable": {"group": SO2(), "samples": 8},
    "partial": {"group": SO2(), "samples": 8, "partial": True},
    "sim2": {
        "group": Product((SO2(), Scaling(2, high=2.0))),
        "samples": (8, 2),
        "factorization": "factor-separable",
    },
}
NETWORKS = ("plain", *GROUPS)
COLORS = dict(zip(NETWORKS, ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7"), strict=True))

ABOUT = """12,000 images for training, of which the last 2,000 are the validation images, and {tests:,} test images,
all turned by angles drawn uniformly; made from MNIST, with fixed seeds, bilinearly. The original files of rotated
MNIST are other draws, so figures of papers, of other lengths of training too, compare only roughly. No augmentation,
no selection by validation: the last weights. One recipe for all: batches of {batch}, AdamW, highest learning rate
{lr:g}, a tenth of the steps warm-up, cosine to zero; results of different numbers of epochs, and with drop-out or
smoothed labels, stand side by side.

*plain*: `CCNN` of {convolutions} convolutions, all at the full resolution, as wide as fits into the parameters of
*separable*. The others are `GCNN(1, 10, 28, widths=.., body="plain", reach={reach})`, of as many convolutions, a stage
each between the first and the last; widths {widths}, of which the column *width* has the first. *translations*:
`group=Trivial(2)`. *full*: `SO2()`, 8 samples, `factorization="none"`. *separable*: the same with
`factorization="separable"`. *partial*: *separable* with `partial=True`. *sim2*: the product of `SO2()` and
`Scaling(2, high=2.0)`, 8 rotations at 2 scales, with `factorization="factor-separable"`. Seconds are of the training
steps alone, without validation; ms are of one step, the median; after `omniconv tune`, on {threads} thread of a machine
on which other work ran beside them.

Published for the networks of the papers, on the original files: 300 epochs in batches of 64, on a graphics processor;
Knigge et al. 2022 report a test error of 0.59 % for their separable network on Sim(2)."""
HEAD = (
    "network",
    "epochs",
    "dropout, smoothing",
    "seed",
    "width",
    "parameters",
    "ms per step",
    "training s",
    "validation",
    "test",
    "device",
    "date",
)


@dataclass
class Result:
    """One network with one seed; what was the same for all networks is in `settings`."""

    network: str
    epochs: int
    seed: int
    width: int
    """Of its first stage."""
    parameters: int
    step_ms: float
    curve: list[tuple[float, float]]
    """After every epoch: seconds of training so far, validation accuracy."""
    test: float
    half_widths: dict[str, float]
    """Of the learned parts of the group by layer, in degrees; 180 is all of it."""
    settings: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.0
    smoothing: float = 0.0
    """Of the labels."""
    widths: str = "8,16,32"
    """Of the stages of the GCNN, or of that of which the plain network has the size."""


def turned(images: Array, angles: Array) -> Array:
    """Square images (n, side, side) of bytes, each turned by its angle in radians: bilinear, with zeros around them.

    The pixel at (row, column) = (y, x) from the centre takes the value at R(angle) (x, y).
    """
    side = images.shape[-1]
    centre, margin = (side - 1) / 2, side // 2  # corners are turned out of the image by a fifth of its side
    y, x = np.mgrid[:side, :side] - centre
    cos, sin = (np.round(wave(angles), 9)[:, None, None] for wave in (np.cos, np.sin))
    across, down = cos * x - sin * y + centre, sin * x + cos * y + centre
    left, top = np.floor(across).astype(int), np.floor(down).astype(int)
    right_share, low_share = across - left, down - top
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin))).astype(np.float64)
    number = np.arange(len(images))[:, None, None]

    def at(lower: int, further: int) -> Array:
        return padded[number, top + lower + margin, left + further + margin]

    above = (1 - right_share) * at(0, 0) + right_share * at(0, 1)
    below = (1 - right_share) * at(1, 0) + right_share * at(1, 1)
    return np.floor((1 - low_share) * above + low_share * below + 0.5).astype(np.uint8)


def pixels(samples: Samples) -> Array:
    """The images of MNIST as bytes (n, 28, 28)."""
    assert isinstance(samples, PixelSamples)
    return np.asarray(samples.signals)[:, 0]


def rotated_mnist(path: Path, chunk: int = 500) -> PixelSamples:
    """62,000 of the 70,000 images of MNIST, each turned by an angle of its own; `ValueError` if a checksum is off."""
    parts = [load_mnist(path, split) for split in ("train", "test")]
    images, labels = np.concatenate([pixels(part) for part in parts]), [np.asarray(part.targets) for part in parts]
    count = TRAINING + VALIDATION + TESTS
    random = np.random.RandomState(1234)
    chosen = random.permutation(len(images))[:count]
    angles = random.uniform(0, 2 * np.pi, count)
    made = np.empty((count, *images.shape[1:]), np.uint8)
    with progress_for(True) as progress:
        for step, first in enumerate(range(0, count, chunk), 1):
            some = slice(first, first + chunk)
            made[some] = turned(images[chosen[some]], angles[some])
            progress.update(step, -(-count // chunk), len(made[some]), None, "")
    digits = np.concatenate(labels)[chosen]
    for name, array in (("images", made), ("labels", digits.astype(np.uint8))):
        found = hashlib.md5(array.tobytes()).hexdigest()
        if found != MD5[name]:
            raise ValueError(f"{path}: the MD5 sum of the rotated {name} must be {MD5[name]}; it is {found}.")
    return PixelSamples(made[:, None], digits)


def parameters_of(model: Network) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def build(network: str, widths: tuple[int, ...], reach: int, seed: int, dropout: float = 0.0) -> tuple[Network, int]:
    """The untrained network, and the width of its first stage."""
    torch.manual_seed(seed)
    if network != "plain":
        return GCNN(1, 10, 28, widths=widths, body="plain", reach=reach, dropout=dropout, **GROUPS[network]), widths[0]

    def plain(channels: int, device: str) -> CCNN:
        return CCNN(
            1, 10, (28, 28), blocks=len(widths) + 1, width=channels, reach=reach, dropout=dropout, device=device
        )

    limit = parameters_of(build("separable", widths, reach, seed)[0])
    fitting = bisect.bisect_right(range(1, 1024), limit, key=lambda channels: parameters_of(plain(channels, "meta")))
    torch.manual_seed(seed)
    return plain(max(1, fitting), "cpu"), max(1, fitting)


def accuracy(model: Network, samples: Samples, batch: int) -> float:
    """Share of the images that are recognised; the model keeps its mode."""
    outputs = outputs_of(model, samples, batch_size=batch)
    return float((outputs.argmax(1).cpu().numpy() == np.asarray(samples.targets)).mean())


def half_widths(model: Network) -> dict[str, float]:
    """The part of the group that every layer has learned, in degrees to either side."""
    parts = [(name, part) for name, part in model.named_modules() if isinstance(part, Partial)]
    return {name.removesuffix(".partial"): 180 * part.widths[0].item() for name, part in parts}


def measured(network: str, seed: int, split: tuple[Samples, Samples, Samples], options: argparse.Namespace) -> Result:
    """Train one network, evaluate it after every epoch, and test it."""
    training, validation, test = split
    model, width = build(network, widths_of(options), options.reach, seed, options.dropout)
    values = np.stack([training[index] for index in range(len(training))])
    model.standardize.set([float(values.mean())], [float(values.std())])
    recipe = Recipe(epochs=options.epochs, batch_size=options.batch, lr=options.lr, warmup=0.1, seed=seed)
    scores: list[float] = []

    def after(step: int, steps: int, loss: float) -> None:
        if step * recipe.epochs % steps == 0:  # the end of an epoch
            scores.append(accuracy(model, validation, options.batch))
            print(f"{network}, seed {seed}, epoch {len(scores)}: loss {loss:.4f}, {scores[-1]:.4f}", flush=True)

    run = Run(device="cpu" if options.device == "cpu" else "auto", progress=True)
    rows = train(
        model,
        Classification(tuple(range(10)), label_smoothing=options.smoothing),
        training,
        recipe=recipe,
        run=run,
        report=after,
    )
    times = np.array([row["seconds"] for row in rows])
    ends = np.cumsum(times)[len(rows) // recipe.epochs - 1 :: len(rows) // recipe.epochs]
    return Result(
        network,
        options.epochs,
        seed,
        width,
        parameters_of(model),
        1e3 * statistics.median(times.tolist()),
        list(zip(ends.tolist(), scores, strict=True)),
        accuracy(model, test, options.batch),
        half_widths(model),
        settings_of(options),
        dropout=options.dropout,
        smoothing=options.smoothing,
        widths=options.widths,
    )


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What has to be the same for results to stand in one table."""
    return {name: getattr(options, name) for name in ("batch", "lr", "reach", "threads", "images", "tests")}


def widths_of(options: argparse.Namespace) -> tuple[int, ...]:
    """The channels of the stages of the GCNN."""
    return tuple(map(int, options.widths.split(",")))


def kept(path: Path, settings: dict[str, Any]) -> list[Result]:
    """The results of earlier runs; `ValueError` if they have other settings."""
    rows = json.loads(path.read_text())["results"] if path.exists() else []
    found = [Result(**row) for row in rows]
    for result in found:
        if result.settings != settings:
            raise ValueError(
                f"{path} holds results with {result.settings}; this run has {settings}. Give the same settings, or "
                "another --out, or remove it."
            )
    return found


def merged(results: list[Result], new: Result) -> list[Result]:
    """The results with one more, in the place of one of the same network, epochs and seed, in the order of these."""

    def place(one: Result) -> tuple[float, ...]:
        stages = map(int, one.widths.split(","))
        return NETWORKS.index(one.network), *stages, one.epochs, one.dropout, one.smoothing, one.seed

    return sorted([*(one for one in results if place(one) != place(new)), new], key=place)


def row(result: Result) -> list[str]:
    """The line of one result."""
    return [
        result.network,
        str(result.epochs),
        f"{result.dropout:g}, {result.smoothing:g}",
        str(result.seed),
        str(result.width),
        f"{result.parameters:,}",
        f"{result.step_ms:.1f}",
        f"{result.curve[-1][0]:.0f}",
        f"{result.curve[-1][1]:.4f}",
        f"{result.test:.4f}",
        result.about["device"],
        result.about["date"],
    ]


def named(result: Result) -> str:
    """What tells it from the others, but for the seed."""
    extra = (
        f", dropout {result.dropout:g}, smoothing {result.smoothing:g}" if result.dropout or result.smoothing else ""
    )
    wide = "" if result.widths == Result.widths else f" {result.widths}"
    return f"{result.network}{wide}, {result.epochs} epochs{extra}"


def drawn(results: list[Result]) -> Figure:
    """Validation accuracy after every epoch, over seconds of training and over epochs."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for result in results:
        seconds, scores = zip(*result.curve, strict=True)
        name = named(result)
        look = {"color": COLORS[result.network], "label": name if result.seed == 0 else None}
        panels[0].plot(seconds, scores, "o-", markersize=3, **look)
        panels[1].plot(range(1, len(scores) + 1), scores, "o-", markersize=3, **look)
    panels[0].set_xscale("log")
    panels[0].xaxis.set_major_formatter("{x:g}")
    panels[0].xaxis.set_minor_formatter("")
    panels[0].set(xlabel="seconds of training", ylabel="validation accuracy")
    panels[1].set(xlabel="epochs")
    for axes in panels:
        axes.grid(alpha=0.3)
    panels[1].legend()
    return figure


def page_of(results: list[Result]) -> str:
    """The page, from the results of this run and of earlier ones."""
    settings = results[0].settings
    about = max((result.about for result in results), key=lambda about: about["time"])
    widths = list(dict.fromkeys("(" + ", ".join(result.widths.split(",")) + ")" for result in results))
    named_widths = " or ".join(widths)
    text = ABOUT.format(**{**settings, "widths": named_widths, "convolutions": widths[0].count(",") + 3})
    if settings["images"] is not None:
        text += (
            f"\n\n**Only to try the script: {settings['images']:,} images to train, and as many at most to validate.**"
        )
    parts = [text, table(HEAD, [row(result) for result in results]), "![learning curves](rotated_mnist.png)"]
    learned = [result for result in results if result.half_widths]
    if learned:
        told = "The parts of the rotations that *partial* has learned, in degrees to either side; it begins at 180."
        rows = [
            [str(one.epochs), str(one.seed), *(f"{width:.1f}" for width in one.half_widths.values())] for one in learned
        ]
        parts += [told, table(["epochs", "seed", *learned[0].half_widths], rows)]
    commands = [f"- {named(one)}, seed {one.seed}: `{one.about['command']}`" for one in results]
    return markdown("Rotated MNIST", about, *parts, "\n".join(["Commands:", "", *commands]))


def splits(samples: Samples, images: int | None, tests: int) -> tuple[Samples, Samples, Samples]:
    """The images for training, validation and test, or so many of them."""
    first, middle, last = np.split(np.arange(len(samples)), [TRAINING, TRAINING + VALIDATION])
    return samples.subset(first[:images]), samples.subset(middle[:images]), samples.subset(last[:tests])


def parsed() -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the idx files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page, the figure and the JSON")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="some of them, with commas in between")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument(
        "--widths", default="8,16,32", help="channels of the stages of the GCNN, with commas in between"
    )
    parser.add_argument("--reach", type=int, default=2, help="of the kernels, in samples of their stage")
    parser.add_argument("--dropout", type=float, default=0.0, help="in the networks")
    parser.add_argument("--smoothing", type=float, default=0.0, help="of the labels")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tests", type=int, default=TESTS, help="only so many test images")
    parser.add_argument("--images", type=int, help="only so many to train and to validate, to try the script")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    unknown = sorted(set(options.networks.split(",")) - set(NETWORKS))
    if unknown:
        parser.error(f"--networks must be of {', '.join(NETWORKS)}; got {', '.join(unknown)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU that torch can use")
    return options, parser


def main() -> None:
    options, parser = parsed()
    device = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    torch.set_num_threads(options.threads)
    kept(options.out / "rotated_mnist.json", settings_of(options))
    split = splits(rotated_mnist(options.data), options.images, options.tests)
    for seed in range(options.seeds):
        for network in options.networks.split(","):
            result = measured(network, seed, split, options)
            about = provenance(seed) | {"command": called("rotated_mnist.py", options, parser), "device": device}
            result.about = about | {"time": time.time()}
            results = merged(kept(options.out / "rotated_mnist.json", settings_of(options)), result)
            write(options.out, "rotated_mnist", page_of(results), {"results": [asdict(one) for one in results]})
            drawn(results).savefig(options.out / "rotated_mnist.png", dpi=120)


if __name__ == "__main__":
    main()
