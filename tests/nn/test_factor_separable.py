"""Kernels with a factor for each factor of the group, and kernels that end on the group."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.export import bake
from omniconv.groups import SO2, Cyclic, Product, Samples, Scaling
from omniconv.nn import GroupConv, LiftingConv
from omniconv.testing import assert_close, assert_equivariant

F64 = torch.float64
SIM2 = Product((SO2(), Scaling(2, high=4.0)))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_it_is_equivariant(dtype: torch.dtype) -> None:
    layer = GroupConv(2, 3, (6, 5), SIM2, (4, 3), reach=1, factorization="factor-separable", dtype=dtype)
    assert_equivariant(layer, torch.randn(2, 2, 12, 6, 5, dtype=dtype), SIM2, layer.samples)


def test_it_is_the_product_of_its_factors_written_by_hand() -> None:
    layer = GroupConv(2, 3, (6, 5), SIM2, (4, 3), reach=1, factorization="factor-separable", bias=False, dtype=F64)
    turning, scaling, space = layer.chain
    x = torch.randn(1, 2, 12, 6, 5, dtype=F64)
    angles, scales = SO2().grid(4).elements[:, 0], Scaling(2, high=4.0).grid(3).elements[:, 0]
    turned = angles[None] - angles[:, None]  # of the input as seen from the output
    kernel_1 = turning.kernel(torch.stack([turned.cos(), turned.sin()], -1)).unflatten(-1, (3, 2))  # type: ignore[operator]
    kernel_2 = scaling.kernel((scales[None] / scales[:, None]).log()[..., None] / math.log(4.0))  # type: ignore[operator]
    mixed = torch.einsum("hgoc,tso,bcgsyx->bohtyx", kernel_1 / 4, kernel_2 / 3, x.unflatten(2, (4, 3)))
    where = layer._poses(layer.samples, layer.samples, None)
    taps = (space.kernel(where.positions) * where.volume[..., None]).movedim(-1, 0).flatten(0, 1)  # type: ignore[operator]
    expected = layer._convolve(mixed.flatten(2, 3).flatten(1, 2), taps * layer.gain).unflatten(1, (3, 12))
    assert_close(layer(x), expected, tolerance=1e-12)


def test_three_factors_and_baking() -> None:
    group = Product((Cyclic(4), Scaling(2, high=2.0), Cyclic(2)))
    layer = GroupConv(2, 3, 5, group, (4, 2, 2), reach=1, factorization="factor-separable", dtype=F64).eval()
    x = torch.randn(2, 2, 16, 5, 5, dtype=F64)
    assert_close(bake(layer)(x), layer(x), tolerance=1e-12)
    with torch.no_grad():
        noise = torch.randn(200, 2, 16, 5, 5, dtype=F64)
        assert 0.7 < layer(noise).var().item() < 1.4


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match='`factorization` "factor-separable" needs a Product'):
        GroupConv(1, 1, 5, SO2(), 4, factorization="factor-separable")
    with pytest.raises(ValueError, match='`sampling` "independent"'):
        GroupConv(1, 1, 5, SIM2, (4, 2), factorization="factor-separable", sampling="independent")


def by_hand(group: Product, x: Tensor, inputs: Samples, outputs: Samples, layer: GroupConv) -> Tensor:
    """The layer as a sum over all pairs of samples, whatever their order; space is left to the layer's last step."""
    turning, scaling, space = layer.chain
    seen = group.describe(group.relative(outputs.elements[:, None], inputs.elements))
    first = turning.kernel(seen[..., :2]).unflatten(-1, (3, 2))  # type: ignore[operator]
    mixed = torch.einsum("hgoc,hgo,g,bcgyx->bohyx", first, scaling.kernel(seen[..., 2:]), inputs.weights, x)  # type: ignore[operator]
    where = layer._poses(inputs, outputs, None)
    taps = (space.kernel(where.positions) * where.volume[..., None]).movedim(-1, 0).flatten(0, 1)  # type: ignore[operator]
    return layer._convolve(mixed.flatten(1, 2), taps * layer.gain).unflatten(1, (3, len(outputs)))


def test_grids_that_are_offset_or_moved_are_taken() -> None:
    layer = GroupConv(2, 3, 5, SIM2, (4, 2), reach=1, factorization="factor-separable", bias=False, dtype=F64)
    offset = SIM2.grid((4, 2), offset=torch.tensor([0.3, 0.6], dtype=F64))
    g = torch.tensor([2.5, 1.3], dtype=F64)
    moved = Samples(SIM2.compose(g.expand_as(offset.elements), offset.elements), offset.weights)
    parts = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64), torch.tensor([0.3, 0.7], dtype=F64)
    uneven = Samples(moved.elements, torch.kron(*parts))
    x = torch.randn(1, 2, 8, 5, 5, dtype=F64)
    for inputs, outputs in ((offset, moved), (moved, offset), (uneven, uneven)):
        assert_close(layer(x, inputs, outputs), by_hand(SIM2, x, inputs, outputs, layer), tolerance=1e-12)


