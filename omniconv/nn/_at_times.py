"""Convolution of series that were sampled at any times."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from omniconv._typing import Signal
from omniconv.domains import Times
from omniconv.domains.times import RESOLUTION, Lattice, Neighbours
from omniconv.engines import convolve
from omniconv.nn._lags import Lags

PAIRS = 2**24
"""So many products of a kernel value and a sample are held at once; more are computed part by part."""


def convolve_at_times(x: Signal, kernel: Lags, times: Times, output_times: Tensor | None = None) -> Signal:
    """y[i] = sum_j w_ij k(t_i - t_j) x[j] over the neighbours j of every output, with the weights w of `Times`.

    `x`: (batch, channels, samples), zero where nothing was observed. Returns (batch, out, outputs); the outputs are at
    the times at which any channel was observed, unless `output_times` says otherwise. The cost is that of the pairs of
    outputs and neighbours; times on a lattice are convolved there, and only the ends of the windows pair by pair.
    """
    (window,), (past,) = kernel.window, kernel.causal
    lattice = times.lattice() if output_times is None else None
    if lattice is None:
        neighbours = times.neighbours(window, causal=past, output_times=output_times)
        return sum_over_pairs(x, kernel, neighbours)
    exact = Times(lattice.index.double() * lattice.step, times.observed)  # both parts see the same windows
    ends = exact.neighbours(window, causal=past, ends=True)
    weighted = x * exact.cells_within(window).to(x.dtype)
    return convolve_on_lattice(weighted, kernel, lattice) + sum_over_pairs(x, kernel, ends)


def convolve_on_lattice(weighted: Signal, kernel: Lags, lattice: Lattice) -> Signal:
    """The convolution of impulses on a lattice, at the points where they are."""
    index = lattice.index[:, None]
    grid = weighted.new_zeros(*weighted.shape[:2], lattice.size).scatter_add(-1, index.expand_as(weighted), weighted)
    (window,), (past,) = kernel.window, kernel.causal
    far = int((window + RESOLUTION) / lattice.step)  # as `neighbours` decides
    lags = torch.arange(0 if past else -far, far + 1, device=weighted.device, dtype=torch.float64)
    taps = kernel.values(lags[:, None] * lattice.step)
    y = convolve(grid, taps, causal=past, engine=kernel.engine)
    return y.gather(-1, index.expand(-1, y.shape[1], -1))


def sum_over_pairs(x: Signal, kernel: Lags, neighbours: Neighbours) -> Signal:
    """The sum over neighbours, pair by pair, so many outputs at once as fit into `PAIRS`.

    Where it takes several parts, the gradient computes each of them again rather than to keep them all.
    """
    found = neighbours.index, neighbours.lag, neighbours.weight
    batch, _, outputs, most = neighbours.lag.shape
    part = max(1, PAIRS // max(1, batch * most * max(kernel.size, 64)))  # 64: a hidden layer of the kernel
    if outputs <= part:
        return pair_products(x, kernel, *found)
    pieces = []
    for start in range(0, outputs, part):
        chosen = (slice(None), slice(None), slice(start, start + part))
        some = (values[chosen] for values in found)
        pieces.append(checkpoint(pair_products, x, kernel, *some, use_reentrant=False))
    return torch.cat(pieces, dim=-1)


def pair_products(x: Signal, kernel: Lags, index: Tensor, lag: Tensor, weight: Tensor) -> Signal:
    """sum_k weight k(lag) x over the neighbours k of some outputs, (batch, out, outputs).

    The kernel is evaluated once for every lag that occurs. `index`, `lag` and `weight` are
    `batch groups outputs neighbours`, where there is one group, or one per channel.
    """
    b, c, n = x.shape
    lags, which = torch.unique(lag, return_inverse=True)
    values = kernel.values(lags[:, None])  # out in lags, or channels lags
    rows = index + torch.arange(b, device=x.device)[:, None, None, None] * n
    samples = take(x.movedim(1, -1).reshape(b * n, c, 1), rows)[..., 0] * weight.movedim(1, -1).to(x.dtype)
    if values.ndim == 2:
        return (take(values.t()[..., None], which)[..., 0] * samples).sum(2).movedim(-1, 1)
    return torch.einsum("bmkco,bmkc->bom", take(values.permute(2, 1, 0), which), samples)


def take(table: Tensor, index: Tensor) -> Tensor:
    """Rows of `table`, `rows channels width`, as `batch outputs neighbours channels width`.

    `index`: `batch groups outputs neighbours`, one group for all channels or one for each.
    """
    channels, width = table.shape[1:]
    if index.shape[1] == 1:  # whole rows: an embedding, whose gradient is fast
        return F.embedding(index[:, 0], table.flatten(1)).unflatten(-1, (channels, width))
    places = index.movedim(1, -1)
    flat = places.reshape(-1, channels, 1).expand(-1, -1, width)
    return table.gather(0, flat).view(*places.shape, width)
