"""Neighbours: what all distances say, whichever way they are found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omniconv.domains import neighbours
from omniconv.domains.neighbours import (
    Edges,
    lattice,
    nearest,
    nearest_nodes,
    within,
    within_by_cells,
    within_of_all,
)

BACKENDS = ["torch", "scipy"]


def clouds(dim: int, targets: int, sources: int, ties: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random ones, or with many equal distances."""
    random = torch.Generator().manual_seed(seed)
    sizes = ((2, targets, dim), (2, sources, dim))
    if ties:
        first, second = (torch.randint(-2, 3, size, generator=random).double() / 2 for size in sizes)
    else:
        first, second = (torch.rand(size, generator=random, dtype=torch.float64) * 2 - 1 for size in sizes)
    return first, second


def triples(edges: Edges) -> list[tuple[int, int, int]]:
    return list(zip(edges.batch.tolist(), edges.target.tolist(), edges.source.tolist(), strict=True))


def brute(targets: Tensor, sources: Tensor, count: int) -> list[tuple[int, int, int]]:
    found = []
    for row in range(len(targets)):
        for i, point in enumerate(targets[row]):
            far = [(float((point - other).square().sum()), *other.tolist(), j) for j, other in enumerate(sources[row])]
            found += sorted((row, i, int(near[-1])) for near in sorted(far)[:count])
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("targets", "sources", "count"), [(7, 9, 4), (1, 30, 3), (5, 3, 8), (4, 12, 12)])
def test_nearest(backend: str, ties: bool, dim: int, targets: int, sources: int, count: int) -> None:
    pytest.importorskip("scipy")
    first, second = clouds(dim, targets, sources, ties)
    assert triples(nearest(first, second, count, backend=backend)) == brute(first, second, count)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), ties=st.booleans(), radius=st.sampled_from([0.5, 1.0, 0.37]))
@pytest.mark.parametrize("norm", ["euclidean", "largest"])
def test_within(norm: str, seed: int, ties: bool, radius: float) -> None:
    pytest.importorskip("scipy")
    first, second = clouds(2, 6, 11, ties, seed)
    radii = (radius, 2 * radius)
    offsets = (first[:, :, None] - second[:, None]) / torch.tensor(radii, dtype=torch.float64)
    size = offsets.square().sum(-1) if norm == "euclidean" else offsets.abs().amax(-1)
    expected = [tuple(row) for row in (size <= 1).nonzero().tolist()]
    for backend in BACKENDS:
        assert triples(within(first, second, radii, norm=norm, backend=backend)) == expected


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    ties=st.booleans(),
    dim=st.integers(1, 3),
    radius=st.sampled_from([0.25, 0.5, 1.0, 0.37, 7.0, 1e-12]),
    far=st.sampled_from([0.0, 1e3, 1e9]),
)
@pytest.mark.parametrize("norm", ["euclidean", "largest"])
def test_cells_give_what_all_offsets_give(
    norm: str, seed: int, ties: bool, dim: int, radius: float, far: float
) -> None:
    (first, _), (second, _) = clouds(dim, 13, 17, ties, seed)
    second[-1] += far  # one of the points may be far away
    radii = radius * torch.arange(1.0, dim + 1, dtype=torch.float64)
    pairs = [find(first, second, radii, norm) for find in (within_by_cells, within_of_all)]
    found, expected = (sorted(zip(target.tolist(), source.tolist(), strict=True)) for target, source in pairs)
    assert found == expected


