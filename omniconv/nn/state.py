"""What a stream remembers, as plain tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
"""Precisions in which there are no complex numbers to compute with."""


@dataclass(frozen=True, eq=False)
class State:
    """Tensors whose first axis is the batch: what lies behind every row of a stream.

    >>> state = State((torch.zeros(3, 2), torch.zeros(3, 5)))
    >>> state.select(torch.tensor([2, 0])).tensors[1].shape, state.nbytes
    (torch.Size([2, 5]), 84)
    """

    tensors: tuple[Tensor, ...]

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.tensors[0].shape[0]

    @property
    def nbytes(self) -> int:
        """Size in bytes, of all rows."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def _each(self, change: Callable[[Tensor], Tensor]) -> State:
        return State(tuple(change(tensor) for tensor in self.tensors))

    def select(self, rows: Tensor) -> State:
        """The state of some rows, in that order; rows may come several times."""
        return self._each(lambda tensor: tensor[rows])

    def clone(self) -> State:
        """A copy that shares nothing."""
        return self._each(torch.clone)

    def to(self, target: torch.device | str | torch.dtype) -> State:
        """The same on a device, or in a precision: real numbers in that dtype, complex ones of two numbers of it.

        So float64 makes complex128 of what is complex. Raises `TypeError` for a dtype that is not real and
        floating-point, and for half precision where a tensor is complex.
        """
        if not isinstance(target, torch.dtype):
            return self._each(lambda tensor: tensor.to(target))
        if not target.is_floating_point:
            raise TypeError(f"`target` must be a device or a real floating-point dtype; got {target}.")
        if target in HALF and any(tensor.is_complex() for tensor in self.tensors):
            raise TypeError(
                f"`target` must be torch.float32 or torch.float64 for a state with complex tensors; got {target}."
            )
        return self._each(lambda tensor: tensor.to(target.to_complex() if tensor.is_complex() else target))

    def put(self, rows: Tensor, other: State) -> State:
        """The same with the state `other` in these rows."""
        pairs = zip(self.tensors, other.tensors, strict=True)
        return State(tuple(mine.index_copy(0, rows, theirs) for mine, theirs in pairs))


class Layout(NamedTuple):
    """What the tensors of a state are like: their shapes, and which are complex. Quick to make, and to compare."""

    shapes: list[torch.Size]
    complexes: list[bool]

    @staticmethod
    def of(tensors: Sequence[Tensor]) -> Layout:
        """That of these tensors."""
        return Layout([tensor.shape for tensor in tensors], [tensor.is_complex() for tensor in tensors])
