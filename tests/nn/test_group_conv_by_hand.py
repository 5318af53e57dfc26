"""Lifting and group convolutions against others that are written by hand, or made of other parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv.groups import O2, SO2, Cyclic, Dihedral, Group, Product, Samples, Scaling
from omniconv.kernels import Gabor, Kernel, Table
from omniconv.nn import GroupConv, LiftingConv
from omniconv.nn._group_layer import GroupLayer
from omniconv.supports import Full
from omniconv.testing import assert_close
from tests.cases import FACTORIZATIONS
from tests.nn.group_makers import F64, relative_error

EXACT = 1e-12
small = partial(Gabor, hidden=4, depth=1)

Pose = tuple[int, int]
"""Quarter turns, and 1 for a rotation or -1 for a reflection of the last axis before it."""

P4: list[Pose] = [(turns, 1) for turns in range(4)]
P4M: list[Pose] = P4 + [(turns, -1) for turns in range(4)]


def posed(image: Tensor, pose: Pose) -> Tensor:
    """The image, or the filter, in that pose."""
    turns, sign = pose
    return torch.rot90(image.flip(-1) if sign < 0 else image, turns, (-2, -1))


def seen_from(first: Pose, second: Pose) -> Pose:
    """first^-1 second."""
    return first[1] * (second[0] - first[0]) % 4, first[1] * second[1]


def correlate_reversed(x: Tensor, filters: Tensor) -> Tensor:
    """Convolution of (batch, in, *size) with (out, in, 3, 3) by the framework."""
    return F.conv2d(x, filters.flip(-2, -1), padding=filters.shape[-1] // 2)


def randomized(layer: GroupLayer) -> GroupLayer:
    """The layer with a bias that is not zero."""
    assert layer.bias is not None
    nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize(("group", "poses"), [(Cyclic(4), P4), (Dihedral(4), P4M)], ids=["p4", "p4m"])
def test_lifting_with_a_table_is_the_lifting_of_cohen_and_welling(group: Group, poses: list[Pose]) -> None:
    layer = randomized(LiftingConv(2, 3, (6, 7), group, kernel=Table, support=Full, reach=1, dtype=F64))
    x = torch.randn(2, 2, 6, 7, dtype=F64)
    taps = layer.get_parameter("steps.0.kernel.taps").reshape(3, 3, 3, 2).permute(2, 3, 0, 1)  # out, in, y, x
    expected = torch.stack([correlate_reversed(x, posed(taps, pose)) for pose in poses], 2)
    assert layer.bias is not None
    assert_close(layer(x), layer.gain * expected + layer.bias.reshape(-1, 1, 1, 1), tolerance=EXACT)


@pytest.mark.parametrize(("group", "poses"), [(Cyclic(4), P4), (Dihedral(4), P4M)], ids=["p4", "p4m"])
def test_a_group_convolution_with_a_table_is_that_of_cohen_and_welling(group: Group, poses: list[Pose]) -> None:
    layer = randomized(GroupConv(2, 3, (6, 7), group, kernel=Table, support=Full, reach=1, dtype=F64))
    x = torch.randn(2, 2, len(poses), 6, 7, dtype=F64)
    taps = layer.get_parameter("steps.0.kernel.taps")  # y, x, cosine, sine, (sign,) out in
    taps = taps.unflatten(-1, (3, 2)).movedim((-2, -1), (0, 1))
    expected = []
    for h in poses:
        y = torch.zeros(())
        for index, g in enumerate(poses):
            turns, sign = seen_from(h, g)
            cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][turns]
            at = taps[..., cosine + 1, sine + 1] if len(poses) == 4 else taps[..., cosine + 1, sine + 1, sign + 1]
            y = y + correlate_reversed(x[:, :, index], posed(at, h)) / len(poses)
        expected.append(y)
    assert layer.bias is not None
    result = layer.gain * torch.stack(expected, 2) + layer.bias.reshape(-1, 1, 1, 1)
    assert_close(layer(x), result, tolerance=EXACT)


def test_p4_filters_are_turned_in_space_and_rolled_over_the_group() -> None:
    layer = GroupConv(2, 3, 5, Cyclic(4), kernel=Table, support=Full, reach=1, bias=False, dtype=F64)
    x = torch.randn(2, 2, 4, 5, 5, dtype=F64)
    taps = layer.get_parameter("steps.0.kernel.taps").unflatten(-1, (3, 2)).permute(4, 5, 2, 3, 0, 1)
    upright = torch.stack([taps[:, :, 2, 1], taps[:, :, 1, 2], taps[:, :, 0, 1], taps[:, :, 1, 0]], 2)
    filters = torch.stack([upright.rot90(turns, (-2, -1)).roll(turns, 2) for turns in range(4)], 1)
    y = correlate_reversed(x.flatten(1, 2), filters.flatten(2, 3).flatten(0, 1)).unflatten(1, (3, 4))
    assert_close(layer(x), layer.gain * y / 4, tolerance=EXACT)


class ProductOf(Kernel):
    """A kernel of positions and features whose values another function makes: one that is a product."""

    def __init__(self, dim: int, channels: int, *, values: Callable[[Tensor], Tensor], **where: Any):
        super().__init__(dim, channels, reach=where["reach"], causal=where["causal"])
        self.values = values

    def reset_parameters(self) -> None:
        pass

    def forward(self, positions: Tensor) -> Tensor:
        return self.values(positions).flatten(-2)


def product(layer: GroupLayer) -> Callable[[Tensor], Tensor]:
    """The kernel of a factorized layer, (*points, out, in), written out."""
    steps, dim = [step.get_submodule("") for step in layer.chain], layer.dim

    def channels(step: nn.Module) -> Tensor:
        return step.get_parameter("linear.weight")

    def kernel(step: nn.Module, name: str = "kernel") -> Callable[[Tensor], Tensor]:
        return step.get_submodule(name)

    def each_pair(values: Tensor) -> Tensor:
        return values.unflatten(-1, (layer.out_channels, layer.in_channels))

    products: dict[str, Callable[[Tensor], Tensor]] = {
        "group-separable": lambda p: (
            each_pair(kernel(steps[0])(p[..., :dim])) * each_pair(kernel(steps[0], "group_kernel")(p[..., dim:]))
        ),
        "separable": lambda p: each_pair(kernel(steps[0])(p[..., dim:])) * kernel(steps[1])(p[..., :dim])[..., None],
        "depthwise-separable": lambda p: channels(steps[0]) * kernel(steps[1])(p)[..., None],
        "depthwise-group-separable": lambda p: (
            channels(steps[0]) * (kernel(steps[1])(p[..., dim:]) * kernel(steps[2])(p[..., :dim]))[..., None]
        ),
        "lifting": lambda p: channels(steps[0]) * kernel(steps[1])(p)[..., None],
    }
    return products[getattr(layer, "factorization", "lifting")]


FACTORED = [name for name in FACTORIZATIONS if name != "none"]
SIM2 = Product((SO2(), Scaling(2, high=4.0)))


@pytest.mark.parametrize(("group", "count"), [(SO2(), 5), (O2(), 6), (SIM2, (3, 2))], ids=["so2", "o2", "sim2"])
@pytest.mark.parametrize("factorization", FACTORED)
def test_a_factorized_layer_is_the_layer_of_the_product(factorization: str, group: Group, count: Any) -> None:
    make = partial(GroupConv, *(2, 3, (6, 7), group, count), reach=2, bias=False, dtype=F64)
    factored = make(kernel=small, factorization=factorization)
    joint = make(kernel=partial(ProductOf, values=product(factored)))
    joint.gain.copy_(factored.gain)
    x = torch.randn(2, 2, len(factored.samples), 6, 7, dtype=F64)
    assert_close(factored(x), joint(x), tolerance=EXACT)


@pytest.mark.parametrize(("group", "count"), [(SO2(), 5), (SIM2, (3, 2))], ids=["so2", "sim2"])
def test_a_separable_lifting_is_the_lifting_of_the_product(group: Group, count: Any) -> None:
    make = partial(LiftingConv, *(2, 3, (6, 7), group, count), reach=2, bias=False, dtype=F64)
    separable = make(kernel=small, mixing="separable")
    dense = make(kernel=partial(ProductOf, values=product(separable)))
    dense.gain.copy_(separable.gain)
    x = torch.randn(2, 2, 6, 7, dtype=F64)
    assert_close(separable(x), dense(x), tolerance=EXACT)


def matrix_of(angle: float, sign: float, scale: float) -> Tensor:
    """A rotation from the first axis towards the second after a reflection of the second, and a scaling."""
    t = torch.tensor(angle, dtype=F64)
    return scale * torch.stack([torch.stack([t.cos(), -sign * t.sin()]), torch.stack([t.sin(), sign * t.cos()])])


def lags(window: int) -> Tensor:
    line = torch.arange(-window, window + 1, dtype=F64)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)


def upright_taps(layer: GroupLayer, matrix: Tensor, window: int) -> Tensor:
    """|det|^-1 k(h^-1 lag / reach) m(h^-1 lag / reach), (out, in, *kernel), for the kernel of space."""
    positions = (lags(window) @ torch.linalg.inv(matrix).T) / layer.reach
    inside = (positions.norm(dim=-1) <= 1 + 1e-6).to(F64) / torch.linalg.det(matrix).abs()
    kernel = layer.get_submodule("steps.0.kernel")
    values = kernel(positions) * (layer.support(positions) * inside)[..., None]
    return values.unflatten(-1, (layer.out_channels, layer.in_channels)).movedim((-2, -1), (0, 1))


MOVING: list[tuple[Group, Any, Callable[[Tensor], Tensor]]] = [
    (SO2(), 4, lambda h: matrix_of(h[0].item(), 1.0, 1.0)),
    (O2(), 4, lambda h: matrix_of(h[0].item(), h[1].item(), 1.0)),
    (SIM2, (4, 2), lambda h: matrix_of(h[0].item(), 1.0, h[1].item())),
]


@pytest.mark.parametrize(("group", "count", "matrix"), MOVING, ids=["so2", "o2", "sim2"])
def test_lifting_to_any_elements_turns_the_kernel_by_them(
    group: Group, count: Any, matrix: Callable[[Tensor], Tensor]
) -> None:
    layer = LiftingConv(2, 3, (9, 10), group, count, kernel=small, reach=2, bias=False, dtype=F64)
    outputs = group.draw(5, generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, 2, 9, 10, dtype=F64)
    expected = [correlate_reversed(x, upright_taps(layer, matrix(h), 8)) for h in outputs.elements]
    assert_close(layer(x, outputs), layer.gain * torch.stack(expected, 2), tolerance=EXACT)


@pytest.mark.parametrize(("group", "count", "matrix"), MOVING, ids=["so2", "o2", "sim2"])
def test_a_group_convolution_at_moved_elements_turns_the_kernel_in_space_alone(
    group: Group, count: Any, matrix: Callable[[Tensor], Tensor]
) -> None:
    """Elements see one another as before: what changes from h to g h is the pose of the kernel of space."""
    layer = GroupConv(
        *(2, 3, (9, 10), group, count), kernel=small, factorization="group-separable", reach=2, bias=False, dtype=F64
    )
    g = group.draw(1, generator=torch.Generator().manual_seed(1)).elements
    moved = Samples(group.compose(g, layer.samples.elements), layer.samples.weights)
    x = torch.randn(2, 2, len(moved), 9, 10, dtype=F64)
    h, inputs = layer.samples.elements, layer.samples.weights
    values = layer.get_submodule("steps.0.group_kernel")(group.describe(group.relative(h[:, None], h)))
    between = values.unflatten(-1, (3, 2)) * inputs[:, None, None]  # outputs, inputs, out, in
    expected = []
    for index, element in enumerate(moved.elements):
        mixed = upright_taps(layer, matrix(element), 8)[:, :, None] * between[index].permute(1, 2, 0)[..., None, None]
        expected.append(correlate_reversed(x.flatten(1, 2), mixed.flatten(1, 2)))
    assert_close(layer(x, moved, moved), layer.gain * torch.stack(expected, 2), tolerance=EXACT)


def test_elements_moved_by_a_quarter_turn_are_the_same_elements_in_another_order() -> None:
    lifting = LiftingConv(1, 2, 7, SO2(), 8, reach=2, dtype=F64)
    layer = GroupConv(2, 2, 7, SO2(), 8, reach=2, dtype=F64)
    quarter = torch.tensor([torch.pi / 2], dtype=F64)
    moved = Samples(SO2().compose(quarter, layer.samples.elements), layer.samples.weights)
    y = lifting(torch.randn(2, 1, 7, 7, dtype=F64))
    image = torch.randn(2, 1, 7, 7, dtype=F64)
    assert relative_error(lifting(image, moved), lifting(image).roll(-2, 2)) < EXACT
    assert relative_error(layer(y, outputs=moved), layer(y).roll(-2, 2)) < EXACT
    assert relative_error(layer(y.roll(-2, 2), inputs=moved), layer(y)) < EXACT
    assert relative_error(layer(y, inputs=moved), layer(y)) > 0.1
