"""Parameters that several processes share between them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def is_sharded(model: nn.Module) -> bool:
    """Whether processes share the parameters of a network between them."""
    return any(type(parameter) is not nn.Parameter for parameter in model.parameters())


def whole(values: Tensor) -> Tensor:
    """The values without their graph; all of them where they are sharded: then every process has to ask at once."""
    return gathered(values.detach())


def gathered(values: Tensor) -> Tensor:
    """The values with their graph; all of them where they are sharded, as in `whole`."""
    if type(values) in (Tensor, nn.Parameter):
        return values
    from torch.distributed.tensor import DTensor  # slow to import, and only there are such parameters

    found: Any = values
    return found.full_tensor() if isinstance(found, DTensor) else found
