"""The laws of layers."""

from __future__ import annotations

import copy
import pickle

import torch
from torch import Tensor, nn

from omniconv.testing._tolerances import expect


def check_layer(layer: nn.Module, x: Tensor) -> None:
    """Raise `AssertionError` unless `layer`, in float64 and applied to `x`, behaves as a layer of torch does.

    First and second derivatives in the input and all parameters; the output does not depend on what was computed
    before, and no buffer changes; deep copy, pickle and state dict give the same layer; bfloat16 in, bfloat16 out.
    `x`: a small input, in float64 or of integers, in which there are no derivatives. The layer is left as it was.

    >>> from omniconv.nn import Pointwise
    >>> check_layer(Pointwise(2, 3, dtype=torch.float64), torch.randn(2, 2, 5, dtype=torch.float64))
    """
    check_layer_derivatives(layer, x)
    check_pure(layer, x)
    check_copies(layer, x)
    check_low_precision(layer, x)


def check_layer_derivatives(layer: nn.Module, x: Tensor) -> None:
    """`gradcheck` and `gradgradcheck` in the input, unless it holds integers, and all parameters."""
    names = [name for name, _ in layer.named_parameters()]

    def evaluate(x: Tensor, *values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))
        return result

    start = x.detach().clone().requires_grad_(x.is_floating_point())
    point = (start, *(p.detach().clone().requires_grad_() for p in layer.parameters()))
    torch.autograd.gradcheck(evaluate, point, fast_mode=True)
    torch.autograd.gradgradcheck(evaluate, point, fast_mode=True)


def check_pure(layer: nn.Module, x: Tensor) -> None:
    """The same output before and after a longer signal; buffers stay."""
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    short = layer(x)
    layer(torch.cat([x, x], dim=-1))
    expect(torch.equal(layer(x), short), "the output must not depend on signals seen before")
    for name, buffer in layer.named_buffers():
        expect(torch.equal(buffer, before[name]), f"forward must not change the buffer {name}")


def check_copies(layer: nn.Module, x: Tensor) -> None:
    """Deep copy, pickle and state dict round trips."""
    y = layer(x)
    expect(torch.equal(copy.deepcopy(layer)(x), y), "a deep copy must compute the same")
    expect(torch.equal(pickle.loads(pickle.dumps(layer))(x), y), "an unpickled layer must compute the same")
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    twin.load_state_dict(layer.state_dict())
    expect(torch.equal(twin(x), y), "a layer with the same state must compute the same")


def check_low_precision(layer: nn.Module, x: Tensor) -> None:
    """bfloat16 in, bfloat16 out, near the exact output: as a bfloat16 layer, and under autocast."""
    exact, scale = layer(x), layer(x).norm()
    rounded = x.to(torch.bfloat16) if x.is_floating_point() else x
    low = copy.deepcopy(layer).to(torch.bfloat16)(rounded)
    expect(low.dtype == torch.bfloat16, f"a bfloat16 layer must return bfloat16; got {low.dtype}")
    with torch.autocast("cpu", torch.bfloat16):
        cast = copy.deepcopy(layer).float()(rounded)
    if x.is_floating_point():  # autocast leaves what begins with a look-up in float32
        expect(cast.dtype == torch.bfloat16, f"under autocast bfloat16 must stay; got {cast.dtype}")
    # Rounded parameters change large phases, so that only autocast, which keeps them, is near the exact output.
    error = ((cast.double() - exact).norm() / scale).item()
    expect(error < 0.02 and bool(low.isfinite().all()), f"bfloat16 output is off by {error:.1e}")
