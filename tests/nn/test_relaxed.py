"""Relaxed layers: strict at zero, further from it the less symmetric, and any linear map in the end."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from omniconv.groups import SO2, Cyclic, Trivial, transform
from omniconv.kernels import Table
from omniconv.nn import GroupConv, LiftingConv, NonStationaryConv
from omniconv.nn.relaxed import Modulation
from omniconv.supports import Full
from omniconv.testing import assert_close, assert_equivariant
from tests.cases import FACTORIZATIONS

F64 = torch.float64


def set_amount(layer: GroupConv | LiftingConv | NonStationaryConv, amount: float) -> None:
    """Relax the layer so far."""
    with torch.no_grad():
        (layer if isinstance(layer, NonStationaryConv) else layer.relaxation.modulation).amount.fill_(amount)  # type: ignore[union-attr]


def asymmetry(layer: GroupConv | NonStationaryConv, x: Tensor) -> float:
    """Relative error of equivariance under a quarter turn."""
    turn = torch.tensor([torch.pi / 2], dtype=F64)
    y = transform(layer(x), layer.group, turn, layer.samples)
    return ((layer(transform(x, layer.group, turn, layer.samples)) - y).norm() / y.norm()).item()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("factorization", FACTORIZATIONS)
def test_zero_relaxation_is_the_strict_layer_to_the_last_bit(factorization: str, dtype: torch.dtype) -> None:
    layer = GroupConv(3, 4, (8, 7), SO2(), 8, reach=2, factorization=factorization, relaxed=3, dtype=dtype)
    x = torch.randn(2, 3, 8, 8, 7, dtype=dtype)
    set_amount(layer, 0.0)
    relaxed, layer.relaxation = layer(x), None
    assert torch.equal(relaxed, layer(x))


def test_zero_relaxation_of_a_lifting_is_strict() -> None:
    layer = LiftingConv(3, 4, (8, 7), SO2(), 8, reach=2, relaxed=True)
    x = torch.randn(2, 3, 8, 7)
    set_amount(layer, 0.0)
    relaxed, layer.relaxation = layer(x), None
    assert torch.equal(relaxed, layer(x))


def low_rank() -> GroupConv:
    """A layer of the form of low rank."""
    return GroupConv(2, 3, 7, SO2(), 4, reach=2, relaxed=2, dtype=F64)


def faithful() -> NonStationaryConv:
    """A layer with a kernel for every position."""
    return NonStationaryConv(2, 3, 7, SO2(), 4, reach=1, dtype=F64)


@pytest.mark.parametrize("make", [low_rank, faithful])
def test_the_error_of_equivariance_grows_with_the_amount(make: Callable[[], GroupConv | NonStationaryConv]) -> None:
    torch.manual_seed(0)
    layer, x = make(), torch.randn(2, 2, 4, 7, 7, dtype=F64)
    errors = []
    for amount in (0.0, 0.01, 0.03, 0.1, 0.3):
        set_amount(layer, amount)
        errors.append(asymmetry(layer, x))
    assert errors[0] < 1e-12
    assert all(low < high for low, high in pairwise(errors)), errors
    assert errors[-1] > 0.05


def test_the_faithful_form_is_strict_at_zero() -> None:
    layer = NonStationaryConv(2, 3, (5, 6), Cyclic(4), reach=2, dtype=F64)
    set_amount(layer, 0.0)
    x = torch.randn(2, 2, 4, 5, 6, dtype=F64)
    assert_equivariant(layer, x, layer.group, layer.samples)
    assert_close(layer(x), layer.run(x, layer.samples, layer.samples, None), tolerance=1e-12)


def test_the_faithful_form_has_the_kernel_of_each_position() -> None:
    """Against a sum written by hand, for translations of a series."""
    layer = NonStationaryConv(1, 1, 5, Trivial(1), reach=2, support=Full, dtype=F64)
    set_amount(layer, 0.7)
    x, y = torch.randn(5, dtype=F64), torch.zeros(5, dtype=F64)
    for u in range(5):
        for v in range(5):
            if abs(u - v) <= 2:
                pose = torch.tensor([(u - v) / 2, 0.0, 0.7 * (u - 2) * 2 / 5, 0.0], dtype=F64)
                y[u] += layer.kernel(pose)[0] * layer.gain * x[v]
    assert_close(layer(x.reshape(1, 1, 1, 5)).flatten(), y, tolerance=1e-12)


def test_low_rank_becomes_any_linear_map_as_the_rank_grows() -> None:
    """The layer is linear in the taps of tables: what is left of a dense map after the best ones."""
    torch.manual_seed(0)
    n, dense = 5, torch.randn(5, 5, dtype=F64)
    left = []
    for rank in range(n):
        layer = GroupConv(
            *(1, 1, n, Trivial(1)), kernel=Table, support=Full, reach=n - 1, bias=False, relaxed=rank, dtype=F64
        )
        taps = [p for name, p in layer.named_parameters() if name.endswith("taps") and "modulation" not in name]
        eye = torch.eye(n, dtype=F64).reshape(n, 1, 1, n)
        if rank:
            set_amount(layer, 1.0)
        columns = [
            torch.autograd.grad(value, taps, retain_graph=True, materialize_grads=True)
            for value in layer(eye).flatten()
        ]
        design = torch.stack([torch.cat([part.flatten() for part in column]) for column in columns])
        found = torch.linalg.lstsq(design, dense.T.reshape(-1, 1), driver="gelsd").solution
        left.append(((design @ found - dense.T.reshape(-1, 1)).norm() / dense.norm()).item())
    assert all(high > low for high, low in pairwise(left)), left
    assert left[0] > 0.5
    assert left[-1] < 1e-3, left


def test_modulations_stay_where_they_are_at_a_finer_resolution() -> None:
    layer = GroupConv(1, 1, 8, Trivial(1), reach=2, relaxed=2, dtype=F64)
    modulation = layer.relaxation.modulation  # type: ignore[union-attr]
    assert isinstance(modulation, Modulation)
    coarse = modulation(torch.ones(1, 1, 1, 9, dtype=F64), layer.samples, (1.0,))
    fine = modulation(torch.ones(1, 1, 1, 17, dtype=F64), layer.samples, (0.5,))
    assert_close(fine[..., ::2], coarse)


def test_amounts_learn_slowly_and_without_decay() -> None:
    layer = GroupConv(1, 1, 5, Trivial(2), reach=1, relaxed=2)
    tag = layer.relaxation.modulation.parameter_tags()["amount"]  # type: ignore[union-attr]
    assert (tag.lr_scale, tag.decay) == (0.1, False)


def test_gradients_reach_an_amount_of_zero() -> None:
    layer = GroupConv(2, 2, 5, SO2(), 4, reach=1, relaxed=True)
    set_amount(layer, 0.0)
    layer(torch.randn(1, 2, 4, 5, 5)).square().sum().backward()
    assert layer.relaxation.modulation.amount.grad.abs().item() > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [-1, 1.5, "yes"])
def test_a_bad_rank_is_named(value: object) -> None:
    with pytest.raises((TypeError, ValueError), match="`relaxed`"):
        GroupConv(1, 1, 5, SO2(), 4, relaxed=value)  # type: ignore[arg-type]
