"""Attentive maps and self-attention on groups: exact symmetries, sums written by hand."""

from __future__ import annotations

import pytest
import torch

from omniconv.groups import O2, SO2, Cyclic, Dihedral, Group, Samples, Scaling
from omniconv.nn import GroupAttention, GroupSelfAttention, LiftingSelfAttention
from omniconv.testing import assert_close, assert_equivariant

F64 = torch.float64
TURNING = [(SO2(), 8), (O2(), 8), (Cyclic(4), 4), (Dihedral(4), 8)]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(("group", "count"), TURNING)
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_attention_is_equivariant(group: Group, count: int, size: tuple[int, int], dtype: torch.dtype) -> None:
    x = torch.randn(2, 4, count, *size, dtype=dtype)
    for layer in (
        GroupAttention(4, size, group, count, dtype=dtype),
        GroupSelfAttention(4, 6, size, group, count, heads=2, dtype=dtype),
    ):
        assert_equivariant(layer, x, group, group.grid(count))
    lifting = LiftingSelfAttention(4, 6, size, group, count, heads=2, dtype=dtype)
    assert_equivariant(lifting, x[:, :, 0], group, group.grid(count))


def test_self_attention_is_a_softmax_over_poses_written_by_hand() -> None:
    group, size, heads, width = Cyclic(4), 3, 2, 6
    layer = GroupSelfAttention(2, 3, size, group, heads=heads, width=width, reach=1, dtype=F64)
    x = torch.randn(1, 2, 4, size, size, dtype=F64)
    q, k, v = layer.project(x)[0].chunk(3)
    angles = group.grid().elements[:, 0]
    expected = torch.zeros(width, 4, size, size, dtype=F64)
    for h in range(4):
        back = group.matrix(group.inverse(group.grid().elements[h]))
        for y in range(size):
            for z in range(size):
                where, scores, values = [], [], []
                for g in range(4):
                    for dy in (-1, 0, 1):
                        for dz in (-1, 0, 1):
                            if 0 <= y - dy < size and 0 <= z - dz < size:
                                turn = angles[g] - angles[h]
                                lag = back @ torch.tensor([dy, dz], dtype=F64)
                                e = layer.encoding(torch.cat([lag, torch.stack([turn.cos(), turn.sin()])]))
                                near = k[:, g, y - dy, z - dz] + e
                                products = (q[:, h, y, z] * near).unflatten(0, (heads, -1)).sum(1)
                                scores.append(products / (width // heads) ** 0.5)
                                values.append(v[:, g, y - dy, z - dz].unflatten(0, (heads, -1)))
                                where.append((g, dy, dz))
                shares = torch.stack(scores).softmax(0)
                expected[:, h, y, z] = (shares[..., None] * torch.stack(values)).sum(0).flatten()
    assert_close(layer(x), layer.unite(expected[None]), tolerance=1e-12)


def test_elements_that_weigh_nothing_are_not_looked_at() -> None:
    layer = GroupSelfAttention(2, 4, 5, SO2(), 4, heads=2, dtype=F64)
    grid = SO2().grid(4)
    part = Samples(grid.elements, torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=F64))
    x = torch.randn(1, 2, 4, 5, 5, dtype=F64)
    y = x.clone()
    y[:, :, 2:] = 7.0
    assert_close(layer(y, part)[:, :, :2], layer(x, part)[:, :, :2], tolerance=1e-12)


def test_self_attention_on_scales_and_series() -> None:
    group = Scaling(1, high=4.0)
    lifted = LiftingSelfAttention(1, 4, 16, group, 3, reach=2)(torch.randn(2, 1, 16))
    assert GroupSelfAttention(4, 4, 16, group, 3, reach=2)(lifted).shape == (2, 4, 3, 16)


def test_attentive_maps_suppress_what_they_mark() -> None:
    layer = GroupAttention(3, 5, SO2(), 4)
    x = torch.randn(2, 3, 4, 5, 5)
    channels = layer.channel_map(x)
    assert channels.shape == (2, 3, 4, 1, 1)
    space = layer.spatial_map(channels * x)
    assert space.shape == (2, 1, 4, 5, 5)
    assert channels.min() > 0
    assert channels.max() < 1
    assert_close(layer(x), x * (1 - channels * space))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`width` must be a multiple of `heads`"):
        GroupSelfAttention(2, 5, 5, SO2(), 4, heads=2)
    with pytest.raises(ValueError, match="`group` must act on the 3 axes"):
        GroupSelfAttention(2, 4, (5, 5, 5), SO2(), 4)
    with pytest.raises(TypeError, match="`group` must be"):
        LiftingSelfAttention(2, 4, 5, "SO2")  # type: ignore[arg-type]
    layer = GroupSelfAttention(2, 4, 5, SO2(), 4)
    for shape in ((1, 3, 4, 5, 5), (1, 2, 5, 5, 5), (1, 2, 5, 5)):
        with pytest.raises(ValueError, match=r"`x` must be \(batch, 2, 4"):
            layer(torch.zeros(shape))
    with pytest.raises(TypeError, match="dtype of the layer"):
        layer(torch.zeros(1, 2, 4, 5, 5, dtype=F64))
