"""The kernel and the support of a layer: made by what the user gave, checked before anything is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omniconv._errors import describe
from omniconv._factories import build
from omniconv.kernels import Kernel
from omniconv.supports import Support


def build_kernel(factory: Any, dim: int, channels: int, where: dict[str, Any]) -> Kernel:
    """The kernel that the factory makes, or an error that says what is wrong with it."""
    kernel: Kernel = build(factory, Kernel, "kernel", (dim, channels), where)
    check_probe(kernel, "kernel", "values", (2, channels), f"(points, {channels})")
    return kernel


def build_support(factory: Any, dim: int, where: dict[str, Any]) -> Support:
    """The support that the factory makes, or an error that says what is wrong with it."""
    support: Support = build(factory, Support, "support", (dim,), where)
    check_probe(support, "support", "weights", (2,), "(points,)")
    return support


@torch.no_grad()
def check_probe(part: Kernel | Support, name: str, what: str, shape: tuple[int, ...], expected: str) -> None:
    """Raise `ValueError` unless two positions give a tensor of that shape."""
    parameter = next(part.parameters(), torch.zeros((), device="cpu"))
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    result: Any = part(torch.zeros(2, part.dim, device=parameter.device, dtype=dtype))
    if not isinstance(result, Tensor) or result.shape != shape:
        raise ValueError(
            f"`{name}` must map positions of shape (points, {part.dim}) to {what} of shape {expected}; two points gave "
            f"{describe(result)}. Check the `forward` of {type(part).__name__}."
        )
