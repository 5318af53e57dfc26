"""A recurrence as a part of a stream."""

from __future__ import annotations

import torch
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines import convolve
from omniconv.nn.causal import Bounds, Part, Tensors, convolved_bounds
from omniconv.recurrence.recurrence import Recurrence

ELEMENTS = 2**22
"""Samples of all pairs of channels of a dense layer that are worked on at a time."""


class Modal(Part):
    """Causal convolution by a recurrence that stands for taps (channels, lags) or (out, in, lags).

    A dense one has a recurrence for every pair of channels, whose outputs are added.
    `l1`: bounds on the sum of the errors of the taps, of the shape of the taps without their lags.
    """

    def __init__(self, recurrence: Recurrence, taps: Taps, l1: Tensor):
        self.recurrence, self.taps, self.l1 = recurrence, taps.detach(), l1

    def begin(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensors:
        shape = (batch, self.recurrence.channels, self.recurrence.modes)
        wide = torch.complex128 if dtype == torch.float64 else torch.complex64
        return (torch.zeros(shape, dtype=wide, device=device),)

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        most = max(1, ELEMENTS // (max(1, x.shape[0]) * self.recurrence.channels))
        outputs = []
        for some in x.split(most, dim=-1) if self.taps.ndim == 3 else [x]:
            y, state = self._run(some, state)
            outputs.append(y)
        return torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0], state

    def _run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        pairs = x
        if self.taps.ndim == 3:
            pairs = x[:, None].expand(-1, len(self.taps), -1, -1).flatten(1, 2)
        if x.shape[-1] == 1:
            y, new = self.recurrence.step(pairs[..., 0], state[0])
            y = y[..., None]
        else:
            y, new = self.recurrence.prefill(pairs, state[0])
        if self.taps.ndim == 3:
            y = y.unflatten(1, self.taps.shape[:2]).sum(2)
        return y, (new,)

    def bound(self, bounds: Bounds) -> Bounds:
        return convolved_bounds(self.taps, self.l1, bounds)


class ExactModal(Part):
    """The same recurrence where only samples that came before are read through it: those of x meet the taps themselves.

    y = k * x + what the state still says;  the state is that of `modal`. So from silence the outputs are exact.
    """

    def __init__(self, modal: Modal):
        self.modal = modal

    def begin(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensors:
        return self.modal.begin(batch, dtype, device)

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        _, new = self.modal.run(x, state)
        past, _ = self.modal.run(torch.zeros_like(x), state)
        return convolve(x, self.modal.taps.to(x.dtype), causal=True) + past, new

    def bound(self, bounds: Bounds) -> Bounds:
        return self.modal.bound(bounds)
