"""A layer that runs as a recurrence computes what it computes by its taps."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from omniconv import Conv, Conv1d, EngineError, Gaussian
from omniconv.kernels import Conditional, Modal, Table
from omniconv.supports import Full, Product
from omniconv.testing import assert_close

F64 = torch.float64
modal = partial(Modal, modes=4, rank=2)


def layers(**options: Any) -> tuple[Conv, Conv]:
    """The same layer by its recurrence and by its taps."""
    made: dict[str, Any] = {
        "size": 40,
        "kernel": modal,
        "support": Full,
        "mixing": "depthwise",
        "causal": True,
        "dtype": F64,
    } | options
    recurrent, other = Conv1d(3, 3, engine="recurrent", **made), Conv1d(3, 3, engine="fft", **made)
    other.load_state_dict(recurrent.state_dict())
    return recurrent, other


@pytest.mark.parametrize("length", [1, 2, 39, 40, 41, 43, 100])
@pytest.mark.parametrize("reach", [None, 0, 1, 2, 30])
@pytest.mark.parametrize("spacing", [None, 0.5, 1.7])
def test_at_any_length_reach_and_spacing(length: int, reach: int | None, spacing: float | None) -> None:
    """Longer than the reach, too, where the recurrence alone would go on."""
    recurrent, other = layers(reach=reach, mixing="separable")
    x = torch.randn(2, 3, length, dtype=F64)
    with torch.no_grad():
        for layer in (recurrent, other):
            layer.check_resolution = lambda spacing, name="": None  # type: ignore[method-assign]
        assert_close(recurrent(x, spacing), other(x, spacing), tolerance=1e-12)


def test_derivatives_reach_every_parameter() -> None:
    recurrent, other = layers(mixing="separable", reach=20)
    x, weights = torch.randn(2, 3, 50, dtype=F64), torch.randn(2, 3, 50, dtype=F64)
    for layer in (recurrent, other):
        (layer(x) * weights).sum().backward()
    names = [name for name, _ in recurrent.named_parameters()]
    assert {"kernel.log_dt", "kernel.log_decay", "kernel.frequency", "kernel.coefficient"} <= set(names)
    for one, two in zip(recurrent.parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert_close(one.grad, two.grad, tolerance=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [40, 55])
def test_lower_precision(dtype: torch.dtype, length: int) -> None:
    layer = layers(dtype=torch.float32, reach=39)[0]
    x = torch.randn(2, 3, length).to(dtype)
    y = layer(x)
    assert y.dtype == dtype
    assert_close(y, layer.double()(x.double()))


def test_the_support_may_be_a_product_that_is_one() -> None:
    recurrent, other = layers(support=partial(Product, factors=(Full, Full)))
    x = torch.randn(1, 3, 40, dtype=F64)
    assert_close(recurrent(x), other(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"causal": False}, r"it needs one causal axis, not 1 with causal=\(False,\)"),
        ({"size": (8, 8)}, r"it needs one causal axis, not 2 with causal=\(True, True\)"),
        ({"mixing": "dense"}, 'it needs mixing "depthwise" or "separable"'),
        ({"kernel": Table}, "Table is no sum of exponentials, as omniconv.kernels.Modal is"),
        ({"kernel": partial(Conditional, kernel=Modal)}, "Conditional is no sum of exponentials"),
        ({"support": Gaussian}, "Gaussian weighs the kernel, as omniconv.supports.Full does not"),
        ({"support": partial(Product, factors=(Full, Gaussian))}, "Product weighs the kernel"),
    ],
)
def test_other_layers_are_refused_with_a_reason(options: dict[str, Any], message: str) -> None:
    made: dict[str, Any] = {
        "size": 8,
        "kernel": Modal,
        "support": Full,
        "mixing": "depthwise",
        "causal": True,
    } | options
    with pytest.raises(EngineError, match=f'engine="recurrent" cannot run this layer: {message}.* Use another engine'):
        Conv(2, 2, engine="recurrent", **made)


def test_what_needs_taps_is_refused() -> None:
    layer, x = layers()[0], torch.zeros(1, 3, 40, dtype=F64)
    for given in ({"lowpass": True, "spacing": 2.0}, {"condition": torch.zeros(1, 1)}):
        with pytest.raises(EngineError, match='engine="recurrent" takes no `lowpass` and no `condition`'):
            layer(x, **given)
    with pytest.raises(EngineError, match='`times` and engine="recurrent" exclude each other'):
        layer(x, times=torch.arange(40.0, dtype=F64)[None])
    with pytest.raises(ValueError, match=r"`engine` must be one of 'auto', .*'fft'.*, 'recurrent'; got 'scan'"):
        Conv(2, 2, 8, engine="scan")


def test_on_the_meta_device() -> None:
    layer = Conv(
        2, 2, 8, kernel=Modal, support=Full, mixing="depthwise", causal=True, engine="recurrent", device="meta"
    )
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert layer(torch.randn(1, 2, 8)).isfinite().all()
