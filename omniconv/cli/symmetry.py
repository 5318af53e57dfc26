"""`omniconv symmetry`: by how much the images of a data set are turned."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from omniconv._errors import check_integer, require
from omniconv.cli._output import check_file, check_folder, console, facts, lines
from omniconv.data import Samples, read
from omniconv.symmetry import Compared, Family, Symmetries, Uniform, find_symmetries
from omniconv.symmetry.found import OWN, brought_down
from omniconv.training.loading import read_sample
from omniconv.training.predictor import chosen_device

FAMILIES: dict[str, Family] = {kind.__name__.lower(): kind() for kind in OWN}

ROWS_FILE = "poses.csv"
TRAINING = ("family", "neighbours", "epochs", "batch_size", "lr", "centring", "resolution")
"""Options that mean something only where symmetries are found."""

ALL_ROUND = math.radians(150)
"""Median half width from which a network on the rotations is proposed: all angles occur."""

ROWS = 256
"""Images that are turned back at a time."""

CLASSES = 20
"""So many classes are shown at most."""


@dataclass(frozen=True)
class Symmetry:
    """Find by how much the images of a data set are turned, each beside others of its kind, without their labels.

    Writes what was found into a folder: a row for every image, a figure, and the network, with which `--known` tells
    of other images whether they are turned farther than their like.
    """

    data: Annotated[str, tyro.conf.Positional]
    """Any source of images that `omniconv fit` understands, all of one size; labels are only shown beside."""

    out: Path
    """Folder for what is found."""

    known: Path | None = None
    """Folder that this command wrote for other images: compare these with them, and learn nothing."""

    split: Literal["train", "valid", "test"] = "train"
    """Part of the data."""

    target: str | None = None
    """Column or array that holds the targets, where the file has names: it is no signal."""

    corrupt: Literal["raise", "skip"] = "raise"
    """What becomes of files in a folder that cannot be read."""

    limit: int = 10_000
    """Images that are looked at, drawn with the seed."""

    family: Literal["auto", "uniform", "gaussian", "cyclic"] = "auto"
    """How angles are distributed: uniform up to a largest, gaussian about upright, or cyclic, multiples of a part of a
    turn; auto takes what makes them most likely."""

    neighbours: int = 45
    """Images like it from which the level of an image is estimated."""

    epochs: int = 40
    """Passes over the images."""

    batch_size: int = 128
    """Images per step."""

    lr: float = 0.003
    """Highest learning rate."""

    centring: float = 0.6
    """Weight with which poses are drawn to the centre of their kind."""

    resolution: int = 28
    """Samples along the longer axis to which larger images are brought down to find poses."""

    seed: int = 0
    """Of the images that are drawn, the weights and the order of the batches."""

    device: Literal["auto", "cpu"] = "auto"
    """Where to learn; auto takes an accelerator that has float64, if there is one."""

    standardized: Path | None = None
    """Also write the images turned back by their poses, with their targets, to this .npz file."""

    def run(self) -> None:
        """Read, find or compare, write, tell."""
        self.check()
        samples = self.read()
        known = None if self.known is None else Symmetries.load(self.known)
        check_images(samples, self.data)
        x = small(samples, self.resolution if known is None else max(known.model.size))
        found = self.find(x) if known is None else known
        compared = None if known is None else known.compare(x)
        self.write(samples, x, found, compared)
        levels, excess = (found.levels, None) if compared is None else (compared.levels, compared.excess)
        self.tell(samples, found, levels, excess)

    def check(self) -> None:
        """Raise for what would fail after the training, and for what does not go together."""
        for name in ("config.json", ROWS_FILE):
            if (self.out / name).exists():
                raise ValueError(f"{self.out} holds a {name} already. Give another --out.")
        check_folder("--out", self.out)
        self.check_options()
        require("pandas", extra="data", purpose="writing CSV files")
        if self.standardized is not None:
            if self.standardized.suffix != ".npz" or self.standardized.exists():
                raise ValueError(f"`--standardized` must be a new file that ends in .npz; got {self.standardized}.")
            check_file("--standardized", self.standardized)

    def write(self, samples: Samples, x: Tensor, found: Symmetries, compared: Compared | None) -> None:
        """All files."""
        self.out.mkdir(parents=True, exist_ok=True)
        if compared is None:
            found.save(self.out)
        poses, levels = (found.poses, found.levels) if compared is None else (compared.poses, compared.levels)
        excess = None if compared is None else compared.excess
        write_rows(self.out / ROWS_FILE, samples, found.family, poses, levels, excess)
        draw(self.out / "symmetry.png", found, x, compared)
        if self.standardized is not None:
            self.standardized.parent.mkdir(parents=True, exist_ok=True)
            arrays: dict[str, Any] = {"x": turned_back(found, samples)}
            if samples.targets is not None:
                arrays["y"] = samples.targets
            np.savez(self.standardized, **arrays)

    def check_options(self) -> None:
        """Raise for options of a training where there is none."""
        changed = [
            f"--{field.name.replace('_', '-')}"
            for field in fields(self)
            if field.name in TRAINING and getattr(self, field.name) != field.default
        ]
        if self.known is not None and changed:
            raise ValueError(f"`--known` learns nothing, and takes no {', '.join(changed)}. Leave out.")

    def read(self) -> Samples:
        """The images, or some of them."""
        samples = read(self.data, split=self.split, target=self.target, corrupt=self.corrupt)
        if check_integer("--limit", self.limit) >= len(samples):
            return samples
        drawn = np.random.default_rng(self.seed).choice(len(samples), self.limit, replace=False)
        return samples.subset(np.sort(drawn))

    def find(self, x: Tensor) -> Symmetries:
        """The symmetries, under a progress bar."""
        rich: Any = require("rich.progress", extra="cli", purpose="the progress bar")
        with rich.Progress(
            *rich.Progress.get_default_columns(), "loss {task.fields[loss]:.4f}", console=console()
        ) as bar:
            task = bar.add_task("finding poses", total=None, loss=math.nan)
            return find_symmetries(
                x,
                family=FAMILIES.get(self.family),
                neighbours=self.neighbours,
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                centring=self.centring,
                resolution=self.resolution,
                seed=self.seed,
                device=learning_device(self.device),
                progress=lambda done, total, loss: bar.update(task, completed=done, total=total, loss=loss),
            )

    def tell(self, samples: Samples, found: Symmetries, levels: Tensor, excess: Tensor | None) -> None:
        """What was found, and what to do with it."""
        out = console()
        out.print(facts(escape(f"{len(samples):,} images of {self.data}"), told(found, levels, excess)))
        if samples.targets is not None and samples.targets.dtype.kind != "f":
            out.print(by_class(np.asarray(samples.targets), found.family, levels, excess))
        out.print(f"A row for every image, and a figure, are in [bold]{escape(str(self.out))}/[/].")
        if self.known is None and isinstance(found.family, Uniform) and levels[:, 0].median() > ALL_ROUND:
            out.print(
                "Images stand at every angle: `omniconv fit --group SO2` makes a network to which that is all one."
            )
        if self.known is None:
            out.print(escape(f"  omniconv symmetry OTHER --known {self.out} --out FOLDER"), soft_wrap=True)


def escape(text: str) -> str:
    """Text without what would be markup in it."""
    module: Any = require("rich.markup", extra="cli", purpose="the command omniconv")
    return str(module.escape(text))


def learning_device(name: str) -> torch.device:
    """The device by its name; rotations are made in float64, which some accelerators have not."""
    device = chosen_device(name)
    return torch.device("cpu") if device.type == "mps" else device


def check_images(samples: Samples, data: str) -> None:
    """Raise unless these are images of one size."""
    if samples.dim != 2 or samples.space or not samples.equal:
        sizes = " x ".join(map(str, samples.sizes[0])) if samples.equal else "several sizes"
        kind = "a cloud" if samples.space else f"{samples.dim} axes, {sizes}"
        raise ValueError(f"`omniconv symmetry` takes images of one size; {data} holds signals of {kind}.")


def image(samples: Samples, index: int) -> Tensor:
    """One image, (1, channels, height, width)."""
    return torch.from_numpy(read_sample(samples.__getitem__, samples, index))[None]


def small(samples: Samples, resolution: int) -> Tensor:
    """All images at this resolution, (n, channels, height, width)."""
    return torch.cat([brought_down(image(samples, i), resolution) for i in range(len(samples))])


def turned_back(found: Symmetries, samples: Samples) -> Any:
    """All images as they are, but turned back by their poses, some at a time."""
    parts = np.array_split(np.arange(len(samples)), -(-len(samples) // ROWS))
    turned = [found.standardize(torch.cat([image(samples, int(i)) for i in part])) for part in parts]
    return torch.cat(turned).numpy()


def write_rows(
    path: Path, samples: Samples, family: Family, poses: Tensor, levels: Tensor, excess: Tensor | None
) -> None:
    """A row for every image; angles in degrees."""
    pandas: Any = require("pandas", extra="data", purpose="writing CSV files")
    columns: dict[str, Any] = {"name": np.asarray(samples.names)}
    if samples.targets is not None:
        columns["target"] = samples.targets
    columns["pose_degrees"] = torch.rad2deg(poses[:, 0]).numpy().round(2)
    *others, angle = (name.replace(" ", "_") for name in family.numbers)
    columns |= {name: levels[:, i].numpy() for i, name in enumerate(others)}
    columns[f"{angle}_degrees"] = torch.rad2deg(levels[:, -1]).numpy().round(2)
    if excess is not None:
        columns["excess_degrees"] = torch.rad2deg(excess).numpy().round(2)
    pandas.DataFrame(columns).to_csv(path, index=False)


def draw(path: Path, found: Symmetries, x: Tensor, compared: Compared | None) -> None:
    """The figure, where matplotlib is installed."""
    try:
        found.figure(x, compared).savefig(path, dpi=120)
    except ImportError as error:
        warnings.warn(f"No figure was drawn. {error}", stacklevel=2)


def told(found: Symmetries, levels: Tensor, excess: Tensor | None) -> dict[str, str]:
    """What was found, for people."""
    evidence = ", ".join(f"{name} {value:.2f}" for name, value in found.evidence.items())
    chosen = type(found.family).__name__.lower()
    rows = {"angles": chosen, "evidence": f"{evidence}; in nats per angle, without --family the largest wins"}
    rows["images are turned"] = found.family.tell(middle(levels))
    if excess is not None:
        rows["turned farther than their like"] = f"{(excess > 0).float().mean():.1%}"
    return rows


def middle(levels: Tensor) -> Tensor:
    """The level in the middle of several, (numbers,): by its last number, among those whose first is the commonest."""
    if levels.shape[1] > 1:
        levels = levels[levels[:, 0] == levels[:, 0].mode().values]
    return levels[levels[:, -1].argsort()[(len(levels) - 1) // 2]]


def by_class(targets: Any, family: Family, levels: Tensor, excess: Tensor | None) -> Any:
    """A table of levels by class, the largest classes first where there are many."""
    names, inverse, counts = np.unique(targets, return_inverse=True, return_counts=True)
    order = sorted(np.argsort(-counts, kind="stable")[:CLASSES])
    rows = []
    for which in order:
        mine = torch.from_numpy(inverse == which)
        foreign = [] if excess is None else [f"{(excess[mine] > 0).float().mean():.1%}"]
        rows.append([escape(str(names[which])), f"{counts[which]:,}", family.tell(middle(levels[mine])), *foreign])
    title = "By class" if len(names) <= CLASSES else f"The {CLASSES} largest of {len(names)} classes"
    return lines(title, ["class", "images", "turned", *([] if excess is None else ["farther than their like"])], rows)
