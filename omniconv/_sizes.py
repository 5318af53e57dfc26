"""Learned sizes between bounds that they can approach but not leave."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from omniconv._constants import numbers


def size_logits(sizes: tuple[float, ...], narrowest: tuple[float, ...], widest: float) -> Tensor:
    """theta of `bounded_sizes`, in float64 on the CPU."""
    share = [math.log(size / low) / math.log(widest / low) for size, low in zip(sizes, narrowest, strict=True)]
    return torch.tensor(share, dtype=torch.float64, device="cpu").logit()


def bounded_sizes(logits: Tensor, narrowest: tuple[float, ...], widest: float) -> Tensor:
    """narrowest (widest / narrowest)^sigmoid(theta)."""
    low = numbers(narrowest, logits)
    return low * (widest / low) ** torch.sigmoid(logits)
