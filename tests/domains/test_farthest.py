"""Points that are spread over a cloud: what a loop over all points chooses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omniconv.domains import farthest


def brute(points: Tensor, count: int) -> list[int]:
    """The same, a point at a time; the first of those that are tied."""
    chosen: list[int] = []
    anchors = [points.mean(0)]
    for _ in range(min(count, len(points))):
        best, found = -1.0, -1
        for i, point in enumerate(points):
            near = min(float((point - anchor).square().sum()) for anchor in anchors)
            if i not in chosen and near > best * (1 + 1e-9):
                best, found = near, i
        chosen.append(found)
        anchors = [points[i] for i in chosen]
    return chosen


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 4, 11, 15])
@pytest.mark.parametrize("ties", [False, True])
def test_it_is_what_a_loop_finds(dim: int, count: int, ties: bool) -> None:
    random = torch.Generator().manual_seed(dim)
    points = torch.rand(3, 11, dim, generator=random, dtype=torch.float64)
    points = (3 * points).round() if ties else points
    index, real = farthest(points, count)
    assert index.shape == real.shape == (3, count)
    for row in range(3):
        expected = brute(points[row], count)
        assert index[row].tolist() == expected + [0] * (count - len(expected))
        assert real[row].tolist() == [step < len(expected) for step in range(count)]


@pytest.mark.parametrize("fill", [0.0, 1e9, torch.nan, torch.inf])
def test_padded_clouds_are_what_they_are_alone(fill: float) -> None:
    counts = (9, 4, 1, 0)
    random = torch.Generator().manual_seed(0)
    points = torch.rand(4, 9, 3, generator=random)
    mask = torch.stack([torch.randperm(9, generator=random) < count for count in counts])
    points[~mask] = fill
    index, real = farthest(points, 5, mask)
    assert real.sum(1).tolist() == [5, 4, 1, 0]
    for row, count in enumerate(counts):
        names = mask[row].nonzero()[:, 0]
        alone, there = farthest(points[row, names][None], 5)
        assert there[0].tolist() == real[row].tolist()
        assert index[row][real[row]].tolist() == names[alone[0][there[0]]].tolist()
        assert count or not index[row].any()


def test_order_place_and_size_change_nothing() -> None:
    """Not even in float32, and for a lattice, where much is tied."""
    random = torch.Generator().manual_seed(0)
    points = torch.rand(2, 20, 3, generator=random)
    order = torch.randperm(20, generator=random)
    index, shuffled = farthest(points, 8)[0], farthest(points[:, order], 8)[0]
    assert torch.equal(order[shuffled], index)
    lattice = torch.cartesian_prod(*[torch.arange(3.0)] * 3)[None]
    once = farthest(lattice, 27)[0]
    assert torch.equal(farthest(0.1 * lattice.double() + 0.7, 27)[0], once)
    assert once[0].sort().values.tolist() == list(range(27))
    assert torch.equal(farthest(lattice, 5)[0], once[:, :5])


def test_equal_points_are_each_taken_once() -> None:
    index, real = farthest(torch.ones(1, 4, 2), 6)
    assert index.tolist() == [[0, 1, 2, 3, 0, 0]]
    assert real.tolist() == [[True] * 4 + [False] * 2]


def test_nothing() -> None:
    index, real = farthest(torch.zeros(2, 0, 3), 4)
    assert index.shape == (2, 4)
    assert not real.any()
    assert farthest(torch.zeros(0, 5, 3), 4)[0].shape == (0, 4)


def test_half_precision() -> None:
    points = torch.rand(1, 12, 3).half()
    assert torch.equal(farthest(points, 5)[0], farthest(points.double(), 5)[0])


def test_bad_input() -> None:
    points = torch.zeros(1, 4, 2)
    with pytest.raises(ValueError, match="`count` must be at least 1; got 0"):
        farthest(points, 0)
    with pytest.raises(TypeError, match="`count` must be an integer"):
        farthest(points, 2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`positions` must be \(batch, points, dim\)"):
        farthest(points[0], 2)
    with pytest.raises(TypeError, match="`positions` must hold floating-point numbers"):
        farthest(points.long(), 2)
    with pytest.raises(ValueError, match="`positions` must be finite where they are not masked"):
        farthest(points * torch.nan, 2)
    with pytest.raises(ValueError, match=r"`mask` must be bool \(1, 4\)"):
        farthest(points, 2, torch.ones(1, 4))
