"""Autoregressive decoding by models of 1.3 billion parameters: Transformers, Hyena with a cache, Hyena distilled.

    python benchmarks/decode.py --out docs/results

The weights are random: time does not depend on them. It ends within ten minutes on one H200; `--sizes small` runs the
same code with tiny models, on a CPU if there is nothing else. Where the fused step and the plain one disagree, or a
model's steps and its pass over the whole sequence, it exits with 1 and reports nothing.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from _report import interleaved, markdown, provenance, table, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from omniconv.bench.measure import copy_bandwidth, peak_memory, repeated
from omniconv.engines import convolve
from omniconv.engines.decode import gated_step, multi_head_step, reference_gated_step, reference_multi_head_step

SEED = 0
BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
BLOCK = 256
"""Samples whose part of a state one product of matrices makes."""
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Relative errors beyond which nothing is reported."""

State = list[Tensor]
Step = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """Of the models and of what they are asked for."""

    width: int = 2048
    head: int = 128
    kv_heads: int = 4
    """Of the Transformer whose queries share them."""
    vocabulary: int = 50264
    transformer: tuple[int, int] = (24, 8192)
    """Layers, and the width inside their perceptrons."""
    hyena: tuple[int, int] = (36, 4096)
    modes: int = 8
    workloads: tuple[tuple[int, int], ...] = ((512, 256), (2048, 256), (8192, 1024))
    """Tokens of the prompt, tokens generated."""
    largest: int = 16384
    """Batch."""
    equal: tuple[int, ...] = (1, 16, 64, 256, 1024)
    """Batches of which the page has the tokens per second."""
    remembered: tuple[int, ...] = (0, 1024, 2048, 4096, 8192)
    """Tokens generated after which memory is measured."""
    remembering: int = 16
    """Signals of which memory is measured."""
    prefilled: int = 16384
    """Tokens of the prompts that are read at a time."""
    copied: int | None = None
    """Numbers whose copy measures the bandwidth; None for as many as no cache holds."""
    dtype: torch.dtype = torch.bfloat16


SIZES = {
    "full": Sizes(),
    "small": Sizes(
        width=32,
        head=8,
        kv_heads=2,
        vocabulary=64,
        transformer=(2, 64),
        hyena=(2, 48),
        workloads=((20, 4), (300, 8)),
        largest=2,
        equal=(1, 2),
        remembered=(0, 8, 64),
        remembering=2,
        prefilled=64,
        copied=2**16,
    ),
}


