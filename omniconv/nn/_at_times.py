"""Convolution of series that were sampled at any times."""

from __future__ import annotations

import torch
from torch import Tensor

from omniconv._typing import Signal
from omniconv.domains import Edges, Times
from omniconv.domains.times import RESOLUTION, Lattice, Neighbours
from omniconv.engines import convolve
from omniconv.nn._lags import Lags
from omniconv.nn._over_edges import gathered, sum_over_edges


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
        return sum_over_neighbours(x, kernel, neighbours)
    exact = Times(lattice.index.double() * lattice.step, times.observed)  # both parts see the same windows
    ends = exact.neighbours(window, causal=past, ends=True)
    weighted = x * exact.cells_within(window).to(x.dtype)
    return convolve_on_lattice(weighted, kernel, lattice) + sum_over_neighbours(x, kernel, ends)


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


def sum_over_neighbours(x: Signal, kernel: Lags, neighbours: Neighbours) -> Signal:
    """sum_k weight k(lag) x over the neighbours k of every output, (batch, out, outputs).

    Where channels have neighbours of their own, each is a signal by itself, and those that make one output are added.
    """
    batch, channels, samples = x.shape
    groups, outputs = neighbours.lag.shape[1:3]
    pairs = neighbours.weight.nonzero(as_tuple=True)  # the others are filled up
    row, group, target, _ = pairs
    source, lag, weight = neighbours.index[pairs], neighbours.lag[pairs], neighbours.weight[pairs].to(x.dtype)
    if groups == 1:
        edges = Edges(row, source, target, (batch, outputs, samples))
        return sum_over_edges(x, edges, lambda some: at_lags(kernel, lag[some]) * weight[some], kernel.size)
    edges = Edges(row * channels + group, source, target, (batch * channels, outputs, samples))

    def own(some: slice) -> Tensor:
        return at_lags(kernel, lag[some], group[some]) * weight[some]

    y = sum_over_edges(x.reshape(-1, 1, samples), edges, own, kernel.size)
    return y.unflatten(0, (batch, channels)).sum(1) if y.shape[1] > 1 else y.reshape(batch, -1, outputs)


def at_lags(kernel: Lags, lag: Tensor, channel: Tensor | None = None) -> Tensor:
    """The kernel, `channels pairs` or `out in pairs`, taken once for every lag that occurs.

    `channel`: of every pair its input channel alone: `1 pairs` or `out 1 pairs`.
    """
    lags, which = torch.unique(lag, return_inverse=True)
    values = kernel.values(lags[:, None])
    if channel is None:
        return gathered(values, which)
    picked = gathered(values.flatten(-2).reshape(-1, values.shape[-2] * len(lags)), channel * len(lags) + which)
    return picked if values.ndim == 2 else picked[:, None]
