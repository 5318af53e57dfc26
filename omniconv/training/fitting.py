"""From samples to a predictor: statistics, network, validation split, training."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omniconv._errors import check_instance, check_number, require
from omniconv._sharding import is_sharded, whole
from omniconv.data import Samples
from omniconv.data.timed import mean_gap
from omniconv.training.architecture import Architecture
from omniconv.training.evaluation import AS_SAMPLES
from omniconv.training.groups import described_symmetry, symmetry_of
from omniconv.training.loading import read_sample
from omniconv.training.loop import Report, Run, train
from omniconv.training.predictor import Predictor
from omniconv.training.recipe import Recipe
from omniconv.training.tasks import Classification, Task

Array = NDArray[Any]

STATISTICS_SAMPLES = 4096
"""So many samples, evenly spaced, give mean and standard deviation of collections that are larger."""


def fit(
    samples: Samples,
    task: Task,
    architecture: Architecture,
    recipe: Recipe,
    *,
    validation: float | Samples = 0.0,
    run: Run | None = None,
    report: Report | None = None,
) -> Predictor:
    """Train a network on samples with targets; signals are standardised per channel inside the network.

    `validation`: the share of samples, stratified, that is held out to choose the best epoch, [0, 1), or samples of its
    own; 0 trains on all and keeps the last weights. The rest as in `train`, whose errors this raises too.
    """
    check_instance("samples", samples, Samples, remedy=AS_SAMPLES)
    check_instance("task", task, Task, remedy="Infer one from targets with infer_task.")
    check_instance("architecture", architecture, Architecture, remedy="choose(samples) gives one.")
    check_instance("recipe", recipe, Recipe, remedy="choose(samples) gives one.")
    if run is not None:
        check_instance("run", run, Run, remedy="Write Run(folder=...).")
    architecture.check(samples)
    began = time.monotonic()
    held_out: Samples | None = None
    if isinstance(validation, Samples):
        held_out = validation
    elif check_share("validation", validation) > 0:
        samples, held_out = split(samples, task, validation, recipe.seed)
    mean, std = statistics(samples)
    size, span = reference_grid(samples)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        model = architecture.build(samples.features, task.out_features, size, span, space=samples.space)
    model.standardize.set(torch.from_numpy(mean), torch.from_numpy(std))
    record = train(model, task, samples, recipe=recipe, validation=held_out, run=run, report=report)
    if is_sharded(model):
        tensors = {name: whole(tensor) for name, tensor in model.state_dict().items()}
        with torch.random.fork_rng(devices=[]):
            model = architecture.build(samples.features, task.out_features, size, span, space=samples.space)
        model.load_state_dict(tensors)
    about = {
        "training_samples": len(samples),
        "channels": samples.features,
        "space": samples.space,
        **({"bare_points": samples.channels == samples.space} if samples.space else {}),
        "sizes": described_sizes(samples),
        "rate": samples.rate,
        "times": None if samples.times is None else "counted" if samples.counted else "given",
        "epochs": recipe.epochs,
        "final_loss": record[-1]["loss"] if record else None,
        "training_seconds": round(time.monotonic() - began, 1),
        "architecture": asdict(architecture),
        "recipe": asdict(recipe),
    }
    if architecture.group is not None:
        about["symmetry"] = described_symmetry(symmetry_of(model, samples), architecture.elements)
    return Predictor(model.eval(), task, about)


def check_share(name: str, value: float) -> float:
    """Return a share, or raise unless it is a number in [0, 1)."""
    if check_number(name, value, low=0.0, closed=True) >= 1:
        raise ValueError(f"`{name}` must be a share below 1, or samples of its own; got {value!r}.")
    return value


def split(samples: Samples, task: Task, held_out: float | int, seed: int) -> tuple[Samples, Samples]:
    """Training and held-out samples; every class keeps its share where it has enough samples.

    `held_out`: a share, (0, 1), or a number of samples, which may be too few for one of every class.
    """
    selection: Any = require("sklearn.model_selection", extra="train", purpose="the validation split")
    strata = samples.targets if isinstance(task, Classification) else None
    everything = np.arange(len(samples))
    if strata is not None:
        counts = np.unique(strata, return_counts=True)[1]
        fewest = min(held_out, len(samples) - held_out) if isinstance(held_out, int) else len(counts)
        if counts.min() < 2 or fewest < len(counts):
            strata = None
    try:
        kept, rest = selection.train_test_split(everything, test_size=held_out, random_state=seed, stratify=strata)
    except ValueError as error:
        raise ValueError(
            f"{held_out} of {len(samples)} samples cannot be held out: {error} Hold out another share, or none."
        ) from error
    return samples.subset(kept), samples.subset(rest)


def reference_grid(samples: Samples) -> tuple[tuple[int, ...], float | None]:
    """Samples per axis of the reference grid, and its span in the unit of the times, if there are times.

    The largest size; for series with times, as many mean gaps between samples as the longest series takes; a cell per
    axis for clouds of points, which have no grid.
    """
    if samples.space:
        return (1,) * samples.space, None
    if samples.times is None:
        return tuple(int(length) for length in samples.sizes.max(0)), None
    gap = mean_gap(samples, evenly_chosen(samples))
    spans = [times[-1] - times[0] for times in samples.times]
    longest = max(spans)
    if longest > 100 * gap * int(samples.sizes.max()):
        raise ValueError(
            f"series {samples.names[spans.index(longest)]} lasts {longest:g}, though samples are {gap:g} apart on "
            "average: kernels as long would be huge. Check its times, or split it."
        )
    size = math.ceil(longest / gap - 1e-3) + 1  # regular times may be rounded
    return (size,), size * gap


def evenly_chosen(samples: Samples) -> Array:
    """Indices of all samples, or of as many, evenly spaced, as statistics are taken from."""
    return np.unique(np.linspace(0, len(samples) - 1, min(len(samples), STATISTICS_SAMPLES)).astype(int))


def statistics(samples: Samples) -> tuple[Array, Array]:
    """Mean and standard deviation per channel over what was observed, float64; a constant channel has deviation 1.

    Positions of points are no channels here, and points that have nothing else keep their constant. Raises
    `ValueError` that names the first sample with a value that is not finite, unless it is NaN in a series with times,
    and for a channel that is never observed; `SampleError` that names a sample that cannot be read.
    """
    count, total, squares = np.zeros((3, samples.channels))
    gaps_allowed = samples.times is not None
    shift = np.full(samples.channels, np.nan)  # the first value that was observed: it keeps the squares from cancelling
    for index in evenly_chosen(samples):
        signal = read_sample(samples.__getitem__, samples, int(index))
        flat = signal.reshape(samples.channels, -1).astype(np.float64)
        seen = ~np.isnan(flat)
        if np.isinf(flat).any() or not (gaps_allowed or seen.all()):
            raise ValueError(
                f"sample {samples.names[index]!r} has values that are NaN or infinite. Say what they mean "
                "(`missing=`), or repair them."
            )
        shift = np.where(np.isnan(shift), flat[np.arange(samples.channels), seen.argmax(1)], shift)
        shifted = np.where(seen, flat - shift[:, None], 0.0)
        count += seen.sum(1)
        total += shifted.sum(1)
        squares += np.square(shifted).sum(1)
    if (count == 0).any():
        raise ValueError(f"channel {int(count.argmin())} is not observed in any of the samples. Remove it.")
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    tiny = std <= 1e-12 * np.maximum(np.abs(mean + shift), 1e-300)
    if samples.space == samples.channels:
        return np.zeros(1), np.ones(1)
    return (mean + shift)[samples.space :], np.where(tiny, 1.0, std)[samples.space :]


def described_sizes(samples: Samples) -> str:
    """The sizes of the signals in words."""
    least, most = samples.sizes.min(0), samples.sizes.max(0)
    if samples.space:
        points = f"{most[0]}" if samples.equal else f"{least[0]} to {most[0]}"
        return f"{points} points in {samples.space} axes"
    if samples.equal:
        return " x ".join(map(str, most))
    return " x ".join(f"{low} to {high}" for low, high in zip(least, most, strict=True))
