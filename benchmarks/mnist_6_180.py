"""Trains small networks to tell the digit 6 from the same turned by 180 degrees, as only partial equivariance can.

python benchmarks/mnist_6_180.py DATA --out docs/results

DATA: a folder with the four idx files of MNIST; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _report import called, markdown, provenance, table, write
from numpy.typing import NDArray

from omniconv.data import ArraySamples, load_mnist
from omniconv.groups import SO2
from omniconv.models import GCNN
from omniconv.nn import Partial
from omniconv.training import Classification, Recipe, Run, train
from omniconv.training.evaluation import outputs_of

Array = NDArray[Any]

ABOUT = """MNIST6-180 of Romero and Lohit 2022: every digit 6 of MNIST upright, class 0, and turned by 180 degrees,
class 1; {images:,} images to train and {tests:,} to test. `GCNN(1, 2, 28, group=SO2(), samples=4, widths=(10,),
factorization="separable", sampling="{sampling}", reduce="{reduce}")`: *full* with `partial=False`, *partial* with
`partial=True`. Theirs has one block of ten channels too. {epochs} epochs in batches of 64, AdamW, highest learning
rate {lr:g} (of the widths a tenth), a tenth of the steps warm-up, cosine to zero, the last weights; nothing but
the cross-entropy is minimised. *full* cannot do better than chance, 0.5: it gives an image and the same image turned
one output, whatever its weights.

