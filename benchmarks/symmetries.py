"""How well symmetries are found without labels: MNIST digits turned as is known, and what turning them back is worth.

python benchmarks/symmetries.py DATA --out docs/results
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import called, markdown, provenance, table, write
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import confusion_matrix, roc_auc_score
from torch import Tensor

from omniconv.data import load_mnist
from omniconv.groups import SO2, transform
from omniconv.symmetry import Cyclic, Family, Gaussian, Symmetries, Uniform, find_symmetries
from omniconv.symmetry.cyclic import distance
from omniconv.training.progress import progress_for

TOLERANCE = math.radians(5.0)
"""From a multiple of their part of a turn, test digits of a cyclic set are foreign beyond this."""
CLASSES, BATCH = 10, 128

ABOUT = """MNIST digits, {train:,} for training, each turned by an angle that is drawn as its class has it; the method
is told neither classes nor angles. `find_symmetries` with its defaults, but with the family of distributions that the
set has; *likeliest* is the one of the three that it would have chosen by itself. The digits are slanted as people
write, which no set counts among its angles and a level includes: what is never turned, as the zeros of "multiple" and
"gaussian", has one too.

*level*: the mean absolute error of the estimated half widths or deviations in degrees, over all digits; of cyclic sets
the share of digits whose order is right. *foreign*: {test:,} other digits turned by any angle; which of them lie beyond
the angles of their class is to be told, from the excess over the estimated level (accuracy, and the area under the ROC
curve). Beyond means above the half width, above 1 deviation ("gaussian": levels and truths are what the paper takes),
or more than 5 degrees from a multiple. *clusters*: k-means with {classes} clusters on the pixels, matched with the
classes, as they are and turned back (accuracy). Last, what Urbano and Romero 2024 (arXiv:2312.12223) print for their
method on 48,000 digits after 400 epochs: foreign, and k-means as the digits are and turned back."""
HEAD = ("set", "family", "likeliest", "level", "foreign, accuracy", "AUROC", "clusters", "turned back", "minutes",
        "paper: foreign", "clusters", "turned back")  # fmt: skip

Draw = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Of classes, the angles (n,) that are drawn for them, in radians, and what level is right."""


@dataclass(frozen=True)
class Case:
    """A set: how it is turned, and what is known of it. `paper`: foreign, clusters and clusters turned back."""

    name: str
    family: Family
    draw: Draw
    paper: tuple[str, str, str]


