"""What is minimised, as a module: so that whatever wraps networks for several processes wraps all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_choice
from omniconv._typing import Mask, Signal
from omniconv.nn import admissibility, aliasing, all_pass, kernel_norm, narrowness, regrowth, relaxation
from omniconv.training.tasks import Task

PENALTIES: dict[str, Callable[[nn.Module], Tensor]] = {
    "kernel_norm": kernel_norm,
    "all_pass": all_pass,
    "antialias": aliasing,  # with every filter's share of the reference grid's limit
    "admissibility": admissibility,
    "narrowness": narrowness,
    "regrowth": regrowth,
    "relaxation": relaxation,
}
"""Functions of a network that may be added to the loss: of its kernels, and of how much symmetry it has."""


class Objective(nn.Module):
    """`forward(x, mask, encoded, times, positions)` gives the sum of the samples' losses, and the penalty.

    Without targets it gives the outputs.

    `penalties`: the factors of functions of the model, by their names in `PENALTIES`; the penalty is the sum of the
    products.
    """

    def __init__(self, model: nn.Module, task: Task, *, penalties: Mapping[str, float] = MappingProxyType({})):
        super().__init__()
        self.model, self.task = model, task
        self.penalties = {
            check_choice("penalties", name, tuple(PENALTIES)): factor for name, factor in penalties.items()
        }

    def forward(
        self,
        x: Signal,
        mask: Mask | None = None,
        encoded: Tensor | None = None,
        times: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Any:
        places = {"mask": mask, "times": times, "positions": positions}
        given = {name: value for name, value in places.items() if value is not None}
        outputs = self.model(x, **given)
        if encoded is None:
            return outputs
        losses = self.task.losses(outputs.float() if outputs.dtype != torch.float64 else outputs, encoded)
        return losses.sum(), self._penalty(losses)

    def _penalty(self, like: Tensor) -> Tensor:
        penalty = like.new_zeros(())
        for name, factor in self.penalties.items():
            if factor:
                penalty = penalty + factor * PENALTIES[name](self.model)
        return penalty
