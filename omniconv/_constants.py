"""Numbers of the program as tensors, made where they are needed."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import torch
from torch import Tensor


def numbers(values: Iterable[float], like: Tensor) -> Tensor:
    """The values along one axis, in the dtype and on the device of `like`.

    They are filled in on the device, run by run. A copy of a list would have the host wait for a graphics processor,
    and cannot be recorded in a CUDA graph.

    >>> numbers([1, 1, 0.5], torch.zeros(()))
    tensor([1.0000, 1.0000, 0.5000])
    """
    runs = [(value, len(list(run))) for value, run in groupby(values)]
    filled = [torch.full((length,), value, dtype=like.dtype, device=like.device) for value, length in runs]
    return filled[0] if len(filled) == 1 else torch.cat(filled)
