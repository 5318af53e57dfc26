"""Products of spectra, a short stretch of the signal at a time: the engine for kernels much shorter than a long signal.

A stretch of m + K - 1 samples, each K - 1 of which overlap the one before, gives m outputs; the K - 1 that wrap around
are thrown away. Transforms of a few thousand samples stay in cache, and cost less per sample than one of the whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._blocks import beyond_cache, blocks
from omniconv.engines._engine import Engine
from omniconv.engines._extend import Margin, extend, margins, reversed_margins
from omniconv.engines._problem import Problem
from omniconv.engines.fft import BLOCK, levels


def prepare(taps: Taps, problem: Problem) -> Tensor:
    """The taps' spectrum, `channels 1 frequencies`."""
    return torch.fft.rfft(taps, n=frame(problem))[:, None]


def run(x: Signal, spectrum_taps: Tensor, problem: Problem) -> Signal:
    """Of every stretch the outputs that did not wrap around."""
    y = x.new_empty(problem.batch, problem.out_channels, *problem.size)
    for batch, channels in blocks(problem, covered(problem), BLOCK, multiple=1):
        stretches = cut(x[batch, channels], margins(problem), problem)
        y[batch, channels] = joined(torch.fft.rfft(stretches), spectrum_taps[channels], problem)
    return y


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dx = grad convolved with the reversed taps;  dtaps[s] = the correlation at K - 1 - s of m samples of grad with
    the stretch of x, summed over the stretches.
    """
    dx = torch.empty_like(x, memory_format=torch.contiguous_format) if need_x else None
    backwards = prepare(taps.flip(-1), problem) if need_x else None
    total = x.new_zeros(problem.in_channels, frame(problem) // 2 + 1, dtype=x.dtype.to_complex()) if need_taps else None
    for batch, channels in blocks(problem, covered(problem), BLOCK, multiple=1):
        if dx is not None and backwards is not None:
            stretches = torch.fft.rfft(cut(grad[batch, channels], reversed_margins(problem), problem))
            dx[batch, channels] = joined(stretches, backwards[channels], problem)
        if total is not None:
            spectrum_x = torch.fft.rfft(cut(x[batch, channels], margins(problem), problem))
            samples = F.pad(grad[batch, channels], (0, short(problem))).unflatten(-1, (-1, step(problem)))
            spectrum_grad = torch.fft.rfft(samples, n=frame(problem)).conj_physical_()
            total[channels] += spectrum_x.mul_(spectrum_grad).sum((0, 2))
    if total is None:
        return dx, None
    return dx, torch.fft.irfft(total, n=frame(problem))[:, : problem.kernel_size[0]].flip(-1)


def cut(x: Signal, margin: Margin, problem: Problem) -> Tensor:
    """The stretches, `batch channels stretches frame`: a view."""
    return F.pad(extend(x, margin, problem), (0, short(problem))).unfold(-1, frame(problem), step(problem))


def joined(spectrum_x: Tensor, spectrum_taps: Tensor, problem: Problem) -> Signal:
    """The outputs of all stretches, one after the other; `spectrum_x` is overwritten."""
    outputs = torch.fft.irfft(spectrum_x.mul_(spectrum_taps), n=frame(problem))
    return outputs[..., problem.kernel_size[0] - 1 :].flatten(-2)[..., : problem.size[0]]


def frame(problem: Problem) -> int:
    """Samples of a stretch: a power of two, of at least four times the taps."""
    return max(1024, 1 << (4 * problem.kernel_size[0] - 1).bit_length())


def step(problem: Problem) -> int:
    """Outputs of a stretch."""
    return frame(problem) - problem.kernel_size[0] + 1


def short(problem: Problem) -> int:
    """Samples that the signal lacks for whole stretches."""
    return -problem.size[0] % step(problem)


def covered(problem: Problem) -> int:
    """Samples of all stretches of a channel."""
    return -(-problem.size[0] // step(problem)) * frame(problem)


def reject(problem: Problem) -> str | None:
    """More axes than one, and taps that mix channels."""
    if problem.dim > 1:
        return f"it cuts signals of one axis into stretches, and this one has {problem.dim}"
    return None if problem.depthwise else "the taps mix channels"


def work(problem: Problem) -> tuple[float, ...]:
    """See `transforms`: all stretches there and back."""
    return transforms(problem, 1, 0)


def adjoint_work(problem: Problem, need_x: bool, need_taps: bool) -> tuple[float, ...]:
    """See `transforms`: there and back for the gradient of the signal, both factors there for that of the taps."""
    return transforms(problem, int(need_x), int(need_taps))


def transforms(problem: Problem, signals: int, correlations: int) -> tuple[float, ...]:
    """Units of work: calls, further blocks, butterflies, samples and those beyond the cache; and of the correlations
    calls, butterflies and samples.

    `signals`: convolutions, `correlations`: gradients of taps, each of two transforms of all stretches.
    """
    n = frame(problem)
    samples = 2.0 * problem.pairs * covered(problem) + problem.in_channels * n
    calls, butterflies = len(blocks(problem, covered(problem), BLOCK, multiple=1)) - 1, samples * levels(n) / 2
    there = signals * butterflies, signals * samples, beyond_cache(problem, signals * samples)
    back = correlations, correlations * butterflies, correlations * samples
    return signals, (signals + correlations) * calls, *there, *back


OVERLAP_SAVE = Engine("overlap_save", run, adjoint, reject, work, adjoint_work, prepare=prepare)
