"""The operator of Hyena: gates and long convolutions in turn."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_integer
from omniconv._references import HYENA_PAPER, Cited
from omniconv._typing import Condition, Mask, PerAxis, Signal, check_bool, per_axis
from omniconv.domains import Grid, Times
from omniconv.kernels import HyenaFilter, KernelFactory, Table
from omniconv.nn._checks import check_signal
from omniconv.nn.causal import Affine, Chain, Channels, Filter, Part, Product, Sum
from omniconv.nn.conv import Conv, strict_precision
from omniconv.nn.masks import observed
from omniconv.nn.pointwise import Pointwise
from omniconv.nn.stepper import Steps
from omniconv.supports import Full, SupportFactory


class GatedConv(Steps, Cited, nn.Module):
    """The operator of Hyena of order N, y = U (x_0 v_0), where v_{N-1}, x_{N-1}, .., x_0 are channels of short(W x) and
    v_{n-1} = h_n * (x_n v_n) + s_n x_n v_n for n = N-1, .., 1.

    `*` is a convolution per channel with a long kernel h_n, `short` one with a table of few taps on all projections,
    W and U mix channels, s are numbers per channel.

    `channels`: at least 1. `size`, `kernel`, `support`, `reach`, `causal`, `boundary`, `engine`: as in `Conv`, for the
    long convolutions. `order`: N, at least 2; there are N - 1 long convolutions. `short`: taps per axis, at least 1,
    odd on axes that are not causal.
    `forward(x, spacing=None, mask=None)`: positions (batch, *size) that are False count for nothing; `spacing`,
    `lowpass`, `times` and `condition` are as in `Conv`.
    Products of float16 signals are taken in float32, to the end: what float16 cannot hold there is infinite, never NaN,
    as long as the projections W x and what `short` makes of them stay below 65504.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> GatedConv(4, 32)(torch.zeros(2, 4, 20)).shape
    torch.Size([2, 4, 20])

    Poli et al. 2023 (Hyena).
    """

    references = (HYENA_PAPER,)

    def __init__(
        self,
        channels: int,
        size: PerAxis[int],
        *,
        order: int = 2,
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
        self.channels, self.order = check_integer("channels", channels), check_integer("order", order, minimum=2)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        where: dict[str, Any] = {"causal": causal, "boundary": boundary, "mixing": "depthwise", **place}
        wide = (order + 1) * channels
        self.project = Pointwise(channels, wide, **place)
        self.short = short_conv(wide, size, short, where)
        long = partial(Conv, channels, channels, size, kernel=kernel, support=support, reach=reach, bias=False)
        self.long = nn.ModuleList(long(engine=engine, **where) for _ in range(order - 1))
        self.skip = nn.Parameter(torch.empty(order - 1, channels, **place))
        self.mix = Pointwise(channels, channels, **place)
        nn.init.normal_(self.skip)

    def reset_parameters(self) -> None:
        """Draw the parameters of all parts anew."""
        for part in (self.project, self.short, *self.long, self.mix):
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
        x = self.short(observed(self.project(observed(x, mask)), mask), **where)
        *gates, value = of_wide_range(x).unflatten(1, (self.order + 1, self.channels)).unbind(1)
        for gate, conv, skip in zip(gates[:0:-1], self.long, self.skip, strict=True):
            value = observed(gate * value, mask)
            value = conv(value, condition=condition, **where) + scaled(value, skip)
        return mixed_to(self.mix, gates[0] * value, x.dtype)

    def _ends(self) -> tuple[int, int, Tensor]:
        return self.channels, self.channels, self.skip

    def causal_part(self, name: str, filtered: Filter) -> Part:
        """The operator as a causal map that takes a signal in pieces, with `filtered` in place of its kernels."""
        gates = [Channels(n * self.channels, (n + 1) * self.channels) for n in range(self.order + 1)]
        value: Part = gates.pop()
        for i, (conv, skip) in enumerate(zip(self.long, self.skip, strict=True)):
            kept = conv.causal_part(f"{name}.long.{i}", filtered)  # type: ignore[operator]
            value = Chain([Product(gates.pop(), value), Sum(kept, scaling(skip))])
        short = self.short.causal_part(f"{name}.short", filtered)
        return Chain([self.project.causal_part(), short, Product(gates[0], value), self.mix.causal_part()])


def short_conv(channels: int, size: PerAxis[int], taps: int, where: dict[str, Any]) -> Conv:
    """A convolution per channel with a table of so many taps on every axis."""
    check_integer("short", taps)
    past = per_axis("causal", where["causal"], Grid(size).dim, check_bool)
    if taps % 2 == 0 and not all(past):
        raise ValueError(f"`short` must be odd where an axis is not causal, for a tap in the middle; got {taps}.")
    reach = tuple(taps - 1 if only else taps // 2 for only in past)
    return Conv(channels, channels, size, kernel=Table, support=Full, reach=reach, **where)


def of_wide_range(x: Signal) -> Signal:
    """The signal in float32 where it is in float16, whose largest number products of a few hundreds go beyond."""
    return x.float() if x.dtype == torch.float16 else x


def mixed_to(mix: Pointwise, x: Signal, dtype: torch.dtype) -> Signal:
    """`mix(x)`, and where float16 was widened for products back in it: what is larger becomes infinite, never NaN."""
    if dtype != torch.float16:
        return mix(x)
    with strict_precision(x.device):
        return mix(x).to(dtype)


def scaled(x: Signal, scale: Tensor) -> Signal:
    """The signal times a number per channel."""
    return x * scale.to(x.dtype).reshape(-1, *[1] * (x.ndim - 2))


def scaling(scale: Tensor) -> Part:
    """`scaled` as a part of a stream."""
    return Affine(partial(scaled, scale=scale.detach()), scale, None)
