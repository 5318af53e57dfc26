"""Checks of what a user passes: each message names the argument, what was expected, what came and what to do."""

from __future__ import annotations

import math
import random
from collections.abc import Sized
from importlib import import_module
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

LONG = 100
"""Characters of a value, or items, beyond which a message says only what it is."""


class EngineError(ValueError):
    """A named engine cannot run the convolution it was asked for."""


class CheckpointError(OSError):
    """A checkpoint cannot be written, or none can be read."""


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is not a finite number; the message names where that began."""


class SampleError(ValueError, OSError):
    """A sample of a collection cannot be read; the message names it. Its cause is what reading it raised."""


class StepMemoryError(MemoryError):
    """A step of a training needs more memory than there is; the message says which smaller one to take."""


class Interrupted(Exception):  # noqa: N818, it is no error
    """Training was asked to stop, and wrote a checkpoint to go on from."""


def describe(value: object) -> str:
    """A short description of a value for error messages: dtype and shape of a tensor or array, else type and value.

    >>> describe([0] * 1000)
    'list of length 1000'
    """
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        return f"a {str(value.dtype).removeprefix('torch.')} {kind} of shape {tuple(value.shape)}"
    told, name = shown(value), type(value).__name__
    return told if told.startswith(f"{name} of ") else f"{name} {told}"


def shown(value: object) -> str:
    """The value as it is written, where that is one short line; else what it is, or its beginning.

    >>> shown(0.5), shown("a" * 1000)
    ('0.5', 'str of length 1000')
    """
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim > 0:
        return describe(value)
    if isinstance(value, Sized) and not isinstance(value, torch.Tensor | np.ndarray) and len(value) > LONG:
        return f"{type(value).__name__} of length {len(value)}"
    told = " ".join(repr(value).split())
    return told if len(told) <= LONG else f"{told[: LONG - 4]}..."


def check_floating_tensor(name: str, value: Any) -> None:
    """Raise `TypeError` unless `value` is a tensor of real floating-point numbers."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor; got {describe(value)}. Convert it with torch.as_tensor.")
    if not value.dtype.is_floating_point:
        raise TypeError(
            f"`{name}` must hold floating-point numbers; got {describe(value)}. Convert it with `.float()`."
        )


def check_integer(name: str, value: Any, minimum: int = 1) -> int:
    """Return `value` as an int, or raise unless it is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be an integer; got {describe(value)}.")
    if int(value) < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}; got {int(value)}.")
    return int(value)


def check_number(name: str, value: Any, low: float, high: float = math.inf, *, closed: bool = False) -> float:
    """Return `value` as a float, or raise unless it is a finite number with `low < value <= high`.

    `closed`: whether `low` itself is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a number; got {describe(value)}.")
    number = float(value)
    if not (math.isfinite(number) and (low < number or (closed and low == number)) and number <= high):
        bound = f"at least {low:g}" if closed else f"above {low:g}"
        bound += f" and at most {high:g}" if math.isfinite(high) else ""
        raise ValueError(f"`{name}` must be finite and {bound}; got {shown(value)}.")
    return number


def check_probability(name: str, value: Any) -> float:
    """Return a probability that must not be 1, as of dropping, as a float, or raise unless it is in [0, 1)."""
    if (number := check_number(name, value, low=0.0, closed=True)) >= 1.0:
        raise ValueError(f"`{name}` must be a probability below 1; got {shown(value)}.")
    return number


def check_instance(name: str, value: Any, kind: type[Any], *, remedy: str = "") -> None:
    """Raise `TypeError` unless `value` is of that kind; `remedy`: what to do, as a sentence."""
    if not isinstance(value, kind):
        called = f"torch.nn.{kind.__name__}" if kind is torch.nn.Module else kind.__name__
        article = "" if called.endswith("s") else "an " if called[0] in "AEIOU" else "a "
        got = type(value).__name__ if isinstance(value, torch.nn.Module) else describe(value)[:80]
        raise TypeError(f"`{name}` must be {article}{called}; got {got}." + (f" {remedy}" if remedy else ""))


def check_path(name: str, value: Any) -> Path:
    """Return `value` as a path, or raise `TypeError` unless it is one, or a string."""
    if not isinstance(value, str | PathLike) or not isinstance(fspath(value), str):
        raise TypeError(f"`{name}` must be a path; got {describe(value)}. Give a string or a pathlib.Path.")
    return Path(value)


def check_positions(positions: Any, dim: int) -> None:
    """Raise unless `positions` are floating-point numbers of shape `*points dim`."""
    check_floating_tensor("positions", positions)
    if positions.ndim == 0 or positions.shape[-1] != dim:
        raise ValueError(f"`positions` must be (*points, {dim}), a coordinate per axis; got {describe(positions)}.")


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Return `value`, or raise `ValueError` with the list of what is allowed."""
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {shown(value)}.")
    return str(value)


def require(package: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or raise `ImportError` that names the extra to install.

    Some packages draw numbers when they are imported, from the generator that a user may have seeded: not from here.
    """
    drawn = random.getstate()
    try:
        return import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {package.split('.')[0]!r}. Install it with: pip install 'omniconv[{extra}]'"
        ) from error
    finally:
        random.setstate(drawn)
