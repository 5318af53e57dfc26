"""Sums over pairs of points, a part of the pairs at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from omniconv._typing import Signal
from omniconv.domains import Edges

NUMBERS = 2**24
"""Of kernel values and of what leads to them that are held at a time."""

HIDDEN = 64
"""Numbers that a kernel is taken to hold for each of its values, at least."""

Kernels = Callable[[Tensor], Tensor]
"""Values `channels pairs`, or `out in pairs`, at lags `pairs dim`."""


def sum_over_edges(
    x: Signal, edges: Edges, lags: Callable[[Tensor, Tensor], Tensor], kernels: Kernels, size: int
) -> Signal:
    """y[b, :, i] = sum over the sources j of every target i of k(lag_ij) x[b, :, j].

    `x`: (batch, channels, sources). `lags(target, source)`: of pairs of flattened indices, `pairs dim`. `size`: values
    that the kernel has at every lag. Returns (batch, out, targets).

    Where it takes several parts, the gradient computes the kernel of each again rather than to keep what led to it: the
    memory is that of a part, however many pairs there are.
    """
    batch, targets, sources = edges.shape
    flat = x.transpose(1, 2).reshape(batch * sources, x.shape[1])
    target, source = edges.batch * targets + edges.target, edges.batch * sources + edges.source

    def part(flat: Tensor, target: Tensor, source: Tensor) -> Tensor:
        values = kernels(lags(target, source)).to(flat.dtype)
        samples = flat[source]
        if values.ndim == 2:
            return values.transpose(0, 1) * samples
        return torch.einsum("oip,pi->po", values, samples)

    most = max(1, NUMBERS // max(size, HIDDEN))
    pieces = list(zip(target.split(most), source.split(most), strict=True))
    total: Tensor | None = None
    for some, others in pieces:
        args = (flat, some, others)
        products = part(*args) if len(pieces) == 1 else checkpoint(part, *args, use_reentrant=False)
        assert isinstance(products, Tensor)
        empty = products.new_zeros(batch * targets, products.shape[1]) if total is None else total
        total = empty.index_add(0, some, products)
    assert total is not None  # a split of nothing is one empty part
    return total.view(batch, targets, total.shape[1]).transpose(1, 2)


def most_over_edges(x: Signal, edges: Edges, lags: Callable[[Tensor, Tensor], Tensor], kernels: Kernels) -> Signal:
    """y[b, c, i] = the largest of k_c(lag_ij) x[b, c, j] over the sources j of every target i; 0 where it has none."""
    batch, targets, sources = edges.shape
    flat = x.transpose(1, 2).reshape(batch * sources, x.shape[1])
    target, source = edges.batch * targets + edges.target, edges.batch * sources + edges.source
    products = kernels(lags(target, source)).to(flat.dtype).transpose(0, 1) * flat[source]
    rows = target[:, None].expand_as(products)
    empty = products.new_zeros(batch * targets, products.shape[1])
    most = empty.scatter_reduce(0, rows, products, "amax", include_self=False)
    return most.view(batch, targets, x.shape[1]).transpose(1, 2)
