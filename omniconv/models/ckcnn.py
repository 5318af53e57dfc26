"""The continuous kernel convolutional network, and FlexTCN."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_choice, check_integer, check_probability
from omniconv._references import CKCONV_PAPER, TCN_PAPER
from omniconv._typing import Condition, Mask, PerAxis, Signal
from omniconv.kernels import SIREN, KernelFactory
from omniconv.models._network import HEADS, Network
from omniconv.models._published import FLEXCONV_OMEGA_0, published_kernel, published_support
from omniconv.models._registry import register_model
from omniconv.nn import BasicBlock, BatchNorm, Conv, LayerNorm, Pointwise
from omniconv.nn.causal import Filter, Part
from omniconv.supports import Full, SupportFactory

NORMS = {"layer": LayerNorm, "batch": BatchNorm}


class CKCNN(Network):
    """Continuous kernel CNN: a residual network of dense continuous convolutions, causal unless told otherwise.

    standardize; then `blocks` residual blocks of two convolutions, each followed by norm, ReLU and dropout, with a
    linear map around a block that changes the width; then the head. `standardize` is as in `CCNN`.

    `in_channels`, `out_features`, `size`, `tokens`, `span`: as in `CCNN`. `blocks`, `width` (channels): at least 1.
    `kernel`, `support`, `reach`, `causal`, `boundary`, `engine`: as in `Conv`, for every convolution.
    `norm`: "layer", each signal over channels and positions together, so that every output depends on the whole signal
    even if `causal`; or "batch", each channel over the batch, which looks at no future.
    `head`: "last" (last position), "pool" (mean over positions) or "dense" (an output per position).
    `dropout`, `input_dropout`: probabilities in the blocks and of the standardised input, [0, 1).

    `forward` is that of `CCNN`; around the first block, a channel that was not observed at a time counts as its mean.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> model = CKCNN(1, 10, size=784, width=8)
    >>> model(torch.zeros(2, 1, 784)).shape
    torch.Size([2, 10])

    Romero et al. 2022 (CKConv); its body is that of Bai et al. 2018 (TCN).
    """

    references = (CKCONV_PAPER, TCN_PAPER)

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        size: PerAxis[int],
        *,
        blocks: int = 2,
        width: int = 30,
        kernel: KernelFactory = SIREN,
        support: SupportFactory = Full,
        norm: str = "layer",
        reach: PerAxis[int] | None = None,
        causal: PerAxis[bool] = True,
        boundary: PerAxis[str] = "zero",
        head: str = "last",
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
        blocks, width = check_integer("blocks", blocks), check_integer("width", width)
        dropped, make_norm = check_probability("dropout", dropout), NORMS[check_choice("norm", norm, tuple(NORMS))]
        options: dict[str, Any] = {
            "kernel": kernel,
            "support": support,
            "reach": reach,
            "causal": causal,
            "boundary": boundary,
            "engine": engine,
        }

        def block(channels: int) -> BasicBlock:
            return BasicBlock(
                Conv(channels, width, size, **options, **place),
                make_norm(width, **place),
                Conv(width, width, size, **options, **place),
                make_norm(width, **place),
                Pointwise(channels, width, **place) if channels != width else None,
                dropout=dropped,
                rectify=True,
            )

        first = block(in_channels)
        self.blocks = nn.ModuleList([first, *(block(width) for _ in range(blocks - 1))])
        self.head = HEADS[check_choice("head", head, tuple(HEADS))](width, out_features, **place)
        self._draw_head()
        self._refer_to(first.conv_1.grid)
        body = {"blocks": blocks, "width": width, "norm": norm, "head": head, "dropout": dropout}
        self.arguments = {**self._shape(), **options, **body}

    def _draw_head(self) -> None:
        nn.init.normal_(self.head.readout.weight, std=0.01)

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        super().reset_parameters()
        for part in (*self.blocks, self.head):
            part.reset_parameters()
        self._draw_head()

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
        for block in self.blocks:
            x = block(x, where.spacing, where.mask, **where.options)
            where = where.united()
        return self.head(x, where.mask, where.measure)

    def causal_body(self, filtered: Filter) -> list[Part]:
        return [block.causal_part(f"blocks.{i}", filtered) for i, block in enumerate(self.blocks)]  # type: ignore[operator]


def flextcn(
    in_channels: int,
    out_features: int,
    size: PerAxis[int],
    *,
    blocks: int = 2,
    causal: PerAxis[bool] = True,
    head: str = "last",
    dropout: float = 0.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> CKCNN:
    """FlexTCN: a CKCNN with batch norm, Gabor kernels and learned Gaussian supports; of 2, 4 or 6 blocks as published.

    The published supports learn their mean as well. Ours stay at the zero lag on a causal axis: one number less per
    convolution, two per block.

    Romero et al. 2022 (FlexConv).
    """
    return CKCNN(
        in_channels,
        out_features,
        size,
        blocks=blocks,
        kernel=published_kernel(size, causal, omega_0=FLEXCONV_OMEGA_0),
        support=published_support(size, causal, learn_mean=True),
        norm="batch",
        causal=causal,
        head=head,
        dropout=dropout,
        device=device,
        dtype=dtype,
    )


for count in (2, 4, 6):
    register_model(partial(flextcn, blocks=count), f"flextcn_{count}")
