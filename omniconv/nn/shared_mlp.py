"""The same layers at every position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_integer, check_probability, describe
from omniconv._typing import Signal
from omniconv.nn._checks import check_signal
from omniconv.nn.norm import BatchNorm
from omniconv.nn.pointwise import Pointwise


class SharedMLP(nn.Module):
    """The same layers at every position: a linear map, batch norm over the observed positions, ReLU, dropout.

    `in_channels`: at least 1. `widths`: outputs of the layers, each at least 1, none or several. `dropout`: [0, 1).
    `forward(x, mask=None)` takes `batch in_channels *size`, and returns `batch widths[-1] *size`, at least 0; behind
    the mask (batch, *size) stands anything. Raises `ValueError` in training where there is but one position in all.

    >>> SharedMLP(3, (16, 8))(torch.zeros(2, 3, 50)).shape
    torch.Size([2, 8, 50])
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        *,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        if not isinstance(widths, (tuple, list)):
            raise TypeError(f"`widths` must be a sequence of integers, one per layer; got {describe(widths)}.")
        self.in_channels = check_integer("in_channels", in_channels)
        steps = pairwise((self.in_channels, *(check_integer("widths", width) for width in widths)))
        self.maps = nn.ModuleList(Pointwise(a, b, bias=False, **place) for a, b in steps)  # a norm has the bias
        self.norms = nn.ModuleList(BatchNorm(width, **place) for width in widths)
        self.dropout = nn.Dropout(check_probability("dropout", dropout))

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        for part in (*self.maps, *self.norms):
            part.reset_parameters()

    def forward(self, x: Signal, mask: Tensor | None = None) -> Signal:
        check_signal(x, self.in_channels, mask)
        positions = x.shape[0] * math.prod(x.shape[2:])
        if self.training and self.maps and positions < 2:
            raise ValueError(
                "`x` must hold at least 2 clouds in training, and points: batch norm takes its statistics over them; "
                f"got {positions}. Leave out a last batch of one cloud, or call `eval()`."
            )
        for linear, norm in zip(self.maps, self.norms, strict=True):
            x = self.dropout(F.relu(norm(linear(x), mask)))
        return x


def largest(x: Signal, mask: Tensor | None) -> Tensor:
    """The maximum over the observed points per channel, of values of at least 0; 0 where there is no point.

    `x`: (batch, channels, points). Returns (batch, channels).
    """
    seen = x if mask is None else x.masked_fill(~mask[:, None], 0.0)
    return seen.amax(-1) if x.shape[-1] else x.new_zeros(x.shape[:-1])
