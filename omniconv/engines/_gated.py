"""The convolution between two gates, y = after * C(before * x, k), as an operator: for engines that read and write the
gates in the pass of the convolution. It keeps its inputs alone, and computes what lies between them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from omniconv._precision import HALF
from omniconv._typing import Signal, Taps
from omniconv.engines._constant import prepared
from omniconv.engines._operator import (
    carry_out,
    convolution,
    exactly,
    gradients,
    loop_over_batch,
    plain,
    plan_of,
    tracked,
    transformed,
    whole,
    working,
)

Gate = Tensor | None
"""A factor of the signal's shape and dtype, or none."""


def gated_convolution(
    x: Signal, taps: Taps, before: Gate, after: Gate, causal: tuple[bool, ...], circular: tuple[bool, ...], engine: str
) -> Signal:
    """after * C(before * x, taps): in one pass where the engine has one, else in three; autograd keeps those."""
    gates, causal, circular = [gate for gate in (before, after) if gate is not None], tuple(causal), tuple(circular)
    arguments = (x, taps, before, after, causal, circular, engine)
    if not plain(x, taps, *gates):
        one_pass = x.device.type == "cuda" and not transformed()
        return gated_op(*arguments) if one_pass else gate_by_gate(*arguments)
    if plan_of(x, taps, causal, circular, engine).engine.gated is None:
        return gate_by_gate(*arguments)
    return GatedConvolve.apply(*arguments) if tracked(x, taps, *gates) else carry_out_gated(*arguments)


def gate_by_gate(
    x: Signal, taps: Taps, before: Gate, after: Gate, causal: tuple[bool, ...], circular: tuple[bool, ...], engine: str
) -> Signal:
    """The same with the framework's own multiplications."""
    y = convolution(x if before is None else before * x, taps, causal, circular, engine)
    return y if after is None else after * y


def carry_out_gated(
    x: Tensor, taps: Tensor, before: Gate, after: Gate, causal: Sequence[bool], circular: Sequence[bool], engine: str
) -> Tensor:
    """The engine's own pass, or the convolution between two multiplications."""
    plan = plan_of(x, taps, causal, circular, engine)
    chosen, problem, short = plan.engine, plan.problem, plan.short
    if chosen.gated is None or problem.batch == 0 or (x.dtype in HALF and not chosen.half):
        y = carry_out(x if before is None else before * x, taps, causal, circular, engine)
        return y if after is None else after * y
    with exactly(x):
        of_taps = prepared(taps, chosen, short, lambda: chosen.prepare(working(taps, problem), short))
        return whole(chosen.gated(x, of_taps, short, before, after), x.dtype)


@torch.library.custom_op("omniconv::gated_convolve", mutates_args=())
def gated_op(
    x: Tensor,
    taps: Tensor,
    before: Tensor | None,
    after: Tensor | None,
    causal: Sequence[bool],
    circular: Sequence[bool],
    engine: str,
) -> Tensor:
    """after * C(before * x, taps)."""
    return carry_out_gated(x, taps, before, after, causal, circular, engine)


@gated_op.register_fake
def _(
    x: Tensor,
    taps: Tensor,
    before: Tensor | None,
    after: Tensor | None,
    causal: Sequence[bool],
    circular: Sequence[bool],
    engine: str,
) -> Tensor:
    return x.new_empty(x.shape[0], taps.shape[0], *x.shape[2:])


def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, taps, before, after, ctx.causal, ctx.circular, ctx.engine = inputs
    ctx.save_for_backward(x, taps, before, after)


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, taps, before, after = ctx.saved_tensors
    need_x, need_taps, need_before, need_after = ctx.needs_input_grad[:4]
    how = (ctx.causal, ctx.circular, ctx.engine)
    u = x if before is None else before * x
    dx = dtaps = dbefore = dafter = None
    if need_after:
        dafter = grad * convolution(u, taps, *how)
    if need_x or need_before or need_taps:
        du, dtaps = gradients(grad if after is None else after * grad, u, taps, *how, need_x or need_before, need_taps)
        dx, dbefore = (du if before is None else before * du) if need_x else None, x * du if need_before else None
    return dx, (dtaps if need_taps else None), dbefore, dafter, None, None, None


gated_op.register_autograd(backward, setup_context=keep)
gated_op.register_vmap(loop_over_batch(gated_convolution, 4))


class GatedConvolve(torch.autograd.Function):
    """The same outside of compilers and transforms of functions."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """See `carry_out_gated`."""
        output = carry_out_gated(*inputs)
        keep(ctx, inputs, output)
        return output

    backward = staticmethod(backward)
