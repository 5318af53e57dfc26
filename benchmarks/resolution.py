"""Trains networks on small MNIST images and evaluates them at twice the resolution, without training again.

python benchmarks/resolution.py DATA --out docs/results

DATA: a folder with the four idx files of MNIST; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import called, markdown, provenance, table, write
from numpy.typing import NDArray

from omniconv.data import ArraySamples, Samples, load_mnist
from omniconv.kernels import Gabor, Table
from omniconv.models import FlexNet, create_model
from omniconv.supports import Full
from omniconv.training import Classification, Recipe, train
from omniconv.training.evaluation import outputs_of

Array = NDArray[Any]

SIZE = (14, 14)
METHODS = {"FlexNet-3, band limit": 0.1, "FlexNet-3, no band limit": 0.0, "3x3 CNN": 0.0}
"""Coefficients of the aliasing penalty."""

ABOUT = """{images:,} training images of MNIST at 14x14 (means of 2x2 pixels), {epochs} epochs; the 10,000 test
images at 14x14 and, by the same weights, at the original 28x28: `model.at_resolution(2.0)`, no training in
between. *FlexNet-3, no band limit*: the published network, `create_model("flexnet_3", ...)`, whose initial
frequencies are {times:.0f} times the Nyquist frequency of the 14x14 grid. *Band limit*: the same, but for
kernels whose frequencies begin below that Nyquist frequency, `Gabor` at its default, and the penalty
`antialias=0.1` on what leaves it. *3x3 CNN*: the same body with ordinary kernels of nine taps, applied to the
larger image as any CNN is, and wider stages. One recipe for all, no augmentation, the last weights. Accuracies
are means over the seeds with the least and the greatest; lost is in points, seconds are of the training, on one
thread."""
HEAD = ("network", "parameters", "at 14x14", "least to greatest", "at 28x28", "least to greatest", "lost", "s")


@dataclass
class Result:
    """One network with one seed."""

    method: str
    seed: int
    parameters: int
    bandlimit: float | None
    same: float
    finer: float
    seconds: float


def build(method: str, seed: int) -> FlexNet:
    """The untrained network."""
    torch.manual_seed(seed)
    if method == "3x3 CNN":
        wider = (48, 72, 96)
        return FlexNet(1, 10, SIZE, blocks=(1, 1, 1), widths=wider, kernel=Table, support=Full, reach=1, dropout=0.2)
    published = create_model("flexnet_3", in_channels=1, out_features=10, size=SIZE)
    assert isinstance(published, FlexNet)
    if method == "FlexNet-3, no band limit":
        return published
    torch.manual_seed(seed)
    return FlexNet(**{**published.arguments, "kernel": Gabor})


def shrunk(images: Array) -> Array:
    """Images at half the resolution: means of 2x2 pixels."""
    n, channels, height, width = images.shape
    return images.reshape(n, channels, height // 2, 2, width // 2, 2).mean((3, 5))


def images_of(samples: Samples, count: int) -> tuple[Array, Array]:
    """The first images, (n, 1, 28, 28) in [0, 1], and their labels."""
    images = np.stack([samples[index] for index in range(min(count, len(samples)))])
    return images / max(1.0, float(images.max())), np.asarray(samples.targets)[: len(images)]


def accuracy(model: FlexNet, images: Array, labels: Array) -> float:
    """Share of images that are recognised."""
    outputs = outputs_of(model, ArraySamples(images), batch_size=100)
    return float((outputs.argmax(1).numpy() == labels).mean())


def measured(path: Path, method: str, seed: int, images: int, epochs: int) -> Result:
    """Train and evaluate one network."""
    torch.set_num_threads(1)
    train_images, labels = images_of(load_mnist(path, "train"), images)
    test_images, truth = images_of(load_mnist(path, "test"), 10_000)
    model = build(method, seed)
    model.standardize.set([float(train_images.mean())], [float(train_images.std())])
    recipe = Recipe(epochs=epochs, batch_size=64, seed=seed, antialias=METHODS[method])
    began = time.perf_counter()
    train(model, Classification(tuple(range(10))), ArraySamples(shrunk(train_images), labels), recipe=recipe)
    seconds = time.perf_counter() - began
    model.eval()
    limit = model.stem.bandlimit
    return Result(
        method,
        seed,
        sum(parameter.numel() for parameter in model.parameters()),
        None if limit is None else max(limit),
        accuracy(model, shrunk(test_images), truth),
        accuracy(model if method == "3x3 CNN" else model.at_resolution(2.0), test_images, truth),
        seconds,
    )


def row(method: str, results: list[Result]) -> list[str]:
    """The line of one network."""
    chosen = [result for result in results if result.method == method]
    same, finer = [result.same for result in chosen], [result.finer for result in chosen]
    lost = 100 * (statistics.mean(same) - statistics.mean(finer))
    cells = [method, f"{chosen[0].parameters:,}"]
    for scores in (same, finer):
        cells += [f"{statistics.mean(scores):.4f}", f"{min(scores):.4f} to {max(scores):.4f}"]
    return [*cells, f"{lost:.1f}", f"{statistics.mean(result.seconds for result in chosen):.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the idx files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page and the JSON")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    command = called("resolution.py", options, parser)
    about = provenance(seed=0) | {"command": command, "threads": 1, "seed": f"0 to {options.seeds - 1}"}
    results = []
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(measured, options.data, method, seed, options.images, options.epochs)
            for seed, method in product(range(options.seeds), METHODS)
        ]
        for job in as_completed(jobs):
            results.append(job.result())
            print(results[-1], flush=True)
    results.sort(key=lambda result: (list(METHODS).index(result.method), result.seed))
    first = build("FlexNet-3, no band limit", 0).stem.bandlimit
    told = ABOUT.format(images=options.images, epochs=options.epochs, times=max(first or (0.0,)))
    rows = table(HEAD, [row(method, results) for method in METHODS])
    page = markdown("Twice the resolution of the training", about, told, rows)
    write(options.out, "resolution", page, {"about": about, "results": [asdict(result) for result in results]})


if __name__ == "__main__":
    main()
