"""The kernel and the support of a layer: made by what the user gave, checked before anything is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import describe
from omniconv.kernels import Kernel
from omniconv.supports import Support


def build_kernel(factory: Any, dim: int, channels: int, where: dict[str, Any]) -> Kernel:
    """The kernel that the factory makes, or an error that says what is wrong with it."""
    kernel: Kernel = build(factory, Kernel, "kernel", (dim, channels), where)
    if (kernel.dim, kernel.channels) != (dim, channels):
        raise ValueError(
            f"`kernel` must have {dim} axes and {channels} channels, as it is called; {type(kernel).__name__} has "
            f"{kernel.dim} and {kernel.channels}."
        )
    check_probe(kernel, "kernel", "values", (2, channels), f"(points, {channels})")
    return kernel


def build_support(factory: Any, dim: int, where: dict[str, Any]) -> Support:
    """The support that the factory makes, or an error that says what is wrong with it."""
    support: Support = build(factory, Support, "support", (dim,), where)
    if support.dim != dim:
        raise ValueError(
            f"`support` must have {dim} axes, as it is called; {type(support).__name__} has {support.dim}."
        )
    check_probe(support, "support", "weights", (2,), "(points,)")
    return support


def build(factory: Any, kind: Any, name: str, sizes: tuple[int, ...], where: dict[str, Any]) -> Any:
    """Call a factory, and check what it makes against what it was called with."""
    if isinstance(factory, nn.Module) or not callable(factory):
        raise TypeError(
            f"`{name}` must be a {kind.__name__} class or functools.partial of one, which the layer calls with its own "
            f"sizes; got {describe(factory)}."
        )
    if isinstance(factory, type) and not issubclass(factory, kind):
        raise TypeError(f"`{name}` must be a {kind.__name__} class; got the class {factory.__name__}.")
    part = factory(*sizes, **where)
    if not isinstance(part, kind):
        raise TypeError(
            f"`{name}` must be a callable that returns an omniconv {kind.__name__}; it returned {describe(part)}."
        )
    for what in ("reach", "causal"):
        if getattr(part, what) != where[what]:
            raise ValueError(
                f"`{name}` must have the `{what}` it is called with, {where[what]}; {type(part).__name__} has "
                f"{getattr(part, what)}. Hand it on to the constructor of {kind.__name__}."
            )
    return part


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
