"""Points onto a lattice, and a lattice onto points."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_choice, check_floating_tensor, check_integer, describe
from omniconv._references import GRIDIFICATION_PAPER, Cited
from omniconv._typing import PerAxis, Signal, per_axis
from omniconv.domains import Cloud, Edges, lattice, nearest, nearest_nodes
from omniconv.domains.clouds import check_finite, checked_mask, checked_measure, taken_apart
from omniconv.kernels import SIREN, KernelFactory
from omniconv.nn._checks import check_placed
from omniconv.nn._over_edges import Combine, most_over_edges, sum_over_edges
from omniconv.nn._parts import build_kernel
from omniconv.nn.conv import strict_precision
from omniconv.nn.masks import observed
from omniconv.nn.pointwise import Pointwise

EDGES = ("both", "nodes", "points")
AGGREGATES = ("mean", "sum", "max")

CONDITIONINGS = ("offset", "distance")


def layer_of_both(kernel: Tensor, message: Tensor) -> Tensor:
    """The hidden layer of an MLP of both, each of which has had its own linear map."""
    return F.gelu(kernel + message)


COMBINED: dict[str, Combine] = {"product": torch.mul, "mlp": layer_of_both}

REACH = 2
"""Nodes on each side that positions of a kernel in [-1, 1] stand for; a sparse cloud has neighbours farther away."""


class BetweenPoints(Cited, nn.Module):
    """Base of `Gridify` and `Degridify`: y[i] = update(aggregate of k(p_i - p_j) message(x[j]) over the edges (j, i)).

    message and update are two linear maps with GELU between; k is a continuous kernel, one per channel. With
    `combine="mlp"` the kernel is added to the message, in a hidden layer of both: GELU(k(p_i - p_j) + message(x[j])).
    """

    references = (GRIDIFICATION_PAPER,)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        resolution: PerAxis[int],
        dim: int,
        *,
        neighbours: int,
        edges: str,
        hidden: int | None,
        kernel: KernelFactory,
        aggregate: str,
        combine: str,
        conditioning: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        dim = check_integer("dim", dim)
        self.resolution = per_axis("resolution", resolution, dim, lambda n, v: check_integer(n, v, minimum=2))
        self.neighbours = check_integer("neighbours", neighbours)
        self.edges = check_choice("edges", edges, EDGES)
        self.aggregate = check_choice("aggregate", aggregate, AGGREGATES)
        self.combine = check_choice("combine", combine, tuple(COMBINED))
        self.conditioning = check_choice("conditioning", conditioning, CONDITIONINGS)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        width = out_channels if hidden is None else check_integer("hidden", hidden)
        first, second = Pointwise(in_channels, width, **place), Pointwise(width, width, **place)
        self.message = nn.Sequential(first, nn.GELU(), second)
        axes = dim if conditioning == "offset" else 1
        self.kernel = build_kernel(kernel, axes, width, {"reach": (REACH,) * axes, "causal": (False,) * axes, **place})
        first, second = Pointwise(width, width, **place), Pointwise(width, out_channels, **place)
        self.update = nn.Sequential(first, nn.GELU(), second)

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.resolution)

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        for part in (*self.message, self.kernel, *self.update):
            if not isinstance(part, nn.GELU):
                part.reset_parameters()

    def find_edges(self, positions: Cloud | Tensor, mask: Tensor | None = None) -> Edges:
        """The pairs of nodes (targets) and points (sources), which several layers may share."""
        positions, mask, _, _ = taken_apart(positions, mask)
        found: Edges | None = None
        if self.edges in ("both", "points"):
            found = nearest_nodes(positions, self.resolution, self.neighbours, mask=mask).transposed()
        if self.edges in ("both", "nodes"):
            nodes = self._nodes(positions)[None].expand(len(positions), -1, -1)
            ahead = nearest(nodes, positions, self.neighbours, source_mask=mask)
            found = ahead if found is None else found.united(ahead)
        assert found is not None
        return found

    def _nodes(self, positions: Tensor) -> Tensor:
        """Positions of the nodes, (nodes, dim), in float64: rounded to half precision they lie on no lattice."""
        return lattice(self.resolution, positions.device).flatten(0, -2)

    def _passed(self, x: Signal, edges: Edges, near: Tensor, far: Tensor, weights: Tensor | None = None) -> Signal:
        """What arrives at the targets `near`, (batch * targets, dim), from the sources `far`; `weights`: of these."""
        spacing = near.new_tensor([2 / (n - 1) for n in self.resolution])
        exact = self.message(x).to(torch.promote_types(x.dtype, torch.float32))
        shares = None if weights is None else weights.to(exact.dtype)
        target, source = edges.flat()

        def kernels(some: slice) -> Tensor:
            lags = (near[target[some]] - far[source[some]]) / (REACH * spacing)
            if self.conditioning == "distance":
                squares = lags.square().sum(1, keepdim=True)
                apart = squares > 0  # at 0 a distance has no derivative: none is taken
                lags = torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)
            return self.kernel(lags.to(exact.dtype)).transpose(0, 1)

        with strict_precision(x.device):
            if self.aggregate == "max":
                y = most_over_edges(exact, edges, kernels, COMBINED[self.combine])
            else:
                y = sum_over_edges(exact, edges, kernels, self.kernel.channels, COMBINED[self.combine], shares)
                if self.aggregate == "mean":
                    total = edges.counts() if shares is None else edges.totals(shares)
                    y = y / torch.where(total > 0, total, 1)[:, None]
        return self.update(y.to(x.dtype))

    def _check(self, x: Tensor, positions: Any, mask: Any) -> None:
        check_floating_tensor("x", x)
        check_placed(x, self.update[0].weight)  # type: ignore[arg-type]
        batch = x.shape[0]
        if not isinstance(positions, Tensor) or positions.ndim != 3 or not positions.dtype.is_floating_point:
            raise ValueError(f"`positions` must be (batch, points, {self.dim}); got {describe(positions)}.")
        if (positions.shape[0], positions.shape[2]) != (batch, self.dim):
            raise ValueError(f"`positions` must be ({batch}, points, {self.dim}); got {tuple(positions.shape)}.")
        shape = tuple(positions.shape[:2])
        if mask is not None and (not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape):
            raise ValueError(f"`mask` must be bool {shape}; got {describe(mask)}.")
        check_finite("positions", positions, checked_mask(positions, mask))

    def extra_repr(self) -> str:
        return (
            f"resolution={self.resolution}, neighbours={self.neighbours}, edges={self.edges!r}, "
            f"aggregate={self.aggregate!r}, combine={self.combine!r}, conditioning={self.conditioning!r}"
        )


class Gridify(BetweenPoints):
    """Features of points, as a signal on a lattice: y[g] = update(mean of k(g - p_j) message(x[j]) over j near g).

    The lattice has `resolution` nodes per axis, evenly from -1 to 1, and what follows on it, such as a `CCNN`, costs
    the same for any number of points.

    `in_channels`, `out_channels`: at least 1. `resolution`: at least 2, one or one per axis. `dim`: axes.
    `neighbours`: at least 1. `edges`: "nodes" (the nearest points of every node: no node is empty), "points" (the
    nearest nodes of every point: no point is unseen) or "both". `hidden`: channels of the messages; None for
    `out_channels`. `kernel`: as in `Conv`; two nodes are its reach. `aggregate`: "mean", "sum" or "max", over edges.
    `combine`: "product" of the kernel and a message, as in a convolution, or "mlp", a layer of both: GELU(k + message).
    `conditioning`: what the kernel is given, "offset", or "distance", the norm of the offset in nodes.

    `forward(x, positions, mask=None, edges=None)` takes `batch in_channels points` and positions (batch, points, dim),
    best within [-1, 1], and returns `batch out_channels *resolution`. `mask` (batch, points), bool, is False where a
    cloud is padded; a cloud of fewer points than `neighbours` has as many. `edges`: of `find_edges`, if they are known.
    `measure` (batch, points): how much every point counts in a sum or mean; a maximum knows no weights. All of this may
    come as one `Cloud`, as `positions`. Moving all points by a node moves what is inside by a node.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> Gridify(4, 8, 9, dim=3)(torch.randn(2, 4, 50), 2 * torch.rand(2, 50, 3) - 1).shape
    torch.Size([2, 8, 9, 9, 9])

    van der Linden et al. 2023 (Learned gridification).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        resolution: PerAxis[int],
        dim: int = 3,
        *,
        neighbours: int = 9,
        edges: str = "both",
        hidden: int | None = None,
        kernel: KernelFactory = SIREN,
        aggregate: str = "mean",
        combine: str = "product",
        conditioning: str = "offset",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        parts: dict[str, Any] = {"neighbours": neighbours, "edges": edges, "hidden": hidden, "kernel": kernel}
        parts |= {"aggregate": aggregate, "combine": combine, "conditioning": conditioning}
        parts |= {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_channels, resolution, dim, **parts)

    def forward(
        self,
        x: Signal,
        positions: Cloud | Tensor,
        mask: Tensor | None = None,
        *,
        edges: Edges | None = None,
        measure: Tensor | None = None,
    ) -> Signal:
        positions, mask, edges, measure = taken_apart(positions, mask, edges, measure)
        if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[1] != self.in_channels:
            raise ValueError(f"`x` must be (batch, {self.in_channels}, points); got {describe(x)}.")
        self._check(x, positions, mask)
        if positions.shape[1] != x.shape[-1]:
            raise ValueError(f"`positions` must be of the {x.shape[-1]} points of `x`; got {positions.shape[1]}.")
        found = self.find_edges(positions, mask) if edges is None else edges
        wanted = (x.shape[0], math.prod(self.resolution), x.shape[-1])
        if found.shape != wanted:
            raise ValueError(f"`edges` must be of (batch, nodes, points) {wanted}; got {found.shape}.")
        if edges is not None and mask is not None:
            found = edges.only(mask[edges.batch, edges.source])
        weights = None if measure is None else checked_measure(measure, checked_mask(positions, mask))
        near = self._nodes(positions).repeat(x.shape[0], 1)
        y = self._passed(observed(x, mask), found, near, positions.double().flatten(0, 1), weights)
        return y.unflatten(-1, self.resolution)


