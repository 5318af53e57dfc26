"""The convolution as an operator of the framework: autograd to any order, `torch.compile`, `vmap`, low precision.

The convolution y = C(x, k) is linear in both arguments. With the operator B(g, x, k) = (dx, dk) of its two gradients
the family is closed: a cotangent (hx, hk) of B gives C(hx, k) + C(x, hk) for g, and B(g, hx, hk) for (x, k). So two
operators have derivatives of every order, and keep nothing but their inputs.

The choice of the engine lies inside the operator, where sizes are known: a compiled model meets one node, and may
meet new lengths without compiling again. Outside of compilers the same functions are called without the framework's
dispatch of operators, which takes longer than a short convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._C import (
    _are_functorch_transforms_active,
    _current_graph_task_id,
    _dispatch_tls_is_dispatch_key_included,
    _is_any_autocast_enabled,
    _is_tracing,
    _parse_dispatch_key,
)
from torch.autograd import forward_ad
from torch.compiler import is_compiling, is_dynamo_compiling

from omniconv._precision import HALF
from omniconv.engines._constant import CONSTANT, prepared
from omniconv.engines._engine import Engine
from omniconv.engines._owned import owned
from omniconv.engines._plan import Plan, plan_of_shapes, remembered_plan
from omniconv.engines._problem import PLAIN, Problem
from omniconv.engines._shorten import lengthen, shorten

VMAP: Any = _parse_dispatch_key("VmapMode")
"""What is on while the framework maps over a batch of cotangents, which only its own dispatch takes apart."""


def convolution(x: Tensor, taps: Tensor, causal: tuple[bool, ...], circular: tuple[bool, ...], engine: str) -> Tensor:
    """C(x, taps), by the shortest way that keeps track of what the framework has to know."""
    if not plain(x, taps):
        check_reverse_mode(x, taps)
        call = TransformedConvolve.apply if transformed() else convolve_op
        return call(x, taps, causal, circular, engine)
    return convolution_plan(x, taps, plan_of(x, taps, causal, circular, engine))


def convolution_plan(x: Tensor, taps: Tensor, plan: Plan) -> Tensor:
    """The same of plain tensors whose plan is known."""
    if torch.is_grad_enabled() and (x.requires_grad or taps.requires_grad):
        if plan.differentiable is not None and not _is_any_autocast_enabled():
            return plan.differentiable(x, taps)
        return Convolve.apply(x, taps, plan)
    return carry_out_plan(x, taps, plan)


def gradients(
    grad: Tensor,
    x: Tensor,
    taps: Tensor,
    causal: tuple[bool, ...],
    circular: tuple[bool, ...],
    engine: str,
    need_x: bool,
    need_taps: bool,
) -> tuple[Tensor, Tensor]:
    """B(grad, x, taps), likewise; what is not needed comes back empty."""
    arguments = (grad, x, taps, causal, circular, engine, need_x, need_taps)
    if not plain(grad, x, taps):
        check_reverse_mode(grad, x, taps)
        return TransformedAdjoint.apply(*arguments) if transformed() else adjoint_op(*arguments)
    return Adjoint.apply(*arguments) if tracked(grad, x, taps) else carry_out_adjoint(*arguments)


def plain(*tensors: Tensor) -> bool:
    """Whether these are real tensors outside of compilation, tracing, transforms of functions and forward-mode
    derivatives: no stand-ins, no batch of cotangents.

    Asked at every convolution, when the processor has long forgotten what it reads: the shortest questions first, and
    compilers other than the one that reads Python are told by their stand-ins for tensors.
    """
    if is_dynamo_compiling() or _is_tracing() or _are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    if _current_graph_task_id() >= 0 and _dispatch_tls_is_dispatch_key_included(VMAP):  # cotangents: in backward alone
        return False
    for tensor in tensors:  # noqa: SIM110, a generator takes longer
        if type(tensor) not in PLAIN:
            return False
    return True


def transformed() -> bool:
    """Whether functions are transformed, as by `torch.func.grad`, outside of compilers: the framework does not let its
    custom operators have derivatives there.
    """
    watched = is_compiling() or _is_tracing()
    return _are_functorch_transforms_active() and not watched


def check_reverse_mode(*operands: object) -> None:
    """Raise `NotImplementedError` for tensors that carry a tangent, which the framework's operators would drop."""
    if forward_ad._current_level < 0 or is_compiling():
        return
    if any(isinstance(operand, Tensor) and has_tangent(operand) for operand in operands):
        raise NotImplementedError(
            "convolutions have no forward-mode derivatives: the framework's custom operators drop tangents. Use "
            "reverse mode (torch.autograd.grad, torch.autograd.functional.jacobian) instead of jvp and jacfwd."
        )


