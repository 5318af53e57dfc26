"""The one function of this folder that users call."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

from omniconv._typing import PerAxis, Signal, Taps
from omniconv.engines._operator import convolve_op
from omniconv.engines._problem import Problem
from omniconv.engines._select import check_engine_name


def convolve(
    x: Signal,
    taps: Taps,
    *,
    causal: PerAxis[bool] = False,
    boundary: PerAxis[str] = "zero",
    engine: str = "auto",
) -> Signal:
    """Convolution of signals with taps, of the signals' size: y[t] = sum_s taps[s] x[t + origin - s].

    `x`: (batch, channels, *size), one to three axes.
    `taps`: (channels, *kernel) for a kernel per channel, or (out, in, *kernel) to mix channels. Any size, even or odd,
    shorter or longer than the signal. The zero lag is `taps[0]` on a causal axis, else `taps[K // 2]`.
    `causal`: whether the kernel looks at the past only, one or one per axis.
    `boundary`: "zero" (silence beyond the edges) or "circular" (periodic), one or one per axis.
    `engine`: "auto" takes the fastest by prediction; a name takes that engine or raises.

    Returns a tensor of the dtype of `x`. This is a convolution: it reverses the taps against
    `torch.nn.functional.conv1d`, which correlates. Raises `TypeError` for tensors of integers or of differing dtypes,
    `ValueError` for shapes that do not fit, a causal circular axis, or an engine that cannot run the problem.

    >>> import torch
    >>> x = torch.tensor([[[1.0, 0.0, 0.0, 2.0]]])
    >>> convolve(x, torch.tensor([[1.0, 2.0, 3.0]]), causal=True, engine="direct").tolist()
    [[[1.0, 2.0, 3.0, 2.0]]]
    """
    check_engine_name(engine)
    check_reverse_mode(x, taps)
    problem = Problem.of(x, taps, causal=causal, boundary=boundary)
    return convolve_op(x, taps, problem.causal, problem.circular, engine, problem.training)


def check_reverse_mode(*operands: object) -> None:
    """Raise `NotImplementedError` for tensors that carry a tangent, which the framework's operators would drop."""
    for operand in operands:
        if isinstance(operand, torch.Tensor) and not torch.compiler.is_compiling() and has_tangent(operand):
            raise NotImplementedError(
                "`convolve` has no forward-mode derivatives: the framework's custom operators drop tangents. Use "
                "reverse mode (torch.autograd.grad, torch.autograd.functional.jacobian) instead of jvp and jacfwd."
            )


def has_tangent(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a dual number of forward-mode differentiation."""
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None
