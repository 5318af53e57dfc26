"""What is minimised, as a module: so that whatever wraps networks for several processes wraps all of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from omniconv._typing import Mask, Signal
from omniconv.nn import Conv
from omniconv.training.tasks import Task


class Objective(nn.Module):
    """`forward(x, mask, encoded, times)` gives the sum of the samples' losses, and the penalty.

    Without targets it gives the outputs.

    penalty = kernel_norm * sum over convolutions of |taps|^2, on the kernels as they are sampled (FlexConv, Romero et
    al. 2022).
    """

    def __init__(self, model: nn.Module, task: Task, kernel_norm: float):
        super().__init__()
        self.model, self.task, self.kernel_norm = model, task, kernel_norm

    def forward(
        self, x: Signal, mask: Mask | None = None, encoded: Tensor | None = None, times: Tensor | None = None
    ) -> Any:
        given = {name: value for name, value in (("mask", mask), ("times", times)) if value is not None}
        outputs = self.model(x, **given)
        if encoded is None:
            return outputs
        losses = self.task.losses(outputs.float() if outputs.dtype != torch.float64 else outputs, encoded)
        return losses.sum(), self._penalty(losses)

    def _penalty(self, like: Tensor) -> Tensor:
        penalty = like.new_zeros(())
        if self.kernel_norm:
            for module in self.model.modules():
                if isinstance(module, Conv):
                    penalty = penalty + module.taps().square().sum()
        return self.kernel_norm * penalty
