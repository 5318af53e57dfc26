"""Signals from tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_integer, describe
from omniconv._place import check_place
from omniconv._typing import Signal, Tokens


class TokenEmbedding(nn.Module):
    """A learned vector per token: ids (batch, *size) to `batch channels *size`.

    `tokens`: how many there are, at least 1; ids are integers in [0, tokens). `channels`: at least 1.
    `padding`: an id whose vector is zero, and stays so; None has none.

    The vectors are drawn from the standard normal distribution: every channel has unit variance.
    `forward` raises `TypeError` for ids that are not integers, and `ValueError` for ids out of range, the latter on a
    CPU and not in compiled code: the host would have to wait for another device, where the lookup itself fails.

    >>> TokenEmbedding(256, 8)(torch.tensor([[104, 101, 121]])).shape
    torch.Size([1, 8, 3])
    """

    def __init__(
        self,
        tokens: int,
        channels: int,
        padding: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.tokens, self.channels = check_integer("tokens", tokens), check_integer("channels", channels)
        if padding is not None and check_integer("padding", padding, minimum=0) >= self.tokens:
            raise ValueError(f"`padding` must be an id below `tokens` (={self.tokens}); got {padding}.")
        check_place(device, dtype)
        self.vectors = nn.Embedding(self.tokens, self.channels, padding, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the vectors anew."""
        self.vectors.reset_parameters()

    def forward(self, x: Tokens) -> Signal:
        self.check_ids(x)
        return self.vectors(x.long()).movedim(-1, 1)

    def check_ids(self, x: Any) -> None:
        """Raise what `forward` raises for ids that it does not take."""
        if not isinstance(x, Tensor) or x.dtype.is_floating_point or x.dtype.is_complex or x.dtype == torch.bool:
            raise TypeError(f"`x` must be a tensor of integers, the ids of tokens; got {describe(x)}.")
        if not x.ndim:
            raise ValueError(
                f"`x` must be (batch, *size), the ids of tokens; got {describe(x)}. Add axes with `x[None]`."
            )
        if not x.is_cpu or torch.compiler.is_compiling() or not x.numel():
            return
        lowest, highest = (int(end) for end in torch.aminmax(x))
        if lowest < 0 or highest >= self.tokens:
            raise ValueError(f"`x` must hold ids from 0 to {self.tokens - 1}; got {lowest} to {highest}.")
