"""The convolution as products with blocks of a Toeplitz matrix, on tensor cores.

A signal is cut into blocks of N outputs. The rows of a product are pairs (block, batch element), the batch fastest, so
that one long signal fills a tile as well as many short ones do. With t = block N + s and u = block N + offset + r

    y[row, s] = sum over offsets and r of x[row, offset + r] tap(s - r - offset),

where `tap(lag)` is zero outside the kernel: one product (rows, step) @ (step, N) per offset, a multiple of the step.
Only offsets are visited that the kernel, and on a zero axis the signal, reaches.

The gradient in the signal is the same sum with the lags negated. That in the taps is the transposed product: for every
window of offsets P[r, s] = sum over rows of x[row, offset + r] grad[row, s], whose diagonals s - r add up to one lag
each. A rotation of every row of P turns its diagonals into columns, so that they add up without atomics.

The Toeplitz factor is read as overlapping windows of a table of the kernel. Its rows start one lag apart, and memory is
read in vectors at multiples of their length: the table holds one copy of the kernel per sample of a vector, each a lag
later, reversed, padded with zeros and in the dtype of the product. A tile of the factor thus comes in whole vectors,
unmasked, asynchronously, out of a few kilobytes that stay in the caches. Four copies take 8 bytes per tap in half
precision, 16 in float32, and a margin of 3 N taps.

Memory traffic: the convolution reads x once from memory and (N + K) / N times from the level-2 cache, and writes y
once; the gradient in the taps reads grad and x once from memory and (N + K) / N times from that cache. It keeps its
diagonals, twice a float32 per tap, split and N taps' margin, and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines.triton._dot import dot, nearest

OPERANDS = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
"""The dtype of the operands of products, by that of the signal."""


@dataclass(frozen=True)
class Tile:
    """Sizes of the products of one program; powers of two of at least 16, `step` a divisor of `outputs`.

    `rows`: pairs (block, batch element). `outputs`: samples of a block. `step`: samples summed at a time. `copies`: of
    the kernel in its table, which is read in vectors of as many samples, at most 16 bytes. Vectors of 16 bytes come
    from the level-2 cache, shorter ones through that of level 1.
    """

    rows: int
    outputs: int
    step: int
    copies: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class Band:
    """Where the lags `first` .. `last` of a kernel lie: offsets q * step for `start` <= q < `stop`, and in the table.

    `base`: place of lag 0 in copy 0 of the table. `length`: places per copy.
    """

    first: int
    last: int
    start: int
    stop: int
    base: int
    length: int

    @staticmethod
    def of(first: int, last: int, outputs: int, step: int) -> Band:
        """The band of a kernel whose lags are `first` .. `last`, for blocks of `outputs` samples."""
        start, stop = -last // step, (outputs - 1 - first) // step + 1
        base = outputs - start * step
        return Band(first, last, start, stop, base, base + stop * step)


@triton.jit
def place_taps(taps, table, origin, kernel_size, base, length, stride_c, stride_k, SIGN: tl.constexpr,
               COPIES: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """table[c, j, p] = tap of lag base + j - p (lags negated if `SIGN` is -1), zero outside the kernel."""
    blocks = tl.cdiv(length, BLOCK)  # one axis of programs: the others are bounded by 65535
    channel = (tl.program_id(0) // blocks).to(tl.int64)
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    copy = tl.arange(0, COPIES)
    tap = origin + SIGN * (base + copy[:, None] - place[None, :])
    value = tl.load(
        taps + channel * stride_c + tap.to(tl.int64) * stride_k, mask=(tap >= 0) & (tap < kernel_size), other=0.0
    )
    address = table + (channel * COPIES + copy[:, None]) * length + place[None, :]
    tl.store(address, nearest(value, table.dtype.element_ty), mask=(place < length)[None, :])


@triton.jit
def samples_at(start, r, n, CIRCULAR: tl.constexpr, WHOLE: tl.constexpr):
    """Indices start + r of samples, (rows, places), and which of them exist, around the circle if `CIRCULAR`.

    What lies more than a period before the first sample is out of a kernel's reach, and stays outside. `WHOLE`: n is a
    multiple of the number of places, and so is every start: they wrap around together.
    """
    if CIRCULAR and WHOLE:
        u = ((start + n) % n)[:, None] + r[None, :]
    elif CIRCULAR:
        u = (start[:, None] + r[None, :] + n) % n
    else:
        u = start[:, None] + r[None, :]
    return u.to(tl.int64), (u >= 0) & (u < n)


@triton.jit
def wide(stride, UNIT: tl.constexpr):
    """A stride in samples, of which there may be more than 32 bits count: those in units are of that width."""
    return tl.cast(stride, tl.int64) * UNIT


@triton.jit
def convolve_blocks(x, table, y, before, after, n, batch, rows, start, stop, base, length,
                    x_b, x_c, x_t, before_b, before_c, before_t, after_b, after_c, after_t,
                    UNIT: tl.constexpr, CIRCULAR: tl.constexpr, WHOLE: tl.constexpr, BEFORE: tl.constexpr,
                    AFTER: tl.constexpr, OPERANDS: tl.constexpr, COPIES: tl.constexpr, ROWS: tl.constexpr,
                    OUTPUTS: tl.constexpr, STEP: tl.constexpr):  # fmt: skip
    """One tile of y of one channel: the sum over offsets of x @ Toeplitz block.

    `n` and the strides of rows come in units of `UNIT` samples, `base` and `length` in units of `STEP`, so that the
    compiler knows what they are multiples of.
    """
    n, length = n * UNIT, length * STEP
    tiles = tl.cdiv(rows, ROWS)
    channel = (tl.program_id(0) // tiles).to(tl.int64)
    # On a zero axis late blocks have the longest sums: they start first.
    row = (tiles - 1 - tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS)
    valid = row < rows
    row = tl.minimum(row, rows - 1)
    block, element = row // batch, (row % batch).to(tl.int64)
    s, r = tl.arange(0, OUTPUTS), tl.arange(0, STEP)
    if not CIRCULAR:
        start = tl.maximum(start, -tl.max(block, 0) * (OUTPUTS // STEP))
        stop = tl.minimum(stop, tl.cdiv(n - tl.min(block, 0) * OUTPUTS, STEP))
    samples = x + (element * wide(x_b, UNIT) + channel * wide(x_c, UNIT))[:, None]
    gates = before + (element * wide(before_b, UNIT) + channel * wide(before_c, UNIT))[:, None]
    window = table + channel * COPIES * length + base * STEP
    window += ((s % COPIES) * length - s // COPIES * COPIES)[:, None] + r[None, :]
    acc = tl.zeros((OUTPUTS, ROWS), tl.float32)
    for q in range(start, stop):
        u, inside = samples_at(block * OUTPUTS + q * STEP, r, n, CIRCULAR, WHOLE)
        a = tl.load(samples + u * x_t, mask=inside, other=0.0)
        if BEFORE:
            gate = tl.load(gates + u * before_t, mask=inside, other=0.0)
            a = nearest(a.to(tl.float32) * gate.to(tl.float32), OPERANDS)
        factor = tl.load(window + q * STEP)
        acc = dot(factor, tl.trans(a), acc, OPERANDS)
    acc = tl.trans(acc)
    t = (block * OUTPUTS)[:, None] + s[None, :]
    inside = valid[:, None] & (t < n)
    if AFTER:
        gates = after + (element * wide(after_b, UNIT) + channel * wide(after_c, UNIT))[:, None]
        acc *= tl.load(gates + t.to(tl.int64) * after_t, mask=inside, other=0.0).to(tl.float32)
    channels = tl.num_programs(0) // tiles
    address = y + ((element * channels + channel) * n)[:, None] + t
    tl.store(address, nearest(acc, y.dtype.element_ty), mask=inside)


@triton.jit
def correlate_blocks(grad, x, sums, n, batch, rows, start, windows, splits, grad_b, grad_c, grad_t, x_b, x_c, x_t,
                     UNIT: tl.constexpr, CIRCULAR: tl.constexpr, WHOLE: tl.constexpr, OPERANDS: tl.constexpr,
                     ROWS: tl.constexpr, OUTPUTS: tl.constexpr, STEP: tl.constexpr):  # fmt: skip
    """sums[c, window, split, STEP + d] = sum over rows and s - r = d of x[row, offset + r] grad[row, s]."""
    n = n * UNIT
    split, window = tl.program_id(0) % splits, tl.program_id(0) // splits % windows
    channel = (tl.program_id(0) // splits // windows).to(tl.int64)
    offset = (start + window) * STEP
    s, r = tl.arange(0, OUTPUTS), tl.arange(0, STEP)
    first, last = 0, rows
    if not CIRCULAR:  # only blocks that meet a sample at this offset
        first = tl.minimum(tl.maximum(0, tl.cdiv(1 - STEP - offset, OUTPUTS)) * batch, rows)
        last = tl.minimum(tl.cdiv(tl.maximum(n - offset, 0), OUTPUTS) * batch, rows)
    share = tl.cdiv(tl.cdiv(tl.maximum(last - first, 0), splits), ROWS) * ROWS
    first += split * share
    last = tl.minimum(last, first + share)
    x += channel * wide(x_c, UNIT)
    grad += channel * wide(grad_c, UNIT)
    row = first + tl.arange(0, ROWS)
    block, element = row // batch, row % batch
    acc = tl.zeros((STEP, OUTPUTS), tl.float32)
    for begin in range(first, last, ROWS):
        valid = (begin + tl.arange(0, ROWS) < last)[:, None]
        t = (block * OUTPUTS)[:, None] + s[None, :]
        address = grad + (element.to(tl.int64) * wide(grad_b, UNIT))[:, None] + t.to(tl.int64) * grad_t
        b = tl.load(address, mask=valid & (t < n), other=0.0)
        u, inside = samples_at(block * OUTPUTS + offset, r, n, CIRCULAR, WHOLE)
        a = tl.load(x + (element.to(tl.int64) * wide(x_b, UNIT))[:, None] + u * x_t, mask=valid & inside, other=0.0)
        acc = dot(tl.trans(a), b, acc, OPERANDS)
        # The next rows, without a division.
        element += ROWS % batch
        block += ROWS // batch + (element >= batch).to(tl.int32)
        element = tl.where(element >= batch, element - batch, element)
    sums += tl.program_id(0).to(tl.int64) * (STEP + OUTPUTS)
    store_diagonals(acc, sums, OUTPUTS, STEP)


@triton.jit
def store_diagonals(acc, sums, OUTPUTS: tl.constexpr, STEP: tl.constexpr):
    """sums[STEP + d] = sum of acc[r, s] over s - r = d, for -STEP <= d < OUTPUTS."""
    r, column = tl.arange(0, STEP)[:, None], tl.arange(0, OUTPUTS)
    # Row r rotated by r places: its entry of diagonal s - r = d is in column d modulo OUTPUTS. The index runs over the
    # whole matrix, so that it moves through shared memory: along an axis it would take four shuffles an element.
    source = tl.reshape(r * OUTPUTS + (column[None, :] + r) % OUTPUTS, (STEP * OUTPUTS,))
    turned = tl.reshape(tl.gather(tl.reshape(acc, (STEP * OUTPUTS,)), source, 0), (STEP, OUTPUTS))
    turns = (column[None, :] + r) // OUTPUTS
    for k in tl.static_range(STEP // OUTPUTS + 1):
        diagonal = tl.sum(tl.where(turns == k, turned, 0.0), 0)
        tl.store(sums + STEP - k * OUTPUTS + column, diagonal)


@triton.jit
def add_windows(sums, dtaps, origin, kernel_size, start, windows, splits, STEP: tl.constexpr, OUTPUTS: tl.constexpr,
                BLOCK: tl.constexpr):  # fmt: skip
    """dtaps[c, origin + lag] = sum over windows and splits of their entry of diagonal lag + offset, if they have it."""
    blocks = tl.cdiv(kernel_size, BLOCK)
    channel = (tl.program_id(0) // blocks).to(tl.int64)
    tap = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    # A lag is in two windows at most: -STEP < lag + offset < OUTPUTS <= STEP, with offset = (start + window) * STEP.
    shifted = tap - origin + start * STEP
    total = tl.zeros((BLOCK,), tl.float32)
    nearer = ((windows + 2) * STEP - shifted) // STEP - windows - 2  # floor(-shifted / STEP), of a positive dividend
    for k in tl.static_range(2):
        window = nearer + k
        place = shifted + window * STEP + STEP
        valid = (window >= 0) & (window < windows) & (place >= 0) & (place < STEP + OUTPUTS) & (tap < kernel_size)
        for split in range(splits):
            index = (channel * windows + window) * splits + split
            total += tl.load(sums + index * (STEP + OUTPUTS) + place, mask=valid, other=0.0)
    tl.store(dtaps + channel * kernel_size + tap, total, mask=tap < kernel_size)


def toeplitz_table(taps: Taps, dtype: torch.dtype, first: int, last: int, flip: bool, tile: Tile) -> Tensor:
    """The table of the kernel with lags `first` .. `last`, whose taps come by lag, or by falling lag if `flip`."""
    channels, kernel_size = taps.shape
    band, block = Band.of(first, last, tile.outputs, tile.step), 512
    table = torch.empty(channels, tile.copies, band.length, dtype=dtype, device=taps.device)
    place_taps[(channels * triton.cdiv(band.length, block),)](
        taps, table, last if flip else -first, kernel_size, band.base, band.length, taps.stride(0), taps.stride(1),
        SIGN=-1 if flip else 1, COPIES=tile.copies, BLOCK=block,
    )  # fmt: skip
    return table


def convolve(
    x: Signal,
    table: Tensor,
    first: int,
    last: int,
    circular: bool,
    tile: Tile,
    before: Tensor | None = None,
    after: Tensor | None = None,
) -> Signal:
    """y = after * (kernel with lags `first` .. `last`, of the given table, convolved with before * x)."""
    batch, channels, n = x.shape
    band = Band.of(first, last, tile.outputs, tile.step)
    gates = [x if gate is None else gate for gate in (before, after)]
    unit = common_unit(n, x, *gates)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rows = batch * triton.cdiv(n, tile.outputs)
    convolve_blocks[(channels * triton.cdiv(rows, tile.rows),)](
        x, table, y, *gates, n // unit, batch, rows, band.start, band.stop,
        band.base // tile.step, band.length // tile.step, *strides(x, unit), *strides(gates[0], unit),
        *strides(gates[1], unit), UNIT=unit, CIRCULAR=circular, WHOLE=n % tile.step == 0, BEFORE=before is not None,
        AFTER=after is not None, OPERANDS=OPERANDS[x.dtype], COPIES=tile.copies, ROWS=tile.rows,
        OUTPUTS=tile.outputs, STEP=tile.step, num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return y


def correlate(grad: Signal, x: Signal, first: int, last: int, circular: bool, tile: Tile, splits: int) -> Taps:
    """dtaps[c, lag - first] = sum over the batch and t of grad[t] x[t - lag], for the lags `first` .. `last`.

    `tile.step`: samples of x in a window, a multiple of `tile.outputs`. `splits`: programs that share a window's rows.
    """
    batch, channels, n = x.shape
    start, stop = -last // tile.step, (tile.outputs - 1 - first) // tile.step + 1
    blocks = triton.cdiv(n, tile.outputs)
    if not circular:  # windows that no sample is in
        start, stop = max(start, -(blocks - 1) * tile.outputs // tile.step), min(stop, (n - 1) // tile.step + 1)
    windows, kernel_size, rows, block = stop - start, last - first + 1, batch * blocks, 256
    unit = common_unit(n, grad, x)
    sums = x.new_empty(channels, windows, splits, tile.step + tile.outputs, dtype=torch.float32)
    correlate_blocks[(channels * windows * splits,)](
        grad, x, sums, n // unit, batch, rows, start, windows, splits, *strides(grad, unit), *strides(x, unit),
        UNIT=unit, CIRCULAR=circular, WHOLE=n % tile.outputs == 0 and n % tile.step == 0, OPERANDS=OPERANDS[x.dtype],
        ROWS=tile.rows, OUTPUTS=tile.outputs, STEP=tile.step, num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    dtaps = x.new_empty(channels, kernel_size, dtype=torch.float32)
    add_windows[(channels * triton.cdiv(kernel_size, block),)](
        sums, dtaps, -first, kernel_size, start, windows, splits, STEP=tile.step, OUTPUTS=tile.outputs, BLOCK=block
    )
    return dtaps


def common_unit(n: int, *signals: Tensor) -> int:
    """The largest number of samples, up to 16 bytes, of which the length and all strides of rows are multiples."""
    return math.gcd(16 // signals[0].itemsize, n, *(step for signal in signals for step in signal.stride()[:2]))


def strides(signal: Tensor, unit: int) -> tuple[int, int, int]:
    """Strides of a signal, those of rows in units."""
    b, c, t = signal.stride()
    return b // unit, c // unit, t
