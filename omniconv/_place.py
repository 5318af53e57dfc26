"""Where parameters are made, and of what dtype: checked before torch, which does not name the argument."""

from __future__ import annotations

from typing import Any

import torch

from omniconv._errors import describe


def check_place(device: Any, dtype: Any) -> None:
    """Raise unless parameters of that dtype can be made on that device; None stands for torch's own choice."""
    check_dtype(dtype)
    if device is not None:
        check_device(device)


def check_dtype(dtype: Any) -> None:
    """Raise `TypeError` unless `dtype` is None or one of real floating-point numbers."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(
            f"`dtype` must be a torch.dtype of floating-point numbers, such as torch.float32, or None; got {dtype!r}."
        )


def check_device(device: Any) -> None:
    """Raise `TypeError` unless `device` says one, `ValueError` unless torch knows it and the machine has it."""
    if not isinstance(device, (torch.device, str, int)) or isinstance(device, bool):
        raise TypeError(f"`device` must be a torch.device, a string such as 'cpu', or None; got {describe(device)}.")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"`device` must be one that torch knows, such as 'cpu', 'cuda' or 'cuda:1'; got {device!r}."
        ) from error
    if found.type in ("cpu", "meta"):
        return
    try:
        there = torch.get_device_module(found).device_count()
    except (RuntimeError, AttributeError):  # of this kind nobody can be asked how many there are
        return
    if (found.index or 0) >= there:
        kinds = f"{there} of the kind {found.type!r}" if there else f"none of {found.type!r}"
        raise ValueError(
            f"`device` must be one that this machine has; got {str(found)!r}, and torch finds {kinds}. Use "
            "device='cpu', or another index."
        )
