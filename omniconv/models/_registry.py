"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatch
from typing import Any, TypeVar

from torch import nn

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

MODELS: dict[str, Callable[..., nn.Module]] = {}


def register_model(builder: Builder, name: str | None = None) -> Builder:
    """Make what builds a network available by its name, or by another; a decorator for functions."""
    MODELS[builder.__name__ if name is None else name] = builder
    return builder


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
