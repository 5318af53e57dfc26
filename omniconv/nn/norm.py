"""Normalisation of signals with any number of axes, over what was observed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from omniconv._errors import check_instance, check_integer, check_number, describe
from omniconv._place import check_place
from omniconv._precision import HALF
from omniconv._typing import Mask, Signal, check_bool
from omniconv.nn._checks import check_placed, check_signal
from omniconv.nn.causal import Affine, Normalized, Part
from omniconv.nn.masks import observed


class Standardize(nn.Module):
    """(x - mean) / std, per channel, with constants of the data: the identity until `set` gives them.

    A part of the network, so that a saved network takes signals in their own unit.

    >>> layer = Standardize(2)
    >>> layer.set(mean=[1.0, 0.0], std=[2.0, 1.0])
    >>> layer(torch.tensor([[[3.0], [5.0]]])).flatten().tolist()
    [1.0, 5.0]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None):
        super().__init__()
        self.channels = check_integer("channels", channels)
        check_place(device, dtype)
        self.register_buffer("mean", torch.zeros(channels, device=device, dtype=dtype))
        self.register_buffer("std", torch.ones(channels, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Be the identity."""
        self.mean.zero_()
        self.std.fill_(1.0)

    def set(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Take these constants, one per channel; raises `ValueError` unless they are finite and `std` is positive."""
        for name, values in (("mean", mean), ("std", std)):
            given = torch.as_tensor(values, dtype=torch.float64)
            if given.shape != (self.channels,) or not given.isfinite().all() or (name == "std" and given.min() <= 0):
                kind = "finite, positive" if name == "std" else "finite"
                raise ValueError(f"`{name}` must be {self.channels} {kind} numbers, one per channel; got {values!r}.")
            getattr(self, name).copy_(given)

    def forward(self, x: Signal) -> Signal:
        check_signal(x, self.channels)
        shape = (-1, *[1] * (x.ndim - 2))
        return (x - self.mean.to(x.dtype).reshape(shape)) / self.std.to(x.dtype).reshape(shape)

    def extra_repr(self) -> str:
        return f"{self.channels}"


def suits(x: Tensor, own: Tensor) -> bool:
    """Whether the norms of torch take this signal with such parameters."""
    return x.dtype == own.dtype or (x.dtype in HALF and own.dtype == torch.float32)


class BatchNorm(_BatchNorm):
    """`torch.nn.BatchNorm1d`, `2d` and `3d` in one: each channel over the batch and all positions.

    `forward(x, mask=None, measure=None)`: positions (batch, *size) that are False count for nothing in the statistics
    of training; the others all count alike, whatever their `measure`.
    The arguments are those of torch's layers; raises `ValueError` or `TypeError` that names the argument.
    `synchronized`: whether statistics are taken over the batches of all processes (see `synchronize`).

    >>> BatchNorm(4)(torch.zeros(2, 4, 8, 8, 8)).shape
    torch.Size([2, 4, 8, 8, 8])
    """

    synchronized = False

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        check_place(device, dtype)
        super().__init__(
            check_integer("num_features", num_features),
            check_number("eps", eps, low=0.0, closed=True),
            None if momentum is None else check_number("momentum", momentum, low=0.0, high=1.0, closed=True),
            check_bool("affine", affine),
            check_bool("track_running_stats", track_running_stats),
            device,
            dtype,
        )
        self.in_channels = self.out_channels = num_features

    def _check_input_dim(self, input: Tensor) -> None:
        """Nothing is left to check: `forward` did."""

    def forward(self, x: Signal, mask: Mask | None = None, measure: Tensor | None = None) -> Signal:
        check_signal(x, self.num_features, mask)
        like = self.running_mean if self.weight is None else self.weight
        if like is not None:
            check_placed(x, like)
        x = observed(x, mask)  # what lies behind the mask may be NaN, which no weight of zero removes
        own = self.training or self.running_mean is None  # statistics of this batch
        synchronized = self.synchronized and self.training
        alike = like is None or suits(x, like)
        if not own and not alike:
            return self._by_running_statistics(x)
        if not own or (mask is None and not synchronized and alike):
            if own and x.shape[0] * math.prod(x.shape[2:]) == 1:
                raise ValueError(
                    "`x` must have more than one value per channel in training, to have a variance; got "
                    f"{describe(x)}. Give more samples, or call `eval()`."
                )
            return super().forward(x)
        mean, variance, count = observed_moments(x, mask, synchronized)
        self._track(mean.detach(), variance.detach(), count)
        shape = (-1, *[1] * (x.ndim - 2))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight.to(scale.dtype)
        y = (x - mean.reshape(shape)) * scale.reshape(shape)
        return (y + self.bias.to(y.dtype).reshape(shape) if self.affine else y).to(x.dtype)

    def _by_running_statistics(self, x: Signal) -> Signal:
        """The norm at evaluation, for a signal of another precision than the parameters'."""
        values = (self.running_mean, self.running_var, self.weight, self.bias)
        return F.batch_norm(x, *(None if v is None else v.to(x.dtype) for v in values), eps=self.eps)  # type: ignore[arg-type, misc]

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, with the unbiased variance, as torch does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        tracked = self.num_batches_tracked.to(self.running_mean.dtype)
        share: Any = 1 / tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)

    def causal_part(self, name: str) -> Part:
        """The norm with its running statistics, as a causal map that takes a signal in pieces."""
        if self.running_mean is None or self.running_var is None:
            raise looks_ahead(name)
        scale = torch.rsqrt(self.running_var.double() + self.eps)
        scale = scale * self.weight.double() if self.affine else scale
        shift = -self.running_mean.double() * scale
        return Affine(self, scale, shift + self.bias.double() if self.affine else shift)


def looks_ahead(name: str) -> ValueError:
    """For a norm that takes its statistics over all samples, also those to come."""
    return ValueError(
        f"`model`: {name} normalises by all samples, also those to come. Build the network with batch norm, as "
        'CKCNN(.., norm="batch").'
    )


def observed_moments(x: Signal, mask: Mask | None, synchronized: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance per channel over the observed positions, and how many there are.

    In float32 at least; of all processes together if `synchronized`. Twice the data are gone through: sums of squares
    would cancel where the mean is large.
    """
    weight = x.new_ones(x.shape[0], 1, *x.shape[2:]) if mask is None else mask[:, None]
    axes = [0, *range(2, x.ndim)]
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    weight = weight.to(exact.dtype)
    total = AllReduce.apply if synchronized else (lambda values: values)
    count = total(weight.sum().reshape(1)).clamp(min=1)
    mean = total((exact * weight).sum(axes)) / count
    centred = (exact - mean.reshape(-1, *[1] * (x.ndim - 2))) * weight
    return mean, total(centred.square().sum(axes)) / count, count


class AllReduce(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of the gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def synchronize(model: nn.Module) -> None:
    """Let every `BatchNorm` of `model` take its statistics over all processes.

    Then several processes compute what one does with all their batches together. Every process has to call the network
    equally often. Without several processes this changes nothing.
    """
    check_instance("model", model, nn.Module)
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.synchronized = several


class LayerNorm(nn.GroupNorm):
    """Each sample over its channels and positions together, as CKCNN does; scale and shift per channel.

    `forward(x, mask=None, measure=None)`: positions (batch, *size) that are False count for nothing; `measure` (batch,
    *size) is the weight of every position, such as the time that it stands for.
    """

    def __init__(self, channels: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None):
        check_place(device, dtype)
        super().__init__(1, check_integer("channels", channels), device=device, dtype=dtype)
        self.in_channels = self.out_channels = channels

    def forward(self, x: Signal, mask: Mask | None = None, measure: Tensor | None = None) -> Signal:
        check_signal(x, self.num_channels, mask)
        check_placed(x, self.weight)
        if mask is None and measure is None:
            if suits(x, self.weight):
                return super().forward(x)
            return F.group_norm(x, 1, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)
        axes = list(range(1, x.ndim))
        exact = observed(x, mask).to(torch.promote_types(x.dtype, torch.float32))
        weight = exact.new_ones(x.shape[0], *x.shape[2:]) if measure is None else measure.to(exact.dtype)
        weight = (weight if mask is None else weight * mask)[:, None]
        total = weight.sum(axes, keepdim=True)
        total = torch.where(total > 0, total, 1.0) * x.shape[1]
        centred = exact - (exact * weight).sum(axes, keepdim=True) / total
        variance = (centred.square() * weight).sum(axes, keepdim=True) / total
        shape = (-1, *[1] * (x.ndim - 2))
        y = centred * torch.rsqrt(variance + self.eps)
        return (y * self.weight.to(y.dtype).reshape(shape) + self.bias.to(y.dtype).reshape(shape)).to(x.dtype)

    def causal_part(self, name: str) -> Part:
        """There is none: raises `ValueError`."""
        raise looks_ahead(name)


class ChannelNorm(nn.Module):
    """Each position over its channels: y = (x - mean) / sqrt(variance + eps) * weight + bias, as language models do.

    `channels`: at least 1. `eps`: added to the variance, (0, inf). In float32 at least.
    `forward(x, mask=None, measure=None)`: positions see nothing of each other, so neither changes anything that is
    observed.

    >>> ChannelNorm(4)(torch.randn(2, 4, 8)).mean(1).abs().max() < 1e-6
    tensor(True)
    """

    def __init__(
        self,
        channels: int,
        eps: float = 1e-5,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_place(device, dtype)
        self.channels, self.eps = check_integer("channels", channels), check_number("eps", eps, low=0.0)
        self.in_channels = self.out_channels = channels
        self.weight = nn.Parameter(torch.ones(channels, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Scale by 1, shift by 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Signal, mask: Mask | None = None, measure: Tensor | None = None) -> Signal:
        check_signal(x, self.channels, mask)
        exact = x.to(torch.promote_types(x.dtype, torch.float32)).movedim(1, -1)
        weight, bias = self.weight.to(exact.dtype), self.bias.to(exact.dtype)
        return F.layer_norm(exact, (self.channels,), weight, bias, self.eps).movedim(-1, 1).to(x.dtype)

    def causal_part(self, name: str) -> Part:
        """The norm as a causal map that takes a signal in pieces."""
        return Normalized(self, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}"
