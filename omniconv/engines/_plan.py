"""What a convolution looks up once for all operands of the same shapes.

Between two convolutions the processor's caches are full of samples, and every object that Python meets comes from
memory: a look-up less is microseconds less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch

from omniconv._errors import check_floating_tensor
from omniconv._precision import HALF
from omniconv._typing import PerAxis
from omniconv.engines._costs import rates
from omniconv.engines._engine import Engine, Launch
from omniconv.engines._problem import Problem, checked_directions, problem_of_shapes
from omniconv.engines._select import check_engine_name, select_adjoint, select_engine
from omniconv.engines._shorten import is_short, shortened

Adjoints = tuple[tuple[Engine, bool, bool], ...]
"""Engines of the gradients, with whether each makes that of the signal and that of the taps."""


@dataclass(frozen=True)
class Plan:
    """A convolution of operands of known shapes: the problem, the same as engines meet it, and the engine.

    `asked`: the engine's name, or "auto". `launch`: all of it in one function, for plain tensors on a CPU without
    gradients and without autocast. `differentiable`: the same with gradients. Either None where engines are called step
    by step.
    `known`: engines of gradients that were asked for before, by what was needed.
    """

    problem: Problem
    short: Problem
    engine: Engine
    asked: str
    launch: Launch | None = field(default=None, compare=False)
    differentiable: Launch | None = field(default=None, compare=False)
    known: dict[tuple[bool, bool], Adjoints] = field(default_factory=dict, repr=False, compare=False)

    def adjoints(self, need_x: bool, need_taps: bool) -> Adjoints:
        """The engines of the gradients that are needed."""
        found = self.known.get((need_x, need_taps))
        if found is None:
            of_x, of_taps = select_adjoint(self.problem, self.asked, need_x, need_taps)
            apart = ((of_x, True, False), (of_taps, False, True))
            found = self.known[need_x, need_taps] = ((of_x, need_x, need_taps),) if of_x is of_taps else apart
        return found


def plan_of_shapes(
    x: Sequence[int],
    taps: Sequence[int],
    dtype: torch.dtype,
    device: str,
    causal: tuple[bool, ...],
    circular: tuple[bool, ...],
    engine: str,
) -> Plan:
    """The plan for operands of these shapes, which were checked before."""
    boundary = tuple("circular" if periodic else "zero" for periodic in circular)
    problem = problem_of_shapes(x, taps, causal, boundary, dtype, device, False)
    plan = Plan(problem, shortened(problem), select_engine(problem, engine), engine)
    return with_launches(plan) if is_short(problem) and problem.batch and dtype not in HALF else plan


def with_launches(plan: Plan) -> Plan:
    """The plan with the functions that its engine has for it: with gradients only if it is to make them as well."""
    if plan.problem.device != "cpu":
        return plan
    alone = all(engine is plan.engine for engine, *_ in plan.adjoints(True, True))
    return replace(
        plan,
        launch=plan.engine.bound(plan.problem),
        differentiable=plan.engine.differentiable(plan.problem) if alone else None,
    )


remembered_plan = lru_cache(maxsize=4096)(plan_of_shapes)


@lru_cache(maxsize=4096)  # the types of what is compared were asked before: True is not 1 here
def remembered_call(
    x: Sequence[int],
    taps: Sequence[int],
    x_dtype: torch.dtype,
    taps_dtype: torch.dtype,
    x_device: torch.device,
    taps_device: torch.device,
    causal: PerAxis[bool],
    boundary: PerAxis[str],
    engine: str,
) -> Plan:
    """The plan of a call, after all checks of `convolve`."""
    check_engine_name(engine)
    check_floating_tensor("x", torch.empty(x, dtype=x_dtype, device="meta"))
    check_floating_tensor("taps", torch.empty(taps, dtype=taps_dtype, device="meta"))
    past, edges = checked_directions(x, taps, x_dtype, taps_dtype, x_device, taps_device, causal, boundary)
    circular = tuple(edge == "circular" for edge in edges)
    return remembered_plan(x, taps, x_dtype, x_device.type, past, circular, engine)


def forget_plans() -> None:
    """Forget all choices of engines, and the rates they were made by: rates or engines have changed."""
    for known in (remembered_call, remembered_plan, select_engine, select_adjoint, rates):
        known.cache_clear()
