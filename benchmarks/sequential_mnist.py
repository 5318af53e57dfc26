"""Trains a published network on MNIST, pixel by pixel, for a given time, and reports its test accuracy.

python benchmarks/sequential_mnist.py DATA --out docs/results

DATA: a folder with the four idx files of MNIST; nothing is downloaded. Made for a GPU: on a processor, ten minutes are
a small part of an epoch.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import called, markdown, provenance, table, write
from numpy.typing import NDArray

from omniconv.data import ArraySamples, load_mnist
from omniconv.models import Network, Preset, preset
from omniconv.training import Classification, Recipe, Run, train
from omniconv.training.evaluation import outputs_of
from omniconv.training.predictor import chosen_device

ABOUT = """`preset("{name}").build()` with the published optimiser settings (learning rate, batch size, warm-up,
cosine to zero), and as many epochs as take {minutes:g} minutes here: {epochs} instead of {published}. The
penalty on norms that the paper adds is left out. {images:,} training images, the last weights, {tests:,}
test images. The paper (Romero et al. 2022) reports 99.72 % after all its epochs."""
HEAD = ("network", "device", "parameters", "epochs", "training s", "test accuracy")


def sequences(path: Path, split: str, count: int | None) -> ArraySamples:
    """Images as series of 784 pixels, in [0, 1]."""
    samples = load_mnist(path, split)
    chosen = range(len(samples) if count is None else min(count, len(samples)))
    images = np.stack([samples[index] for index in chosen]).reshape(len(chosen), 1, -1)
    targets: NDArray[Any] = np.asarray(samples.targets)[: len(chosen)]
    return ArraySamples((images / max(1.0, float(images.max()))).astype(np.float32), targets)


def published_recipe(published: Preset, epochs: int, seed: int) -> Recipe:
    """The recipe of the preset with another number of epochs, and as large a share of warm-up."""
    warmup = published.warmup_epochs / published.epochs
    return Recipe(epochs=epochs, batch_size=published.batch_size, lr=published.lr, warmup=warmup, weight_decay=0.0,
                  seed=seed)  # fmt: skip


def epochs_in(seconds: float, published: Preset, samples: ArraySamples, device: str) -> int:
    """How many epochs take that long, by the time of thirty steps after ten that warm up."""
    few = samples.subset(np.arange(min(40 * published.batch_size, len(samples))))
    marks: list[float] = []
    model = published.build()
    recipe = published_recipe(replace(published, warmup_epochs=0), 1, 0)
    train(model, TASK, few, recipe=recipe, run=Run(device=device), report=lambda *_: marks.append(time.perf_counter()))
    warm = min(10, len(marks) - 2)
    step = (marks[-1] - marks[warm]) / (len(marks) - 1 - warm)
    return max(1, min(published.epochs, int(seconds / (step * len(samples) / published.batch_size))))


TASK = Classification(tuple(range(10)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the idx files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page and the JSON")
    parser.add_argument("--preset", default="ccnn_4_140_smnist")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, help="only so many, to try the script")
    options = parser.parse_args()
    published, device = preset(options.preset), chosen_device(options.device)
    samples, test = sequences(options.data, "train", options.images), sequences(options.data, "test", options.images)
    epochs = epochs_in(60 * options.minutes, published, samples, options.device)
    torch.manual_seed(options.seed)
    model: Network = published.build()
    pixels = np.asarray(samples.signals)
    model.standardize.set([float(pixels.mean())], [float(pixels.std())])
    began = time.perf_counter()
    recipe = published_recipe(published, epochs, options.seed)
    train(model, TASK, samples, recipe=recipe, run=Run(device=options.device, progress=True))
    seconds = time.perf_counter() - began
    outputs = outputs_of(model.eval(), test, batch_size=published.batch_size)
    accuracy = float((outputs.argmax(1).cpu().numpy() == np.asarray(test.targets)).mean())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    about = provenance(seed=options.seed) | {"command": called("sequential_mnist.py", options, parser), "device": name}
    count = sum(parameter.numel() for parameter in model.parameters())
    cells = [options.preset, name, f"{count:,}", str(epochs), f"{seconds:.0f}", f"{accuracy:.4f}"]
    told = ABOUT.format(
        name=options.preset,
        minutes=options.minutes,
        published=published.epochs,
        epochs=epochs,
        images=len(samples),
        tests=len(test),
    )
    page = markdown("Sequential MNIST from the preset", about, told, table(HEAD, [cells]))
    write(options.out, "sequential_mnist", page, {"about": about, "results": [dict(zip(HEAD, cells, strict=True))]})


if __name__ == "__main__":
    main()
