"""Mixing of channels, position by position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from omniconv._errors import check_floating_tensor, check_integer, describe
from omniconv._place import check_place
from omniconv._typing import Signal, check_bool
from omniconv.nn.causal import Affine, Part


class Pointwise(nn.Module):
    """The same linear map of the channels at every position: y[b, o, t] = sum_c W[o, c] x[b, c, t] + bias[o].

    `in_channels`, `out_channels`: at least 1. `bias`: whether there is one.
    The weights are drawn from a normal distribution and scaled so that white noise keeps its variance, on average over
    the outputs; the bias begins at zero.

    >>> Pointwise(3, 5)(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 5, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels)
        self.out_channels = check_integer("out_channels", out_channels)
        check_bool("bias", bias)
        check_place(device, dtype)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        self.weight.mul_(math.sqrt(self.out_channels) / self.weight.norm())
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Signal) -> Signal:
        check_floating_tensor("x", x)
        if x.ndim < 3 or x.shape[1] != self.in_channels:
            raise ValueError(f"`x` must be (batch, {self.in_channels}, *size); got {describe(x)}.")
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return mixed(self.weight.to(x.dtype), x.flatten(2), bias).unflatten(2, x.shape[2:])

    def causal_part(self) -> Part:
        """The layer as a causal map that takes a signal in pieces."""
        return Affine(self, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, bias={self.bias is not None}"


def mixed(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """y[b] = W x[b] + bias, of a weight (out, in), a bias (out,) and signals (batch, in, positions).

    The framework's product of a matrix and several copies the signals, and again on the way back. One product per
    sample copies nothing, and adds the bias on the way, but holds a gradient of the weight for every sample, which may
    be larger than few positions.
    """
    count, positions = x.shape[0], x.shape[2]
    if torch.compiler.is_compiling() or weight.numel() > sum(weight.shape) * positions:
        y = torch.matmul(weight, x)  # compiled code must not depend on sizes
        return y if bias is None else y + bias.to(y.dtype)[:, None]
    copies = weight.expand(count, -1, -1)
    return torch.bmm(copies, x) if bias is None else torch.baddbmm(bias[:, None], copies, x)
