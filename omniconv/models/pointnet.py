"""PointNet: every point by itself, then the largest over the cloud."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_choice, check_integer, check_probability, describe
from omniconv._precision import HALF
from omniconv._references import POINTNET_PAPER
from omniconv._typing import Signal
from omniconv.domains import Cloud, Grid
from omniconv.domains.clouds import check_finite, check_points, checked_mask, taken_apart
from omniconv.models._network import HEADS, Network
from omniconv.models._stages import check_stages
from omniconv.nn import SharedMLP, observed
from omniconv.nn.shared_mlp import largest

LOCAL = 2
"""Shared layers whose output stands for a point itself, in a dense network."""

MOST_AXES = 3
"""Of a grid, and so of a network."""


class PointNet(Network):
    """Classes of clouds, or of their points: layers for every point by itself, the largest over the points, and an MLP.

    With p the position and x the standardised features of a point, g = max over points of MLP(p, x), per channel; then
    a second MLP of g, dropout and a linear map. With head "dense" the second MLP sees, for every point, g and what the
    second of the shared layers made of the point, or the first where there is but one. No transform of the input is
    learned.

    `in_channels`: features of a point, at least 1; `out_features`: at least 1. `dim`: axes of the positions, 1 to 3.
    `widths`: channels of the layers before the maximum; `hidden`: of those behind it. Each layer is a linear map, batch
    norm and ReLU. `head`: "pool", an output for the cloud, or "dense", one for every point.
    `dropout`: probability with which values before the last linear map are dropped, [0, 1); `input_dropout`: of the
    features, [0, 1).

    `forward(x, positions, mask=None)` takes `batch in_channels points` and positions (batch, points, dim), best within
    [-1, 1] (`omniconv.domains.centred`), and returns `batch out_features`, or `batch out_features points`, zero behind
    the mask. `mask` (batch, points), bool, is False where a cloud is padded: what lies there changes nothing. Both may
    come as one `Cloud`, as `positions`. The maximum over no point is 0. The order of points changes nothing; where the
    cloud is does.
    Raises `ValueError` or `TypeError` that names the argument; with head "pool" in training also for a batch of one.

    >>> model = PointNet(3, 10, widths=(16, 32), hidden=(16,))
    >>> points = 2 * torch.rand(2, 40, 3) - 1
    >>> model(torch.randn(2, 3, 40), points).shape
    torch.Size([2, 10])

    Qi et al. 2017 (PointNet).
    """

    takes_positions = True
    least_batch = 2  # batch norm behind the maximum over the points
    references = (POINTNET_PAPER,)

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        dim: int = 3,
        widths: Sequence[int] = (64, 64, 128, 1024),
        hidden: Sequence[int] = (512, 256),
        head: str = "pool",
        dropout: float = 0.3,
        input_dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_features, input_dropout=input_dropout, **place)
        axes = check_axes(dim)
        layers, behind = check_stages("widths", widths), check_stages("hidden", hidden)
        self.dense = check_choice("head", head, ("pool", "dense")) == "dense"
        self.points = SharedMLP(axes + self.in_channels, layers[:LOCAL], **place)
        local = layers[:LOCAL][-1]
        self.shared = SharedMLP(local, layers[LOCAL:], **place)
        self.hidden = SharedMLP(layers[-1] + self.dense * local, behind, **place)
        self.dropout = nn.Dropout(check_probability("dropout", dropout))
        self.head = HEADS[head](behind[-1], out_features, **place)
        self._refer_to(Grid((1,) * axes))
        given = {"in_channels": self.in_channels, "out_features": self.out_features, "dim": axes}
        body: dict[str, Any] = {"widths": layers, "hidden": behind, "head": head, "dropout": self.dropout.p}
        self.arguments = {**given, **body, "input_dropout": self.input_dropout.p}

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        super().reset_parameters()
        for part in (self.points, self.shared, self.hidden, self.head):
            part.reset_parameters()

    def forward(  # type: ignore[override]
        self, x: Signal, positions: Cloud | Tensor, mask: Tensor | None = None
    ) -> Tensor:
        positions, mask, _, _ = taken_apart(positions, mask)
        check_cloud(self, x, positions, mask)
        places = observed(positions.transpose(1, 2).to(x.dtype), mask)
        local = self.points(torch.cat([places, self._input(x, mask)], 1), mask)
        whole = largest(self.shared(local, mask), mask)[..., None]
        if not self.dense:
            return self.head(self.dropout(self.hidden(whole)))
        each = torch.cat([local, whole.expand(-1, -1, x.shape[2])], 1)
        return self.head(self.dropout(self.hidden(each, mask)), mask)


def check_axes(dim: Any) -> int:
    """Return a number of axes, or raise."""
    if (axes := check_integer("dim", dim)) > MOST_AXES:
        raise ValueError(f"`dim` must be at most {MOST_AXES}; got {axes}.")
    return axes


def check_cloud(network: Network, x: Any, positions: Any, mask: Any) -> None:
    """Raise unless these are features, positions and the mask of one batch of clouds that the network takes."""
    channels, dim, own = network.in_channels, network.grid.dim, network.standardize.mean.dtype
    if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[1] != channels:
        raise ValueError(f"`x` must be (batch, {channels}, points); got {describe(x)}.")
    if x.dtype != own and not (own == torch.float32 and x.dtype in HALF):
        raise ValueError(
            f"`x` must have the dtype of the network, {own} (or half precision, where that is float32); got {x.dtype}. "
            "Convert the features with `x.to(dtype)` or the network with `.to(dtype)`."
        )
    if any(step != 1.0 for step in network.spacing):
        raise ValueError(f"{type(network).__name__} has one resolution: call the model itself, no view at another.")
    check_points("positions", positions)
    if tuple(positions.shape) != (x.shape[0], x.shape[2], dim):
        expected = (x.shape[0], x.shape[2], dim)
        raise ValueError(f"`positions` must be (batch, points, dim), here {expected}; got {tuple(positions.shape)}.")
    check_finite("positions", positions, checked_mask(positions, mask))