def uniformly(degrees: Callable[[Tensor], Tensor]) -> Draw:
    """Uniform angles up to a half width in degrees that depends on the class."""

    def draw(classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        half = torch.deg2rad(degrees(classes).float())
        return (2 * torch.rand(len(classes), generator=generator) - 1) * half, half

    return draw


def normally(classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normal angles whose deviation is 9 degrees times the class."""
    deviation = torch.deg2rad(9.0 * classes)
    return torch.randn(len(classes), generator=generator) * deviation, deviation


def by_parts(classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Multiples of half a turn for the classes below 5, of a quarter turn for the others."""
    order = torch.where(classes < CLASSES // 2, 2, 4)
    which = (torch.rand(len(classes), generator=generator) * order).floor()
    return 2 * math.pi / order * which, order.float()


CASES = (
    Case("60", Uniform(), uniformly(lambda c: torch.full_like(c, 60)), ("92.4", ".373", ".713")),
    Case("60-90", Uniform(), uniformly(lambda c: torch.where(c < CLASSES // 2, 60, 90)), ("90.9", ".336", ".710")),
    Case("multiple", Uniform(), uniformly(lambda c: 18 * c), ("89.2", ".408", ".669")),
    Case("gaussian", Gaussian(), normally, ("83.7", ".425", ".626")),
    Case("cyclic", Cyclic(), by_parts, ("82.5", ".402", ".599")),
    Case("all", Uniform(), uniformly(lambda c: torch.full_like(c, 180)), ("-", ".302", ".609")),
)


@dataclass
class Result:
    """One set. `level`: the mean absolute error in degrees, or of a cyclic set the share of right orders."""

    name: str
    family: str
    likeliest: str
    level: float
    by_class: list[float]
    """The median level of each class, in degrees, or the commonest order."""
    right: list[float]
    foreign: float | None
    auroc: float | None
    clusters: float
    turned_back: float
    seconds: float


def measured(case: Case, x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, options: argparse.Namespace) -> Result:
    """Turn the digits, find how, and see what it is worth."""
    generator = torch.Generator().manual_seed(options.seed)
    angles, right = case.draw(y, generator)
    turned = transform(x, SO2(), angles[:, None])
    begin = time.perf_counter()
    with progress_for(True) as progress:
        found = find_symmetries(
            turned,
            family=case.family,
            epochs=options.epochs,
            batch_size=BATCH,
            seed=options.seed,
            progress=lambda done, total, loss: progress.update(done, total, BATCH, loss, case.name),
        )
    seconds = time.perf_counter() - begin
    foreign, auroc = told_apart(case, found, test_x, test_y, generator)
    levels, order = found.levels[:, 0], isinstance(case.family, Cyclic)
    error = (levels == right).float().mean() if order else torch.rad2deg((levels - right).abs()).mean()
    shown = levels if order else torch.rad2deg(levels)
    result = Result(
        name=case.name,
        family=type(case.family).__name__.lower(),
        likeliest=max(found.evidence, key=lambda name: found.evidence[name]).lower(),
        level=error.item(),
        by_class=[shown[y == c].median().item() for c in range(CLASSES)],
        right=[(right if order else torch.rad2deg(right))[y == c].median().item() for c in range(CLASSES)],
        foreign=foreign,
        auroc=auroc,
        clusters=clustered(turned, y, options.seed),
        turned_back=clustered(found.standardize(turned), y, options.seed),
        seconds=seconds,
    )
    print(asdict(result), flush=True)
    return result


def told_apart(
    case: Case, found: Symmetries, x: Tensor, y: Tensor, generator: torch.Generator
) -> tuple[float | None, float | None]:
    """How well digits turned by any angle are told from those that are turned as their class is."""
    angles = (2 * torch.rand(len(x), generator=generator) - 1) * math.pi
    _, right = case.draw(y, generator)
    _, poses, level, _ = found.compare(transform(x, SO2(), angles[:, None]))
    if isinstance(case.family, Cyclic):
        beyond, excess = distance(angles, right) - TOLERANCE, distance(poses[:, 0], level[:, 0]) - TOLERANCE
    else:
        beyond, excess = angles.abs() - right, poses[:, 0].abs() - level[:, 0]
    wrong = beyond > 0
    if bool(wrong.all()) or not bool(wrong.any()):
        return None, None
    return ((excess > 0) == wrong).float().mean().item(), float(roc_auc_score(wrong, excess))


def clustered(x: Tensor, y: Tensor, seed: int) -> float:
    """The accuracy of k-means on pixels, with clusters matched to classes one by one."""
    given: Any = KMeans(CLASSES, n_init=10, random_state=seed).fit_predict(x.flatten(1).numpy())
    counts = confusion_matrix(y.numpy(), given)
    rows, columns = linear_sum_assignment(-counts)
    return float(counts[rows, columns].sum() / counts.sum())


def row(case: Case, one: Result) -> list[str]:
    """A line of the table."""
    level = f"{one.level:.1%} right" if isinstance(case.family, Cyclic) else f"{one.level:.1f}"
    foreign = ["-", "-"] if one.foreign is None else [f"{one.foreign:.1%}", f"{one.auroc:.3f}"]
    clusters = [f"{one.clusters:.3f}", f"{one.turned_back:.3f}"]
    return [one.name, one.family, one.likeliest, level, *foreign, *clusters, f"{one.seconds / 60:.1f}", *case.paper]


def levels(results: list[Result]) -> str:
    """The levels by class, beside the right ones."""
    rows = []
    for one in results:
        rows.append([one.name, "right", *(f"{value:.0f}" for value in one.right)])
        rows.append(["", "found", *(f"{value:.0f}" for value in one.by_class)])
    return table(("set", "", *map(str, range(CLASSES))), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the four files of MNIST")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page and the JSON")
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="+", default=[case.name for case in CASES], choices=[c.name for c in CASES])
    options = parser.parse_args()
    (x, y), (test_x, test_y) = (part(options.data, split) for split in ("train", "test"))
    cases = [case for case in CASES if case.name in options.sets]
    digits = x[: options.train], y[: options.train], test_x[: options.test], test_y[: options.test]
    results = [measured(case, *digits, options) for case in cases]
    about = provenance(options.seed) | {"command": called("symmetries.py", options, parser)}
    told = ABOUT.format(**vars(options), classes=CLASSES)
    rows = [row(case, one) for case, one in zip(cases, results, strict=True)]
    by_class = "The median level of each class, in degrees; of the cyclic set the order:\n\n" + levels(results)
    page = markdown("Symmetries of a data set", about, told, table(HEAD, rows), by_class)
    write(options.out, "symmetries", page, {"about": about, "results": [asdict(one) for one in results]})


def part(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Digits (n, 1, 28, 28) from 0 to 1, and their classes."""
    samples = load_mnist(folder, split=split)
    images = np.stack([samples[i] for i in range(len(samples))])
    return torch.from_numpy(images), torch.from_numpy(np.asarray(samples.targets, dtype=np.int64))


if __name__ == "__main__":
    main()
