"""Networks on groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_choice, check_probability
from omniconv._references import GCNN_PAPER, PARTIAL_PAPER, SEPARABLE_PAPER
from omniconv._typing import Condition, Mask, PerAxis, Signal, check_bool
from omniconv.groups import Count, Group
from omniconv.kernels import KernelFactory
from omniconv.models._network import Network
from omniconv.models.flexnet import check_stages
from omniconv.nn import (
    BatchNorm,
    Downsample,
    GroupAttention,
    GroupBasicBlock,
    GroupConv,
    GroupConvBlock,
    GroupProject,
    LiftingConv,
    PoolHead,
)
from omniconv.nn._group_layer import SHARP, UPRIGHT
from omniconv.nn.downsample import halved
from omniconv.supports import SupportFactory


class GCNN(Network):
    """Group-equivariant CNN: the class of a signal, wherever and however it is posed.

    standardize; lift to the group, norm, ReLU; residual blocks (body "residual") or convolutions, norm, ReLU (body
    "plain"), each stage at half the resolution of the one before; a last convolution, norm, ReLU; then the maximum over
    the group and over space, read out.

    `in_channels`, `out_features`: at least 1. `size`: samples per axis of the reference grid, one int for all.
    `group`, `samples`: from `omniconv.groups`, and its elements as in `Group.grid`.
    `widths`: channels of each stage. `blocks`: residual blocks, or convolutions, of each stage.
    `body`: "residual", of blocks with two convolutions (`GroupBasicBlock`), or "plain".
    `reduce`: "max" or "mean", over group and space.
    `kernel`, `support`, `factorization`, `relaxed`: as in `GroupConv`, for every convolution. `reach`: of the kernels,
    in samples of the resolution at which they stand.
    `partial`: whether the outputs of convolutions are on learned parts of the group, as in `Partial`; the first layer
    lifts to all of it. `attention`: whether there are attentive maps (`GroupAttention`) before every convolution.
    `sampling`: in training, as in `LiftingConv`, of every layer for itself. `dropout`, `engine`: as in `CCNN`.

    `forward(x)` takes `batch in_channels *size` of any size to `batch out_features`. A network of pooled, turning parts
    has one resolution and takes whole signals: it has no `spacing`, `mask`, `times` or `condition`.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> from omniconv.groups import SO2
    >>> model = GCNN(1, 10, 28, group=SO2(), samples=8, widths=(4, 8), factorization="separable")
    >>> model(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])

    Cohen and Welling 2016; bodies of Knigge et al. 2022, Romero and Lohit 2022.
    """

    references = (GCNN_PAPER, SEPARABLE_PAPER, PARTIAL_PAPER)

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        size: PerAxis[int],
        *,
        group: Group,
        samples: Count | None = None,
        widths: Sequence[int] = (32, 64),
        blocks: Sequence[int] | None = None,
        body: str = "residual",
        reduce: str = "max",
        kernel: KernelFactory = SHARP,
        support: SupportFactory = UPRIGHT,
        factorization: str = "separable",
        partial: bool | float = False,
        relaxed: int = 0,
        attention: bool = False,
        reach: int = 3,
        sampling: str = "offset",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        engine: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_features, input_dropout=input_dropout, **place)
        widths = check_stages("widths", widths)
        blocks = (1,) * len(widths) if blocks is None else check_stages("blocks", blocks)
        if len(blocks) != len(widths):
            raise ValueError(f"`blocks` and `widths` must name the same stages; got {blocks} and {widths}.")
        dropped, attentive = check_probability("dropout", dropout), check_bool("attention", attention)
        shared: dict[str, Any] = {"kernel": kernel, "support": support, "sampling": sampling, "engine": engine}
        turned = {"factorization": factorization, "partial": partial}

        def conv(channels: int, width: int, size: tuple[int, ...]) -> GroupConv:
            options = {**shared, **turned, **place, "relaxed": relaxed, "reach": reach, "bias": False}
            return GroupConv(channels, width, size, group, samples, **options)  # a norm has the bias

        def pointwise(channels: int, width: int, size: tuple[int, ...]) -> GroupConv:
            return GroupConv(channels, width, size, group, samples, kernel=kernel, reach=0, **place)

        def maps(channels: int, size: tuple[int, ...]) -> GroupAttention | None:
            return GroupAttention(channels, size, group, samples, kernel=kernel, **place) if attentive else None

        def residual(channels: int, width: int, size: tuple[int, ...]) -> GroupBasicBlock:
            return GroupBasicBlock(
                *(conv(channels, width, size), BatchNorm(width, **place)),
                *(conv(width, width, size), BatchNorm(width, **place)),
                pointwise(channels, width, size) if partial or channels != width else None,
                dropout=dropped,
                attention_1=maps(channels, size),
                attention_2=maps(width, size),
            )

        def plain(channels: int, width: int, size: tuple[int, ...]) -> GroupConvBlock:
            part = conv(channels, width, size)
            return GroupConvBlock(part, BatchNorm(width, **place), dropout=dropped, attention=maps(channels, size))

        make = {"residual": residual, "plain": plain}[check_choice("body", body, ("residual", "plain"))]
        options = {**shared, **place, "reach": reach, "relaxed": relaxed, "bias": False}
        lifted = LiftingConv(in_channels, widths[0], size, group, samples, **options)
        self.lift, self.lift_norm = lifted, BatchNorm(widths[0], **place)
        at, channels = lifted.grid.size, widths[0]
        self.blocks, self.last_of_stage = nn.ModuleList(), [False] * sum(blocks)
        for width, count in zip(widths, blocks, strict=True):
            outputs = [channels] + [width] * count
            self.blocks.extend(make(*pair, at) for pair in pairwise(outputs))
            self.last_of_stage[len(self.blocks) - 1] = True
            at, channels = halved(at), width
        self.downsample = Downsample(group.dim)
        self.last = plain(channels, channels, at)
        self.project = GroupProject(reduce)
        self.head = PoolHead(channels, out_features, **place)
        self._refer_to(lifted.grid)
        body_of = {"widths": widths, "blocks": blocks, "body": body, "reduce": reduce, "dropout": dropout}
        dial = {
            **turned,
            "relaxed": relaxed,
            "attention": attention,
            "group": group,
            "samples": samples,
            "reach": reach,
        }
        shape = {name: value for name, value in self._shape().items() if name not in ("tokens", "span")}
        self.arguments = {**shape, **shared, **dial, **body_of}

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        super().reset_parameters()
        for part in (self.lift, self.lift_norm, *self.blocks, self.last, self.head):
            part.reset_parameters()

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
        at = self.lift.draw()
        x = F.relu(self.lift_norm(self.lift(x, at)))
        for block, ends in zip([*self.blocks, self.last], [*self.last_of_stage, False], strict=True):
            outputs = block.draw(at)
            x, at = block(x, at, outputs), outputs
            x = self.downsample(x) if ends else x
        x = self.project(x, at)
        if self.project.reduce == "max":
            x = x.flatten(2).amax(2, keepdim=True)
        return self.head(x)


def check_whole(model: Network, options: Mapping[str, object]) -> None:
    """Raise for what networks with one resolution cannot be told."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"`{name}` is not for {type(model).__name__}, which takes whole signals. Leave it out.")
    if any(step != 1.0 for step in model.spacing):
        raise ValueError(f"{type(model).__name__} has one resolution: call the model itself, no view at another.")
