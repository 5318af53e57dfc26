"""Normalisation of signals with any number of axes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorm(_BatchNorm):
    """`torch.nn.BatchNorm1d`, `2d` and `3d` in one: each channel over the batch and all positions.

    >>> import torch
    >>> BatchNorm(4)(torch.zeros(2, 4, 8, 8, 8)).shape
    torch.Size([2, 4, 8, 8, 8])
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2 or input.shape[1] != self.num_features:
            raise ValueError(f"`x` must be (batch, {self.num_features}, *size); got shape {tuple(input.shape)}.")


class LayerNorm(nn.GroupNorm):
    """Each sample over its channels and positions together, as CKCNN does; scale and shift per channel."""

    def __init__(self, channels: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None):
        super().__init__(1, channels, device=device, dtype=dtype)
