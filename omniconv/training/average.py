"""The moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """avg <- decay_n avg + (1 - decay_n) weights, with decay_n = min(decay, (1 + n) / (10 + n)) at update n.

    The smaller decay at the beginning forgets the initial weights. With `decay` 0 the average is the weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.values: list[Tensor] = [weight.detach().clone() for weight in self.weights] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after the step of that number, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for value, weight in zip(self.values, self.weights, strict=bool(self.decay)):
            value.lerp_(weight.detach(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average in place of the weights while entered; afterwards each is what it is then."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def adopt(self) -> None:
        """Make the weights the average."""
        for value, weight in zip(self.values, self.weights, strict=bool(self.decay)):
            weight.copy_(value)

    @torch.no_grad()
    def _swap(self) -> None:
        for value, weight in zip(self.values, self.weights, strict=bool(self.decay)):
            kept = weight.detach().clone()
            weight.copy_(value)
            value.copy_(kept)
