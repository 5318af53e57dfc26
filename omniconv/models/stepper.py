"""Causal networks that take samples as they come."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, check_integer, describe
from omniconv._typing import Signal, Tokens
from omniconv.models._network import Network
from omniconv.models.generate import Generates
from omniconv.models.state import State
from omniconv.nn.causal import Chain


class Stepper(Generates):
    """A causal network that takes samples as they come: `init_state`, `step`, `prefill`, and `generate` for tokens.

    `network`: what it computes, whose state it begins with silence. `chain`: its parts.

    >>> from omniconv.models import CCNN
    >>> model = CCNN(1, 2, size=32, blocks=1, width=4, causal=True, head="last").eval()
    >>> stepper, x = Stepper(model, model.causal_part()), torch.randn(3, 1, 32)
    >>> y, state = stepper.prefill(x)
    >>> torch.allclose(y[..., -1], model(x), atol=1e-5)
    True
    """

    def __init__(self, network: Network, chain: Chain):
        self.network, self._chain = network, chain

    def stepper(self) -> Stepper:
        """This one."""
        return self

    def init_state(self, batch: int = 1, *, dtype: torch.dtype = torch.float32) -> State:
        """What is remembered before the first sample, for signals of that dtype: float32 or float64."""
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"`dtype` must be torch.float32 or torch.float64; got {dtype!r}.")
        device = next(self.network.parameters()).device
        return State(self._chain.begin(check_integer("batch", batch, minimum=0), dtype, device))

    @torch.no_grad()
    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The output (batch, out_features) behind one more sample, and the new state.

        `x`: (batch, in_channels), or ids (batch,) for a network of tokens.
        """
        if not isinstance(x, Tensor) or x.ndim != (1 if self._takes_ids else 2):
            raise ValueError(f"`x` must be one sample, {self._shape('')}; got {describe(x)}.")
        y, new = self.prefill(x[..., None], state)
        return y[..., 0], new

    @torch.no_grad()
    def prefill(
        self,
        x: Signal | Tokens,
        state: State | None = None,
        *,
        lengths: Tensor | None = None,
        side: str = "right",
        last: bool = False,
    ) -> tuple[Tensor, State]:
        """The outputs (batch, out_features, length) behind every sample of a signal, and the state behind the last.

        `x`: (batch, in_channels, length), or ids (batch, length). `state`: what came before; None for nothing.
        `lengths`: samples of every row, (batch,), where rows are padded on the `side` "right" or "left": what is there
        is not looked at, and outputs there are zero. The state is that behind every row's own last sample.
        `last`: only the output behind every row's own last sample, (batch, out_features, 1), which takes less memory.
        Raises `ValueError` or `TypeError` that names the argument.
        """
        if not isinstance(x, Tensor) or x.ndim != (2 if self._takes_ids else 3) or x.shape[-1] < 1:
            raise ValueError(f"`x` must be {self._shape(', length')}, one sample at least; got {describe(x)}.")
        if not self._takes_ids and x.shape[1] != self.network.in_channels:
            raise ValueError(f"`x` must have {self.network.in_channels} channels; got {describe(x)}.")
        if not self._takes_ids:
            check_floating_tensor("x", x)
        if state is None:
            state = self.init_state(x.shape[0], dtype=torch.promote_types(self._dtype(x), torch.float32))
        if not isinstance(state, State) or state.batch != x.shape[0]:
            what = f"one of {state.batch} rows" if isinstance(state, State) else describe(state)
            raise ValueError(f"`state` must be a `State` of {x.shape[0]} rows, as `init_state` gives it; got {what}.")
        if lengths is not None:
            return self._padded(x, state, check_lengths(lengths, x), side, last)
        return self._run(x, state, last)

    def _run(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        run = self._chain.run_to_last if last else self._chain.run
        y, tensors = run(x, state.tensors)
        return y, State(tensors)

    def _padded(self, x: Tensor, state: State, lengths: list[int], side: str, last: bool) -> tuple[Tensor, State]:
        """Rows of the same length together."""
        if side not in ("right", "left"):
            raise ValueError(f"`side` must be 'right' or 'left', where rows are padded; got {side!r}.")
        shape = (x.shape[0], self.network.out_features, 1 if last else x.shape[-1])
        outputs = torch.zeros(shape, dtype=self._dtype(x), device=x.device)
        for length in sorted(set(lengths) - {0}):
            rows = torch.tensor([i for i, own in enumerate(lengths) if own == length], device=x.device)
            there = slice(0, length) if side == "right" else slice(x.shape[-1] - length, None)
            y, new = self._run(x[rows][..., there], state.select(rows), last)
            outputs[rows, :, slice(None) if last else there] = y
            state = state.put(rows, new)
        return outputs, state

    def _dtype(self, x: Tensor) -> torch.dtype:
        """That of the signals in the network."""
        return self.network.head.readout.weight.dtype if self._takes_ids else x.dtype

    @property
    def _takes_ids(self) -> bool:
        return self.network.embedding is not None

    def _shape(self, more: str) -> str:
        return f"ids (batch{more})" if self._takes_ids else f"(batch, {self.network.in_channels}{more})"


def check_lengths(lengths: Any, x: Tensor) -> list[int]:
    """Return lengths of rows as integers, or raise."""
    if not isinstance(lengths, Tensor) or lengths.dtype.is_floating_point or lengths.shape != x.shape[:1]:
        raise ValueError(
            f"`lengths` must be integers ({x.shape[0]},), the samples of every row; got {describe(lengths)}."
        )
    found = [int(length) for length in lengths]
    if any(not 0 <= length <= x.shape[-1] for length in found):
        raise ValueError(f"`lengths` must be from 0 to {x.shape[-1]}, the samples of `x`; got {found}.")
    return found
