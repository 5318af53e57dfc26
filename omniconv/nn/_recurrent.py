"""A layer whose kernel is a state space, run as its recurrence."""

from __future__ import annotations

import torch
from torch import Tensor

from omniconv._typing import Signal
from omniconv.engines.recurrent import convolve_modes
from omniconv.kernels import Kernel, Modes
from omniconv.supports import Support


def refusal(kernel: Kernel, support: Support, mixing: str) -> str | None:
    """Why no recurrence computes what a layer of these does, as a clause; None if one does."""
    if kernel.causal != (True,):
        return f"it needs one causal axis, not {kernel.dim} with causal={kernel.causal}"
    if mixing == "dense":
        return 'it needs mixing "depthwise" or "separable", a kernel per channel'
    if kernel.recurrence() is None:
        return f"{type(kernel).__name__} is no sum of exponentials, as omniconv.kernels.Modal is"
    if not support.everywhere_one:
        return f"{type(support).__name__} weighs the kernel, as omniconv.supports.Full does not"
    return None


def engine_of_taps(engine: str) -> str:
    """The engine of a layer of taps beside one of that engine: a table is no recurrence."""
    return "auto" if engine == "recurrent" else engine


def convolve_recurrent(x: Signal, modes: Modes, weights: Tensor, step: float) -> Signal:
    """The convolution with the taps weights[j] k[j], j = 0 .. K - 1, of the kernel k with these modes.

    `weights`: quadrature weights, `step` but at the first two and the last two taps. The recurrence goes on beyond the
    last tap: on a longer signal what it adds there is taken away, which is the same recurrence K samples later.
    """
    length, count = x.shape[-1], len(weights)
    if length <= count and step == 1:
        return convolve_modes(x, modes.poles, modes.residues)
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    y = convolve_modes(exact, modes.poles, step * modes.residues)
    if length > count:
        later = convolve_modes(exact[..., :-count], modes.poles, step * modes.residues * modes.poles**count)
        y = y - delayed(later, count)
    for lag in sorted({0, 1, count - 2, count - 1} & set(range(min(count, length)))):
        tap = (modes.residues * modes.poles**lag if lag else modes.residues).sum(-1).real
        tap = (weights[lag] - step) * tap
        y = y + delayed(exact[..., : length - lag] * tap.to(exact.dtype)[:, None], lag)
    return y.to(x.dtype)


def delayed(x: Signal, samples: int) -> Signal:
    """The signal so many samples later, after silence."""
    return torch.nn.functional.pad(x, (samples, 0))
