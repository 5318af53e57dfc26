"""Instants at which series were sampled: any, and different ones for every series and channel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omniconv._errors import describe

RESOLUTION = 2.0**-34
"""Lags are rounded to this share of a reference sample, so that equal ones are equal whatever was added to get them."""


@dataclass(frozen=True)
class Neighbours:
    """What makes every output: sum over neighbours of weight k(lag) x[index].

    `index`: which sample, `lag`: where the kernel is taken, `weight`: the time that this stands for, 0 where an output
    has fewer neighbours than others; all `batch groups outputs neighbours`.
    """

    index: Tensor
    lag: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Lattice:
    """Times that are all multiples of `step`, up to a shift per series: their numbers, `batch samples`, from 0."""

    step: float
    index: Tensor

    @property
    def size(self) -> int:
        """How many points it takes to hold them."""
        return int(self.index.max()) + 1


class Times:
    """Sampling times of a batch of series, in samples of the reference grid.

    `times`: (batch, samples), strictly increasing among the observed ones of a series.
    `mask`: True where a sample was observed, (batch, samples), or (batch, channels, samples) where channels were
    observed at times of their own; None for all. What is not observed is absent: it is nowhere near a zero, and its
    time may be anything.

    An integral over time is a sum over samples, each with the time that it stands for, its cell: from the midpoint to
    the sample before to the midpoint to the sample after (the trapezoidal rule), and half a reference sample beyond the
    first and the last. On the reference grid every cell is exactly 1.

    Raises `TypeError` or `ValueError` that names the argument.

    >>> Times(torch.tensor([[0.0, 1.0, 2.0, 5.0]])).measure.tolist()
    [[1.0, 1.0, 2.0, 2.0]]
    """

    def __init__(self, times: Tensor, mask: Tensor | None = None):
        check_times(times, mask)
        seen = torch.ones_like(times, dtype=torch.bool) if mask is None else mask
        seen = seen if seen.ndim == 3 else seen[:, None]
        self.channels = seen.shape[1]  # one stands for any number
        self.observed = seen[:, :1] if bool((seen == seen[:, :1]).all()) else seen
        self.mask = self.observed.any(1)
        exact = times.detach().double()
        self.times = torch.where(self.mask, exact, -torch.inf)
        # Observed samples to the front, in their order; behind them, times that are later than any.
        absent, self._order = (~self.observed).to(torch.uint8).sort(dim=-1, stable=True)
        sorted_times = exact[:, None].expand(self.observed.shape).gather(-1, self._order)
        self._when = torch.where(absent.bool(), torch.inf, sorted_times).contiguous()
        self._count = self.observed.sum(-1)
        check_increasing(self._when)
        middle = (self._when[..., :-1] + self._when[..., 1:]) / 2
        self._left = torch.cat([self._when[..., :1] - 0.5, middle], dim=-1)
        right = torch.cat([middle, torch.full_like(self._when[..., :1], torch.inf)], dim=-1)
        self._right = torch.where(right.isinf(), self._when + 0.5, right)

    @classmethod
    def of(cls, times: Tensor | Times, mask: Tensor | None = None) -> Times:
        """Times as they are, or made of a tensor."""
        return times if isinstance(times, Times) else cls(times, mask)

    def scaled(self, factor: float) -> Times:
        """The same instants in another unit."""
        return Times(torch.where(self.mask, self.times * factor, 0.0), self.observed)

    def repeated(self, count: int) -> Times:
        """The times of a batch in which every series comes `count` times in a row."""
        times = torch.where(self.mask, self.times, 0.0)
        return Times(times.repeat_interleave(count, 0), self.observed.repeat_interleave(count, 0))

    def united(self) -> Times:
        """The times at which any channel was observed: where the output of a layer is."""
        return self if self.channels == 1 else Times(self.times, self.mask)

    @property
    def cells(self) -> Tensor:
        """The time that each sample stands for, `batch groups samples`; 0 where it is absent."""
        return self.cells_within(math.inf)

    def cells_within(self, window: float) -> Tensor:
        """The cells as far as windows reach from their samples: no window has more of them."""
        left, right = self._bounds(window)
        length = torch.where(self._when.isfinite(), right - left, 0.0)
        return torch.zeros_like(length).scatter(-1, self._order, length)

    def _bounds(self, window: float) -> tuple[Tensor, Tensor]:
        """Where cells begin and end, at most `window` and half a reference sample from their samples.

        Of two samples in one window neither cell is cut between them. Cells that are longer than any window would
        cancel against what windows leave of them, all the digits of a short float.
        """
        far = window + 0.5
        return torch.maximum(self._left, self._when - far), torch.minimum(self._right, self._when + far)

    @property
    def measure(self) -> Tensor:
        """The time that each sample stands for where all channels are taken together, `batch samples`."""
        return self.united().cells[:, 0]

    def neighbours(
        self, window: float, *, causal: bool, output_times: Tensor | None = None, ends: bool = False
    ) -> Neighbours:
        """What makes the integral over lags in [-window, window], or [0, window] if causal, of every output.

        Every sample in the window stands for the part of the window in its cell. Between the first or the last of them
        and the end of the window this is the trapezoidal rule too: half of the time goes to the sample, half to the
        end, where the signal is interpolated linearly; so nothing jumps when a sample comes into the window. Half a
        reference sample is added at either end, as in a sum over the reference grid. "Now" the value is the last that
        is known, no later sample is asked, and the last sample stands for the time until then. If the series ends
        within the window, that half is in the cells. A window without any sample has nothing; there an output jumps.

        `output_times`: (batch, outputs), None for those of the samples. `ends`: give only what comes on top of the
        cells of the samples in the window: the rest of the sum is a convolution.
        Reads the largest number of neighbours on the host.
        """
        now = (self.times if output_times is None else output_times)[:, None]
        now = now.expand(-1, self._when.shape[1], -1)
        begin, end = now - window, now if causal else now + window
        first = torch.searchsorted(self._when, (begin - RESOLUTION).contiguous())
        behind = torch.searchsorted(self._when, (end + RESOLUTION).contiguous(), right=True)
        last = (behind - 1).clamp(min=0)
        bounds = self._bounds(window)
        parts = [self._first_and_last(now, begin, end, first, last, causal, bounds)]
        if not ends:
            parts.append(self._inside(now, first, behind, bounds))
        rest = (gather(self._when, first.clamp(max=self._when.shape[-1] - 1)[..., None])[..., 0] - begin) / 2
        parts.append(self._edge(first - 1, first, begin, torch.full_like(now, window), first > 0, rest))
        if causal:
            parts.append(self._edge(last, last, end, torch.zeros_like(now), last >= 0, torch.zeros_like(now)))
        else:
            further = behind < self._count[..., None]
            rest = (end - gather(self._when, last[..., None])[..., 0]) / 2
            parts.append(self._edge(last, behind, end, torch.full_like(now, -window), further, rest))
        place, lag, weight = (torch.cat(pieces, dim=-1) for pieces in zip(*parts, strict=True))
        weight = torch.where((behind > first)[..., None], weight, 0.0)
        lag = torch.where(weight != 0, (lag / RESOLUTION).round() * RESOLUTION, 0.0)
        return Neighbours(gather(self._order, place), lag, weight)

    def _inside(
        self, now: Tensor, first: Tensor, behind: Tensor, bounds: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The samples in the window with their cells: places, lags and weights."""
        most = int((behind - first).max()) if behind.numel() else 0
        place = first[..., None] + torch.arange(most, device=now.device)
        inside = place < behind[..., None]
        place = place.clamp(max=self._when.shape[-1] - 1)
        length = gather(bounds[1], place) - gather(bounds[0], place)
        return place, now[..., None] - gather(self._when, place), torch.where(inside, length, 0.0)

    def _first_and_last(
        self,
        now: Tensor,
        begin: Tensor,
        end: Tensor,
        first: Tensor,
        last: Tensor,
        causal: bool,
        bounds: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The first and the last sample in the window, and by how much its parts of their cells differ from these."""
        place = torch.stack([first.clamp(max=self._when.shape[-1] - 1), last], dim=-1)
        when, left, right = (gather(values, place) for values in (self._when, *bounds))
        before = torch.where(first > 0, left[..., 0] - (when[..., 0] + begin) / 2, 0.0)
        after = end - right[..., 1]
        if not causal:
            after = torch.where(last + 1 < self._count[..., None], (when[..., 1] + end) / 2 - right[..., 1], 0.0)
        return place, now[..., None] - gather(self._when, place), torch.stack([before, after], dim=-1)

    def _edge(
        self, left: Tensor, right: Tensor, at: Tensor, lag: Tensor, counts: Tensor, rest: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Half a reference sample and the `rest` of what lies at the time `at`, between two samples, if it `counts`."""
        place = torch.stack([left, right], dim=-1).clamp(0, self._when.shape[-1] - 1)
        before, after = gather(self._when, place).unbind(-1)
        share = torch.where(after > before, (at - before) / (after - before), 0.0)
        weight = torch.where(counts, 0.5 + rest, 0.0)[..., None] * torch.stack([1 - share, share], dim=-1)
        return place, lag[..., None].expand_as(weight), weight

    def lattice(self) -> Lattice | None:
        """The lattice on which all observed times lie, up to a shift per series; None if there is none, or a huge one.

        Its step is the smallest distance between neighbours. Times count as on the lattice within 1e-6 steps.
        """
        when = self.united()._when[:, 0]
        seen = when.isfinite()
        since = torch.where(seen, when - when[:, :1], 0.0)
        gaps = since.diff(dim=-1)[seen[:, 1:]]
        if gaps.numel() == 0:
            return None
        index = (since / gaps.min()).round()
        step = float(since.max() / index.max())  # over the whole span the rounding of single gaps averages out
        if bool(((since - index * step).abs() > 1e-6 * step).any()) or float(index.max()) > 64 * when.shape[-1]:
            return None
        order = self.united()._order[:, 0]
        return Lattice(step, torch.zeros_like(index).scatter(-1, order, index).long())


def gather(values: Tensor, place: Tensor) -> Tensor:
    """`values` (batch, groups, samples) at places (batch, groups, outputs, neighbours)."""
    return values.gather(-1, place.flatten(-2)).view(place.shape)


def check_times(times: Any, mask: Any) -> None:
    """Raise unless `times` are real numbers (batch, samples), finite where `mask`, if any, says observed."""
    if not isinstance(times, Tensor) or times.dtype == torch.bool or times.is_complex():
        raise TypeError(f"`times` must be a tensor of real numbers; got {describe(times)}.")
    if times.ndim != 2 or times.shape[1] == 0:
        raise ValueError(f"`times` must be (batch, samples); got {describe(times)}.")
    if mask is None:
        seen = torch.ones_like(times, dtype=torch.bool)
    elif not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"`mask` must be a tensor of bool, True where a sample was observed; got {describe(mask)}.")
    elif mask.ndim not in (2, 3) or (mask.shape[0], mask.shape[-1]) != tuple(times.shape):
        batch, samples = times.shape
        raise ValueError(
            f"`mask` must be ({batch}, {samples}) or ({batch}, channels, {samples}), as `times` is ({batch}, {samples})"
            f"; got shape {tuple(mask.shape)}."
        )
    else:
        seen = mask if mask.ndim == 2 else mask.any(1)
    if not bool((times.isfinite() | ~seen).all()):
        raise ValueError("`times` must be finite where a sample was observed; got NaN or infinity there.")


def check_output_times(output_times: Any, batch: int) -> None:
    """Raise unless `output_times` are finite numbers (batch, outputs)."""
    if not isinstance(output_times, Tensor) or output_times.dtype == torch.bool or output_times.is_complex():
        raise TypeError(f"`output_times` must be a tensor of real numbers; got {describe(output_times)}.")
    if output_times.ndim != 2 or output_times.shape[0] != batch:
        raise ValueError(
            f"`output_times` must be (batch, outputs) with a batch of {batch}; got {describe(output_times)}."
        )
    if not bool(output_times.isfinite().all()):
        raise ValueError("`output_times` must be finite; got NaN or infinity.")


def check_increasing(when: Tensor) -> None:
    """Raise unless the finite times, `batch groups samples`, increase along the last axis."""
    wrong = (when.diff(dim=-1) <= 0).any(-1).any(-1)  # infinity minus infinity is NaN, and no NaN is below 0
    if bool(wrong.any()):
        series = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"`times` must increase strictly from sample to sample; series {series} of the batch has a step that does "
            "not. Sort the samples by time, and merge those of the same time."
        )
