"""What every kernel and every support inherits inside a layer: engines that agree, one integral, compilation, gain."""

from __future__ import annotations

import pytest
import torch

from omniconv import Conv, Conv1d, Full, Problem
from omniconv.kernels import KernelFactory
from omniconv.supports import SupportFactory
from omniconv.testing import assert_close
from tests.cases import ENGINES, KERNELS, SUPPORTS

PAIRS = [(kernel, "gaussian") for kernel in KERNELS] + [("siren", support) for support in SUPPORTS]


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(pair))
def parts(request: pytest.FixtureRequest) -> tuple[KernelFactory, SupportFactory]:
    """Every kernel with one support, and every support with one kernel."""
    kernel, support = request.param
    return KERNELS[kernel], SUPPORTS[support]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_engines_agree(parts: tuple[KernelFactory, SupportFactory], dim: int) -> None:
    kernel, support = parts
    size = (9, 8, 6)[:dim]
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    layer = Conv(3, 3, size, kernel=kernel, support=support, mixing="separable", dtype=torch.float64)
    exact = layer(x)
    for name, engine in ENGINES.items():
        if engine.reject(Problem.of(x, layer.taps())) is None:
            layer.engine = name
            assert_close(layer(x), exact)


@pytest.mark.parametrize("causal", [False, True])
def test_a_finer_grid_is_the_same_integral(parts: tuple[KernelFactory, SupportFactory], causal: bool) -> None:
    """For kernels that know a band limit below the grid's: a table is rough by nature."""
    kernel, support = parts
    layer = Conv1d(1, 4, 128, kernel=kernel, support=support, causal=causal, dtype=torch.float64)
    known = layer.kernel.bandlimit() is not None

    def bump(n: int) -> torch.Tensor:
        t = torch.linspace(0, 1, n, dtype=torch.float64)
        return (torch.cos(40 * t) * torch.sin(torch.pi * t) ** 2)[None, None]

    reference, fine = layer(bump(128)), layer(bump(255), spacing=0.5)[..., ::2]
    assert ((fine - reference).norm() / reference.norm()).item() < (0.01 if known else 0.1)


def test_compiled_equals_eager(parts: tuple[KernelFactory, SupportFactory]) -> None:
    kernel, support = parts
    torch._dynamo.reset()
    layer = Conv1d(2, 3, 16, kernel=kernel, support=support, causal=True)
    x = torch.randn(2, 2, 16)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    # A kernel may have parameters that act on a condition alone.
    expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()), materialize_grads=True)
    gradients = torch.autograd.grad(compiled(x).square().sum(), list(layer.parameters()), materialize_grads=True)
    for gradient, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dim", "n"), [(1, 64), (2, 17), (3, 9)])
def test_the_gain_keeps_the_variance(parts: tuple[KernelFactory, SupportFactory], dim: int, n: int) -> None:
    kernel, support = parts
    layer = Conv(8, 8, (n,) * dim, kernel=kernel, support=support if n > 9 else Full)
    with torch.no_grad():
        assert 0.8 < layer(torch.randn(96 if dim == 1 else 24, 8, *(n,) * dim)).var().item() < 1.2
