"""The operator of MultiHyena: few long filters on the outer products of keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_integer
from omniconv._references import HYENA_PAPER, LAUGHING_HYENA_PAPER, Cited
from omniconv._typing import Condition, Mask, PerAxis, Signal
from omniconv.domains import Times
from omniconv.kernels import HyenaFilter, KernelFactory
from omniconv.nn._checks import check_signal
from omniconv.nn.causal import Chain, Filter, Part, Picked, Product, Repeated, Sum, Total
from omniconv.nn.conv import Conv
from omniconv.nn.gated_conv import mixed_to, of_wide_range, scaled, scaling, short_conv
from omniconv.nn.masks import observed
from omniconv.nn.pointwise import Pointwise
from omniconv.nn.stepper import Steps
from omniconv.supports import Full, SupportFactory


class MultiHeadConv(Steps, Cited, nn.Module):
    """q, k, v = short(W x); w[m, i, j] = h_m * (k[m, i] v[m, j]) + s_m k[m, i] v[m, j]; U sum_i w[m, i, j] q[m, i].

    Channels are `n_filters` heads m of width `head_width`, i and j; every head has one long kernel h_m for all its
    products. With heads of width 1 this is `GatedConv` of order 2. The products take `head_width` times the memory.

    `n_filters`, `head_width`: at least 1. `short`: taps per axis of a table on all projections, at least 1, odd on axes
    that are not causal.
    `size`, `kernel`, `support`, `reach`, `causal`, `boundary`, `engine`: as in `Conv`, for the long convolution.
    `forward(x, spacing=None, mask=None)` and float16 as in `GatedConv`.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> MultiHeadConv(3, 2, 32)(torch.zeros(2, 6, 20)).shape
    torch.Size([2, 6, 20])

    Massaroli et al. 2023 (Laughing Hyena Distillery).
    """

    references = (LAUGHING_HYENA_PAPER, HYENA_PAPER)

    def __init__(
        self,
        n_filters: int,
        head_width: int,
        size: PerAxis[int],
        *,
        short: int = 3,
        kernel: KernelFactory = HyenaFilter,
        support: SupportFactory = Full,
        reach: PerAxis[int] | None = None,
        causal: PerAxis[bool] = True,
        boundary: PerAxis[str] = "zero",
        engine: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.n_filters = check_integer("n_filters", n_filters)
        self.head_width = check_integer("head_width", head_width)
        self.channels = n_filters * head_width
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        where: dict[str, Any] = {"causal": causal, "boundary": boundary, "mixing": "depthwise", **place}
        self.project = Pointwise(self.channels, 3 * self.channels, **place)
        self.short = short_conv(3 * self.channels, size, short, where)
        parts: dict[str, Any] = {"kernel": kernel, "support": support, "reach": reach, "engine": engine}
        self.long = Conv(n_filters, n_filters, size, bias=False, **parts, **where)
        self.skip = nn.Parameter(torch.empty(n_filters, **place))
        self.mix = Pointwise(self.channels, self.channels, **place)
        nn.init.normal_(self.skip)

    def reset_parameters(self) -> None:
        """Draw the parameters of all parts anew."""
        for part in (self.project, self.short, self.long, self.mix):
            part.reset_parameters()
        nn.init.normal_(self.skip)

    def forward(
        self,
        x: Signal,
        spacing: PerAxis[float] | None = None,
        mask: Mask | None = None,
        *,
        lowpass: bool = False,
        times: Times | None = None,
        condition: Condition | None = None,
    ) -> Signal:
        where: dict[str, Any] = {"spacing": spacing, "lowpass": lowpass, "times": times}
        check_signal(x, self.channels, mask)
        x = observed(self.short(observed(self.project(observed(x, mask)), mask), **where), mask)
        query, key, value = (
            of_wide_range(x).unflatten(1, (3, self.n_filters, self.head_width)).transpose(2, 3).unbind(1)
        )
        product = (key[:, :, None] * value[:, None]).flatten(0, 2)  # (batch i j, m, *size): one signal per entry
        # Every entry of a sample has its times and its condition.
        entries = self.head_width**2
        own: dict[str, Any] = {
            **where,
            "times": None if times is None else times.repeated(entries),
            "condition": None if condition is None else condition.repeat_interleave(entries, 0),
        }
        kept = self.long(product, **own) + scaled(product, self.skip)
        kept = kept.unflatten(0, (-1, self.head_width, self.head_width))
        y = (kept * query[:, :, None]).sum(1)  # (batch, j, m, *size)
        return mixed_to(self.mix, y.transpose(1, 2).flatten(1, 2), x.dtype)

    def _ends(self) -> tuple[int, int, Tensor]:
        return self.channels, self.channels, self.skip

    def causal_part(self, name: str, filtered: Filter) -> Part:
        """The operator as a causal map that takes a signal in pieces, with `filtered` in place of its kernel."""
        width, count = self.head_width, self.n_filters
        i, j, m = (torch.arange(n, device=self.skip.device) for n in (width, width, count))
        first = (m * width + i[:, None, None]).expand(width, width, count).flatten()  # of entry (i, j, m): m, i
        second = (m * width + j[None, :, None]).expand(width, width, count).flatten()
        outer = Product(Picked(first + self.channels), Picked(second + 2 * self.channels))
        kernel = Sum(self.long.causal_part(f"{name}.long", filtered), scaling(self.skip))
        contracted = Product(Picked(first), Chain([outer, Repeated(kernel, width**2)]))
        heads = torch.arange(self.channels, device=m.device).unflatten(0, (width, count)).T.flatten()
        short = self.short.causal_part(f"{name}.short", filtered)
        parts = [self.project.causal_part(), short, contracted, Total(width), Picked(heads), self.mix.causal_part()]
        return Chain(parts)
