"""Which points of one cloud are near those of another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any

import torch
from torch import Tensor

from omniconv._errors import check_choice, check_integer, check_number, describe, require
from omniconv._typing import PerAxis, per_axis

Points = Annotated[Tensor, "batch points dim"]
Inside = Annotated[Tensor, "batch points, bool"]

ELEMENTS = 2**22
"""Distances that are held at a time."""

CELLS = 2**62
"""So many cells are not numbered."""

SEARCHED = 2**18
"""Pairs of a cloud from which on a tree is faster than all distances."""


CROWDED = 8
"""Where more than one in so many points may be equally far, all distances are faster than a tree."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Pairs of points, for every cloud of a batch: row `batch`, and the indices of `source` and `target`, all (edges,).

    Sorted by row, then target, then source, without duplicates. `shape`: (batch, targets, sources).
    Raises `TypeError` or `ValueError` for indices that are no int64, of unequal lengths, or beyond the shape.
    """

    batch: Tensor
    source: Tensor
    target: Tensor
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        given = {"batch": self.batch, "target": self.target, "source": self.source}
        for name, index in given.items():
            if not isinstance(index, Tensor) or index.dtype != torch.long or index.ndim != 1:
                raise TypeError(f"`{name}` must be an int64 tensor of shape (edges,); got {describe(index)}.")
        lengths = [len(index) for index in given.values()]
        if len(set(lengths)) > 1:
            raise ValueError(f"`batch`, `target` and `source` must be of as many edges; got {lengths}.")
        if len(self.shape) != 3:
            raise ValueError(f"`shape` must be (batch, targets, sources); got {self.shape}.")
        if self.batch.is_meta or torch.compiler.is_compiling():
            return  # compiled code must not depend on values
        sizes = dict(zip(given, self.shape, strict=True))
        wrong = torch.stack([((index < 0) | (index >= sizes[name])).any() for name, index in given.items()])
        if bool(wrong.any()):  # once, for all of them
            name = list(given)[int(wrong.long().argmax())]
            low, high = int(given[name].min()), int(given[name].max())
            raise ValueError(
                f"`{name}` must be from 0 to below {sizes[name]}, as `shape` {tuple(self.shape)} says; got {low} to "
                f"{high}."
            )

    def __len__(self) -> int:
        return len(self.batch)

    def only(self, kept: Tensor) -> Edges:
        """Those of the pairs that are `kept`, (edges,), bool; itself, if these are all."""
        if bool(kept.all()):
            return self
        return Edges(self.batch[kept], self.source[kept], self.target[kept], self.shape)

    def transposed(self) -> Edges:
        """The same pairs the other way round."""
        batch, targets, sources = self.shape
        return edges_of(self.batch, self.target, self.source, (batch, sources, targets))

    def united(self, other: Edges) -> Edges:
        """The pairs of both, each once."""
        if self.shape != other.shape:
            raise ValueError(f"`other` must be of the same points, {self.shape}; got {other.shape}.")
        mine = zip((self.batch, self.source, self.target), (other.batch, other.source, other.target), strict=True)
        batch, source, target = (torch.cat(pair) for pair in mine)
        return edges_of(batch, source, target, self.shape)

    def flat(self) -> tuple[Tensor, Tensor]:
        """Targets and sources, numbered through the whole batch."""
        _, targets, sources = self.shape
        return self.batch * targets + self.target, self.batch * sources + self.source

    def totals(self, weights: Annotated[Tensor, "batch sources"]) -> Annotated[Tensor, "batch targets"]:
        """The sum of the weights of the sources of every target."""
        batch, targets, _ = self.shape
        target, source = self.flat()
        return weights.new_zeros(batch * targets).index_add(0, target, weights.flatten()[source]).view(batch, targets)

    def counts(self) -> Annotated[Tensor, "batch targets"]:
        """How many sources every target has."""
        batch, targets, _ = self.shape
        return torch.bincount(self.flat()[0], minlength=batch * targets).view(batch, targets)


def edges_of(batch: Tensor, source: Tensor, target: Tensor, shape: tuple[int, int, int]) -> Edges:
    """Edges in their order, each once."""
    _, targets, sources = shape
    keys = torch.unique((batch * targets + target) * sources + source)  # sorted
    rows = keys // sources
    return Edges(rows // max(targets, 1), keys % max(sources, 1), rows % max(targets, 1), shape)


def nearest(
    targets: Points,
    sources: Points,
    count: int,
    *,
    target_mask: Inside | None = None,
    source_mask: Inside | None = None,
    backend: str = "auto",
) -> Edges:
    """The `count` nearest sources of every target, by Euclidean distance; all of them where there are fewer.

    `targets` (batch, targets, dim), `sources` (batch, sources, dim): finite where they are not masked. `count`: at
    least 1. Masks, bool, are False where there is no point. Of sources equally far the one with the lower coordinates
    is taken, the first axis first, so that their order changes nothing; in one place the lower index. Distances are
    in float64. `backend`: "torch" (all distances, a part at a time, on any device), "scipy" (a tree,
    on the CPU) or "auto", scipy where it is installed and the clouds are large; their results are equal.
    Indices carry no gradient. Raises `ValueError` or `TypeError` that names the argument.

    >>> line = torch.tensor([[[0.0], [1.0], [3.0]]])
    >>> nearest(line, line, 2).source.tolist()
    [0, 1, 0, 1, 1, 2]
    """
    check_integer("count", count)
    clouds = check_clouds(targets, sources, target_mask, source_mask)
    find = nearest_by_tree if by_tree(backend, targets, sources) else nearest_of_all

    def in_order(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        order = by_coordinates(others)  # of sources equally far what searches find is the first
        target, source = find(points, others[order], count)
        return target, order[source]

    return each_row(clouds, in_order)


def within(
    targets: Points,
    sources: Points,
    radius: PerAxis[float],
    *,
    norm: str = "euclidean",
    target_mask: Inside | None = None,
    source_mask: Inside | None = None,
    backend: str = "auto",
) -> Edges:
    """All sources within a radius of every target, the boundary included.

    `radius`: (0, inf), one or one per axis, in the unit of the positions. `norm`: "euclidean", an ellipsoid, or
    "largest", a box. The rest is as in `nearest`; without scipy large clouds are sorted into cells, on any device.

    >>> line = torch.tensor([[[0.0], [1.0], [3.0]]])
    >>> within(line, line, 1.0).source.tolist()
    [0, 1, 0, 1, 2]
    """
    check_choice("norm", norm, ("euclidean", "largest"))
    clouds = check_clouds(targets, sources, target_mask, source_mask)
    radii = per_axis("radius", radius, targets.shape[-1], lambda name, value: check_number(name, value, low=0.0))
    find = within_by_cells if targets.shape[1] * sources.shape[1] >= SEARCHED else within_of_all
    if by_tree(backend, targets, sources):
        find = within_by_tree
    return each_row(clouds, lambda points, others: find(points, others, torch.tensor(radii, dtype=torch.float64), norm))


def nearest_nodes(positions: Points, resolution: PerAxis[int], count: int, *, mask: Inside | None = None) -> Edges:
    """The `count` nearest nodes of a lattice for every point, without a search.

    The lattice has `resolution` nodes per axis, at least 2, evenly from -1 to 1, the ends included; node indices run
    with the last axis fastest. Positions may lie beyond it. Targets are the points, sources the nodes: what `nearest`
    gives for all nodes, ties included.

    >>> nearest_nodes(torch.tensor([[[0.1]]]), 5, 2).source.tolist()
    [2, 3]
    """
    check_integer("count", count)
    if not isinstance(positions, Tensor) or positions.ndim != 3 or not positions.dtype.is_floating_point:
        raise ValueError(
            f"`positions` must be (batch, points, dim), floating-point numbers; got {describe(positions)}."
        )
    sizes = per_axis("resolution", resolution, positions.shape[-1], lambda n, v: check_integer(n, v, minimum=2))
    (points, seen), _ = check_clouds(positions, positions, mask, mask)
    batch, number, _ = points.shape
    found = nodes_around(points[seen], sizes, count)
    rows, target = seen.nonzero(as_tuple=True)
    width = found.shape[1]
    shape = (batch, number, math.prod(sizes))
    return edges_of(rows.repeat_interleave(width), found.flatten(), target.repeat_interleave(width), shape)


def lattice(resolution: Sequence[int], device: torch.device | None = None) -> Annotated[Tensor, "*resolution dim"]:
    """The nodes of `nearest_nodes`, in float64; at least 2 per axis."""
    if not isinstance(resolution, Sequence) or isinstance(resolution, str) or not resolution:  # type: ignore[unreachable]
        raise TypeError(f"`resolution` must be a sequence of integers, nodes per axis; got {describe(resolution)}.")
    for n in resolution:
        check_integer("resolution", n, minimum=2)
    axes = [torch.linspace(-1, 1, n, dtype=torch.float64, device=device) for n in resolution]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def nodes_around(points: Tensor, sizes: tuple[int, ...], count: int) -> Annotated[Tensor, "points count"]:
    """Indices of the nearest nodes of points (points, dim): those of a window around each, wider where it must be."""
    count = min(count, math.prod(sizes))
    found = torch.empty(len(points), count, dtype=torch.long, device=points.device)
    left, half = torch.arange(len(points), device=points.device), 1
    while len(left):
        while (held := math.prod(min(2 * half, size) for size in sizes)) < count:
            half = 2 * half
        rest = []
        for some in left.split(max(1, ELEMENTS // held)):
            index, sure = nearest_in_window(points[some], sizes, half, count)
            found[some[sure]] = index[sure]
            rest.append(some[~sure])
        left, half = torch.cat(rest), 2 * half
    return found


def nearest_in_window(points: Tensor, sizes: tuple[int, ...], half: int, count: int) -> tuple[Tensor, Tensor]:
    """The nearest nodes of a window of up to 2 half nodes per axis around points, and where no other can be as near.

    A node that the window leaves out on one axis is at least as far there as the nearest one that is left out, and on
    each of the others at least as far as the nearest of all. These squares are added in the order of the distances
    themselves, so that rounding cannot turn the comparison.
    """
    axes, least, gaps = [], [], []
    for axis, size in enumerate(sizes):
        nodes, place = torch.linspace(-1, 1, size, dtype=torch.float64, device=points.device), points[:, axis]
        wide = min(2 * half, size)
        cell = ((place + 1) / 2 * (size - 1)).floor().clamp(-1, size).long()  # a place may be beyond all integers
        first = (cell - half + 1).clamp(0, size - wide)
        axes.append(first[:, None] + torch.arange(wide, device=points.device))
        below = torch.where(first > 0, (place - nodes[(first - 1).clamp(min=0)]).square(), torch.inf)
        last = first + wide
        above = torch.where(last < size, (place - nodes[last.clamp(max=size - 1)]).square(), torch.inf)
        gaps.append(torch.minimum(below, above))
        least.append(torch.minimum((place[:, None] - nodes[axes[-1]]).square().amin(1), gaps[-1]))
    bound = torch.full_like(points[:, 0], torch.inf)
    for left_out in range(len(sizes)):
        total = torch.zeros_like(bound)
        for axis in range(len(sizes)):
            total = total + (gaps if axis == left_out else least)[axis]
        bound = torch.minimum(bound, total)
    squares, index = window_distances(points, axes, sizes)
    order = squares.sort(dim=1, stable=True)
    chosen = index.gather(1, order.indices[:, :count])
    everything = all(2 * half >= size for size in sizes)
    return chosen, (order.values[:, count - 1] < bound) | torch.full_like(bound, everything, dtype=torch.bool)


def window_distances(points: Tensor, axes: list[Tensor], sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Squared distances to the nodes of a window, and their indices, both (points, nodes), indices ascending."""
    squares = torch.zeros(len(points), 1, dtype=torch.float64, device=points.device)
    index = torch.zeros(len(points), 1, dtype=torch.long, device=points.device)
    for axis, (places, size) in enumerate(zip(axes, sizes, strict=True)):
        nodes = torch.linspace(-1, 1, size, dtype=torch.float64, device=points.device)
        step = (points[:, axis, None] - nodes[places]).square()
        squares = (squares[:, :, None] + step[:, None]).flatten(1)
        index = (index[:, :, None] * size + places[:, None]).flatten(1)
    return squares, index


