"""One step of decoding of a gated long convolution, in one pass over its state, on a graphics processor.

A program has a block of the batch and of the channels, or some heads. It reads the projected sample and the two before
it, convolves them, and takes the state mode by mode: read, multiplied in registers, written where it was. A step of 8
modes with a state of float32 moves 128 bytes per channel and signal and some 30 beside, and its time is that of the
memory. Poles and residues are read once per program, which is what the blocks of the batch are for.

A state of float32 is multiplied in float64, and rounded once, as it is kept. In float32 poles, products and sums would
each be rounded, always the same way where a state changes little from step to step, and that adds up: a second float32
for the rest of a pole hardly helps, because what it adds is less than half a unit in the last place of the sum. Four
multiplications in float64 for 16 bytes should hide behind the memory, which has not been measured yet. A state of
bfloat16 is coarser than any of that, and multiplied in float32.

Every number of the state and of the window is read and written by one program alone. Within a program several threads
may hold a copy of one number, so that all have read the window before any writes it.

Massaroli et al. 2023, Laughing Hyena Distillery; Poli et al. 2023, Hyena Hierarchy.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from omniconv.engines.triton._dot import nearest

BATCH, CHANNELS = 8, 64
"""The largest blocks of a program."""
ENTRIES = 512
"""Entries of the states of heads per program, or those of one head."""
WARPS = 4


def gated_step(
    projected: Tensor,
    window: Tensor,
    state: Tensor,
    short_taps: Tensor,
    short_bias: Tensor,
    poles: Tensor,
    residues: Tensor,
    direct: Tensor,
    inputs: Tensor | None,
) -> Tensor:
    """`gated_step` of `omniconv.engines.decode`, whose checks have passed."""
    modes, _, batch, channels = state.shape
    out = projected.new_empty(batch, channels)
    block = min(BATCH, triton.next_power_of_2(max(1, batch)))
    grid = (triton.cdiv(batch, block), triton.cdiv(channels, CHANNELS))
    if out.numel():
        gated_kernel[grid](
            *(projected.contiguous(), window, state, out),
            *parameters(short_taps, short_bias, poles, residues, direct, inputs),
            *(batch, channels, modes, projected.numel(), batch * channels),
            SCALED=inputs is not None,
            BATCH=block,
            CHANNELS=CHANNELS,
            num_warps=max(1, WARPS * block // BATCH),  # a number of the state per thread at least
        )
    return out


def multi_head_step(
    projected: Tensor,
    window: Tensor,
    state: Tensor,
    short_taps: Tensor,
    short_bias: Tensor,
    poles: Tensor,
    residues: Tensor,
    direct: Tensor,
    inputs: Tensor | None,
) -> Tensor:
    """`multi_head_step` of `omniconv.engines.decode`, whose checks have passed."""
    modes, _, batch, filters, width, _ = state.shape
    out = projected.new_empty(batch, filters * width)
    padded = triton.next_power_of_2(max(1, width))
    rows = max(1, ENTRIES // padded**2)
    if out.numel():
        multi_head_kernel[(triton.cdiv(batch * filters, rows),)](
            *(projected.contiguous(), window, state, out),
            *parameters(short_taps, short_bias, poles, residues, direct, inputs),
            *(batch * filters, filters, modes, projected.numel(), state[0, 0].numel()),
            SCALED=inputs is not None,
            ROWS=rows,
            WIDTH=width,
            PADDED=padded,
            num_warps=min(16, max(WARPS, rows * padded**2 // 256)),
        )
    return out


def parameters(
    short_taps: Tensor,
    short_bias: Tensor,
    poles: Tensor,
    residues: Tensor,
    direct: Tensor,
    inputs: Tensor | None,
) -> list[Tensor]:
    """As the kernels read them; another tensor stands for the gains that are not there."""
    given = (short_taps, short_bias, poles, residues, direct, direct if inputs is None else inputs)
    return [values.contiguous() for values in given]


@triton.jit
def gated_kernel(
    projected_ptr,
    window_ptr,
    state_ptr,
    out_ptr,
    taps_ptr,
    bias_ptr,
    poles_ptr,
    residues_ptr,
    direct_ptr,
    inputs_ptr,
    batch,
    channels,
    modes,
    sample,
    plane,
    SCALED: tl.constexpr,
    BATCH: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A block of `BATCH` signals and `CHANNELS` channels."""
    signals = (tl.program_id(0) * BATCH + tl.arange(0, BATCH)).to(tl.int64)[:, None]
    ranks = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    known = ranks < channels
    inside = (signals < batch) & known
    at = signals * (3 * channels) + ranks
    short = (projected_ptr, window_ptr, taps_ptr, bias_ptr)
    q, q_now, q_last = short_convolution(short, at, ranks, sample, inside, known)
    k, k_now, k_last = short_convolution(short, at + channels, ranks + channels, sample, inside, known)
    v, v_now, v_last = short_convolution(short, at + 2 * channels, ranks + 2 * channels, sample, inside, known)
    tl.debug_barrier()
    move_window(window_ptr, at, sample, q_now, q_last, inside)
    move_window(window_ptr, at + channels, sample, k_now, k_last, inside)
    move_window(window_ptr, at + 2 * channels, sample, v_now, v_last, inside)
    modal = (poles_ptr, residues_ptr, direct_ptr, inputs_ptr)
    at = signals * channels + ranks
    y = q * recurrence(modal, k * v, state_ptr, at, plane, ranks, channels, modes, inside, known, SCALED)
    tl.store(out_ptr + at, nearest(y, out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def multi_head_kernel(
    projected_ptr,
    window_ptr,
    state_ptr,
    out_ptr,
    taps_ptr,
    bias_ptr,
    poles_ptr,
    residues_ptr,
    direct_ptr,
    inputs_ptr,
    heads,
    filters,
    modes,
    sample,
    plane,
    SCALED: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
):
    """`ROWS` heads of `WIDTH`, those of a signal after each other: heads, keys, values."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None, None]
    keys, values = tl.arange(0, PADDED)[None, :, None], tl.arange(0, PADDED)[None, None, :]
    ranks = rows % filters
    known = rows < heads
    channels = filters * WIDTH
    at = (rows // filters).to(tl.int64) * (3 * channels) + ranks * WIDTH
    rows = rows.to(tl.int64)
    short = (projected_ptr, window_ptr, taps_ptr, bias_ptr)
    by_key, by_value = known & (keys < WIDTH), known & (values < WIDTH)
    head = ranks * WIDTH + keys
    q, q_now, q_last = short_convolution(short, at + keys, head, sample, by_key, by_key)
    k, k_now, k_last = short_convolution(short, at + channels + keys, head + channels, sample, by_key, by_key)
    head = ranks * WIDTH + values + 2 * channels
    v, v_now, v_last = short_convolution(short, at + 2 * channels + values, head, sample, by_value, by_value)
    tl.debug_barrier()
    move_window(window_ptr, at + keys, sample, q_now, q_last, by_key)
    move_window(window_ptr, at + channels + keys, sample, k_now, k_last, by_key)
    move_window(window_ptr, at + 2 * channels + values, sample, v_now, v_last, by_value)
    modal = (poles_ptr, residues_ptr, direct_ptr, inputs_ptr)
    at = (rows * WIDTH + keys) * WIDTH + values
    w = recurrence(modal, k * v, state_ptr, at, plane, ranks, filters, modes, by_key & by_value, known, SCALED)
    y = tl.sum(w * q, axis=1)[:, None, :]
    tl.store(out_ptr + rows * WIDTH + values, nearest(y, out_ptr.dtype.element_ty), mask=by_value)


@triton.jit
def short_convolution(short, at, places, sample, inside, known):
    """The three taps in float32, and the last two samples, of the numbers `places` of all that is projected.

    `at`: where those of the signals are in a sample. `sample`: the numbers of one, from one in the window to the next.
    """
    projected_ptr, window_ptr, taps_ptr, bias_ptr = short
    now = tl.load(projected_ptr + at, mask=inside, other=0.0)
    older = tl.load(window_ptr + at, mask=inside, other=0.0)
    last = tl.load(window_ptr + sample + at, mask=inside, other=0.0)
    y = tl.load(bias_ptr + places, mask=known, other=0.0).to(tl.float32)
    y += tl.load(taps_ptr + 3 * places, mask=known, other=0.0).to(tl.float32) * now.to(tl.float32)
    y += tl.load(taps_ptr + 3 * places + 1, mask=known, other=0.0).to(tl.float32) * last.to(tl.float32)
    y += tl.load(taps_ptr + 3 * places + 2, mask=known, other=0.0).to(tl.float32) * older.to(tl.float32)
    return y, now, last


@triton.jit
def move_window(window_ptr, at, sample, now, last, inside):
    """The last two samples are what comes before the next."""
    tl.store(window_ptr + at, last, mask=inside)
    tl.store(window_ptr + sample + at, now, mask=inside)


@triton.jit
def recurrence(modal, u, state_ptr, at, plane, ranks, filters, modes, inside, known, SCALED: tl.constexpr):
    """direct u + Re sum_n residues_n X_n, and X_n <- poles_n X_n + inputs_n u where X_n was.

    `at`: where the numbers are in the real or imaginary part of a mode, of `plane` numbers. `ranks`: their filters.
    """
    poles_ptr, residues_ptr, direct_ptr, inputs_ptr = modal
    WIDE: tl.constexpr = tl.float32 if state_ptr.dtype.element_ty == tl.bfloat16 else tl.float64
    y = tl.load(direct_ptr + ranks, mask=known, other=0.0).to(tl.float32) * u
    real_ptr = state_ptr + at
    for mode in range(modes):
        imaginary_ptr = real_ptr + plane
        real = tl.load(real_ptr, mask=inside, other=0.0).to(tl.float32)
        imaginary = tl.load(imaginary_ptr, mask=inside, other=0.0).to(tl.float32)
        place = 2 * mode * filters + ranks
        c = tl.load(residues_ptr + place, mask=known, other=0.0).to(tl.float32)
        d = tl.load(residues_ptr + place + filters, mask=known, other=0.0).to(tl.float32)
        y += c * real - d * imaginary
        a = tl.load(poles_ptr + place, mask=known, other=0.0).to(WIDE)
        b = tl.load(poles_ptr + place + filters, mask=known, other=0.0).to(WIDE)
        entered = u.to(WIDE)
        if SCALED:
            entered *= tl.load(inputs_ptr + mode * filters + ranks, mask=known, other=0.0).to(WIDE)
        next_real = (a * real.to(WIDE) - b * imaginary.to(WIDE) + entered).to(tl.float32)
        next_imaginary = (a * imaginary.to(WIDE) + b * real.to(WIDE)).to(tl.float32)
        tl.store(real_ptr, nearest(next_real, state_ptr.dtype.element_ty), mask=inside)
        tl.store(imaginary_ptr, nearest(next_imaginary, state_ptr.dtype.element_ty), mask=inside)
        real_ptr = imaginary_ptr + plane  # by steps: their sum may be beyond an int32
    return y
