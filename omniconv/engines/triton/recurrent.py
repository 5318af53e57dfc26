"""The recurrence of a sum of exponentials, chunk after chunk, on a graphics processor.

A program has one channel and some signals of the batch. It keeps their states and the tables of a chunk, reads every
sample once and writes every output once: 2 bytes each in half precision. The tables, c^2 + 4 c n numbers of float32 per
channel for c samples per chunk and n modes, are read once per program.

In half precision a sample takes 4 c + 20 n operations on tensor cores, 896 for 64 samples and 32 modes. The tables of
the taps and of what enters a state are split in two parts of the operands' precision, the states and the table of what
leaves them in two bfloat16 parts, of which three products are taken. That is 2.3 times what it would take without, and
leaves the error of the output's own rounding, however much the modes cancel each other. In float32 every product is
three of tf32.

The chunks follow each other, so that it takes channels times batch / 16 programs to fill a processor.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from omniconv.engines.triton._dot import dot, nearest

BATCH = 16
"""Signals per program: the least that a product of matrices takes."""
OPERANDS = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


def convolve_chunks(x: Tensor, within: Tensor, entry: Tensor, leaving: Tensor, factor: Tensor, reverse: bool) -> Tensor:
    """y = x within + X leaving in every chunk, X' = factor X + x entry from chunk to chunk, X = 0 before the first.

    `x`: (batch, channels, length), of any strides. The tables are those of `Tables` for a chunk of 32 or 64
    samples and up to 64 modes. `reverse`: the transposed map, which goes from the last chunk to the first.
    """
    batch, channels, length = x.shape
    chunk, modes = within.shape[-1], factor.shape[-1] // 2
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    within, entry, leaving = (table.float().contiguous() for table in (within, entry, leaving))
    if reverse:
        within, entry, leaving = within.mT, leaving.mT, entry.mT
    high = factor.float()
    factors = torch.stack([high, (factor - high).float()], dim=1).contiguous()
    if batch == 0:
        return y
    chunks_kernel[(channels * triton.cdiv(batch, BATCH),)](
        *(x, y, within, entry, leaving, factors, batch, length, modes),
        *(*x.stride(), *y.stride(), *within.stride(), *entry.stride(), *leaving.stride()),
        CHUNK=chunk,
        MODES=max(16, triton.next_power_of_2(modes)),
        BATCH=BATCH,
        REVERSE=reverse,
        OPERANDS=OPERANDS[x.dtype],
        num_warps=4,
        num_stages=2,
    )
    return y


def carry_states(entered: Tensor, factor: Tensor, reverse: bool) -> Tensor:
    """X_g = factor X_{g-1} + entered_g over the chunks g, as `carry` of the engine has it, summed in float64.

    It reads and writes every state once. `entered`: (channels, batch, chunks, 2 modes); `factor`: (channels, 2 modes).
    """
    channels, batch, count, numbers = entered.shape
    entered, states = entered.contiguous(), torch.empty_like(entered, memory_format=torch.contiguous_format)
    block = min(64, triton.next_power_of_2(numbers // 2))
    grid = (channels * batch, triton.cdiv(numbers // 2, block))
    if batch:
        carry_kernel[grid](
            *(entered, states, factor.double().contiguous(), batch, count, numbers // 2),
            BLOCK=block,
            REVERSE=reverse,
            num_warps=2 if block == 64 else 1,
        )
    return states


@triton.jit
def carry_kernel(entered_ptr, states_ptr, factor_ptr, batch, count, modes, BLOCK: tl.constexpr, REVERSE: tl.constexpr):
    """A block of modes of one channel of one signal."""
    row = tl.program_id(0).to(tl.int64)
    ranks = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = ranks < modes
    factor_ptr += (row // batch) * 2 * modes + ranks
    a, b = tl.load(factor_ptr, mask=known, other=0.0), tl.load(factor_ptr + modes, mask=known, other=0.0)
    real, imaginary = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for step in range(count):
        place = (row * count + (count - 1 - step if REVERSE else step)) * 2 * modes + ranks
        entered = tl.load(entered_ptr + place, mask=known, other=0.0).to(tl.float64)
        entered_imaginary = tl.load(entered_ptr + place + modes, mask=known, other=0.0).to(tl.float64)
        next_real = a * real - b * imaginary + entered
        imaginary = a * imaginary + b * real + entered_imaginary
        real = next_real
        tl.store(states_ptr + place, real.to(states_ptr.dtype.element_ty), mask=known)
        tl.store(states_ptr + place + modes, imaginary.to(states_ptr.dtype.element_ty), mask=known)


@triton.jit
def chunks_kernel(
    x_ptr,
    y_ptr,
    within_ptr,
    entry_ptr,
    leaving_ptr,
    factors_ptr,
    batch,
    length,
    modes,
    x_batch,
    x_channel,
    x_time,
    y_batch,
    y_channel,
    y_time,
    within_channel,
    within_in,
    within_out,
    entry_channel,
    entry_in,
    entry_mode,
    leaving_channel,
    leaving_mode,
    leaving_out,
    CHUNK: tl.constexpr,
    MODES: tl.constexpr,
    BATCH: tl.constexpr,
    REVERSE: tl.constexpr,
    OPERANDS: tl.constexpr,
):
    """One channel of `BATCH` signals. Signals are columns: the tables stand on the left of the products."""
    groups = tl.cdiv(batch, BATCH)  # one axis of programs: the others are bounded by 65535
    channel = (tl.program_id(0) // groups).to(tl.int64)
    signals = tl.program_id(0) % groups * BATCH + tl.arange(0, BATCH)
    times, ranks = tl.arange(0, CHUNK), tl.arange(0, MODES)
    known = ranks < modes
    within = tl.load(
        within_ptr + channel * within_channel + times[:, None] * within_out + times[None, :] * within_in
    )  # outputs, samples
    entry_real = entry_ptr + channel * entry_channel + ranks[:, None] * entry_mode + times[None, :] * entry_in
    real_entry = tl.load(entry_real, mask=known[:, None], other=0.0)
    imaginary_entry = tl.load(entry_real + modes * entry_mode, mask=known[:, None], other=0.0)
    leaving_real = (
        leaving_ptr + channel * leaving_channel + times[:, None] * leaving_out + ranks[None, :] * leaving_mode
    )
    real_leaving = tl.load(leaving_real, mask=known[None, :], other=0.0)
    imaginary_leaving = tl.load(leaving_real + modes * leaving_mode, mask=known[None, :], other=0.0)
    factors = factors_ptr + channel * 4 * modes + ranks
    a, b = tl.load(factors, mask=known, other=0.0), tl.load(factors + modes, mask=known, other=0.0)
    a_rest = tl.load(factors + 2 * modes, mask=known, other=0.0)
    b_rest = tl.load(factors + 3 * modes, mask=known, other=0.0)
    if REVERSE:
        b, b_rest = -b, -b_rest
    a, b, a_rest, b_rest = a[:, None], b[:, None], a_rest[:, None], b_rest[:, None]

    x_ptr += channel * x_channel + signals.to(tl.int64)[None, :] * x_batch
    y_ptr += channel * y_channel + signals.to(tl.int64)[None, :] * y_batch
    real = tl.zeros((MODES, BATCH), tl.float32)
    imaginary = tl.zeros((MODES, BATCH), tl.float32)
    count = tl.cdiv(length, CHUNK)
    for step in range(count):
        t = times.to(tl.int64)[:, None] + (count - 1 - step if REVERSE else step) * CHUNK
        inside = (t < length) & (signals[None, :] < batch)
        x = tl.load(x_ptr + t * x_time, mask=inside, other=0.0).to(tl.float32)
        y = dot_samples(within, x, tl.zeros((CHUNK, BATCH), tl.float32), OPERANDS)
        y = dot_states(real_leaving, real, y, OPERANDS)
        y = dot_states(imaginary_leaving, imaginary, y, OPERANDS)
        tl.store(y_ptr + t * y_time, nearest(y, OPERANDS), mask=inside)
        next_real = (a * real - b * imaginary) + (a_rest * real - b_rest * imaginary)
        next_imaginary = (a * imaginary + b * real) + (a_rest * imaginary + b_rest * real)
        real = dot_samples(real_entry, x, next_real, OPERANDS)
        imaginary = dot_samples(imaginary_entry, x, next_imaginary, OPERANDS)


@triton.jit
def dot_samples(table, x, acc, OPERANDS: tl.constexpr):
    """acc + table @ x, of a float32 table and samples that `OPERANDS` holds exactly."""
    if OPERANDS == tl.float32:
        return dot(table, x, acc, OPERANDS)
    high = rounded(table, OPERANDS)
    return dot(high, x, dot(rounded(table - high, OPERANDS), x, acc, OPERANDS), OPERANDS)


@triton.jit
def dot_states(table, states, acc, OPERANDS: tl.constexpr):
    """acc + table @ states, of float32 operands; in half precision by bfloat16, whose range states need."""
    if OPERANDS == tl.float32:
        return dot(table, states, acc, OPERANDS)
    high, states_high = rounded(table, tl.bfloat16), rounded(states, tl.bfloat16)
    low, states_low = rounded(table - high, tl.bfloat16), rounded(states - states_high, tl.bfloat16)
    acc = dot(low, states_high, dot(high, states_low, acc, tl.bfloat16), tl.bfloat16)
    return dot(high, states_high, acc, tl.bfloat16)


@triton.jit
def rounded(values, OPERANDS: tl.constexpr):
    """The nearest numbers of a dtype, in float32."""
    return nearest(values, OPERANDS).to(tl.float32)
