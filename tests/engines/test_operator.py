"""The convolution as an operator of the framework."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from omniconv import convolve
from omniconv.testing import assert_close


def operands() -> tuple[Tensor, Tensor]:
    return (
        torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True),
        torch.randn(3, 4, dtype=torch.float64, requires_grad=True),
    )


def test_the_operators_keep_the_rules_of_the_framework() -> None:
    x, taps = operands()
    grad = torch.randn_like(x)
    torch.library.opcheck(torch.ops.omniconv.convolve.default, (x, taps, [True], [False], "auto"))
    for need in ((True, True), (True, False), (False, True)):
        arguments = (grad, x, taps, [False], [True], "fft", *need)
        torch.library.opcheck(torch.ops.omniconv.convolve_adjoint.default, arguments)


@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (1, 0), (2, 1)])
def test_vmap_equals_a_loop(mapped: tuple[int | None, int | None]) -> None:
    x_axis, taps_axis = mapped
    x, taps = torch.randn(2, 3, 7, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    xs = x if x_axis is None else torch.stack([x, 2 * x, x.flip(-1)], x_axis)
    kernels = taps if taps_axis is None else torch.stack([taps, taps.flip(-1), -taps], taps_axis)
    together = torch.vmap(lambda x, taps: convolve(x, taps, causal=True), mapped)(xs, kernels)
    for i in range(3):
        one_x = xs if x_axis is None else xs.select(x_axis, i)
        one_kernel = kernels if taps_axis is None else kernels.select(taps_axis, i)
        assert_close(together[i], convolve(one_x, one_kernel, causal=True))


def test_a_jacobian_mapped_over_cotangents_equals_one_by_one() -> None:
    x, taps = torch.randn(1, 2, 5, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    both = [
        torch.autograd.functional.jacobian(lambda x, taps: convolve(x, taps), (x, taps), vectorize=vectorize)
        for vectorize in (False, True)
    ]
    for one_by_one, mapped in zip(*both, strict=True):
        assert_close(mapped, one_by_one)


@pytest.mark.parametrize("engine", ["auto", "direct", "fft"])
def test_transforms_of_functions_give_the_gradients_of_autograd(engine: str) -> None:
    x, taps = (tensor.detach() for tensor in operands())

    def energy(x: Tensor, taps: Tensor) -> Tensor:
        return convolve(x, taps, causal=True, engine=engine).square().sum()

    leaves = x.clone().requires_grad_(), taps.clone().requires_grad_()
    expected = torch.autograd.grad(energy(*leaves), leaves)
    for made, right in zip(torch.func.grad(energy, (0, 1))(x, taps), expected, strict=True):
        assert_close(made, right)
    mapped = torch.vmap(torch.func.grad(energy, 1), (0, None))(torch.stack([x, 2 * x]), taps)
    assert_close(mapped[0], expected[1])
    assert_close(mapped[1], 4 * expected[1])
    both = torch.vmap(torch.func.grad(energy))(torch.stack([x, 2 * x]), torch.stack([taps, taps]))
    assert_close(both[1], 2 * expected[0])


def test_jacobians_of_transformed_functions() -> None:
    x, taps = (tensor.detach() for tensor in operands())

    def run(taps: Tensor) -> Tensor:
        return convolve(x, taps)

    def energy(taps: Tensor) -> Tensor:
        return run(taps).square().sum()

    assert_close(torch.func.jacrev(run)(taps), torch.autograd.functional.jacobian(run, taps))
    twice = torch.func.jacrev(torch.func.grad(energy))(taps)
    assert_close(twice, torch.autograd.functional.hessian(energy, taps))


def test_tangents_of_cotangents_are_refused_rather_than_dropped() -> None:
    x, taps = operands()
    y = convolve(x, taps)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(torch.ones_like(y), torch.ones_like(y))
        with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
            torch.autograd.grad(y, x, dual)


@pytest.mark.parametrize("boundary", ["zero", "circular"])
@pytest.mark.parametrize("engine", ["direct", "fft", "shifts"])
def test_what_watches_operators_sees_the_result(boundary: str, engine: str) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    x, taps = torch.randn(2, 3, 16), torch.randn(3, 5)
    graph = make_fx(lambda x, taps: convolve(x, taps, boundary=boundary, engine=engine))(x, taps)
    assert_close(graph(2 * x, taps), convolve(2 * x, taps, boundary=boundary, engine=engine))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_equals_eager_with_gradients_over_many_lengths(backend: str) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("torch's default compiler needs g++")
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)

    def run(x: Tensor, taps: Tensor) -> Tensor:
        return torch.tanh(convolve(x, taps, causal=True) + 1)

    compiled = torch.compile(run, fullgraph=True, backend=counter)
    taps = torch.randn(3, 9, requires_grad=True)
    for length in (16, 33, 50, 128, 7):
        x = torch.randn(2, 3, length, requires_grad=True)
        results = []
        for function in (run, compiled):
            y = function(x, taps)
            results.append((y, *torch.autograd.grad(y.square().sum(), (x, taps))))
        for eager, other in zip(*results, strict=True):
            torch.testing.assert_close(other, eager)
    assert counter.frame_count <= 3
