"""Products with DFT matrices on tensor cores: the engine for images on graphics processors.

Half-precision signals are computed in float16, of which an image's largest magnitude sets the scale: the error is small
beside the largest products of spectra. A kernel that takes away nearly all of its signal, such as a Laplacian of images
whose mean is ten times their variation, leaves it at 2e-3 of the output instead of 7e-4.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._engine import Engine
from omniconv.engines._problem import Problem
from omniconv.engines._tensor_cores import refuse_machine

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LARGEST = 512
"""Samples per axis: beyond, products with whole DFT matrices take longer than fast transforms."""


def frame(problem: Problem) -> tuple[int, ...]:
    """Length of the transform per axis: the period of a circular axis, else room for the farthest lag; any will do."""
    axes = zip(problem.size, problem.kernel_size, problem.origin, problem.circular, strict=True)
    return tuple(n if circular else n + max(o, k - 1 - o) for n, k, o, circular in axes)


def fits(problem: Problem) -> bool:
    """Whether a program can hold an image from its first stage to its last, without memory in between."""
    return max(problem.size) <= (32 if problem.dtype == torch.float32 else 64)


def kernels(problem: Problem) -> ModuleType:
    """The kernels for images of this size: one program per few images, or one pass over memory per stage."""
    from omniconv.engines.triton import monarch2d, monarch2d_passes

    return monarch2d if fits(problem) else monarch2d_passes


def prepare(taps: Taps, problem: Problem) -> Tensor:
    """Half spectra of the taps, scaled; in the order in which the kernels read them."""
    return kernels(problem).prepare(taps, problem, frame(problem))


def run(x: Signal, prepared: Tensor, problem: Problem) -> Signal:
    """y = F^-1(F x * F taps)."""
    return gated(x, prepared, problem, None, None)


def gated(x: Signal, prepared: Tensor, problem: Problem, before: Tensor | None, after: Tensor | None) -> Signal:
    """after * F^-1(F(before * x) * F taps), the gates applied as signals are read and written."""
    return kernels(problem).run(x, prepared, problem, frame(problem), before=before, after=after)


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dx = F^-1(F grad * conj F taps);  dtaps = F^-1(sum of F grad * conj F x over the batch), at the taps' lags."""
    lengths, passes = frame(problem), kernels(problem)
    dx = passes.run(grad, prepare(taps, problem), problem, lengths, conjugate=True) if need_x else None
    dtaps = passes.taps_gradient(grad, x, problem, lengths) if need_taps else None
    return dx, dtaps


def reject(problem: Problem) -> str | None:
    """A reason, as a clause, where the device, the layout, the dtype or the size is not one of this engine's."""
    if (reason := refuse_machine(problem.device)) is not None:
        return reason
    if problem.dim != 2:
        return f"the signal has {problem.dim} {'axis' if problem.dim == 1 else 'axes'}; it needs images, of two"
    if not problem.depthwise:
        return "the taps mix channels; it needs a kernel of its own for every channel"
    if problem.dtype not in DTYPES:
        return f"the signal is of {problem.dtype}; it needs float32, float16 or bfloat16"
    if max(problem.size) > LARGEST:
        return f"the images are of {tuple(problem.size)} samples; it needs at most {LARGEST} per axis"
    return None


def work(problem: Problem) -> tuple[float, ...] | None:
    """Launches, bytes moved and flops on tensor cores; None on a CPU, where it is never chosen.

    float32 products count six times: they take three tf32 products at half the rate.
    """
    if problem.device != "cuda":
        return None
    number = 4 if problem.dtype == torch.float32 else 2
    images, channels = problem.batch * problem.in_channels, problem.in_channels
    (h, w), (k_h, k_w), (j, f) = tiled(problem), problem.kernel_size, frequencies(problem)
    flops = 2 * images * (4 * h * w * j + 8 * h * j * f) + channels * (4 * k_h * k_w * j + 8 * k_h * j * f)
    moved = 2 * images * problem.positions * number + channels * (4 * problem.tap_count + 4 * j * f * number)
    launches = 2
    if not fits(problem):
        moved += images * 4 * j * (2 * h + f) * number  # R, P and Q, written and read
        launches = 10 + 6 * -(-images * 2 * j * (h + f) * number // 2**26)
    return launches, moved, flops * (6 if number == 4 else 1)


def adjoint_work(problem: Problem, need_x: bool, need_taps: bool) -> tuple[float, ...] | None:
    """As for `work`: each gradient takes as many transforms and as much memory as the convolution."""
    amounts = work(problem)
    return None if amounts is None else tuple((need_x + need_taps) * amount for amount in amounts)


def tiled(problem: Problem) -> tuple[int, ...]:
    """Samples per axis as the kernels see them: powers of two in a program, else multiples of 32."""
    return tuple(max(16, 1 << (n - 1).bit_length()) if fits(problem) else -(-n // 32) * 32 for n in problem.size)


def frequencies(problem: Problem) -> tuple[int, int]:
    """Frequencies along rows and down columns as the kernels see them."""
    n_h, n_w = frame(problem)
    half = n_w // 2 + 1
    return max(16, 1 << (half - 1).bit_length()) if fits(problem) else -(-half // 32) * 32, -(-n_h // 32) * 32


MONARCH2D = Engine("monarch2d", run, adjoint, reject, work, adjoint_work, prepare=prepare, gated=gated, half=True)
