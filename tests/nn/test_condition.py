"""Layers whose kernel depends on numbers of the sample: every sample has the output that it has alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from omniconv import Conv, Conv1d, Conv2d, convolve
from omniconv.kernels import SIREN, Conditional
from omniconv.supports import Full
from omniconv.testing import assert_close

F64 = torch.float64
conditional = partial(Conditional, conditions=2, kernel=partial(SIREN, hidden=4), hidden=3, strength=0.5)

LAYERS: dict[str, tuple[Callable[[], Conv], tuple[int, ...]]] = {
    "dense": (lambda: Conv(2, 3, 7, kernel=conditional, dtype=F64), (7,)),
    "dense-causal": (lambda: Conv(2, 3, 8, kernel=conditional, causal=True, dtype=F64), (8,)),
    "depthwise-circular": (
        lambda: Conv(2, 2, 6, kernel=conditional, mixing="depthwise", boundary="circular", dtype=F64),
        (6,),
    ),
    "separable-2d": (
        lambda: Conv(2, 3, (5, 4), kernel=conditional, mixing="separable", causal=(True, False), dtype=F64),
        (5, 4),
    ),
    "dense-2d": (lambda: Conv(2, 3, (4, 5), kernel=conditional, boundary=("zero", "circular"), dtype=F64), (4, 5)),
    "dense-3d": (lambda: Conv(2, 1, (3, 2, 4), kernel=conditional, support=Full, dtype=F64), (3, 2, 4)),
    "separable-3d": (lambda: Conv(2, 3, (3, 2, 4), kernel=conditional, mixing="separable", dtype=F64), (3, 2, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_sample_has_the_output_that_it_has_alone(name: str) -> None:
    make, size = LAYERS[name]
    layer = make()
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    x, z = torch.randn(3, 2, *size, dtype=F64), torch.rand(3, 2, dtype=F64)
    together, taps = layer(x, condition=z), layer.taps(condition=z)
    assert len(taps) == 3
    for i in range(3):
        own = layer.taps(condition=z[i : i + 1])[0]
        assert own.shape == layer.taps().shape
        torch.testing.assert_close(taps[i], own)
        y = convolve(x[i : i + 1], own, causal=layer.causal, boundary=layer.grid.boundary, engine="reference")
        if layer.bias is not None:
            y = y + layer.bias.reshape(-1, *[1] * layer.dim)
        if layer.mixer is not None:
            y = layer.mixer(y)
        assert_close(together[i : i + 1], y)
        assert_close(layer(x[i], condition=z[i : i + 1]), y[0])
    assert not torch.allclose(together, layer(x))


@pytest.mark.parametrize("name", LAYERS)
def test_derivatives(name: str) -> None:
    make, size = LAYERS[name]
    layer = make()
    names = [name for name, _ in layer.named_parameters()]
    x = torch.randn(2, 2, *size, dtype=F64, requires_grad=True)
    z = (0.8 * torch.rand(2, 2, dtype=F64) + 0.1).requires_grad_()

    def evaluate(x: torch.Tensor, z: torch.Tensor, *values: torch.Tensor) -> Any:
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, named, (x,), {"condition": z})

    copies = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]
    torch.autograd.gradcheck(evaluate, (x, z, *copies), fast_mode=True)


@pytest.mark.parametrize("mixing", ["dense", "depthwise"])
def test_without_shifts_a_condition_changes_nothing(mixing: str) -> None:
    layer = Conv1d(2, 2, 9, kernel=conditional, mixing=mixing, dtype=F64)
    with torch.no_grad():
        layer.kernel.get_parameter("output_weight").zero_()
    x = torch.randn(3, 2, 9, dtype=F64)
    assert_close(layer(x, condition=torch.rand(3, 2, dtype=F64)), layer(x))


@pytest.mark.parametrize("mixing", ["dense", "separable"])
def test_a_condition_goes_with_a_spacing(mixing: str) -> None:
    layer = Conv1d(1, 4, 64, kernel=partial(conditional, strength=0.1), mixing=mixing, dtype=F64)

    def bump(n: int) -> torch.Tensor:
        t = torch.linspace(0, 1, n, dtype=F64)
        return (torch.cos(20 * t) * torch.sin(torch.pi * t) ** 2).expand(2, 1, n)

    z = torch.tensor([[0.1, 0.9], [0.7, 0.2]], dtype=F64)
    coarse, fine = layer(bump(64), condition=z), layer(bump(127), spacing=0.5, condition=z)[..., ::2]
    assert ((fine - coarse).norm() / coarse.norm()).item() < 0.02


@pytest.mark.parametrize("mixing", ["dense", "separable"])
def test_compiled_equals_eager(mixing: str) -> None:
    torch._dynamo.reset()
    layer = Conv1d(2, 3, 16, kernel=conditional, mixing=mixing, causal=True)
    x, z = torch.randn(3, 2, 16), torch.rand(3, 2)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, condition=z), layer(x, condition=z))
    expected = torch.autograd.grad(layer(x, condition=z).square().sum(), list(layer.parameters()))
    gradients = torch.autograd.grad(compiled(x, condition=z).square().sum(), list(layer.parameters()))
    for gradient, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixing", ["dense", "depthwise"])
def test_low_precision_and_empty_batches(mixing: str) -> None:
    layer = Conv1d(2, 2, 16, kernel=conditional, mixing=mixing)
    x, z = torch.randn(3, 2, 16), torch.rand(3, 2)
    exact = layer(x, condition=z)
    with torch.autocast("cpu", torch.bfloat16):
        cast = layer(x.to(torch.bfloat16), condition=z)
    assert cast.dtype == torch.bfloat16
    assert ((cast.float() - exact).norm() / exact.norm()).item() < 0.02
    assert layer(x[:0], condition=z[:0]).shape == (0, 2, 16)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda z: Conv1d(1, 1, 8)(torch.ones(3, 1, 8), condition=z),
            r"`condition` needs a kernel that takes one; SIREN takes none. Wrap it: .*Conditional, kernel=SIREN",
        ),
        (
            lambda z: Conv1d(1, 1, 8, kernel=conditional)(torch.ones(3, 1, 8), condition=z[:, :1]),
            r"`condition` must be \(batch, 2\), .* shape \(3, 1\)",
        ),
        (
            lambda z: Conv1d(1, 1, 8, kernel=conditional)(torch.ones(2, 1, 8), condition=z),
            r"`condition` must be \(batch, 2\) with the batch of `x`, 2; got a batch of 3",
        ),
        (
            lambda z: Conv2d(1, 1, 8, kernel=conditional)(torch.ones(3, 1, 8, 8), condition=z + 1),
            r"`condition` must lie in \[0, 1\]",
        ),
    ],
)
def test_bad_conditions_are_named(run: Callable[[torch.Tensor], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(torch.rand(3, 2).clamp(min=0.1))
