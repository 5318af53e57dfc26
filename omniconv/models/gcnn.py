"""Networks on groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._errors import check_choice, check_probability
from omniconv._references import GCNN_PAPER, PARTIAL_PAPER, SEPARABLE_PAPER
from omniconv._typing import Condition, Mask, PerAxis, Signal, check_bool
from omniconv.groups import Count, Group
from omniconv.kernels import KernelFactory
from omniconv.models._network import Network
from omniconv.models._stages import build_stages, check_same_stages
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
    takes_masks = False

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
        widths, blocks = check_same_stages(widths, blocks)
        shared: dict[str, Any] = {"kernel": kernel, "support": support, "sampling": sampling, "engine": engine}
        dial: dict[str, Any] = {"factorization": factorization, "partial": partial, "relaxed": relaxed, "reach": reach}
        make = Maker(
            *(group, samples, kernel, place, {**shared, **dial, **place, "bias": False}),
            partial=partial is not False,
            attention=check_bool("attention", attention),
            dropout=check_probability("dropout", dropout),
        )
        lifting = {**shared, **place, "relaxed": relaxed, "reach": reach, "bias": False}  # a norm has the bias
        self.lift = LiftingConv(in_channels, widths[0], size, group, samples, **lifting)
        self.lift_norm = BatchNorm(widths[0], **place)
        made = {"residual": make.residual, "plain": make.plain}[check_choice("body", body, ("residual", "plain"))]
        self.blocks, self.last_of_stage, at = build_stages(made, widths, blocks, self.lift.grid.size)
        self.downsample = Downsample(group.dim)
        self.last = make.plain(widths[-1], widths[-1], at)
        self.project = GroupProject(reduce)
        self.head = PoolHead(widths[-1], out_features, **place)
        self._refer_to(self.lift.grid)
        body_of = {"widths": widths, "blocks": blocks, "body": body, "reduce": reduce, "dropout": dropout}
        body_of |= {"attention": attention, "group": group, "samples": samples}
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


@dataclass(frozen=True)
class Maker:
    """What makes the blocks of a network on a group, from so many channels to so many, for signals of a size."""

    group: Group
    samples: Count | None
    kernel: KernelFactory
    place: dict[str, Any]
    options: dict[str, Any]
    """Of the convolutions."""

    partial: bool
    attention: bool
    dropout: float

    def residual(self, channels: int, width: int, size: tuple[int, ...]) -> GroupBasicBlock:
        """A residual block; what it skips is x itself where channels and elements stay."""
        skips = self.partial or channels != width
        return GroupBasicBlock(
            *(self._conv(channels, width, size), BatchNorm(width, **self.place)),
            *(self._conv(width, width, size), BatchNorm(width, **self.place)),
            self._pointwise(channels, width, size) if skips else None,
            dropout=self.dropout,
            attention_1=self._maps(channels, size),
            attention_2=self._maps(width, size),
        )

    def plain(self, channels: int, width: int, size: tuple[int, ...]) -> GroupConvBlock:
        """A convolution, norm and ReLU."""
        part, norm = self._conv(channels, width, size), BatchNorm(width, **self.place)
        return GroupConvBlock(part, norm, dropout=self.dropout, attention=self._maps(channels, size))

    def _conv(self, channels: int, width: int, size: tuple[int, ...]) -> GroupConv:
        return GroupConv(channels, width, size, self.group, self.samples, **self.options)

    def _pointwise(self, channels: int, width: int, size: tuple[int, ...]) -> GroupConv:
        return GroupConv(channels, width, size, self.group, self.samples, kernel=self.kernel, reach=0, **self.place)

    def _maps(self, channels: int, size: tuple[int, ...]) -> GroupAttention | None:
        if not self.attention:
            return None
        return GroupAttention(channels, size, self.group, self.samples, kernel=self.kernel, **self.place)


def check_whole(model: Network, options: Mapping[str, object]) -> None:
    """Raise for what networks with one resolution cannot be told."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"`{name}` is not for {type(model).__name__}, which takes whole signals. Leave it out.")
    if any(step != 1.0 for step in model.spacing):
        raise ValueError(f"{type(model).__name__} has one resolution: call the model itself, no view at another.")
