"""A causal convolution as a recurrence over the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, check_integer, describe
from omniconv._typing import Signal
from omniconv.engines.recurrent import prefill_modes
from omniconv.recurrence.poles import Poles

State = Annotated[Tensor, "batch channels modes, complex"]


@dataclass(frozen=True, eq=False)
class Recurrence:
    """y_t = direct u_t + Re sum_n residues_n X_{t-1, n};  X_t = poles X_{t-1} + u_t, for every channel.

    So the tap at lag 0 is `direct`, and that at lag t >= 1 is Re sum_n residues_n poles_n^(t-1): the state is read
    before it takes the sample in. It has constant size, `modes` complex numbers per channel, whatever came before.

    `poles`, `residues`: complex128, (channels, modes), of modulus at most 1 (poles). `direct`: float64, (channels,).
    Raises `ValueError` or `TypeError` that names the argument.

    >>> half = Recurrence(torch.tensor([[0.5 + 0j]]), torch.tensor([[1 + 0j]]), torch.tensor([2.0]))
    >>> half.taps(4).tolist()
    [[2.0, 1.0, 0.5, 0.25]]
    >>> y, state = half.step(torch.ones(1, 1), half.init_state(1))
    >>> half.step(torch.zeros(1, 1), state)[0].tolist()
    [[1.0]]
    """

    poles: Poles
    residues: Poles
    direct: Annotated[Tensor, "channels"]

    def __post_init__(self) -> None:
        for name, values in (("poles", self.poles), ("residues", self.residues)):
            if not isinstance(values, Tensor) or not values.dtype.is_complex or values.ndim != 2:
                raise TypeError(f"`{name}` must hold complex numbers (channels, modes); got {describe(values)}.")
        if self.residues.shape != self.poles.shape:
            raise ValueError(
                f"`residues` must have the shape of `poles`, {tuple(self.poles.shape)}; got {describe(self.residues)}."
            )
        check_floating_tensor("direct", self.direct)
        if self.direct.shape != self.poles.shape[:1]:
            raise ValueError(f"`direct` must be ({len(self.poles)},), one per channel; got {describe(self.direct)}.")
        largest = float(self.poles.abs().max()) if self.poles.numel() else 0.0
        if not largest <= 1.0:
            raise ValueError(
                f"`poles` must lie within the unit circle; the largest has modulus {largest:.6g}, and its state would "
                "grow without end. Scale them back, or fit them with `distill`."
            )
        for name, values in (("residues", self.residues), ("direct", self.direct)):
            if not bool((finite := values.isfinite()).all()):
                raise ValueError(f"`{name}` must be finite; got {values[~finite][0].item()}. Check the fit it is of.")
        for name, dtype in (("poles", torch.complex128), ("residues", torch.complex128), ("direct", torch.float64)):
            object.__setattr__(self, name, getattr(self, name).detach().to(dtype))

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.poles)

    @property
    def modes(self) -> int:
        """Complex numbers of state per channel."""
        return self.poles.shape[1]

    def of(self, channels: slice) -> Recurrence:
        """That of some channels."""
        return Recurrence(self.poles[channels], self.residues[channels], self.direct[channels])

    def to(self, device: torch.device | str) -> Recurrence:
        """The same on a device."""
        return Recurrence(self.poles.to(device), self.residues.to(device), self.direct.to(device))

    def taps(self, length: int) -> Annotated[Tensor, "channels length"]:
        """The taps at the lags 0 .. length - 1, in float64."""
        check_integer("length", length)
        impulse = torch.zeros(1, self.channels, length, dtype=torch.float64, device=self.poles.device)
        impulse[..., 0] = 1
        return self.prefill(impulse)[0][0]

    def init_state(self, batch: int, *, dtype: torch.dtype = torch.float32) -> State:
        """The state of silence, for signals of that dtype: complex64, or complex128 for float64."""
        shape = (check_integer("batch", batch, minimum=0), *self.poles.shape)
        return torch.zeros(shape, dtype=self._state_dtype(dtype), device=self.poles.device)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The output (batch, channels) for one more sample `x` (batch, channels), and the new state.

        The state is multiplied in float64 and kept in its own precision, so that the poles are not rounded.
        """
        if not isinstance(x, Tensor) or x.ndim != 2:
            raise ValueError(f"`x` must be (batch, {self.channels}), a sample per channel; got {describe(x)}.")
        self._check(x[:, :, None], state)
        y = self.direct * x + (self.residues * state).sum(-1).real
        return y.to(x.dtype), (self.poles * state + x[..., None]).to(state.dtype)

    def prefill(self, x: Signal, state: State | None = None) -> tuple[Signal, State]:
        """The outputs for a signal (batch, channels, length), of any length, that goes on from `state`; the new state.

        What as many calls of `step` give, in blocks of products of matrices: O(length modes) work, O(length) memory.
        Without a `state` nothing came before.
        """
        if state is None:
            self._check(x, None)
            state = self.init_state(x.shape[0], dtype=x.dtype)
        self._check(x, state)
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        first = (self.residues * state).sum(-1).real.to(exact.dtype)[..., None]
        later, new = prefill_modes(exact, self.poles, self.residues, state.to(self.poles.dtype))
        y = self.direct.to(exact.dtype)[:, None] * exact + torch.cat([first, later[..., :-1]], dim=-1)
        return y.to(x.dtype), new.to(state.dtype)

    def _state_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return torch.complex128 if dtype == torch.float64 else torch.complex64

    def _check(self, x: Any, state: Any) -> None:
        check_floating_tensor("x", x)
        if x.ndim != 3 or x.shape[1] != self.channels or x.shape[2] < 1:
            raise ValueError(f"`x` must be (batch, {self.channels}, length), one sample at least; got {describe(x)}.")
        expected = (x.shape[0], *self.poles.shape)
        if state is not None and (not isinstance(state, Tensor) or tuple(state.shape) != expected):
            raise ValueError(f"`state` must be what `init_state` or the last call returned, {expected}; got "
                             f"{describe(state)}.")  # fmt: skip
        if state is not None and not state.is_complex():
            raise TypeError(f"`state` must hold complex numbers, as `init_state` gives them; got {describe(state)}.")
