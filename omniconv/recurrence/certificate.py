"""How far the output of another kernel can be off, whatever the signal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from omniconv._errors import check_integer, describe
from omniconv.recurrence.hankel import Response, check_taps, hankel_singular_values
from omniconv.recurrence.recurrence import Recurrence

PerChannel = Annotated[Tensor, "channels"]

FOLLOWED = 4
"""For how many times the length of the taps a recurrence is followed; what comes later is bounded mode by mode."""

ELEMENTS = 2**23
"""Numbers that a matrix may hold: so many channels are looked at at a time."""

FINENESS = 8
"""Frequencies per sample at which the transfer function of the error is looked at."""


@dataclass(frozen=True)
class Certificate:
    """Norms of the error e = taps - recurrence, per channel, in float64.

    With outputs y and y' for the same signal u, for every u and every t, but for rounding:
    |y_t - y'_t| <= `l1` max |u|;  |y_t - y'_t| <= `l2` |u|_2;  |y - y'|_2 <= `peak` |u|_2.

    `l1`: sum |e|. `l2`: sqrt(sum e^2). `peak`: max over frequencies of |E(w)|, from above: the values on a grid, and
    how much a polynomial can exceed these in between (Ehlich and Zeller 1964).
    `size`: l2 norm of the taps, over the same lags. `hankel`: the error in Hankel norm of the best recurrence with as
    many states, which no `l1` and no `peak` over all lags is below; NaN where it was not asked for.
    `horizon`: the lags that count; None for all, also those behind the last tap, where the taps are zero and the
    recurrence goes on.
    """

    l1: PerChannel
    l2: PerChannel
    peak: PerChannel
    size: PerChannel
    hankel: PerChannel
    horizon: int | None

    @property
    def relative(self) -> PerChannel:
        """l2 / size, 0 for silent taps."""
        return torch.where(self.size > 0, self.l2 / self.size.clamp(min=1e-300), 0.0)


def certify(
    taps: Response, recurrence: Recurrence, *, horizon: int | None = None, states: int | None = None
) -> Certificate:
    """The norms of the difference of causal taps (channels, length) and of a recurrence that stands for them.

    `horizon`: how many lags count, the length of the longest signal; None for all lags.
    `states`: real numbers of state for the bound `hankel`, at least 0, such as the order of a fit; None leaves it out.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> taps = 0.5 ** torch.arange(8.0)[None]
    >>> exact = Recurrence(torch.tensor([[0.5 + 0j]]), torch.tensor([[0.5 + 0j]]), torch.tensor([1.0]))
    >>> certify(taps, exact).l1.item()  # it goes on where the taps end: the sum of 1/256, 1/512, ..
    0.0078125
    """
    taps = check_taps(taps)
    if len(taps) != recurrence.channels:
        raise ValueError(
            f"`taps` must have the {recurrence.channels} channels of the recurrence; got {describe(taps)}."
        )
    length = FOLLOWED * taps.shape[1] if horizon is None else check_integer("horizon", horizon)
    count = max(1, ELEMENTS // (FINENESS * length))
    rows = [slice(first, first + count) for first in range(0, len(taps), count)]
    norms = torch.cat([norms_of(taps[some], recurrence.of(some), length, horizon is None) for some in rows], dim=1)
    bound = torch.full_like(norms[0], torch.nan)
    if states is not None:
        states, values = check_integer("states", states, minimum=0), hankel_singular_values(taps)
        bound = values[:, states] if values.shape[1] > states else torch.zeros_like(bound)
    l1, l2, peak, size = norms
    return Certificate(l1, l2, peak, size, bound, horizon)


def norms_of(taps: Response, recurrence: Recurrence, length: int, endless: bool) -> Annotated[Tensor, "4 channels"]:
    """`l1`, `l2`, `peak` and `size` over so many lags, and, if `endless`, over all behind these."""
    kernel = torch.nn.functional.pad(taps, (0, length - taps.shape[1]))
    error = kernel - recurrence.taps(length)
    scale = torch.maximum(kernel.abs().amax(1, keepdim=True), error.abs().amax(1, keepdim=True))
    scale = torch.where(scale > 0, scale, 1.0)  # squares neither vanish nor overflow
    kernel, error = kernel / scale, error / scale
    spectrum = torch.fft.rfft(error, FINENESS * length).abs().amax(1) / math.sqrt(math.cos(math.pi / FINENESS))
    l1, l2 = error.abs().sum(1), error.square().sum(1).sqrt()
    if endless:
        # |sum_n R_n lambda_n^(t-1)| <= sum_n |R_n| |lambda_n|^(t-1), a geometric series per mode.
        modulus = recurrence.poles.abs()
        first = recurrence.residues.abs() / scale * modulus ** (length - 1)
        tail = torch.where(first > 0, first / (1 - modulus), 0).sum(1)
        energy = torch.where(first > 0, first / (1 - modulus.square()).sqrt(), 0).sum(1)
        l1, l2, spectrum = l1 + tail, l2 + energy, spectrum + tail
    return scale[:, 0] * torch.stack([l1, l2, spectrum, kernel.square().sum(1).sqrt()])
