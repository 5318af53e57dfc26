"""PointNet++: PointNets of neighbourhoods, around fewer and fewer points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_number, check_probability, describe
from omniconv._references import POINTNET2_PAPER
from omniconv._typing import Signal
from omniconv.domains import Cloud, Edges, Grid, farthest, nearest
from omniconv.domains.clouds import checked_mask, taken_apart
from omniconv.domains.neighbours import is_within
from omniconv.models._network import Network
from omniconv.models._stages import check_stages
from omniconv.models.pointnet import check_axes, check_cloud
from omniconv.nn import PoolHead, SharedMLP, observed
from omniconv.nn.shared_mlp import largest


class PointNet2(Network):
    """Classes of clouds: PointNets of the neighbourhoods of fewer and fewer points, with a single scale.

    Every stage takes points that are spread over the cloud, each the farthest from those before it (`farthest`), and
    for each of them, c, the largest over its neighbours j of MLP(p_j - c, x_j), per channel. Neighbours are the nearest
    points within a radius; c is one itself. The last stage takes the largest of MLP(p_j, x_j) over all that is left.
    Then an MLP and a linear map.

    `in_channels`: features of a point, at least 1; `out_features`: at least 1. `dim`: axes of the positions, 1 to 3.
    `centres`, `radii`, `neighbours`: points that a stage keeps, at least 1, its radius, (0, inf), in the unit of the
    positions, and the most neighbours, at least 1; one for every stage but the last. A cloud of fewer points keeps all.
    `widths`: channels of the layers of every stage, the last included. `hidden`: of those behind it. Each layer is a
    linear map, batch norm and ReLU. `dropout`: probability with which values behind each layer of `hidden` are dropped,
    [0, 1); `input_dropout`: of the features, [0, 1).

    `forward(x, positions, mask=None)` takes `batch in_channels points` and positions (batch, points, dim), best within
    [-1, 1] (`omniconv.domains.centred`), and returns `batch out_features`. `mask` (batch, points), bool, is False where
    a cloud is padded: what lies there changes nothing. Of a `Cloud`, as `positions`, positions and mask are taken; the
    stages find pairs of their own. The maximum over no point is 0. The order of points changes
    nothing, save for ties between points equally far; where the cloud is changes the last stage alone.
    Raises `ValueError` or `TypeError` that names the argument; in training also for a batch of one.

    >>> model = PointNet2(3, 10, centres=(8,), radii=(0.5,), neighbours=(4,), widths=((8,), (16,)), hidden=(8,))
    >>> points = 2 * torch.rand(2, 40, 3) - 1
    >>> model(torch.randn(2, 3, 40), points).shape
    torch.Size([2, 10])

    Qi et al. 2017 (PointNet++).
    """

    takes_positions = True
    least_batch = 2  # batch norm behind the maximum over the points
    references = (POINTNET2_PAPER,)

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        dim: int = 3,
        centres: Sequence[int] = (512, 128),
        radii: Sequence[float] = (0.2, 0.4),
        neighbours: Sequence[int] = (32, 64),
        widths: Sequence[Sequence[int]] = ((64, 64, 128), (128, 128, 256), (256, 512, 1024)),
        hidden: Sequence[int] = (512, 256),
        dropout: float = 0.3,
        input_dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_features, input_dropout=input_dropout, **place)
        axes = check_axes(dim)
        self.centres, self.radii, self.neighbours, layers = check_balls(centres, radii, neighbours, widths)
        behind = check_stages("hidden", hidden)
        self.stages, channels = nn.ModuleList(), self.in_channels
        for stage in layers:
            self.stages.append(SharedMLP(axes + channels, stage, **place))
            channels = stage[-1]
        dropped = check_probability("dropout", dropout)
        self.hidden = SharedMLP(channels, behind, dropout=dropped, **place)
        self.head = PoolHead(behind[-1], out_features, **place)
        self._refer_to(Grid((1,) * axes))
        given = {"in_channels": self.in_channels, "out_features": self.out_features, "dim": axes}
        balls = {"centres": self.centres, "radii": self.radii, "neighbours": self.neighbours}
        rest = {"widths": layers, "hidden": behind, "dropout": dropped, "input_dropout": self.input_dropout.p}
        self.arguments = {**given, **balls, **rest}

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        super().reset_parameters()
        for part in (*self.stages, self.hidden, self.head):
            part.reset_parameters()

    def forward(  # type: ignore[override]
        self, x: Signal, positions: Cloud | Tensor, mask: Tensor | None = None
    ) -> Tensor:
        positions, mask, _, _ = taken_apart(positions, mask)
        check_cloud(self, x, positions, mask)
        y, seen = self._input(x, mask), checked_mask(positions, mask)
        places = torch.where(seen[..., None], positions, 0.0).double()
        if x.shape[2] == 0:  # one point that is not there, since something has to be chosen
            y, places, seen = F.pad(y, (0, 1)), F.pad(places, (0, 0, 0, 1)), F.pad(seen, (0, 1))
        *stages, last = self.stages
        for stage, count, radius, most in zip(stages, self.centres, self.radii, self.neighbours, strict=True):
            index, real = farthest(places, count, seen)
            chosen = places.gather(1, index[..., None].expand(-1, -1, places.shape[2]))
            edges = ball(chosen, places, radius, most, real, seen)
            places, y, seen = chosen, largest_of_balls(stage, y, edges, chosen, places), real
        everything = torch.cat([observed(places.transpose(1, 2).to(y.dtype), seen), y], 1)
        return self.head(self.hidden(largest(last(everything, seen), seen)[..., None]))


def largest_of_balls(stage: nn.Module, x: Signal, edges: Edges, centres: Tensor, positions: Tensor) -> Signal:
    """The maximum of MLP(p_j - c, x_j) over the points j of every ball c, per channel; 0 where there are none.

    The layers see the pairs alone, so that a ball of few points is no more in their statistics than these.
    """
    batch, targets, _ = edges.shape
    target, source = edges.flat()
    offsets = positions.flatten(0, 1)[source] - centres.flatten(0, 1)[target]
    features = x.transpose(1, 2).flatten(0, 1)[source]
    y = stage(torch.cat([offsets.to(x.dtype), features], 1).T[None])[0].T
    rows = target[:, None].expand_as(y)
    most = y.new_zeros(batch * targets, y.shape[1]).scatter_reduce(0, rows, y, "amax")  # all are at least 0
    return most.unflatten(0, (batch, targets)).transpose(1, 2)


def ball(
    centres: Tensor,
    positions: Tensor,
    radius: float,
    count: int,
    centre_mask: Tensor | None = None,
    mask: Tensor | None = None,
) -> Edges:
    """The points (sources) within a radius of every centre (targets), the boundary included: the nearest `count`.

    >>> line = torch.tensor([[[0.0], [1.0], [3.0]]])
    >>> ball(line, line, 1.5, 2).source.tolist()
    [0, 1, 0, 1, 2]
    """
    found = nearest(centres.detach(), positions.detach(), count, target_mask=centre_mask, source_mask=mask)
    offsets = positions.detach()[found.batch, found.source] - centres.detach()[found.batch, found.target]
    radii = torch.full((positions.shape[2],), radius, dtype=torch.float64, device=positions.device)
    kept = is_within(offsets.double(), radii, "euclidean")
    return Edges(found.batch[kept], found.source[kept], found.target[kept], found.shape)


def check_balls(
    centres: Any, radii: Any, neighbours: Any, widths: Any
) -> tuple[tuple[int, ...], tuple[float, ...], tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """What the stages are made of, or raise."""
    kept, most = check_stages("centres", centres), check_stages("neighbours", neighbours)
    for name, value in (("radii", radii), ("widths", widths)):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError(f"`{name}` must be a sequence, an entry per stage; got {describe(value)}.")
    for name, value, wanted in (
        ("radii", radii, len(kept)),
        ("neighbours", most, len(kept)),
        ("widths", widths, len(kept) + 1),
    ):
        if len(value) != wanted:
            raise ValueError(
                f"`{name}` must have {wanted} entries for the {len(kept)} stages of `centres`"
                f"{' and the last' if name == 'widths' else ''}; got {value!r}."
            )
    far = tuple(check_number("radii", radius, low=0.0) for radius in radii)
    return kept, far, most, tuple(check_stages("widths", stage) for stage in widths)
