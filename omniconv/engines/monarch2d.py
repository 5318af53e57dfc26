"""Products with DFT matrices on tensor cores: the engine for images on graphics processors."""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType

import torch
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._engine import Engine
from omniconv.engines._problem import Problem

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def frame(problem: Problem) -> tuple[int, ...]:
    """Length of the transform per axis: the period of a circular axis, else room for the farthest lag. Any length will do."""
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
    """dx = F^-1(F grad * conj F taps);  dtaps = F^-1(sum over the batch of F grad * conj F x), at the lags of the taps."""
    lengths, passes = frame(problem), kernels(problem)
    dx = passes.run(grad, prepare(taps, problem), problem, lengths, conjugate=True) if need_x else None
    dtaps = passes.taps_gradient(grad, x, problem, lengths) if need_taps else None
    return dx, dtaps


def reject(problem: Problem) -> str | None:
    """A reason, as a clause, where the device, the dtype, the layout or the size is not one of this engine's."""
    interpreted = problem.device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if problem.device != "cuda" and not interpreted:
        return f"the device is {problem.device}; it needs a CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; `pip install omniconv[gpu]`"
    if problem.dim != 2:
        return f"the signal has {problem.dim} axes; it convolves images, of two"
    if not problem.depthwise:
        return "the taps mix channels; it is depthwise"
    if problem.dtype not in DTYPES:
        return f"the signal is of {problem.dtype}; it takes float32, float16 and bfloat16"
    return None


def cost(problem: Problem) -> float:
    return float("inf")


def adjoint_cost(problem: Problem, need_x: bool, need_taps: bool) -> float:
    return float("inf")


MONARCH2D = Engine("monarch2d", run, adjoint, reject, cost, adjoint_cost, prepare=prepare, gated=gated, half=True)
