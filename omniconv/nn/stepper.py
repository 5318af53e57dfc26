"""Causal layers that take samples as they come."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_floating_tensor, check_integer, describe
from omniconv._typing import Signal, Tokens
from omniconv.nn._checks import check_placed
from omniconv.nn.causal import Chain, Filter, Part, Window
from omniconv.nn.state import Layout, State


class LayerStepper:
    """A causal map that takes samples as they come: `init_state`, `step`, `prefill`.

    `chain`: its parts, the last of which remembers nothing. `in_channels`, `out_channels`: of signals. `like`: a
    parameter, whose device and dtype it has. Made by `stepper` of a layer or a network.
    """

    axes = 3
    """Of a signal."""

    def __init__(self, chain: Chain, in_channels: int, out_channels: int, like: Tensor):
        self._chain, self.in_channels, self.out_channels, self._like = chain, in_channels, out_channels, like
        self._expected = self._layout(1)

    def init_state(self, batch: int = 1, *, dtype: torch.dtype | None = None) -> State:
        """What is remembered before the first sample, for signals of that dtype: float32 or float64.

        None is the dtype of the parameters, and float32 for half precision.
        """
        if dtype is None:
            dtype = torch.promote_types(self._like.dtype, torch.float32)
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"`dtype` must be torch.float32 or torch.float64; got {dtype!r}.")
        return State(self._chain.begin(check_integer("batch", batch, minimum=0), dtype, self._like.device))

    @torch.no_grad()
    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The output (batch, out_channels) behind one more sample (batch, in_channels), and the new state."""
        if not isinstance(x, Tensor) or x.ndim != self.axes - 1:
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
        """The outputs (batch, out_channels, length) behind every sample of a signal, and the state behind the last.

        `x`: (batch, in_channels, length). `state`: what came before; None for nothing.
        `lengths`: samples of every row, (batch,), where rows are padded on the `side` "right" or "left": what is there
        is not looked at, and outputs there are zero. The state is that behind every row's own last sample.
        `last`: only the output behind every row's own last sample, (batch, out_channels, 1), which takes less memory.
        Raises `ValueError` or `TypeError` that names the argument.
        """
        self._check(x)
        if state is None:
            state = self.init_state(x.shape[0], dtype=torch.promote_types(self._dtype(x), torch.float32))
        self._check_state(state, x.shape[0])
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
        shape = (x.shape[0], self.out_channels, 1 if last else x.shape[-1])
        outputs = torch.zeros(shape, dtype=self._dtype(x), device=x.device)
        for length in sorted(set(lengths) - {0}):
            rows = torch.tensor([i for i, own in enumerate(lengths) if own == length], device=x.device)
            there = slice(0, length) if side == "right" else slice(x.shape[-1] - length, None)
            y, new = self._run(x[rows][..., there], state.select(rows), last)
            outputs[rows, :, slice(None) if last else there] = y
            state = state.put(rows, new)
        return outputs, state

    def _dtype(self, x: Tensor) -> torch.dtype:
        """That of the signals within."""
        return x.dtype

    def _shape(self, more: str) -> str:
        return f"(batch, {self.in_channels}{more})"

    def _layout(self, batch: int) -> tuple[int, Layout]:
        """What a state of so many rows is like, without the memory of one."""
        return batch, Layout.of(self._chain.begin(batch, torch.float32, torch.device("meta")))

    def _check_state(self, state: Any, batch: int) -> None:
        """Raise unless `state` is one of this stepper, of so many rows.

        This is looked at in every step, so what is expected is kept for the rows that the last one had.
        """
        expected = self._expected
        if expected[0] != batch:
            expected = self._expected = self._layout(batch)
        if not isinstance(state, State) or Layout.of(state.tensors) != expected[1]:
            raise ValueError(refusal(state, batch, expected[1]))

    def _check(self, x: Any) -> None:
        """Raise unless `x` is a signal of one sample at least."""
        if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[-1] < 1:
            raise ValueError(f"`x` must be {self._shape(', length')}, one sample at least; got {describe(x)}.")
        if x.shape[1] != self.in_channels:
            raise ValueError(f"`x` must have {self.in_channels} channels; got {describe(x)}.")
        check_floating_tensor("x", x)
        own = torch.promote_types(self._like.dtype, torch.float32)
        if torch.promote_types(x.dtype, own) != own:  # less precise signals are taken
            check_placed(x, self._like)


class Steps(ABC):
    """Base of layers that may be causal, and then take a signal in pieces."""

    @abstractmethod
    def causal_part(self, name: str, filtered: Filter) -> Part:
        """The layer, whose name in a network is given, with `filtered` in place of its kernels."""

    @abstractmethod
    def _ends(self) -> tuple[int, int, Tensor]:
        """Channels that go in and come out, and a parameter."""

    def stepper(self) -> LayerStepper:
        """The layer as it is now, in evaluation mode, sample by sample: it remembers as many as its taps reach.

        Raises `ValueError` for a layer that looks at samples to come.
        """
        layer = copy.deepcopy(self)
        assert isinstance(layer, nn.Module)
        layer.eval()
        with torch.no_grad():
            part = layer.causal_part("the layer", lambda name, conv: Window(conv.taps()))
        return LayerStepper(Chain([part, Chain([])]), *layer._ends())


def refusal(state: Any, batch: int, expected: Layout) -> str:
    """In what `state` is none of that layout."""
    if not isinstance(state, State) or (state.tensors and state.batch != batch):
        what = f"one of {state.batch} rows" if isinstance(state, State) else describe(state)
        return f"`state` must be a `State` of {batch} rows, as `init_state` gives it; got {what}."
    own = "States go with the network, and the order of its recurrences, that they came from."
    count, given = len(expected.shapes), len(state.tensors)
    if given != count:
        return f"`state` must be a `State` of {count} tensors, as `init_state` gives it; got one of {given}. {own}"
    at, tensor = next(
        (i, tensor)
        for i, tensor in enumerate(state.tensors)
        if (tensor.shape, tensor.is_complex()) != (expected.shapes[i], expected.complexes[i])
    )
    kind = "complex" if expected.complexes[at] else "real"
    shape = tuple(expected.shapes[at])
    return f"`state`: tensor {at} must be {kind}, {shape}, as in `init_state`; got {describe(tensor)}. {own}"


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
