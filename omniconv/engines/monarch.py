"""Long convolutions on GPUs: transforms as products of matrices on tensor cores.

A frame holds twice as many samples as the signal, whatever the kernel: none of the lags that matter, -(n - 1) to n - 1,
wraps around. A circular signal whose length is on offer is its own frame; another is extended by its periodic
continuation of K - 1 samples.
"""

from __future__ import annotations

import math
from types import ModuleType

import torch
from torch import Tensor

from omniconv._precision import HALF
from omniconv._typing import Signal, Taps
from omniconv.engines._engine import Engine
from omniconv.engines._problem import Problem
from omniconv.engines._tensor_cores import refuse_machine
from omniconv.engines.triton._tables import Frame, spectrum_order, twist, words

ONE_PASS = {
    torch.float16: ((16, 16), (32, 16), (64, 16), (64, 32), (128, 32), (128, 64)),
    torch.float32: ((16, 16), (32, 16), (64, 16), (64, 32)),
}
"""Rows and columns of the frames that one program can hold, by dtype of the operands."""

PASSES = {
    torch.float16: (
        (16, 64, 16),
        (32, 64, 16),
        (32, 64, 32),
        (64, 64, 32),
        (128, 64, 32),
        (128, 64, 64),
        (128, 128, 64),
        (256, 128, 64),
        (512, 128, 64),
    ),
    torch.float32: (
        (16, 16, 16),
        (16, 32, 16),
        (16, 64, 16),
        (32, 64, 16),
        (64, 64, 16),
        (64, 64, 32),
        (128, 64, 32),
        (256, 64, 32),
        (512, 64, 32),
        (1024, 64, 32),
    ),
}
"""Outer factor, rows and columns of larger frames, which take three passes over the signal."""


SMALLEST = 1e-30
"""Spectra below this are taken for zero."""


def prepare(taps: Taps, problem: Problem) -> Tensor:
    """The spectrum of the taps in the order and form of the kernels, then the scale of every channel, in one row.

    Spectra in float16 are divided by their largest magnitude, the scale. Lags below zero start M samples later: at the
    frequencies (k + 1/4) / M a delay by M samples is a factor of -i, which a factor of i makes good.
    """
    frame, zero, dtype = frame_of(problem), zero_lag(problem), operands(problem)
    channels, k = taps.shape
    twisted, m = twist(frame, taps.device), frame.points
    placed = torch.zeros(channels, m, dtype=torch.complex64, device=taps.device)
    torch.mul(taps[:, zero:], twisted[: k - zero], out=placed[:, : k - zero])
    if zero:
        placed[:, m - zero :] += taps[:, :zero] * (twisted[m - zero :] * (1j if frame.shift else 1))
    spectrum = torch.fft.fft(placed)
    del placed
    spectrum = spectrum.index_select(1, spectrum_order(frame, taps.device)).view(channels, frame.outer, frame.inner)
    if dtype == torch.float32:
        return torch.cat([words(spectrum, dtype).flatten(), torch.ones(channels, device=taps.device)])
    scales = torch.linalg.vector_norm(torch.view_as_real(spectrum).flatten(1), math.inf, dim=1).clamp_min(SMALLEST)
    prepared = torch.empty(channels * (m + 1), dtype=torch.int32, device=taps.device)
    prepared[-channels:] = scales.view(torch.int32)
    halves = prepared[:-channels].view(torch.float16).view(channels, frame.outer, frame.inner, 2)
    torch.mul(torch.view_as_real(spectrum), 1 / scales[:, None, None, None], out=halves)
    return prepared


def run(x: Signal, prepared: Tensor, problem: Problem) -> Signal:
    """y = F^-1(F x * F taps)."""
    return gated(x, prepared, problem, None, None)


def gated(x: Signal, prepared: Tensor, problem: Problem, before: Tensor | None, after: Tensor | None) -> Signal:
    """after * run(before * x), for gates of the shape of x or None, in the passes of `run`."""
    frame, extension = frame_of(problem), extension_of(problem)
    lead = extension - problem.origin[0] if extension else 0
    before, after = (None if gate is None else reachable(gate) for gate in (before, after))
    x = reachable(x)
    return kernels(frame).convolve(
        x,
        *spectra(prepared, problem),
        frame,
        lead=lead,
        length=x.shape[-1] + extension,
        skip=0,
        before=before,
        after=after,
    )


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dx = F^-1(F grad * conj F taps);  dtaps = F^-1(sum over the batch of F grad * conj F x), at the taps' lags."""
    frame, extension, origin = frame_of(problem), extension_of(problem), problem.origin[0]
    grad, x, length = reachable(grad), reachable(x), x.shape[-1] + extension
    dx = sums = None
    engine, spectra_taps = kernels(frame), spectra(prepare(taps, problem), problem) if need_x else ()
    if need_x and need_taps and not extension:
        dx, sums = engine.gradients(grad, x, *spectra_taps, frame)
    elif need_x:
        span = {"lead": origin if extension else 0, "length": length, "skip": extension}
        dx = engine.convolve(grad, *spectra_taps, frame, **span, conjugate=True)
    if need_taps and sums is None:
        sums = engine.correlate(x, grad, frame, lead=extension - origin if extension else 0, length=length)
    return dx, None if sums is None else pick(sums, problem)


def reachable(signal: Signal) -> Signal:
    """The signal, copied if a row spans more elements than a kernel counts in 32 bits."""
    return signal if (signal.shape[-1] - 1) * abs(signal.stride(-1)) < 2**31 else signal.contiguous()


