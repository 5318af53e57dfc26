"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import partial
from typing import Any, TypeVar

from torch import nn

from omniconv._errors import describe

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

MODELS: dict[str, Callable[..., nn.Module]] = {}


def register_model(builder: Builder, name: str | None = None) -> Builder:
    """Make what builds a network available by its name, or by another; a decorator for functions.

    Raises `ValueError` for a name that another network has; what is defined once more, as in a notebook, takes its
    own place. Raises `TypeError` for what builds nothing.
    """
    if not callable(builder):
        raise TypeError(f"`builder` must be a function or class that builds a network; got {describe(builder)}.")
    known = getattr(builder, "__name__", None) if name is None else name
    if not isinstance(known, str) or not known:
        raise TypeError(f"`name` must be a string, by which the network is found; got {describe(known)}.")
    if known in MODELS and origin(MODELS[known]) != origin(builder):
        raise ValueError(f"`name` must be a new one; {known!r} is taken by {origin(MODELS[known])[0]}. Choose another.")
    MODELS[known] = builder
    return builder


def origin(builder: Callable[..., nn.Module]) -> tuple[str, Any, Any]:
    """Where a builder is defined, and with which arguments given."""
    if isinstance(builder, partial):
        return origin(builder.func)[0], builder.args, builder.keywords
    return f"{builder.__module__}.{getattr(builder, '__qualname__', repr(builder))}", (), {}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell pattern, sorted.

    >>> list_models("flextcn*")
    ['flextcn_2', 'flextcn_4', 'flextcn_6']
    """
    return sorted(name for name in MODELS if fnmatch(name, pattern))


def create_model(name: str, **arguments: Any) -> nn.Module:
    """Build a registered network.

    `arguments`: for a size such as "ccnn_4_140" at least `in_channels`, `out_features` and `size`; for the preset of a
    task none but `device` and `dtype`.
    Raises `ValueError` that names the closest match for an unknown name, `TypeError` for an unknown argument.

    >>> model = create_model("ccnn_4_140", in_channels=1, out_features=10, size=(784,), causal=True)
    """
    if name not in MODELS:
        close = get_close_matches(name, MODELS, n=1) or list_models()
        raise ValueError(f"`name` must be one of list_models(); got {name!r}. Did you mean {close[0]!r}?")
    return MODELS[name](**arguments)