def by_tree(backend: str, targets: Points, sources: Points) -> bool:
    """Whether scipy searches."""
    check_choice("backend", backend, ("auto", "torch", "scipy"))
    if backend == "scipy" and targets.device.type != "cpu":
        raise ValueError(f'`backend` "scipy" is for the CPU; the clouds are on {targets.device}. Use "torch".')
    large = targets.shape[1] * sources.shape[1] >= SEARCHED and targets.device.type == "cpu"
    return backend == "scipy" or (backend == "auto" and large and find_spec("scipy") is not None)


def each_row(clouds: Any, find: Any) -> Edges:
    """The edges that `find(targets, sources)` gives for every cloud, (edges, 2) of target and source."""
    (targets, target_seen), (sources, source_seen) = clouds
    pairs, rows = [], []
    for row, (points, seen, others, there) in enumerate(zip(targets, target_seen, sources, source_seen, strict=True)):
        names, known = seen.nonzero()[:, 0], there.nonzero()[:, 0]
        target, source = find(points[names], others[known])
        pairs.append(torch.stack([names[target], known[source]]))
        rows.append(torch.full_like(target, row))
    shape = (len(targets), targets.shape[1], sources.shape[1])
    if not pairs:
        none = torch.zeros(0, dtype=torch.long, device=targets.device)
        return Edges(none, none, none, shape)
    target, source = torch.cat(pairs, dim=1)
    return edges_of(torch.cat(rows), source, target, shape)


