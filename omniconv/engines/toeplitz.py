"""Products with blocks of a Toeplitz matrix on tensor cores: the engine for short kernels on graphics processors.

Multiplications grow with the kernel's length, but tensor cores make sixteen times as many a second as other units: up
to about 2,000 taps the products take less time than transforms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._engine import Engine
from omniconv.engines._problem import Problem
from omniconv.engines._tensor_cores import refuse_machine

if TYPE_CHECKING:
    from omniconv.engines.triton.toeplitz import Tile

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Dtypes of signals."""


def prepare(taps: Taps, problem: Problem) -> Tensor:
    """The table of the taps out of which the products read their Toeplitz factors."""
    from omniconv.engines.triton.toeplitz import toeplitz_table

    return toeplitz_table(taps, problem.dtype, *lags(problem), False, convolve_tile(problem))


def run(x: Signal, prepared: Tensor, problem: Problem) -> Signal:
    """y[t] = sum_s taps[s] x[t + origin - s]."""
    return gated(x, prepared, problem, None, None)


def gated(x: Signal, prepared: Tensor, problem: Problem, before: Tensor | None, after: Tensor | None) -> Signal:
    """after * run(before * x) in one pass."""
    from omniconv.engines.triton.toeplitz import convolve

    tile = convolve_tile(problem, gate=before is not None or after is not None)
    return convolve(x, prepared, *lags(problem), problem.circular[0], tile, before, after)


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dx is the same sum over negated lags; dtaps[s] = sum_t grad[t] x[t + origin - s]."""
    from omniconv.engines.triton.toeplitz import convolve, correlate, toeplitz_table

    dx = dtaps = None
    first, last = lags(problem)
    circular, tile = problem.circular[0], convolve_tile(problem)
    if need_x:
        table = toeplitz_table(taps, problem.dtype, -last, -first, True, tile)
        dx = convolve(grad, table, -last, -first, circular, tile)
    if need_taps:
        dtaps = correlate(grad, x, first, last, circular, correlate_tile(problem), splits(problem))
    return dx, dtaps


def lags(problem: Problem) -> tuple[int, int]:
    """The first and the last lag of the kernel."""
    return -problem.origin[0], problem.kernel_size[0] - 1 - problem.origin[0]


def convolve_tile(problem: Problem, gate: bool = False) -> Tile:
    """Tiles of the convolution, no larger than the signal; short steps for few taps.

    Their sums stay in registers with two programs on a multiprocessor: 128 x 128 of them, but half as many where
    float32, a gate, or samples that are read one by one need registers of their own.
    """
    from omniconv.engines.triton.toeplitz import Tile

    n, lean = problem.size[0], problem.dtype != torch.float32 and aligned(problem)
    outputs = min(128, power_of_two(n))
    rows = min(128 if lean and not gate else 64, power_of_two(problem.batch * -(-n // outputs)))
    step = min(64 if lean and problem.kernel_size[0] > 64 else 32, outputs)
    return Tile(rows, outputs, step, copies=4, num_warps=8 if outputs == 128 else 4, num_stages=3)


def correlate_tile(problem: Problem) -> Tile:
    """Tiles of the gradient in the taps: `rows` are summed; `outputs` and `step` are the sides of a product."""
    from omniconv.engines.triton.toeplitz import Tile

    n, half = problem.size[0], problem.dtype != torch.float32
    side = min(128 if half and problem.kernel_size[0] > 64 else 64, power_of_two(n))
    rows = min(64 if half and aligned(problem) else 32, power_of_two(problem.batch * -(-n // side)))
    return Tile(rows, side, side, copies=1, num_warps=8 if side == 128 else 4, num_stages=3)


def aligned(problem: Problem) -> bool:
    """Whether rows of a contiguous signal start at multiples of four samples."""
    return problem.size[0] % 4 == 0


def splits(problem: Problem) -> int:
    """Programs that share the rows of one window of the gradient in the taps: enough to fill a large processor."""
    tile = correlate_tile(problem)
    windows = problem.in_channels * -(-(problem.kernel_size[0] + tile.outputs) // tile.step)
    rows = problem.batch * -(-problem.size[0] // tile.outputs)
    return max(1, min(1024 // windows, rows // (8 * tile.rows)))


def power_of_two(size: int) -> int:
    """The least power of two of at least `size`, and 16, the least side of a product on tensor cores."""
    return max(16, 2 ** (size - 1).bit_length())


def reject(problem: Problem) -> str | None:
    """Other devices, several axes, dense taps, float64, or no Triton."""
    if (reason := refuse_machine(problem.device)) is not None:
        return reason
    if problem.dim != 1:
        return f"the signal has {problem.dim} axes; it needs one"
    if not problem.depthwise:
        return "the taps mix channels; it needs a kernel per channel"
    if problem.dtype not in DTYPES:
        return f"the dtype is {problem.dtype}; it needs float32, float16 or bfloat16"
    return None


def work(problem: Problem) -> tuple[float, ...] | None:
    """Launches, bytes of memory that are moved, and operations on tensor cores at the rate of half precision."""
    if problem.device != "cuda":
        return None
    tile = convolve_tile(problem)
    table = problem.in_channels * problem.kernel_size[0] * (4 + 2 * tile.copies * problem.dtype.itemsize)
    return 2.0, 2.0 * signal_bytes(problem) + table, operations(problem, tile)


def adjoint_work(problem: Problem, need_x: bool, need_taps: bool) -> tuple[float, ...] | None:
    """As for `work`: the gradient in the signal is a convolution, that in the taps reads two signals."""
    ahead = work(problem)
    if ahead is None:
        return None
    sums = 16.0 * problem.in_channels * problem.kernel_size[0] * splits(problem)
    aside = (2.0, 2.0 * signal_bytes(problem) + sums, operations(problem, correlate_tile(problem)))
    return tuple(need_x * a + need_taps * b for a, b in zip(ahead, aside, strict=True))


def signal_bytes(problem: Problem) -> float:
    """Bytes of the signal."""
    return float(problem.batch * problem.in_channels * problem.size[0] * problem.dtype.itemsize)


def operations(problem: Problem, tile: Tile) -> float:
    """Multiplications and additions of all products of tiles, at the rate of half precision.

    A product in float32 is three in tf32, at half the rate. The last block counts as whole.
    """
    (first, last), per_block = lags(problem), tile.outputs / tile.step
    blocks = -(-problem.size[0] // tile.outputs)
    before, after = -(-last // tile.step), (tile.outputs - 1 - first) // tile.step + 1
    if problem.circular[0]:
        steps = float(blocks * (before + after))
    else:  # block i of a zero axis has i blocks before it and blocks - i from itself on
        steps = capped_sum(per_block, blocks - 1, before) + capped_sum(per_block, blocks, after)
    rate = 6 if problem.dtype == torch.float32 else 1
    return 2.0 * rate * problem.batch * problem.in_channels * steps * tile.step * tile.outputs


def capped_sum(slope: float, count: int, cap: int) -> float:
    """The sum of min(slope i, cap) over i = 1 .. count."""
    rising = min(count, int(cap / slope))
    return slope * rising * (rising + 1) / 2 + cap * (count - rising)


TOEPLITZ = Engine("toeplitz", run, adjoint, reject, work, adjoint_work, prepare=prepare, gated=gated, half=True)
