"""Signals that are moved by an element: to the bit where the grid allows it, else interpolated."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.groups import GL2, O2, SO2, SO3, Cyclic, Dihedral, Group, Samples, Scaling, Trivial, transform
from omniconv.groups import Product as GroupProduct

F64 = torch.float64
QUARTER = torch.pi / 2


def element(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=F64)


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (4, 7), (1, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_quarter_turns_and_mirrors_of_images_only_move_samples(size: tuple[int, int], dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, *size, dtype=dtype)
    for turns in range(-4, 5):
        turned = torch.rot90(x, turns, (-2, -1))
        assert torch.equal(transform(x, SO2(), element(turns * QUARTER)), turned)
        assert torch.equal(transform(x, O2(), element(turns * QUARTER, 1.0)), turned)
        mirrored = torch.rot90(x.flip(-1), turns, (-2, -1))
        assert torch.equal(transform(x, O2(), element(turns * QUARTER, -1.0)), mirrored)


def test_angles_in_single_precision_are_quarter_turns_too() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(transform(x, SO2(), torch.tensor([torch.pi / 2])), torch.rot90(x, 1, (-2, -1)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quarter_turns_of_volumes_are_those_of_the_framework(axis: int) -> None:
    x = torch.randn(2, 3, 2, 4, 5)
    first, second = [(-2, -1), (-1, -3), (-3, -2)][axis]
    for turns in range(4):
        turn = SO3().exp(QUARTER * turns * torch.eye(3, dtype=F64)[axis])
        assert torch.equal(transform(x, SO3(), turn), torch.rot90(x, turns, (first, second)))


class Matrices(SO3):
    """Elements that are the nine entries of their matrix."""

    numbers = 9

    def _matrix(self, g: Tensor) -> Tensor:
        return g.unflatten(-1, (3, 3))


@pytest.mark.parametrize("axes", list(permutations(range(3))), ids=str)
def test_exchanges_and_mirrors_of_the_axes_of_volumes(axes: tuple[int, int, int]) -> None:
    """Sample by sample: what was at p is at g p, measured from the middle."""
    x = torch.randn(1, 1, 2, 3, 4)
    for signs in product((1.0, -1.0), repeat=3):
        matrix = torch.zeros(3, 3, dtype=F64)
        for row, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
            matrix[row, axis] = sign
        moved = transform(x, Matrices(), matrix.flatten())
        assert moved.shape[2:] == tuple(x.shape[2 + axis] for axis in axes)
        for index in product(*[range(n) for n in x.shape[2:]]):
            middle = [(n - 1) / 2 for n in x.shape[2:]]
            at = matrix @ torch.tensor([i - m for i, m in zip(index, middle, strict=True)], dtype=F64)
            target = [round(p.item() + (n - 1) / 2) for p, n in zip(at, moved.shape[2:], strict=True)]
            assert moved[0, 0][tuple(target)] == x[0, 0][index]


@pytest.mark.parametrize("group", [Cyclic(4), Dihedral(4), SO3()], ids=str)
def test_moving_twice_is_moving_by_the_product(group: Group) -> None:
    samples = group.grid(24 if group.dim == 3 else None)
    matrices = group.matrix(samples.elements)
    whole = [g for g, m in zip(samples.elements, matrices, strict=True) if (m - m.round()).abs().max() < 1e-9]
    x = torch.randn(1, 1, len(samples), *(3, 4, 2)[: group.dim])
    assert len(whole) >= 4
    for g, h in product(whole[:8], whole[:8]):
        once = transform(x, group, group.compose(g, h), samples)
        assert torch.equal(once, transform(transform(x, group, h, samples), group, g, samples))
    assert torch.equal(transform(x, group, group.identity(), samples), x)


def test_the_group_axis_moves_to_g_h() -> None:
    """Rotations by quarter turns: f(x, h) goes to (g x, g h)."""
    x = torch.randn(2, 3, 4, 5, 6)
    for turns in range(4):
        expected = torch.rot90(x, turns, (-2, -1)).roll(turns, 2)
        assert torch.equal(transform(x, Cyclic(4), element(turns * QUARTER), Cyclic(4).grid()), expected)


def test_the_group_axis_under_a_mirror_reverses_the_rotations() -> None:
    """A mirror M = diag(1, -1) takes R(t) to M R(t) = R(-t) M, and back."""
    x = torch.randn(2, 3, 8, 5, 6)
    expected = x[:, :, [4, 7, 6, 5, 0, 3, 2, 1]].flip(-1)
    assert torch.equal(transform(x, Dihedral(4), element(0.0, -1.0), Dihedral(4).grid()), expected)


def test_the_group_axis_moves_with_what_is_interpolated() -> None:
    x = torch.randn(1, 1, 8, 5, 5, dtype=F64)
    moved = transform(x, SO2(), element(torch.pi / 4), SO2().grid(8))
    for h in range(8):
        torch.testing.assert_close(moved[:, :, h], transform(x[:, :, h - 1], SO2(), element(torch.pi / 4)))


def blob(size: tuple[int, ...], centre: tuple[float, ...], width: float) -> Tensor:
    """A Gaussian at a place that is measured from the middle."""
    axes = [torch.arange(n, dtype=F64) - (n - 1) / 2 - c for n, c in zip(size, centre, strict=True)]
    return (-torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0) / (2 * width**2)).exp()[None, None]


def error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("size", [(41, 41), (40, 46)], ids=str)
@pytest.mark.parametrize("degrees", [45, 30, -100])
def test_a_blob_is_turned_to_where_its_centre_goes(degrees: int, size: tuple[int, int]) -> None:
    t = math.radians(degrees)
    moved = transform(blob(size, (6.0, 3.0), 4.0), SO2(), element(t))
    centre = (6 * math.cos(t) - 3 * math.sin(t), 6 * math.sin(t) + 3 * math.cos(t))
    assert error(moved, blob(size, centre, 4.0)) < 0.015
    mirrored = transform(blob(size, (6.0, 3.0), 4.0), O2(), element(t, -1.0))
    centre = (6 * math.cos(t) + 3 * math.sin(t), 6 * math.sin(t) - 3 * math.cos(t))
    assert error(mirrored, blob(size, centre, 4.0)) < 0.015


@pytest.mark.parametrize("size", [(81,), (60, 71), (41, 36, 40)], ids=len)
def test_a_blob_is_scaled_about_the_middle(size: tuple[int, ...]) -> None:
    centre = (4.0, -2.0, 3.0)[: len(size)]
    group = Scaling(len(size), high=8.0) if len(size) > 1 else Scaling(1, high=8.0)
    moved = transform(blob(size, centre, 3.0), group, element(2.0))
    expected = blob(size, tuple(2 * c for c in centre), 6.0)
    if len(size) == 3:  # cut off at the edges
        expected, moved = expected[..., 4:-4, 4:-4, 4:-4], moved[..., 4:-4, 4:-4, 4:-4]
    assert error(moved, expected) < 0.02


def test_a_blob_in_space_is_turned_about_an_axis() -> None:
    size, t = (31, 30, 29), 0.7
    moved = transform(blob(size, (4.0, 3.0, -2.0), 3.5), SO3(), SO3().exp(element(0.0, 0.0, t)))
    centre = (4 * math.cos(t) - 3 * math.sin(t), 4 * math.sin(t) + 3 * math.cos(t), -2.0)
    assert error(moved, blob(size, centre, 3.5)) < 0.02


def test_a_series_that_is_stretched_by_two_is_interpolated_between_its_samples() -> None:
    x = torch.tensor([[[0.0, 0.0, 1.0, 3.0, 2.0, 0.0, 0.0]]], dtype=F64)
    stretched = transform(x, Scaling(1, high=8.0), element(2.0))
    expected = torch.tensor([[[0.5, 1.0, 2.0, 3.0, 2.5, 2.0, 1.0]]], dtype=F64)
    torch.testing.assert_close(stretched, expected)
    squeezed = transform(x, Scaling(1, high=8.0), element(0.5))
    torch.testing.assert_close(squeezed, torch.tensor([[[0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0]]], dtype=F64))


def test_beyond_the_edges_there_is_nothing() -> None:
    moved = transform(torch.ones(1, 1, 9, 9), Scaling(2, high=8.0), torch.tensor([0.25]))[0, 0]
    assert moved[4, 4] == 1
    assert not moved[0].any()
    assert not moved[:, -1].any()


def test_the_nearest_sample_is_one_of_the_samples() -> None:
    x = torch.randn(1, 1, 6, 7)
    moved = transform(x, SO2(), element(0.5), interpolation="nearest")
    assert torch.isin(moved, torch.cat([x.flatten(), torch.zeros(1)])).all()
    assert not torch.equal(moved, transform(x, SO2(), element(0.5)))
    x = torch.arange(4.0).reshape(1, 1, 4)
    stretched = transform(x, Scaling(1, high=8.0), element(2.0), interpolation="nearest")
    assert stretched.flatten().tolist() == [1.0, 1.0, 2.0, 2.0]


def test_shears_are_not_taken_for_exchanges_of_axes() -> None:
    x = blob((41, 41), (3.0, 4.0), 4.0)
    matrix = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=F64)
    moved = transform(x, Shears(), matrix.flatten())
    line = torch.arange(41, dtype=F64) - 20
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    expected = (-((rows - columns - 3).square() + (columns - 4).square()) / 32).exp()
    assert error(moved[0, 0], expected) < 1e-5  # beyond the edges there is nothing


class Shears(SO2):
    """Elements that are the four entries of their matrix."""

    numbers = 4

    def _matrix(self, g: Tensor) -> Tensor:
        return g.unflatten(-1, (2, 2))


def test_gradients_are_moved_back() -> None:
    x = torch.randn(1, 2, 4, 4, 5, dtype=F64, requires_grad=True)
    samples, g = SO2().grid(4), element(QUARTER)
    weights = torch.randn(1, 2, 4, 5, 4, dtype=F64)
    (gradient,) = torch.autograd.grad((weights * transform(x, SO2(), g, samples)).sum(), x)
    assert torch.equal(gradient, transform(weights, SO2(), SO2().inverse(g), samples))


@pytest.mark.parametrize(
    ("group", "g", "samples"),
    [
        (SO2(), element(torch.pi / 4), SO2().grid(4)),
        (SO2(), element(0.1), SO2().grid(8)),
        (Scaling(2), element(2.0), Scaling(2).grid(3)),
        (GroupProduct((SO2(), Scaling(2))), element(QUARTER, 1.5), GroupProduct((SO2(), Scaling(2))).grid((4, 2))),
        (GL2(), GL2().exp(element(0.3, 0.0, 0.0, 0.0)), GL2().grid((4, 2, 2))),
    ],
    ids=["so2", "so2-fine", "scaling", "sim2", "gl2"],
)
def test_samples_that_are_not_mapped_to_themselves_are_refused(group: Group, g: Tensor, samples: Samples) -> None:
    x = torch.randn(1, 1, len(samples), 4, 4)
    with pytest.raises(ValueError, match=r"`g` must map the samples of .* to themselves; it takes one [\d.e-]+ away"):
        transform(x, group, g, samples)


def test_the_trivial_group_moves_nothing() -> None:
    x = torch.randn(1, 2, 1, 3, 4)
    assert torch.equal(transform(x, Trivial(2), Trivial(2).identity(), Trivial(2).grid()), x)


def mistyped(value: Any) -> Any:
    """A value of a wrong type, past the type checker."""
    return value


IMAGE = torch.ones(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: transform(IMAGE.long(), SO2(), element(0.1)), TypeError, "`x` must hold floating-point numbers"),
        (lambda: transform(mistyped([1.0]), SO2(), element(0.1)), TypeError, "`x` must be a torch.Tensor"),
        (
            lambda: transform(IMAGE[0], SO2(), element(0.1)),
            ValueError,
            r"`x` must be \(batch, channels, \*size\), 2 axes in size; got a float32 tensor of shape \(1, 4, 4\)",
        ),
        (
            lambda: transform(IMAGE, SO2(), element(0.1), SO2().grid(4)),
            ValueError,
            r"`x` must be \(batch, channels, group, \*size\)",
        ),
        (
            lambda: transform(IMAGE, SO2(), element(0.1), interpolation="cubic"),
            ValueError,
            "`interpolation` must be one of 'bilinear', 'nearest'; got 'cubic'",
        ),
        (lambda: transform(IMAGE, O2(), element(0.1)), ValueError, "`g` must be one element of O2"),
        (lambda: transform(IMAGE, SO2(), mistyped(0.1)), TypeError, "`g` must be a torch.Tensor; got float 0.1"),
    ],
)
def test_bad_input_is_named(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


EACH: list[tuple[Group, tuple[int, ...]]] = [
    (SO2(), (5, 7)),
    (O2(), (6, 6)),
    (Scaling(1, high=4.0), (9,)),
    (GL2(), (5, 6)),
    (SO3(), (4, 5, 6)),
]


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize(("group", "size"), EACH, ids=str)
def test_each_signal_is_moved_by_its_element(group: Group, size: tuple[int, ...], interpolation: str) -> None:
    x = torch.randn(4, 2, *size, dtype=F64)
    g = group.draw(4, generator=torch.Generator().manual_seed(0)).elements
    alone = [transform(x[i : i + 1], group, g[i], interpolation=interpolation) for i in range(4)]
    torch.testing.assert_close(transform(x, group, g, interpolation=interpolation), torch.cat(alone))
    assert transform(x[:0], group, g[:0]).shape == (0, 2, *size)
    assert transform(x[:0], group, g[0]).shape == (0, 2, *size)


def test_elements_of_each_signal_have_derivatives() -> None:
    x = torch.randn(3, 1, 5, 6, dtype=F64, requires_grad=True)
    angles = torch.tensor([[0.3], [-1.1], [2.2]], dtype=F64, requires_grad=True)
    torch.autograd.gradcheck(lambda x, g: transform(x, SO2(), g), (x, angles))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_signals_in_half_precision_are_moved_to_the_same_places(dtype: torch.dtype) -> None:
    axis = torch.linspace(-1, 1, 64, dtype=F64)
    x = torch.exp(-9 * ((axis[:, None] - 0.3) ** 2 + (axis + 0.2) ** 2))[None, None].to(dtype)
    moved = transform(x, SO2(), element(2.9))
    exact = transform(x.double(), SO2(), element(2.9))
    assert moved.dtype == dtype
    assert (moved.double() - exact).norm() < 4e-3 * exact.norm()


def test_elements_of_each_signal_are_refused_where_there_are_others() -> None:
    with pytest.raises(
        ValueError, match=r"`g` must be one element of SO2\(\), \(1,\), or one for each signal, \(4, 1\)"
    ):
        transform(torch.zeros(4, 1, 5, 5), SO2(), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"`g` must be one element of SO2\(\), \(1,\); got"):
        transform(torch.zeros(4, 1, 4, 5, 5), SO2(), torch.zeros(4, 1), SO2().grid(4))
