"""Convolution of series that were sampled at any times."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from omniconv._typing import Signal
from omniconv.domains import Times
from omniconv.domains.times import RESOLUTION, Lattice, Neighbours
from omniconv.engines import convolve

PAIRS = 2**24
"""So many products of a kernel value and a sample are held at once; more are computed part by part."""


class Lags(NamedTuple):
    """A kernel of one axis: `values(lags)` gives its taps, `out in lags` (dense) or `channels lags`, at any lags.

    It reaches to lags of `window`, in samples of the reference grid.
    """

    values: Callable[[Tensor], Tensor]
    window: int
    causal: bool
    engine: str


def convolve_at_times(x: Signal, kernel: Lags, times: Times, output_times: Tensor | None = None) -> Signal:
    """y[i] = sum_j w_ij k(t_i - t_j) x[j] over the neighbours j of every output, with the weights w of `Times`.

    `x`: (batch, channels, samples), zero where nothing was observed. Returns (batch, out, outputs); the outputs are at
    the times at which any channel was observed, unless `output_times` says otherwise. The cost is that of the pairs of
    outputs and neighbours; times on a lattice are convolved there, and only the ends of the windows pair by pair.
    """
    lattice = times.lattice() if output_times is None else None
    if lattice is None:
        neighbours = times.neighbours(kernel.window, causal=kernel.causal, output_times=output_times)
        return sum_over_pairs(x, kernel, neighbours)
    exact = Times(lattice.index.double() * lattice.step, times.observed)  # both parts see the same windows
    ends = exact.neighbours(kernel.window, causal=kernel.causal, ends=True)
    return convolve_on_lattice(x * exact.cells.to(x.dtype), kernel, lattice) + sum_over_pairs(x, kernel, ends)


def convolve_on_lattice(weighted: Signal, kernel: Lags, lattice: Lattice) -> Signal:
    """The convolution of impulses on a lattice, at the points where they are."""
    index = lattice.index[:, None]
    grid = weighted.new_zeros(*weighted.shape[:2], lattice.size).scatter_add(-1, index.expand_as(weighted), weighted)
    far = int((kernel.window + RESOLUTION) / lattice.step)  # as `neighbours` decides
    lags = torch.arange(0 if kernel.causal else -far, far + 1, device=weighted.device, dtype=torch.float64)
    y = convolve(grid, kernel.values(lags * lattice.step), causal=kernel.causal, engine=kernel.engine)
    return y.gather(-1, index.expand(-1, y.shape[1], -1))


def sum_over_pairs(x: Signal, kernel: Lags, neighbours: Neighbours) -> Signal:
    """The sum over neighbours, pair by pair; the kernel is evaluated once for every lag that occurs."""
    lags, which = torch.unique(neighbours.lag, return_inverse=True)
    values = kernel.values(lags)
    outputs, most = which.shape[2:]
    part = max(1, PAIRS // (x.shape[0] * most * values[..., 0].numel()))
    pieces = []
    for start in range(0, outputs, part):
        chosen = slice(start, start + part)
        index, weight = neighbours.index[:, :, chosen], neighbours.weight[:, :, chosen]
        pieces.append(pair_products(x, values, which[:, :, chosen], index, weight))
    return torch.cat(pieces, dim=-1)


def pair_products(x: Signal, values: Tensor, which: Tensor, index: Tensor, weight: Tensor) -> Signal:
    """sum_k weight k(lag) x over the neighbours k of some outputs, (batch, out, outputs).

    `which`: the lag among `values`; it, `index` and `weight` are `batch groups outputs neighbours`, where there is one
    group, or one per channel.
    """
    b, c, n = x.shape
    rows = (index + torch.arange(b, device=x.device)[:, None, None, None] * n).movedim(1, -1)
    if rows.shape[-1] == 1:
        samples = x.movedim(1, -1).reshape(b * n, c)[rows[..., 0]]
    else:
        samples = x.movedim(1, -1).reshape(b * n, c)[rows, torch.arange(c, device=x.device)]
    samples = samples * weight.movedim(1, -1).to(x.dtype)  # batch outputs neighbours channels
    table = values.movedim(-1, 0)
    if rows.shape[-1] == 1:
        taps = table[which[:, 0]]
    elif values.ndim == 2:
        taps = table[which.movedim(1, -1), torch.arange(c, device=x.device)]
    else:
        taps = table.movedim(-1, 1)[which.movedim(1, -1), torch.arange(c, device=x.device)].movedim(-1, -2)
    if values.ndim == 2:
        return (taps * samples).sum(2).movedim(-1, 1)
    return torch.einsum("bmkoc,bmkc->bom", taps, samples)
