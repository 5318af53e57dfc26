"""What a layer does between tokens: the contract of all contestants, and attention."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from omniconv._typing import Taps
from omniconv.bench.decode.sizes import Sizes

Sample: TypeAlias = Annotated[Tensor, "batch width"]
Prompt: TypeAlias = Annotated[Tensor, "batch length width"]
State: TypeAlias = list[Tensor]
Action: TypeAlias = Callable[[], object]


class Mixer(nn.Module):
    """What a layer does between tokens: one for each contestant."""

    grows = True
    """Whether what it remembers grows with the tokens."""
    backends: tuple[SDPBackend, ...] = ()
    """By what it can be run, where there is a choice."""
    backend: SDPBackend | None = None
    """The one that was chosen."""

    def init_state(self, batch: int, length: int) -> State:
        """Memory for so many tokens, of random numbers."""
        raise NotImplementedError

    def step(self, x: Sample, state: State, reach: int) -> Sample:
        """The output for one more token, the last of `reach`."""
        raise NotImplementedError

    def prefill(self, x: Prompt, state: State, taps: Taps | None) -> Prompt:
        """The outputs for a prompt, and its memory."""
        raise NotImplementedError

    def taps(self, length: int) -> Taps | None:
        """Those of the long filter, which `prefill` takes: a model keeps them from prompt to prompt."""
        return None

    def alone(self, state: State, reach: int) -> Action:
        """The part of a step that goes over the memory, on random numbers."""
        raise NotImplementedError

    def moved(self, state: State, reach: int) -> int:
        """Bytes of memory that a step reads and writes."""
        raise NotImplementedError


class Attention(Mixer):
    """Causal attention over a static cache of keys and values, (batch, heads, length, head); no positions."""

    backends = (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    )

    def __init__(self, sizes: Sizes, kv_heads: int, device: str) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head = sizes.width // sizes.head, kv_heads, sizes.head
        self.project = linear(sizes.width, (self.heads + 2 * kv_heads) * sizes.head, sizes, device)
        self.out = linear(sizes.width, sizes.width, sizes, device)

    def attending(self) -> AbstractContextManager[None]:
        """With the backend that was chosen; torch's own choice before."""
        return nullcontext() if self.backend is None else sdpa_kernel(self.backend)

    def init_state(self, batch: int, length: int) -> State:
        shape, like = (batch, self.kv_heads, length, self.head), self.project.weight
        return [torch.empty(shape, dtype=like.dtype, device=like.device).normal_() for _ in range(2)]

    def attend(self, q: Annotated[Tensor, "batch kv_heads queries head"], state: State, reach: int) -> Tensor:
        """Of one query per head: those of a head of keys stand in its sequence, and nothing is masked."""
        with self.attending():
            return F.scaled_dot_product_attention(q, state[0][:, :, :reach], state[1][:, :, :reach])

    def step(self, x: Sample, state: State, reach: int) -> Sample:
        parts = self.project(x).unflatten(-1, (self.heads + 2 * self.kv_heads, self.head))
        q, k, v = parts.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        state[0][:, :, reach - 1].copy_(k)
        state[1][:, :, reach - 1].copy_(v)
        q = q.unflatten(1, (self.kv_heads, -1))  # batch, heads of keys, queries of each, head
        return self.out(self.attend(q, state, reach).flatten(1))

    def prefill(self, x: Prompt, state: State, taps: Taps | None) -> Prompt:
        parts = self.project(x).unflatten(-1, (self.heads + 2 * self.kv_heads, self.head)).transpose(1, 2)
        q, k, v = parts.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        state[0][:, :, : x.shape[1]].copy_(k)
        state[1][:, :, : x.shape[1]].copy_(v)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        return self.out(y.transpose(1, 2).flatten(2))

    def alone(self, state: State, reach: int) -> Action:
        q = torch.randn_like(state[0][:, :, :1]).repeat(1, 1, self.heads // self.kv_heads, 1)
        return lambda: self.attend(q, state, reach)

    def moved(self, state: State, reach: int) -> int:
        return sum(cache[:, :, :reach].numel() * cache.element_size() for cache in state)


def linear(inputs: int, outputs: int, sizes: Sizes, device: str) -> nn.Linear:
    """A projection of random weights, in the dtype of the models."""
    return nn.Linear(inputs, outputs, device=device, dtype=sizes.dtype)
