"""Convolution in one pass: the transform of a row is two products of matrices, on chip from the signal to the output.

A real signal of at most M samples, padded to 2M, is transformed at the M frequencies (k + 1/4) / M. They are half of
the odd frequencies of a frame of 4M; the other half are their conjugates, and so is what a real signal has there. So M
complex values determine 2M real ones, up to a sign in those that wrap around: enough for a convolution of which M
samples are wanted. The first product has real operands on its right and the last a real result, half the work of
complex ones, and nothing has to be packed or unpacked. At the frequencies k / M the same is a cyclic convolution.

`convolve` reads a signal and writes an output, 4 bytes per sample in half precision, and takes 8 rows + 12 columns
floating-point operations per sample of the frame (M = rows x columns). `correlate` reads two signals, takes
8 rows + 12 columns operations, and writes a spectrum per channel and group of rows. Tables stay on chip or in cache.

In half precision, operands are float16 and sums float32. A row is scaled so that its norm is at most 2^14, whatever it
holds: no stage enlarges a norm, so that nothing overflows, and what underflows is 2^-38 of the bound.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from omniconv.engines.triton._dot import dot, nearest
from omniconv.engines.triton._tables import Frame, inner_factors, three_products, transform

NORM = 2.0**14
"""What the norm of a row in float16 does not exceed."""

PROGRAMS = 2112
"""Programs that keep a processor of 132 units busy; a program takes several rows where there are more."""


@triton.jit
def square(pointer, SIZE: tl.constexpr):
    """A contiguous matrix of SIZE x SIZE."""
    return tl.load(pointer + tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :])


@triton.jit
def tile(pointer, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A matrix kept in the order of `tile_order`."""
    values = tl.load(pointer + tl.arange(0, ROWS * COLUMNS))
    values = tl.reshape(values, [COLUMNS // 8, ROWS // 16, 8, 4, 2, 2])
    return tl.reshape(tl.permute(values, [1, 4, 2, 0, 3, 5]), [ROWS, COLUMNS])


@triton.jit
def store_tile(pointer, values, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ADD: tl.constexpr):
    """Keep a matrix in the order of `tile_order`, or add it to the one kept there, which no other program touches."""
    values = tl.reshape(values, [ROWS // 16, 2, 8, COLUMNS // 8, 4, 2])
    values = tl.reshape(tl.permute(values, [3, 0, 2, 4, 1, 5]), [ROWS * COLUMNS])
    pointer += tl.arange(0, ROWS * COLUMNS)
    if ADD:
        values += tl.load(pointer)
    tl.store(pointer, values)


@triton.jit
def complex_tile(pointer, ROWS: tl.constexpr, COLUMNS: tl.constexpr, OPERANDS: tl.constexpr):
    """Real and imaginary parts, in float32, of a matrix in the form of `words`."""
    if OPERANDS == tl.float16:
        pair = tile(pointer, ROWS, COLUMNS)
        re = (pair & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        im = (pair >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    else:
        re, im = tile(pointer, ROWS, COLUMNS), tile(pointer + ROWS * COLUMNS, ROWS, COLUMNS)
    return re, im


@triton.jit
def multiply(a_re, a_im, b_re, b_im):
    """Products of complex numbers."""
    return a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re


@triton.jit
def from_right(re, im, b, to_im, to_re, OPERANDS: tl.constexpr):
    """(re + i im) @ (b + i c) in three real products; see `three_products`."""
    common = dot(re + im, b, tl.zeros([re.shape[0], b.shape[1]], tl.float32), OPERANDS)
    return dot(im, to_re, common, OPERANDS), dot(re, to_im, common, OPERANDS)


@triton.jit
def source(place, n, lead, length, PERIODIC: tl.constexpr):
    """Index in a signal of n samples of a place in its frame, and whether there is one.

    PERIODIC: the frame holds `length` samples of the periodic signal, from `lead` before its first one.
    """
    at = place
    if PERIODIC:
        at = place - lead
        at = tl.where(at < 0, at + n, tl.where(at < n, at, at - n))
    return at, place < length


@triton.jit
def scaled(x, HEADROOM: tl.constexpr, OPERANDS: tl.constexpr):
    """A row with its largest magnitude at HEADROOM, and what takes results back. float32 needs no scale."""
    back = 1.0
    if OPERANDS == tl.float16:
        back = tl.maximum(tl.max(tl.max(tl.abs(x), 1), 0), 1e-30) / HEADROOM
        x *= 1.0 / back
    return x, back


@triton.jit
def spectrum(
    x, first_re, first_im, b, to_im, to_re, factors_pointer,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """The transform of a real row laid out as ROWS x COLUMNS, divided by the square root of their product."""
    zero = tl.zeros([ROWS, COLUMNS], tl.float32)
    re, im = dot(first_re, x, zero, OPERANDS), dot(first_im, x, zero, OPERANDS)
    f_re, f_im = complex_tile(factors_pointer, ROWS, COLUMNS, OPERANDS)
    re, im = multiply(re, im, f_re, f_im)
    return from_right(re, im, b, to_im, to_re, OPERANDS)


@triton.jit
def convolve_kernel(
    x_pointer, y_pointer, before_pointer, after_pointer,
    taps_pointer, scales_pointer, first_pointer, second_pointer, factors_pointer,
    batch, channels, n, lead, length, skip, groups, per_group,
    x_batch, x_channel, x_step, before_batch, before_channel, before_step, after_batch, after_channel, after_step,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CONJUGATE: tl.constexpr, PERIODIC: tl.constexpr,
    BEFORE: tl.constexpr, AFTER: tl.constexpr, HEADROOM: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """after * (taps * (before * x)) for rows of one channel, `per_group` of the batch after each other."""
    channel = tl.cast(tl.program_id(0) // groups, tl.int64)
    start = (tl.program_id(0) % groups) * per_group
    first_re, first_im = square(first_pointer, ROWS), square(first_pointer + ROWS * ROWS, ROWS)
    b, to_im = square(second_pointer, COLUMNS), square(second_pointer + COLUMNS * COLUMNS, COLUMNS)
    to_re = square(second_pointer + 2 * COLUMNS * COLUMNS, COLUMNS)
    WORDS: tl.constexpr = ROWS * COLUMNS * (1 if OPERANDS == tl.float16 else 2)
    taps_pointer += channel * WORDS
    scale = tl.load(scales_pointer + channel)
    place = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    at, here = source(place, n, lead, length, PERIODIC)
    to = place - skip
    wanted = (to >= 0) & (to < n)
    stop = min(start + per_group, batch)
    x_pointer += channel * x_channel
    ahead = tl.load(x_pointer + tl.cast(start, tl.int64) * x_batch + at * x_step, here, other=0.0)
    for row in range(start, stop):
        line = tl.cast(row, tl.int64)
        x = ahead.to(tl.float32)
        ahead = tl.load(x_pointer + tl.cast(min(row + 1, stop - 1), tl.int64) * x_batch + at * x_step, here, other=0.0)
        if BEFORE:
            gate_pointer = before_pointer + line * before_batch + channel * before_channel
            x *= tl.load(gate_pointer + at * before_step, here, other=0.0).to(tl.float32)
        x, back = scaled(x, HEADROOM, OPERANDS)
        re, im = spectrum(x, first_re, first_im, b, to_im, to_re, factors_pointer, ROWS, COLUMNS, OPERANDS)
        taps_re, taps_im = complex_tile(taps_pointer, ROWS, COLUMNS, OPERANDS)
        if CONJUGATE:
            taps_im = -taps_im
        re, im = multiply(re, im, taps_re, taps_im)
        re, im = from_right(re, im, b, to_re, to_im, OPERANDS)
        f_re, f_im = complex_tile(factors_pointer, ROWS, COLUMNS, OPERANDS)
        re, im = multiply(re, im, f_re, -f_im)
        y = dot(tl.trans(first_re), re, tl.zeros([ROWS, COLUMNS], tl.float32), OPERANDS)
        y = dot(tl.trans(first_im), im, y, OPERANDS) * (back * scale)
        if AFTER:
            gate_pointer = after_pointer + line * after_batch + channel * after_channel
            y *= tl.load(gate_pointer + to * after_step, wanted, other=0.0).to(tl.float32)
        tl.store(y_pointer + (line * channels + channel) * n + to, nearest(y, y_pointer.dtype.element_ty), wanted)


@triton.jit
def correlate_kernel(
    x_pointer, grad_pointer, sums_pointer, first_pointer, second_pointer, factors_pointer,
    batch, channels, n, lead, length, groups, per_group,
    x_batch, x_channel, x_step, grad_batch, grad_channel, grad_step,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, PERIODIC: tl.constexpr, IN_MEMORY: tl.constexpr,
    HEADROOM: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """Sums of conj(spectrum of x) * (spectrum of grad) over `per_group` rows of one channel.

    IN_MEMORY: added up there, from zero, as they would not fit in registers next to the transforms.
    """
    channel = tl.cast(tl.program_id(0) // groups, tl.int64)
    start = (tl.program_id(0) % groups) * per_group
    first_re, first_im = square(first_pointer, ROWS), square(first_pointer + ROWS * ROWS, ROWS)
    b, to_im = square(second_pointer, COLUMNS), square(second_pointer + COLUMNS * COLUMNS, COLUMNS)
    to_re = square(second_pointer + 2 * COLUMNS * COLUMNS, COLUMNS)
    place = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    at, here = source(place, n, lead, length, PERIODIC)
    sums_pointer += tl.cast(tl.program_id(0), tl.int64) * 2 * ROWS * COLUMNS
    sum_re, sum_im = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    for row in range(start, min(start + per_group, batch)):
        line = tl.cast(row, tl.int64)
        x = tl.load(x_pointer + line * x_batch + channel * x_channel + at * x_step, here, other=0.0)
        grad_at = grad_pointer + line * grad_batch + channel * grad_channel + place * grad_step
        grad = tl.load(grad_at, place < n, other=0.0)
        x, x_back = scaled(x.to(tl.float32), HEADROOM, OPERANDS)
        x_re, x_im = spectrum(x, first_re, first_im, b, to_im, to_re, factors_pointer, ROWS, COLUMNS, OPERANDS)
        x_re, x_im = x_re.to(OPERANDS), x_im.to(OPERANDS)  # half the registers while the other is transformed
        grad, grad_back = scaled(grad.to(tl.float32), HEADROOM, OPERANDS)
        re, im = spectrum(grad, first_re, first_im, b, to_im, to_re, factors_pointer, ROWS, COLUMNS, OPERANDS)
        re, im = multiply(re, im, x_re.to(tl.float32), -x_im.to(tl.float32))
        if IN_MEMORY:
            store_tile(sums_pointer, re * (x_back * grad_back), ROWS, COLUMNS, True)
            store_tile(sums_pointer + ROWS * COLUMNS, im * (x_back * grad_back), ROWS, COLUMNS, True)
        else:
            sum_re += re * (x_back * grad_back)
            sum_im += im * (x_back * grad_back)
    if not IN_MEMORY:
        store_tile(sums_pointer, sum_re, ROWS, COLUMNS, False)
        store_tile(sums_pointer + ROWS * COLUMNS, sum_im, ROWS, COLUMNS, False)


def convolve(
    x: Tensor,
    taps: Tensor,
    scales: Tensor,
    frame: Frame,
    *,
    lead: int,
    length: int,
    skip: int,
    conjugate: bool = False,
    before: Tensor | None = None,
    after: Tensor | None = None,
) -> Tensor:
    """The convolution of (batch, channels, n) signals with taps of which `taps` (channels, words) has the spectra.

    `scales`: by what each channel's spectrum was divided. `lead`: samples of the frame before the signal. `length`:
    samples of the signal that the frame holds, of the periodic one if more than n. `skip`: place of the first output.
    `conjugate`: correlate with the taps instead. `before`, `after`: gates of the signal and of the output.
    """
    batch, channels, n = x.shape
    y = x.new_empty(x.shape)
    groups, per_group = shares(batch, channels)
    dtype = operands(x.dtype)
    gates = [x if gate is None else gate for gate in (before, after)]
    convolve_kernel[(channels * groups,)](
        x, y, *gates, taps, scales, *tables(frame, dtype, x.device),
        batch, channels, n, lead, length, skip, groups, per_group, *x.stride(), *gates[0].stride(), *gates[1].stride(),
        ROWS=frame.rows, COLUMNS=frame.columns, CONJUGATE=conjugate, PERIODIC=length > n,
        BEFORE=before is not None, AFTER=after is not None, HEADROOM=NORM / math.sqrt(frame.points),
        OPERANDS=LANGUAGE[dtype], num_warps=warps(frame.rows), num_stages=1, maxnreg=registers(frame),
    )  # fmt: skip
    return y


def correlate(x: Tensor, grad: Tensor, frame: Frame, *, lead: int, length: int) -> Tensor:
    """Sums over the batch of conj(spectrum of x) * (spectrum of grad), over the frame's points: (channels, 2, points).

    In the order of `spectrum_order`, in float32. The frame of x is as for `convolve`.
    """
    batch, channels, n = x.shape
    groups, per_group = shares(batch, channels)
    dtype = operands(x.dtype)
    fresh = torch.zeros if crowded(frame, dtype) else torch.empty
    sums = fresh(channels, groups, 2, frame.points, dtype=torch.float32, device=x.device)
    correlate_kernel[(channels * groups,)](
        x, grad, sums, *tables(frame, dtype, x.device),
        batch, channels, n, lead, length, groups, per_group, *x.stride(), *grad.stride(),
        ROWS=frame.rows, COLUMNS=frame.columns, PERIODIC=length > n, IN_MEMORY=crowded(frame, dtype),
        HEADROOM=NORM / math.sqrt(frame.points), OPERANDS=LANGUAGE[dtype], num_warps=warps(frame.rows), num_stages=1,
    )  # fmt: skip
    return sums.sum(1) if groups > 1 else sums[:, 0]


def gradients(grad: Tensor, x: Tensor, taps: Tensor, scales: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """The gradient of the signal, and what `correlate` returns, for frames that start with the signal."""
    n = x.shape[-1]
    dx = convolve(grad, taps, scales, frame, lead=0, length=n, skip=0, conjugate=True)
    return dx, correlate(x, grad, frame, lead=0, length=n)


LANGUAGE = {torch.float16: tl.float16, torch.float32: tl.float32}


def operands(dtype: torch.dtype) -> torch.dtype:
    """The dtype of operands for signals of `dtype`: bfloat16 would not be exact enough."""
    return torch.float32 if dtype == torch.float32 else torch.float16


def warps(rows: int) -> int:
    """One for every 16 rows, and at least four: then a group of four holds 64 rows of a product, all their columns."""
    return max(4, rows // 16)


def crowded(frame: Frame, dtype: torch.dtype) -> bool:
    """Whether sums over the batch have no room in registers next to the transforms: more than 512 halves per warp."""
    return frame.inner * dtype.itemsize > 1024 * warps(frame.rows)


def registers(frame: Frame) -> int | None:
    """Most registers per thread: 128 x 32 points take three less than they would, and leave room for two programs."""
    return 128 if (frame.rows, frame.columns) == (128, 32) else None


def tables(frame: Frame, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices of the first and second product, and the factors between them."""
    first = transform(frame.rows, frame.shift, dtype, device)
    return first, three_products(frame.columns, dtype, device), inner_factors(frame, dtype, device)


def shares(batch: int, channels: int) -> tuple[int, int]:
    """Programs per channel, and rows of the batch that each takes."""
    per_group = max(1, batch * channels // PROGRAMS)
    per_group = -(-batch // -(-batch // min(per_group, batch)))
    return -(-batch // per_group), per_group
