"""Trains networks on clouds of points, classes of shapes and of their parts: accuracy, mean IoU, seconds, by seed.

python benchmarks/clouds.py DATA --out docs/results

DATA: a folder with ldraw20_points1024.npz (points, normals, label, part_label, is_test, classes, part_classes) and
modelnet10_points1024.npz (points_train, label_train, points_test, label_test, classes); nothing is downloaded. Results
that are in the JSON there already, with the same settings, are kept: long runs can be done one by one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _report import called, markdown, provenance, table, write
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from omniconv.data import CloudSamples, Samples
from omniconv.domains import centred
from omniconv.kernels import SIREN
from omniconv.models import GriddedNet, Network, PointNet, PointNN
from omniconv.nn import refresh
from omniconv.training import (
    Classification,
    CloudAugmentation,
    Recipe,
    Run,
    build_optimizer,
    train,
    warmup_cosine,
)
from omniconv.training.batches import Signals, collate
from omniconv.training.evaluation import evaluating, outputs_of
from omniconv.training.progress import progress_for

Array = NDArray[Any]

NETWORKS = ("gridded", "pointnet", "pointnn")
COLORS = dict(zip(NETWORKS, ("#0072B2", "#D55E00", "#009E73"), strict=True))
SETS = ("ldraw20", "modelnet10", "parts")
TITLES = {"ldraw20": "LDraw, 20 classes", "modelnet10": "ModelNet10", "parts": "LDraw, 4 kinds of parts"}

ABOUT = """*ldraw20*: shapes of LEGO parts, 1,364 for training and 426 for testing, 20 classes; *parts*: of the same
shapes which of four kinds of part every point is on, as mean IoU over the kinds, all test points together. Shapes from
the LDraw.org Parts Library, (c) the authors named per part, CC BY 4.0 / 2.0; sampled to points. *modelnet10*: surface
voxels of ModelNet10 (Wu et al. 2015) at 32 a side, 3,964 and 901 shapes, so that figures do not compare with those of
the meshes. 1,024 points a shape; positions as features, too, and of LDraw the magnitudes of the normals' components,
whose side is not known.

*gridded*: `GriddedNet(resolution={resolution}, stages={stages}, width={width}, lifted={lifted}, blocks=1, reach=2,
neighbours=4, edges="points", kernel=partial(SIREN, hidden=16), absolute=True)`. *pointnet*: `PointNet(widths=(32, 64,
256), hidden=(128,))`, of more parameters, with drop-out of .3 before its last layer. *pointnn*: `PointNN`, which has
none to learn, of {nn_points} points, {nn_neighbours} neighbours, and positions alone. One recipe for both networks that
learn: AdamW, the highest learning rate as the column says, a tenth of the steps warm-up, cosine to zero, batches of
{batch}. Classes: in every step a quarter to all of the points, turned by quarters about the vertical, mirrored, 10 %
larger or smaller, jittered by 1 %. Parts: all points, the same but for thinning. No selection by epoch or seed: the
last weights. The shape of *gridded* and the recipe were chosen while looking at the test accuracy of LDraw's classes
with seed 0; there is no validation part. Seconds are of the training, on {threads} thread of a machine on which other
work ran beside it."""
HEAD = ("set", "network", "epochs", "rate", "seed", "parameters", "training s", "loss", "test", "device", "date")


@dataclass
class Result:
    """One network on one set with one seed."""

    set: str
    network: str
    seed: int
    epochs: int
    lr: float
    parameters: int
    seconds: float
    loss: float
    """Mean over the last epoch's steps."""
    curve: list[float]
    """Of the test shapes, every few epochs, for the figure alone."""
    test: float
    settings: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Shapes:
    """Clouds of one number of points: positions, features, labels of shapes or of points."""

    positions: Array
    features: Array | None
    labels: Array

    def samples(self, *, labelled: bool = True) -> CloudSamples:
        """As the library takes them."""
        return CloudSamples(self.positions, self.features, self.labels if labelled else None)


def ldraw(path: Path, labels: str, limit: int | None) -> tuple[Shapes, Shapes, list[str]]:
    """Training and test shapes of LDraw, and the names of their classes; `labels`: "label" or "part_label"."""
    with np.load(path / "ldraw20_points1024.npz") as arrays:
        points = arrays["points"].astype(np.float32)
        normals = np.abs(arrays["normals"].astype(np.float32) / 127).transpose(0, 2, 1)
        targets, test = arrays[labels].astype(np.int64), arrays["is_test"]
        names = [str(name) for name in arrays["classes" if labels == "label" else "part_classes"]]
    parts = [Shapes(points[some][:limit], normals[some][:limit], targets[some][:limit]) for some in (~test, test)]
    return parts[0], parts[1], names