def pick(sums: Tensor, problem: Problem) -> Taps:
    """The taps whose spectra are `sums`, (channels, 2, points) in the kernels' order: the inverse of `prepare`."""
    frame, zero, k = frame_of(problem), zero_lag(problem), problem.kernel_size[0]
    spectrum = torch.empty(len(sums), frame.points, dtype=torch.complex64, device=sums.device)
    spectrum[:, spectrum_order(frame, sums.device)] = torch.complex(sums[:, 0], sums[:, 1])
    placed = torch.fft.ifft(spectrum, norm="forward")
    if frame.shift:
        placed *= twist(frame, sums.device).conj()
    ahead = placed.imag if frame.shift else placed.real
    return torch.cat([ahead[:, frame.points - zero :], placed.real[:, : k - zero]], 1)


def spectra(prepared: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """The spectra, (channels, words), and the scales of the channels."""
    channels = problem.in_channels
    return prepared[:-channels].view(channels, -1), prepared[-channels:].view(torch.float32)


def frame_of(problem: Problem) -> Frame:
    """The frame of a problem: the shortest on offer that holds the signal and its extension.

    Raises `ValueError` if there is none.
    """
    n, offers = problem.size[0], sizes(problem)
    if problem.circular[0] and n in offers:
        return Frame(*offers[n], 0.0)
    fitting = [points for points in offers if points >= n + extension_of(problem)]
    if not fitting:
        raise ValueError(f"frames have up to {max(offers)} samples; got {n + extension_of(problem)}")
    return Frame(*offers[fitting[0]], 0.25)


def sizes(problem: Problem) -> dict[int, tuple[int, int, int]]:
    """Factors of the frames on offer, by their points, in increasing order."""
    factors = [(1, *pair) for pair in ONE_PASS[operands(problem)]] + list(PASSES[operands(problem)])
    return {outer * rows * columns: (outer, rows, columns) for outer, rows, columns in factors}


def extension_of(problem: Problem) -> int:
    """Samples of the periodic continuation that the frame holds."""
    n, k = problem.size[0], problem.kernel_size[0]
    return k - 1 if problem.circular[0] and n not in sizes(problem) else 0


def zero_lag(problem: Problem) -> int:
    """Index of the tap at lag zero of the frame, which starts K - 1 - origin samples early if it is an extended one."""
    return extension_of(problem) or problem.origin[0]


def operands(problem: Problem) -> torch.dtype:
    """The dtype of the operands of products: bfloat16 would not be exact enough."""
    return torch.float16 if problem.dtype in HALF else torch.float32


def kernels(frame: Frame) -> ModuleType:
    """The kernels for a frame, imported when they run."""
    if frame.outer == 1:
        from omniconv.engines.triton import monarch

        return monarch
    from omniconv.engines.triton import monarch_passes

    return monarch_passes


def reject(problem: Problem) -> str | None:
    """Signals on one axis with a kernel per channel, on a CUDA device, in float32 or less."""
    if problem.dim != 1:
        return f"the signal has {problem.dim} axes; it takes one"
    if not problem.depthwise:
        return "the taps mix channels; it takes one kernel per channel"
    if problem.dtype not in (torch.float32, *HALF):
        return f"the signal is of {problem.dtype}; it takes float32, float16 and bfloat16"
    if (reason := refuse_machine(problem.device)) is not None:
        return reason
    if (needed := problem.size[0] + extension_of(problem)) > (longest := max(sizes(problem))):
        return f"the signal takes a frame of {needed} samples; the longest has {longest}"
    return None


def work(problem: Problem) -> tuple[float, ...] | None:
    """Launches, bytes moved and operations on tensor cores, those in float32 counted as the six that they take.

    None on a CPU, where the interpreter is never to be chosen.
    """
    if problem.device != "cuda":
        return None
    return totals(problem, passes=((1, 1),), prepared=1)


def adjoint_work(problem: Problem, need_x: bool, need_taps: bool) -> tuple[float, ...] | None:
    """As for `work`: the gradient of the signal is a convolution, that of the taps has two transforms and no output.

    What the two share in three passes, the outer transform of the cotangent, is left out of account.
    """
    if problem.device != "cuda":
        return None
    return totals(problem, passes=((1, 1),) * need_x + ((2, 0),) * need_taps, prepared=need_x + need_taps)


def totals(problem: Problem, passes: tuple[tuple[int, int], ...], prepared: int) -> tuple[float, ...]:
    """The work of `passes`, each with a number of signals read and of signals written, and of `prepared` spectra.

    The framework's transform of a spectrum moves about 80 bytes per point, in a dozen launches.
    """
    frame, size = frame_of(problem), problem.dtype.itemsize
    rows = problem.batch * problem.in_channels
    signals = sum(reads + writes for reads, writes in passes)
    moved = rows * signals * problem.positions * size
    if frame.outer > 1:
        # a scale, the outer transform and its inverse; the middle pass reads all workspaces and writes those to merge
        half_points = rows * frame.points * 2 * operands(problem).itemsize
        moved += sum(reads for reads, _ in passes) * rows * problem.positions * size
        moved += sum(2 * reads + 2 * writes for reads, writes in passes) * half_points
    per_point = signals * (4 * frame.rows + 6 * frame.columns)
    if frame.outer > 1:
        per_point = signals * (4 * frame.outer + 6 * (frame.rows + frame.columns))
    launches = len(passes) * (4 if frame.outer > 1 else 1) + 12 * prepared
    operations = rows * frame.points * per_point * (1 if operands(problem) == torch.float16 else 6)
    return launches, moved + prepared * problem.in_channels * frame.points * 80, operations


MONARCH = Engine("monarch", run, adjoint, reject, work, adjoint_work, prepare, gated, half=True)
