"""Sums over the taps by the framework's own convolution: the engine for short kernels.

Its float32 sums round in proportion to the square root of their number of terms, and pass 1e-6 at about 4,000 terms; so
do the framework's. The transform's rounding hardly grows.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._blocks import Block, beyond_cache, blocks
from omniconv.engines._engine import Engine, Launch
from omniconv.engines._extend import Margin, extend, extended, fold, margins, pads, reversed_margins
from omniconv.engines._float32 import full_float32
from omniconv.engines._owned import owned
from omniconv.engines._problem import Problem

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

BLOCK, WHOLE = 2**20, 2**21
"""Samples of the extended signal that are worked on at a time on a CPU, where there are more than `WHOLE`: putting the
pieces together takes a pass of its own.
"""

LAGS = 256
"""Taps along the last axis whose gradient is made at a time: the rows of samples that they meet stay small."""

LANES = 16
"""Channels that the framework's kernels work on at a time: fewer cost as much."""

FAST_PADDING = 6 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 4
"""Samples by which the framework's fast depthwise kernels pad by themselves: as many as they hold in registers, which
depends on the processor. Beyond, it calls others that are ten to forty times slower; of a signal that is extended
already the fast ones take any taps.
"""


def prepare(taps: Taps, problem: Problem) -> Tensor:
    """Taps in the framework's order: (out, in / groups, *size), by decreasing lag."""
    return (taps[:, None] if problem.depthwise else taps).flip(problem.axes)


def run(x: Signal, weight: Tensor, problem: Problem) -> Signal:
    """Correlation of the extended signal with the reversed taps."""
    with full_float32(problem.device):
        return correlate(x, weight, margins(problem), problem)


def bound(problem: Problem) -> Launch | None:
    """The framework's convolution with its arguments at hand, of all signals at once."""
    if problem.device != "cpu" or len(slices_of(problem)) > 1:
        return None
    conv, axes, parts, depthwise = CONV[problem.dim], problem.axes, groups(problem), problem.depthwise
    padding, sides = padding_of(margins(problem), problem.circular), pads(margins(problem), problem.circular)

    def launch(x: Signal, taps: Taps) -> Signal:
        weight = taps.unsqueeze(1).flip(axes) if depthwise else taps.flip(axes)
        for pad, mode in sides if padding is None else ():
            x = F.pad(x, pad, mode)
        return owned(conv(x, weight, None, 1, padding or 0, 1, parts))

    return launch


def differentiable(problem: Problem) -> Launch | None:
    """The framework's transposed correlation, which is a convolution of the taps as they are: nothing is reversed, and
    nothing kept but x and the taps. Where `framework_adjoint` would make both gradients, of what it pads by itself.
    """
    ours = problem.device == "cpu" and problem.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if not ours or not at_once(problem) or any(problem.circular) or len(slices_of(problem)) > 1:
        return None
    transposed, parts, depthwise = TRANSPOSED[problem.dim], groups(problem), problem.depthwise
    padding = [min(pair) for pair in margins(problem)]
    # The transposed correlation drops as much at both ends; what an axis has to lose at one of them is cut off.
    starts = [origin - less for origin, less in zip(problem.origin, padding, strict=True)]
    cut = [(axis, start, size) for axis, start, size, pair in zip(
        problem.axes, starts, problem.size, margins(problem), strict=True) if pair[0] != pair[1]]  # fmt: skip

    def launch(x: Signal, taps: Taps) -> Signal:
        y = transposed(x, taps.unsqueeze(1) if depthwise else taps.transpose(0, 1), None, 1, padding, 0, parts)
        for axis, start, size in cut:
            y = y.narrow(axis, start, size)
        return y.contiguous()

    return launch


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dx = the correlation of the extended cotangent with the taps;  dtaps[s] = sum_t grad[t] x[t + origin - s].

    The framework's own gradients are fast for taps that mix channels, and for up to three taps along the last axis;
    other depthwise ones of the taps are those of `tap_gradient`.
    """
    dx = dtaps = None
    with full_float32(problem.device):
        if at_once(problem):
            return framework_adjoint(grad, x, taps, problem, need_x, need_taps)
        if need_x:
            weight = taps[:, None] if problem.depthwise else taps.transpose(0, 1)
            dx = correlate(grad, weight, reversed_margins(problem), problem)
        if need_taps and by_products(problem):
            dtaps = tap_gradient(grad, x, problem)
        elif need_taps:
            dtaps = framework_adjoint(grad, x, taps, problem, False, True)[1]
    return dx, dtaps


def at_once(problem: Problem) -> bool:
    """Whether the framework makes both gradients in one call: beyond a few taps a convolution makes that of the signal
    in less time.
    """
    return problem.device != "cpu" or (max(problem.kernel_size) <= 5 and not by_products(problem))


def framework_adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Both gradients by the framework, through the reversal, and through its own padding or else the extension.

    Its padding is the same on both sides: where a kernel needs less on one, the framework's convolution would make more
    samples than there are, whose cotangents are zeros. That copies the cotangent, and neither x nor dx.
    """
    margin, ones, zeros = margins(problem), [1] * problem.dim, [0] * problem.dim
    padding, surplus = evened(margin, problem.circular)
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        F.pad(grad, surplus) if surplus else grad,
        x if padding is not None else extend(x, margin, problem),
        prepare(taps, problem),
        None,
        ones,
        padding or zeros,
        ones,
        False,
        zeros,
        groups(problem),
        [need_x, need_taps, False],
    )
    if need_x and padding is None:
        dx = fold(dx, margin, problem)
    if not need_taps:
        return dx, None
    return (dx if need_x else None), (dweight[:, 0] if problem.depthwise else dweight).flip(problem.axes)


