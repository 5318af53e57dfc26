"""The product of supports against its factors, its extent, and how its sizes are trained."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch

from omniconv import Conv1d
from omniconv._tags import Tag
from omniconv.kernels import SIREN
from omniconv.supports import Decay, Disk, Full, Gaussian, Product
from omniconv.testing import check_support
from omniconv.training import build_optimizer


class Slow(Gaussian):
    """A factor whose size wants to be trained slowly."""

    def parameter_tags(self) -> dict[str, Tag]:
        return {"width_logit": Tag(lr_scale=0.1, decay=False)}


def test_weights_are_multiplied() -> None:
    factors = (partial(Gaussian, width=0.4), partial(Disk, radius=0.3), Full)
    support = Product(2, reach=(8, 5), causal=(True, False), factors=factors, dtype=torch.float64)
    where: dict[str, Any] = {"reach": (8, 5), "causal": (True, False), "dtype": torch.float64}
    p = torch.rand(50, 2, dtype=torch.float64)
    torch.testing.assert_close(support(p), Gaussian(2, width=0.4, **where)(p) * Disk(2, radius=0.3, **where)(p))


def test_extent_is_the_smallest_one_per_axis() -> None:
    factors = (partial(Gaussian, width=(0.1, 0.3)), partial(Gaussian, width=(0.2, 0.05)))
    support = Product(2, reach=50, factors=factors, dtype=torch.float64)
    first, second = (make(2, reach=50, dtype=torch.float64).extent(0.1) for make in factors)
    assert support.extent(0.1) == (first[0], second[1])


def test_sizes_are_trained_as_the_factors_ask() -> None:
    layer = Conv1d(1, 1, 16, support=partial(Product, factors=(Slow, Decay)))
    groups = build_optimizer(layer, lr=0.01, weight_decay=0.5).param_groups
    by_parameter = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    parameters = dict(layer.support.named_parameters())
    assert set(parameters) == {"factors.0.width_logit", "factors.1.width_logit"}
    assert by_parameter[id(parameters["factors.0.width_logit"])] == (pytest.approx(0.001), 0.0)
    assert by_parameter[id(parameters["factors.1.width_logit"])] == (0.01, 0.0)


def test_a_layer_is_cropped_to_the_narrowest_factor() -> None:
    narrow = partial(Gaussian, width=0.1)
    layer = Conv1d(1, 1, 64, support=partial(Product, factors=(Full, narrow)))
    assert layer.window == Conv1d(1, 1, 64, support=narrow).window


def test_frequencies_of_the_factors_add() -> None:
    """Of a Gaussian of width s two deviations of the spectrum, 2 / (pi reach s)."""
    factors = (partial(Gaussian, width=(0.2, 0.4)), partial(Gaussian, width=0.3))
    support = Product(2, reach=(10, 25), factors=factors, dtype=torch.float64)
    width = support.bandwidth()
    assert width is not None
    expected = [2 / (math.pi * n) * (1 / s + 1 / 0.3) for n, s in ((10, 0.2), (25, 0.4))]
    assert width.tolist() == pytest.approx(expected)
    assert all(g.any() for g in torch.autograd.grad(width.sum(), list(support.parameters())))
    assert Product(2, reach=(10, 25), factors=(*factors, Decay)).bandwidth() is None
    check_support(partial(Product, factors=(Gaussian, partial(Gaussian, width=0.4))), dims=(2,))


def wrong_reach(dim: int, **where: Any) -> Full:
    """A factory that does not hand on the reach."""
    return Full(dim, reach=3)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((Full, wrong_reach), r"`factors\[1\]` must have the `reach` it is called with, \(4,\); Full has \(3,\)"),
        (
            (lambda *_, **where: Full(2, reach=4),),
            r"`factors\[0\]` must have the `dim` it is called with, 1; Full has 2",
        ),
    ],
)
def test_factors_of_other_sizes_are_named(factors: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Product(1, reach=4, factors=factors)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((), r"`factors` must be a tuple of at least one Support class .*; got tuple \(\)"),
        (Gaussian, "`factors` must be a tuple of at least one Support class"),
        ((Full, "disk"), r"`factors\[1\]` must be a Support class or functools.partial .*; got str 'disk'"),
        ((Full(1, reach=4),), r"`factors\[0\]` must be a Support class"),
        ((SIREN,), r"`factors\[0\]` must be a Support class; got the class SIREN"),
        ((partial(SIREN, hidden=4),), r"`factors\[0\]` must be a Support class; got the class SIREN"),
        ((lambda *sizes, **where: 1,), r"`factors\[0\]` must be a callable that returns .* returned int 1"),
    ],
)
def test_bad_factors_are_named(factors: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Product(1, reach=4, factors=factors)  # type: ignore[arg-type]
