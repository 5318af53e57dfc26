"""Where host and device meet: what a CUDA graph cannot record, and what has one wait for the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

BROUGHT = ("aten.lift_fresh",)
"""A list that becomes a tensor."""
ASKED = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal")
"""A number that the host asks for, or a size that depends on numbers."""


class Between(TorchDispatchMode):
    """Names of the calls with which host and device meet."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, call: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        moved = str(call) == "aten._to_copy.default" and kwargs.get("device", args[0].device) != args[0].device
        if moved or str(call).startswith(BROUGHT + ASKED):
            self.seen.append(str(call))
        return call(*args, **kwargs)


def met(action: Callable[[], object]) -> list[str]:
    """Names of the calls in `action` with which host and device meet."""
    with Between() as between:
        action()
    return between.seen


def stays(action: Callable[[], object], what: str) -> None:
    """Raise `AssertionError` that says what to do, unless host and device never meet in `action`."""
    seen = ", ".join(dict.fromkeys(met(action)))
    if any(call in seen for call in ASKED):
        raise AssertionError(
            f"{what} asks the device for a number at every call ({seen}). Compute with tensors, without `.item()`, "
            "`float()` or `if` on their values."
        )
    if seen:
        raise AssertionError(
            f"{what} brings numbers from the host at every call ({seen}). Multiply by Python numbers, or fill a tensor "
            "on the device (in the library: `omniconv._constants.numbers`), rather than make one of a list."
        )
