"""The laws of layers."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Collection
from itertools import chain
from typing import Any

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


def check_bad_signals(layer: nn.Module, x: Tensor, takes: Collection[str] = ()) -> None:
    """Raise `AssertionError` unless `layer` refuses what is no signal like `x`, by an error that names its argument.

    `None`, a list, numbers of another kind, axes or channels too few or too many, no samples, and float64 where it
    computes in float32; and where its `forward` has a `mask`: a list, numbers, and masks of other lengths and batches.
    All are to raise `ValueError` or `TypeError` with `x` or `mask` in the message.
    `takes`: what of `bad_signals` this layer takes all the same; then it must return finite numbers.

    >>> from omniconv.nn import Pointwise
    >>> check_bad_signals(Pointwise(2, 3), torch.randn(2, 2, 5), takes=("more axes", "no samples", "float64"))
    """
    layer = copy.deepcopy(layer).float()
    x = x.float() if x.is_floating_point() else x
    bad = bad_signals(x)
    if not any(value.is_floating_point() for value in chain(layer.parameters(), layer.buffers())):
        bad.pop("float64", None)  # nothing in it has a precision
    for what in takes:
        y = layer(bad.pop(what))
        expect(isinstance(y, Tensor) and bool(y.isfinite().all()), f"{what}: the layer must return finite numbers")
    for what, signal in bad.items():
        expect_refused(layer, "x", what, (signal,), {})
    if "mask" in inspect.signature(layer.forward).parameters:
        several = torch.cat([x, x])
        for what, mask in bad_masks(several).items():
            expect_refused(layer, "mask", what, (several,), {"mask": mask})


def bad_signals(x: Tensor) -> dict[str, Any]:
    """What is no signal like `x`, by name."""
    several = x.flatten()
    found: dict[str, Any] = {
        "none": None,
        "a list": x.tolist(),
        "integers": x.long() if x.is_floating_point() else x.float(),
        "booleans": x > 0,
        "no axes": several[0],
        "no batch": x[0],
        "more axes": x[..., None],
        "no samples": x[..., :0],
    }
    if x.ndim > 2:
        found["one axis"] = several
        found["more channels"] = torch.cat([x, x[:, :1]], 1)
    if x.is_floating_point():
        found["float64"] = x.double()
    return found


def bad_masks(x: Tensor) -> dict[str, Any]:
    """What is no mask of the signals, or ids, `x`, two at least."""
    right = torch.ones(x.shape[0], *x.shape[2 if x.is_floating_point() else 1 :], dtype=torch.bool)
    return {
        "a list": right.tolist(),
        "numbers": 0.5 * right,
        "integers": right.long(),
        "shorter": right[..., :-1],
        "longer": torch.cat([right, right[..., :1]], -1),
        "one for all": right[:1],
        "more signals": torch.cat([right, right[:1]]),
        "more axes": right[..., None],
    }


def expect_refused(
    layer: Callable[..., Any], name: str, what: str, signals: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """Raise `AssertionError` unless the call raises `ValueError` or `TypeError` that names the argument."""
    asked = f"{what} as `{name}` must raise ValueError or TypeError that names `{name}`"
    try:
        layer(*signals, **options)
    except (ValueError, TypeError) as error:
        expect(f"`{name}`" in str(error), f"{asked}; its message is: {error}")
    except Exception as error:
        raise AssertionError(f"{asked}; got {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{asked}; it was taken")
