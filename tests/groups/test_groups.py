"""Each group against its formula, written out here."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from omniconv.groups import (
    GL2,
    O2,
    SL2,
    SO2,
    SO3,
    Cyclic,
    Dihedral,
    Group,
    Product,
    Samples,
    Scaling,
    SemidirectProduct,
    Trivial,
)
from omniconv.testing.groups import check_group, near
from tests.cases import GROUPS

ANGLES = st.floats(-math.pi, math.pi)


def number(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(s=ANGLES, t=ANGLES)
def test_rotations_add_their_angles(s: float, t: float) -> None:
    product = SO2().compose(number(s), number(t))
    assert -math.pi < product.item() <= math.pi
    near(product.cos(), number(math.cos(s + t)), "cosine")
    near(product.sin(), number(math.sin(s + t)), "sine")
    x, y = SO2().act(number(s), number(math.cos(t), math.sin(t)))
    near(torch.stack([x, y]), number(math.cos(s + t), math.sin(s + t)), "a turned point")


@given(s=ANGLES, t=ANGLES, sign=st.sampled_from([1.0, -1.0]))
def test_a_reflection_is_that_of_the_second_axis_and_then_a_rotation(s: float, t: float, sign: float) -> None:
    matrix = SO2().matrix(number(s)) @ torch.diag(number(1.0, sign))
    near(O2().matrix(number(s, sign)), matrix, "matrix")
    product = O2().compose(number(s, sign), number(t, -1.0))
    near(O2().matrix(product), matrix @ O2().matrix(number(t, -1.0)), "product")


@given(axis=st.tuples(*[st.floats(-1, 1, allow_subnormal=False)] * 3), angle=st.floats(0, math.pi))
def test_rotations_of_space_turn_around_their_axis(axis: tuple[float, ...], angle: float) -> None:
    direction = number(*axis) / math.hypot(*axis) if any(axis) else number(0, 0, 1)
    x, y, z = direction.tolist()
    cross = number(0, -z, y, z, 0, -x, -y, x, 0).reshape(3, 3)
    rodrigues = torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    near(SO3().matrix(SO3().exp(angle * direction)), rodrigues, "matrix")


@given(
    angle=ANGLES, size=st.floats(-1.5, 1.5), a=st.floats(-1, 1), b=st.floats(-1, 1), scale=st.sampled_from([1.0, 1e-5])
)
def test_the_polar_chart_is_a_rotation_a_scaling_and_a_stretch(
    angle: float, size: float, a: float, b: float, scale: float
) -> None:
    a, b = scale * a, scale * b
    symmetric = number(size + a, b, b, size - a).reshape(2, 2)
    values, vectors = torch.linalg.eigh(symmetric)
    matrix = SO2().matrix(number(angle)) @ (vectors * values.exp()) @ vectors.T
    near(GL2().matrix(GL2().exp(number(angle, size, a, b))), matrix, "exp")
    log = GL2().log(matrix.flatten())
    near(log[1:], number(size, a, b), "log")
    near(log[0].cos(), number(angle)[0].cos(), "its angle")
    near(log[0].sin(), number(angle)[0].sin(), "its angle")
    near(SL2().log((matrix / math.exp(size)).flatten())[1:], number(a, b), "log of area-preserving maps")


def test_a_matrix_without_a_chart_by_the_exponential_has_polar_coordinates() -> None:
    group, matrix = GL2(), number(-2.0, 0.0, 0.0, -0.5)  # exp reaches no diag(-2, -1/2)
    near(group.exp(group.log(matrix)), matrix, "exp of log")


@pytest.mark.parametrize(("group", "order"), [(Cyclic(5), 5), (Cyclic(49), 49), (Dihedral(4), 8), (Dihedral(5), 10)])
def test_finite_groups_are_closed_and_have_as_many_elements_as_they_say(group: Group, order: int) -> None:
    elements = group.grid(order).elements
    apart = group.distance(elements[:, None], elements)
    assert bool((apart + torch.eye(order) > 1e-3).all())
    products = group.compose(elements[:, None], elements).flatten(0, 1)
    assert bool((group.distance(products[:, None], elements).amin(1) < 1e-12).all())
    drawn = group.draw(600, generator=torch.Generator().manual_seed(0)).elements
    nearest = group.distance(drawn[:, None], elements)
    assert bool((nearest.amin(1) < 1e-12).all())
    assert len(set(nearest.argmin(1).tolist())) == order
    with pytest.raises(ValueError, match=f"`count` must be {order}"):
        group.grid(order + 1)


@pytest.mark.parametrize("count", [12, 24])
def test_rotations_of_tetrahedron_and_cube_are_groups(count: int) -> None:
    group = SO3()
    elements = group.grid(count).elements
    products = group.compose(elements[:, None], elements).flatten(0, 1)
    assert bool((group.distance(products[:, None], elements).amin(1) < 1e-7).all())
    matrices = group.matrix(elements)
    near(matrices, matrices.round(), "maps of voxels to voxels")
    assert len(torch.unique(matrices.round(), dim=0)) == count


def test_similarities_are_rotations_and_scalings() -> None:
    group = Product((SO2(), Scaling(2, high=4.0)))
    near(group.matrix(number(math.pi / 2, 3.0)), number(0, -3, 3, 0).reshape(2, 2), "matrix")
    assert group.determinant(number(0.3, 3.0)).item() == pytest.approx(9.0)
    samples = group.grid((4, 2))
    assert samples.elements[:, 1].tolist() == pytest.approx([1.0, 2.0] * 4)
    assert [part.shape for part in group.parts(samples.elements)] == [(8, 1), (8, 1)]


@pytest.mark.parametrize("name", GROUPS)
def test_an_affine_group_is_a_group_that_acts_and_its_measure_is_invariant(name: str) -> None:
    group = GROUPS[name]
    affine = SemidirectProduct(group)
    generator = torch.Generator().manual_seed(0)

    def drawn() -> tuple[Tensor, Tensor]:
        shift = torch.randn(20, group.dim, generator=generator, dtype=torch.float64)
        return shift, group.draw(20, generator=generator).elements

    g, h, k = drawn(), drawn(), drawn()
    points = torch.randn(20, group.dim, generator=generator, dtype=torch.float64)
    left, right = affine.compose(affine.compose(g, h), k), affine.compose(g, affine.compose(h, k))
    near(affine.matrix(left), affine.matrix(right), "associativity")
    near(affine.matrix(affine.compose(g, h)), affine.matrix(g) @ affine.matrix(h), "matrix of a product")
    near(affine.act(affine.compose(g, h), points), affine.act(g, affine.act(h, points)), "action")
    homogeneous = torch.cat([points, torch.ones(20, 1, dtype=torch.float64)], -1).unsqueeze(-1)
    near((affine.matrix(g) @ homogeneous)[:, :-1, 0], affine.act(g, points), "homogeneous coordinates")
    identity = affine.compose(affine.inverse(g), g)
    near(affine.act(identity, points), points, "inverse")
    near(affine.matrix(affine.compose(g, affine.relative(g, h))), affine.matrix(h), "relative element")
    moved = affine.relative(affine.compose(k, g), affine.compose(k, h))
    near(affine.matrix(moved), affine.matrix(affine.relative(g, h)), "relative element after a common move")
    near(affine.matrix(affine.relative(g, h)), affine.matrix(affine.compose(affine.inverse(g), h)), "as composed")
    near(affine.matrix(affine.compose(g, affine.identity())), affine.matrix(g), "identity")
    many = affine.matrix((g[0][:, None], h[1]))
    assert many.shape == (20, 20, group.dim + 1, group.dim + 1)


@pytest.mark.parametrize("name", ["so2", "scaling-1", "sim2", "gl2", "similarities-3"])
def test_left_translations_keep_the_measure_of_an_affine_group(name: str) -> None:
    group = GROUPS[name]
    affine = SemidirectProduct(group)
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(2, group.dim, generator=generator, dtype=torch.float64)
    g, h = [(shift[i], group.draw(1, generator=generator).elements[0]) for i in range(2)]

    def moved(numbers: Tensor) -> Tensor:
        x, k = affine.compose(g, (numbers[: group.dim], group.exp(numbers[group.dim :])))
        return torch.cat([x, group.log(k)])

    jacobian = torch.autograd.functional.jacobian(moved, torch.cat([h[0], group.log(h[1])]))
    volume = torch.linalg.det(jacobian).abs()
    near(affine.density(affine.compose(g, h)) * volume, affine.density(h), "left Haar measure")


def test_the_same_offset_is_the_same_number_everywhere() -> None:
    affine, turn = SemidirectProduct(SO2()), torch.tensor([0.3])
    here, there = torch.tensor([3.0, 4.0]), torch.tensor([1027.0, 2052.0])
    near_by = affine.relative((here, turn), (here + torch.tensor([1.0, 2.0]), turn))[0]
    far_off = affine.relative((there, turn), (there + torch.tensor([1.0, 2.0]), turn))[0]
    assert torch.equal(near_by, far_off)


@pytest.mark.parametrize("radius", [9e-5, 5e-5, 1e-6, 0.0])
def test_the_series_at_the_identity_are_those_of_the_formulas(radius: float) -> None:
    direction = number(0.6, -0.8)
    stretched = GL2().exp(torch.cat([number(0, 0), radius * direction]))
    ratio = math.sinh(radius) / radius if radius else 1.0
    near((stretched[0] - stretched[3]) / 2, ratio * radius * direction[0], "stretch")
    near((stretched[0] + stretched[3]) / 2, number(math.cosh(radius))[0], "its trace")
    twice = math.sinh(2 * radius) / (2 * radius) if radius else 1.0
    near(GL2().density(torch.cat([number(1, 2), radius * direction])), number(twice)[0], "density of stretches")
    axis = radius * number(2, -1, 2) / 3
    half = (2 * math.sin(radius / 2) / radius) ** 2 if radius else 1.0
    near(SO3().density(axis), number(half)[0], "density of rotations")
    for log, a in ((GL2().log(stretched)[2:], radius * direction), (SO3().log(SO3().exp(axis)), axis)):
        size = max(radius, 5e-5)  # the last digits of 1 + r are lost
        near(log / size, a / size, "log of exp, relative to its size")


@pytest.mark.parametrize("angle", [math.pi, math.pi - 1e-9, math.pi + 1e-9, math.pi / 2])
def test_half_turns_of_space_have_coordinates_and_derivatives(angle: float) -> None:
    a = (angle * number(2, -1, 2) / 3).requires_grad_()
    turned = SO3().exp(a)
    log = SO3().log(turned)
    near(SO3().matrix(SO3().exp(log)).detach(), SO3().matrix(turned).detach(), "exp of log")
    (slope,) = torch.autograd.grad(log.sum(), a)
    assert bool(slope.isfinite().all())


def test_groups_are_values() -> None:
    assert SO2() == SO2()
    assert Cyclic(4) != Cyclic(8)
    assert len({Scaling(2, high=2.0), Scaling(2, high=2.0), Scaling(1, high=2.0)}) == 2
    assert "high=2.0" in repr(Scaling(2, high=2.0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Cyclic(0), "`order` must be at least 1"),
        (lambda: Dihedral(2.5), "`corners` must be an integer"),  # type: ignore[arg-type]
        (lambda: Scaling(2, high=1.0), "`high` must be finite and above 1"),
        (lambda: GL2(shear=0.0), "`shear` must be finite and above 0"),
        (lambda: SL2(shear=math.inf), "`shear` must be finite"),
        (lambda: Trivial(0), "`dim` must be at least 1"),
        (lambda: O2().grid(3), "`count` must be even"),
        (lambda: SO2().grid(0), "`count` must be at least 1"),
        (lambda: SO2().grid((4, 2)), "`count` must be an integer"),
        (lambda: Trivial(2).grid(2), "`count` must be 1"),
        (lambda: GL2().grid(8), "`count` must be 3 numbers .* of rotations, scales, stretches"),
        (lambda: Product((SO2(), Scaling(2))).grid(8), "`count` must be 2 numbers, one per factor"),
        (lambda: Product((SO2(), Scaling(1))), "`factors` must act on the same space"),
        (lambda: Product((SO2(), O2())), "`factors` must commute"),
        (lambda: Product((SO2(),)), "`factors` must be a tuple of two groups or more"),
        (lambda: SO2().compose(torch.zeros(2), torch.zeros(1)), "`g` must have 1 numbers"),
        (lambda: SO2().act(torch.zeros(1), torch.zeros(3)), "`x` must have 2 numbers"),
        (lambda: SO2().exp(torch.zeros(1, dtype=torch.int64)), "`a` must hold floating-point numbers"),
        (lambda: SO2().grid(4, offset=torch.zeros(2)), "`offset` must have 1 numbers"),
        (lambda: SO2().grid(4, offset=torch.zeros(3, 1)), r"`offset` must be 1 numbers in \[0, 1\)"),
        (lambda: SO2().grid(4, offset=torch.ones(1)), r"`offset` must be 1 numbers in \[0, 1\)"),
        (lambda: SO2().grid(), "`count` must be given"),
        (lambda: SemidirectProduct(SO2()).inverse((torch.zeros(1), torch.zeros(1))), "`g` must be a pair"),
        (
            lambda: SemidirectProduct(SO2()).inverse((1.0, 2.0)),  # type: ignore[arg-type]
            "`g` must be a pair of tensors.* got float 1.0 and float",
        ),
        (lambda: SemidirectProduct(SO2()).act(torch.zeros(2), torch.zeros(2)), "`g` must be a pair .* got a float32"),  # type: ignore[arg-type]
        (
            lambda: SemidirectProduct(SO2()).compose((torch.zeros(2), torch.zeros(1)), (1.0, 2.0)),  # type: ignore[arg-type]
            "`h` must be a pair",
        ),
        (lambda: SO2().draw(3, generator=None), "`generator` must be a torch.Generator; got NoneType None"),  # type: ignore[arg-type]
        (lambda: Samples(torch.zeros(4, 1), torch.ones(3) / 3), r"`weights` must be \(4,\), .* got a float32 tensor"),
        (lambda: Samples(torch.zeros(4, 1), torch.ones(4, 1)), r"`weights` must be \(4,\)"),
        (lambda: Samples(torch.zeros(4), torch.ones(4)), r"`elements` must be \(count, numbers\)"),
        (lambda: Samples(torch.zeros(4, 1), torch.ones(4) / 4, torch.ones(2)), r"`kept` must be \(4,\)"),
        (lambda: Samples(torch.zeros(4, 1), [0.25] * 4), r"`weights` must be \(4,\), .* got list"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_named(make: object, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        make()  # type: ignore[operator]


class Skewed(SO2):
    """Rotations whose product is off by a little."""

    def _compose(self, g: Tensor, h: Tensor) -> Tensor:
        return super()._compose(g, h) + 1e-6 * g**2 * h


class Uneven(SO2):
    """A density that is not invariant."""

    def _density(self, a: Tensor) -> Tensor:
        return 1 + 0.01 * a[..., 0] ** 2


class Cut(SO2):
    """Features with a cut at half a turn."""

    def _describe(self, g: Tensor) -> Tensor:
        return torch.cat([g.cos(), g / math.pi], -1)


class CutAtTheIdentity(SO2):
    """The published features: 0 and a whole turn are the ends."""

    def _describe(self, g: Tensor) -> Tensor:
        return torch.cat([g.cos(), torch.remainder(g, 2 * math.pi) / math.pi - 1], -1)


class Lopsided(SO2):
    """Draws that have another measure than the density says."""

    def _at(self, uniform: Tensor) -> Tensor:
        return super()._at(uniform**2)


class Kinked(SO2):
    """A chart whose derivative does not exist at the identity."""

    def _density(self, a: Tensor) -> Tensor:
        return 1 + 0 * (a[..., 0] ** 2).sqrt()


class Reversed(O2):
    """The product in the other order."""

    def _compose(self, g: Tensor, h: Tensor) -> Tensor:
        return super()._compose(h, g)


@pytest.mark.parametrize(
    ("group", "words"),
    [(Skewed(), "associativity|identity|inverse"), (Uneven(), "Haar density"), (Cut(), "continuous"),
     (CutAtTheIdentity(), "continuous"), (Lopsided(), "uniform numbers stand for"), (Kinked(), "finite"),
     (Reversed(), "matrix of a product")],
)  # fmt: skip
def test_the_laws_find_what_is_wrong(group: Group, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_group(group)


@pytest.mark.parametrize("group", [None, "SO2", SO2])
def test_a_semidirect_product_is_of_a_group(group: Any) -> None:
    with pytest.raises(TypeError, match=r"`group` must be an omniconv.groups.Group"):
        SemidirectProduct(group)
