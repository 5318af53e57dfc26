"""Tiny data and networks, and what tests ask of weights."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from omniconv import CCNN, Conv
from omniconv.data import ArraySamples
from omniconv.training import Classification

LENGTH = 24
TASK = Classification(("fast", "slow"))


def waves(count: int, *, ragged: bool = False, seed: int = 0, noise: float = 0.0) -> ArraySamples:
    """Sequences with a period of 16 samples or of 4, at random phases: the label says which."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    lengths = random.integers(LENGTH // 2, LENGTH + 1, count) if ragged else np.full(count, LENGTH)
    signals = [
        np.sin(2 * math.pi * (np.arange(length) / (4, 16)[label] + random.random()))[None].astype(np.float32)
        + np.float32(noise) * random.standard_normal((1, length), dtype=np.float32)
        for label, length in zip(labels, lengths, strict=True)
    ]
    return ArraySamples(signals, np.array(TASK.classes)[labels])


def network(dropout: float = 0.0) -> CCNN:
    """A tiny network, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return CCNN(1, 2, LENGTH, blocks=1, width=8, dropout=dropout)


class Means(nn.Module):
    """A linear function of the mean over positions of each channel: nothing in it is normalised."""

    def __init__(self, channels: int = 1):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.linear = nn.Linear(channels, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        assert mask is None
        return self.linear(x.flatten(2).mean(-1))


def convolutions(model: nn.Module) -> list[Conv]:
    """Every convolution of a network."""
    return [module for module in model.modules() if isinstance(module, Conv)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, copied."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    """The names of the tensors that are not equal bit for bit."""
    assert first.keys() == second.keys()
    return [name for name, value in first.items() if not torch.equal(value, second[name])]


def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Rows of a record but for the seconds that they took."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
