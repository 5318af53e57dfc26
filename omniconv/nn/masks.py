"""Which positions of a batch of signals were observed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omniconv._errors import describe
from omniconv._typing import Mask, Signal


def check_mask(mask: Any, x: Signal) -> None:
    """Raise unless `mask` says for every position of every signal of `x` whether it was observed."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"`mask` must be a tensor of bool, True where a sample was observed; got {describe(mask)}.")
    expected = (x.shape[0], *x.shape[2:])
    if tuple(mask.shape) != expected:
        raise ValueError(f"`mask` must be (batch, *size), here {expected}; got shape {tuple(mask.shape)}.")
    if mask.device != x.device:
        raise ValueError(f"`mask` must be on the device of `x`, {x.device}; got {mask.device}. Move one with `.to()`.")


def observed(x: Signal, mask: Mask | None) -> Signal:
    """The signal with zeros where nothing was observed, as it is beyond its ends; a mask may also be per channel."""
    if mask is None:
        return x
    seen = mask if mask.ndim == x.ndim else mask[:, None]
    return torch.where(seen, x, torch.zeros((), dtype=x.dtype, device=x.device))
