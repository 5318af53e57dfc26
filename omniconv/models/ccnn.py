"""The continuous convolutional network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_choice, check_integer, check_probability
from omniconv._references import CCNN_PAPER
from omniconv._typing import Condition, Mask, PerAxis, Signal, check_bool, per_axis
from omniconv.domains import Cloud
from omniconv.groups import Count, Group
from omniconv.groups._group import check_group
from omniconv.kernels import SIREN, KernelFactory
from omniconv.models._network import HEADS, Network
from omniconv.models._published import published_kernel, published_support
from omniconv.models._registry import register_model
from omniconv.nn import BatchNorm, Conv, GroupConv, GroupResidualBlock, LiftingConv, Pointwise, ResidualBlock
from omniconv.nn.causal import Filter, Part, gelu
from omniconv.supports import Gaussian, SupportFactory


class CCNN(Network):
    """Continuous CNN: one network for sequences, images, volumes and clouds, at any length and resolution.

    standardize; stem: conv, norm, GELU; then `blocks` pre-norm residual blocks; then norm and head. `standardize` is
    the identity until `model.standardize.set(mean, std)` gives it the constants of the data.

    `in_channels`, `out_features`: at least 1.
    `size`: samples per axis of the reference grid, an int for one axis. The number of axes comes from here alone.
    `blocks`: at least 1. `width`: channels in the blocks, at least 1.
    `kernel`, `support`, `reach`, `causal`, `boundary`, `engine`: as in `Conv`, for every convolution.
    `mixing`: "separable" or "dense", as in `Conv`.
    `head`: "pool" (mean over positions), "last" (last position; not for clouds) or "dense" (an output per position).
    `dropout`: probability in the blocks, [0, 1). `input_dropout`: that of the standardised input, [0, 1).
    `tokens`: number of tokens, for signals that are ids: the network embeds them in `in_channels`; None for signals.
    `group`, `samples`: from `omniconv.groups`, and its elements as in `Group.grid`: the same network with convolutions
    on that group in place of translations, whose output does not change (head "pool") or moves (head "dense") when a
    group element moves the signal; see `LiftingConv`, `GroupConv`. Mixing "separable" is then the factorization of that
    name, "dense" is "none"; `reach` is one number, `boundary` the same on axes that the group turns into one another,
    and there is no `causal`, `mask`, `times` or `condition`. None, both of them, for translations alone.
    `span`: how long the reference grid is, in the unit of `times` or `positions`, (0, inf), one number or one per axis;
    None for `size`, so that they count samples of the reference grid.

    `forward(x, spacing=None, mask=None, *, times=None, condition=None)` takes `batch in_channels *size` of any size and
    returns `batch out_features`, or `batch out_features *size` with head "dense"; with `tokens` it takes ids (batch,
    *size), not standardised. `spacing` is as in `Conv`. `mask` (batch, *size), bool, is False where a signal is padded:
    whatever lies there changes nothing, and each signal has the outputs it has alone.
    `times` (batch, samples) are the times at which series were sampled, any and different ones for every series. Then
    `mask`, also (batch, in_channels, samples), is False where nothing was observed: such a sample is absent, in no way
    like a zero, and "pool" weighs every sample with the time that it stands for (see `Times`).
    `positions` (batch, points, dim): x is clouds of points, `batch in_channels points`, at any positions, in the unit
    of `span`; then `mask` is (batch, points), and what comes out `batch out_features`, or with head "dense" `batch
    out_features points`. A `Cloud` says how much each point stands for, too (see `PointConv`).
    `condition` (batch, conditions) in [0, 1] is what kernels that take one are given: each signal has its own.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> model = CCNN(3, 10, size=(32, 32), blocks=1, width=8)
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])

    Romero et al. 2022 (CCNN).
    """

    references = (CCNN_PAPER,)
    takes_positions = True

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
        input_dropout: float = 0.0,
        tokens: int | None = None,
        span: PerAxis[float] | None = None,
        group: Group | None = None,
        samples: Count | None = None,
        engine: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_features, tokens=tokens, span=span, input_dropout=input_dropout, **place)
        blocks, width = check_integer("blocks", blocks), check_integer("width", width)
        check_choice("mixing", mixing, ("dense", "separable"))
        dropped = check_probability("dropout", dropout)

        options: dict[str, Any] = {
            "kernel": kernel,
            "support": support,
            "mixing": mixing,
            "reach": reach,
            "causal": causal,
            "boundary": boundary,
            "engine": engine,
        }

        def norm() -> BatchNorm:
            return BatchNorm(width, **place)

        def linear() -> Pointwise:
            return Pointwise(width, width, **place)

        check_on_group(group, samples, span)
        self.group, self.takes_masks = group, group is None
        self.stem: Conv  # on a group, a LiftingConv
        if group is None:
            convs = (Conv(c, width, size, **options, **place) for c in (in_channels, *[width] * blocks))
            self.stem, self.stem_norm = next(convs), norm()
            self.blocks = nn.ModuleList(ResidualBlock(norm(), conv, linear(), dropped) for conv in convs)
        else:
            check_choice("head", head, ("pool", "dense"))
            parts = self._group_convs(width, size, group, samples, blocks, options, place)
            self.stem, self.stem_norm = next(parts), norm()  # type: ignore[assignment]
            self.blocks = nn.ModuleList(GroupResidualBlock(norm(), part, linear(), dropped) for part in parts)  # type: ignore[arg-type]
        self.norm = norm()
        self.head = HEADS[check_choice("head", head, tuple(HEADS))](width, out_features, **place)
        self._refer_to(self.stem.grid)
        body = {"blocks": blocks, "width": width, "head": head, "dropout": dropout}
        self.arguments = {**self._shape(), **options, **body, "group": group, "samples": samples}

    def _group_convs(
        self,
        width: int,
        size: PerAxis[int],
        group: Group,
        samples: Count | None,
        blocks: int,
        options: dict[str, Any],
        place: dict[str, Any],
    ) -> Iterator[LiftingConv | GroupConv]:
        """The stem, and the convolutions of the blocks."""
        shared = {name: options[name] for name in ("kernel", "support", "reach", "boundary", "engine")}
        if any(per_axis("causal", options["causal"], group.dim, check_bool)):
            raise ValueError("`causal` has no meaning on a group that moves all axes; got True. Leave it out.")
        mixing = options["mixing"]
        yield LiftingConv(self.in_channels, width, size, group, samples, mixing=mixing, **shared, **place)
        factorization = "separable" if mixing == "separable" else "none"
        for _ in range(blocks):
            yield GroupConv(width, width, size, group, samples, factorization=factorization, **shared, **place)

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        super().reset_parameters()
        for part in (self.stem, self.stem_norm, *self.blocks, self.norm, self.head):
            part.reset_parameters()

    def forward(
        self,
        x: Signal,
        spacing: PerAxis[float] | None = None,
        mask: Mask | None = None,
        *,
        times: Tensor | None = None,
        positions: Cloud | Tensor | None = None,
        condition: Condition | None = None,
    ) -> Tensor:
        others: dict[str, object] = {"times": times, "condition": condition}
        if self.group is not None:
            return self._on_group(x, spacing, {"mask": mask, "positions": positions} | others)
        if positions is None:
            x, where = self._prepare(x, spacing, mask, times, condition)
        else:
            x, where = self._place(x, positions, mask, {"spacing": spacing} | others)
        x = self.stem(x, where.spacing, **where.options)
        where = where.united()
        x = F.gelu(self.stem_norm(x, where.mask))
        for block in self.blocks:
            x = block(x, where.spacing, where.mask, **where.options)
        return self.head(self.norm(x, where.mask), where.mask, where.measure)

    def causal_body(self, filtered: Filter) -> list[Part]:
        if self.group is not None:
            raise ValueError("`model` must be a network without a group, whose layers look at samples to come.")
        stem = [self.stem.causal_part("stem", filtered), self.stem_norm.causal_part("stem_norm"), gelu()]
        blocks = [block.causal_part(f"blocks.{i}", filtered) for i, block in enumerate(self.blocks)]  # type: ignore[operator]
        return [*stem, *blocks, self.norm.causal_part("norm")]

    def _on_group(self, x: Signal, spacing: PerAxis[float] | None, others: dict[str, Any]) -> Tensor:
        """The same network on a group, and the mean over the group."""
        for name, value in (others | {"lowpass": self.lowpass or None}).items():
            if value is not None:
                raise ValueError(f"`{name}` is not for networks on a group. Leave it out.")
        x, where = self._prepare(x, spacing, None, None, None)
        x = F.gelu(self.stem_norm(self.stem(x, spacing=where.spacing)))
        for block in self.blocks:
            x = block(x, spacing=where.spacing)
        return self.head(self.norm(x).mean(2))


def check_on_group(group: Any, samples: Any, span: Any) -> None:
    """Raise unless `group` is None or a group, and the arguments that depend on it fit."""
    if group is None:
        if samples is not None:
            raise ValueError(f"`samples` are those of a `group`, and there is none; got {samples!r}. Give a group.")
        return
    check_group(group)
    if span is not None:
        raise ValueError(
            f"`span` is the unit of `times` and `positions`, and a network on a `group` takes none of them; got "
            f"{span!r}. Leave it out."
        )


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
        kernel=published_kernel(size, causal, hidden=32),
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
        kernel=published_kernel(size, causal, hidden=64),
        support=published_support(size, causal),
        causal=causal,
        head=head,
        dropout=dropout,
        device=device,
        dtype=dtype,
    )
