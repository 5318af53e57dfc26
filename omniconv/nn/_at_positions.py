"""Convolution of signals that are known at any positions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from omniconv._typing import Signal
from omniconv.domains import Cloud, Edges
from omniconv.nn._lags import Lags
from omniconv.nn._over_edges import gathered, sum_over_edges
from omniconv.nn.masks import observed


def convolve_at_positions(
    x: Signal, kernel: Lags, cloud: Cloud, volume: float, output_positions: Tensor | None = None
) -> Signal:
    """y[i] = sum_j w_j k(p_i - p_j) x[j] over the points j within reach of every output i, with their volumes w_j.

    `x`: (batch, channels, points). `volume`: what the points of a cloud share where it does not say how much each
    stands for. Returns (batch, out, outputs), at the points unless `output_positions` says otherwise.
    Gradients reach positions through the lags; which points are near has none.
    """
    edges = cloud.edges_within(kernel.window, kernel.causal, output_positions)
    weighted = observed(x, cloud.mask) * cloud.volumes(volume).to(x.dtype)[:, None]
    return sum_over_edges(weighted, edges, kernels_of(kernel, cloud, edges, output_positions), kernel.size)


def kernels_of(kernel: Lags, cloud: Cloud, edges: Edges, output_positions: Tensor | None) -> Callable[[slice], Tensor]:
    """The kernel's values for some of the edges, `channels pairs` or `out in pairs`.

    Where few lags occur among many pairs, as between points of a lattice, the kernel is taken once for each of them.
    """
    repeated = cloud.repeated_lags(edges, output_positions)
    if repeated is None:
        outputs = cloud.positions if output_positions is None else output_positions
        near, far = outputs.double().flatten(0, 1), cloud.positions.double().flatten(0, 1)
        target, source = edges.flat()
        return lambda some: kernel.values(near[target[some]] - far[source[some]])
    lags, which = repeated
    values = kernel.values(lags)
    return lambda some: gathered(values, which[some])
