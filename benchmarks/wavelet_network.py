"""Trains a wavelet network on spoken words beside the same network at one scale, with as many parameters: accuracy.

python benchmarks/wavelet_network.py DATA --out docs/results

DATA: a folder with train.ogg, valid.ogg, test.ogg (clips of one second at 16 kHz, one after the other) and labels.npz
(train_y, valid_y, test_y, classes); nothing is downloaded.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from _report import called, markdown, provenance, table, write
from matplotlib.figure import Figure
from scipy.signal import resample_poly

from omniconv.data import ArraySamples, Samples
from omniconv.models import WaveletNet
from omniconv.training import Classification, Recipe, Run, train
from omniconv.training.evaluation import outputs_of

CLIP = 16_000
SPLITS = ("train", "valid", "test")
NETWORKS = ("wavelet", "one scale")

ABOUT = """{counts} clips of ten spoken words, with no speaker in two of these parts (Speech Commands, Warden 2018),
at {rate:g} kHz. *wavelet*: `WaveletNet(1, 10, {size}, scales={scales}, width={width}, blocks={blocks},
lift_reach={lift_reach}, factorization="separable")`. *one scale*: the same with `scales=1`. Both have the same
parameters: a scale is a pose in which the same kernels are sampled. No augmentation, no selection by validation: the
last weights. {epochs} epochs in batches of {batch}, AdamW, highest learning rate {lr:g}, a tenth of the steps
warm-up, cosine to zero. Seconds are of the training steps, on {threads} thread(s) of a machine on which other work
ran beside them."""
HEAD = ("network", "seed", "parameters", "training s", "training loss", "validation", "test")


@dataclass
class Result:
    """One network with one seed."""

    network: str
    seed: int
    parameters: int
    seconds: float
    loss: float
    """Mean over the last epoch's steps."""
    curve: list[float]
    """Validation accuracy after every epoch."""
    test: float


def clips(path: Path, split: str, every: int, count: int | None) -> ArraySamples:
    """The clips of a part, at a rate that is so many times lower."""
    sound, rate = soundfile.read(path / f"{split}.ogg", dtype="float32")
    with np.load(path / "labels.npz") as labels:
        targets = labels[f"{split}_y"]
    if rate != CLIP or len(sound) != CLIP * len(targets):
        raise ValueError(f"{path}: {split}.ogg must hold {len(targets)} clips of {CLIP} samples; it has {len(sound)}.")
    chosen = sound.reshape(-1, CLIP)[:count]
    return ArraySamples(resample_poly(chosen, 1, every, axis=1)[:, None].astype(np.float32), targets[:count])


def build(network: str, seed: int, options: argparse.Namespace) -> WaveletNet:
    """The untrained network."""
    torch.manual_seed(seed)
    return WaveletNet(
        1,
        10,
        CLIP // options.every,
        scales=options.scales if network == "wavelet" else 1,
        width=options.width,
        blocks=options.blocks,
        lift_reach=options.lift_reach,
        factorization="separable",
    )


def accuracy(model: WaveletNet, samples: Samples) -> float:
    """Share of the clips that are recognised."""
    return float((outputs_of(model, samples).argmax(1).numpy() == np.asarray(samples.targets)).mean())


def measured(network: str, seed: int, parts: list[ArraySamples], options: argparse.Namespace) -> Result:
    """Train one network, evaluate it after every epoch, and test it."""
    training, validation, test = parts
    model, scores = build(network, seed, options), []
    signals = np.asarray(training.signals)
    model.standardize.set([float(signals.mean())], [float(signals.std())])
    recipe = Recipe(epochs=options.epochs, batch_size=options.batch, lr=options.lr, warmup=0.1, seed=seed)

    def after(step: int, steps: int, loss: float) -> None:
        if step * recipe.epochs % steps == 0:  # the end of an epoch
            scores.append(accuracy(model, validation))
            print(f"{network}, seed {seed}, epoch {len(scores)}: loss {loss:.4f}, {scores[-1]:.4f}", flush=True)

    run = Run(device="cpu", progress=True)
    rows = train(model, Classification(tuple(range(10))), training, recipe=recipe, run=run, report=after)
    last = rows[-(len(rows) // recipe.epochs) :]
    return Result(
        network,
        seed,
        sum(parameter.numel() for parameter in model.parameters()),
        sum(row["seconds"] for row in rows),
        statistics.mean(row["loss"] for row in last),
        scores,
        accuracy(model, test),
    )


def row(result: Result) -> list[str]:
    """The line of one result."""
    return [
        result.network,
        str(result.seed),
        f"{result.parameters:,}",
        f"{result.seconds:.0f}",
        f"{result.loss:.4f}",
        f"{result.curve[-1]:.4f}",
        f"{result.test:.4f}",
    ]


def mean_of(network: str, results: list[Result]) -> str:
    """What a network reached over its seeds, in words."""
    some = [one for one in results if one.network == network]
    tests, validations = [one.test for one in some], [one.curve[-1] for one in some]
    return (
        f"- *{network}*: mean test accuracy {statistics.mean(tests):.4f} ({min(tests):.4f} to {max(tests):.4f}), mean "
        f"validation accuracy {statistics.mean(validations):.4f}"
    )


def drawn(results: list[Result]) -> Figure:
    """Validation accuracy after every epoch."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for result in results:
        color = {"wavelet": "#0072B2", "one scale": "#D55E00"}[result.network]
        label = result.network if result.seed == 0 else None
        axes.plot(range(1, len(result.curve) + 1), result.curve, "o-", markersize=3, color=color, label=label)
    axes.set(xlabel="epochs", ylabel="validation accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the clips and their labels")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page, the figure and the JSON")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--scales", type=int, default=4)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--lift-reach", type=int, default=10)
    parser.add_argument("--every", type=int, default=4, help="how many times lower the rate is made")
    parser.add_argument("--clips", type=int, help="only so many of each part, to try the script")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts = [clips(options.data, split, options.every, options.clips) for split in SPLITS]
    results = [measured(network, seed, parts, options) for seed in range(options.seeds) for network in NETWORKS]
    results.sort(key=lambda one: (NETWORKS.index(one.network), one.seed))
    about = provenance(0) | {"command": called("wavelet_network.py", options, parser)}
    about |= {"seed": ", ".join(map(str, range(options.seeds)))}
    counts = ", ".join(f"{len(part):,} {name}" for part, name in zip(parts, SPLITS, strict=True))
    told = ABOUT.format(**vars(options), counts=counts, rate=CLIP / options.every / 1000, size=CLIP // options.every)
    page = markdown("Wavelet network on spoken words", about, told, table(HEAD, [row(one) for one in results]),
                    "\n".join(mean_of(network, results) for network in NETWORKS),
                    "![validation accuracy](wavelet_network.png)")  # fmt: skip
    write(options.out, "wavelet_network", page, {"about": about, "results": [asdict(one) for one in results]})
    drawn(results).savefig(options.out / "wavelet_network.png", dpi=120)


if __name__ == "__main__":
    main()
