"""Products of a whole signal with kernels in all poses."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.groups import O2, SO2, SO3, Cyclic, Dihedral, Group, Scaling, transform
from omniconv.kernels import SIREN
from omniconv.nn import LiftingProduct
from omniconv.supports import Disk, Full, Gaussian
from omniconv.testing import assert_close

F64 = torch.float64
small = partial(SIREN, hidden=8)
GROUPLESS: Any = "SO2"


@pytest.mark.parametrize("size", [(5, 5), (6, 6), (7, 4)], ids=str)
@pytest.mark.parametrize("group", [SO2(), O2(), Scaling(2, high=2.0)], ids=str)
def test_it_is_the_sum_over_the_points_seen_from_the_middle(group: Group, size: tuple[int, int]) -> None:
    layer = LiftingProduct(2, 3, size, group, 4, kernel=small, support=Gaussian, reach=3, dtype=F64)
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    x = torch.randn(2, 2, *size, dtype=F64)
    y = layer(x)
    assert y.shape == (2, 3, 4, 1, 1)
    for o, h in product(range(3), range(4)):
        element = layer.samples.elements[h]
        total = torch.zeros(2, dtype=F64)
        for i, j in product(range(size[0]), range(size[1])):
            p = torch.tensor([i - (size[0] - 1) / 2, j - (size[1] - 1) / 2], dtype=F64)
            seen = group.act(group.inverse(element), p) / 3
            if seen.norm() <= 1:
                values = layer.kernel(seen)[2 * o : 2 * o + 2] * layer.support(seen)
                total += (x[:, :, i, j] * values).sum(1)
        expected = layer.gain * total / group.determinant(element) + layer.bias[o]
        assert_close(y[:, o, h, 0, 0], expected)


@pytest.mark.parametrize("n", [8, 9])
@pytest.mark.parametrize("group", [Cyclic(4), Dihedral(4), SO2(), O2()], ids=str)
def test_it_moves_on_the_group_as_the_signal_is_moved(group: Group, n: int) -> None:
    layer = LiftingProduct(2, 3, n, group, group.order or 8, kernel=small, dtype=F64)
    x = torch.randn(2, 2, n, n, dtype=F64)
    y = layer(x)
    quarter = group.exp(torch.tensor([torch.pi / 2, *[0.0] * (group.coordinates - 1)], dtype=F64))
    back = group.relative(quarter.expand_as(layer.samples.elements), layer.samples.elements)
    index = group.distance(back[:, None], layer.samples.elements).argmin(1)
    assert_close(layer(transform(x, group, quarter)), y[:, :, index])


def test_volumes_are_lifted_too() -> None:
    layer = LiftingProduct(1, 2, 5, SO3(), 24, kernel=small, dtype=F64)
    x = torch.randn(1, 1, 5, 5, 5, dtype=F64)
    turned = layer(torch.rot90(x, 1, (-2, -1)))
    assert turned.shape == (1, 2, 24, 1, 1, 1)
    assert_close(turned.sort(2).values, layer(x).sort(2).values)  # the elements are exchanged among themselves


@pytest.mark.parametrize("support", [Full, Disk])
@pytest.mark.parametrize("n", [12, 15])
def test_the_gain_keeps_the_variance(support: Any, n: int) -> None:
    torch.manual_seed(0)
    layer = LiftingProduct(4, 32, n, SO2(), 8, support=support)
    with torch.no_grad():
        assert 0.8 < layer(torch.randn(256, 4, n, n)).var().item() < 1.2
    layer.reset_parameters()
    with torch.no_grad():
        assert 0.8 < layer(torch.randn(256, 4, n, n)).var().item() < 1.2


def bump(n: int) -> Tensor:
    """A smooth image over [-1, 1]^2."""
    axis = (torch.arange(n, dtype=F64) - (n - 1) / 2) * 2 / n
    row, column = axis[:, None], axis
    return (torch.exp(-9 * (row - 0.2) ** 2 - 6 * (column + 0.1) ** 2) * (1 + row))[None, None]


def test_a_finer_signal_is_the_same_integral() -> None:
    layer = LiftingProduct(1, 4, 24, SO2(), 6, kernel=partial(SIREN, bandwidth=0.2), dtype=F64)
    reference, fine = layer(bump(24)), layer(bump(48), spacing=0.5)
    assert ((fine - reference).norm() / reference.norm()).item() < 0.01


def test_what_lies_beyond_the_ball_is_not_seen() -> None:
    layer = LiftingProduct(1, 2, 8, SO2(), 5, kernel=small, dtype=F64)
    x = torch.zeros(1, 1, 16, 16, dtype=F64)
    inner = torch.randn(1, 1, 8, 8, dtype=F64)
    x[:, :, 4:12, 4:12] = inner
    assert_close(layer(x), layer(inner))
    x[:, :, 0] = x[:, :, -1] = x[:, :, :, 0] = x[:, :, :, -1] = 1.0
    assert_close(layer(x), layer(inner))


def test_other_elements_may_be_asked_for() -> None:
    layer = LiftingProduct(1, 2, 7, SO2(), 8, kernel=small, dtype=F64)
    x = torch.randn(2, 1, 7, 7, dtype=F64)
    half = layer(x, SO2().grid(4))
    assert_close(half, layer(x)[:, :, ::2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda layer: layer(torch.zeros(1, 2, 5, 5)), ValueError, r"`x` must be \(batch, 1, size_0, size_1\)"),
        (lambda layer: layer(torch.zeros(1, 1, 5)), ValueError, r"`x` must be \(batch, 1, size_0, size_1\)"),
        (lambda layer: layer(torch.zeros(1, 1, 5, 5), 4), TypeError, "`outputs` must be omniconv.groups.Samples"),
        (lambda layer: layer(torch.zeros(1, 1, 5, 5), spacing=0.0), ValueError, "`spacing` must be"),
        (lambda _: LiftingProduct(1, 2, (5, 5, 5), SO2(), 4), ValueError, "`size` must"),
        (lambda _: LiftingProduct(1, 2, 5, GROUPLESS, 4), TypeError, "`group` must be"),
        (lambda _: LiftingProduct(1, 2, 5, SO2()), ValueError, "`samples` must be given"),
        (lambda _: LiftingProduct(1, 2, 5, SO2(), 4, reach=0), ValueError, "`reach` must be at least 1"),
    ],
)
def test_what_is_wrong_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(LiftingProduct(1, 2, 5, SO2(), 4, kernel=small))
