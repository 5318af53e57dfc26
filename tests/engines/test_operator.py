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
