"""Networks of wavelets: convolutions on translations and dilations of time."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_integer, check_probability
from omniconv._references import WAVELET_PAPER
from omniconv._typing import Condition, Mask, PerAxis, Signal
from omniconv.groups import Scaling
from omniconv.kernels import KernelFactory
from omniconv.models._network import Network
from omniconv.models.gcnn import check_whole
from omniconv.nn import BatchNorm, Downsample, GroupConv, GroupConvBlock, GroupProject, LiftingConv, PoolHead
from omniconv.nn._group_layer import SHARP, UPRIGHT
from omniconv.nn.downsample import halved
from omniconv.supports import SupportFactory


class WaveletNet(Network):
    """Scale-translation equivariant network for series: a learned wavelet transform, and convolutions on its plane.

    standardize; lift to dyadic scales 1, 2, 4 .. by a filter at every scale, norm, ReLU, a pool; then blocks of a
    convolution over time and neighbouring scales, norm, ReLU and a pool, which halves the rate; then the maximum over
    scales and the mean over time, read out. A series that is dilated by a power of two has its features on other
    scales, and nearly the same output.

    `in_channels`, `out_features`: at least 1. `size`: samples of the reference grid.
    `scales`: number of scales, at least 1. `neighbours`: scales to either side that a convolution sees, at least 0.
    `blocks`: at least 1. `width`: channels, at least 1; they double behind every second block.
    `pools`: how often the rate is halved behind the lift and behind every block, at least 1.
    With one scale it is a network of translations alone, to compare with.
    `lift_reach`, `reach`: of the kernels, in samples of the rate at which they stand, at scale 1.
    `kernel`, `support`, `factorization`, `engine`: as in `GroupConv`. `dropout`: as in `CCNN`.

    `forward(x)` takes `batch in_channels size` of any size to `batch out_features`. `omniconv.nn.admissibility(model)`
    is the penalty that makes filters wavelets: their taps sum to zero.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> model = WaveletNet(1, 10, 256, scales=3, width=4, blocks=1)
    >>> model(torch.zeros(2, 1, 256)).shape
    torch.Size([2, 10])

    Romero et al. 2024 (Wavelet Networks).
    """

    references = (WAVELET_PAPER,)
    takes_masks = False

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        size: PerAxis[int],
        *,
        scales: int = 5,
        neighbours: int = 1,
        blocks: int = 3,
        width: int = 16,
        pools: int = 2,
        lift_reach: int = 15,
        reach: int = 2,
        kernel: KernelFactory = SHARP,
        support: SupportFactory = UPRIGHT,
        factorization: str = "none",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        engine: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_features, input_dropout=input_dropout, **place)
        self.scales = check_integer("scales", scales)
        near = check_integer("neighbours", neighbours, minimum=0)
        blocks, width = check_integer("blocks", blocks), check_integer("width", width)
        self.pools = check_integer("pools", pools)
        dropped = check_probability("dropout", dropout)
        for name, value in (("lift_reach", lift_reach), ("reach", reach)):
            check_integer(name, value, minimum=0)
        group = Scaling(1, high=2.0**scales)
        options: dict[str, Any] = {"kernel": kernel, "support": support, "engine": engine}
        spread: dict[str, Any] = {
            "group_reach": (near + 0.5) * math.log(2.0),
            "factorization": factorization,
            "reach": reach,
        }
        every = {**options, **place, "bias": False}  # a norm has the bias
        self.lift = LiftingConv(in_channels, width, size, group, scales, reach=lift_reach, **every)
        self.lift_norm = BatchNorm(width, **place)
        widths = [width * 2 ** (i // 2) for i in range(blocks + 1)]
        self.blocks, at = nn.ModuleList(), self._pooled(self.lift.grid.size)
        for before, after in pairwise(widths):
            conv = GroupConv(before, after, at, group, scales, **spread, **every)
            self.blocks.append(GroupConvBlock(conv, BatchNorm(after, **place), dropout=dropped))
            at = self._pooled(at)
        self.downsample, self.project = Downsample(1), GroupProject("max")
        self.head = PoolHead(widths[-1], out_features, **place)
        self._refer_to(self.lift.grid)
        shape = {name: value for name, value in self._shape().items() if name not in ("tokens", "span")}
        body: dict[str, Any] = {"scales": scales, "neighbours": neighbours, "blocks": blocks, "width": width}
        body |= {"pools": pools}
        body |= {"lift_reach": lift_reach, "reach": reach, "factorization": factorization, "dropout": dropout}
        self.arguments = {**shape, **options, **body}

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        super().reset_parameters()
        for part in (self.lift, self.lift_norm, *self.blocks, self.head):
            part.reset_parameters()

    def _pooled(self, size: tuple[int, ...]) -> tuple[int, ...]:
        for _ in range(self.pools):
            size = halved(size)
        return size

    def forward(
        self,
        x: Signal,
        spacing: PerAxis[float] | None = None,
        mask: Mask | None = None,
        *,
        times: Tensor | None = None,
        condition: Condition | None = None,
    ) -> Tensor:
        check_whole(self, {"spacing": spacing, "mask": mask, "times": times, "condition": condition})
        x, _ = self._prepare(x, None, None, None, None)
        x = self._pool(F.relu(self.lift_norm(self.lift(x))))
        for block in self.blocks:
            x = self._pool(block(x))
        return self.head(self.project(x))

    def _pool(self, x: Tensor) -> Tensor:
        for _ in range(self.pools):
            x = self.downsample(x)
        return x
