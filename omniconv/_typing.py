"""Names of the tensors that travel through the library, with their axes, and arguments given once or once per axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

from torch import Tensor

from omniconv._errors import describe

T = TypeVar("T")

Signal: TypeAlias = Annotated[Tensor, "batch channels *size"]
Taps: TypeAlias = Annotated[Tensor, "out in *size, or channels *size when depthwise"]
Positions: TypeAlias = Annotated[Tensor, "*points dim"]
Values: TypeAlias = Annotated[Tensor, "*points channels"]
Weights: TypeAlias = Annotated[Tensor, "*points"]

PerAxis: TypeAlias = T | Sequence[T]
"""One value for every axis, or a sequence with one value per axis."""


def per_axis(name: str, value: Any, dim: int, check: Callable[[str, Any], T]) -> tuple[T, ...]:
    """One checked value per axis, from a single value or a sequence of `dim` values.

    Raises `ValueError` if a sequence has another length than `dim`; `check(name, value)` raises for each bad value.

    >>> from omniconv._errors import check_integer
    >>> per_axis("size", 8, 2, check_integer)
    (8, 8)
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (check(name, value),) * dim
    if len(value) != dim:
        raise ValueError(f"`{name}` must be one value or {dim} values, one per axis; got {describe(value)}.")
    return tuple(check(name, item) for item in value)


def check_bool(name: str, value: Any) -> bool:
    """Return `value`, or raise `TypeError` unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False; got {describe(value)}.")
    return value
