"""Sums over the taps by the framework's own convolution: the engine for short kernels.

Its float32 sums round in proportion to the square root of their number of terms, and pass 1e-6 at about 4,000 terms; so
do the framework's. The transform's rounding hardly grows.
"""

from __future__ import annotations

import math
from itertools import product

import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad as conv_grad

from omniconv._typing import Signal, Taps
from omniconv.engines._blocks import blocks
from omniconv.engines._engine import Engine
from omniconv.engines._extend import Margin, extend, extended, margins, reversed_margins
from omniconv.engines._problem import Problem

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_WEIGHT = {1: conv_grad.conv1d_weight, 2: conv_grad.conv2d_weight, 3: conv_grad.conv3d_weight}

BLOCK, WHOLE = 2**20, 2**21
"""Samples of the extended signal that are worked on at a time on a CPU, where there are more than `WHOLE`: putting the
pieces together takes a pass of its own.
"""

LANES = 16
"""Channels that the framework's kernels work on at a time: fewer cost as much."""


def prepare(taps: Taps, problem: Problem) -> Tensor:
    """Taps in the framework's order: (out, in / groups, *size), by decreasing lag."""
    return (taps[:, None] if problem.depthwise else taps).flip(problem.axes)


def run(x: Signal, weight: Tensor, problem: Problem) -> Signal:
    """Correlation of the extended signal with the reversed taps."""
    return correlate(x, weight, margins(problem), problem)


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dx = the correlation of the extended cotangent with the taps;  dtaps as `tap_gradient` says."""
    dx = None
    if need_x:
        weight = taps[:, None] if problem.depthwise else taps.transpose(0, 1)
        dx = correlate(grad, weight, reversed_margins(problem), problem)
    return dx, tap_gradient(grad, x, problem) if need_taps else None


def correlate(x: Signal, weight: Tensor, margin: Margin, problem: Problem) -> Signal:
    """sum_s weight[s] x[t - before + s] with `margin` = (before, after) per axis, a block of the signals at a time."""
    conv, slices = CONV[problem.dim], blocks(problem, extended(problem), BLOCK, whole=WHOLE, multiple=LANES)
    padding = padding_of(margin, problem)
    if padding is not None:
        margin = [(0, 0)] * problem.dim
    if len(slices) == 1:
        return conv(extend(x, margin, problem), weight, padding=padding or 0, groups=groups(problem))
    y = x.new_empty(x.shape)
    for batch, channels in slices:
        piece = extend(x[batch, channels], margin, problem)
        y[batch, channels] = conv(piece, weight[channels], padding=padding or 0, groups=piece.shape[1])
    return y


def padding_of(margin: Margin, problem: Problem) -> list[int] | None:
    """What to ask the framework to pad with; None where it cannot, or leaves its fast path: beyond 13 taps per axis."""
    alike = all(before == after for before, after in margin) and not any(problem.circular)
    return [before for before, _ in margin] if alike and max(problem.kernel_size) <= 13 else None


def tap_gradient(grad: Signal, x: Signal, problem: Problem) -> Taps:
    """dtaps[s] = sum_t grad[t] x[t + origin - s].

    The framework's own gradient is fast for taps that mix channels, and for up to three taps along the last axis. Other
    depthwise ones are products of matrices: with m samples in a row of grad, and the m + k - 1 samples that they meet
    in a row of x, a product over all rows holds the sum for every lag along a diagonal.
    """
    if not by_products(problem):
        kernel = (problem.out_channels, 1 if problem.depthwise else problem.in_channels, *problem.kernel_size)
        dkernel = CONV_WEIGHT[problem.dim](extend(x, margins(problem), problem), kernel, grad, groups=groups(problem))
        return (dkernel[:, 0] if problem.depthwise else dkernel).flip(problem.axes)
    m, dim, kernel = row_length(problem), problem.dim, problem.kernel_size
    short = -problem.size[-1] % m
    wide = m + kernel[-1] - 1
    # (channels, *other axes, batch, rows, samples): the batch behind the axes along which x is shifted.
    order = (1, *range(2, dim + 1), 0, dim + 1, dim + 2)
    left = F.pad(grad, (0, short)).unflatten(-1, (-1, m)).permute(order)
    left = left.reshape(problem.in_channels, -1, m).transpose(1, 2)
    extent = F.pad(extend(x, margins(problem), problem), (0, short))
    right = extent.unfold(-1, wide, m).permute(order).contiguous()
    products = grad.new_empty(*kernel[:-1], problem.in_channels, m, wide)
    for shift in product(*map(range, kernel[:-1])):
        rows = right
        for axis, (first, n) in enumerate(zip(shift, problem.size[:-1], strict=True)):
            rows = rows.narrow(1 + axis, first, n)
        products[shift] = left @ rows.reshape(problem.in_channels, -1, wide)
    diagonals = products.as_strided(
        (*products.shape[:-1], kernel[-1]), (*products.stride()[:-2], wide + 1, 1), products.storage_offset()
    )
    return diagonals.sum(-2).movedim(-2, 0).flip(problem.axes)


def by_products(problem: Problem) -> bool:
    """Whether the gradient of the taps is made of products of matrices."""
    return problem.depthwise and (problem.dim == 3 or problem.kernel_size[-1] > 3) and problem.device == "cpu"


def row_length(problem: Problem) -> int:
    """Samples of the cotangent in a row of `tap_gradient`: long enough that few samples of x are read twice."""
    return 16 if problem.kernel_size[-1] <= 24 else 32


def groups(problem: Problem) -> int:
    """`groups` of the framework's convolution."""
    return problem.in_channels if problem.depthwise else 1


