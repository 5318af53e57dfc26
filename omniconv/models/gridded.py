"""A convolutional network on a lattice, for clouds of points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_choice, check_integer, check_probability, describe
from omniconv._references import CCNN_PAPER, GRIDIFICATION_PAPER
from omniconv._typing import PerAxis, Signal, check_bool, per_axis
from omniconv.domains import Cloud, Edges, Grid, centred
from omniconv.domains.clouds import taken_apart
from omniconv.kernels import SIREN, KernelFactory
from omniconv.models._network import HEADS, Network
from omniconv.models.ccnn import CCNN
from omniconv.models.pointnet import check_cloud
from omniconv.nn import BatchNorm, Degridify, Downsample, Gridify, SharedMLP, observed
from omniconv.nn.downsample import halved
from omniconv.nn.shared_mlp import largest
from omniconv.supports import Gaussian, SupportFactory

BodyFactory = Callable[[int, tuple[int, ...]], nn.Module]
"""What makes the network of a stage from its channels and nodes per axis."""

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""What the framework calls linear interpolation, by the number of axes."""


class GriddedNet(Network):
    """Classes of clouds, or of their points: a `Gridify`, `CCNN`s on the lattice, and `Degridify` back to the points.

    standardize; points onto a lattice; then stages, each a `CCNN` with an output at every node, at half the resolution
    of the one before; the sum of all, interpolated linearly on the first lattice, and from there back to the points.
    What arrives there is added to what two layers make of the point's own features, because what is smaller than a cell
    does not survive on a lattice: norm, GELU. Then a linear map for every point, or a layer, the largest over the
    points, another layer, and a linear map.

    `in_channels`: features of a point, at least 1. `out_features`: at least 1. `resolution`: nodes per axis, at least
    2, one or one per axis; sizes that are a power of two and one keep their nodes when they are halved. `dim`: axes of
    the positions, 1 to 3. `stages`: at least 1. `width`: channels on the lattice; at the points there are twice as
    many, and with head "pool" `lifted` before the maximum, None for 8 times as many. `blocks` of a stage, `kernel`,
    `support`, `reach`, `mixing`, `engine`: as in `CCNN`, for the convolutions on the lattice; None as `reach` is the
    whole lattice. `body`: what to build in place of these `CCNN`s, a callable of the channels and the nodes per axis,
    such as (32, (9, 9, 9)), that returns a module with `reset_parameters`, which keeps `batch channels *size`.
    `neighbours`, `edges`, `aggregate`, `combine`, `conditioning`: as in `Gridify`. `dropout`: in the blocks and before
    the last map, [0, 1).
    `absolute`: whether positions are features, too: then where a cloud lies may matter, and a part of it what it is.
    `normalize`: whether every cloud is taken about its mean and in the unit of its largest coordinate (`centred`).
    `head`: "pool", an output for the cloud, or "dense", one for every point.

    `forward(x, positions, mask=None, edges=None)` takes `batch in_channels points` and positions (batch, points, dim),
    best within [-1, 1] unless they are normalised, and returns `batch out_features`, or `batch out_features points`.
    `mask` (batch, points), bool, is False where a cloud is padded: what lies there changes nothing. `edges`: of
    `gridify.find_edges`, of the positions as the lattice sees them. All of this may come as one `Cloud`, whose
    `measure` says how much every point counts on the lattice.
    Raises `ValueError` or `TypeError` that names the argument; with head "pool" in training also for a batch of one.

    >>> model = GriddedNet(3, 10, resolution=5, width=8, blocks=1)
    >>> points = 2 * torch.rand(2, 3, 40) - 1
    >>> model(points, points.transpose(1, 2)).shape
    torch.Size([2, 10])

    van der Linden et al. 2023 (Learned gridification); Romero et al. 2022 (CCNN).
    """

    takes_positions = True
    least_batch = 2  # batch norm behind the maximum over the points
    references = (GRIDIFICATION_PAPER, CCNN_PAPER)

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        resolution: PerAxis[int],
        *,
        dim: int = 3,
        stages: int = 1,
        width: int = 32,
        lifted: int | None = None,
        blocks: int = 3,
        neighbours: int = 9,
        edges: str = "both",
        aggregate: str = "mean",
        combine: str = "product",
        conditioning: str = "offset",
        kernel: KernelFactory = SIREN,
        support: SupportFactory = Gaussian,
        reach: PerAxis[int] | None = None,
        mixing: str = "separable",
        absolute: bool = False,
        normalize: bool = False,
        head: str = "pool",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        engine: str = "auto",
        body: BodyFactory | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_features, input_dropout=input_dropout, **place)
        dim = check_integer("dim", dim)
        sizes = per_axis("resolution", resolution, dim, lambda n, v: check_integer(n, v, minimum=2))
        self.absolute, self.normalize = check_bool("absolute", absolute), check_bool("normalize", normalize)
        self.dense = check_choice("head", head, ("pool", "dense")) == "dense"
        options: dict[str, Any] = {"kernel": kernel, "support": support, "reach": reach, "mixing": mixing}
        options |= {"blocks": blocks, "dropout": dropout, "engine": engine}
        between: dict[str, Any] = {"neighbours": neighbours, "aggregate": aggregate}
        between |= {"combine": combine, "conditioning": conditioning}
        channels, points = self.in_channels + self.absolute * dim, 2 * check_integer("width", width)
        self.gridify = Gridify(channels, width, sizes, dim, edges=edges, hidden=width, **between, **place)
        self.halve, self.stages, size = Downsample(dim), nn.ModuleList(), sizes
        for _ in range(check_integer("stages", stages)):
            if min(size) < 2:
                raise ValueError(f"`stages` (={stages}) must leave 2 nodes on every axis of {sizes}; got {size}.")
            if body is None:
                self.stages.append(CCNN(width, width, size, width=width, head="dense", **options, **place))
            else:
                self.stages.append(checked_body(body, width, size).to(device=device, dtype=dtype))
            size = halved(size)
        self.degridify = Degridify(width, points, sizes, dim, hidden=width, **between, **place)
        self.local = SharedMLP(channels, (width, points), **place)
        self.norm = BatchNorm(points, **place)
        most = 8 * width if lifted is None else check_integer("lifted", lifted)
        self.lift = SharedMLP(points, () if self.dense else (most,), **place)
        dropped = check_probability("dropout", dropout)
        self.hidden = SharedMLP(most, () if self.dense else (points,), **place)
        self.dropout = nn.Dropout(dropped)
        self.head = HEADS[head](points, out_features, **place)
        self._refer_to(Grid(sizes))
        given = {name: value for name, value in self._shape().items() if name not in ("tokens", "span", "size")}
        shape = {"resolution": sizes, "dim": dim, "stages": stages, "width": width, "lifted": lifted, "edges": edges}
        places = {"absolute": absolute, "normalize": normalize, "head": head}
        self.arguments = {**given, **shape, **places, **options, **between, "body": body}

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        super().reset_parameters()
        ends = (self.gridify, self.degridify, self.local, self.norm, self.lift, self.hidden, self.head)
        for part in (*self.stages, *ends):
            part.reset_parameters()

    def forward(  # type: ignore[override]
        self, x: Signal, positions: Cloud | Tensor, mask: Tensor | None = None, *, edges: Edges | None = None
    ) -> Tensor:
        positions, mask, edges, measure = taken_apart(positions, mask, edges)
        check_cloud(self, x, positions, mask)
        places = centred(positions, mask) if self.normalize else positions
        features = self._input(x, mask)
        if self.absolute:
            features = torch.cat([observed(places.transpose(1, 2).to(x.dtype), mask), features], dim=1)
        y = self._at_points(features, places, mask, edges, measure)
        if self.dense:
            return self.head(self.dropout(y), mask)
        whole = largest(self.lift(y, mask), mask)[..., None]
        return self.head(self.dropout(self.hidden(whole)))

    def _stage(self, index: int, x: Signal) -> Signal:
        """What a stage makes of a lattice, on the same lattice."""
        y = self.stages[index](x)
        if y.shape != x.shape:
            raise ValueError(
                f"`body` must make networks that keep batch, channels and nodes, {tuple(x.shape)}; got "
                f"{tuple(y.shape)}."
            )
        return y

    def _at_points(
        self, x: Signal, places: Tensor, mask: Tensor | None, edges: Edges | None, measure: Tensor | None
    ) -> Signal:
        """What the lattice brings to the points, and the points themselves."""
        shared = edges if edges is not None or self.gridify.edges != "points" else self.gridify.find_edges(places, mask)
        y = self._stage(0, halves := self.gridify(x, places, mask, edges=shared, measure=measure))
        for index in range(1, len(self.stages)):
            halves = self._stage(index, self.halve(halves))
            y = y + F.interpolate(halves, y.shape[2:], mode=LINEAR[y.ndim - 2], align_corners=True)
        exact = torch.promote_types(x.dtype, torch.float32)  # a sum of parts
        back = self.degridify(y, places, mask, edges=shared if self.gridify.edges == "points" else None)
        return F.gelu(self.norm((self.local(x, mask).to(exact) + back).to(x.dtype), mask))


def checked_body(body: BodyFactory, width: int, size: tuple[int, ...]) -> nn.Module:
    """The network of a stage that a factory of the user's makes, or raise."""
    made = body(width, size)
    if not isinstance(made, nn.Module) or not callable(getattr(made, "reset_parameters", None)):
        raise TypeError(
            f"`body` must return a module with `reset_parameters`; got {describe(made)} for {width}, {size}."
        )
    return made