def has_tangent(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a dual number of forward-mode differentiation."""
    return forward_ad.unpack_dual(tensor).tangent is not None


def tracked(*tensors: Tensor) -> bool:
    """Whether the framework must see the operation, for gradients."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def carry_out(x: Tensor, taps: Tensor, causal: Sequence[bool], circular: Sequence[bool], engine: str) -> Tensor:
    """C(x, taps): the engine's result in the dtype of x."""
    return carry_out_plan(x, taps, plan_of(x, taps, causal, circular, engine))


def carry_out_plan(x: Tensor, taps: Tensor, plan: Plan) -> Tensor:
    """The same where the plan is known."""
    if plan.launch is not None and not CONSTANT.data and not _is_any_autocast_enabled():
        return plan.launch(x, taps)
    if plan.problem.batch == 0:
        return x.new_empty(0, plan.problem.out_channels, *plan.problem.size)
    if as_it_is(x):
        return run(x, taps, plan)
    with exactly(x):
        return run(x, taps, plan)


def run(x: Tensor, taps: Tensor, plan: Plan) -> Tensor:
    """The engine's result, without regard to where it runs."""
    chosen, problem, short = plan.engine, plan.problem, plan.short
    if CONSTANT.data:
        of_taps = prepared(taps, chosen, short, lambda: chosen.prepare(working(taps, problem), short))
    else:
        of_taps = chosen.prepare(working(taps, problem), short)
    return whole(chosen.run(working_signal(chosen, x), of_taps, short), x.dtype)


def carry_out_adjoint(
    grad: Tensor,
    x: Tensor,
    taps: Tensor,
    causal: Sequence[bool],
    circular: Sequence[bool],
    engine: str,
    need_x: bool,
    need_taps: bool,
) -> tuple[Tensor, Tensor]:
    """B(grad, x, taps), each gradient in the dtype of its argument; what is not needed comes back empty."""
    return carry_out_adjoint_plan(grad, x, taps, plan_of(x, taps, causal, circular, engine), need_x, need_taps)


def carry_out_adjoint_plan(
    grad: Tensor, x: Tensor, taps: Tensor, plan: Plan, need_x: bool, need_taps: bool
) -> tuple[Tensor, Tensor]:
    """The same where the plan is known."""
    if plan.problem.batch == 0 or not (need_x or need_taps):
        return torch.zeros_like(x if need_x else x.new_empty(0)), taps.new_zeros(taps.shape if need_taps else 0)
    if as_it_is(x):
        return run_adjoint(grad, x, taps, plan, need_x, need_taps)
    with exactly(x):
        return run_adjoint(grad, x, taps, plan, need_x, need_taps)


def run_adjoint(
    grad: Tensor, x: Tensor, taps: Tensor, plan: Plan, need_x: bool, need_taps: bool
) -> tuple[Tensor, Tensor]:
    """The engines' gradients, without regard to where they run."""
    dx = dtaps = None
    kernel = working(taps, plan.problem)
    for chosen, for_x, for_taps in plan.adjoints(need_x, need_taps):
        signals = working_signal(chosen, grad), working_signal(chosen, x)
        made = chosen.adjoint(*signals, kernel, plan.short, for_x, for_taps)
        dx, dtaps = dx if made[0] is None else made[0], dtaps if made[1] is None else made[1]
    return (
        x.new_empty(0) if dx is None else whole(dx, x.dtype),
        taps.new_empty(0) if dtaps is None else whole(lengthen(dtaps, plan.problem), taps.dtype),
    )


def plan_of(x: Tensor, taps: Tensor, causal: Sequence[bool], circular: Sequence[bool], engine: str) -> Plan:
    """The plan for operands that were checked before."""
    make = remembered_plan if type(x) in PLAIN else plan_of_shapes  # symbols cannot be remembered
    return make(x.shape, taps.shape, x.dtype, x.device.type, tuple(causal), tuple(circular), engine)


def working(taps: Tensor, problem: Problem) -> Tensor:
    """The taps as engines take them: as short as matters, in float32 at least."""
    return shorten(taps.float() if taps.dtype in HALF else taps, problem)


def working_signal(engine: Engine, x: Tensor) -> Tensor:
    """The signal as the engine takes it: sums over taps and spectra in half precision are not exact enough."""
    return x.float() if x.dtype in HALF and not engine.half else x


def as_it_is(x: Tensor) -> bool:
    """Whether engines may run as they are, on a CPU without autocast, were it that of another device."""
    return x.is_cpu and not _is_any_autocast_enabled()


def exactly(x: Tensor) -> AbstractContextManager[object]:
    """Where engines run: without autocast, which would round the operands of the framework's own convolution, and on
    the graphics processor where the signal is.
    """
    device = x.device.type
    if device == "cuda":
        return on_its_processor(x)
    available = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if available else nullcontext()


@contextmanager
def on_its_processor(x: Tensor) -> Iterator[None]:
    """The same on a graphics processor."""
    with torch.cuda.device_of(x), torch.autocast("cuda", enabled=False):
        yield


def whole(y: Tensor, dtype: torch.dtype) -> Tensor:
    """The result in its dtype, contiguous, and not a view."""
    return owned(y if y.dtype == dtype else y.to(dtype))


@torch.library.custom_op("omniconv::convolve", mutates_args=())
def convolve_op(x: Tensor, taps: Tensor, causal: Sequence[bool], circular: Sequence[bool], engine: str) -> Tensor:
    """C(x, taps)."""
    return carry_out(x, taps, causal, circular, engine)


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
    return carry_out_adjoint(grad, x, taps, causal, circular, engine, need_x, need_taps)


@convolve_op.register_fake
def _(x: Tensor, taps: Tensor, causal: Sequence[bool], circular: Sequence[bool], engine: str) -> Tensor:
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
    x, taps, ctx.causal, ctx.circular, ctx.engine = inputs
    ctx.save_for_backward(x, taps)


def backward_convolve(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, taps = ctx.saved_tensors
    need_x, need_taps = ctx.needs_input_grad[:2]
    dx, dtaps = gradients(grad, x, taps, ctx.causal, ctx.circular, ctx.engine, need_x, need_taps)
    return (dx if need_x else None), (dtaps if need_taps else None), None, None, None


def keep_adjoint(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    grad, x, taps, ctx.causal, ctx.circular, ctx.engine, ctx.made_dx, ctx.made_dtaps = inputs
    ctx.save_for_backward(grad, x, taps)


def backward_adjoint(ctx: Any, hx: Tensor, hk: Tensor) -> tuple[Tensor | None, ...]:
    grad, x, taps = ctx.saved_tensors
    need_grad, need_x, need_taps = ctx.needs_input_grad[:3]
    how = (ctx.causal, ctx.circular, ctx.engine)
    dgrad: Tensor | None = None
    if need_grad and ctx.made_dx:
        dgrad = convolution(hx, taps, *how)
    if need_grad and ctx.made_dtaps:
        through_taps = convolution(x, hk, *how)
        dgrad = through_taps if dgrad is None else dgrad + through_taps
    # dx depends on (grad, taps) alone and dtaps on (grad, x): each cotangent feeds the other argument.
    want_x, want_taps = need_x and ctx.made_dtaps, need_taps and ctx.made_dx
    dx, dtaps = gradients(grad, hx if ctx.made_dx else x, hk if ctx.made_dtaps else taps, *how, want_x, want_taps)
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
        return convolution(x.flatten(0, 1), taps, *how).unflatten(0, x.shape[:2]), 0
    return loop_over_batch(convolution, 2)(info, in_dims, *args)


convolve_op.register_vmap(map_convolve)
adjoint_op.register_vmap(loop_over_batch(gradients, 3))


class Convolve(torch.autograd.Function):
    """C outside of compilers and transforms of functions, with the plan at hand in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, plan: Plan) -> Tensor:
        """See `carry_out_plan`. Without a `setup_context` of its own, which the framework looks up at every call."""
        ctx.plan = plan
        ctx.save_for_backward(x, taps)
        return carry_out_plan(x, taps, plan)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """See `gradients`: the cotangent may be one of derivatives of higher order, or one of a batch."""
        x, taps = ctx.saved_tensors
        need_x, need_taps = ctx.needs_input_grad[:2]
        plan: Plan = ctx.plan
        if torch.is_grad_enabled() or not plain(grad, x, taps):
            how = plan.problem.causal, plan.problem.circular, plan.asked
            dx, dtaps = gradients(grad, x, taps, *how, need_x, need_taps)
        else:
            dx, dtaps = carry_out_adjoint_plan(grad, x, taps, plan, need_x, need_taps)
        return (dx if need_x else None), (dtaps if need_taps else None), None


class Adjoint(torch.autograd.Function):
    """B outside of compilers and transforms of functions."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        """See `carry_out_adjoint`, and `Convolve.forward`."""
        output = carry_out_adjoint(*inputs)
        keep_adjoint(ctx, inputs, output)
        return output

    backward = staticmethod(backward_adjoint)


class TransformedConvolve(torch.autograd.Function):
    """C under transforms of functions."""

    forward = staticmethod(carry_out)
    setup_context = staticmethod(keep_convolve)
    backward = staticmethod(backward_convolve)
    vmap = staticmethod(map_convolve)


class TransformedAdjoint(torch.autograd.Function):
    """B under transforms of functions."""

    forward = staticmethod(carry_out_adjoint)
    setup_context = staticmethod(keep_adjoint)
    backward = staticmethod(backward_adjoint)
    vmap = staticmethod(loop_over_batch(gradients, 3))
