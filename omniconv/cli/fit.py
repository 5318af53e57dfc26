"""`omniconv fit`: from files to a trained network."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from omniconv import plots
from omniconv._errors import Interrupted, check_integer, require
from omniconv._files import write_whole
from omniconv.cli._config import write_options
from omniconv.cli._output import check_folder, console, facts, is_first_process
from omniconv.data import Samples, has_split, read, without_gaps
from omniconv.data.clouds import check_vectors
from omniconv.models import GriddedNet
from omniconv.training import (
    Architecture,
    Classification,
    CloudAugmentation,
    Predictor,
    Recipe,
    Run,
    Task,
    choose,
    fit,
    infer_task,
)
from omniconv.training.architecture import with_given
from omniconv.training.batches import Signals, collate
from omniconv.training.checkpoints import list_checkpoints
from omniconv.training.fitting import described_sizes, split
from omniconv.training.groups import symmetry_of
from omniconv.training.interrupts import raising_interrupts
from omniconv.training.logs import read_log
from omniconv.training.processes import disconnect

OPTIONS = "run.toml"


@dataclass(frozen=True)
class Fit:
    """Train a network on any source of labelled signals; write it, its record and its checkpoints into a folder.

    Options that are left out are chosen from the size of the data, and printed. `--config FILE` reads options from a
    TOML file, such as the run.toml that every run writes; what is on the command line goes before it.
    """

    data: Annotated[str, tyro.conf.Positional]
    """A file (.npz, .npy, .csv, .parquet, .ts), a folder (of images, audio, volumes, clouds, MNIST, CIFAR-10), or a
    name such as aeon:GunPoint or sklearn:digits."""

    out: Path
    """Folder for the run; it must not hold another one."""

    target: str | None = None
    """Column or array that holds the targets, where the file has names."""

    task: Literal["auto", "classification", "regression"] = "auto"
    """What to learn; auto takes targets with fractions as numbers, everything else as labels."""

    limit: int | None = None
    """Train on so many samples, drawn with the seed, every class with its share."""

    corrupt: Literal["raise", "skip"] = "raise"
    """What becomes of files in a folder that cannot be read."""

    missing: Literal["raise", "interpolate", "mean", "absent"] = "raise"
    """What NaN means: an error, a gap to interpolate in time, the mean of the channel, or not observed at that time."""

    validation: float = 0.0
    """Share of the training samples that chooses the best epoch; 0 trains on all of them."""

    effort: Literal["quick", "standard", "strong"] = "standard"
    """How large a network and how long a training to choose."""

    blocks: int | None = None
    """Residual blocks; of clouds of points shared out evenly over the lattices, rounded up."""

    width: int | None = None
    """Channels in the blocks."""

    support_width: float | None = None
    """Initial width of the learned supports, in samples."""

    bandwidth: float | None = None
    """Highest frequency of the kernels' first layer, as a share of the Nyquist frequency; without it 0.25, on a group
    0.5."""

    causal: bool = False
    """Whether every output may depend on the past only."""

    head: Literal["pool", "last"] = "pool"
    """What the outputs are read from: the mean over positions, or the last position."""

    dropout: float = 0.1
    """Share of values that drop-out removes."""

    resolution: int | None = None
    """Nodes per axis of the lattice that clouds of points are carried to."""

    group: Literal["SO2", "O2", "SO3"] | None = None
    """Transformations that are to change nothing that is predicted, of signals of one size: SO2 (rotations of images),
    O2 (reflections too) or SO3 (rotations of volumes)."""

    group_samples: int | None = None
    """Elements of the group; without it 8 of SO2, 16 of O2, 24 of SO3. Quarter turns are exact in a multiple of 4 of
    SO2, of 8 of O2, and in 24 of SO3."""

    turn: float = 0.0
    """Clouds of points: largest angle, in degrees, by which they are turned about their last axis in training."""

    flip: bool = False
    """Clouds of points: whether they are mirrored in training, along every axis but the last."""

    vectors: int | None = None
    """Clouds of points: how many features, of a channel per axis, the first ones, are vectors that turn with a cloud;
    without it those that the reader knows of, such as the normals of surfaces."""

    zoom: float = 0.0
    """Clouds of points: largest share by which they are made larger or smaller in training."""

    jitter: float = 0.0
    """Clouds of points: deviation of what is added to positions in training, as a share of the largest coordinate."""

    thin: float = 0.0
    """Clouds of points: largest share of the points that is left out in training, others in every step."""

    epochs: int | None = None
    """Passes over the training samples."""

    batch_size: int | None = None
    """Samples per step and process."""

    accumulate: int = 1
    """Parts in which a batch is computed one after the other, to save memory."""

    lr: float = 0.01
    """Highest learning rate."""

    weight_decay: float = 0.01
    """Decoupled weight decay."""

    warmup: float = 0.1
    """Share of the steps in which the learning rate grows."""

    clip: float = 1.0
    """Largest norm of the gradient."""

    label_smoothing: float = 0.0
    """Probability given to all classes alike."""

    balanced: bool = False
    """Whether every class counts alike in the loss, however many samples it has."""

    kernel_norm: float = 0.0
    """Weight of the sum of squares of the sampled kernels in the loss."""

    all_pass: float = 0.0
    """Weight of the distance of the convolutions from orthogonal ones in the loss."""

    antialias: float = 0.0
    """Weight of the kernels' frequencies above those of the grid in the loss."""

    average: float = 0.0
    """Decay per step of the moving average of the weights that is kept; 0 keeps the weights."""

    patience: int = 0
    """Epochs without a better validation score after which training ends; 0 never ends early."""

    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""

    compile: bool = False
    """Whether torch.compile compiles the network."""

    workers: int = 0
    """Processes that read the samples."""

    read_timeout: float = 300.0
    """Seconds for which a batch of such a process is waited before another takes its place."""

    seed: int = 0
    """Of the weights, the order of the batches, drop-out and splits."""

    device: Literal["auto", "cpu"] = "auto"
    """Where to train; auto takes an accelerator if there is one."""

    checkpoint_steps: int | None = None
    """Steps between checkpoints; without it about two minutes."""

    keep: int = 2
    """How many of the last checkpoints are kept."""

    time_limit: float | None = None
    """Seconds after which to stop with a checkpoint and exit code 75."""

    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also record with TensorBoard or Weights & Biases."""

    def run(self) -> None:
        """Refuse to overwrite a run, then train."""
        if list_checkpoints(self.out / "checkpoints") or (self.out / "config.json").exists():
            raise ValueError(
                f"{self.out} holds a run already. Go on with `omniconv resume {self.out}`, or give another --out."
            )
        check_folder("--out", self.out)
        self.train(resume=False)

    def train(self, *, resume: bool) -> None:
        """Read, tell what was inferred, train, evaluate, write.

        Raises `Interrupted` where it is stopped and there is a checkpoint, `KeyboardInterrupt` where there is none.
        """
        try:
            with raising_interrupts():
                self.complete(resume=resume)
        except KeyboardInterrupt:  # before or after the steps, or the second one
            if not list_checkpoints(self.out / "checkpoints"):
                raise
            raise Interrupted("stopped by Ctrl-C. Resume to go on from the last checkpoint.") from None

    def complete(self, *, resume: bool) -> None:
        """The same, where signals are noted or raised."""
        samples, task = self.read()
        architecture, recipe = self.choose(samples)
        out = console()
        out.print(facts(f"Fitting {self.data}", told(samples, task, architecture, recipe)))
        if is_first_process() and not resume:
            self.out.mkdir(parents=True, exist_ok=True)
            write_options(self.out / OPTIONS, self)
        run = Run(
            folder=self.out,
            resume=resume,
            every=self.checkpoint_steps,
            keep=self.keep,
            time_limit=self.time_limit,
            read_timeout=self.read_timeout,
            trackers=self.track,
            device=self.device,
            progress=True,
        )
        predictor = fit(samples, task, architecture, recipe, validation=self.validation, run=run)
        disconnect()
        if is_first_process():
            self.finish(predictor, samples, out)

    def read(self) -> tuple[Samples, Task]:
        """The training samples, with what NaN means settled, and what is to be learned."""
        samples = read(self.data, target=self.target, corrupt=self.corrupt)
        if samples.targets is None:
            raise ValueError(
                f"{self.data} has no targets to learn from. Name their column with --target, or put the files of each "
                "class into a folder of its own."
            )
        task = infer_task(samples.targets, name=self.task, balanced=self.balanced, label_smoothing=self.label_smoothing)
        if self.limit is not None and check_integer("--limit", self.limit) < len(samples):
            samples = split(samples, task, len(samples) - self.limit, self.seed)[0]
        return without_gaps(samples, self.missing), task

    def choose(self, samples: Samples) -> tuple[Architecture, Recipe]:
        """The network and the recipe: what is given, and for the rest what fits the size of the data."""
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if self.resolution is not None and not samples.space:
            raise ValueError("--resolution is for clouds of points. Leave it out.")
        network, recipe = choose(
            samples, self.effort, processes=processes, group=self.group, group_samples=self.group_samples
        )
        return with_given(
            network,
            blocks=self.blocks,
            width=self.width,
            support_width=self.support_width,
            bandwidth=self.bandwidth,
            causal=self.causal,
            head=self.head,
            dropout=self.dropout,
            resolution=self.resolution,
        ), with_given(
            recipe,
            epochs=self.epochs,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            lr=self.lr,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            clip=self.clip,
            kernel_norm=self.kernel_norm,
            all_pass=self.all_pass,
            antialias=self.antialias,
            average=self.average,
            patience=self.patience,
            precision=self.precision,
            compile=self.compile,
            augmentation=self.changes(samples),
            workers=self.workers,
            seed=self.seed,
        )

    def changes(self, samples: Samples) -> CloudAugmentation | None:
        """How clouds are changed in training; `ValueError` where there are none, and a change was asked for."""
        changes = {"turn": self.turn, "flip": self.flip, "zoom": self.zoom, "jitter": self.jitter, "thin": self.thin}
        changes["vectors"] = self.vectors or 0
        asked = [f"--{name}" for name, value in changes.items() if value]
        if not asked:
            return None
        if not samples.space:
            raise ValueError(
                f"{', '.join(asked)} {'is' if len(asked) == 1 else 'are'} for clouds of points. Leave out."
            )
        given = samples.vectors if self.vectors is None else self.vectors
        vectors = check_vectors("--vectors", given, samples.space, samples.channels - samples.space)
        return CloudAugmentation(
            turn=self.turn, flip=self.flip, zoom=self.zoom, jitter=self.jitter, thin=self.thin, vectors=vectors
        )

    def finish(self, predictor: Predictor, samples: Samples, out: Any) -> None:
        """Evaluate on the test part where there is one; write the network with its card and figures."""
        predictor.about |= {"data": self.data, "missing": self.missing}
        rows: dict[str, Any] = {}
        if has_split(self.data, "test"):
            test = without_gaps(read(self.data, split="test", target=self.target, corrupt=self.corrupt), self.missing)
            rows = predictor.evaluate(test, progress=True)
            predictor.about["test"] = {"samples": len(test), **rows}
            write_whole(self.out / "metrics.json", (json.dumps({"test": rows}, indent=2) + "\n").encode())
        predictor.save(self.out)
        draw(self.out, predictor, samples)
        if rows:
            out.print(facts("On the test part", rows))
        if "symmetry" in predictor.about:
            out.print(facts("On moved training samples", {"symmetry": described_errors(predictor.about["symmetry"])}))
        out.print(f"Network, record and figures are in [bold]{self.out}/[/]. Try next:")
        out.print(f"  omniconv evaluate {self.out} DATA", soft_wrap=True)
        shares = " --probabilities" if isinstance(predictor.task, Classification) else ""
        out.print(f"  omniconv predict {self.out} DATA --out predictions.csv{shares}", soft_wrap=True)


def told(samples: Samples, task: Task, architecture: Architecture, recipe: Recipe) -> dict[str, Any]:
    """What was inferred and chosen, for people."""
    if isinstance(task, Classification):
        labels, counts = np.unique(np.asarray(samples.targets), return_counts=True)
        shown = [f"{label} ({count})" for label, count in zip(labels, counts, strict=True)]
        classes = ", ".join(shown[:12]) + (f", and {len(shown) - 12} more" if len(shown) > 12 else "")
        goal = f"classification into {len(task.classes)}: {classes}"
    else:
        goal = f"regression; targets {np.min(samples.targets):.4g} to {np.max(samples.targets):.4g}"  # type: ignore[arg-type]
    return {
        "task": goal,
        "samples": f"{len(samples):,}",
        "signals": f"{samples.features} channel(s), size {described_sizes(samples)}",
        "network": described_network(architecture, bool(samples.space)),
        "training": f"{recipe.epochs} epochs in batches of at most {recipe.batch_size} a process, seed {recipe.seed}",
    }


def described_network(architecture: Architecture, cloud: bool) -> str:
    """What is built, for people: of clouds the blocks are those of all lattices together."""
    stages, each = (architecture.stages, architecture.blocks_of_stage) if cloud else (1, architecture.blocks)
    shared = f", {each} on each of {stages} lattices" if stages > 1 else ""
    name = "GriddedNet" if cloud else "CCNN"
    if architecture.group is not None:
        name += f" on {architecture.group} with {architecture.elements} elements"
    return f"{name}, {stages * each} blocks of width {architecture.width}{shared}"


def described_errors(symmetry: Mapping[str, Any]) -> str:
    """How well a network keeps its group, for people."""
    return (
        f"outputs change by {symmetry['mean_error']:.1%} on average over {symmetry['moves']} elements of "
        f"{symmetry['group']} that move a signal, at most by {symmetry['largest_error']:.1%}"
    )


def draw(folder: Path, predictor: Predictor, samples: Samples) -> None:
    """The figures of a run, where matplotlib is installed; of clouds, what the network makes of the first one."""
    try:
        require("matplotlib", extra="plots", purpose="figures")
    except ImportError as error:
        warnings.warn(f"No figures were drawn. {error}", stacklevel=2)
        return
    plots.curves(read_log(folder / "log.jsonl")).savefig(folder / "training.png", dpi=120)
    model = predictor.model.cpu()
    if "symmetry" in predictor.about:  # kernels on a group have many poses, and no figure yet
        symmetry_of(model, samples).figure().savefig(folder / "symmetry.png", dpi=120)
    else:
        plots.kernels(model).savefig(folder / "kernels.png", dpi=120)
    if isinstance(model, GriddedNet):
        batch = collate([Signals(samples)[0]], samples.space)
        assert batch.positions is not None
        plots.gridded(model, batch.signals[0], batch.positions[0]).savefig(folder / "cloud.png", dpi=120)
