"""The maximum and the mean over a group."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from omniconv.groups import SO2, Cyclic, Dihedral, Group, Samples
from omniconv.nn import GroupProject
from omniconv.testing import assert_equivariant
from tests.nn.group_makers import F64


def weighted(*weights: float) -> Samples:
    """Samples of rotations with these weights."""
    return Samples(SO2().grid(len(weights)).elements, torch.tensor(weights, dtype=F64))


@pytest.mark.parametrize("size", [(5,), (4, 3), (2, 3, 4)], ids=len)
def test_elements_that_count_alike(size: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 4, *size)
    assert torch.equal(GroupProject()(x), x.max(2).values)
    assert torch.equal(GroupProject("max")(x, weighted(0.25, 0.25, 0.25, 0.25)), x.max(2).values)
    torch.testing.assert_close(GroupProject("mean")(x), x.mean(2))
    torch.testing.assert_close(GroupProject("mean")(x, weighted(0.25, 0.25, 0.25, 0.25)), x.mean(2))


def test_the_mean_weighs_the_elements() -> None:
    x = torch.randn(2, 3, 3, 4, 5, dtype=F64)
    expected = 0.5 * x[:, :, 0] + 0.3 * x[:, :, 1] + 0.2 * x[:, :, 2]
    torch.testing.assert_close(GroupProject("mean")(x, weighted(0.5, 0.3, 0.2)), expected)


def test_the_maximum_is_over_the_elements_that_weigh_something() -> None:
    x = torch.randn(2, 3, 4, 4, 5)
    x[:, :, 1] = 1e9
    y = GroupProject()(x, weighted(0.5, 0.0, 0.25, 0.25))
    assert torch.equal(y, x[:, :, [0, 2, 3]].amax(2))
    assert y.max() < 1e9


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_stays(dtype: torch.dtype, reduce: str) -> None:
    x = torch.randn(2, 3, 4, 4, 5, dtype=dtype)
    assert GroupProject(reduce)(x).dtype == GroupProject(reduce)(x, weighted(0.5, 0.0, 0.25, 0.25)).dtype == dtype


def test_gradients_go_to_the_maximum_alone() -> None:
    x = torch.randn(1, 1, 4, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(GroupProject()(x, weighted(0.5, 0.0, 0.25, 0.25)).sum(), x)
    assert torch.isfinite(gradient).all()
    assert torch.equal(gradient.sum(2), torch.ones(1, 1, 3, 3))
    assert not gradient[:, :, 1].any()


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("group", [Cyclic(4), Dihedral(4)], ids=str)
def test_what_is_left_moves_as_images_do(group: Group, reduce: str) -> None:
    samples = group.grid()
    x = torch.randn(2, 3, len(samples), 4, 5, dtype=F64)
    assert_equivariant(GroupProject(reduce), x, group, samples)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupProject()(torch.ones(1, 2, 3)), r"`x` must be \(batch, channels, group, \*size\); got a float32"),
        (lambda: GroupProject()(torch.ones(1, 2, 3, 4), weighted(0.5, 0.5)), "`inputs` must be the 3 elements of `x`"),
        (lambda: GroupProject("median"), "`reduce` must be one of 'max', 'mean'; got 'median'"),
    ],
)
def test_bad_input_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