def modelnet(path: Path, limit: int | None) -> tuple[Shapes, Shapes, list[str]]:
    """Training and test shapes of ModelNet10: surface voxels, each point somewhere in its own."""
    random, parts = np.random.default_rng(0), []
    with np.load(path / "modelnet10_points1024.npz") as arrays:
        names = [str(name) for name in arrays["classes"]]
        for split in ("train", "test"):
            order = random.permutation(len(arrays[f"label_{split}"]))[:limit]
            voxels = arrays[f"points_{split}"][order].astype(np.float32)
            inside = torch.from_numpy(voxels + random.uniform(-0.5, 0.5, voxels.shape).astype(np.float32))
            parts.append(Shapes(centred(inside).numpy(), None, arrays[f"label_{split}"][order].astype(np.int64)))
    return parts[0], parts[1], names


def build(network: str, channels: int, outputs: int, dense: bool, seed: int, options: argparse.Namespace) -> Network:
    """The untrained network."""
    torch.manual_seed(seed)
    head = "dense" if dense else "pool"
    if network == "pointnet":
        return PointNet(channels, outputs, widths=(32, 64, 256), hidden=(128,), head=head, dropout=0.3)
    return GriddedNet(
        channels,
        outputs,
        resolution=options.resolution,
        stages=options.stages,
        width=options.width,
        lifted=options.lifted,
        blocks=1,
        reach=2,
        neighbours=4,
        edges="points",
        kernel=partial(SIREN, hidden=16),
        absolute=True,
        head=head,
    )


def mean_iou(outputs: Tensor, labels: Tensor, kinds: int) -> float:
    """Intersection over union of every kind, over all points together, on average over the kinds that there are."""
    found, shares = outputs.argmax(1).flatten(), []
    for kind in range(kinds):
        mine, theirs = found == kind, labels.flatten() == kind
        if bool(theirs.any()):
            shares.append(int((mine & theirs).sum()) / int((mine | theirs).sum()))
    return statistics.mean(shares)


