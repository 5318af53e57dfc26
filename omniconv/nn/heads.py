"""What a network makes of its last signal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omniconv._typing import Signal
from omniconv.nn.pointwise import Pointwise


class Head(nn.Module):
    """A linear read-out of `channels` into `out_features`."""

    def __init__(
        self,
        channels: int,
        out_features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.readout = Pointwise(channels, out_features, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        self.readout.reset_parameters()


class PoolHead(Head):
    """The mean over all positions, read out: `batch channels *size` to `batch out_features`."""

    def forward(self, x: Signal) -> Tensor:
        return self.readout(x.flatten(2).mean(-1, keepdim=True)).squeeze(-1)


class LastHead(Head):
    """The last position of every axis, read out: `batch channels *size` to `batch out_features`."""

    def forward(self, x: Signal) -> Tensor:
        return self.readout(x.flatten(2)[..., -1:]).squeeze(-1)


class DenseHead(Head):
    """Every position, read out: `batch channels *size` to `batch out_features *size`."""

    def forward(self, x: Signal) -> Tensor:
        return self.readout(x)
