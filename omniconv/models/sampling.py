"""Which token comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

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
    if negative, [0.01, 100]; 1 changes nothing.
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
        check_number("repetition_penalty", self.repetition_penalty, low=0.01, high=100.0, closed=True)
        if self.top_k is not None:
            check_integer("top_k", self.top_k)
        if self.top_p is not None and not 0 < check_number("top_p", self.top_p, low=0.0) <= 1:
            raise ValueError(f"`top_p` must be in (0, 1], a probability; got {self.top_p}.")
        if self.min_p is not None and not 0 <= check_number("min_p", self.min_p, low=0.0, closed=True) <= 1:
            raise ValueError(f"`min_p` must be in [0, 1], a ratio of probabilities; got {self.min_p}.")

    def draw(self, logits: Tensor, seen: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """The tokens (batch,) drawn from logits (batch, tokens); `seen`, bool of that shape: which occurred before.

        -inf is never drawn. Raises `ValueError` for logits that are NaN or inf, or -inf for every token; at temperature
        0 only on a CPU, because the host would wait for any other device.
        """
        logits = self._penalised(logits.to(torch.promote_types(logits.dtype, torch.float32)), seen)
        if self.temperature == 0:
            if not waits(logits):
                check_rows(finite_rows(logits))
            return logits.argmax(-1)
        # Differences from the largest, so that no quotient overflows upwards.
        below = (logits - logits.amax(-1, keepdim=True)).double() / self.temperature
        try:
            return torch.multinomial(self._likely(below.softmax(-1)), 1, generator=generator)[:, 0]
        except RuntimeError:  # it has looked at the probabilities, and would tell of them
            check_rows(finite_rows(logits))
            raise

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


def finite_rows(logits: Tensor) -> Annotated[Tensor, "batch, bool"]:
    """Rows to draw from: without NaN and inf, either of which would be the largest, and not -inf everywhere."""
    return logits.amax(-1).isfinite()


def check_rows(finite: Annotated[Tensor, "batch, bool"]) -> None:
    """Raise unless all rows of logits are finite; the host waits for the device."""
    wrong = len(finite) - int(finite.sum())
    if wrong:
        raise ValueError(
            f"the model's logits are not finite in {wrong} of {len(finite)} rows: NaN or inf. Look for a training that "
            "has diverged, or compute in float32 what overflows in half precision."
        )


def waits(logits: Tensor) -> bool:
    """Whether the host waits for a device when it looks at a value."""
    return logits.device.type != "cpu"
