"""The laws of engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from omniconv._precision import HALF
from omniconv.engines import Engine, Problem
from omniconv.engines._shorten import shorten, shortened
from omniconv.engines.reference import REFERENCE
from omniconv.testing._tolerances import TENSOR_CORES, TOLERANCE, assert_close, expect

SIZES = ((1, 1), (2, 3), (7, 3), (8, 4), (5, 8), (6, 9), (4, 12))
"""(signal, kernel) lengths: odd and even, kernel shorter and longer than the signal."""


def check_engine(engine: Engine, *, dims: tuple[int, ...] = (1, 2, 3)) -> None:
    """Raise `AssertionError` unless `engine` computes what the definition says, wherever it does not refuse.

    Values and both gradients against the reference engine in float64, in float32 and float64, in every dimension;
    causal, zero and circular, mixed per axis too; depthwise and dense; odd and even sizes; kernels shorter and longer
    than the signal. It must leave its inputs alone, state its work, and say where that is a product for every tap and
    sample. One that takes half precision is checked in it
    too. What it binds to a problem must be the same convolution, and with gradients keep nothing but its inputs.

    >>> from omniconv.engines import ENGINES
    >>> check_engine(ENGINES["direct"], dims=(1,))
    """
    able = [problem for problem in problems(dims, engine.half) if engine.reject(problem) is None]
    expect(bool(able), f"{engine.name} refuses every problem")
    for problem in able:
        check_problem(engine, problem)
    check_sums(engine, able[0])


def problems(dims: tuple[int, ...], half: bool = False) -> Iterator[Problem]:
    """Small problems that cover the options, kernels already as short as an engine sees them; `half`: some in half
    precision too.
    """
    dtypes = [*product(SIZES, (torch.float32, torch.float64)), *(product(SIZES[3:5], HALF) if half else ())]
    for dim in dims:
        sides = [("zero", False), ("zero", True), ("circular", False)]
        layouts = [(side,) * dim for side in sides] + ([(sides[1], *sides[2:], sides[0])[:dim]] if dim > 1 else [])
        for layout, depthwise, ((n, k), dtype) in product(layouts, (True, False), dtypes):
            yield shortened(
                Problem(
                    batch=2,
                    in_channels=3,
                    out_channels=3 if depthwise else 2,
                    depthwise=depthwise,
                    # Axes of different lengths: an engine that mixes them up must fail.
                    size=tuple(n + axis for axis in range(dim)),
                    kernel_size=tuple(max(1, k - axis) for axis in range(dim)),
                    causal=tuple(causal for _, causal in layout),
                    boundary=tuple(boundary for boundary, _ in layout),
                    dtype=dtype,
                    device="cpu",
                    training=True,
                )
            )


def check_problem(engine: Engine, problem: Problem) -> None:
    """One problem: values, gradients, untouched inputs, a cost."""
    x, taps, grad = operands(problem)
    copies = [operand.clone() for operand in (x, taps, grad)]
    results = (
        engine.run(x, engine.prepare(taps, problem), problem),
        *engine.adjoint(grad, x, taps, problem, True, True),
    )
    untouched = all(torch.equal(operand, copy) for operand, copy in zip((x, taps, grad), copies, strict=True))
    expect(untouched, f"{engine.name} changed an input of {problem}")
    exact = [operand.double() for operand in (x, taps, grad)]
    expected = (
        REFERENCE.run(exact[0], exact[1], problem),
        *REFERENCE.adjoint(exact[2], exact[0], exact[1], problem, True, True),
    )
    for what, like, actual, right in zip(("output", "dx", "dtaps"), (x, x, taps), results, expected, strict=True):
        if actual is None or right is None:
            raise AssertionError(f"{engine.name}: {what} is missing for {problem}")
        expect(actual.dtype == like.dtype, f"{engine.name}: {what} has dtype {actual.dtype} for {x.dtype} operands")
        limit = tolerance(engine, torch.float16 if like is taps and x.dtype in HALF else x.dtype)
        assert_close(actual, right, f"{engine.name}: {what} of {problem}", limit)
    for needs in ((True, False), (False, True), (False, False)):
        alone = engine.adjoint(grad, x, taps, problem, *needs)
        for what, need, one, both in zip(("dx", "dtaps"), needs, alone, results[1:], strict=True):
            expect((one is not None) == need, f"{engine.name} computed gradients that nobody asked for, or not {what}")
            if one is not None and both is not None:
                limit = tolerance(engine, x.dtype)
                assert_close(one, both, f"{engine.name}: {what}, needed alone, of {problem}", limit)
    check_launches(engine, problem, (x, taps, grad), [result for result in results if result is not None])
    for amounts in (engine.work(problem), engine.adjoint_work(problem, True, True)):
        valid = amounts is None or (all(amount >= 0 for amount in amounts) and sum(amounts) > 0)
        expect(valid, f"{engine.name} must state amounts of work, none negative; got {amounts}")


def check_sums(engine: Engine, like: Problem) -> None:
    """Whether the work of a long kernel is what the engine says of it."""
    size = (round(4096 ** (1 / like.dim)),) * like.dim
    long = replace(like, size=size, kernel_size=size, causal=(True,) * like.dim, boundary=("zero",) * like.dim)
    work = None if engine.reject(long) is not None else engine.work(long)
    products = long.pairs * long.positions * long.tap_count
    told = f"{engine.name} multiplies every tap with every sample, by its work on {long}: say so, `sums=True`"
    expect(engine.sums or work is None or max(work) < products, told)


def check_launches(
    engine: Engine, problem: Problem, given: tuple[Tensor, Tensor, Tensor], results: Sequence[Tensor]
) -> None:
    """What the engine binds to the problem: the output, both gradients, and what is kept for them."""
    if (launch := engine.bound(problem)) is not None:
        assert_close(
            launch(*given[:2]), results[0], f"{engine.name}, bound: output of {problem}", TOLERANCE[given[0].dtype]
        )
    if (launch := engine.differentiable(problem)) is None:
        return
    x, taps = (operand.clone().requires_grad_() for operand in given[:2])
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):  # type: ignore[func-returns-value]
        y = launch(x, taps)
    ours = {x.untyped_storage().data_ptr(), taps.untyped_storage().data_ptr()}
    alone = all(tensor.untyped_storage().data_ptr() in ours for tensor in kept)
    expect(alone, f"{engine.name}, differentiable, keeps more than its inputs for {problem}")
    found = (y.detach(), *torch.autograd.grad(y, (x, taps), given[2]))
    for what, actual, right in zip(("output", "dx", "dtaps"), found, results, strict=True):
        assert_close(actual, right, f"{engine.name}, differentiable: {what} of {problem}", TOLERANCE[x.dtype])


def tolerance(engine: Engine, dtype: torch.dtype) -> float:
    """Relative error that the engine may have."""
    return TENSOR_CORES[dtype] if engine.half else TOLERANCE[dtype]


def operands(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, taps and cotangent for a problem, reproducible and without the global generator."""
    generator = torch.Generator().manual_seed(problem.positions * 100 + problem.tap_count)
    channels = (problem.in_channels,) if problem.depthwise else (problem.out_channels, problem.in_channels)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(problem.dtype)

    x = draw(problem.batch, problem.in_channels, *problem.size)
    taps = shorten(draw(*channels, *problem.kernel_size), problem)
    taps = taps.float() if problem.dtype in HALF else taps
    return x, taps, draw(problem.batch, problem.out_channels, *problem.size)
