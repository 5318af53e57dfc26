"""Which samples make which step: a pure function of the seed and the step, so that any run can go on anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from omniconv._typing import Mask, Signal
from omniconv.data import Samples

Array = NDArray[Any]

POOL = 16
"""Batches whose samples are sorted by size together: little padding, and still another order in every epoch."""


class Batch(NamedTuple):
    """Signals padded to one size, which positions were observed (None if all), and which samples they are.

    `times`: (batch, length), those of series with times, whose `mask` is (batch, channels, length). `positions`:
    (batch, points, dim), those of clouds, whose `signals` are the features.
    """

    signals: Signal
    mask: Mask | None
    indices: Tensor
    times: Tensor | None = None
    positions: Tensor | None = None

    @property
    def options(self) -> dict[str, Tensor]:
        """What the network is given beside the signals."""
        given = {"mask": self.mask, "times": self.times, "positions": self.positions}
        return {name: value for name, value in given.items() if value is not None}

    def to(self, device: torch.device) -> Batch:
        """The same on a device; indices stay."""
        moved = {name: value.to(device) for name, value in self.options.items()}
        return self._replace(signals=self.signals.to(device), **moved)


@dataclass(frozen=True)
class BatchPlan:
    """The batches of every epoch, for all processes together.

    `sizes`: (n, dim), of the samples. `batch_size`: at most so many samples in a batch of all processes; the batches of
    an epoch are nearly equal, so that none is tiny. Signals of similar size come into one batch.
    """

    sizes: Array
    batch_size: int
    seed: int

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.sizes) / self.batch_size)

    def epoch(self, epoch: int) -> list[Array]:
        """The samples of each batch of an epoch, counted from 0."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.sizes))
        volumes = self.sizes.prod(1)
        if (volumes == volumes[0]).all():
            return np.array_split(order, self.batches)
        pools = np.array_split(order, math.ceil(self.batches / POOL))
        order = np.concatenate([pool[np.argsort(volumes[pool], kind="stable")] for pool in pools])
        batches = np.array_split(order, self.batches)
        return [batches[position] for position in random.permutation(self.batches)]

    def counts(self, epoch: int) -> list[int]:
        """How many samples each batch of an epoch has."""
        return [len(batch) for batch in self.epoch(epoch)]


@dataclass(frozen=True)
class StepSampler:
    """What process `rank` of `processes` computes from step `start` to before `stop`: each step is `parts` lists."""

    plan: BatchPlan
    start: int
    stop: int
    rank: int = 0
    processes: int = 1
    parts: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            epoch, position = divmod(step, self.plan.batches)
            if position == 0 or step == self.start:
                batches = self.plan.epoch(epoch)
            for part in np.array_split(batches[position][self.rank :: self.processes], self.parts):
                yield part.tolist()

    def __len__(self) -> int:
        return (self.stop - self.start) * self.parts


class Signals(Dataset[tuple[Array, int, Array | None]]):
    """Samples as torch's loader wants them: the signal, its index, and its times, if it has any."""

    def __init__(self, samples: Samples):
        self.samples = samples

    def __getitem__(self, index: int) -> tuple[Array, int, Array | None]:
        if self.samples.times is None:
            return self.samples[index], index, None
        signal = self.samples[index]
        seen = ~np.isnan(signal).all(0)
        if not seen.any():
            raise ValueError(f"series {self.samples.names[index]} has no observed value. Remove it.")
        return signal[:, seen], index, self.samples.times[index][seen]


def pad(signals: Sequence[Array]) -> tuple[Signal, Mask | None]:
    """Signals `channels *size` as one tensor, zeros behind those that are shorter; and where they are not zeros."""
    sizes = {signal.shape[1:] for signal in signals}
    if len(sizes) == 1:
        return torch.from_numpy(np.stack(signals)), None
    size = tuple(max(axis) for axis in zip(*sizes, strict=True))
    padded = np.zeros((len(signals), signals[0].shape[0], *size), dtype=signals[0].dtype)
    mask = np.zeros((len(signals), *size), dtype=bool)
    for row, values in enumerate(signals):
        inside = tuple(slice(length) for length in values.shape[1:])
        padded[row][:, *inside] = values
        mask[row][inside] = True
    return torch.from_numpy(padded), torch.from_numpy(mask)


def collate(items: list[tuple[Array, int, Array | None]], space: int = 0) -> Batch:
    """What `Signals` gives as a batch; so many of the first channels are the positions of points."""
    signals, mask = pad([signal for signal, _, _ in items])
    indices = torch.tensor([index for _, index, _ in items])
    if space:
        positions, features = signals[:, :space].transpose(1, 2), signals[:, space:].float()
        if features.shape[1] == 0:
            features = torch.ones_like(signals[:, :1]).float()  # points that are nothing but where they are
        return Batch(features, mask, indices, positions=positions)
    instants = [times[None] for _, _, times in items if times is not None]
    if not instants:
        return Batch(signals, mask, indices)
    observed = ~signals.isnan()
    observed = observed if mask is None else observed & mask[:, None]
    return Batch(torch.where(observed, signals, 0.0), observed, indices, pad(instants)[0][:, 0])


def evaluation_batches(samples: Samples, batch_size: int, *, alike: bool = False) -> list[list[int]]:
    """All samples once, those of similar size together; `alike`: no others than those of one size."""
    order = np.argsort(samples.sizes.prod(1), kind="stable")
    parts = [order]
    if alike and not samples.equal:
        order = np.lexsort(samples.sizes.T)
        parts = np.split(order, 1 + np.flatnonzero(np.diff(samples.sizes[order], axis=0).any(1)))
    return [part[start : start + batch_size].tolist() for part in parts for start in range(0, len(part), batch_size)]
