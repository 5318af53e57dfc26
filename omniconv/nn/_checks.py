"""What a layer asks of its input besides the shape."""

from __future__ import annotations

import torch
from torch import Tensor

from omniconv._precision import HALF


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