@pytest.mark.parametrize("kind", ["in another order", "with a weight", "of other counts", "more", "drawn"])
def test_samples_that_are_no_product_of_the_counts_are_named(kind: str) -> None:
    layer = GroupConv(2, 3, 5, SIM2, (4, 4), reach=1, factorization="factor-separable", dtype=F64)
    grid = SIM2.grid((4, 4))
    order = torch.arange(16).reshape(4, 4).T.flatten()
    other = {
        "in another order": Samples(grid.elements[order], grid.weights[order]),
        "with a weight": Samples(grid.elements, torch.linspace(0.5, 1.5, 16, dtype=F64) ** 2 / 16),
        "of other counts": SIM2.grid((8, 2)),
        "more": SIM2.grid((8, 4)),
        "drawn": SIM2.draw(16, generator=torch.Generator().manual_seed(0)),
    }[kind]
    x = torch.randn(1, 2, len(other), 5, 5, dtype=F64)
    with pytest.raises(ValueError, match=r"`inputs` must combine \(4, 4\) elements of the factors"):
        layer(x, other)
    with pytest.raises(ValueError, match=r"`outputs` must combine \(4, 4\) elements of the factors"):
        layer(torch.randn(1, 2, 16, 5, 5, dtype=F64), grid, other)


def test_all_of_a_finite_product_and_products_in_products() -> None:
    finite = Product((Cyclic(4), Cyclic(2)))
    options: dict[str, Any] = {"reach": 1, "factorization": "factor-separable", "dtype": F64}
    assert finite.grid().counts == (4, 2)
    assert GroupConv(1, 1, 5, finite, **options)(torch.zeros(1, 1, 8, 5, 5, dtype=F64)).shape == (1, 1, 8, 5, 5)
    nested = Product((SIM2, Cyclic(2)))
    layer = GroupConv(1, 1, 5, nested, ((4, 2), 2), **options).eval()  # type: ignore[arg-type]
    x = torch.randn(1, 1, 16, 5, 5, dtype=F64)
    assert_close(bake(layer)(x), layer(x), tolerance=1e-12)


def test_learned_parts_keep_the_order() -> None:
    options: dict[str, Any] = {"reach": 1, "factorization": "factor-separable", "dtype": F64}
    layer = GroupConv(2, 3, 5, SIM2, (4, 2), bias=False, partial=0.5, **options).eval()
    part = layer.draw()
    assert part.counts == (4, 2)
    x = torch.randn(1, 2, 8, 5, 5, dtype=F64)
    assert_close(layer(x, part, part), by_hand(SIM2, x, part, part, layer), tolerance=1e-12)
    choosing = Product((Cyclic(4), Scaling(2, high=2.0)))
    assert GroupConv(2, 3, 5, choosing, (4, 2), partial=True, **options).draw().counts == (4, 2)
    with pytest.raises(ValueError, match="`partial` chooses among the components of several factors"):
        GroupConv(2, 3, 5, Product((Cyclic(4), Cyclic(2))), (4, 2), partial=True, **options)
    with pytest.raises(ValueError, match="`group_reach` is a distance over all factors"):
        GroupConv(2, 3, 5, SIM2, (4, 2), group_reach=1.0, **options)


def lifted(layer: LiftingConv, t: Tensor, width: float) -> Tensor:
    """A wave packet of that width, lifted."""
    return layer((torch.cos(1.5 * t / width) * torch.exp(-((t / width) ** 2) / 2))[None, None])


@pytest.mark.parametrize("factorization", ["none", "separable"])
def test_dilating_a_series_moves_the_scale_axis(factorization: str) -> None:
    """Up to the ends of the range of scales, with a kernel that ends on the group."""
    group, t = Scaling(1, high=32.0), torch.arange(-200, 201, dtype=F64)
    lift = LiftingConv(1, 2, 401, group, 5, reach=6, dtype=F64)
    conv = GroupConv(2, 2, 401, group, 5, reach=3, group_reach=math.log(2.0), factorization=factorization, dtype=F64)
    narrow, wide = conv(lifted(lift, t, 8.0)), conv(lifted(lift, t, 16.0))
    # Samples of the narrow signal at t are those of the wide one at 2 t, one scale up: scales 1, 2, 3 of 0 .. 4.
    error = (wide[:, :, 2:4, ::2] - narrow[:, :, 1:3, 100:301]).norm() / narrow[:, :, 1:3].norm()
    assert error < 1e-2
    away = GroupConv(2, 2, 401, group, 5, reach=3, factorization=factorization, dtype=F64)
    far = (away(lifted(lift, t, 16.0))[:, :, 2:4, ::2] - away(lifted(lift, t, 8.0))[:, :, 1:3, 100:301]).norm()
    assert far / narrow[:, :, 1:3].norm() > 5 * error


def test_a_bad_reach_on_the_group_is_named() -> None:
    with pytest.raises(ValueError, match="`group_reach`"):
        GroupConv(1, 1, 5, SO2(), 4, group_reach=0.0)