def reject(problem: Problem) -> str | None:
    """Never."""
    return None


def work(problem: Problem) -> tuple[float, ...]:
    """See `sums`."""
    return sums(problem, problem.in_channels, problem.out_channels)


def adjoint_work(problem: Problem, need_x: bool, need_taps: bool) -> tuple[float, ...]:
    """See `sums`: as the convolution for the gradient of the signal; and for that of the taps."""
    forth = sums(problem, problem.out_channels, problem.in_channels)
    dx = forth if need_x else (0.0,) * len(forth)
    return *dx, *tap_sums(problem, need_taps)


def sums(problem: Problem, inputs: int, outputs: int) -> tuple[float, ...]:
    """Units of work: calls, further blocks, samples moved, multiplications, and multiplications of long dense kernels.

    Depthwise kernels of any size stay on the framework's fast path, see `padding_of`. Dense ones on one axis leave it
    beyond 32 taps.
    """
    calls = len(blocks(problem, extended(problem), BLOCK, whole=WHOLE, multiple=LANES)) - 1.0
    moved = problem.batch * (inputs * extended(problem) + outputs * problem.positions)
    multiplied = float(problem.positions * problem.tap_count * problem.batch * padded(outputs))
    if problem.depthwise:
        return 1.0, calls, moved, multiplied
    multiplied *= inputs
    return 1.0, calls, moved, multiplied, multiplied if problem.dim == 1 and problem.kernel_size[-1] > 32 else 0.0


def tap_sums(problem: Problem, needed: bool) -> tuple[float, ...]:
    """Units of work of the taps' gradient: calls, samples moved, multiplications in the framework's fast path and
    outside of it; and where it is made of products, their number, the samples that they read, and multiplications.

    Dense gradients on lines and images leave the fast path beyond 13 taps, where the framework copies the signal once
    per tap.
    """
    if not needed:
        return (0.0,) * 7
    pairs = float(problem.positions * problem.tap_count * problem.batch)
    inputs, outputs, last = problem.in_channels, problem.out_channels, problem.kernel_size[-1]
    moved = float(problem.batch * (inputs * extended(problem) + outputs * problem.positions))
    if by_products(problem):
        m = row_length(problem)
        rows = problem.batch * inputs * math.prod(problem.size[:-1]) * -(-problem.size[-1] // m)
        number = math.prod(problem.kernel_size[:-1])
        wide = m + last - 1
        return 1.0, moved, 0.0, 0.0, number, float(rows * (m + number * wide)), float(rows * number * m * wide)
    if problem.depthwise:
        return 1.0, moved, pairs * padded(inputs), 0.0, 0.0, 0.0, 0.0
    # The inputs are rounded up to eight, but for images of up to three channels the framework has a path of its own.
    lanes = inputs if inputs <= 3 else padded(inputs, 8)
    copies = pairs * inputs if problem.dim < 3 and last > 13 else 0.0
    return 1.0, moved, pairs * padded(outputs) * lanes, copies, 0.0, 0.0, 0.0


def padded(channels: int, lanes: int = LANES) -> int:
    """The next multiple of `lanes`."""
    return -(-channels // lanes) * lanes


DIRECT = Engine("direct", run, adjoint, reject, work, adjoint_work, prepare=prepare)