def test_many_points_are_sorted_into_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = clouds(3, 700, 800, False)
    expected = triples(within(first, second, 0.2, backend="scipy"))
    assert triples(within(first, second, 0.2, backend="torch")) == expected
    monkeypatch.setattr(neighbours, "ELEMENTS", 2**10)  # in many parts
    assert triples(within(first, second, 0.2, backend="torch")) == expected
    monkeypatch.setattr(neighbours, "within_of_all", None)
    assert triples(within(first, second, 0.2, backend="torch")) == expected


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 30), ties=st.booleans(), scale=st.sampled_from([0.3, 1.0, 1.7]))
@pytest.mark.parametrize("resolution", [(9,), (5, 2), (4, 3, 6)])
def test_nodes_are_the_nearest_of_all(
    resolution: tuple[int, ...], seed: int, count: int, ties: bool, scale: float
) -> None:
    """On nodes, between them, on the boundary and beyond it."""
    points, _ = clouds(len(resolution), 6, 1, ties, seed)
    nodes = lattice(resolution).reshape(1, -1, len(resolution)).expand(2, -1, -1)
    found = nearest_nodes(scale * points, resolution, count)
    assert triples(found) == triples(nearest(scale * points, nodes, count, backend="torch"))
    assert found.shape == (2, 6, nodes.shape[1])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 30),
    far=st.sampled_from([3.0, 1e3, 1e8, 1e170]),
    axes=st.integers(1, 7),
)
@pytest.mark.parametrize("resolution", [(9,), (5, 2), (4, 3, 6)])
def test_nodes_of_far_points_are_the_nearest_of_all(
    resolution: tuple[int, ...], seed: int, count: int, far: float, axes: int
) -> None:
    """Far on some axes or on all; also where all nodes are equally far in float64, and a few points at a time."""
    dim = len(resolution)
    points, _ = clouds(dim, 6, 1, False, seed)
    points = torch.where(torch.tensor([bool(axes >> axis & 1) for axis in range(dim)]), far * points, points)
    nodes = lattice(resolution).reshape(1, -1, dim).expand(2, -1, -1)
    expected = triples(nearest(points, nodes, count, backend="torch"))
    assert triples(nearest_nodes(points, resolution, count)) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "ELEMENTS", 40)
        assert triples(nearest_nodes(points, resolution, count)) == expected


def test_far_points_look_at_few_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing on one axis does not widen the window on all; beside an edge the nearest are in a row."""
    held: list[int] = []
    distances = neighbours.window_distances

    def counted(points: Tensor, axes: list[Tensor], sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        squares, index = distances(points, axes, sizes)
        held.append(squares.numel())
        return squares, index

    monkeypatch.setattr(neighbours, "window_distances", counted)
    points = torch.rand(1, 500, 3, dtype=torch.float64) * 2 - 1
    for far in ((0.0, 0.0, 0.0), (20.0, 0.0, 0.0), (0.0, -900.0, 3.0)):
        held.clear()
        nearest_nodes(points + torch.tensor(far), 33, 9)
        assert sum(held) <= 500 * (16**3 + 8**3 + 4**3)


def test_masked_points_are_not_there() -> None:
    first, second = clouds(3, 5, 8, False)
    first[0, 3:], second[1, ::2] = torch.nan, torch.inf
    seen, there = first.isfinite().all(-1), second.isfinite().all(-1)
    whole = nearest(first, second, 3, target_mask=seen, source_mask=there)
    for row in range(2):
        names, known = seen[row].nonzero()[:, 0], there[row].nonzero()[:, 0]
        alone = nearest(first[row, names][None], second[row, known][None], 3)
        mine = whole.batch == row
        assert torch.equal(whole.target[mine], names[alone.target])
        assert sorted(whole.source[mine].tolist()) == sorted(known[alone.source].tolist())
    assert whole.counts().tolist() == [[3, 3, 3, 0, 0], [3, 3, 3, 3, 3]]
    nodes = nearest_nodes(first, 4, 2, mask=seen)
    assert nodes.counts().tolist() == [[2, 2, 2, 0, 0], [2] * 5]


def test_large_clouds_agree() -> None:
    pytest.importorskip("scipy")
    random = torch.Generator().manual_seed(3)
    points = torch.rand(1, 700, 3, generator=random)
    for make in (
        lambda way: nearest(points, points, 9, backend=way),
        lambda way: within(points, points, 0.2, backend=way),
    ):
        auto, plain = make("auto"), make("torch")
        assert torch.equal(auto.source, plain.source)
        assert torch.equal(auto.target, plain.target)


@pytest.mark.parametrize("elements", [neighbours.ELEMENTS, 500])
def test_equal_distances_are_settled_in_the_tree(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Voxels, some of them several times, also a few at a time; all distances are not looked at."""
    pytest.importorskip("scipy")
    random = torch.Generator().manual_seed(0)
    points = torch.randint(0, 9, (2, 600, 3), generator=random).double()
    expected = triples(nearest(points, points, 9, backend="torch"))
    monkeypatch.setattr(neighbours, "ELEMENTS", elements)
    monkeypatch.setattr(neighbours, "nearest_of_all", None)
    assert triples(nearest(points, points, 9, backend="scipy")) == expected


