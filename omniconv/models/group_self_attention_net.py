"""Self-attention networks on groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._errors import check_probability
from omniconv._references import GROUP_ATTENTION_PAPER
from omniconv._typing import Condition, Mask, PerAxis, Signal
from omniconv.groups import Count, Group
from omniconv.kernels import KernelFactory
from omniconv.models._network import Network
from omniconv.models._stages import build_stages, check_same_stages
from omniconv.models.gcnn import check_whole
from omniconv.nn import (
    BatchNorm,
    Downsample,
    GroupSelfAttention,
    GroupSelfAttentionBlock,
    LiftingSelfAttention,
    Pointwise,
    PoolHead,
)
from omniconv.nn._group_layer import SHARP


class GroupSelfAttentionNet(Network):
    """Group-equivariant network without convolutions: the class of a signal by self-attention among its poses.

    standardize; lift by self-attention; stages of blocks (`GroupSelfAttentionBlock`), each at half the resolution of
    the one before; norm; the mean over space and the maximum over the group, read out.

    `in_channels`, `out_features`: at least 1. `size`: samples per axis of the reference grid, one int for all.
    `group`, `samples`: as in `GCNN`. `widths`, `blocks`: channels and number of blocks of each stage.
    `heads`, `reach`, `kernel`: as in `GroupSelfAttention`. `dropout`: of channels behind the attention, [0, 1);
    `attention_dropout`: of scores, [0, 1).

    `forward(x)` takes `batch in_channels *size` of any size to `batch out_features`.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> from omniconv.groups import SO2
    >>> model = GroupSelfAttentionNet(1, 10, 12, group=SO2(), samples=4, widths=(4, 8), heads=2)
    >>> model(torch.zeros(2, 1, 12, 12)).shape
    torch.Size([2, 10])

    Romero and Cordonnier 2021.
    """

    references = (GROUP_ATTENTION_PAPER,)
    takes_masks = False

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        size: PerAxis[int],
        *,
        group: Group,
        samples: Count | None = None,
        widths: Sequence[int] = (20, 20),
        blocks: Sequence[int] | None = None,
        heads: int = 4,
        reach: int = 2,
        kernel: KernelFactory = SHARP,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        input_dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_features, input_dropout=input_dropout, **place)
        widths, blocks = check_same_stages(widths, blocks)
        dropped = check_probability("dropout", dropout)
        options: dict[str, Any] = {"heads": heads, "reach": reach, "kernel": kernel}
        scores: dict[str, Any] = {"dropout": check_probability("attention_dropout", attention_dropout)}
        every = {**options, **scores, **place}
        self.lift = LiftingSelfAttention(in_channels, widths[0], size, group, samples, **every)

        def block(channels: int, width: int, at: tuple[int, ...]) -> GroupSelfAttentionBlock:
            return GroupSelfAttentionBlock(
                BatchNorm(channels, **place),
                GroupSelfAttention(channels, width, at, group, samples, **every),
                *(BatchNorm(width, **place), Pointwise(width, width // 2 or 1, **place)),
                Pointwise(width // 2 or 1, width, **place),
                Pointwise(channels, width, **place) if channels != width else None,
                dropout=dropped,
            )

        self.blocks, self.last_of_stage, _ = build_stages(block, widths, blocks, self.lift.grid.size)
        self.downsample = Downsample(group.dim)
        self.norm, self.head = BatchNorm(widths[-1], **place), PoolHead(widths[-1], out_features, **place)
        self._refer_to(self.lift.grid)
        shape = {name: value for name, value in self._shape().items() if name not in ("tokens", "span")}
        body = {"widths": widths, "blocks": blocks, "dropout": dropout, "attention_dropout": attention_dropout}
        self.arguments = {**shape, **options, **body, "group": group, "samples": samples}

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        super().reset_parameters()
        for part in (self.lift, *self.blocks, self.norm, self.head):
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
        x = self.lift(x)
        for block, ends in zip(self.blocks, self.last_of_stage, strict=True):
            x = block(x)
            x = self.downsample(x) if ends else x
        pooled = F.relu(self.norm(x)).flatten(3).mean(3).amax(2)
        return self.head(pooled[..., None])
