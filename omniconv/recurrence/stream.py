"""Causal networks sample by sample, at constant memory, with a bound on what that changes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, check_integer, check_number, describe
from omniconv._typing import Signal, Tokens
from omniconv.models import CCNN, CKCNN, Network
from omniconv.recurrence.networks import StreamedLayer, parts_of
from omniconv.recurrence.parts import Chain, PerChannel
from omniconv.recurrence.state import State


@dataclass(frozen=True)
class StreamCertificate:
    """How far the outputs of a stream can be off from those of its network, for every signal no longer than `horizon`.

    `unit`: bounds (out_features,) for signals whose samples do not exceed 1 in modulus once they are standardised;
    `within` gives those for other limits. Both are in exact arithmetic: rounding comes on top.
    `layers`: what every convolution became. `horizon`: samples; None for any number.
    """

    unit: PerChannel
    layers: tuple[StreamedLayer, ...]
    horizon: int | None
    _chain: Chain
    _silence: PerChannel

    def within(self, peak: float) -> PerChannel:
        """Bounds for signals whose samples do not exceed `peak`, (0, inf), after standardisation."""
        return bound_of(self._chain, self._silence, check_number("peak", peak, low=0.0))

    def __str__(self) -> str:
        """A table."""
        lines = [f"{'layer':24} {'form':>12} {'states':>7} {'relative l2':>12} {'l1':>10}"]
        lines += [
            f"{one.name:24} {one.form:>12} {one.states:7} {one.relative:12.2e} {one.l1:10.2e}" for one in self.layers
        ]
        where = "" if self.horizon is None else f", in the first {self.horizon} samples"
        return "\n".join([*lines, f"bound on the outputs, for inputs up to 1{where}: {self.unit.max():.3g}"])


class Stream:
    """A causal network that takes samples as they come.

    `certificate`: how far its outputs can be off. `network`: a copy of what it stands for, in evaluation mode.
    Built by `stream`.
    """

    def __init__(self, network: Network, chain: Chain, layers: tuple[StreamedLayer, ...], horizon: int | None):
        self.network, self._chain = network, chain
        silence = torch.zeros(network.in_channels, dtype=torch.float64, device=network.head.readout.weight.device)
        self.certificate = StreamCertificate(bound_of(chain, silence, 1.0), layers, horizon, chain, silence)

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
        self, x: Signal | Tokens, state: State | None = None, *, lengths: Tensor | None = None, side: str = "right"
    ) -> tuple[Tensor, State]:
        """The outputs (batch, out_features, length) behind every sample of a signal, and the state behind the last.

        `x`: (batch, in_channels, length), or ids (batch, length). `state`: what came before; None for nothing.
        `lengths`: samples of every row, (batch,), where rows are padded on the `side` "right" or "left": what is there
        is not looked at, and outputs there are zero. The state is that behind every row's own last sample.
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
            return self._padded(x, state, check_lengths(lengths, x), side)
        y, tensors = self._chain.run(x, state.tensors)
        return y, State(tensors)

    def _padded(self, x: Tensor, state: State, lengths: list[int], side: str) -> tuple[Tensor, State]:
        """Rows of the same length together."""
        if side not in ("right", "left"):
            raise ValueError(f"`side` must be 'right' or 'left', where rows are padded; got {side!r}.")
        shape = (x.shape[0], self.network.out_features, x.shape[-1])
        outputs = torch.zeros(shape, dtype=self._dtype(x), device=x.device)
        for length in sorted(set(lengths) - {0}):
            rows = torch.tensor([i for i, own in enumerate(lengths) if own == length], device=x.device)
            there = slice(0, length) if side == "right" else slice(x.shape[-1] - length, None)
            y, tensors = self._chain.run(x[rows][..., there], state.select(rows).tensors)
            outputs[rows, :, there] = y
            state = state.put(rows, State(tensors))
        return outputs, state

    def _dtype(self, x: Tensor) -> torch.dtype:
        """That of the signals in the network."""
        return self.network.head.readout.weight.dtype if self._takes_ids else x.dtype

    @property
    def _takes_ids(self) -> bool:
        return self.network.embedding is not None

    def _shape(self, more: str) -> str:
        return f"ids (batch{more})" if self._takes_ids else f"(batch, {self.network.in_channels}{more})"


def stream(model: Network, *, tol: float | None = None, order: int | None = None, horizon: int | None = None) -> Stream:
    """A causal network as a recurrence: `init_state`, `step`, `prefill`, and a `certificate` of what that changes.

    Every convolution becomes a recurrence where one takes less memory than its taps and is within the tolerance, or,
    for modal kernels without a support, exact; the others remember as many samples as they have taps.
    Outputs are those of the network for the signal so far: with head "pool" the running mean, read out.

    `model`: a `CCNN` or `CKCNN` on causal series, with batch norm, or a view of one at another resolution; evaluation
    mode is what is streamed. `tol`: the relative l2 error that a kernel of a layer may have, (0, inf). `order`: instead
    of it, the real numbers of state of every channel (but for kernels of up to three taps, which stay taps). Without
    either all is exact.
    `horizon`: the length of the longest signal, if there is one; None for streams without end. It is as in `distill`.
    Raises `ValueError` or `TypeError` that names the argument and the layer.

    >>> model = CCNN(1, 2, size=32, blocks=1, width=4, causal=True).eval()
    >>> exact = stream(model)
    >>> x = torch.randn(3, 1, 32)
    >>> y, state = exact.prefill(x)
    >>> torch.allclose(y[..., -1], model(x), atol=1e-5), exact.certificate.unit.max().item()
    (True, 0.0)
    """
    if not isinstance(model, (CCNN, CKCNN)):
        raise TypeError(f"`model` must be a CCNN or a CKCNN; got {type(model).__name__}.")
    if tol is not None:
        check_number("tol", tol, low=0.0)
    if order is not None:
        check_integer("order", order)
    if horizon is not None:
        check_integer("horizon", horizon)
    if tol is not None and order is not None:
        raise ValueError(f"`tol` and `order` exclude each other; got {tol} and {order}. Give one.")
    model = copy.deepcopy(model).eval()  # what is trained later changes no stream
    chain, layers = parts_of(model, tol=tol, order=order, horizon=horizon)
    return Stream(model, chain, layers, horizon)


@torch.no_grad()
def bound_of(chain: Chain, silence: PerChannel, peak: float) -> PerChannel:
    """Bounds on the error of the outputs for inputs of that size."""
    return chain.bound((silence, silence + peak))[0]


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
