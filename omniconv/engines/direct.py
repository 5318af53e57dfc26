"""Sums over the taps by the framework's own convolution: the engine for short kernels.

Its float32 sums round in proportion to the square root of their number of terms, and pass 1e-6 at about 4,000 terms; so
do the framework's. The transform's rounding hardly grows.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad as conv_grad

from omniconv._typing import Signal, Taps
from omniconv.engines import _costs
from omniconv.engines._engine import Engine
from omniconv.engines._problem import Problem

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_INPUT = {1: conv_grad.conv1d_input, 2: conv_grad.conv2d_input, 3: conv_grad.conv3d_input}
CONV_WEIGHT = {1: conv_grad.conv1d_weight, 2: conv_grad.conv2d_weight, 3: conv_grad.conv3d_weight}


def run(x: Signal, taps: Taps, problem: Problem) -> Signal:
    """Correlation of the extended signal with the reversed taps."""
    return CONV[problem.dim](extend(x, problem), weight(taps, problem), groups=groups(problem))


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Both gradients of `run`, through the extension and the reversal."""
    dx = dtaps = None
    kernel = weight(taps, problem)
    if need_x:
        shape = (*x.shape[:2], *(n + k - 1 for n, k in zip(problem.size, problem.kernel_size, strict=True)))
        dx = fold(CONV_INPUT[problem.dim](shape, kernel, grad, groups=groups(problem)), problem)
    if need_taps:
        extended = extend(x, problem)
        dkernel = CONV_WEIGHT[problem.dim](extended, kernel.shape, grad, groups=groups(problem))
        dtaps = dkernel.flip(problem.axes).reshape(taps.shape)
    return dx, dtaps


def groups(problem: Problem) -> int:
    """`groups` of the framework's convolution."""
    return problem.in_channels if problem.depthwise else 1


def weight(taps: Taps, problem: Problem) -> Tensor:
    """Taps in the framework's order: (out, in / groups, *size), by decreasing lag."""
    return (taps[:, None] if problem.depthwise else taps).flip(problem.axes)


def margins(problem: Problem) -> list[tuple[int, int]]:
    """Samples that the kernel needs (before, after) the signal, per axis."""
    return [(k - 1 - o, o) for k, o in zip(problem.kernel_size, problem.origin, strict=True)]


def extend(x: Signal, problem: Problem) -> Signal:
    """The signal with the margins that its boundary gives it."""
    for circular in (False, True):
        pad = [
            side if edge == circular else 0
            for pair, edge in zip(reversed(margins(problem)), reversed(problem.circular), strict=True)
            for side in pair
        ]
        if any(pad):
            x = F.pad(x, pad, mode="circular" if circular else "constant")
    return x


def fold(x: Signal, problem: Problem) -> Signal:
    """The adjoint of `extend`: margins are dropped, or added to the samples that they repeat."""
    for axis, (before, _), n, circular in zip(
        problem.axes, margins(problem), problem.size, problem.circular, strict=True
    ):
        inner = x.narrow(axis, before, n)
        if circular:
            after = x.shape[axis] - before - n
            inner = inner.clone()
            inner.narrow(axis, n - before, before).add_(x.narrow(axis, 0, before))
            inner.narrow(axis, 0, after).add_(x.narrow(axis, before + n, after))
        x = inner
    return x


def reject(problem: Problem) -> str | None:
    """Never."""
    return None


def cost(problem: Problem) -> float:
    """Multiplications over the measured rate; depthwise kernels beyond the framework's fast path are far slower."""
    return _costs.direct_seconds(problem)


def adjoint_cost(problem: Problem, need_x: bool, need_taps: bool) -> float:
    """As for `cost`, whichever gradients are needed."""
    return _costs.direct_adjoint_seconds(problem)


DIRECT = Engine("direct", run, adjoint, reject, cost, adjoint_cost)
