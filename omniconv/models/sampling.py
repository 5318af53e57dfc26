"""Which token comes next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omniconv._errors import check_integer, check_number


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from the logits of all.

    p = softmax(logits / temperature), restricted to the likely ones, and scaled to sum 1 again.

    `temperature`: at least 0; at 0 the likeliest is taken. `top_k`: only that many, the likeliest; None for all.
    `top_p`: only the fewest whose probabilities sum to that, (0, 1]; None for all. `min_p`: only those at least that
    many times as probable as the likeliest, [0, 1]; None for all. The three apply one after the other, to what the
    last one left. `repetition_penalty`: logits of tokens that occurred before are divided by it if positive, multiplied
    if negative, (0, inf); 1 changes nothing.
    Raises `ValueError` or `TypeError` that names the argument.

    Holtzman et al. 2020 (top_p); Nguyen et al. 2024 (min_p); Keskar et al. 2019 (repetition_penalty).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, low=0.0, closed=True)
        check_number("repetition_penalty", self.repetition_penalty, low=0.0)
        if self.top_k is not None:
            check_integer("top_k", self.top_k)
        if self.top_p is not None and not 0 < check_number("top_p", self.top_p, low=0.0) <= 1:
            raise ValueError(f"`top_p` must be in (0, 1], a probability; got {self.top_p}.")
        if self.min_p is not None and not 0 <= check_number("min_p", self.min_p, low=0.0, closed=True) <= 1:
            raise ValueError(f"`min_p` must be in [0, 1], a ratio of probabilities; got {self.min_p}.")

    def draw(self, logits: Tensor, seen: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """The tokens (batch,) drawn from logits (batch, tokens); `seen`, bool of that shape: which occurred before."""
        logits = self._penalised(logits.to(torch.promote_types(logits.dtype, torch.float32)), seen)
        if self.temperature == 0:
            return logits.argmax(-1)
        # Differences from the largest, so that no quotient overflows upwards.
        below = (logits - logits.amax(-1, keepdim=True)).double() / self.temperature
        return torch.multinomial(self._likely(below.softmax(-1)), 1, generator=generator)[:, 0]

    def _penalised(self, logits: Tensor, seen: Tensor | None) -> Tensor:
        if seen is None or self.repetition_penalty == 1:
            return logits
        worse = torch.where(logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty)
        return torch.where(seen, worse, logits)

    def _likely(self, shares: Tensor) -> Tensor:
        """Probabilities with zeros for what is not to be drawn."""
        if self.top_k is not None and self.top_k < shares.shape[-1]:
            kept = shares.topk(self.top_k, -1)
            shares = torch.zeros_like(shares).scatter(-1, kept.indices, kept.values)
            shares = shares / shares.sum(-1, keepdim=True)
        if self.top_p is not None:
            ordered, index = shares.sort(-1, descending=True)
            before = ordered.cumsum(-1) - ordered  # the first one always stays
            shares = torch.zeros_like(shares).scatter(-1, index, ordered * (before < self.top_p))
            shares = shares / shares.sum(-1, keepdim=True)
        if self.min_p is not None:
            shares = shares * (shares >= self.min_p * shares.amax(-1, keepdim=True))
        return shares