A width u is the part of the rotations on which a layer has its outputs: u pi to either side. With all widths at 1,
*partial* is *full*, and cannot tell the classes apart either. Then the best that the read-out can do is to weigh
every feature alike for both classes, and where it does, the loss has no slope along the widths. Widths of 1 with such
a read-out are a saddle: the loss falls only along smaller widths together with a read-out that uses what they let
through, and there with the square of the distance. Training leaves it at once, where the first read-out happens to
push the widths down before it is forgotten, or later, by the noise of batches and of sampled rotations. Widths that
begin below 1 are no saddle: the read-out has a slope from the first step. Rows differ in where widths begin. *Slope*:
of the loss along the widths, the root of the mean square over layers and batches, at the beginning, and *held* after
an epoch of training in which the widths were held there. *Epochs to 0.9*: the first epoch after which that share of
the test images is recognised; none is chosen by it. In training every layer draws how its rotations are offset, at
evaluation it has none: a training loss may be low before the test accuracy is high."""
HEAD = ("network", "widths begin", "seed", "parameters", "slope", "slope, held", "epochs to 0.9", "test accuracy",
        "widths end", "training s")  # fmt: skip
TASK = Classification((0, 1))
BATCH = 64


@dataclass
class Result:
    """One network with one seed."""

    network: str
    begin: float | None
    seed: int
    parameters: int
    slope: float | None
    slope_held: float | None
    scores: list[float]
    """Test accuracy after every epoch."""
    widths: dict[str, float]
    seconds: float


def upright_and_turned(path: Path, split: str, count: int | None) -> ArraySamples:
    """The digits 6 as they are, class 0, and turned by 180 degrees, class 1."""
    samples = load_mnist(path, split)
    chosen = np.flatnonzero(np.asarray(samples.targets) == 6)[:count]
    images = np.stack([samples[index] for index in chosen])
    return ArraySamples(np.concatenate([images, images[..., ::-1, ::-1]]), np.repeat([0, 1], len(images)))


def parts_of(model: GCNN) -> dict[str, Partial]:
    """The learned parts of the group, by layer."""
    parts = {name: part for name, part in model.named_modules() if isinstance(part, Partial)}
    return {name.removesuffix(".partial"): part for name, part in parts.items()}


def build(begin: float | None, seed: int, samples: ArraySamples, options: argparse.Namespace) -> GCNN:
    """The untrained network, whose widths begin there; None for full equivariance."""
    torch.manual_seed(seed)
    model = GCNN(1, 2, 28, group=SO2(), samples=4, widths=(10,), partial=begin is not None, sampling=options.sampling,
                 reduce=options.reduce)  # fmt: skip
    images = np.asarray(samples.signals)
    model.standardize.set([float(images.mean())], [float(images.std())])
    with torch.no_grad():
        for part in parts_of(model).values():
            part.width.fill_(1.0 if begin is None else begin)
    return model


def slope(model: GCNN, samples: ArraySamples, batches: int = 4) -> float:
    """Root mean square, over layers and batches, of the derivatives of the loss with respect to the widths.

    Batches hold every image upright and turned. The model is left as it was, but for its statistics.
    """
    images, labels = torch.from_numpy(np.asarray(samples.signals)), torch.as_tensor(np.asarray(samples.targets))
    pairs, model = len(images) // 2, model.cpu().train()
    widths = [part.width for part in parts_of(model).values()]
    found = []
    with torch.random.fork_rng(devices=[]):
        for seed in range(batches):
            torch.manual_seed(seed)
            upright = torch.randperm(pairs)[: BATCH // 2]
            batch = torch.cat([upright, upright + pairs])
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            found += [gradient.square().mean() for gradient in torch.autograd.grad(loss, widths)]
    return float(torch.stack(found).mean().sqrt())


def slope_held(begin: float, seed: int, samples: ArraySamples, options: argparse.Namespace) -> float:
    """The slope once everything else has been trained with the widths held where they begin, for an epoch."""
    model = build(begin, seed, samples, options)
    for part in parts_of(model).values():
        part.width.requires_grad_(False)
    train(model, TASK, samples, recipe=recipe_of(1, seed, options), run=run_of(options))
    for part in parts_of(model).values():
        part.width.requires_grad_(True)
    return slope(model, samples)


def recipe_of(epochs: int, seed: int, options: argparse.Namespace) -> Recipe:
    return Recipe(epochs=epochs, batch_size=BATCH, lr=options.lr, warmup=0.1, seed=seed)


def run_of(options: argparse.Namespace) -> Run:
    return Run(device="cpu" if options.device == "cpu" else "auto", progress=True)


def measured(
    begin: float | None, seed: int, training: ArraySamples, test: ArraySamples, options: argparse.Namespace
) -> Result:
    """Train one network, and test it after every epoch."""
    slopes: tuple[float | None, float | None] = (None, None)
    if begin is not None:
        slopes = slope(build(begin, seed, training, options), training), slope_held(begin, seed, training, options)
    model, scores = build(begin, seed, training, options), []
    recipe = recipe_of(options.epochs, seed, options)

    def after(step: int, steps: int, loss: float) -> None:
        if step * recipe.epochs % steps == 0:  # the end of an epoch
            right = outputs_of(model, test).argmax(1).cpu().numpy() == np.asarray(test.targets)
            scores.append(float(right.mean()))
            widths = [round(part.widths[0].item(), 3) for part in parts_of(model).values()]
            print(
                f"begin {begin}, seed {seed}, epoch {len(scores)}: {loss:.4f}, {scores[-1]:.4f}, {widths}", flush=True
            )

    rows = train(model, TASK, training, recipe=recipe, run=run_of(options), report=after)
    return Result(
        "full" if begin is None else "partial",
        begin,
        seed,
        sum(parameter.numel() for parameter in model.parameters()),
        *slopes,
        scores,
        {name: part.widths[0].item() for name, part in parts_of(model).items()},
        sum(row["seconds"] for row in rows),
    )


def row(result: Result) -> list[str]:
    """The line of one result."""
    reached = [epoch for epoch, score in enumerate(result.scores, 1) if score >= 0.9]
    slopes = ["" if one is None else f"{one:.1e}" for one in (result.slope, result.slope_held)]
    return [
        result.network,
        "" if result.begin is None else f"{result.begin:g}",
        str(result.seed),
        f"{result.parameters:,}",
        *slopes,
        str(reached[0]) if reached else "not reached",
        f"{result.scores[-1]:.4f}",
        ", ".join(f"{width:.3f}" for width in result.widths.values()),
        f"{result.seconds:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the idx files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page and the JSON")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--begin", default="1,0.9,0.5", help="where widths begin, with commas in between")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--sampling", default="offset", choices=("offset", "grid"))
    parser.add_argument("--reduce", default="max", choices=("max", "mean"))
    parser.add_argument("--digits", type=int, help="only so many digits of each part, to try the script")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU that torch can use")
    training, test = (upright_and_turned(options.data, split, options.digits) for split in ("train", "test"))
    results: list[Result] = []
    for begin in (None, *map(float, options.begin.split(","))):
        results += [measured(begin, seed, training, test, options) for seed in range(options.seeds)]
    about = provenance(0) | {"command": called("mnist_6_180.py", options, parser), "device": options.device}
    about |= {"seed": ", ".join(map(str, range(options.seeds)))}
    told = ABOUT.format(**vars(options), images=len(training), tests=len(test))
    means = [
        f"- {name}: mean test accuracy {statistics.mean(one.scores[-1] for one in of_name):.4f}"
        for name, of_name in grouped(results).items()
    ]
    page = markdown("6 or 6 upside down: MNIST6-180", about, told, table(HEAD, [row(one) for one in results]),
                    "\n".join(means))  # fmt: skip
    write(options.out, "mnist_6_180", page, {"about": about, "results": [asdict(one) for one in results]})


def grouped(results: list[Result]) -> dict[str, list[Result]]:
    """The results by network and where its widths begin."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        name = result.network if result.begin is None else f"{result.network}, widths begin at {result.begin:g}"
        groups.setdefault(name, []).append(result)
    return groups


if __name__ == "__main__":
    main()
