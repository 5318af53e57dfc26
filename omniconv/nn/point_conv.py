"""The convolution layer on points."""

from __future__ import annotations

from torch import Tensor

from omniconv._typing import Signal
from omniconv.domains import Cloud, Edges
from omniconv.nn.conv import Conv
from omniconv.nn.masks import observed


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
    and input points, as `omniconv.domains.within` gives them, to use instead of a search; without those of masked
    points, and where the layer is causal without those of the future.
    Gradients reach positions through the lags; which points are near has none.

    Memory hardly grows with the number of pairs, whose indices alone are kept: the kernel is evaluated for a part of
    them at a time, and again for its gradient. Time does: `Gridify` is the way to many points.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> import torch
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
        cloud = Cloud(positions, mask, measure, edges)
        y = super().forward(x, positions=cloud, output_positions=output_positions)
        return y if output_positions is not None else observed(y, mask)
