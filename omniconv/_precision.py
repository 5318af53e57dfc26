"""Parameters whose rounding would change what a network computes beyond recognition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from omniconv._place import check_dtype

HALF = (torch.float16, torch.bfloat16)


class AtLeastFloat32(nn.Module):
    """Base of modules that `.half()` and `.bfloat16()` leave in float32.

    A kernel multiplies its frequencies, hundreds of radians, by positions: rounded to half precision they are another
    kernel. They are few, and everything after the kernel is sampled may be in any precision.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def careful(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            return tensor.to(applied.device) if applied.dtype in HALF else applied

        return super()._apply(careful, recurse)


def at_least_float32(dtype: torch.dtype | None) -> torch.dtype | None:
    """The dtype, or float32 where it is of half precision; raises `TypeError` for one that is not floating-point."""
    check_dtype(dtype)
    return torch.float32 if dtype in HALF else dtype
