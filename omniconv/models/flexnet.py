"""FlexNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_choice, check_probability
from omniconv._references import FLEXCONV_PAPER
from omniconv._typing import Condition, Mask, PerAxis, Signal
from omniconv.kernels import Gabor, KernelFactory
from omniconv.models._network import HEADS, Network
from omniconv.models._published import FLEXCONV_OMEGA_0, published_kernel, published_support
from omniconv.models._registry import register_model
from omniconv.models._stages import check_stages
from omniconv.nn import BasicBlock, BatchNorm, Conv, Pointwise
from omniconv.supports import Gaussian, SupportFactory


class FlexNet(Network):
    """FlexNet: a residual network of dense continuous convolutions of learned size, without pooling in between.

    standardize; stem: conv, norm, ReLU; then stages of residual blocks of two convolutions, with a linear map around a
    block that changes the width; then the head. `standardize` is as in `CCNN`.

    `in_channels`, `out_features`, `size`, `tokens`, `span`: as in `CCNN`.
    `blocks`: residual blocks per stage, each at least 1. `widths`: channels per stage, each at least 1; as many.
    `kernel`, `support`, `reach`, `causal`, `boundary`, `engine`: as in `Conv`, for every convolution.
    `head`: "pool" (mean over positions), "last" (last position) or "dense" (an output per position).
    `dropout`, `input_dropout`: probabilities in the blocks and of the standardised input, [0, 1).

    `forward` is that of `CCNN`. Raises `ValueError` or `TypeError` that names the argument.

    >>> model = FlexNet(3, 10, size=(16, 16), blocks=(1, 1), widths=(4, 6))
    >>> model(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 10])

    Romero et al. 2022 (FlexConv).
    """

    references = (FLEXCONV_PAPER,)

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        size: PerAxis[int],
        *,
        blocks: Sequence[int] = (2, 3, 2),
        widths: Sequence[int] = (24, 36, 48),
        kernel: KernelFactory = Gabor,
        support: SupportFactory = Gaussian,
        reach: PerAxis[int] | None = None,
        causal: PerAxis[bool] = False,
        boundary: PerAxis[str] = "zero",
        head: str = "pool",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        tokens: int | None = None,
        span: float | None = None,
        engine: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_features, tokens=tokens, span=span, input_dropout=input_dropout, **place)
        blocks, widths = check_stages("blocks", blocks), check_stages("widths", widths)
        if len(blocks) != len(widths):
            raise ValueError(f"`blocks` and `widths` must name the same stages; got {blocks} and {widths}.")
        dropped = check_probability("dropout", dropout)
        options: dict[str, Any] = {
            "kernel": kernel,
            "support": support,
            "reach": reach,
            "causal": causal,
            "boundary": boundary,
            "engine": engine,
        }

        def conv(channels: int, width: int) -> Conv:
            return Conv(channels, width, size, **options, **place)

        def block(channels: int, width: int) -> BasicBlock:
            shortcut = Pointwise(channels, width, **place) if channels != width else None
            first, second = conv(channels, width), conv(width, width)
            return BasicBlock(
                first, BatchNorm(width, **place), second, BatchNorm(width, **place), shortcut, dropout=dropped
            )

        self.stem, self.stem_norm = conv(in_channels, widths[0]), BatchNorm(widths[0], **place)
        channels = [widths[0], *(width for count, width in zip(blocks, widths, strict=True) for _ in range(count))]
        self.blocks = nn.ModuleList(block(*pair) for pair in pairwise(channels))
        self.head = HEADS[check_choice("head", head, tuple(HEADS))](widths[-1], out_features, **place)
        self._refer_to(self.stem.grid)
        body = {"blocks": blocks, "widths": widths, "head": head, "dropout": dropout}
        self.arguments = {**self._shape(), **options, **body}

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        super().reset_parameters()
        for part in (self.stem, self.stem_norm, *self.blocks, self.head):
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
        x, where = self._prepare(x, spacing, mask, times, condition)
        x = self.stem(x, where.spacing, **where.options)
        where = where.united()
        x = F.relu(self.stem_norm(x, where.mask))
        for block in self.blocks:
            x = block(x, where.spacing, where.mask, **where.options)
        return self.head(x, where.mask, where.measure)


def flexnet(
    in_channels: int,
    out_features: int,
    size: PerAxis[int],
    *,
    blocks: Sequence[int] = (2, 3, 2),
    widths: Sequence[int] = (24, 36, 48),
    causal: PerAxis[bool] = False,
    head: str = "pool",
    dropout: float = 0.2,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> FlexNet:
    """FlexNet with the published kernels and supports, which learn their mean; FlexNet-7 unless told otherwise."""
    return FlexNet(
        in_channels,
        out_features,
        size,
        blocks=blocks,
        widths=widths,
        kernel=published_kernel(size, causal, omega_0=FLEXCONV_OMEGA_0),
        support=published_support(size, causal, learn_mean=True),
        causal=causal,
        head=head,
        dropout=dropout,
        device=device,
        dtype=dtype,
    )


FLEXNETS = {3: ((1, 1, 1), (24, 36, 48)), 5: ((1, 2, 2), (22, 33, 44)), 7: ((2, 3, 2), (24, 36, 48))}
"""Blocks and widths of the published networks, by their number of blocks."""

for count, (stages, channels) in FLEXNETS.items():
    register_model(partial(flexnet, blocks=stages, widths=channels), f"flexnet_{count}")
