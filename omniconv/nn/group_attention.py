"""Attentive maps on a group."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from omniconv._errors import check_integer
from omniconv._references import ATTENTIVE_PAPER, Cited
from omniconv._typing import PerAxis
from omniconv.groups import Count, Group, Samples
from omniconv.kernels import KernelFactory
from omniconv.nn._group_layer import SHARP
from omniconv.nn._group_steps import GroupSignal
from omniconv.nn.group_conv import GroupConv


class GroupAttention(Cited, nn.Module):
    """Takes from a group signal what maps of channels and of space mark: y = f - A_x(z) z, z = A_c(f) f.

    A_c = sigmoid(E(ReLU(D(mean_x f))) + E(ReLU(D(max_x f)))), with convolutions D and E on the group alone;
    A_x = sigmoid(C(mean_c z, max_c z)), with a convolution C in space and on the group. Both are maps on the group that
    move with the signal: the layer is equivariant, and its maps mark what is to be suppressed.

    `channels`: at least 1. `size`, `group`, `samples`, `kernel`: as in `GroupConv`.
    `reduction`: channels per channel between D and E, at least 1. `reach`: of C.

    `forward(x, inputs=None)`: `batch channels group *size` to the same, with the `Samples` of x, None for the grid.

    >>> from omniconv.groups import SO2
    >>> GroupAttention(4, 9, SO2(), 8)(torch.zeros(2, 4, 8, 9, 9)).shape
    torch.Size([2, 4, 8, 9, 9])

    Romero et al. 2020.
    """

    references = (ATTENTIVE_PAPER,)

    def __init__(
        self,
        channels: int,
        size: PerAxis[int],
        group: Group,
        samples: Count | None = None,
        *,
        reduction: int = 2,
        reach: int = 3,
        kernel: KernelFactory = SHARP,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        where = (size, group, samples)
        options: dict[str, Any] = {"kernel": kernel, "device": device, "dtype": dtype}
        hidden = max(1, check_integer("channels", channels) // check_integer("reduction", reduction))
        self.in_channels = self.out_channels = channels
        self.squeeze = GroupConv(channels, hidden, *where, reach=0, **options)
        self.excite = GroupConv(hidden, channels, *where, reach=0, **options)
        self.spatial = GroupConv(2, 1, *where, reach=reach, **options)

    def reset_parameters(self) -> None:
        for part in (self.squeeze, self.excite, self.spatial):
            part.reset_parameters()

    def channel_map(self, x: GroupSignal, inputs: Samples | None = None) -> GroupSignal:
        """A_c, `batch channels group 1 ..`, in (0, 1)."""
        space = tuple(range(3, x.ndim))
        both = (x.mean(space, keepdim=True), x.amax(space, keepdim=True))
        mean, highest = (self.excite(self.squeeze(part, inputs, inputs).relu(), inputs, inputs) for part in both)
        return torch.sigmoid(mean + highest)

    def spatial_map(self, x: GroupSignal, inputs: Samples | None = None) -> GroupSignal:
        """A_x, `batch 1 group *size`, in (0, 1)."""
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.spatial(both, inputs, inputs))

    def forward(self, x: GroupSignal, inputs: Samples | None = None) -> GroupSignal:
        if isinstance(self.squeeze, GroupConv):  # a baked network has a plain convolution here
            self.squeeze.check_input(x, inputs)
        marked = self.channel_map(x, inputs) * x
        return x - self.spatial_map(marked, inputs) * marked