@lru_cache(maxsize=4096)
def evened(margin: Margin, circular: tuple[bool, ...]) -> tuple[list[int] | None, list[int]]:
    """The padding of the larger side of each axis, None as in `padding_of`; and how many samples too many the output
    has with it, before and after, the last axis first, empty where it has none.
    """
    padding = padding_of(tuple((max(pair),) * 2 for pair in margin), circular)
    if padding is None:
        return None, []
    surplus = [most - side for most, pair in zip(reversed(padding), reversed(margin), strict=True) for side in pair]
    return padding, surplus if any(surplus) else []


def correlate(x: Signal, weight: Tensor, margin: Margin, problem: Problem) -> Signal:
    """sum_s weight[s] x[t - before + s] with `margin` = (before, after) per axis, a block of the signals at a time."""
    conv, slices, padding = CONV[problem.dim], slices_of(problem), padding_of(margin, problem.circular)

    def piece(x: Signal, weight: Tensor, parts: int) -> Signal:
        x = extend(x, margin, problem) if padding is None else x
        return conv(x, weight, padding=padding or 0, groups=parts)

    if len(slices) == 1:
        return piece(x, weight, groups(problem))
    y = x.new_empty(x.shape)
    for batch, channels in slices:
        part = x[batch, channels]
        y[batch, channels] = piece(part, weight[channels], part.shape[1])
    return y


@lru_cache(maxsize=4096)
def slices_of(problem: Problem) -> tuple[Block, ...]:
    """The blocks; more is done at once where the framework pads, and no extended copy has to stay in cache."""
    whole = WHOLE if padding_of(margins(problem), problem.circular) is None else 4 * WHOLE
    return blocks(problem, extended(problem), BLOCK, whole=whole, multiple=LANES)


@lru_cache(maxsize=4096)
def padding_of(margin: Margin, circular: tuple[bool, ...]) -> list[int] | None:
    """What to ask the framework to pad with; None where it cannot, or leaves its fast path."""
    alike = all(before == after for before, after in margin) and not any(circular)
    return [before for before, _ in margin] if alike and max(max(margin)) <= FAST_PADDING else None


