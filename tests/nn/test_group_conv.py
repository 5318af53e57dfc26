"""Convolutions on groups: exact symmetries of the grid, hand-written references, factorizations, one integral."""

from __future__ import annotations

import pytest
import torch

from omniconv.groups import Group
from omniconv.nn import GroupConv, GroupProject, LiftingConv
from omniconv.testing import assert_equivariant
from tests.cases import FACTORIZATIONS, GROUP_SAMPLES, GROUPS

TURNING = [
    "cyclic",
    "dihedral",
    "so2",
    "o2",
    "sim2",
    "cyclic-scaling",
    "so3",
    "similarities-3",
    "gl2",
    "gl2-far",
    "sl2",
]
"""Groups of which some samples map the grid to itself."""


def size_of(group: Group, *, even: bool) -> tuple[int, ...]:
    """A small grid, of different sizes per axis."""
    return ((6, 8) if even else (7, 5))[: group.dim] if group.dim < 3 else ((4, 4, 2) if even else (3, 5, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("name", TURNING)
def test_lifting_is_equivariant(name: str, even: bool, dtype: torch.dtype) -> None:
    group, count = GROUPS[name], GROUP_SAMPLES[name]
    size = size_of(group, even=even)
    for mixing in ("dense", "separable"):
        layer = LiftingConv(2, 3, size, group, count, reach=1 if group.dim == 3 else 2, mixing=mixing, dtype=dtype)
        assert_equivariant(layer, torch.randn(2, 2, *size, dtype=dtype), group, layer.samples)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factorization", FACTORIZATIONS)
@pytest.mark.parametrize("name", TURNING)
def test_every_factorization_is_equivariant(name: str, factorization: str, dtype: torch.dtype) -> None:
    group, count = GROUPS[name], GROUP_SAMPLES[name]
    size = size_of(group, even=name in ("so2", "so3"))
    reach = 1 if group.dim == 3 else 2
    channels = 1 if len(GROUPS[name].grid(count).elements) > 16 else 2
    layer = GroupConv(channels, 2, size, group, count, reach=reach, factorization=factorization, dtype=dtype)
    x = torch.randn(1, channels, len(layer.samples), *size, dtype=dtype)
    assert_equivariant(layer, x, group, layer.samples)
    assert_equivariant(lambda x: GroupProject()(layer(x)), x, group, layer.samples)
