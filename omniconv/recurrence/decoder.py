"""The whole step of a distilled language model as a few kernels, in one graph of the GPU."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._errors import check_integer, describe
from omniconv._typing import Signal, Tokens
from omniconv.engines.decode import TAPS, gated_step, multi_head_step, runs_fused
from omniconv.models import Stepper
from omniconv.models.hyena import GatedNetwork
from omniconv.nn import ChannelNorm, Conv, GatedBlock, MultiHeadConv, PoolHead, State
from omniconv.recurrence.modal import Modal
from omniconv.recurrence.recurrence import Recurrence
from omniconv.recurrence.stream import Stream

SLOWEST = 2**-8
"""1 - modulus of a pole, below which a state in bfloat16 may be less than half of what a constant input makes of it."""

LEAST_GAIN = 2**-12
"""Of a state in bfloat16: one with a pole on the unit circle has no variance that could be brought to 1."""


class Decoder(Stepper):
    """Writes with a distilled Hyena or MultiHyena, a fixed number of texts at a time.

    It holds one state in buffers that it changes in place. A step is one kernel for every mixer, from the short
    convolution to the last gate, beside products of matrices; on a CUDA device all of it is recorded once as a graph,
    and replayed. `prefill`, `step` and `generate` are those of the stream.

    `streamed`: of a `Hyena` of order 2 or a `MultiHyena`, or of a view of one at another resolution, with tokens as
    wide as the network, all of whose long convolutions became recurrences, and none of the short ones; where these have
    more than three taps, plain PyTorch stands for the kernel. `batch`: texts, at least 1. `state_dtype`: float32,
    float64 for a network in float64, or bfloat16, which halves what is read and written: every state is then scaled to
    unit variance under white noise. What adds less than half a unit in the last place to a state of bfloat16 is lost:
    a mode with a pole of modulus r holds of a constant input too little, by up to 2^-8 / (1 - r) of what it holds.
    Where 1 - r < 2^-8 for any pole a `UserWarning` names the slowest: such states should be of float32.
    Raises `ValueError` or `TypeError` that names what does not fit.

    >>> from omniconv.models import Hyena
    >>> from omniconv.recurrence import stream
    >>> model = Hyena(8, 16, size=32, blocks=1, width=8, tokens=16, tied=True, head="dense").eval()
    >>> streamed, ids = stream(model, order=4), torch.randint(16, (2, 5))
    >>> decoder = Decoder(streamed, batch=2)
    >>> torch.equal(decoder.generate(ids, 4, temperature=0).ids, streamed.generate(ids, 4, temperature=0).ids)
    True

    Massaroli et al. 2023 (Laughing Hyena Distillery).
    """

    def __init__(self, streamed: Stream, batch: int, *, state_dtype: torch.dtype = torch.float32):
        if not isinstance(streamed, Stream) or not isinstance(network := streamed.network, GatedNetwork):
            raise TypeError(f"`streamed` must be a stream of a Hyena or MultiHyena; got {describe(streamed)[:80]}.")
        if network.embedding is None or network.stem is not None:
            raise ValueError("`streamed` must take tokens whose vectors are as wide as the network, without a stem.")
        if isinstance(network.head, PoolHead):
            raise ValueError(
                '`streamed` must have the head "dense" or "last"; it has "pool", the mean over all that came, which no '
                "fused step keeps. Step with the stream itself."
            )
        super().__init__(network, streamed._chain)
        self.streamed, self.batch = streamed, check_integer("batch", batch)
        self.state_dtype = check_state_dtype(state_dtype, network.embedding.vectors.weight.dtype)
        place = (batch, self.state_dtype, network.embedding.vectors.weight)
        with torch.no_grad():
            self.blocks = [
                step_of(f"blocks.{i}", block, streamed, place)  # type: ignore[arg-type]
                for i, block in enumerate(network.blocks)
            ]
        if self.state_dtype == torch.bfloat16:
            warn_of_slow_poles(streamed.recurrences)
        self._held: State | None = None
        self._token = torch.zeros(batch, dtype=torch.long, device=place[2].device)
        self._logits: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes of what it remembers, of all texts."""
        return sum(block.window.nbytes + block.state.nbytes for block in self.blocks)

    def prefill(
        self,
        x: Signal | Tokens,
        state: State | None = None,
        *,
        lengths: Tensor | None = None,
        side: str = "right",
        last: bool = False,
    ) -> tuple[Tensor, State]:
        """As `Stream.prefill`, for `batch` texts; the decoder goes on from what it returns.

        `state`: of the stream, or what the last step returned.
        """
        state = self._of_stream(state)
        outputs, state = self.streamed.prefill(x, state, lengths=lengths, side=side, last=last)
        self.load(state)
        return outputs, state

    def _of_stream(self, state: State | None) -> State | None:
        """The state of the stream that is remembered, for one that a step returned; any other as it is."""
        if not isinstance(state, State) or not state.tensors or state.tensors[0] is not self._token:
            return state
        self._check_held(state)
        return State(tuple(tensor for block in self.blocks for tensor in block.unloaded()))

    @torch.no_grad()
    def load(self, state: State) -> None:
        """Go on from a state of the stream. Raises `ValueError`, and changes nothing, for another."""
        self._check_state(state, self.batch)
        for block, window, modal in zip(self.blocks, state.tensors[::2], state.tensors[1::2], strict=True):
            block.load(window, modal)
        self._held = state

    @torch.no_grad()
    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The logits (batch, tokens) behind one more token (batch,), in a buffer that the next step overwrites.

        `state`: what `prefill` or the last step returned; it stands for the one that the decoder holds.
        Raises `ValueError` or `TypeError` that names the argument; for ids out of range on a CPU alone, because the
        host would have to wait for another device.
        """
        self._check_held(state)
        if not isinstance(x, Tensor) or tuple(x.shape) != (self.batch,):
            raise ValueError(f"`x` must be ids ({self.batch},); got {describe(x)}.")
        assert self.network.embedding is not None
        self.network.embedding.check_ids(x)
        self._token.copy_(x)
        logits = self._replayed() if self._token.is_cuda else self._forward()
        self._held = State((self._token,))  # a new one: the state before is gone
        return logits, self._held

    def _check_held(self, state: Any) -> None:
        if state is not self._held:
            raise ValueError("`state` must be the one that this decoder returned last: it holds no other. Call `load`.")

    def _replayed(self) -> Tensor:
        """A step by the graph, which is recorded at the first."""
        if self._graph is None:
            self._record()
        assert self._graph is not None
        assert self._logits is not None
        with torch.cuda.device(self._token.device):
            self._graph.replay()
        return self._logits

    def _forward(self) -> Tensor:
        network = self.network
        assert isinstance(network, GatedNetwork)
        assert network.embedding is not None
        x = network.embedding.vectors(self._token)
        for block in self.blocks:
            x = block(x)
        return linear(normed(x, network.norm), network.head.readout)

    def _record(self) -> None:
        """Record a step. Warming up takes steps too: what they change is put back, whether there is a graph or not."""
        buffers = [buffer for block in self.blocks for buffer in (block.window, block.state)]
        before, device = [buffer.clone() for buffer in buffers], self._token.device
        here, aside, graph = torch.cuda.current_stream(device), torch.cuda.Stream(device), torch.cuda.CUDAGraph()
        aside.wait_stream(here)
        try:
            with torch.cuda.stream(aside):
                for _ in range(3):
                    self._forward()
            # On the stream that warmed up: what libraries allocate once per stream is there already.
            with torch.cuda.device(device), torch.cuda.graph(graph, stream=aside):
                logits = self._forward()
        finally:
            here.wait_stream(aside)
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        self._graph, self._logits = graph, logits


class BlockStep(ABC):
    """One residual block, a token at a time, with its state in buffers."""

    def __init__(
        self,
        block: GatedBlock,
        recurrence: Recurrence,
        short_taps: Tensor,
        shape: Sequence[int],
        place: tuple[int, Any, Tensor],
    ):
        batch, state_dtype, like = place
        self.block, mixer, wide = block, block.mixer, torch.promote_types(like.dtype, torch.float32)
        self.samples = short_taps.shape[-1] - 1  # that the stream remembers
        padded = F.pad(short_taps, (0, max(0, TAPS - short_taps.shape[-1])))  # to what the kernel takes
        self.short_taps = padded.to(like.device, wide).contiguous()
        self.window = like.new_zeros(padded.shape[-1] - 1, batch, 3 * mixer.channels)
        self.state = like.new_zeros(recurrence.modes, 2, batch, *shape, dtype=state_dtype)
        poles, residues, self.gains = recurrence.poles, recurrence.residues, None
        if state_dtype == torch.bfloat16:
            self.gains = (1 - poles.abs().square()).clamp(min=LEAST_GAIN**2).sqrt().T.to(like.device, wide).contiguous()
            residues = residues / self.gains.T.to(residues)
        skip = mixer.skip.detach().reshape(-1).double().to(recurrence.direct.device)
        assert mixer.short.bias is not None
        self.short_bias = mixer.short.bias.detach().to(wide)
        # What a pole is rounded by adds up over the steps, but for what a state in bfloat16 is rounded by.
        exact = wide if state_dtype == torch.bfloat16 else torch.float64
        self.poles, self.residues = split(poles).to(like.device, exact), split(residues).to(like.device, wide)
        self.direct = (recurrence.direct + skip).to(like.device, wide)

    @property
    def fused(self) -> bool:
        """Whether the kernel for graphics processors runs it."""
        return runs_fused(self.window, self.window, self.state)

    @abstractmethod
    def unfolded(self, modal: Tensor) -> Tensor:
        """The state of a stream, complex, as this one is laid out: (modes, 2, batch, ...)."""

    @abstractmethod
    def folded(self, state: Tensor) -> Tensor:
        """The state of a stream, complex, of one that is laid out as this."""

    @abstractmethod
    def mixed(self, projected: Tensor) -> Tensor:
        """The step of the mixer between its linear maps."""

    def load(self, window: Tensor, modal: Tensor) -> None:
        """Go on from the state of a stream."""
        self.window.zero_()
        self.window[len(self.window) - self.samples :].copy_(window.permute(2, 0, 1))
        state = self.unfolded(modal)
        self.state.copy_(state if self.gains is None else state * self._over(self.gains))

    def unloaded(self) -> tuple[Tensor, Tensor]:
        """The state of a stream that goes on from here."""
        wide = torch.promote_types(self.window.dtype, torch.float32)
        window = self.window[len(self.window) - self.samples :].permute(1, 2, 0)
        state = self.state.to(wide)
        modal = self.folded(state if self.gains is None else state / self._over(self.gains))
        return window.to(wide, copy=True, memory_format=torch.contiguous_format), modal

    def _over(self, gains: Tensor) -> Tensor:
        """Gains (modes, filters), to multiply the state by."""
        return gains.reshape(len(gains), 1, 1, -1, *[1] * (self.state.ndim - 4))

    def __call__(self, x: Tensor) -> Tensor:
        block, mixer = self.block, self.block.mixer
        x = x + linear(self.mixed(linear(normed(x, block.norm_1), mixer.project)), mixer.mix)
        return x + linear(F.gelu(linear(normed(x, block.norm_2), block.up)), block.down)

    def arguments(self) -> dict[str, Tensor | None]:
        """Of the fused steps, by their names."""
        parts: dict[str, Tensor | None] = {"short_taps": self.short_taps, "short_bias": self.short_bias}
        parts |= {"poles": self.poles, "residues": self.residues, "direct": self.direct, "inputs": self.gains}
        return parts


class GatedStep(BlockStep):
    """That of a `GatedConv`: a recurrence for every channel."""

    def unfolded(self, modal: Tensor) -> Tensor:
        return torch.view_as_real(modal).permute(2, 3, 0, 1)

    def folded(self, state: Tensor) -> Tensor:
        return torch.view_as_complex(state.permute(2, 3, 0, 1).contiguous())

    def mixed(self, projected: Tensor) -> Tensor:
        return gated_step(projected, self.window, self.state, **self.arguments())  # type: ignore[arg-type]


class MultiHeadStep(BlockStep):
    """That of a `MultiHeadConv`: a recurrence for every filter, on all products of a head."""

    def unfolded(self, modal: Tensor) -> Tensor:
        width = self.block.mixer.head_width
        return torch.view_as_real(modal).unflatten(1, (width, width)).permute(4, 5, 0, 3, 1, 2)

    def folded(self, state: Tensor) -> Tensor:
        return torch.view_as_complex(state.permute(2, 4, 5, 3, 0, 1).contiguous()).flatten(1, 2)

    def mixed(self, projected: Tensor) -> Tensor:
        return multi_head_step(projected, self.window, self.state, **self.arguments())  # type: ignore[arg-type]


def step_of(name: str, block: GatedBlock, streamed: Stream, place: tuple[int, Any, Tensor]) -> BlockStep:
    """The step of a block, or raise."""
    mixer, recurrences = block.mixer, streamed.recurrences
    taps = short_taps(f"{name}.mixer.short", mixer.short, streamed)
    if isinstance(mixer, MultiHeadConv):
        shape = (mixer.n_filters, mixer.head_width, mixer.head_width)
        return MultiHeadStep(block, long_recurrence(f"{name}.mixer.long", recurrences), taps, shape, place)
    if mixer.order != 2:
        raise ValueError(f"{name} must be of order 2; it is of order {mixer.order}. Step with the stream itself.")
    return GatedStep(block, long_recurrence(f"{name}.mixer.long.0", recurrences), taps, (mixer.channels,), place)


def short_taps(name: str, conv: Conv, streamed: Stream) -> Tensor:
    """Those of a short convolution at the resolution of the stream, or raise."""
    network = streamed.network
    taps = conv.taps(network.spacing, network.lowpass).detach()
    if name in streamed.recurrences:
        raise ValueError(
            f"{name} became a recurrence in this stream, which no fused step takes. Give `stream` an `order` of "
            f"{taps.shape[-1] - 1} or more, at which its {taps.shape[-1]} taps stay, or step with the stream itself."
        )
    return taps


def long_recurrence(name: str, recurrences: dict[str, Modal]) -> Recurrence:
    """What a long convolution became, or raise."""
    if name not in recurrences:
        raise ValueError(
            f"{name} stays taps in this stream, which no fused step takes. Give `stream` an `order`, or a larger `tol`."
        )
    return recurrences[name].recurrence


def warn_of_slow_poles(recurrences: dict[str, Modal]) -> None:
    """Warn, at the call of a decoder, of poles whose states in bfloat16 would stick."""
    moduli = {name: float(modal.recurrence.poles.abs().max()) for name, modal in recurrences.items()}
    name = max(moduli, key=lambda name: moduli[name])
    if 1 - moduli[name] < SLOWEST:
        warnings.warn(
            f"`state_dtype` torch.bfloat16 is too coarse for the slowest pole, of modulus {moduli[name]:.7f} in "
            f"{name}: where 1 - modulus is below 2^-8, a state stays where it is though its input goes on. Use "
            "state_dtype=torch.float32.",
            stacklevel=3,
        )


def check_state_dtype(dtype: torch.dtype, network: torch.dtype) -> torch.dtype:
    """Return the dtype of a state, or raise."""
    known = (torch.float64,) if network == torch.float64 else (torch.float32, torch.bfloat16)
    if dtype not in known:
        raise TypeError(f"`state_dtype` must be one of {known} for a network in {network}; got {dtype}.")
    return dtype


def split(values: Tensor) -> Tensor:
    """Complex numbers (channels, modes) as real ones (modes, 2, channels)."""
    return torch.view_as_real(values.T.contiguous()).movedim(-1, 1).contiguous()


def normed(x: Tensor, norm: ChannelNorm) -> Tensor:
    """A norm over channels of rows (batch, channels)."""
    return norm(x[..., None])[..., 0]


def linear(x: Tensor, layer: Any) -> Tensor:
    """A linear map of rows (batch, channels)."""
    return F.linear(x, layer.weight, layer.bias)
