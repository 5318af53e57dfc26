"""Mixing of channels: the same numbers by either product."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omniconv.nn.pointwise import Pointwise, mixed
from omniconv.testing import assert_close


def results(product: object, weight: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    y = product(weight, x)  # type: ignore[operator]
    return y, *torch.autograd.grad(y.square().sum(), (weight, x))


@pytest.mark.parametrize(("batch", "positions"), [(1, 1), (3, 2), (3, 7), (2, 100)])
def test_the_product_of_every_sample(batch: int, positions: int) -> None:
    """Few positions take one product for all samples, many one for each."""
    weight = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(batch, 4, positions, dtype=torch.float64, requires_grad=True)
    expected = results(lambda weight, x: torch.einsum("oc,bct->bot", weight, x), weight, x)
    for actual, wanted in zip(results(mixed, weight, x), expected, strict=True):
        assert_close(actual, wanted)


def test_a_sample_does_not_depend_on_its_company() -> None:
    part, x = Pointwise(5, 3), torch.randn(7, 5, 4, 9)
    assert torch.equal(part(x)[2:3], part(x[2:3]))


def test_exported_networks_take_other_sizes() -> None:
    """On either side of where the product changes."""
    part, sizes = Pointwise(64, 64), {2: torch.export.Dim("length", min=2, max=512)}
    program = torch.export.export(part, (torch.randn(2, 64, 100),), dynamic_shapes=(sizes,)).module()
    for length in (3, 500):
        x = torch.randn(2, 64, length)
        assert_close(program(x), part(x))
