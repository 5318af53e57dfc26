"""The convolution layer on points."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, describe
from omniconv._typing import Signal
from omniconv.domains import Edges, within
from omniconv.nn._checks import check_placed
from omniconv.nn._over_edges import sum_over_edges
from omniconv.nn.conv import Conv, strict_precision
from omniconv.nn.masks import observed

SLACK = 2.0**-20
"""In reference samples: lags on a lattice that was moved are not whole numbers to the last bit."""


class PointConv(Conv):
    """`Conv` on points: the same layer and parameters, where a signal is known at any positions.

    y[i] = sum_j w_j k((p_i - p_j) / reach) m((p_i - p_j) / reach) x[j] + bias, over the points j that are within reach
    of i on every axis, with the volume w_j that point j stands for.

    The arguments are those of `Conv`, on one to three axes, with boundary "zero". Positions are in samples of the
    reference grid: on its points the layer is `Conv`, and a state dict of one is that of the other.

    `forward(x, positions)` takes `batch channels points` and positions (batch, points, dim), of any number, and returns
    `batch out_channels points`. `output_positions` (batch, outputs, dim) asks for the output at others. `mask` (batch,
    points), bool, is False where a cloud is padded: what lies there changes nothing, and its output is zero.
    `measure` (batch, points): the volumes w_j, in cells of the reference grid; None divides that grid's volume among
    the points of every cloud, which is right for points that are spread evenly over it. `edges`: the pairs of output
    and input points, as `omniconv.domains.within` gives them, to use instead of a search.
    Gradients reach positions through the lags; which points are near has none.

    Memory does not grow with the number of pairs: the kernel is evaluated for a part of them at a time, and again for
    its gradient. Time does: `Gridify` is the way to many points.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> layer = PointConv(3, 8, (16, 16, 16), reach=2)
    >>> layer(torch.randn(2, 3, 50), 15 * torch.rand(2, 50, 3)).shape
    torch.Size([2, 8, 50])
    """

    def forward(  # type: ignore[override]
        self,
        x: Signal,
        positions: Tensor,
        *,
        output_positions: Tensor | None = None,
        mask: Tensor | None = None,
        measure: Tensor | None = None,
        edges: Edges | None = None,
    ) -> Signal:
        self._check_cloud(x, positions, mask, measure)
        outputs = positions if output_positions is None else output_positions
        check_positions("output_positions", outputs, x.shape[0], self.dim)
        if edges is None:
            edges = self._edges(outputs, positions, mask if output_positions is None else None, mask)
        if edges.shape != (x.shape[0], outputs.shape[1], x.shape[-1]):
            wanted = (x.shape[0], outputs.shape[1], x.shape[-1])
            raise ValueError(f"`edges` must be of (batch, outputs, points) {wanted}; got {edges.shape}.")
        exact = observed(x, mask).to(torch.promote_types(x.dtype, torch.float32))
        exact = exact * self._volumes(exact, mask, measure)[:, None]
        near, far = outputs.double().flatten(0, 1), positions.double().flatten(0, 1)
        with strict_precision(x.device):
            y = sum_over_edges(exact, edges, lambda i, j: near[i] - far[j], self.values, self.kernel.channels)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)[:, None]
        if self.mixer is not None:
            y = self.mixer(y)
        return (y if output_positions is not None else observed(y, mask)).to(x.dtype)

    def _edges(self, outputs: Tensor, positions: Tensor, target_mask: Tensor | None, mask: Tensor | None) -> Edges:
        """The pairs within reach, those of the past alone on causal axes."""
        radius = tuple(far + SLACK for far in self.window)
        found = within(outputs, positions, radius, norm="largest", target_mask=target_mask, source_mask=mask)
        if not any(self.causal):
            return found
        lags = outputs.double()[found.batch, found.target] - positions.double()[found.batch, found.source]
        past = torch.tensor(self.causal, device=lags.device)
        kept = ((lags >= -SLACK) | ~past).all(-1)
        return Edges(found.batch[kept], found.source[kept], found.target[kept], found.shape)

    def _volumes(self, x: Signal, mask: Tensor | None, measure: Tensor | None) -> Tensor:
        """The volume that every point stands for, (batch, points)."""
        if measure is not None:
            return observed(measure.to(x.dtype)[:, None], mask)[:, 0]
        count = x.new_full((x.shape[0], 1), x.shape[-1]) if mask is None else mask.sum(1, keepdim=True).to(x.dtype)
        return (math.prod(self.grid.size) / count.clamp(min=1)).expand(-1, x.shape[-1])

    def _check_cloud(self, x: Any, positions: Any, mask: Any, measure: Any) -> None:
        if "circular" in self.grid.boundary:
            raise ValueError(f'`boundary` must be "zero" for points; this layer has {self.grid.boundary}.')
        check_floating_tensor("x", x)
        if x.ndim != 3 or x.shape[1] != self.in_channels:
            raise ValueError(f"`x` must be (batch, {self.in_channels}, points); got {describe(x)}.")
        check_placed(x, self.gain)
        check_positions("positions", positions, x.shape[0], self.dim)
        if positions.shape[1] != x.shape[-1]:
            raise ValueError(f"`positions` must be of the {x.shape[-1]} points of `x`; got {positions.shape[1]}.")
        shape = (x.shape[0], x.shape[-1])
        if mask is not None and (not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape):
            raise ValueError(f"`mask` must be bool {shape}; got {describe(mask)}.")
        if measure is not None and (not isinstance(measure, Tensor) or measure.shape != shape):
            raise ValueError(f"`measure` must be {shape}, the volume of every point; got {describe(measure)}.")


def check_positions(name: str, positions: Any, batch: int, dim: int) -> None:
    """Raise unless these are positions of a batch of clouds."""
    if not isinstance(positions, Tensor) or not positions.dtype.is_floating_point or positions.ndim != 3:
        raise ValueError(f"`{name}` must be (batch, points, {dim}), numbers with fractions; got {describe(positions)}.")
    if (positions.shape[0], positions.shape[2]) != (batch, dim):
        raise ValueError(f"`{name}` must be ({batch}, points, {dim}); got {tuple(positions.shape)}.")
