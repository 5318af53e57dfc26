"""What is minimised, as a module: so that whatever wraps networks for several processes wraps all of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from omniconv._typing import Mask, Signal
from omniconv.nn import aliasing, all_pass
from omniconv.nn import kernel_norm as norm_of_kernels
from omniconv.training.tasks import Task


class Objective(nn.Module):
    """`forward(x, mask, encoded, times, positions)` gives the sum of the samples' losses, and the penalty.

    Without targets it gives the outputs.

    penalty = kernel_norm * omniconv.nn.kernel_norm(model) + all_pass * omniconv.nn.all_pass(model)
    + antialias * omniconv.nn.aliasing(model), the last with every filter's share of the reference grid's limit.
    """

    def __init__(
        self, model: nn.Module, task: Task, *, kernel_norm: float = 0.0, all_pass: float = 0.0, antialias: float = 0.0
    ):
        super().__init__()
        self.model, self.task = model, task
        self.kernel_norm, self.all_pass, self.antialias = kernel_norm, all_pass, antialias

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
        if self.kernel_norm:
            penalty = penalty + self.kernel_norm * norm_of_kernels(self.model)
        if self.all_pass:
            penalty = penalty + self.all_pass * all_pass(self.model)
        if self.antialias:
            penalty = penalty + self.antialias * aliasing(self.model)
        return penalty