def by_coordinates(points: Tensor) -> Annotated[Tensor, "points"]:
    """The order of points (points, dim) by their first coordinates, then by the next ones, last by their indices."""
    order = torch.arange(len(points), device=points.device)
    for axis in reversed(range(points.shape[1])):
        order = order[points[order, axis].argsort(stable=True)]
    return order


def squared_distances(points: Tensor, others: Tensor) -> Annotated[Tensor, "points others"]:
    """Added axis by axis, so that every search gives the same bits."""
    total = torch.zeros(len(points), len(others), dtype=torch.float64, device=points.device)
    for axis in range(points.shape[1]):
        total = total + (points[:, None, axis] - others[None, :, axis]).square()
    return total


def nearest_of_all(points: Tensor, others: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Targets and sources of the nearest, from all distances."""
    count = min(count, len(others))
    chosen = [
        squared_distances(some, others).sort(dim=1, stable=True).indices[:, :count]
        for some in points.split(max(1, ELEMENTS // max(1, len(others))))
    ]
    source = torch.cat(chosen) if chosen else torch.zeros(0, count, dtype=torch.long, device=points.device)
    target = torch.arange(len(points), device=points.device).repeat_interleave(count)
    return target, source.flatten()


def nearest_by_tree(points: Tensor, others: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The same from a tree: one more neighbour tells where the choice is between equals, which is then made anew."""
    if len(points) == 0 or len(others) <= count + 1:
        return nearest_of_all(points, others, count)
    spatial: Any = require("scipy.spatial", extra="points", purpose="the search for neighbours by a tree")
    tree = spatial.cKDTree(others.numpy())
    _, index = tree.query(points.numpy(), k=count + 1)
    index = torch.from_numpy(index).sort(dim=1).values
    squares = torch.zeros(index.shape, dtype=torch.float64)
    for axis in range(points.shape[1]):
        squares = squares + (points[:, axis, None] - others[:, axis][index]).square()
    order = squares.sort(dim=1, stable=True)
    source = index.gather(1, order.indices[:, :count])
    last, next_one = order.values[:, count - 1], order.values[:, count]
    doubtful = (next_one <= last * (1 + 1e-9)).nonzero()[:, 0]
    if len(doubtful):
        reach = last.sqrt() * (1 + 1e-9)
        held = torch.from_numpy(tree.query_ball_point(points[doubtful], reach[doubtful], return_length=True))
        crowded = held * CROWDED > len(others)
        some, rest = doubtful[crowded], doubtful[~crowded]
        if len(some):
            source[some] = nearest_of_all(points[some], others, count)[1].view(-1, count)
        source[rest] = nearest_within_reach(tree, points[rest], others, reach[rest], held[~crowded], count)
    return torch.arange(len(points)).repeat_interleave(count), source.flatten()


def nearest_within_reach(
    tree: Any, points: Tensor, others: Tensor, reach: Tensor, held: Tensor, count: int
) -> Annotated[Tensor, "points count"]:
    """Indices of the nearest of the `held` others within a `reach` of every point, both (points,), ties by index."""
    chosen = [torch.zeros(0, count, dtype=torch.long)]
    part = max(1, ELEMENTS // max(1, int(held.max()) if len(held) else 1))
    for near, far, number in zip(points.split(part), reach.split(part), held.split(part), strict=True):
        found = tree.query_ball_point(near.numpy(), far.numpy(), return_sorted=True)
        index = torch.tensor(list(itertools.chain.from_iterable(found)), dtype=torch.long)
        rows = torch.arange(len(near)).repeat_interleave(number)
        squares = torch.zeros(len(index), dtype=torch.float64)
        for axis in range(points.shape[1]):
            squares = squares + (near[rows, axis] - others[index, axis]).square()
        order = squares.argsort(stable=True)
        order = order[rows[order].argsort(stable=True)]
        first = number.cumsum(0) - number
        chosen.append(index[order[first[:, None] + torch.arange(count)]])
    return torch.cat(chosen)


def is_within(offsets: Tensor, radii: Tensor, norm: str) -> Tensor:
    """Whether offsets (pairs, dim) are within the radii, per axis."""
    shares = (offsets / radii.to(offsets.device)).abs()
    if norm == "largest":
        return (shares <= 1).all(-1)
    total = torch.zeros_like(shares[..., 0])
    for share in shares.unbind(-1):
        total = total + share.square()
    return total <= 1


def within_of_all(points: Tensor, others: Tensor, radii: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Targets and sources within the radii, from all offsets."""
    part, found, first = max(1, ELEMENTS // max(1, len(others) * points.shape[1])), [], 0
    for some in points.split(part) if len(points) else []:
        target, source = is_within(some[:, None] - others[None], radii, norm).nonzero(as_tuple=True)
        found.append(torch.stack([target + first, source]))
        first += len(some)
    pairs = torch.cat(found, 1) if found else torch.zeros(2, 0, dtype=torch.long, device=points.device)
    return pairs[0], pairs[1]


def within_by_cells(points: Tensor, others: Tensor, radii: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """The same from a grid of cells as wide as the radii: what is within is in the cell of a point or beside it.

    The sources are sorted by their cells. Cells that are neighbours on the last axis come one after the other, so that
    three of them are one range.
    """
    if len(points) == 0 or len(others) == 0:
        return within_of_all(points, others, radii, norm)
    width = radii.to(points.device) * (1 + 1e-9)  # a little more, for what is rounded
    low = torch.minimum(points.amin(0), others.amin(0))
    mine, theirs = (((some - low) / width).floor() + 1 for some in (points, others))
    most = torch.maximum(mine.amax(0), theirs.amax(0)) + 2
    sizes = [int(number) for number in most.clamp(max=CELLS)]  # of a tiny radius there may be infinitely many
    if math.prod(sizes) >= CELLS:  # few points, far apart, in cells without end
        return within_of_all(points, others, radii, norm)
    keys, order = cell_keys(theirs, sizes).sort()
    found = []
    for start in range(0, len(points), part := max(1, ELEMENTS // 2**8)):
        some = torch.arange(start, min(start + part, len(points)), device=points.device)
        for step in itertools.product((-1, 0, 1), repeat=points.shape[1] - 1):
            beside = mine[some] + mine.new_tensor([*step, 0])
            middle = cell_keys(beside, sizes)
            first = torch.searchsorted(keys, middle - 1)
            count = torch.searchsorted(keys, middle + 1, right=True) - first
            target = some.repeat_interleave(count)
            place = torch.arange(len(target), device=points.device) - (count.cumsum(0) - count).repeat_interleave(count)
            source = order[place + first.repeat_interleave(count)]
            kept = is_within(points[target] - others[source], radii, norm)
            found.append(torch.stack([target[kept], source[kept]]))
    target, source = torch.cat(found, 1)
    return target, source


def cell_keys(cells: Tensor, sizes: list[int]) -> Tensor:
    """The numbers of cells (points, dim), the last axis fastest."""
    key = torch.zeros(len(cells), dtype=torch.long, device=cells.device)
    for axis, size in enumerate(sizes):
        key = key * size + cells[:, axis].long()
    return key


def within_by_tree(points: Tensor, others: Tensor, radii: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """The same from a tree of what lies a little farther, too."""
    if len(points) == 0 or len(others) == 0:
        return within_of_all(points, others, radii, norm)
    spatial: Any = require("scipy.spatial", extra="points", purpose="the search for neighbours by a tree")
    tree, places = spatial.cKDTree((others / radii).numpy()), spatial.cKDTree((points / radii).numpy())
    power = 2.0 if norm == "euclidean" else math.inf
    near = places.sparse_distance_matrix(tree, 1 + 1e-9, p=power, output_type="ndarray")
    target, source = torch.from_numpy(near["i"].astype("int64")), torch.from_numpy(near["j"].astype("int64"))
    kept = is_within(points[target] - others[source], radii, norm)
    return target[kept], source[kept]


def check_clouds(targets: Any, sources: Any, target_mask: Any, source_mask: Any) -> Any:
    """Return both clouds in float64 without gradients, each with its mask, or raise."""
    found = []
    for name, points, mask in (("targets", targets, target_mask), ("sources", sources, source_mask)):
        if not isinstance(points, Tensor) or points.ndim != 3 or not points.dtype.is_floating_point:
            raise ValueError(f"`{name}` must be positions (batch, points, dim); got {describe(points)}.")
        seen = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device) if mask is None else mask
        if not isinstance(seen, Tensor) or seen.dtype != torch.bool or seen.shape != points.shape[:2]:
            raise ValueError(f"`{name[:-1]}_mask` must be bool {tuple(points.shape[:2])}; got {describe(mask)}.")
        exact = points.detach().double()
        if not bool(exact[seen].isfinite().all()):
            raise ValueError(f"`{name}` must be finite where they are not masked; got NaN or infinity.")
        found.append((exact, seen))
    if targets.shape[0] != sources.shape[0] or targets.shape[2] != sources.shape[2]:
        raise ValueError(
            f"`targets` and `sources` must have one batch and one number of axes; got {tuple(targets.shape)} and "
            f"{tuple(sources.shape)}."
        )
    return found
