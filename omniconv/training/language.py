"""Training of networks that predict the next token, and how well they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from omniconv._errors import check_instance, check_integer, check_number
from omniconv.data.windows import Windows
from omniconv.models import Network, Stepper
from omniconv.nn import Conv
from omniconv.recurrence import Stream, stream
from omniconv.training.evaluation import evaluating
from omniconv.training.loop import Record, Report, Run, train
from omniconv.training.recipe import Recipe
from omniconv.training.tasks import Task

Array = NDArray[Any]


class NextToken(nn.Module):
    """The mean loss in nats of the tokens of every window but its first, (batch, 1), given those before.

    `forward(x)`: windows of ids (batch, 1, length + 1), as `Windows` gives them.
    """

    def __init__(self, network: Network):
        super().__init__()
        check_instance("network", network, nn.Module)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        ids = x[:, 0].long()
        logits = self.network(ids[:, :-1])
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(exact, ids[:, 1:], reduction="none").mean(1, keepdim=True)


@dataclass(frozen=True)
class Language(Task):
    """The next of `tokens` tokens, with a `NextToken`, whose outputs are losses: they need no targets.

    The targets of `Windows` only say which text it was.
    """

    name = "language"
    metric = "log_likelihood"

    tokens: int

    def __post_init__(self) -> None:
        check_integer("tokens", self.tokens, minimum=2)

    @property
    def out_features(self) -> int:
        return self.tokens

    def encode(self, targets: Array) -> Tensor:
        return torch.from_numpy(np.asarray(targets, dtype=np.int64))

    def losses(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        return outputs[:, 0]

    def predictions(self, outputs: Tensor) -> Array:
        """The log-likelihood of the windows."""
        return -outputs[:, 0].cpu().double().numpy()

    def metrics(self, outputs: Tensor, targets: Array) -> dict[str, float]:
        mean = outputs.double().mean().item()
        return {"log_likelihood": -mean, "bits_per_token": mean / float(np.log(2.0))}

    def described(self) -> dict[str, Any]:
        return {"name": self.name, "tokens": self.tokens}


def train_language(
    network: Network,
    windows: Windows,
    *,
    recipe: Recipe | None = None,
    validation: Windows | None = None,
    run: Run | None = None,
    report: Report | None = None,
) -> Record:
    """Train a network in place to predict the next token; returns the record, as `train` does.

    `network`: with head "dense", which gives as many outputs as it takes tokens. The rest as in `train`.
    Raises `ValueError` that names what does not fit, and what `train` raises.
    """
    embedding = network.embedding
    if embedding is None or embedding.tokens != network.out_features:
        raise ValueError(
            f"`network` must predict the tokens that it takes; it gives {network.out_features} outputs and takes "
            f"{'signals' if embedding is None else f'{embedding.tokens} tokens'}."
        )
    largest = int(windows.ids.max())
    if largest >= embedding.tokens:
        raise ValueError(f"`windows` must hold ids below {embedding.tokens}, those of the network; got {largest}.")
    task = Language(embedding.tokens)
    return train(NextToken(network), task, windows, recipe=recipe, validation=validation, run=run, report=report)


@dataclass(frozen=True)
class Agreement:
    """How two networks predict one text: the mean loss in nats per token of each, and where they would say the same.

    `reference`, `other`: losses. `top_1`: share of tokens for which both hold the same token the likeliest. `tokens`:
    how many were predicted.
    """

    reference: float
    other: float
    top_1: float
    tokens: int

    @property
    def difference(self) -> float:
        """Of the losses, in nats: above 0 where the other one is worse."""
        return self.other - self.reference


@torch.no_grad()
def compare(network: Network, stepper: Stepper, windows: Windows, *, batch_size: int = 32, chunk: int = 1) -> Agreement:
    """A network at once against a stream of it, fed `chunk` tokens at a time, on all windows from silence.

    With `chunk` 1 every token goes through the recurrence, the way text is generated.
    """
    check_integer("chunk", chunk)
    device = next(network.parameters()).device
    total = torch.zeros(3, dtype=torch.float64)
    count = 0
    with evaluating(network):
        for ids in batches(windows, batch_size):
            ids = ids.to(device)
            given, wanted = ids[:, :-1], ids[:, 1:]
            logits, state, outputs = network(given), None, list[Tensor]()
            for some in given.split(chunk, dim=1):
                y, state = stepper.prefill(some, state)
                outputs.append(y)
            others = torch.cat(outputs, dim=-1)
            losses = [F.cross_entropy(each.double(), wanted, reduction="sum") for each in (logits, others)]
            same = (logits.argmax(1) == others.argmax(1)).sum().double()
            total += torch.stack([*losses, same]).cpu()
            count += wanted.numel()
    first, second, same_share = (total / count).tolist()
    return Agreement(first, second, same_share, count)


@dataclass(frozen=True)
class Attempt:
    """An order that was tried, and what the text says of the stream. `nbytes`: of the state of one text."""

    order: int | None
    nbytes: int
    agreement: Agreement


ORDERS = (2, 4, 8, 16, 32, 64, 128, None)
"""What is tried one after the other; without an order kernels that have no exact recurrence stay taps."""


def distill_language(
    network: Network,
    windows: Windows,
    *,
    change: float = 0.005,
    top_1: float = 0.98,
    orders: Sequence[int | None] = ORDERS,
    report: Callable[[Attempt], None] | None = None,
) -> tuple[Stream, list[Attempt]]:
    """The smallest stream of a language model that says what the model says, on a text; and what was tried.

    The first of `orders` is taken with which the loss in nats changes by at most `change`, (0, inf), and the likeliest
    token is the same for a share of at least `top_1`, [0, 1], every token of `windows` through the recurrence. Orders
    that are more than half of what kernels reach, on the grid of the network, are passed over: taps are no more then.
    `report`: called with every attempt. Raises `ValueError` if none does, which cannot be where None, the exact one, is
    among them.
    """
    check_number("change", change, low=0.0)
    check_number("top_1", top_1, low=0.0, high=1.0, closed=True)
    attempts, reached = list[Attempt](), reaches(network)
    for order in orders:
        if order is not None and not fits(order, reached):
            continue
        made = stream(network, order=order)
        found = compare(network, made, windows)
        attempts.append(Attempt(order, made.init_state(1).nbytes, found))
        if report is not None:
            report(attempts[-1])
        if abs(found.difference) <= change and found.top_1 >= top_1:
            return made, attempts
    raise ValueError(
        f"no order of {list(orders)} keeps the loss within {change:g} nats and the likeliest token alike for "
        f"{top_1:.1%}. Ask for less, or add None, the exact stream."
    )


@torch.no_grad()
def reaches(network: Network) -> list[tuple[int, bool]]:
    """How many samples back every convolution reaches on the grid of the network, and whether it is a short one.

    A short one reaches at most two samples back at the reference resolution. Kernels have other numbers of taps on
    other grids, and those that are filtered for coarse ones get longer.
    """
    convs = [module for module in network.modules() if isinstance(module, Conv)]
    return [(conv.taps(network.spacing, network.lowpass).shape[-1] - 1, conv.window[0] <= 2) for conv in convs]


def fits(order: int, reached: Sequence[tuple[int, bool]]) -> bool:
    """Whether long kernels have twice as many lags as that, and short ones too, or so few that they stay taps."""
    return any(not short for _, short in reached) and all(
        order <= past // 2 or (short and past <= max(order, 2)) for past, short in reached
    )


def batches(windows: Windows, batch_size: int) -> Iterator[Tensor]:
    """Ids (batch, length + 1) of the windows, in their order."""
    for first in range(0, len(windows), batch_size):
        chosen = range(first, min(first + batch_size, len(windows)))
        yield torch.from_numpy(np.stack([windows[i][0] for i in chosen])).long()
