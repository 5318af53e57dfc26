"""The convolution as an operator of the framework: autograd to any order, `torch.compile`, `vmap`, low precision.

The convolution y = C(x, k) is linear in both arguments. With the operator B(g, x, k) = (dx, dk) of its two gradients
the family is closed: a cotangent (hx, hk) of B gives C(hx, k) + C(x, hk) for g, and B(g, hx, hk) for (x, k). So two
operators have derivatives of every order, and keep nothing but their inputs.

The choice of the engine lies inside the operator, where sizes are known: a compiled model meets one node, and may
meet new lengths without compiling again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from omniconv._precision import HALF
from omniconv.engines._problem import Problem
from omniconv.engines._select import select_engine
from omniconv.engines._shorten import lengthen, shorten, shortened


@torch.library.custom_op("omniconv::convolve", mutates_args=())
def convolve_op(
    x: Tensor, taps: Tensor, causal: Sequence[bool], circular: Sequence[bool], engine: str, training: bool
) -> Tensor:
    """C(x, taps)."""
    problem = problem_of(x, taps, causal, circular, training)
    if problem.batch == 0:
        return x.new_empty(0, problem.out_channels, *problem.size)
    x_, taps_ = working_precision(x, taps)
    y = select_engine(problem, engine).run(x_, shorten(taps_, problem), shortened(problem))
    return y.to(x.dtype).contiguous()


@torch.library.custom_op("omniconv::convolve_adjoint", mutates_args=())
def adjoint_op(
    grad: Tensor,
    x: Tensor,
    taps: Tensor,
    causal: Sequence[bool],
    circular: Sequence[bool],
    engine: str,
    need_x: bool,
    need_taps: bool,
) -> tuple[Tensor, Tensor]:
    """B(grad, x, taps); what is not needed comes back empty."""
    problem = problem_of(x, taps, causal, circular, training=True)
    if problem.batch == 0:
        return torch.zeros_like(x if need_x else x.new_empty(0)), taps.new_zeros(taps.shape if need_taps else 0)
    grad_, x_, taps_ = working_precision(grad, x, taps)
    dx, dtaps = select_engine(problem, engine).adjoint(
        grad_, x_, shorten(taps_, problem), shortened(problem), need_x, need_taps
    )
    return (
        x.new_empty(0) if dx is None else dx.to(x.dtype).contiguous(),
        taps.new_empty(0) if dtaps is None else lengthen(dtaps, problem).to(taps.dtype).contiguous(),
    )


def problem_of(x: Tensor, taps: Tensor, causal: Sequence[bool], circular: Sequence[bool], training: bool) -> Problem:
    """The problem, from the operator's arguments."""
    boundary = tuple("circular" if periodic else "zero" for periodic in circular)
    return Problem.of(x, taps, causal=tuple(causal), boundary=boundary, training=training)


def working_precision(*tensors: Tensor) -> list[Tensor]:
    """Half-precision tensors in float32, in which sums over taps and spectra are exact enough; others as they are."""
    return [tensor.float() if tensor.dtype in HALF else tensor for tensor in tensors]


@convolve_op.register_fake
def _(x: Tensor, taps: Tensor, causal: Sequence[bool], circular: Sequence[bool], engine: str, training: bool) -> Tensor:
    return x.new_empty(x.shape[0], taps.shape[0], *x.shape[2:])


@adjoint_op.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    taps: Tensor,
    causal: Sequence[bool],
    circular: Sequence[bool],
    engine: str,
    need_x: bool,
    need_taps: bool,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape if need_x else 0), taps.new_empty(taps.shape if need_taps else 0)


def keep_convolve(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, taps, ctx.causal, ctx.circular, ctx.engine, _ = inputs
    ctx.save_for_backward(x, taps)


def backward_convolve(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, taps = ctx.saved_tensors
    need_x, need_taps = ctx.needs_input_grad[:2]
    dx, dtaps = adjoint_op(grad, x, taps, ctx.causal, ctx.circular, ctx.engine, need_x, need_taps)
    return (dx if need_x else None), (dtaps if need_taps else None), None, None, None, None


def keep_adjoint(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    grad, x, taps, ctx.causal, ctx.circular, ctx.engine, ctx.made_dx, ctx.made_dtaps = inputs
    ctx.save_for_backward(grad, x, taps)


def backward_adjoint(ctx: Any, hx: Tensor, hk: Tensor) -> tuple[Tensor | None, ...]:
    grad, x, taps = ctx.saved_tensors
    need_grad, need_x, need_taps = ctx.needs_input_grad[:3]
    how = (ctx.causal, ctx.circular, ctx.engine)
    dgrad: Tensor | None = None
    if need_grad and ctx.made_dx:
        dgrad = convolve_op(hx, taps, *how, True)
    if need_grad and ctx.made_dtaps:
        through_taps = convolve_op(x, hk, *how, True)
        dgrad = through_taps if dgrad is None else dgrad + through_taps
    # dx depends on (grad, taps) alone and dtaps on (grad, x): each cotangent feeds the other argument.
    want_x, want_taps = need_x and ctx.made_dtaps, need_taps and ctx.made_dx
    dx, dtaps = adjoint_op(grad, hx if ctx.made_dx else x, hk if ctx.made_dtaps else taps, *how, want_x, want_taps)
    return dgrad, (dx if want_x else None), (dtaps if want_taps else None), None, None, None, None, None


convolve_op.register_autograd(backward_convolve, setup_context=keep_convolve)
adjoint_op.register_autograd(backward_adjoint, setup_context=keep_adjoint)


def loop_over_batch(op: Any, tensors: int) -> Any:
    """A vmap rule that runs `op` once per element of the mapped axis; its first `tensors` arguments are tensors."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        mapped = list(zip(args[:tensors], in_dims[:tensors], strict=True))
        outputs = [
            op(*(arg if axis is None else arg.select(axis, i) for arg, axis in mapped), *args[tensors:])
            for i in range(info.batch_size)
        ]
        if isinstance(outputs[0], Tensor):
            return torch.stack(outputs), 0
        return tuple(torch.stack(parts) for parts in zip(*outputs, strict=True)), (0,) * len(outputs[0])

    return rule


def map_convolve(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
    """Signals mapped over one kernel are a larger batch; otherwise one kernel after the other."""
    (x, taps, *how), (x_axis, taps_axis, *_) = args, in_dims
    if taps_axis is None and x_axis is not None:
        x = x.movedim(x_axis, 0)
        return convolve_op(x.flatten(0, 1), taps, *how).unflatten(0, x.shape[:2]), 0
    return loop_over_batch(convolve_op, 2)(info, in_dims, *args)


convolve_op.register_vmap(map_convolve)
adjoint_op.register_vmap(loop_over_batch(adjoint_op, 3))
