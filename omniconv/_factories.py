"""Parts that are made by what the user gave: a class, or `functools.partial` of one."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from omniconv._errors import describe
from omniconv._place import check_place


def build(factory: Any, kind: Any, name: str, sizes: tuple[int, ...], where: dict[str, Any]) -> Any:
    """Call `factory(*sizes, **where)`, and check what it makes against what it was called with.

    `kind`: the class that it has to make one of. `name`: of the argument that the factory is. `sizes`: `dim`, and
    `channels` for what has some. `where`: `reach` and `causal`, one value per axis, and what else the part takes.
    Raises `TypeError` for no factory of that kind, `ValueError` for a part that is not as it was asked for.
    """
    check_factory(factory, kind, name)
    check_place(where.get("device"), where.get("dtype"))
    part = factory(*sizes, **where)
    if not isinstance(part, kind):
        raise TypeError(
            f"`{name}` must be a callable that returns an omniconv {kind.__name__}; it returned {describe(part)}."
        )
    asked = dict(zip(("dim", "channels"), sizes, strict=False), reach=where["reach"], causal=where["causal"])
    for what, value in asked.items():
        if getattr(part, what) != value:
            raise ValueError(
                f"`{name}` must have the `{what}` it is called with, {value}; {type(part).__name__} has "
                f"{getattr(part, what)}. Hand it on to the constructor of {kind.__name__}."
            )
    return part


def check_factory(factory: Any, kind: Any, name: str) -> None:
    """Raise `TypeError` for what is no factory, and for a class of another kind."""
    if isinstance(factory, nn.Module) or not callable(factory):
        raise TypeError(
            f"`{name}` must be a {kind.__name__} class or functools.partial of one, which is called with the sizes "
            f"that it needs; got {describe(factory)}."
        )
    made = factory.func if isinstance(factory, partial) else factory
    if isinstance(made, type) and not issubclass(made, kind):
        raise TypeError(f"`{name}` must be a {kind.__name__} class; got the class {made.__name__}.")
