"""The models that are timed: language models of random weights, which time does not depend on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._typing import Taps
from omniconv.bench.decode.hyena import CachedHyena, DistilledHyena, MultiHyena
from omniconv.bench.decode.mixers import Attention, Mixer, State, linear
from omniconv.bench.decode.sizes import Sizes

Logits: TypeAlias = Annotated[Tensor, "batch vocabulary"]


class Block(nn.Module):
    """x + mixer(norm(x)), then x + perceptron(norm(x))."""

    def __init__(self, mixer: Mixer, hidden: int, sizes: Sizes, device: str) -> None:
        super().__init__()
        self.mixer = mixer
        self.before, self.between = (nn.LayerNorm(sizes.width, device=device, dtype=sizes.dtype) for _ in range(2))
        self.up, self.down = linear(sizes.width, hidden, sizes, device), linear(hidden, sizes.width, sizes, device)

    def forward(
        self, x: Annotated[Tensor, "batch *length width"], mix: Callable[[Tensor], Tensor]
    ) -> Annotated[Tensor, "batch *length width"]:
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
    def step(self, ids: Annotated[Tensor, "batch"], states: list[State], reach: int) -> Logits:
        """The logits behind one more token, the last of `reach`."""
        x = self.embedding(ids)
        for block, state in zip(self.blocks, states, strict=True):
            x = block(x, partial(block.mixer.step, state=state, reach=reach))
        return self.norm(x) @ self.embedding.weight.T

    @torch.no_grad()
    def prefill(
        self, ids: Annotated[Tensor, "batch length"], states: list[State], taps: Sequence[Taps | None]
    ) -> Logits:
        """The logits behind the last token of prompts."""
        x = self.embedding(ids)
        for block, state, filters in zip(self.blocks, states, taps, strict=True):
            x = block(x, partial(block.mixer.prefill, state=state, taps=filters))
        return self.norm(x[:, -1]) @ self.embedding.weight.T

    def random_ids(self, *shape: int) -> Annotated[Tensor, "*shape"]:
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
