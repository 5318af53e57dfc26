"""Convolution in three passes, for frames that no program can hold: M = outer x inner complex points.

1. `split_kernel`: products with the outer transform along columns, times the factors: x to a workspace of
   (batch, channels, outer, 2, inner) numbers, real and imaginary parts.
2. `middle_kernel`: every row of it is transformed, multiplied by its part of the taps' spectrum, transformed back.
3. `merge_kernel`: times the conjugate factors, products with the conjugate outer transform: the workspace to y.

The workspace is in float16 (float32 for signals in float32), scaled as in one pass. Traffic in half precision, in bytes
per sample of the frame: 2 + 2 (the largest magnitude is read first) + 4, then 4 + 4 and the spectrum of the taps, 4 per
sample of the kernel, then 4 + 2. Operations on tensor cores: 8 outer + 12 (rows + columns) per sample.

Gradients of taps take two first passes and a `correlate_kernel`, which reads both workspaces and adds conj(X) G over
the batch; `gradients` goes on with the workspace of the cotangent. Channels are taken in slices for which a workspace
has at most `WORKSPACE` bytes; there are at most two.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from omniconv.engines.triton._dot import dot, nearest
from omniconv.engines.triton._tables import Frame, inner_factors, outer_factors, three_products, transform
from omniconv.engines.triton.monarch import (
    LANGUAGE,
    NORM,
    complex_tile,
    crowded,
    from_right,
    multiply,
    operands,
    shares,
    source,
    square,
    store_tile,
    warps,
)

WORKSPACE = 2**28
"""Bytes of a workspace; one channel may take more."""

ROUNDS = ["batch", "groups", "per_group"]
"""Arguments of which Triton compiles no kernel of its own for 1: a loop of one round is none, in which matrices of
float32 go through registers where shared memory held them, and hundreds of bytes per thread are spilled.
"""


@triton.jit
def block_of(pointer, row, column, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """ROWS x COLUMNS elements from (row, column) on of a matrix with WIDTH columns."""
    rows, columns = row + tl.arange(0, ROWS), column + tl.arange(0, COLUMNS)
    return tl.load(pointer + rows[:, None] * WIDTH + columns[None, :])


@triton.jit
def outer_block(pointer, row, column, OUTER: tl.constexpr, SIZE: tl.constexpr):
    """Real and imaginary parts of SIZE x SIZE elements of the outer transform from (row, column) on."""
    re = block_of(pointer, row, column, OUTER, SIZE, SIZE)
    return re, block_of(pointer + OUTER * OUTER, row, column, OUTER, SIZE, SIZE)


@triton.jit
def outer_rotations(
    coarse_pointer, fine_pointer, row, column,
    OUTER: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The factors of the outer transform for ROWS frequencies from `row` on, at block `column` of COLUMNS positions."""
    rows = row + tl.arange(0, ROWS)
    coarse_pointer += column * OUTER + rows
    coarse_re, coarse_im = tl.load(coarse_pointer), tl.load(coarse_pointer + INNER // COLUMNS * OUTER)
    fine_re = block_of(fine_pointer, row, 0, COLUMNS, ROWS, COLUMNS)
    fine_im = block_of(fine_pointer + OUTER * COLUMNS, row, 0, COLUMNS, ROWS, COLUMNS)
    return multiply(fine_re, fine_im, coarse_re[:, None], coarse_im[:, None])


@triton.jit
def split_kernel(
    x_pointer, gate_pointer, work_pointer, largest_pointer, outer_pointer, coarse_pointer, fine_pointer,
    batch, channels, n, lead, length, groups, per_group,
    x_batch, x_channel, x_step, gate_batch, gate_channel, gate_step,
    OUTER: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    PERIODIC: tl.constexpr, GATED: tl.constexpr, HEADROOM: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """ROWS outer frequencies at COLUMNS positions, for rows of the batch of one channel after each other."""
    column = tl.program_id(0) % (INNER // COLUMNS)
    row = tl.program_id(0) // (INNER // COLUMNS) % (OUTER // ROWS) * ROWS
    share = tl.program_id(0) // (INNER // COLUMNS * (OUTER // ROWS))
    channel, start = tl.cast(share // groups, tl.int64), share % groups * per_group
    turn_re, turn_im = outer_rotations(coarse_pointer, fine_pointer, row, column, OUTER, INNER, ROWS, COLUMNS)
    to = (row + tl.arange(0, ROWS))[:, None] * (2 * INNER) + (column * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    if OUTER == ROWS:
        outer_re, outer_im = outer_block(outer_pointer, 0, 0, OUTER, ROWS)
    for line in range(start, min(start + per_group, batch)):
        line_ = tl.cast(line, tl.int64)
        scale = 1.0
        if OPERANDS == tl.float16:
            scale = HEADROOM / tl.maximum(tl.load(largest_pointer + line * channels + channel), 1e-30)
        re, im = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
        for first in range(0, OUTER, ROWS):
            place = (first + tl.arange(0, ROWS))[:, None] * INNER + (column * COLUMNS + tl.arange(0, COLUMNS))[None, :]
            at, here = source(place, n, lead, length, PERIODIC)
            x = tl.load(x_pointer + line_ * x_batch + channel * x_channel + at * x_step, here, other=0.0)
            x = x.to(tl.float32) * scale
            if GATED:
                gate = gate_pointer + line_ * gate_batch + channel * gate_channel
                x *= tl.load(gate + at * gate_step, here, other=0.0).to(tl.float32)
            if OUTER > ROWS:
                outer_re, outer_im = outer_block(outer_pointer, row, first, OUTER, ROWS)
            re, im = dot(outer_re, x, re, OPERANDS), dot(outer_im, x, im, OPERANDS)
        re, im = multiply(re, im, turn_re, turn_im)
        work = work_pointer + (line_ * channels + channel) * (2 * OUTER * INNER) + to
        tl.store(work, re.to(work_pointer.dtype.element_ty))
        tl.store(work + INNER, im.to(work_pointer.dtype.element_ty))


@triton.jit
def merge_kernel(
    work_pointer, y_pointer, gate_pointer, largest_pointer, scales_pointer, outer_pointer, coarse_pointer, fine_pointer,
    batch, channels, n, skip, groups, per_group,
    y_batch, y_channel, gate_batch, gate_channel, gate_step,
    OUTER: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    GATED: tl.constexpr, HEADROOM: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """The inverse of `split_kernel`, for the real part of ROWS x COLUMNS positions."""
    column = tl.program_id(0) % (INNER // COLUMNS)
    row = tl.program_id(0) // (INNER // COLUMNS) % (OUTER // ROWS) * ROWS
    share = tl.program_id(0) // (INNER // COLUMNS * (OUTER // ROWS))
    channel, start = tl.cast(share // groups, tl.int64), share % groups * per_group
    to = (row + tl.arange(0, ROWS))[:, None] * INNER + (column * COLUMNS + tl.arange(0, COLUMNS))[None, :] - skip
    wanted = (to >= 0) & (to < n)
    if OUTER == ROWS:
        outer_re, outer_im = outer_block(outer_pointer, 0, 0, OUTER, ROWS)
        turn_re, turn_im = outer_rotations(coarse_pointer, fine_pointer, 0, column, OUTER, INNER, ROWS, COLUMNS)
    for line in range(start, min(start + per_group, batch)):
        line_ = tl.cast(line, tl.int64)
        scale = tl.load(scales_pointer + channel)
        if OPERANDS == tl.float16:
            scale *= tl.maximum(tl.load(largest_pointer + line * channels + channel), 1e-30) / HEADROOM
        y = tl.zeros([ROWS, COLUMNS], tl.float32)
        for first in range(0, OUTER, ROWS):
            if OUTER > ROWS:
                outer_re, outer_im = outer_block(outer_pointer, first, row, OUTER, ROWS)
                turn_re, turn_im = outer_rotations(
                    coarse_pointer, fine_pointer, first, column, OUTER, INNER, ROWS, COLUMNS
                )
            work = work_pointer + (line_ * channels + channel) * (2 * OUTER * INNER)
            re = block_of(work, first, column * COLUMNS, 2 * INNER, ROWS, COLUMNS).to(tl.float32)
            im = block_of(work + INNER, first, column * COLUMNS, 2 * INNER, ROWS, COLUMNS).to(tl.float32)
            re, im = multiply(re, im, turn_re, -turn_im)
            y = dot(tl.trans(outer_re), re, y, OPERANDS)
            y = dot(tl.trans(outer_im), im, y, OPERANDS)
        y *= scale
        if GATED:
            gate = gate_pointer + line_ * gate_batch + channel * gate_channel
            y *= tl.load(gate + to * gate_step, wanted, other=0.0).to(tl.float32)
        tl.store(y_pointer + line_ * y_batch + channel * y_channel + to, nearest(y, y_pointer.dtype.element_ty), wanted)


@triton.jit
def from_left(a, to_im, to_re, re, im, OPERANDS: tl.constexpr):
    """(a + i b) @ (re + i im) in three real products; see `three_products`."""
    common = dot(a, re + im, tl.zeros([a.shape[0], re.shape[1]], tl.float32), OPERANDS)
    return dot(to_re, im, common, OPERANDS), dot(to_im, re, common, OPERANDS)


@triton.jit
def triple(pointer, SIZE: tl.constexpr):
    """The matrices of `three_products`."""
    return square(pointer, SIZE), square(pointer + SIZE * SIZE, SIZE), square(pointer + 2 * SIZE * SIZE, SIZE)


@triton.jit
def row_spectrum(
    pointer, a, a_im, a_re, b, b_im, b_re, factors_pointer,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """The transform of ROWS x COLUMNS complex points, whose parts follow each other."""
    re = block_of(pointer, 0, 0, COLUMNS, ROWS, COLUMNS).to(tl.float32)
    im = block_of(pointer + ROWS * COLUMNS, 0, 0, COLUMNS, ROWS, COLUMNS).to(tl.float32)
    re, im = from_left(a, a_im, a_re, re, im, OPERANDS)
    f_re, f_im = complex_tile(factors_pointer, ROWS, COLUMNS, OPERANDS)
    re, im = multiply(re, im, f_re, f_im)
    return from_right(re, im, b, b_im, b_re, OPERANDS)


@triton.jit(do_not_specialize=ROUNDS)
def middle_kernel(
    work_pointer, taps_pointer, first_pointer, second_pointer, factors_pointer,
    batch, channels, groups, per_group,
    OUTER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CONJUGATE: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """One outer frequency of one channel, for rows of the batch after each other, in place."""
    INNER: tl.constexpr = ROWS * COLUMNS
    part, start = tl.program_id(0) // groups, tl.program_id(0) % groups * per_group
    a, a_im, a_re = triple(first_pointer, ROWS)
    b, b_im, b_re = triple(second_pointer, COLUMNS)
    HALF: tl.constexpr = OPERANDS == tl.float16
    channel = tl.cast(part // OUTER, tl.int64)
    if HALF:
        taps_pointer += (channel * OUTER + part % OUTER) * INNER
    else:
        taps_pointer += (channel * OUTER + part % OUTER) * (2 * INNER)
    place = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    for line in range(start, min(start + per_group, batch)):
        work = work_pointer + (tl.cast(line, tl.int64) * channels * OUTER + part) * (2 * INNER)
        re, im = row_spectrum(work, a, a_im, a_re, b, b_im, b_re, factors_pointer, ROWS, COLUMNS, OPERANDS)
        taps_re, taps_im = complex_tile(taps_pointer, ROWS, COLUMNS, OPERANDS)
        if CONJUGATE:
            taps_im = -taps_im
        re, im = multiply(re, im, taps_re, taps_im)
        re, im = from_right(re, im, b, b_re, b_im, OPERANDS)
        f_re, f_im = complex_tile(factors_pointer, ROWS, COLUMNS, OPERANDS)
        re, im = multiply(re, im, f_re, -f_im)
        re, im = from_left(a, a_re, a_im, re, im, OPERANDS)
        tl.store(work + place, re.to(work_pointer.dtype.element_ty))
        tl.store(work + INNER + place, im.to(work_pointer.dtype.element_ty))


@triton.jit(do_not_specialize=ROUNDS)
def correlate_kernel(
    x_pointer, grad_pointer, sums_pointer, scales_pointer, first_pointer, second_pointer, factors_pointer,
    batch, channels, groups, per_group,
    OUTER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, IN_MEMORY: tl.constexpr, OPERANDS: tl.constexpr,
):  # fmt: skip
    """Sums of conj(spectrum of x) * (spectrum of grad) * scale, for one outer frequency of one channel."""
    INNER: tl.constexpr = ROWS * COLUMNS
    part, start = tl.program_id(0) // groups, tl.program_id(0) % groups * per_group
    a, a_im, a_re = triple(first_pointer, ROWS)
    b, b_im, b_re = triple(second_pointer, COLUMNS)
    group = tl.cast(tl.program_id(0) % groups, tl.int64)
    sums_pointer += (group * channels * OUTER + part) * (2 * INNER)
    sum_re, sum_im = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    for line in range(start, min(start + per_group, batch)):
        offset = (tl.cast(line, tl.int64) * channels * OUTER + part) * (2 * INNER)
        scale = tl.load(scales_pointer + line * channels + part // OUTER)
        x_re, x_im = row_spectrum(
            x_pointer + offset, a, a_im, a_re, b, b_im, b_re, factors_pointer, ROWS, COLUMNS, OPERANDS
        )
        x_re, x_im = x_re.to(OPERANDS), x_im.to(OPERANDS)  # half the registers while the other is transformed
        re, im = row_spectrum(
            grad_pointer + offset, a, a_im, a_re, b, b_im, b_re, factors_pointer, ROWS, COLUMNS, OPERANDS
        )
        re, im = multiply(re, im, x_re.to(tl.float32), -x_im.to(tl.float32))
        if IN_MEMORY:
            store_tile(sums_pointer, re * scale, ROWS, COLUMNS, True)
            store_tile(sums_pointer + INNER, im * scale, ROWS, COLUMNS, True)
        else:
            sum_re += re * scale
            sum_im += im * scale
    if not IN_MEMORY:
        store_tile(sums_pointer, sum_re, ROWS, COLUMNS, False)
        store_tile(sums_pointer + INNER, sum_im, ROWS, COLUMNS, False)


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
    """As `convolve` in one pass; spectra in `taps` have the outer frequencies first."""
    y = x.new_empty(x.shape)
    for part in slices(x, frame):
        gates = [None if gate is None else gate[:, part] for gate in (before, after)]
        largest = magnitudes(x[:, part], gates[0])
        work = split(x[:, part], largest, frame, lead, length, gates[0])
        middle(work, taps[part], frame, conjugate)
        merge(work, y[:, part], largest, scales[part], frame, skip, gates[1])
    return y


def correlate(x: Tensor, grad: Tensor, frame: Frame, *, lead: int, length: int) -> Tensor:
    """As `correlate` in one pass, with the outer frequencies first: (channels, 2, points)."""
    sums = torch.empty(x.shape[1], frame.outer, 2, frame.inner, dtype=torch.float32, device=x.device)
    for part in slices(x, frame):
        largest_x, largest_grad = magnitudes(x[:, part], None), magnitudes(grad[:, part], None)
        work_x = split(x[:, part], largest_x, frame, lead, length, None)
        work_grad = split(grad[:, part], largest_grad, frame, 0, grad.shape[-1], None)
        sums[part] = correlated(work_x, work_grad, largest_x * largest_grad / headroom(frame, x.dtype) ** 2, frame)
    return in_order(sums)


def gradients(grad: Tensor, x: Tensor, taps: Tensor, scales: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """As `gradients` in one pass: both share the outer transform of the cotangent."""
    dx, n = grad.new_empty(grad.shape), x.shape[-1]
    sums = torch.empty(x.shape[1], frame.outer, 2, frame.inner, dtype=torch.float32, device=x.device)
    for part in slices(x, frame):
        largest_x, largest_grad = magnitudes(x[:, part], None), magnitudes(grad[:, part], None)
        work_grad = split(grad[:, part], largest_grad, frame, 0, n, None)
        work_x = split(x[:, part], largest_x, frame, 0, n, None)
        sums[part] = correlated(work_x, work_grad, largest_x * largest_grad / headroom(frame, x.dtype) ** 2, frame)
        del work_x
        middle(work_grad, taps[part], frame, conjugate=True)
        merge(work_grad, dx[:, part], largest_grad, scales[part], frame, 0, None)
    return dx, in_order(sums)


def in_order(sums: Tensor) -> Tensor:
    """Sums of (channels, outer, 2, inner) points as (channels, 2, points)."""
    return sums.transpose(1, 2).reshape(len(sums), 2, -1)


def slices(x: Tensor, frame: Frame) -> list[slice]:
    """Ranges of channels whose workspace has at most `WORKSPACE` bytes."""
    batch, channels, _ = x.shape
    step = max(1, WORKSPACE // (batch * frame.points * 2 * operands(x.dtype).itemsize))
    return [slice(start, start + step) for start in range(0, channels, step)]


def magnitudes(x: Tensor, gate: Tensor | None) -> Tensor:
    """What no sample of (batch, channels) rows exceeds, in float32; ones where no scale is needed."""
    if x.dtype == torch.float32:
        return torch.ones(x.shape[:2], device=x.device)
    largest = torch.linalg.vector_norm(x, math.inf, dim=-1).float()
    return largest if gate is None else largest * torch.linalg.vector_norm(gate, math.inf, dim=-1).float()


def headroom(frame: Frame, dtype: torch.dtype) -> float:
    """The magnitude to which the largest sample of a row is scaled."""
    return 1.0 if dtype == torch.float32 else NORM / math.sqrt(frame.points)


def block(frame: Frame, dtype: torch.dtype) -> tuple[int, int]:
    """Outer frequencies and positions that a program takes at a time."""
    return min(frame.outer, 128 if dtype == torch.float16 else 64), 64 if frame.outer < 64 else 32


def ahead(roomy: bool, dtype: torch.dtype) -> int:
    """Stages of a loop: two load the next row during the work on one, where shared memory has room for it."""
    return 2 if roomy and dtype == torch.float16 else 1


def split(x: Tensor, largest: Tensor, frame: Frame, lead: int, length: int, gate: Tensor | None) -> Tensor:
    """The outer transform of every row: (batch, channels, outer, 2, inner)."""
    batch, channels, n = x.shape
    dtype = operands(x.dtype)
    rows, columns = block(frame, dtype)
    work = torch.empty(batch, channels, frame.outer, 2, frame.inner, dtype=dtype, device=x.device)
    groups, per_group = shares(batch, channels * frame.points // (rows * columns))
    outer = transform(frame.outer, frame.shift, dtype, x.device)
    gate_ = x if gate is None else gate
    split_kernel[(channels * groups * frame.points // (rows * columns),)](
        x, gate_, work, largest, outer, *outer_factors(frame, columns, x.device),
        batch, channels, n, lead, length, groups, per_group, *x.stride(), *gate_.stride(),
        OUTER=frame.outer, INNER=frame.inner, ROWS=rows, COLUMNS=columns, PERIODIC=length > n,
        GATED=gate is not None, HEADROOM=headroom(frame, x.dtype), OPERANDS=LANGUAGE[dtype],
        num_warps=warps(rows), num_stages=ahead(rows == frame.outer, dtype),
    )  # fmt: skip
    return work


def middle(work: Tensor, taps: Tensor, frame: Frame, conjugate: bool) -> None:
    """Products of spectra with the taps', in place."""
    batch, channels = work.shape[:2]
    groups, per_group = shares(batch, channels * frame.outer)
    middle_kernel[(channels * frame.outer * groups,)](
        work, taps, *inner_tables(frame, work.dtype, work.device), batch, channels, groups, per_group,
        OUTER=frame.outer, ROWS=frame.rows, COLUMNS=frame.columns, CONJUGATE=conjugate, OPERANDS=LANGUAGE[work.dtype],
        num_warps=warps(frame.rows), num_stages=ahead(frame.inner <= 2048, work.dtype),
    )  # fmt: skip


def merge(
    work: Tensor, y: Tensor, largest: Tensor, scales: Tensor, frame: Frame, skip: int, gate: Tensor | None
) -> None:
    """The inverse outer transform of every row, from place `skip` on, to y."""
    batch, channels, n = y.shape
    rows, columns = block(frame, work.dtype)
    groups, per_group = shares(batch, channels * frame.points // (rows * columns))
    outer = transform(frame.outer, frame.shift, work.dtype, work.device)
    gate_ = y if gate is None else gate
    merge_kernel[(channels * groups * frame.points // (rows * columns),)](
        work, y, gate_, largest, scales, outer, *outer_factors(frame, columns, y.device),
        batch, channels, n, skip, groups, per_group, *y.stride()[:2], *gate_.stride(),
        OUTER=frame.outer, INNER=frame.inner, ROWS=rows, COLUMNS=columns, GATED=gate is not None,
        HEADROOM=headroom(frame, y.dtype), OPERANDS=LANGUAGE[work.dtype], num_warps=warps(rows),
        num_stages=ahead(rows == frame.outer, work.dtype),
    )  # fmt: skip


def correlated(x: Tensor, grad: Tensor, scales: Tensor, frame: Frame) -> Tensor:
    """Sums over the batch of conj(spectrum of x) * (spectrum of grad) * scale: (channels, outer, 2, inner)."""
    batch, channels = x.shape[:2]
    groups, per_group = shares(batch, channels * frame.outer)
    fresh = torch.zeros if crowded(frame, x.dtype) else torch.empty
    sums = fresh(groups, channels, frame.outer, 2, frame.inner, dtype=torch.float32, device=x.device)
    correlate_kernel[(channels * frame.outer * groups,)](
        x, grad, sums, scales, *inner_tables(frame, x.dtype, x.device), batch, channels, groups, per_group,
        OUTER=frame.outer, ROWS=frame.rows, COLUMNS=frame.columns, IN_MEMORY=crowded(frame, x.dtype),
        OPERANDS=LANGUAGE[x.dtype], num_warps=warps(frame.rows), num_stages=1,
    )  # fmt: skip
    return sums.sum(0) if groups > 1 else sums[0]


def inner_tables(frame: Frame, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices of the transforms along columns and rows, and the factors between them."""
    first, second = (three_products(size, dtype, device) for size in (frame.rows, frame.columns))
    return first, second, inner_factors(frame, dtype, device)
