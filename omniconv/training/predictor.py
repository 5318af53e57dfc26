"""A trained network together with its task: samples in, predictions out; saved as one folder."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omniconv._errors import check_instance
from omniconv.data import Samples, TimedSamples
from omniconv.models import Network, read_config
from omniconv.nn import DenseHead
from omniconv.training.card import model_card
from omniconv.training.evaluation import AS_SAMPLES, outputs_of
from omniconv.training.progress import progress_for
from omniconv.training.tasks import Classification, Task, check_network_of, task_from

Array = NDArray[Any]


class Predictor:
    """`model`: the network. `task`: what its outputs mean. `about`: facts on data and training for the model card.

    Signals with another sampling rate than those of the training are taken as the same integral at that resolution.
    Predictions are computed in float64, where the device has it, so that neither padding nor the company in a batch
    shows in them. Raises `TypeError` or `ValueError` for a network that the task does not fit.
    """

    def __init__(self, model: Network, task: Task, about: Mapping[str, Any] | None = None):
        check_instance("model", model, Network)
        check_instance("task", task, Task, remedy="Infer one from targets with infer_task.")
        if model.embedding is not None or isinstance(model.head, DenseHead):
            raise ValueError(
                '`model` must take signals and have head="pool" or "last", to predict one target per signal. Call a '
                "network of tokens, or with dense outputs, itself."
            )
        check_network_of(model, task)
        self.model, self.task, self.about = model, task, dict(about or {})

    def outputs(self, samples: Samples, *, batch_size: int = 64, progress: bool = False) -> Tensor:
        """The outputs of the network, (n, out_features).

        Raises `ValueError` for samples with other channels or another number of axes than the network has.
        """
        self.check(samples)
        device = next(self.model.parameters()).device
        model = self.model if device.type == "mps" else copy.deepcopy(self.model).double()  # mps has no float64
        rate = self.about.get("rate")
        if rate and samples.rate and rate != samples.rate:  # the same span, sampled more or less finely
            if samples.times is None:
                model = model.at_resolution(samples.rate / rate)
            elif samples.counted:
                samples = TimedSamples(samples, [times * (rate / samples.rate) for times in samples.times])
        return outputs_of(model, samples, batch_size=batch_size, progress=progress_for(progress))

    def check(self, samples: Samples) -> None:
        """Raise `ValueError` unless the network takes such samples."""
        check_instance("samples", samples, Samples, remedy=AS_SAMPLES)
        self._check_times(samples)
        space = self.about.get("space", samples.space if self.model.takes_positions else 0)
        if (samples.space > 0) != (space > 0):
            kinds = ("signals on a grid, or series", "clouds of points")
            raise ValueError(f"The network was trained on {kinds[space > 0]}; got {kinds[samples.space > 0]}.")
        given, bare = samples.channels - samples.space, self.about.get("bare_points", False)
        if samples.space and bare != (given == 0) and "bare_points" in self.about:
            kinds = ("points with features", "points that are nothing but where they are")
            raise ValueError(f"The network was trained on {kinds[bare]}; got {kinds[given == 0]}.")
        axes = samples.space or samples.dim
        if (samples.features, axes) != (self.model.in_channels, self.model.grid.dim):
            raise ValueError(
                f"The network takes signals with {self.model.in_channels} channels and {self.model.grid.dim} axes; got "
                f"{samples.features} channels and {axes} axes."
            )

    def _check_times(self, samples: Samples) -> None:
        """Raise unless the samples have times if those of the training had, and in the same unit."""
        trained, given = self.about.get("times"), samples.times is not None and not samples.counted
        if trained == "given" and not given:
            raise ValueError("The network was trained on series with times; got samples without. Give their times.")
        if "times" in self.about and trained != "given" and given:
            raise ValueError(
                "The network was trained on series without times, and counts their samples; got samples with times. "
                "Leave the times out, or train with times."
            )
        if self.model.span is not None and samples.times is None and not samples.space:
            raise ValueError(
                "The network was trained on series that may have gaps; got samples without. Use "
                'without_gaps(samples, "absent").'
            )

    def predict(self, samples: Samples, *, progress: bool = False) -> Array:
        """The predicted label or number of every sample."""
        return self.task.predictions(self.outputs(samples, progress=progress))

    def probabilities(self, samples: Samples, *, progress: bool = False) -> Array:
        """The probability of every class, (n, classes); raises `TypeError` unless the task is classification."""
        return self.classification.probabilities(self.outputs(samples, progress=progress))

    @property
    def classification(self) -> Classification:
        """The task, if it is one; raises `TypeError` otherwise."""
        if not isinstance(self.task, Classification):
            raise TypeError(f"Only classification has probabilities; this network does {self.task.name}.")
        return self.task

    def evaluate(self, samples: Samples, *, progress: bool = False) -> dict[str, float]:
        """Figures of merit by name; raises `ValueError` for samples without targets."""
        if samples.targets is None:
            raise ValueError("`samples` must have targets to be evaluated against; got samples without.")
        return self.task.metrics(self.outputs(samples, progress=progress), np.asarray(samples.targets))

    def save(self, folder: str | Path) -> None:
        """Write config.json, model.safetensors and a model card README.md."""
        extra = {"task": self.task.described(), "about": self.about}
        self.model.save_pretrained(folder, extra=extra, card=model_card(self.model, self.task, self.about))

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> Predictor:
        """What `save` wrote; raises as `CCNN.from_pretrained` does, and for a network that was saved without a task.

        `device`: "auto" (an accelerator if there is one) or what torch calls it.
        """
        config = read_config(folder)
        if "task" not in config:
            raise ValueError(
                f"{folder} holds a network without a task. Load it with {config.get('class')}.from_pretrained."
            )
        model = Network.from_pretrained(folder, device="cpu")
        return cls(model.to(chosen_device(device)), task_from(config["task"]), config.get("about"))


def chosen_device(name: str) -> torch.device:
    """A device by name, "auto" for an accelerator if there is one; raises `ValueError` for one that is not there."""
    if name == "auto":
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"`device` must be auto, cpu or an accelerator of this machine; got {name!r}: {error}"
        ) from error
