"""Causal maps that take a signal in pieces, and how far errors go through them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._typing import Signal, Taps
from omniconv.engines import convolve

if TYPE_CHECKING:
    from omniconv.nn.conv import Conv

Tensors: TypeAlias = tuple[Tensor, ...]
PerChannel = Annotated[Tensor, "channels"]
Bounds: TypeAlias = tuple[PerChannel, PerChannel]
"""How far what comes out can be off, and how large it can be, at any time: largest moduli per channel, in float64."""


class Part(ABC):
    """A causal map of signals that goes on where it stopped.

    Any chunks, one after the other, give what the whole signal gives.
    """

    def begin(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensors:
        """The state before the first sample; the first axis is the batch."""
        return ()

    @abstractmethod
    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        """The outputs for the samples x (batch, channels, length), one each, and the state behind them."""

    @abstractmethod
    def bound(self, bounds: Bounds) -> Bounds:
        """The bounds of what comes out, from those of what goes in.

        The first is on the difference from the network that the stream stands for, where its inputs differ by as much;
        the second is on that network's own values.
        """


Filter: TypeAlias = Callable[[str, "Conv"], Part]
"""What stands for the kernel of a convolution, whose name in the network is given."""


class Chain(Part):
    """One part after the other."""

    def __init__(self, parts: Sequence[Part]):
        self.parts = list(parts)
        self.counts = [part_size(part) for part in self.parts]

    def begin(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensors:
        return tuple(tensor for part in self.parts for tensor in part.begin(batch, dtype, device))

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        left, after = list(state), list[Tensor]()
        for part, count in zip(self.parts, self.counts, strict=True):
            x, new = part.run(x, tuple(left[:count]))
            left = left[count:]
            after += new
        return x, tuple(after)

    def run_to_last(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        """`run`, but only the output behind the last sample, where the last part remembers nothing."""
        assert not self.counts[-1]
        y, state = Chain(self.parts[:-1]).run(x, state)
        return self.parts[-1].run(y[..., -1:], ())[0], state

    def bound(self, bounds: Bounds) -> Bounds:
        for part in self.parts:
            bounds = part.bound(bounds)
        return bounds


def part_size(part: Part) -> int:
    """How many tensors the state of a part has."""
    return len(part.begin(1, torch.float32, torch.device("meta")))


class Both(Part):
    """Base of what becomes of the outputs of two parts for the same signal."""

    def __init__(self, first: Part, second: Part):
        self.first, self.second, self.count = first, second, part_size(first)

    def begin(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensors:
        return (*self.first.begin(batch, dtype, device), *self.second.begin(batch, dtype, device))

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        y, first = self.first.run(x, state[: self.count])
        z, second = self.second.run(x, state[self.count :])
        return self.joined(y, z), (*first, *second)

    @abstractmethod
    def joined(self, y: Signal, z: Signal) -> Signal:
        """One signal of the two."""


class Sum(Both):
    """What two parts make of the same signal, added."""

    def joined(self, y: Signal, z: Signal) -> Signal:
        return y + z

    def bound(self, bounds: Bounds) -> Bounds:
        (error, peak), (other, height) = self.first.bound(bounds), self.second.bound(bounds)
        return error + other, peak + height


class Product(Both):
    """What two parts make of the same signal, multiplied: a gate."""

    def joined(self, y: Signal, z: Signal) -> Signal:
        return y * z

    def bound(self, bounds: Bounds) -> Bounds:
        return multiplied_bounds(self.first.bound(bounds), self.second.bound(bounds))


def multiplied_bounds(first: Bounds, second: Bounds) -> Bounds:
    """Bounds of a product: y' z' - y z = (y' - y) z + y' (z' - z), and |y'| <= |y| + |y' - y|."""
    (error, peak), (other, height) = first, second
    return error * height + (peak + error) * other, peak * height


class Channels(Part):
    """Some neighbouring channels of the signal, from `start` up to `stop`."""

    def __init__(self, start: int, stop: int):
        self.chosen = slice(start, stop)

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        return x[:, self.chosen], ()

    def bound(self, bounds: Bounds) -> Bounds:
        error, peak = bounds
        return error[self.chosen], peak[self.chosen]


class Picked(Part):
    """Channels of the signal in any order, also several times."""

    def __init__(self, index: Tensor):
        self.index = index

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        return x[:, self.index], ()

    def bound(self, bounds: Bounds) -> Bounds:
        error, peak = bounds
        return error[self.index], peak[self.index]


class Total(Part):
    """The sum of groups of channels: channel c of all `groups`, which come one after the other, added."""

    def __init__(self, groups: int):
        self.groups = groups

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        return x.unflatten(1, (self.groups, -1)).sum(1), ()

    def bound(self, bounds: Bounds) -> Bounds:
        error, peak = (part.unflatten(0, (self.groups, -1)).sum(0) for part in bounds)
        return error, peak


class Repeated(Part):
    """The same part on each of several groups of channels, which come one after the other."""

    def __init__(self, part: Part, groups: int):
        self.part, self.groups = part, groups

    def begin(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensors:
        states = self.part.begin(batch * self.groups, dtype, device)
        return tuple(state.unflatten(0, (batch, self.groups)) for state in states)

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        batch = x.shape[0]
        folded = x.unflatten(1, (self.groups, -1)).flatten(0, 1)
        y, new = self.part.run(folded, tuple(tensor.flatten(0, 1) for tensor in state))
        y = y.unflatten(0, (batch, self.groups)).flatten(1, 2)
        return y, tuple(tensor.unflatten(0, (batch, self.groups)) for tensor in new)

    def bound(self, bounds: Bounds) -> Bounds:
        pairs = zip(*(part.unflatten(0, (self.groups, -1)) for part in bounds), strict=True)
        each = [self.part.bound(pair) for pair in pairs]
        return torch.cat([error for error, _ in each]), torch.cat([peak for _, peak in each])


class Same(Part):
    """The signal itself."""

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        return x, ()

    def bound(self, bounds: Bounds) -> Bounds:
        return bounds


class Activation(Part):
    """A function of every number for itself, with |f(x)| <= |x| and |f'(x)| <= `slope`."""

    def __init__(self, function: Callable[[Tensor], Tensor], slope: float):
        self.function, self.slope = function, slope

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        return self.function(x), ()

    def bound(self, bounds: Bounds) -> Bounds:
        error, peak = bounds
        return torch.minimum(self.slope * error, 2 * peak + error), peak


def gelu() -> Activation:
    """GELU, whose slope is largest at sqrt 2: 1/2 + erf(1) / 2 + exp(-1) / sqrt pi."""
    return Activation(F.gelu, 0.5 + 0.5 * math.erf(1.0) + math.exp(-1.0) / math.sqrt(math.pi))


def relu() -> Activation:
    """ReLU."""
    return Activation(F.relu, 1.0)


class Affine(Part):
    """y = W x + b at every sample: a layer that mixes channels, or with a vector W one that scales each."""

    def __init__(self, layer: Callable[[Signal], Signal], weight: Tensor, bias: Tensor | None):
        self.layer = layer
        self.weight = weight.detach().double().abs()
        self.bias = torch.zeros(len(weight)).to(self.weight) if bias is None else bias.detach().double().abs()

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        return self.layer(x), ()

    def bound(self, bounds: Bounds) -> Bounds:
        error, peak = (self.weight @ part if self.weight.ndim == 2 else self.weight * part for part in bounds)
        return error, peak + self.bias


class Shift(Part):
    """The signal plus a number for every channel."""

    def __init__(self, bias: Tensor):
        self.bias = bias.detach()

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        return x + self.bias.to(x.dtype)[:, None], ()

    def bound(self, bounds: Bounds) -> Bounds:
        error, peak = bounds
        return error, peak + self.bias.double().abs()


class Window(Part):
    """Causal convolution with taps (channels, lags) or (out, in, lags), which are remembered as they are: exact.

    The state is the last lags - 1 samples.
    """

    def __init__(self, taps: Taps):
        self.taps = taps.detach()

    def begin(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensors:
        return (torch.zeros(batch, self.taps.shape[-2], self.taps.shape[-1] - 1, dtype=dtype, device=device),)

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        seen = torch.cat([state[0].to(x.dtype), x], dim=-1)
        if x.shape[-1] == 1:  # a product with the samples that the taps meet
            met = seen.flip(-1)
            dense = self.taps.ndim == 3
            y = (
                torch.einsum("bck,ock->bo", met, self.taps.to(x.dtype))
                if dense
                else (met * self.taps.to(x.dtype)).sum(-1)
            )
            return y[..., None], (seen[..., 1:].to(state[0].dtype, copy=True),)
        y = convolve(seen, self.taps.to(x.dtype), causal=True)[..., -x.shape[-1] :]
        return y, (seen[..., x.shape[-1] :].to(state[0].dtype, copy=True),)  # a view would keep the signal

    def bound(self, bounds: Bounds) -> Bounds:
        return convolved_bounds(self.taps, torch.zeros_like(self.taps.double().sum(-1)), bounds)


def convolved_bounds(taps: Taps, l1: Tensor, bounds: Bounds) -> Bounds:
    """Bounds behind a convolution with other taps, which differ by `l1` in the sum of moduli.

    y - y' = k * (u - u') + (k - k') * u', and |u'| <= |u| + |u - u'|.
    """
    error, peak = bounds
    size = taps.double().abs().sum(-1)
    if taps.ndim == 3:
        return size @ error + l1 @ (peak + error), size @ peak
    return size * error + l1 * (peak + error), size * peak


class Normalized(Part):
    """(x - mean) / sqrt(variance + eps) over the channels of every sample, times weight plus bias."""

    def __init__(self, layer: Callable[[Signal], Signal], weight: Tensor, bias: Tensor, eps: float):
        self.layer, self.eps = layer, eps
        self.weight, self.bias = weight.detach().double().abs(), bias.detach().double().abs()

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        return self.layer(x), ()

    def bound(self, bounds: Bounds) -> Bounds:
        """C numbers of mean 0 and variance 1 are at most sqrt(C - 1); the derivative is at most 1 / sqrt(eps) in l2."""
        error, _ = bounds
        most = self.weight * math.sqrt(len(self.weight) - 1)
        steep = self.weight * (error.norm() / math.sqrt(self.eps))
        return torch.minimum(steep, 2 * most), most + self.bias


class Mean(Part):
    """The mean over all samples so far."""

    def __init__(self, channels: int):
        self.channels = channels

    def begin(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensors:
        # In float64, in which sums of millions of samples stay exact enough.
        return (
            torch.zeros(batch, self.channels, dtype=torch.float64, device=device),
            torch.zeros(batch, 1, dtype=torch.float64, device=device),
        )

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        total, count = state
        totals = total[..., None] + x.double().cumsum(-1)
        counts = count[..., None] + torch.arange(1, x.shape[-1] + 1, dtype=torch.float64, device=x.device)
        return (totals / counts).to(x.dtype), (totals[..., -1].clone(), counts[..., -1].clone())

    def bound(self, bounds: Bounds) -> Bounds:
        return bounds


class Layer(Part):
    """A module that looks at every sample for itself, in front of everything that has errors."""

    def __init__(self, layer: nn.Module, peak: PerChannel | None = None):
        self.layer, self.peak = layer, peak

    def run(self, x: Signal, state: Tensors) -> tuple[Signal, Tensors]:
        return self.layer(x), ()

    def bound(self, bounds: Bounds) -> Bounds:
        return (torch.zeros_like(self.peak), self.peak) if self.peak is not None else bounds
