"""Everything that a step of the training changes, and how it goes into a checkpoint and comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.lr_scheduler import LambdaLR

from omniconv.nn import refresh
from omniconv.training.average import Average
from omniconv.training.checkpoints import Checkpoint

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""On several processes the first gets the whole tensors, the others nothing."""


@dataclass
class Best:
    """The weights with the best validation score so far, after `epoch` epochs."""

    score: float | None = None
    loss: float | None = None
    epoch: int = 0
    tensors: dict[str, Any] = field(default_factory=dict)

    def beaten_by(self, score: float, loss: float) -> bool:
        """Whether these are better: a higher score, or the same with a lower loss."""
        if self.score is None or self.loss is None or math.isnan(self.score):
            return True
        return (score, -loss) > (self.score, -self.loss)


@dataclass
class Parts:
    """The objective with its network, the optimiser, its schedule, the average of the weights, the best weights.

    `scaler`: of the gradients in half precision, or None. Random states are no part: they are functions of the step.
    """

    objective: nn.Module
    optimizer: Any
    schedule: LambdaLR
    average: Average
    scaler: Any
    best: Best = field(default_factory=Best)

    def weights(self) -> dict[str, Tensor]:
        """All weights, copied."""
        tensors: dict[str, Any] = get_model_state_dict(self.objective, options=WHOLE)
        return {name: tensor.clone() for name, tensor in tensors.items()}

    def keep_best(self) -> None:
        """Load the best weights, if there are any, else the average."""
        if self.best.score is None:
            self.average.adopt()
        else:
            several = dist.is_available() and dist.is_initialized()
            options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=several)
            set_model_state_dict(self.objective, self.best.tensors, options=options)
        refresh(self.objective)

    def saved(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """JSON values and tensors for a checkpoint."""
        tensors = named("model", self.weights())
        if self.average.decay:
            with self.average.applied():
                tensors |= named("average", self.weights())
        optimizer: Any = get_optimizer_state_dict(self.objective, self.optimizer, options=WHOLE)
        for name, values in optimizer.get("state", {}).items():
            tensors |= named("optimizer", {f"{name}.{kind}": value for kind, value in values.items()})
        tensors |= named("best", self.best.tensors)
        state = {
            "groups": optimizer.get("param_groups"),
            "schedule": {key: value for key, value in self.schedule.state_dict().items() if key != "lr_lambdas"},
            "best": {"score": self.best.score, "loss": self.best.loss, "epoch": self.best.epoch},
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }
        return state, tensors

    def restore(self, checkpoint: Checkpoint) -> None:
        """Be as when `saved` was called."""
        state, tensors = checkpoint.state, checkpoint.tensors
        options = StateDictOptions(full_state_dict=True)
        if self.average.decay:
            set_model_state_dict(self.objective, under("average", tensors), options=options)
            self.average = Average(self.objective, self.average.decay)
        set_model_state_dict(self.objective, under("model", tensors), options=options)
        moments: dict[str, Any] = {}
        for name, value in under("optimizer", tensors).items():
            parameter, _, kind = name.rpartition(".")
            moments.setdefault(parameter, {})[kind] = value
        optimizer: Any = {"state": moments, "param_groups": state["groups"]}
        set_optimizer_state_dict(self.objective, self.optimizer, optimizer, options=options)
        self.schedule.load_state_dict({**state["schedule"], "lr_lambdas": [None] * len(self.schedule.lr_lambdas)})
        self.best = Best(**state["best"], tensors=under("best", tensors))
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        refresh(self.objective)


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with `prefix/` before their names."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The tensors that `named` gave that prefix, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