def test_edges() -> None:
    first, second = clouds(2, 4, 6, False)
    edges = nearest(first, second, 2)
    back = edges.transposed()
    assert back.shape == (2, 6, 4)
    assert sorted((b, s, t) for b, t, s in triples(edges)) == triples(back)
    both = edges.united(nearest(second, first, 1).transposed())
    assert set(triples(both)) == set(triples(edges)) | set(triples(nearest(second, first, 1).transposed()))
    assert len(set(triples(both))) == len(both)
    with pytest.raises(ValueError, match="`other` must be of the same points"):
        edges.united(back)


def test_edges_are_checked() -> None:
    """An index that is beyond the points of a cloud would be one of the next cloud."""
    zero, one = torch.tensor([0]), torch.tensor([0, 1])
    with pytest.raises(
        ValueError, match=r"`source` must be from 0 to below 5, as `shape` \(2, 4, 5\) says; got 7 to 7"
    ):
        Edges(zero, torch.tensor([7]), zero, (2, 4, 5))
    with pytest.raises(ValueError, match="`batch` must be from 0 to below 2"):
        Edges(torch.tensor([-1]), zero, zero, (2, 4, 5))
    with pytest.raises(ValueError, match=r"must be of as many edges; got \[1, 2, 1\]"):
        Edges(zero, zero, one, (2, 4, 5))
    with pytest.raises(TypeError, match="`target` must be an int64 tensor"):
        Edges(zero, zero, torch.tensor([0.0]), (2, 4, 5))
    with pytest.raises(ValueError, match=r"`shape` must be \(batch, targets, sources\)"):
        Edges(zero, zero, zero, (2, 4))  # type: ignore[arg-type]


def test_nothing_is_near_nothing() -> None:
    nothing, some = torch.zeros(2, 0, 3), torch.zeros(2, 4, 3)
    for backend in BACKENDS:
        assert len(nearest(nothing, some, 2, backend=backend)) == 0
        assert len(nearest(some, nothing, 2, backend=backend)) == 0
        assert len(within(some, nothing, 1.0, backend=backend)) == 0
    assert len(nearest(torch.zeros(0, 4, 3), torch.zeros(0, 4, 3), 2)) == 0


def test_bad_input() -> None:
    points = torch.zeros(1, 4, 2)
    with pytest.raises(ValueError, match="`count` must be at least 1"):
        nearest(points, points, 0)
    with pytest.raises(ValueError, match="`sources` must be finite where they are not masked"):
        nearest(points, points * torch.nan, 1)
    with pytest.raises(ValueError, match=r"`targets` must be positions \(batch, points, dim\)"):
        within(points[0], points, 1.0)
    with pytest.raises(ValueError, match="must have one batch and one number of axes"):
        within(points, torch.zeros(1, 4, 3), 1.0)
    with pytest.raises(ValueError, match="`radius` must be finite and above 0"):
        within(points, points, 0.0)
    with pytest.raises(ValueError, match="`norm` must be one of"):
        within(points, points, 1.0, norm="l1")
    with pytest.raises(ValueError, match=r"`source_mask` must be bool \(1, 4\)"):
        nearest(points, points, 1, source_mask=torch.ones(1, 4))
    with pytest.raises(ValueError, match="`resolution` must be at least 2"):
        nearest_nodes(points, (3, 1), 1)
    with pytest.raises(ValueError, match="`backend` must be one of"):
        nearest(points, points, 1, backend="faiss")


@pytest.mark.parametrize(
    ("resolution", "error", "message"),
    [
        ((), TypeError, "`resolution` must be a sequence of integers"),
        (3, TypeError, "`resolution` must be a sequence of integers"),
        ("33", TypeError, "`resolution` must be a sequence of integers"),
        ((1.5,), TypeError, "`resolution` must be an integer"),
        ((0, 2), ValueError, "`resolution` must be at least 2; got 0"),
        ((3, 1), ValueError, "`resolution` must be at least 2; got 1"),
    ],
)
def test_a_lattice_has_two_nodes_per_axis(resolution: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lattice(resolution)


@pytest.mark.parametrize("positions", [None, [[0.0]], torch.zeros(3, 2), torch.zeros(1, 3, 2, dtype=torch.long)])
def test_positions_of_nearest_nodes_are_named(positions: Any) -> None:
    with pytest.raises(ValueError, match=r"`positions` must be \(batch, points, dim\)"):
        nearest_nodes(positions, 5, 2)
