"""Text, or any tokens, from a network that predicts the next one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from omniconv._errors import check_integer, describe
from omniconv.models.sampling import Sampling, check_rows, finite_rows

if TYPE_CHECKING:
    from omniconv.models.stepper import Stepper

Callback = Callable[[Tensor], bool | None]


@dataclass(frozen=True, eq=False)
class Generation:
    """Tokens that continue prompts.

    `ids`: (batch, tokens), those behind the prompts; a row that ended at a stop id repeats it. `lengths`: (batch,), how
    many of a row count, its stop id among them.
    """

    ids: Tensor
    lengths: Tensor

    def rows(self) -> list[Tensor]:
        """The tokens of every row, without what follows its stop id."""
        return [row[:length] for row, length in zip(self.ids, self.lengths.tolist(), strict=True)]


class Generates(ABC):
    """Base of what continues prompts of tokens."""

    @abstractmethod
    def stepper(self) -> Stepper:
        """What takes the tokens, one after the other."""

    def generate(
        self,
        ids: Tensor | Sequence[Tensor],
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop: Sequence[int] = (),
        seed: int | None = None,
        callback: Callback | None = None,
    ) -> Generation:
        """Continue prompts, one token after the other.

        `ids`: prompts of one length (batch, length), or a list of any lengths, each of at least one token.
        `max_new_tokens`: at least 1. `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`: as in `Sampling`.
        `stop`: ids that end a row. `seed`: of the draws, from 0 to 2**64 - 1; None draws from torch's global generator.
        `callback`: called with the tokens (batch,) of every step; returns true to stop.

        A row does not depend on the others, but for the draws. Raises `ValueError` or `TypeError` that names the
        argument, and `ValueError` for a model whose logits are not finite.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        check_integer("max_new_tokens", max_new_tokens)
        if seed is not None:
            check_seed(seed)
        if callback is not None and not callable(callback):
            raise TypeError(f"`callback` must be callable, with the tokens of a step; got {describe(callback)}.")
        stepper = self.stepper()
        prompts = prompts_of(ids, check_tokens(stepper, stop))
        return continued(stepper, prompts, max_new_tokens, sampling, tuple(stop), seed, callback)


@torch.no_grad()
def continued(
    stepper: Stepper,
    prompts: Sequence[Tensor],
    most: int,
    sampling: Sampling,
    stop: tuple[int, ...],
    seed: int | None,
    callback: Callback | None,
) -> Generation:
    """`Generates.generate` with its arguments checked."""
    device = next(stepper.network.parameters()).device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    padded = torch.nn.utils.rnn.pad_sequence([prompt.to(device) for prompt in prompts], batch_first=True)
    seen = torch.zeros(len(prompts), stepper.network.out_features, dtype=torch.bool, device=device)
    for row, prompt in zip(seen, prompts, strict=True):
        row[prompt.to(device)] = True
    uneven = None if (lengths == lengths[0]).all() else lengths.to(device)
    logits, state = stepper.prefill(padded, lengths=uneven, last=True)
    ends = torch.tensor(stop, device=device, dtype=torch.long)
    running = finite = torch.ones(len(prompts), dtype=torch.bool, device=device)
    drawn, counts = list[Tensor](), torch.zeros(len(prompts), dtype=torch.long, device=device)
    for i in range(most):
        logits = logits[..., -1] if i == 0 else logits
        token = sampling.draw(logits, seen, generator)
        finite = finite & finite_rows(logits)  # looked at where the host waits anyway
        token = torch.where(running, token, drawn[-1]) if drawn else token  # an ended row repeats its stop id
        drawn.append(token)
        counts += running
        seen.scatter_(1, token[:, None], True)
        running = running & finite & ~torch.isin(token, ends)
        halt = callback is not None and callback(token)
        if halt or i + 1 == most or (stop and not running.any()):  # without `stop` the host need not wait
            break
        logits, state = stepper.step(token, state)
    check_rows(finite)
    return Generation(torch.stack(drawn, 1), counts)


def check_seed(seed: Any) -> None:
    """Raise unless it is one that torch's generators take."""
    if check_integer("seed", seed, minimum=0) >= 2**64:
        raise ValueError(f"`seed` must be from 0 to 2**64 - 1, which a generator takes; got {seed}.")


def prompts_of(ids: Any, tokens: int) -> list[Tensor]:
    """Prompts as a list of ids below `tokens`, or raise."""
    if not isinstance(ids, Tensor | Sequence) or (isinstance(ids, Tensor) and ids.ndim != 2):
        raise ValueError(f"`ids` must be (batch, length), or a list of prompts (length,); got {describe(ids)}.")
    prompts = list(ids)
    if not prompts:
        raise ValueError("`ids` must hold one prompt at least; got none.")
    for prompt in prompts:
        if not isinstance(prompt, Tensor) or prompt.ndim != 1 or len(prompt) == 0:
            what = describe(prompt)
            raise ValueError(f"`ids`: a prompt must be a tensor of one token at least, (length,); got {what}.")
        if prompt.dtype.is_floating_point or prompt.dtype.is_complex or prompt.dtype == torch.bool:
            raise TypeError(f"`ids` must hold integers, the ids of tokens; got {describe(prompt)}.")
        lowest, highest = (int(end) for end in torch.aminmax(prompt))
        if lowest < 0 or highest >= tokens:
            raise ValueError(f"`ids` must hold ids from 0 to {tokens - 1}; got {lowest} to {highest}.")
    return [prompt.long() for prompt in prompts]


def check_tokens(stepper: Stepper, stop: Any = ()) -> int:
    """How many tokens there are, of a network that predicts those it takes, or raise; `stop`: ids of some."""
    network = stepper.network
    if network.embedding is None or network.embedding.tokens != network.out_features:
        takes = "signals" if network.embedding is None else f"{network.embedding.tokens} tokens"
        raise ValueError(
            f"the network must predict the tokens that it takes; it takes {takes} and gives {network.out_features} "
            'outputs. Build it with tokens=out_features and head="dense".'
        )
    if not isinstance(stop, Sequence):
        raise TypeError(f"`stop` must be a sequence of ids, such as [0]; got {describe(stop)}.")
    for token in stop:
        if not 0 <= check_integer("stop", token, minimum=0) < network.out_features:
            raise ValueError(f"`stop` must hold ids below {network.out_features}; got {token}.")
    return network.out_features
