"""Names of the tensors that travel through the library, with their axes, and arguments given once or once per axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

import numpy as np
from torch import Tensor

from omniconv._errors import check_choice, check_integer, describe

T = TypeVar("T")

Signal: TypeAlias = Annotated[Tensor, "batch channels *size"]
Tokens: TypeAlias = Annotated[Tensor, "batch *size, integers: ids of tokens"]
Mask: TypeAlias = Annotated[Tensor, "batch *size, bool: True where a sample was observed"]
Taps: TypeAlias = Annotated[Tensor, "out in *size, or channels *size when depthwise"]
Positions: TypeAlias = Annotated[Tensor, "*points dim"]
Values: TypeAlias = Annotated[Tensor, "*points channels"]
Condition: TypeAlias = Annotated[Tensor, "batch conditions"]
Weights: TypeAlias = Annotated[Tensor, "*points"]

PerAxis: TypeAlias = T | Sequence[T]
"""One value for every axis, or a sequence with one value per axis."""


BOUNDARIES = ("zero", "circular")


def per_axis(name: str, value: Any, dim: int, check: Callable[[str, Any], T]) -> tuple[T, ...]:
    """One checked value per axis, from a single value or from a sequence, array or tensor of `dim` values.

    Raises `ValueError` if there is another number of values than `dim`; `check(name, value)` raises for bad values.

    >>> from omniconv._errors import check_integer
    >>> per_axis("size", 8, 2, check_integer)
    (8, 8)
    """
    values = value.tolist() if isinstance(value, (np.ndarray, Tensor)) else value
    if isinstance(values, str) or not isinstance(values, Sequence):
        return (check(name, values),) * dim
    if len(values) != dim:
        raise ValueError(f"`{name}` must be one value or {dim} values, one per axis; got {describe(value)}.")
    return tuple(check(name, item) for item in values)


def check_bool(name: str, value: Any) -> bool:
    """Return `value`, or raise `TypeError` unless it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False; got {describe(value)}.")
    return bool(value)


def check_reach(name: str, value: Any) -> int:
    """Return a reach in samples, or raise unless it is an integer of at least 0."""
    return check_integer(name, value, minimum=0)


def check_boundary(name: str, value: Any) -> str:
    """Return a boundary, or raise unless it is one that the engines know."""
    return check_choice(name, value, BOUNDARIES)


def check_directions(causal: tuple[bool, ...], boundary: tuple[str, ...]) -> None:
    """Raise `ValueError` if an axis is both causal and circular."""
    for axis, (past, edge) in enumerate(zip(causal, boundary, strict=True)):
        if past and edge == "circular":
            raise ValueError(
                f'`causal` and boundary "circular" exclude each other: axis {axis} has both, and around a circle the '
                'past is the future. Use boundary="zero" or causal=False there.'
            )
