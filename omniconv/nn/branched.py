"""A convolution beside small ones, which fold into one after training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from omniconv._errors import check_floating_tensor, check_integer, describe
from omniconv._references import UNIREPLKNET_PAPER, Cited
from omniconv._typing import Mask, PerAxis, Signal, check_bool, per_axis
from omniconv.kernels import Table
from omniconv.nn._recurrent import engine_of_taps
from omniconv.nn.conv import Conv
from omniconv.nn.masks import check_mask, observed
from omniconv.nn.norm import BatchNorm
from omniconv.supports import Full


class Branched(Cited, nn.Module):
    """A convolution and small, possibly dilated ones beside it, each normalised over the batch, and summed.

    y = sum_i norm_i(conv_i(x)): conv_0 is `conv`, the others have a `Table` of free taps. Small kernels learn the
    detail that a large one is slow to find; `omniconv.export.fold` makes one convolution of all of them.

    `conv`: a `Conv` with mixing "dense" or "depthwise"; the branches have its channels, grid, direction and engine.
    `branches`: (kernel size, dilation) of each, both as in `torch.nn.ConvNd`, one int or one per axis, at least 1; the
    size is odd on an axis that is not causal.
    `norm`: whether each, with `conv`, is followed by a `BatchNorm` of its own.

    Each convolution keeps the variance of white noise, so a new sum has as many times that as there are terms.
    `forward(x, spacing=None, mask=None)` takes `batch channels *size`; positions (batch, *size) that are False count
    for nothing. Raises `ValueError` or `TypeError` that names the argument.

    >>> import torch
    >>> layer = Branched(Conv(3, 3, (32, 32), mixing="depthwise"), [(5, 1), (3, 2), (3, 3)])
    >>> layer(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])

    Ding et al. 2024 (UniRepLKNet).
    """

    references = (UNIREPLKNET_PAPER,)

    def __init__(self, conv: Conv, branches: Sequence[tuple[PerAxis[int], PerAxis[int]]], *, norm: bool = True):
        super().__init__()
        if not isinstance(conv, Conv):
            raise TypeError(f"`conv` must be a Conv, beside which the branches are built; got {describe(conv)}.")
        if conv.mixing == "separable":
            raise ValueError(
                '`conv` must have mixing "dense" or "depthwise": what mixes the channels is no part of one kernel. Put '
                "a Pointwise after a depthwise Branched."
            )
        if not isinstance(branches, Sequence) or isinstance(branches, str):  # type: ignore[unreachable]
            raise TypeError(f"`branches` must be a list of pairs (kernel size, dilation); got {describe(branches)}.")
        if not branches:
            raise ValueError(
                "`branches` must have one pair (kernel size, dilation) at least; got none. Use `conv` alone."
            )
        self.dim, plain = conv.dim, not check_bool("norm", norm)
        self.convs = nn.ModuleList(
            [conv, *(make_branch(conv, branch, plain, f"branches[{index}]") for index, branch in enumerate(branches))]
        )
        where: dict[str, Any] = {"device": conv.gain.device, "dtype": conv.gain.dtype}
        self.norms = nn.ModuleList(BatchNorm(conv.out_channels, **where) for _ in self.convs if norm)

    def reset_parameters(self) -> None:
        """Draw the parameters of all convolutions anew, and forget the statistics."""
        for part in (*self.convs, *self.norms):
            part.reset_parameters()

    def forward(self, x: Signal, spacing: PerAxis[float] | None = None, mask: Mask | None = None) -> Signal:
        check_floating_tensor("x", x)
        if x.ndim != self.dim + 2:
            raise ValueError(f"`x` must have {self.dim + 2} axes, (batch, channels, *size); got {describe(x)}.")
        if mask is not None:
            check_mask(mask, x)
        x = observed(x, mask)
        terms: list[Signal] = [conv(x, spacing) for conv in self.convs]
        if self.norms:
            terms = [norm(y, mask) for norm, y in zip(self.norms, terms, strict=True)]
        return sum(terms[1:], start=terms[0])


def make_branch(conv: Conv, branch: tuple[PerAxis[int], PerAxis[int]], bias: bool, name: str) -> Conv:
    """The small convolution of that kernel size and dilation, beside `conv`; `name` is what messages call the pair."""
    if not isinstance(branch, Sequence) or len(branch) != 2:
        raise TypeError(f"`{name}` must be a pair (kernel size, dilation); got {describe(branch)}.")
    sizes = per_axis(f"kernel size of {name}", branch[0], conv.dim, check_integer)
    dilation = per_axis(f"dilation of {name}", branch[1], conv.dim, check_integer)
    for axis, (size, past) in enumerate(zip(sizes, conv.causal, strict=True)):
        if not past and size % 2 == 0:
            raise ValueError(
                f"`{name}` must have an odd kernel size on axes that are not causal, as many taps on either side of "
                f"the zero lag; got {size} on axis {axis}. Use {size - 1} or {size + 1}."
            )
    taps = [size - 1 if past else size // 2 for size, past in zip(sizes, conv.causal, strict=True)]
    return Conv(
        conv.in_channels,
        conv.out_channels,
        conv.grid.size,
        kernel=partial(Table, dilation=dilation),
        support=Full,
        mixing=conv.mixing,
        reach=tuple(n * step for n, step in zip(taps, dilation, strict=True)),
        causal=conv.causal,
        boundary=conv.grid.boundary,
        bias=bias,
        engine=engine_of_taps(conv.engine),
        device=conv.gain.device,
        dtype=conv.gain.dtype,
    )
