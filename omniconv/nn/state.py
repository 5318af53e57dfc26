"""What a stream remembers, as plain tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


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

    def to(self, device: torch.device | str) -> State:
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def put(self, rows: Tensor, other: State) -> State:
        """The same with the state `other` in these rows."""
        pairs = zip(self.tensors, other.tensors, strict=True)
        return State(tuple(mine.index_copy(0, rows, theirs) for mine, theirs in pairs))