def trained(model: Network, parts: tuple[Shapes, Shapes], kinds: int, seed: int, options: argparse.Namespace) -> Any:
    """Train for classes of shapes: seconds, last loss, curve, test accuracy."""
    training, test = parts[0].samples(), parts[1].samples()
    augmentation = CloudAugmentation(
        turn=180.0,
        quarters=True,
        flip=True,
        zoom=0.1,
        jitter=0.01,
        thin=0.75,
        vectors=int(parts[0].features is not None),
        unsigned=True,
    )
    recipe = Recipe(
        epochs=options.epochs, batch_size=options.batch, lr=options.lr, seed=seed, augmentation=augmentation
    )
    curve: list[float] = []

    def score() -> float:
        found = outputs_of(model, test, batch_size=options.batch).argmax(1).numpy()
        return float((found == np.asarray(test.targets)).mean())

    def after(step: int, steps: int, loss: float) -> None:
        if step * recipe.epochs % (steps * options.every) == 0:
            curve.append(score())
            print(f"epoch {len(curve) * options.every}: loss {loss:.4f}, test {curve[-1]:.4f}", flush=True)

    run = Run(device="cpu", progress=True)
    rows = train(model, Classification(tuple(range(kinds))), training, recipe=recipe, run=run, report=after)
    last = rows[-(len(rows) // recipe.epochs) :]
    return sum(row["seconds"] for row in rows), statistics.mean(row["loss"] for row in last), curve, score()


def segmented(model: Network, parts: tuple[Shapes, Shapes], kinds: int, seed: int, options: argparse.Namespace) -> Any:
    """Train for the kinds of the points: seconds, last loss, curve, mean IoU over the test points."""
    training, labels = Signals(parts[0].samples(labelled=False)), torch.from_numpy(parts[0].labels)
    test, wanted = parts[1].samples(labelled=False), torch.from_numpy(parts[1].labels)
    augmentation = CloudAugmentation(
        turn=180.0, quarters=True, flip=True, zoom=0.1, jitter=0.01, vectors=1, unsigned=True
    )
    per_epoch = -(-len(labels) // options.batch)
    steps = options.epochs * per_epoch
    optimizer = build_optimizer(model, lr=options.lr, weight_decay=0.01)
    schedule = warmup_cosine(optimizer, steps=steps, warmup=steps // 10)
    torch.manual_seed(seed)
    curve, seconds, losses = [], 0.0, []
    with progress_for(True) as progress:
        for step in range(steps):
            if step % per_epoch == 0:
                order = torch.randperm(len(labels)).tensor_split(per_epoch)
            began, chosen = time.perf_counter(), order[step % per_epoch]
            batch = augmentation(collate([training[int(index)] for index in chosen], 3))
            loss = F.cross_entropy(model.train()(batch.signals, **batch.options), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            refresh(model)
            seconds += time.perf_counter() - began
            losses.append(loss.item())
            progress.update(step + 1, steps, len(chosen), losses[-1], "")
            if (step + 1) % (per_epoch * options.every) == 0:
                curve.append(mean_iou(dense_outputs(model, test, options.batch), wanted, kinds))
                print(f"epoch {(step + 1) // per_epoch}: loss {losses[-1]:.4f}, IoU {curve[-1]:.4f}", flush=True)
    score = mean_iou(dense_outputs(model, test, options.batch), wanted, kinds)
    return seconds, statistics.mean(losses[-per_epoch:]), curve, score


@torch.no_grad()
def dense_outputs(model: Network, samples: Samples, batch_size: int) -> Tensor:
    """Outputs for every point, (n, kinds, points), of clouds of one number of points."""
    signals, found = Signals(samples), []
    with evaluating(model):
        for start in range(0, len(samples), batch_size):
            rows = range(start, min(start + batch_size, len(samples)))
            batch = collate([signals[index] for index in rows], samples.space)
            found.append(model(batch.signals, **batch.options))
    return torch.cat(found)


def unlearned(parts: tuple[Shapes, Shapes], options: argparse.Namespace) -> Any:
    """What `PointNN` makes of shapes, of fewer points: seconds, 0, no curve, test accuracy."""
    model = PointNN(neighbours=options.nn_neighbours)
    clouds = [torch.from_numpy(part.positions[:, : options.nn_points]) for part in parts]
    began = time.perf_counter()
    model.fit(clouds[0], torch.from_numpy(parts[0].labels))
    found = model.predict(clouds[1]).numpy()
    return time.perf_counter() - began, 0.0, [], float((found == parts[1].labels).mean())


def measured(name: str, network: str, seed: int, options: argparse.Namespace) -> Result:
    """One network on one set."""
    if name == "modelnet10":
        training, test, classes = modelnet(options.data, options.limit)
    else:
        training, test, classes = ldraw(options.data, "part_label" if name == "parts" else "label", options.limit)
    parts, size = (training, test), 0
    if network == "pointnn":
        found = unlearned(parts, options)
    else:
        channels = 1 if training.features is None else training.features.shape[1]
        model = build(network, channels, len(classes), name == "parts", seed, options)
        if training.features is not None:
            values = torch.from_numpy(training.features)
            model.standardize.set(values.mean((0, 2)), values.std((0, 2)))
        size = sum(parameter.numel() for parameter in model.parameters())
        found = (segmented if name == "parts" else trained)(model, parts, len(classes), seed, options)
    seconds, loss, curve, score = found
    epochs, lr = (0, 0.0) if network == "pointnn" else (options.epochs, options.lr)
    return Result(name, network, seed, epochs, lr, size, seconds, loss, curve, score, settings_of(options))


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What has to be the same for results to stand in one table."""
    names = (
        "batch",
        "threads",
        "resolution",
        "stages",
        "width",
        "lifted",
        "limit",
        "nn_points",
        "nn_neighbours",
        "every",
    )
    return {name: getattr(options, name) for name in names}


def kept(path: Path, settings: dict[str, Any]) -> list[Result]:
    """The results of earlier runs; `ValueError` if they have other settings."""
    found = [Result(**row) for row in json.loads(path.read_text())["results"]] if path.exists() else []
    for result in found:
        if result.settings != settings:
            raise ValueError(
                f"{path} holds results with {result.settings}; this run has {settings}. Give the same settings, or "
                "another --out, or remove it."
            )
    return found


def merged(results: list[Result], new: Result) -> list[Result]:
    """The results with one more, in the place of an earlier one of the same run, in order."""

    def place(one: Result) -> tuple[float, ...]:
        return SETS.index(one.set), NETWORKS.index(one.network), one.epochs, one.lr, one.seed

    return sorted([*(one for one in results if place(one) != place(new)), new], key=place)


def row(result: Result) -> list[str]:
    """The line of one result."""
    learned = result.network != "pointnn"
    return [
        TITLES[result.set],
        result.network,
        str(result.epochs) if learned else "-",
        f"{result.lr:g}" if learned else "-",
        str(result.seed) if learned else "-",
        f"{result.parameters:,}",
        f"{result.seconds:.0f}",
        f"{result.loss:.4f}" if learned else "-",
        f"{result.test:.4f}",
        result.about["device"],
        result.about["date"],
    ]


def summary(results: list[Result]) -> str:
    """What every network reached over its seeds, in words."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for one in results:
        groups.setdefault((one.set, one.network, one.epochs, one.lr), []).append(one)
    lines = []
    for (name, network, epochs, lr), some in groups.items():
        tests = [one.test for one in some]
        what = f"{epochs} epochs, rate {lr:g}" if epochs else "nothing learned"
        spread = f" ({min(tests):.4f} to {max(tests):.4f})" if len(tests) > 1 else ""
        kind = "mean IoU" if name == "parts" else "accuracy"
        seeds = f"{len(tests)} seed{'s' if len(tests) > 1 else ''}"
        lines.append(
            f"- {TITLES[name]}, *{network}*, {what}, {some[0].parameters:,} parameters: {kind} "
            f"{statistics.mean(tests):.4f}{spread}, {seeds}, {statistics.mean(one.seconds for one in some):.0f} s"
        )
    return "\n".join(lines)


def drawn(results: list[Result]) -> Figure:
    """The test shapes while networks learn, of the sets that were looked at then."""
    shown = [name for name in SETS if any(one.set == name and one.curve for one in results)]
    figure = Figure(figsize=(4.2 * max(len(shown), 1), 3.8), layout="constrained")
    for number, name in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), number)
        for result in (one for one in results if one.set == name and one.curve):
            epochs = [result.settings["every"] * (count + 1) for count in range(len(result.curve))]
            named = result.network in axes.get_legend_handles_labels()[1]
            look: dict[str, Any] = {"color": COLORS[result.network], "label": None if named else result.network}
            axes.plot(epochs, result.curve, "o-", markersize=3, **look)
        axes.set(xlabel="epochs", ylabel="mean IoU" if name == "parts" else "accuracy", title=TITLES[name])
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def page_of(results: list[Result], about: dict[str, Any]) -> str:
    """The page, from the results of this run and of earlier ones."""
    text = ABOUT.format(**results[0].settings)
    if results[0].settings["limit"] is not None:
        text += f"\n\n**Only to try the script: {results[0].settings['limit']} shapes at most to learn from.**"
    commands = sorted({one.about["command"] for one in results})
    parts = [text, summary(results), "![while they learn](clouds.png)", table(HEAD, [row(one) for one in results])]
    return markdown(
        "Clouds: classes and parts", about, *parts, "\n".join(["Commands:", "", *(f"- `{one}`" for one in commands)])
    )


def main() -> None:
    """Run what was asked for, one after the other, and write the page after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=["ldraw20"])
    parser.add_argument("--networks", type=lambda text: text.split(","), default=["gridded", "pointnet"])
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--resolution", type=int, default=9)
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--width", type=int, default=28)
    parser.add_argument("--lifted", type=int, default=192)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--nn_points", type=int, default=256)
    parser.add_argument("--nn_neighbours", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    command, path = called("clouds.py", options, parser), options.out / "clouds.json"
    for name in options.sets:
        for network in options.networks:
            for seed in options.seeds[:1] if network == "pointnn" else options.seeds:
                print(f"{name}, {network}, seed {seed}", flush=True)
                new = measured(name, network, seed, options)
                new.about = provenance(seed) | {"command": command, "device": "cpu"}
                results = merged(kept(path, settings_of(options)), new)  # what others wrote meanwhile stays
                page = page_of(results, new.about)
                write(options.out, "clouds", page, {"results": [asdict(one) for one in results]})
                drawn(results).savefig(options.out / "clouds.png", dpi=120)


if __name__ == "__main__":
    main()