def tap_gradient(grad: Signal, x: Signal, problem: Problem) -> Taps:
    """dtaps[s] = sum_t grad[t] x[t + origin - s] by products of matrices.

    With m samples in a row of grad, and the m + k - 1 samples that they meet in a row of x, a product over all rows
    holds the sum for every lag along a diagonal.
    """
    m, kernel, length = row_length(problem), problem.kernel_size, problem.size[-1]
    short = -length % m
    extent = F.pad(extend(x, margins(problem), problem), (0, short))
    cotangent = in_rows(F.pad(grad, (0, short)), m, m, problem)
    cotangent = cotangent.reshape(problem.in_channels, -1, m).transpose(1, 2)
    dtaps = grad.new_empty(*kernel[:-1], problem.in_channels, kernel[-1])
    for first in range(0, kernel[-1], LAGS):
        count = min(LAGS, kernel[-1] - first)
        met = extent[..., first : first + length + short + count - 1]
        rows = in_rows(met, m + count - 1, m, problem).contiguous()
        for shift in product(*map(range, kernel[:-1])):
            dtaps[shift][:, first : first + count] = on_diagonals(cotangent, rows, shift, problem)
    return dtaps.movedim(-2, 0).flip(problem.axes)


def in_rows(x: Tensor, length: int, step: int, problem: Problem) -> Tensor:
    """Rows of `length` samples every `step`: (channels, other axes, batch, rows, samples), a view.

    The batch stands behind the axes along which x is shifted.
    """
    return x.unfold(-1, length, step).permute(1, *range(2, problem.dim + 1), 0, problem.dim + 1, problem.dim + 2)


def on_diagonals(cotangent: Tensor, rows: Tensor, shift: tuple[int, ...], problem: Problem) -> Tensor:
    """Sums along the diagonals of the products of all rows, those of x shifted on the other axes: `channels lags`."""
    for axis, (first, n) in enumerate(zip(shift, problem.size[:-1], strict=True), start=1):
        rows = rows.narrow(axis, first, n)
    products = cotangent @ rows.reshape(problem.in_channels, -1, rows.shape[-1])
    channels, m, wide = products.shape
    return products.as_strided((channels, m, wide - m + 1), (m * wide, wide + 1, 1)).sum(1)


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
    """See `sums` for the gradient of the signal, `tap_sums` for that of the taps."""
    forth = sums(problem, problem.out_channels, problem.in_channels)
    dx = forth if need_x else (0.0,) * len(forth)
    return *dx, *tap_sums(problem, need_taps)


def sums(problem: Problem, inputs: int, outputs: int) -> tuple[float, ...]:
    """Units of work: calls, further blocks, samples moved and those beyond the cache, multiplications, and those
    of a single signal, which takes one thread, or of long dense kernels.

    Depthwise kernels of any size stay on the framework's fast path, see `padding_of`. Dense ones on one axis leave it
    beyond 32 taps.
    """
    calls = len(slices_of(problem)) - 1.0
    moved = problem.batch * (inputs * extended(problem) + outputs * problem.positions)
    multiplied = float(problem.positions * problem.tap_count * problem.batch * padded(outputs))
    far = beyond_cache(problem, moved)
    if problem.depthwise:
        return 1.0, calls, moved, far, multiplied, multiplied if alone(problem) else 0.0
    multiplied *= inputs
    return 1.0, calls, moved, far, multiplied, multiplied if problem.dim == 1 and problem.kernel_size[-1] > 32 else 0.0


def alone(problem: Problem) -> bool:
    """Whether one thread does all of a depthwise convolution: on one axis they share signals, and channels by 64."""
    return problem.dim == 1 and problem.batch == 1 and problem.in_channels <= 64


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
        parts = -(-last // LAGS)
        wide = parts * (m - 1) + last
        work = number * parts, float(rows * (parts * m + number * wide)), float(rows * number * m * wide)
        return 1.0, moved, 0.0, 0.0, *work
    if problem.depthwise:
        return 1.0, moved, pairs * padded(inputs), 0.0, 0.0, 0.0, 0.0
    # The inputs are rounded up to eight, but for images of up to three channels the framework has a path of its own.
    lanes = inputs if inputs <= 3 else padded(inputs, 8)
    copies = pairs * inputs if problem.dim < 3 and last > 13 else 0.0
    return 1.0, moved, pairs * padded(outputs) * lanes, copies, 0.0, 0.0, 0.0


def padded(channels: int, lanes: int = LANES) -> int:
    """The next multiple of `lanes`."""
    return -(-channels // lanes) * lanes


DIRECT = Engine(
    "direct",
    run,
    adjoint,
    reject,
    work,
    adjoint_work,
    prepare=prepare,
    bound=bound,
    differentiable=differentiable,
    sums=True,
)