class System(NamedTuple):
    """A filter's recurrence, as `gated_step` takes it."""

    poles: Annotated[Tensor, "modes 2 filters"]
    residues: Annotated[Tensor, "modes 2 filters"]
    direct: Annotated[Tensor, "filters"]
    inputs: Annotated[Tensor, "modes filters"] | None

    def powers(self, exponents: Tensor) -> Annotated[Tensor, "filters exponents modes, complex"]:
        """The poles to powers, in complex128."""
        logarithms = torch.view_as_complex(self.poles.double().permute(2, 0, 1).contiguous()).log()
        return torch.exp(exponents[None, :, None] * logarithms[:, None])

    def taps(self, length: int) -> Annotated[Tensor, "filters length"]:
        """direct at lag 0, Re sum_n residues_n inputs_n poles_n^(t-1) at lag t >= 1, mode by mode."""
        residues = torch.view_as_complex(self.residues.double().transpose(1, 2).contiguous())
        if self.inputs is not None:
            residues = residues * self.inputs
        taps = torch.zeros(len(self.direct), length, dtype=torch.float64, device=self.direct.device)
        taps[:, 0] = self.direct
        lags = torch.arange(length - 1, device=taps.device)
        for mode, weights in enumerate(residues):
            one = self._replace(poles=self.poles[mode : mode + 1])
            taps[:, 1:] += (weights[:, None] * one.powers(lags)[..., 0]).real
        return taps.float()

    def after(self, u: Annotated[Tensor, "batch filters length"]) -> Annotated[Tensor, "modes 2 batch filters"]:
        """X_n = inputs_n sum_s poles_n^(length-1-s) u_s: of blocks by a Vandermonde matrix, then of all of them."""
        batch, _, length = u.shape
        block = min(BLOCK, length)
        blocks = -(-length // block)
        parts = F.pad(u.float(), (blocks * block - length, 0)).unflatten(-1, (blocks, block)).transpose(0, 1)
        exponents = torch.arange(block - 1, -1, -1, device=u.device)
        within = torch.view_as_real(self.powers(exponents)).flatten(2).float()
        entered = (parts.flatten(1, 2) @ within).unflatten(1, (batch, blocks)).unflatten(-1, (-1, 2))
        across = self.powers(block * torch.arange(blocks - 1, -1, -1, device=u.device)).to(torch.complex64)
        states = (torch.view_as_complex(entered) * across[:, None]).sum(2)  # filters, batch, modes
        if self.inputs is not None:
            states = states * self.inputs.T[:, None]
        return torch.view_as_real(states).permute(2, 3, 1, 0)


def random_system(filters: int, modes: int, device: str, *, balanced: bool) -> System:
    """|poles| = exp(-exp(a)), a uniform in (-7, -1), angles in (0, pi); residues complex normal.

    They are scaled so that white noise comes out about as loud as it came in. `balanced`: so are the states.
    """
    decay = torch.exp(-7 + 6 * torch.rand(modes, filters, device=device))
    poles = torch.polar(torch.exp(-decay), torch.pi * torch.rand(modes, filters, device=device))
    gain = (1 - poles.abs().square()).sqrt()
    residues = torch.randn(modes, filters, dtype=torch.complex64, device=device) / modes**0.5
    if not balanced:
        residues = residues * gain
    poles, residues = (torch.view_as_real(values).transpose(1, 2).contiguous() for values in (poles, residues))
    return System(poles, residues, torch.rand(filters, device=device), gain if balanced else None)


class Mixer(nn.Module):
    """What a layer does between tokens: one for each contestant."""

    grows = True
    """Whether what it remembers grows with the tokens."""

    def init_state(self, batch: int, length: int) -> State:
        """Memory for so many tokens, of random numbers."""
        raise NotImplementedError

    def step(self, x: Tensor, state: State, reach: int) -> Tensor:
        """The output (batch, width) for one more token, the last of `reach`."""
        raise NotImplementedError

    def prefill(self, x: Tensor, state: State, taps: Tensor | None) -> Tensor:
        """The outputs (batch, length, width) for a prompt, and its memory."""
        raise NotImplementedError

    def taps(self, length: int) -> Tensor | None:
        """Those of the long filter, which `prefill` takes: a model keeps them from prompt to prompt."""
        return None

    def alone(self, state: State, reach: int) -> Step:
        """The part of a step that goes over the memory, on random numbers."""
        raise NotImplementedError

    def moved(self, state: State, reach: int) -> int:
        """Bytes of memory that a step reads and writes."""
        raise NotImplementedError


class Attention(Mixer):
    """Causal attention over a static cache of keys and values, (batch, heads, length, head); no positions."""

    def __init__(self, sizes: Sizes, kv_heads: int, device: str) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head = sizes.width // sizes.head, kv_heads, sizes.head
        self.project = linear(sizes.width, (self.heads + 2 * kv_heads) * sizes.head, sizes, device)
        self.out = linear(sizes.width, sizes.width, sizes, device)
        self.backend: SDPBackend | None = None

    def attending(self) -> AbstractContextManager[None]:
        """With the backend that was chosen; torch's own choice before."""
        return nullcontext() if self.backend is None else sdpa_kernel(self.backend)

    def init_state(self, batch: int, length: int) -> State:
        shape, like = (batch, self.kv_heads, length, self.head), self.project.weight
        return [torch.empty(shape, dtype=like.dtype, device=like.device).normal_() for _ in range(2)]

    def attend(self, q: Tensor, state: State, reach: int) -> Tensor:
        """Of one query per head: those of a head of keys stand in its sequence, and nothing is masked."""
        with self.attending():
            return F.scaled_dot_product_attention(q, state[0][:, :, :reach], state[1][:, :, :reach])

    def step(self, x: Tensor, state: State, reach: int) -> Tensor:
        parts = self.project(x).unflatten(-1, (self.heads + 2 * self.kv_heads, self.head))
        q, k, v = parts.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        state[0][:, :, reach - 1].copy_(k)
        state[1][:, :, reach - 1].copy_(v)
        q = q.unflatten(1, (self.kv_heads, -1))  # batch, heads of keys, queries of each, head
        return self.out(self.attend(q, state, reach).flatten(1))

    def prefill(self, x: Tensor, state: State, taps: Tensor | None) -> Tensor:
        parts = self.project(x).unflatten(-1, (self.heads + 2 * self.kv_heads, self.head)).transpose(1, 2)
        q, k, v = parts.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        state[0][:, :, : x.shape[1]].copy_(k)
        state[1][:, :, : x.shape[1]].copy_(v)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        return self.out(y.transpose(1, 2).flatten(2))

    def alone(self, state: State, reach: int) -> Step:
        q = torch.randn_like(state[0][:, :, :1]).repeat(1, 1, self.heads // self.kv_heads, 1)
        return lambda: self.attend(q, state, reach)

    def moved(self, state: State, reach: int) -> int:
        return sum(cache[:, :, :reach].numel() * cache.element_size() for cache in state)


class Hyena(Mixer):
    """Order 2: a projection to query, key and value, a short convolution over them, a long one, a gate, a projection.

    Its memory begins with the window of the short convolution.
    """

    def __init__(self, sizes: Sizes, filters: int, device: str, *, balanced: bool = False) -> None:
        super().__init__()
        self.width = sizes.width
        self.project = linear(sizes.width, 3 * sizes.width, sizes, device)
        self.out = linear(sizes.width, sizes.width, sizes, device)
        self.short_taps = torch.randn(3 * sizes.width, 3, dtype=sizes.dtype, device=device) / 3**0.5
        self.short_bias = 0.1 * torch.randn(3 * sizes.width, dtype=sizes.dtype, device=device)
        self.system = random_system(filters, sizes.modes, device, balanced=balanced)

    def window(self, batch: int) -> Tensor:
        return torch.randn(2, batch, 3 * self.width, dtype=self.short_taps.dtype, device=self.short_taps.device)

    def taps(self, length: int) -> Tensor:
        return self.system.taps(length)

    def step(self, x: Tensor, state: State, reach: int) -> Tensor:
        return self.out(self.mix(self.project(x), state, reach))

    def prefill(self, x: Tensor, state: State, taps: Tensor | None) -> Tensor:
        assert taps is not None
        projected = self.project(x)
        state[0].copy_(projected[:, -2:].transpose(0, 1))
        short = convolve(projected.transpose(1, 2), self.short_taps, causal=True) + self.short_bias[:, None]
        q, k, v = short.chunk(3, dim=1)
        y = self.mix_all(q, k, v, state, taps)
        return self.out(y.transpose(1, 2))

    def mix(self, projected: Tensor, state: State, reach: int) -> Tensor:
        """A step between the projections."""
        raise NotImplementedError

    def mix_all(self, q: Tensor, k: Tensor, v: Tensor, state: State, taps: Tensor) -> Tensor:
        """The long convolution and the gates of a prompt, (batch, width, length), and its memory."""
        raise NotImplementedError


class CachedHyena(Hyena):
    """Remembers all that went into the long convolution, (length, batch, width): an output is a product with the taps.

    The taps are kept with the lag along the first axis, as many as there may be tokens.
    """

    def __init__(self, sizes: Sizes, device: str) -> None:
        super().__init__(sizes, sizes.width, device)
        self.kept = torch.empty(0, sizes.width, dtype=sizes.dtype, device=device)

    def init_state(self, batch: int, length: int) -> State:
        if len(self.kept) < length:
            self.kept = self.system.taps(length).T.to(self.kept.dtype, memory_format=torch.contiguous_format)
        return [self.window(batch), self.kept.new_empty(length, batch, self.width).normal_()]

    def mix(self, projected: Tensor, state: State, reach: int) -> Tensor:
        window, cache = state
        newest, last, oldest = self.short_taps.unbind(1)
        short = torch.addcmul(torch.addcmul(self.short_bias, newest, projected), last, window[1])
        q, k, v = torch.addcmul(short, oldest, window[0]).chunk(3, dim=-1)
        window[0].copy_(window[1])
        window[1].copy_(projected)
        torch.mul(k, v, out=cache[reach - 1])
        return q * cached_output(cache, self.kept, reach).to(q.dtype)

    def mix_all(self, q: Tensor, k: Tensor, v: Tensor, state: State, taps: Tensor) -> Tensor:
        u = k * v
        state[1][: u.shape[-1]].copy_(u.permute(2, 0, 1))
        return q * convolve(u, taps, causal=True)

    def alone(self, state: State, reach: int) -> Step:
        return partial(cached_output, state[1], self.kept, reach)

    def moved(self, state: State, reach: int) -> int:
        return state[1][:reach].numel() * state[1].element_size()


class DistilledHyena(Hyena):
    """Remembers the state of the filters' recurrences, in float32 or bfloat16."""

    grows = False

    def __init__(self, sizes: Sizes, kept: torch.dtype, device: str, *, head_width: int = 1) -> None:
        super().__init__(sizes, sizes.width // head_width, device, balanced=kept == torch.bfloat16)
        self.head_width, self.kept = head_width, kept

    def init_state(self, batch: int, length: int) -> State:
        modes, _, filters = self.system.poles.shape
        shape = (modes, 2, batch, filters, *self.entries())
        return [self.window(batch), torch.empty(shape, dtype=self.kept, device=self.system.poles.device).normal_()]

    def entries(self) -> tuple[int, ...]:
        """Axes of the state of one filter of one signal."""
        return ()

    def parameters_of_step(self) -> dict[str, Any]:
        return {"short_taps": self.short_taps, "short_bias": self.short_bias, **self.system._asdict()}

    def mix(self, projected: Tensor, state: State, reach: int) -> Tensor:
        return gated_step(projected, state[0], state[1], **self.parameters_of_step())

    def mix_all(self, q: Tensor, k: Tensor, v: Tensor, state: State, taps: Tensor) -> Tensor:
        u = k * v
        state[1].copy_(self.system.after(u))
        return q * convolve(u, taps, causal=True)

    def alone(self, state: State, reach: int) -> Step:
        return partial(self.mix, torch.randn_like(state[0][0]), state, reach)

    def moved(self, state: State, reach: int) -> int:
        return 2 * state[1].nbytes


class MultiHyena(DistilledHyena):
    """A filter for every head, over all products of a key and a value of its channels."""

    def entries(self) -> tuple[int, ...]:
        return self.head_width, self.head_width

    def mix(self, projected: Tensor, state: State, reach: int) -> Tensor:
        return multi_head_step(projected, state[0], state[1], **self.parameters_of_step())

    def mix_all(self, q: Tensor, k: Tensor, v: Tensor, state: State, taps: Tensor) -> Tensor:
        """Key by key: memory is that of `head_width` signals, not of its square."""
        width, batch = self.head_width, q.shape[0]
        q, k, v = (values.unflatten(1, (-1, width)) for values in (q, k, v))
        y = torch.zeros_like(q)
        for i in range(width):
            z = (k[:, :, i : i + 1] * v).transpose(1, 2).flatten(0, 1)  # batch values, filters, length
            state[1][..., i, :].copy_(self.system.after(z).unflatten(2, (batch, width)).transpose(3, 4))
            w = convolve(z, taps, causal=True).unflatten(0, (batch, width)).transpose(1, 2)
            y += q[:, :, i : i + 1] * w
        return y.flatten(1, 2)


def linear(inputs: int, outputs: int, sizes: Sizes, device: str) -> nn.Linear:
    return nn.Linear(inputs, outputs, device=device, dtype=sizes.dtype)


def cached_output(cache: Tensor, taps: Tensor, reach: int) -> Tensor:
    """sum_s taps[reach-1-s] cache[s] over the first `reach` samples, (batch, width) in float32."""
    if cache.is_cuda:
        return fused_cached_output(cache, taps, reach)
    return (cache[:reach].float() * taps[:reach].flip(0)[:, None].float()).sum(0)


def fused_cached_output(cache: Tensor, taps: Tensor, reach: int) -> Tensor:
    """By a kernel that reads the cache once, cut into parts that fill a processor."""
    _, batch, width = cache.shape
    signals, channels, samples = min(8, triton.next_power_of_2(batch)), 64, 4
    blocks = triton.cdiv(batch, signals) * triton.cdiv(width, channels)
    span = triton.cdiv(reach, max(1, min(triton.cdiv(reach, 64), 2048 // blocks)))
    parts = cache.new_empty(triton.cdiv(reach, span), batch, width, dtype=torch.float32)
    grid = (triton.cdiv(width, channels), triton.cdiv(batch, signals), len(parts))
    cached_kernel[grid](cache, taps, parts, batch, width, reach, span, signals, channels, samples)
    return parts[0] if len(parts) == 1 else parts.sum(0)


@triton.jit  # type: ignore[untyped-decorator]
def cached_kernel(  # type: ignore[no-untyped-def] # Triton's compiler reads annotations itself
    cache_ptr,
    taps_ptr,
    parts_ptr,
    batch,
    width,
    reach,
    span,
    SIGNALS: tl.constexpr,  # noqa: N803
    CHANNELS: tl.constexpr,  # noqa: N803
    SAMPLES: tl.constexpr,  # noqa: N803
):
    """A block of channels and of signals, over a part of the samples."""
    channels = (tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS))[None, None, :]
    signals = (tl.program_id(1) * SIGNALS + tl.arange(0, SIGNALS)).to(tl.int64)[None, :, None]
    known = channels < width
    first = tl.program_id(2) * span
    last = tl.minimum(first + span, reach)
    y = tl.zeros((SAMPLES, SIGNALS, CHANNELS), tl.float32)
    for start in range(first, last, SAMPLES):
        samples = start + tl.arange(0, SAMPLES)[:, None, None]
        there = (samples < last) & known
        at = (samples.to(tl.int64) * batch + signals) * width + channels
        u = tl.load(cache_ptr + at, mask=there & (signals < batch), other=0.0).to(tl.float32)
        taps = tl.load(taps_ptr + (reach - 1 - samples) * width + channels, mask=there, other=0.0)
        y += u * taps.to(tl.float32)
    at = (tl.program_id(2).to(tl.int64) * batch + signals) * width + channels
    tl.store(parts_ptr + at, tl.sum(y, axis=0)[None], mask=known & (signals < batch))


class Block(nn.Module):
    """x + mixer(norm(x)), then x + perceptron(norm(x))."""

    def __init__(self, mixer: Mixer, hidden: int, sizes: Sizes, device: str) -> None:
        super().__init__()
        self.mixer = mixer
        self.before, self.between = (nn.LayerNorm(sizes.width, device=device, dtype=sizes.dtype) for _ in range(2))
        self.up, self.down = linear(sizes.width, hidden, sizes, device), linear(hidden, sizes.width, sizes, device)

    def forward(self, x: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        x = x + mix(self.before(x))
        return x + self.down(F.gelu(self.up(self.between(x)), approximate="tanh"))


class Decoder(nn.Module):
    """A language model whose readout is its embedding."""

    def __init__(self, mixer: Callable[[], Mixer], shape: tuple[int, int], sizes: Sizes, device: str) -> None:
        super().__init__()
        layers, hidden = shape
        self.device, self.sizes = device, sizes
        self.embedding = nn.Embedding(sizes.vocabulary, sizes.width, device=device, dtype=sizes.dtype)
        self.blocks = [Block(mixer(), hidden, sizes, device) for _ in range(layers)]
        self.registered = nn.ModuleList(self.blocks)
        self.norm = nn.LayerNorm(sizes.width, device=device, dtype=sizes.dtype)
        self.requires_grad_(False)

    @property
    def mixers(self) -> list[Mixer]:
        """Those of the layers."""
        return [block.mixer for block in self.blocks]

    @property
    def weights(self) -> int:
        """Number of parameters, without the taps of long filters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def init_state(self, batch: int, length: int) -> list[State]:
        """The memory of every layer."""
        return [mixer.init_state(batch, length) for mixer in self.mixers]

    @torch.no_grad()
    def step(self, ids: Tensor, states: list[State], reach: int) -> Tensor:
        """The logits (batch, vocabulary) behind one more token, the last of `reach`."""
        x = self.embedding(ids)
        for block, state in zip(self.blocks, states, strict=True):
            x = block(x, partial(block.mixer.step, state=state, reach=reach))
        return self.norm(x) @ self.embedding.weight.T

    @torch.no_grad()
    def prefill(self, ids: Tensor, states: list[State], taps: Sequence[Tensor | None]) -> Tensor:
        """The logits behind the last token of prompts (batch, length)."""
        x = self.embedding(ids)
        for block, state, filters in zip(self.blocks, states, taps, strict=True):
            x = block(x, partial(block.mixer.prefill, state=state, taps=filters))
        return self.norm(x[:, -1]) @ self.embedding.weight.T

    def random_ids(self, *shape: int) -> Tensor:
        """Tokens."""
        return torch.randint(self.sizes.vocabulary, shape, device=self.device)


def transformer(kv_heads: int | None, sizes: Sizes, device: str) -> Decoder:
    """With as many heads of keys and values, or one for each query."""
    heads = sizes.width // sizes.head if kv_heads is None else kv_heads
    return Decoder(lambda: Attention(sizes, heads, device), sizes.transformer, sizes, device)


def hyena(kept: torch.dtype | None, head_width: int, sizes: Sizes, device: str) -> Decoder:
    """With a state of that dtype, or with a cache."""

    def mixer() -> Mixer:
        if kept is None:
            return CachedHyena(sizes, device)
        kind = DistilledHyena if head_width == 1 else MultiHyena
        return kind(sizes, kept, device, head_width=head_width)

    return Decoder(mixer, sizes.hyena, sizes, device)


MHA = "Transformer, MHA"
CONTESTANTS: dict[str, Callable[[Sizes, str], Decoder]] = {
    MHA: partial(transformer, None),
    "Transformer, GQA": lambda sizes, device: transformer(sizes.kv_heads, sizes, device),
    "Hyena, cached": partial(hyena, None, 1),
    "Hyena, distilled": partial(hyena, torch.float32, 1),
    "Hyena, distilled, bf16 state": partial(hyena, torch.bfloat16, 1),
    "MultiHyena, heads of 2": partial(hyena, torch.float32, 2),
    "MultiHyena, heads of 4": partial(hyena, torch.float32, 4),
    "MultiHyena, heads of 8": partial(hyena, torch.float32, 8),
}


@dataclass
class Point:
    """Steps of one batch."""

    batch: int
    milliseconds: float
    """Median."""

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return 1e3 * self.batch / self.milliseconds


@dataclass
class Result:
    """One contestant at one workload."""

    contestant: str
    prompt: int
    generate: int
    weights: int
    points: list[Point]
    best: int
    """Batch of the most tokens per second."""
    rate: float
    nbytes: int
    """Memory of one signal at the end."""
    share: float
    """Of the bandwidth of a copy that the part of the step over the memory reaches."""
    prefill: float
    """Milliseconds for one prompt."""
    end_to_end: float
    """Generated tokens per second, with the time of the prompts."""
    backend: str | None


@dataclass
class Curve:
    """Peaks of memory of one contestant."""

    contestant: str
    generated: tuple[int, ...]
    gigabytes: list[float] = field(default_factory=list)


@dataclass
class Measured:
    """All there is to report."""

    bandwidth: float
    results: list[Result] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def relative(actual: Tensor, expected: Tensor) -> float:
    """|actual - expected| / |expected|, NaN if either has one."""
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()


def disagreements(device: str) -> list[str]:
    """What is wrong, as lines; every comparison is printed."""
    found = dict(check_dot(device)) if fused_runs(device) else {}
    if fused_runs(device):
        for head_width in (1, 2, 8):
            for kept in (torch.float32, torch.bfloat16):
                for dtype in (torch.float32, torch.bfloat16):
                    found |= check_step(head_width, kept, dtype, device)
    for name, make in CONTESTANTS.items():
        found |= check_contestant(name, make(replace(SIZES["small"], dtype=torch.float32), device))
    for name, (error, _) in found.items():
        print(f"check {name}: {error:.1e}", flush=True)
    return [f"{name}: {error:.1e}, above {limit:g}" for name, (error, limit) in found.items() if not error <= limit]


def fused_runs(device: str) -> bool:
    """Whether the kernels run: on a CPU in Triton's interpreter alone."""
    return device == "cuda" or triton.knobs.runtime.interpret


def check_step(head_width: int, kept: torch.dtype, dtype: torch.dtype, device: str) -> dict[str, tuple[float, float]]:
    """Error and limit of two fused steps beside plain ones: outputs, and the states in the end."""
    from omniconv.engines.triton import decode

    sizes = replace(SIZES["full"], dtype=dtype) if device == "cuda" else replace(SIZES["small"], dtype=dtype, modes=2)
    mixer = (DistilledHyena if head_width == 1 else MultiHyena)(sizes, kept, device, head_width=head_width)
    plain = reference_gated_step if head_width == 1 else reference_multi_head_step
    fused = decode.gated_step if head_width == 1 else decode.multi_head_step
    given = mixer.parameters_of_step()
    state = mixer.init_state(33 if device == "cuda" else 3, 1)
    other = [memory.clone() for memory in state]
    errors = []
    for _ in range(2):
        projected = torch.randn_like(state[0][0])
        y = fused(projected, state[0], state[1], **given)
        errors.append(relative(y, plain(projected, other[0], other[1], **given)))
    name = f"{plain.__name__.removeprefix('reference_')}, heads of {head_width}, {dtype}, state {kept}"
    limit = TOLERANCE[torch.bfloat16 if torch.bfloat16 in (kept, dtype) else torch.float32]
    errors.append(relative(state[1], other[1]))
    return {name: (torch.tensor(errors).max().item(), limit)}  # NaN, if one is


def check_dot(device: str) -> dict[str, tuple[float, float]]:
    """The kernel of the cached Hyena beside the plain sum."""
    cache = torch.randn(200, 3, 70, device=device)
    taps = torch.randn(200, 70, device=device)
    expected = (cache[:150].double() * taps[:150].flip(0)[:, None].double()).sum(0)
    return {"cached output": (relative(fused_cached_output(cache, taps, 150), expected), TOLERANCE[torch.float32])}


def check_contestant(name: str, decoder: Decoder) -> dict[str, tuple[float, float]]:
    """The logits behind a prompt and steps beside those behind a longer prompt."""
    ids = decoder.random_ids(2, 13)
    taps = [mixer.taps(ids.shape[1]) for mixer in decoder.mixers]
    states = decoder.init_state(*ids.shape)
    decoder.prefill(ids[:, :9], states, [one if one is None else one[:, :9] for one in taps])
    for reach in range(10, 14):
        logits = decoder.step(ids[:, reach - 1], states, reach)
    whole = decoder.prefill(ids, decoder.init_state(*ids.shape), taps)
    limit = TOLERANCE[torch.bfloat16] if "bf16" in name else 10 * TOLERANCE[torch.float32]
    return {f"{name}, steps beside the whole sequence": (relative(logits, whole), limit)}


def recorded(action: Step, device: str) -> Step:
    """The action as one graph on a graphics processor; raises `torch.OutOfMemoryError` where there is no room."""
    if device == "cpu":
        return action
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    action()
    torch.cuda.synchronize()
    needed = torch.cuda.max_memory_allocated() - before
    torch.cuda.empty_cache()
    # Out of memory while recording would leave the device in a state that outlives the exception.
    if torch.cuda.mem_get_info()[0] < 1.25 * needed + 2**29:
        raise torch.OutOfMemoryError("no room to record a step")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        action()
    return graph.replay


def median_ms(action: Step, device: str, seconds: float, repeats: int = 30) -> float:
    """Median milliseconds of the action, after one call that is not counted."""
    run = repeated(action, 1, device)
    run()
    (times,) = interleaved([run], repeats=repeats, seconds=seconds)
    return 1e3 * statistics.median(times)


def middle(workload: tuple[int, int]) -> int:
    """Tokens at the step that is timed: the mean of all steps, for a time that grows by as much at every one."""
    return workload[0] + max(1, workload[1] // 2)


@torch.no_grad()
def point(decoder: Decoder, workload: tuple[int, int], seconds: float, batch: int) -> Point | None:
    """The step in the middle of the generation; None where memory does not suffice."""

    def measure() -> Point:
        ids, states = decoder.random_ids(batch), decoder.init_state(batch, sum(workload))

        def step() -> None:
            ids.copy_(decoder.step(ids, states, middle(workload)).argmax(-1))

        return Point(batch, median_ms(recorded(step, decoder.device), decoder.device, seconds))

    try:
        return measure()
    except torch.OutOfMemoryError:
        return None
    finally:
        release(decoder.device)


def release(device: str) -> None:
    """Give back what nobody holds."""
    if device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def points(measure: Callable[[int], Point | None], largest: int, stop: float) -> list[Point]:
    """At batches of 1, 2, 4, .. until one does not fit, then the largest that does, to within an eighth."""
    found: list[Point] = []
    fits, beyond = 0, 1
    while beyond <= largest and (not found or time.monotonic() < stop) and (one := measure(beyond)) is not None:
        found.append(one)
        fits, beyond = beyond, 2 * beyond
    while fits and beyond <= largest and beyond - fits > max(1, fits // 8) and time.monotonic() < stop:
        half = (fits + beyond) // 2
        if (one := measure(half)) is None:
            beyond = half
        else:
            found.append(one)
            fits = half
    return found


@torch.no_grad()
def memory_share(decoder: Decoder, workload: tuple[int, int], batch: int, options: argparse.Namespace) -> float:
    """Bytes per second that the parts of a step over the memory move, as a share of the bandwidth of a copy."""
    states, reach = decoder.init_state(batch, sum(workload)), middle(workload)
    alone = [mixer.alone(state, reach) for mixer, state in zip(decoder.mixers, states, strict=True)]
    try:
        run = recorded(lambda: [action() for action in alone], decoder.device)
        taken = median_ms(run, decoder.device, options.seconds) / 1e3
    finally:
        release(decoder.device)
    moved = sum(mixer.moved(state, reach) for mixer, state in zip(decoder.mixers, states, strict=True))
    return moved / taken / options.bandwidth


@torch.no_grad()
def choose_backend(decoder: Decoder, workload: tuple[int, int], options: argparse.Namespace) -> str | None:
    """Let attention run by what is fastest at this length; its name."""
    attentions = [mixer for mixer in decoder.mixers if isinstance(mixer, Attention)]
    if not attentions:
        return None
    taken = {}
    for backend in BACKENDS:
        for mixer in attentions:
            mixer.backend = backend
        try:
            share = memory_share(decoder, workload, min(16, decoder.sizes.largest), options)
        except RuntimeError:  # a backend that cannot run it
            continue
        taken[backend] = 1 / share
    for mixer in attentions:
        mixer.backend = min(taken, key=lambda backend: taken[backend])
    return min(taken, key=lambda backend: taken[backend]).name


@torch.no_grad()
def prefill_ms(decoder: Decoder, workload: tuple[int, int], options: argparse.Namespace) -> float:
    """Milliseconds for one prompt, of as many as are read at a time."""
    prompt, _ = workload
    batch = max(1, min(decoder.sizes.largest, decoder.sizes.prefilled // prompt))
    ids, states = decoder.random_ids(batch, prompt), decoder.init_state(batch, sum(workload))
    taps = [mixer.taps(prompt) for mixer in decoder.mixers]
    run = partial(decoder.prefill, ids, states, taps)
    try:
        return median_ms(run, decoder.device, options.seconds, repeats=5) / batch
    finally:
        release(decoder.device)


def measured(
    name: str, decoder: Decoder, workload: tuple[int, int], steps: list[Point], options: argparse.Namespace
) -> Result | None:
    """All of one contestant at one workload, with the steps there are, or with new ones; None if not one fits."""
    prompt, generate = workload
    backend = choose_backend(decoder, workload, options)
    if not steps:
        steps = points(partial(point, decoder, workload, options.seconds), decoder.sizes.largest, options.stop)
    if not steps:
        return None
    best = max(steps, key=lambda one: one.rate)
    prefill = prefill_ms(decoder, workload, options)
    of_one = sum(memory.nbytes for state in decoder.init_state(1, sum(workload)) for memory in state)
    seconds = best.batch * prefill / 1e3 + generate * best.milliseconds / 1e3
    share = memory_share(decoder, workload, best.batch, options)
    result = Result(
        name, prompt, generate, decoder.weights, steps, best.batch, best.rate, of_one, share, prefill,
        best.batch * generate / seconds, backend,
    )  # fmt: skip
    print(
        f"{name}, {prompt} + {generate}: {best.rate:,.0f} tokens/s at {best.batch}, {best.milliseconds:.2f} ms, "
        f"{share:.0%} of a copy; a prompt takes {prefill:.2f} ms ({options.stop - time.monotonic():.0f} s left)",
        flush=True,
    )
    return result


@torch.no_grad()
def curve(name: str, decoder: Decoder) -> Curve:
    """Peaks of memory of a step behind the first prompt and more and more tokens, weights included."""
    sizes, found = decoder.sizes, Curve(name, decoder.sizes.remembered)
    weights = sum(parameter.nbytes for parameter in decoder.parameters())
    for generated in sizes.remembered:
        reach = sizes.workloads[0][0] + generated + 1

        def step(reach: int = reach) -> None:
            decoder.step(decoder.random_ids(sizes.remembering), decoder.init_state(sizes.remembering, reach), reach)

        step()
        _, peak = peak_memory(step, decoder.device)
        found.gigabytes.append((weights + peak) / 1e9)
        release(decoder.device)
    return found


def run(name: str, sizes: Sizes, measured_so_far: Measured, options: argparse.Namespace) -> None:
    """Measure one contestant."""
    decoder = CONTESTANTS[name](sizes, options.device)
    steps: list[Point] = []
    for workload in sizes.workloads:
        if time.monotonic() > options.stop:
            measured_so_far.skipped.append(f"{name} at {workload[0]} + {workload[1]}")
            continue
        if (result := measured(name, decoder, workload, steps, options)) is None:
            measured_so_far.skipped.append(f"{name} at {workload[0]} + {workload[1]}")
            continue
        measured_so_far.results.append(result)
        if not any(mixer.grows for mixer in decoder.mixers):
            steps = result.points
    measured_so_far.curves.append(curve(name, decoder))


ABOUT = """Models of the same size with random weights, in bfloat16: {layers[0]} layers of attention with perceptrons of
{layers[1]}, or {hyena[0]} layers of Hyena with perceptrons of {hyena[1]}, width {width}, {vocabulary:,} tokens. *GQA*:
{kv_heads} heads of keys and values. *Hyena, cached*: remembers all inputs of the long convolution. *distilled*: filters
are recurrences of order {order}, {modes} complex modes, whose state is kept in float32 or, balanced, in bfloat16, and
stepped by `engines.decode`. *MultiHyena*: a filter for every head, over the products of its keys and values.

A step is one token for every signal of the batch, from its id to that of the most likely next token, on the device and
in one CUDA graph. The cache is static; attention goes over that part of it which is filled in the middle of the
generation, without a mask, by the fastest of torch's backends; there are no positions to encode. *ms*: the median step.
Batches are 1, 2, 4, .. and then the largest that fits to within an eighth, {largest:,} at most; *batch* is that of the
most tokens per second. *bandwidth*: bytes per second that the step's operations over keys and values, over the cached
inputs or over the states move, as a share of that of a copy, {bandwidth:,.0f} GB/s. *prefill*: the prompt, by causal
attention or by convolution with the filters' taps and a product for the state; {prefilled:,} tokens at a time.
*end to end*: generated tokens per second with the prompts' time. The steps of models whose state does not grow are
those of the first workload. Weights include no taps of long filters, nor the networks that would make them."""
HEAD = ("contestant", "parameters", "batch", "tokens/s", "times MHA", "ms", "MB per signal", "bandwidth", "prefill, ms",
        "end to end, tokens/s", "times MHA")  # fmt: skip


def row(result: Result, base: Result | None) -> list[str]:
    """The line of one result."""
    best = next(one for one in result.points if one.batch == result.best)
    return [
        result.contestant + (f" ({result.backend.lower()})" if result.backend else ""),
        f"{result.weights / 1e9:.2f} B" if result.weights > 1e8 else f"{result.weights:,}",
        f"{result.best:,}",
        f"{result.rate:,.0f}",
        f"{result.rate / base.rate:.1f}" if base else "-",
        f"{best.milliseconds:.2f}",
        f"{result.nbytes / 1e6:.1f}",
        f"{result.share:.0%}",
        f"{result.prefill:.2f}",
        f"{result.end_to_end:,.0f}",
        f"{result.end_to_end / base.end_to_end:.1f}" if base else "-",
    ]


def equal_rows(results: Iterable[Result], batches: Sequence[int]) -> list[list[str]]:
    """Tokens per second at the same batches."""
    rows = []
    for result in results:
        rates = {one.batch: f"{one.rate:,.0f}" for one in result.points}
        rows.append([result.contestant, *(rates.get(batch, "-") for batch in batches)])
    return rows


def sections(found: Measured, sizes: Sizes) -> list[str]:
    """Tables of every workload, and of memory."""
    parts = []
    for prompt, generate in sizes.workloads:
        here = [one for one in found.results if (one.prompt, one.generate) == (prompt, generate)]
        if not here:
            continue
        base = next((one for one in here if one.contestant == MHA), None)
        equal = ("tokens/s at a batch of", *(f"{batch:,}" for batch in sizes.equal))
        parts += [f"## Prompts of {prompt:,}, {generate:,} generated", table(HEAD, [row(one, base) for one in here])]
        parts.append(table(equal, equal_rows(here, sizes.equal)))
    if found.curves:
        head = ("gigabytes after", *(f"{generated:,}" for generated in sizes.remembered))
        rows = [[one.contestant, *(f"{peak:.3g}" for peak in one.gigabytes)] for one in found.curves]
        told = (
            f"Peaks of memory of a step of {sizes.remembering} signals behind prompts of {sizes.workloads[0][0]:,} and "
        )
        parts += ["## Memory", told + "so many generated tokens, weights included.", table(head, rows)]
    if found.skipped:
        parts.append("Not measured, for want of time or memory: " + "; ".join(found.skipped) + ".")
    return parts


def drawn(found: Measured, sizes: Sizes) -> Figure:
    """Tokens per second against the batch for every workload, memory against generated tokens."""
    figure = Figure(figsize=(4 * (1 + len(sizes.workloads)), 4), layout="constrained")
    *panels, memory = figure.subplots(1, 1 + len(sizes.workloads))
    colors = {name: f"C{i}" for i, name in enumerate(CONTESTANTS)}
    for panel, (prompt, generate) in zip(panels, sizes.workloads, strict=True):
        for result in found.results:
            if (result.prompt, result.generate) == (prompt, generate):
                line = sorted(result.points, key=lambda one: one.batch)
                plotted(panel, [one.batch for one in line], [one.rate for one in line], result.contestant, colors)
        panel.set(xscale="log", yscale="log", xlabel="batch", title=f"prompts of {prompt:,}, {generate:,} generated")
        panel.set_ylabel("tokens per second")
    for one in found.curves:
        plotted(memory, one.generated, one.gigabytes, one.contestant, colors)
    memory.set(xlabel="generated tokens", ylabel="peak memory, GB", title=f"{sizes.remembering} signals")
    memory.legend(fontsize="x-small", loc="upper left")
    return figure


def plotted(axes: Axes, x: Sequence[float], y: Sequence[float], name: str, colors: dict[str, str]) -> None:
    """One contestant's line."""
    axes.plot(x, y, ".-", color=colors[name], label=name)
    axes.grid(alpha=0.3)


def report(found: Measured, sizes: Sizes, about: dict[str, Any], out: Path) -> None:
    """Write what there is so far: `decode.md` and `.json`."""
    told = ABOUT.format(
        **(asdict(sizes) | {"layers": sizes.transformer, "order": 2 * sizes.modes}), bandwidth=found.bandwidth / 1e9
    )
    parts = [told, *sections(found, sizes), "![tokens per second, memory](decode.png)"]
    page = markdown("Decoding", about, *parts)
    data = {
        "results": [asdict(one) for one in found.results],
        "memory": [asdict(one) for one in found.curves],
        "skipped": found.skipped,
    }
    write(out, "decode", page, {"about": about, "bandwidth": found.bandwidth, **data})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of decode.md, .json and .png")
    parser.add_argument("--sizes", choices=tuple(SIZES), default="full")
    parser.add_argument("--contestants", default=";".join(CONTESTANTS), help="some, with semicolons in between")
    parser.add_argument("--seconds", type=float, default=0.4, help="of timing, for every batch")
    parser.add_argument("--minutes", type=float, default=8.5, help="after which no further measurement begins")
    options = parser.parse_args()
    options.stop = time.monotonic() + 60 * options.minutes
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.sizes == "full" and options.device == "cpu":
        parser.error("the models are for a graphics processor; --sizes small runs on a CPU")
    torch.manual_seed(SEED)
    about = provenance(SEED) | {"triton": triton.__version__}
    if options.device == "cuda":
        about["processor"] = torch.cuda.get_device_name()
    if wrong := disagreements(options.device):
        sys.exit("\n".join(["nothing is reported:", *wrong]))
    sizes = SIZES[options.sizes]
    options.bandwidth = copy_bandwidth(options.device, sizes.copied)
    found = Measured(options.bandwidth)
    for name in options.contestants.split(";"):
        run(name, sizes, found, options)
        release(options.device)
        report(found, sizes, about, options.out)
    drawn(found, sizes).savefig(options.out / "decode.png", dpi=120)


if __name__ == "__main__":
    main()
