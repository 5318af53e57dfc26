"""Sums over pairs of points, a part of the pairs at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from omniconv._typing import Signal
from omniconv.domains import Edges

NUMBERS = 2**24
"""Of kernel values and of what leads to them that are held at a time."""

FEW = 2**21
"""Of these, so many are rather kept for the gradient than computed again: it takes some tens of megabytes."""

HIDDEN = 64
"""Numbers that a kernel is taken to hold for each of its values, at least."""

Kernels = Callable[[slice], Tensor]
"""Values `channels pairs`, or `out in pairs`, of some of the edges."""


Combine = Callable[[Tensor, Tensor], Tensor]
"""What a kernel `pairs channels` and samples `pairs channels` make together."""


def sum_over_edges(
    x: Signal,
    edges: Edges,
    kernels: Kernels,
    size: int,
    combine: Combine = torch.mul,
    weights: Annotated[Tensor, "batch sources"] | None = None,
) -> Signal:
    """y[b, :, i] = sum over the edges from j to i of their kernel times x[b, :, j].

    `x`: (batch, channels, sources). `size`: values that the kernel has for every edge. `combine`: what to do in place
    of the product, where the kernel has one value per channel. `weights`: of every source, times what is summed; None
    for 1. Returns (batch, out, targets).

    Unless there are few, the gradient computes the kernel of each part again rather than to keep what led to it:
    nothing is kept of a pair but which points it joins, and the memory is that of a part, however many there are.
    """
    batch, targets, sources = edges.shape
    flat = x.transpose(1, 2).reshape(batch * sources, x.shape[1])
    target, source = edges.flat()

    def part(flat: Tensor, some: slice) -> Tensor:
        values = kernels(some).to(flat.dtype)
        samples = flat.index_select(0, source[some])
        if values.ndim == 2:
            products = combine(values.transpose(0, 1), samples)
        else:
            products = torch.einsum("oip,pi->po", values, samples)
        if weights is not None:
            products = products * weights.flatten()[source[some], None]
        # Summed in here: outside, every product would be kept for the gradient.
        return products.new_zeros(batch * targets, products.shape[1]).index_add(0, target[some], products)

    each = max(size, HIDDEN)
    most = max(1, NUMBERS // each)
    pieces = [slice(start, start + most) for start in range(0, max(len(edges), 1), most)]
    again = len(pieces) > 1 or (torch.is_grad_enabled() and len(edges) * each > FEW)
    total: Tensor | None = None
    for some in pieces:
        found = checkpoint(part, flat, some, use_reentrant=False) if again else part(flat, some)
        assert isinstance(found, Tensor)
        total = found if total is None else total + found
    assert total is not None  # of no edge there is one empty part
    return total.view(batch, targets, total.shape[1]).transpose(1, 2)


def most_over_edges(x: Signal, edges: Edges, kernels: Kernels, combine: Combine = torch.mul) -> Signal:
    """y[b, c, i] = the largest of k_c x[b, c, j] over the edges from j to i, k their kernel; 0 where there are none."""
    batch, targets, sources = edges.shape
    flat = x.transpose(1, 2).reshape(batch * sources, x.shape[1])
    target, source = edges.flat()
    products = combine(kernels(slice(None)).to(flat.dtype).transpose(0, 1), flat[source])
    rows = target[:, None].expand_as(products)
    empty = products.new_zeros(batch * targets, products.shape[1])
    most = empty.scatter_reduce(0, rows, products, "amax", include_self=False)
    return most.view(batch, targets, x.shape[1]).transpose(1, 2)


def gathered(values: Tensor, which: Tensor) -> Tensor:
    """Entries of the last axis, `channels pairs` or `out in pairs`, of few values for many pairs."""
    rows = values.flatten(0, -2).transpose(0, 1).contiguous()
    # The gradient of an embedding is fast for long rows, that of a selection for short ones.
    found = F.embedding(which, rows) if rows.shape[1] > 1 else rows.index_select(0, which)
    return found.transpose(0, 1).unflatten(0, values.shape[:-1])
