"""The continuous convolutional network."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_choice, check_integer, check_number, describe
from omniconv._references import CCNN_PAPER, Cited
from omniconv._typing import Mask, PerAxis, Signal, check_bool, per_axis
from omniconv.domains import Times
from omniconv.domains.grid import Grid, check_spacing
from omniconv.kernels import SIREN, Gabor, KernelFactory
from omniconv.models._pretrained import Pretrained
from omniconv.models._registry import register_model
from omniconv.nn import (
    BatchNorm,
    Conv,
    DenseHead,
    LastHead,
    Pointwise,
    PoolHead,
    ResidualBlock,
    Standardize,
    check_mask,
    observed,
)
from omniconv.supports import Gaussian, SupportFactory

HEADS = {"pool": PoolHead, "last": LastHead, "dense": DenseHead}


class CCNN(Cited, Pretrained):
    """Continuous CNN: one network for sequences, images and volumes, at any length and resolution.

    standardize; stem: conv, norm, GELU; then `blocks` pre-norm residual blocks; then norm and head. `standardize` is
    the identity until `model.standardize.set(mean, std)` gives it the constants of the data.

    `in_channels`, `out_features`: at least 1.
    `size`: samples per axis of the reference grid, an int for one axis. The number of axes comes from here alone.
    `blocks`: at least 1. `width`: channels in the blocks, at least 1.
    `kernel`, `support`, `reach`, `causal`, `boundary`, `engine`: as in `Conv`, for every convolution.
    `mixing`: "separable" or "dense", as in `Conv`.
    `head`: "pool" (mean over positions), "last" (last position) or "dense" (an output per position).
    `dropout`: probability in the blocks, [0, 1).
    `span`: how long the reference grid of a series is, in the unit of its `times`, (0, inf); None for `size`, so that
    times count samples of the reference grid.

    `forward(x, spacing=None, mask=None, times=None)` takes `batch in_channels *size` of any size and returns
    `batch out_features`, or `batch out_features *size` with head "dense"; `spacing` is as in `Conv`. `mask` (batch,
    *size), bool, is False where a signal is padded: whatever lies there changes nothing, and each signal has the
    outputs it has alone. `times` (batch, samples) are the times at which series were sampled, any and different ones
    for every series. Then `mask`, also (batch, in_channels, samples), is False where nothing was observed: such a
    sample is absent, in no way like a zero, and "pool" weighs every sample with the time that it stands for (see
    `Times`).
    Raises `ValueError` or `TypeError` that names the argument.

    >>> model = CCNN(3, 10, size=(32, 32), blocks=1, width=8)
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])

    Romero et al. 2022 (CCNN).
    """

    references = (CCNN_PAPER,)

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        size: PerAxis[int],
        *,
        blocks: int = 4,
        width: int = 140,
        kernel: KernelFactory = SIREN,
        support: SupportFactory = Gaussian,
        mixing: str = "separable",
        reach: PerAxis[int] | None = None,
        causal: PerAxis[bool] = False,
        boundary: PerAxis[str] = "zero",
        head: str = "pool",
        dropout: float = 0.0,
        span: float | None = None,
        engine: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels)
        self.out_features = check_integer("out_features", out_features)
        blocks, width = check_integer("blocks", blocks), check_integer("width", width)
        check_choice("mixing", mixing, ("dense", "separable"))
        if (dropped := check_number("dropout", dropout, low=0.0, closed=True)) >= 1.0:
            raise ValueError(f"`dropout` must be a probability below 1; got {dropout!r}.")

        options: dict[str, Any] = {
            "kernel": kernel,
            "support": support,
            "mixing": mixing,
            "reach": reach,
            "causal": causal,
            "boundary": boundary,
            "engine": engine,
        }

        def conv(channels: int) -> Conv:
            return Conv(channels, width, size, **options, device=device, dtype=dtype)

        def norm() -> BatchNorm:
            return BatchNorm(width, device=device, dtype=dtype)

        self.standardize = Standardize(in_channels, device=device, dtype=dtype)
        self.stem, self.stem_norm = conv(in_channels), norm()
        self.blocks = nn.ModuleList(
            ResidualBlock(norm(), conv(width), Pointwise(width, width, device=device, dtype=dtype), dropped)
            for _ in range(blocks)
        )
        self.norm = norm()
        self.head = HEADS[check_choice("head", head, tuple(HEADS))](width, out_features, device=device, dtype=dtype)
        self.spacing, self.lowpass = (1.0,) * self.stem.dim, False
        self.span = None if span is None else check_number("span", span, low=0.0)
        shape = {"in_channels": in_channels, "out_features": out_features, "size": self.stem.grid.size}
        self.arguments = {**shape, **options, "blocks": blocks, "width": width, "head": head, "dropout": dropout}
        self.arguments["span"] = span

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        for part in (self.standardize, self.stem, self.stem_norm, *self.blocks, self.norm, self.head):
            part.reset_parameters()

    def at_resolution(self, factor: PerAxis[float], lowpass: bool = False) -> CCNN:
        """The model for signals sampled `factor` times as finely as the reference grid, (0, inf), one or one per axis.

        A view: it shares its layers with this model, parameters, statistics and mode. Where a coarser grid cannot carry
        a kernel's frequencies, `lowpass` filters them out, as in `Conv`; without it, warns, naming the layer.
        """
        factors = per_axis("factor", factor, self.stem.dim, check_spacing)
        view = copy.copy(self)
        view.spacing = tuple(step / times for step, times in zip(self.spacing, factors, strict=True))
        view.lowpass = check_bool("lowpass", lowpass)
        for name, module in self.named_modules():
            if isinstance(module, Conv) and not lowpass:
                module.check_resolution(view.spacing, name)
        return view

    def forward(
        self,
        x: Signal,
        spacing: PerAxis[float] | None = None,
        mask: Mask | None = None,
        times: Tensor | None = None,
    ) -> Tensor:
        if not isinstance(x, Tensor) or x.ndim != self.stem.dim + 2:
            raise ValueError(
                f"`x` must be (batch, {self.in_channels}, *size) with {self.stem.dim} axes in size; got {describe(x)}."
            )
        if times is not None:
            return self._forward_at_times(x, self._times(times, mask, spacing))
        if mask is not None:
            self._check_mask(mask, x)
        step = self._spacing(spacing)
        x = observed(self.standardize(x), mask)
        x = F.gelu(self.stem_norm(self.stem(x, step, lowpass=self.lowpass), mask))
        for block in self.blocks:
            x = block(x, step, mask, lowpass=self.lowpass)
        return self.head(self.norm(x, mask), mask)

    def _forward_at_times(self, x: Signal, times: Times) -> Tensor:
        """The same on series: the stem takes every channel at its own times, the rest all at those of any channel."""
        x = self.stem(self.standardize(x), times=times)
        times = times.united()
        x = F.gelu(self.stem_norm(x, times.mask))
        for block in self.blocks:
            x = block(x, mask=times.mask, times=times)
        return self.head(self.norm(x, times.mask), times.mask, times.measure)

    def _times(self, times: Tensor, mask: Tensor | None, spacing: PerAxis[float] | None) -> Times:
        """Times in samples of the reference grid."""
        if spacing is not None or self.spacing != (1.0,) * self.stem.dim:
            raise ValueError(
                "`times` and a spacing exclude each other: times say how finely a series is sampled. Call the model "
                "itself, not a view of it at another resolution, and without `spacing`."
            )
        sampled = Times(times, mask)
        return sampled if self.span is None else sampled.scaled(self.stem.grid.size[0] / self.span)

    def _check_mask(self, mask: Mask, x: Signal) -> None:
        check_mask(mask, x)
        if "circular" in self.stem.grid.boundary:
            raise ValueError('`mask` needs boundary="zero" on every axis: a padded circle is another circle.')

    def _spacing(self, spacing: PerAxis[float] | None) -> tuple[float, ...] | None:
        """What to hand to the layers: None at the reference spacing."""
        if spacing is None:
            return None if all(step == 1.0 for step in self.spacing) else self.spacing
        return per_axis("spacing", spacing, self.stem.dim, check_spacing)


PUBLISHED_WIDTH = 0.075
"""Initial width of the published Gaussian supports, on positions in [-1, 1] whether the kernel is causal or not."""

PUBLISHED_SPREAD = 5 / 3 * PUBLISHED_WIDTH
"""The published networks draw the centres of their filters within 5/3 widths of the zero lag."""


@register_model
def ccnn_4_140(
    in_channels: int,
    out_features: int,
    size: PerAxis[int],
    *,
    causal: PerAxis[bool] = False,
    head: str = "pool",
    dropout: float = 0.1,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> CCNN:
    """CCNN of the published smaller size: 4 blocks of width 140, kernel networks of 32 hidden units."""
    return CCNN(
        in_channels,
        out_features,
        size,
        blocks=4,
        width=140,
        kernel=partial(Gabor, hidden=32, spread=PUBLISHED_SPREAD),
        support=published_support(size, causal),
        causal=causal,
        head=head,
        dropout=dropout,
        device=device,
        dtype=dtype,
    )


@register_model
def ccnn_6_380(
    in_channels: int,
    out_features: int,
    size: PerAxis[int],
    *,
    causal: PerAxis[bool] = False,
    head: str = "pool",
    dropout: float = 0.1,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> CCNN:
    """CCNN of the published larger size: 6 blocks of width 380, kernel networks of 64 hidden units."""
    return CCNN(
        in_channels,
        out_features,
        size,
        blocks=6,
        width=380,
        kernel=partial(Gabor, hidden=64, spread=PUBLISHED_SPREAD),
        support=published_support(size, causal),
        causal=causal,
        head=head,
        dropout=dropout,
        device=device,
        dtype=dtype,
    )


def published_support(size: PerAxis[int], causal: PerAxis[bool]) -> SupportFactory:
    """A Gaussian of the published width, or of half a sample on grids so small that this is wider.

    A causal axis here has the unit of position that two published units make. Widths as plain numbers: they can be
    saved.
    """
    sizes = Grid(size).size
    pasts = per_axis("causal", causal, len(sizes), check_bool)
    reaches = [n - 1 if past else n // 2 for n, past in zip(sizes, pasts, strict=True)]
    width = [
        max(PUBLISHED_WIDTH / (2 if past else 1), 0.5 / max(far, 1)) for far, past in zip(reaches, pasts, strict=True)
    ]
    return partial(Gaussian, width=width)