class Degridify(BetweenPoints):
    """A signal on a lattice, at points: y[i] = update(mean of k(p_i - g) message(x[g]) over the nodes g near i).

    The arguments are those of `Gridify`; by default the edges are those from every point to its nearest nodes.
    `forward(x, positions, mask=None, edges=None)` takes `batch in_channels *resolution` and positions (batch, points,
    dim), and returns `batch out_channels points`, zero behind the mask. `edges`: of a `Gridify` with that resolution.
    Positions may come as a `Cloud`, with its mask.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> Degridify(8, 4, 9, dim=3)(torch.randn(2, 8, 9, 9, 9), 2 * torch.rand(2, 50, 3) - 1).shape
    torch.Size([2, 4, 50])

    van der Linden et al. 2023 (Learned gridification).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        resolution: PerAxis[int],
        dim: int = 3,
        *,
        neighbours: int = 9,
        edges: str = "points",
        hidden: int | None = None,
        kernel: KernelFactory = SIREN,
        aggregate: str = "mean",
        combine: str = "product",
        conditioning: str = "offset",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        parts: dict[str, Any] = {"neighbours": neighbours, "edges": edges, "hidden": hidden, "kernel": kernel}
        parts |= {"aggregate": aggregate, "combine": combine, "conditioning": conditioning}
        parts |= {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_channels, resolution, dim, **parts)

    def forward(
        self,
        x: Signal,
        positions: Cloud | Tensor,
        mask: Tensor | None = None,
        *,
        edges: Edges | None = None,
    ) -> Signal:
        positions, mask, edges, _ = taken_apart(positions, mask, edges)
        if not isinstance(x, Tensor) or x.ndim < 2 or tuple(x.shape[1:]) != (self.in_channels, *self.resolution):
            wanted = ", ".join(map(str, (self.in_channels, *self.resolution)))
            raise ValueError(f"`x` must be (batch, {wanted}); got {describe(x)}.")
        self._check(x, positions, mask)
        found = self.find_edges(positions, mask) if edges is None else edges
        known = (x.shape[0], math.prod(self.resolution), positions.shape[1])
        if found.shape != known:
            raise ValueError(f"`edges` must be of (batch, nodes, points) {known}; got {found.shape}.")
        if edges is not None and mask is not None:
            found = edges.only(mask[edges.batch, edges.source])
        far = self._nodes(positions).repeat(x.shape[0], 1)
        y = self._passed(x.flatten(2), found.transposed(), positions.double().flatten(0, 1), far)
        return observed(y, mask)
