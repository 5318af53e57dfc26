"""Results that are nobody's view."""

from __future__ import annotations

import torch
from torch import Tensor


def owned(y: Tensor) -> Tensor:
    """The tensor, contiguous, and not a view, for autograd forbids changes in place of views.

    A view of memory that is its own, as the framework's convolutions along one axis return, becomes its owner.
    """
    y = y.contiguous()
    if not y._is_view():
        return y
    storage = y.untyped_storage()
    if storage.nbytes() != y.nbytes or torch._C._len_torch_dispatch_stack():  # who watches operators sees no storages
        return y.clone()
    return y.new_empty(0).set_(storage, 0, y.shape, y.stride())
