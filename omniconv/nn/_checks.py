"""What a layer asks of its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, describe
from omniconv._precision import HALF
from omniconv._typing import Mask
from omniconv.nn.masks import check_mask


def check_signal(x: Any, channels: int, mask: Mask | None = None) -> None:
    """Raise unless `x` is `batch channels *size` of real numbers, and `mask`, if there is one, that of its positions.

    For layers that take any number of axes; how many samples there are is theirs to ask.
    """
    check_floating_tensor("x", x)
    if x.ndim < 2 or x.shape[1] != channels:
        raise ValueError(f"`x` must be (batch, {channels}, *size); got {describe(x)}.")
    if mask is not None:
        check_mask(mask, x)


def check_samples(x: Tensor, dim: int) -> None:
    """Raise unless each of the last `dim` axes of the signal has a sample: of nothing there is no output."""
    if 0 in x.shape[x.ndim - dim :]:
        raise ValueError(
            f"`x` must have at least one sample on every axis; got {describe(x)}. Leave empty signals out."
        )


def check_placed(x: Tensor, gain: Tensor) -> None:
    """Raise unless the signal has the dtype of the layer, that of its `gain`, or half precision, and its device."""
    own = torch.promote_types(gain.dtype, torch.float32)
    if x.dtype not in HALF and x.dtype != own:
        raise TypeError(
            f"`x` must have the dtype of the layer, {own} (or half precision); got {x.dtype}. Convert the "
            "signal with `x.to(dtype)` or the layer with `.to(dtype)`."
        )
    if x.device != gain.device:
        raise ValueError(
            f"`x` must be on the device of the layer, {gain.device}; got {x.device}. Move one of them with "
            "`.to(device)`."
        )
