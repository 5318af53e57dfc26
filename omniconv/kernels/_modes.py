"""Convolutions that a recurrence computes exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, check_integer, describe


@dataclass(frozen=True, eq=False)
class Modes:
    """The taps of a causal kernel as a sum of powers, and the recurrence that convolves with them.

    x_t = poles x_{t-1} + u_t;  y_t = Re sum residues x_t: the state takes the sample in before it is read, so that the
    tap at lag t is Re sum residues poles^t, the one at lag 0 too.

    `poles`, `residues`: complex, `channels modes`; a step is one sample of the reference grid.
    Raises `ValueError` or `TypeError` for tensors of other shapes and dtypes.

    >>> Modes(torch.tensor([[0.5 + 0j]]), torch.tensor([[2 + 0j]])).taps(4)
    tensor([[2.0000, 1.0000, 0.5000, 0.2500]])
    """

    poles: Annotated[Tensor, "channels modes"]
    residues: Annotated[Tensor, "channels modes"]

    def __post_init__(self) -> None:
        for name, values in (("poles", self.poles), ("residues", self.residues)):
            if not isinstance(values, Tensor) or not values.dtype.is_complex:
                raise TypeError(f"`{name}` must hold complex numbers; got {describe(values)}.")
        if self.poles.ndim != 2 or self.poles.shape != self.residues.shape:
            raise ValueError(
                "`poles` and `residues` must both be (channels, modes); got "
                f"{describe(self.poles)} and {describe(self.residues)}."
            )

    def taps(self, length: int) -> Annotated[Tensor, "channels length"]:
        """The taps at the lags 0 .. length - 1."""
        lags = torch.arange(check_integer("length", length), device=self.poles.device)
        powers = torch.where(lags == 0, 1, self.poles[..., None] ** lags)  # 0^0 of complex numbers is none
        return (self.residues[..., None] * powers).sum(-2).real

    def step(self, u: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The outputs for one more sample `u`, `*batch channels`, and the new state, `*batch channels modes`.

        Without a `state` nothing came before. Raises `ValueError` for other shapes, `TypeError` unless `u` holds
        floating-point numbers.

        >>> modes = Modes(torch.tensor([[0.5 + 0j]]), torch.tensor([[2 + 0j]]))
        >>> y, state = modes.step(torch.ones(1))
        >>> modes.step(torch.zeros(1), state)[0]
        tensor([1.])
        """
        channels = len(self.poles)
        check_floating_tensor("u", u)
        if u.ndim == 0 or u.shape[-1] != channels:
            raise ValueError(f"`u` must be (*batch, {channels}), a sample per channel; got {describe(u)}.")
        self._check_state(state, (*u.shape, self.poles.shape[-1]))
        past = torch.zeros_like(self.poles) if state is None else self.poles * state
        new = past + u[..., None]
        return (self.residues * new).sum(-1).real.to(u.dtype), new

    def _check_state(self, state: Tensor | None, shape: tuple[int, ...]) -> None:
        if state is None:
            return
        if not isinstance(state, Tensor):
            raise TypeError(f"`state` must be a tensor, what the last step returned; got {describe(state)}.")
        if state.shape != shape:
            raise ValueError(
                f"`state` must be what the last step returned, (*batch, channels, modes), here {shape}; got "
                f"{describe(state)}."
            )
