"""Convolution from a signal to a signal on a group."""

from __future__ import annotations

from typing import Any

import torch

from omniconv._errors import check_choice
from omniconv._typing import PerAxis, Signal
from omniconv.groups import Count, Group, Samples
from omniconv.kernels import KernelFactory
from omniconv.nn._group_layer import SHARP, UPRIGHT, GroupLayer
from omniconv.nn._group_steps import Factorization, GroupSignal, Lift, Maker, OverChannels, OverSpace, Step
from omniconv.nn.relaxed import relaxation_of
from omniconv.supports import SupportFactory


def dense(make: Maker, in_channels: int, out_channels: int) -> list[Step]:
    """K(r)[out, in]."""
    return [Lift(make, in_channels, out_channels)]


def separable(make: Maker, in_channels: int, out_channels: int) -> list[Step]:
    """W[out, in] K(r)[out]."""
    return [OverChannels(make, in_channels, out_channels), OverSpace(make, out_channels)]


LIFTINGS: dict[str, Factorization] = {"dense": dense, "separable": separable}
"""By name, the steps whose kernels multiply to that of the convolution."""


class LiftingConv(GroupLayer):
    """Convolution of a signal with a kernel in all poses: y(x, h) = |det h|^-1 sum_lag k(h^-1 lag / reach) f(x - lag).

    From `batch channels *size` to `batch channels group *size`. Where the signal is moved by an element g of the group,
    y(x, h) moves with it, to (g x, g h).

    `in_channels`, `out_channels`: at least 1.
    `size`: samples per axis of the reference grid, one int for all.
    `group`: from `omniconv.groups`, which acts on as many axes. `samples`: its elements, as in `Group.grid`; None for
    all of a finite group.
    `kernel`, `support`: as in `Conv`. The kernel is a function of the position as the pose sees it. It fills a cube
    where the group maps axes to axes, else a ball.
    `mixing`: "dense" (a kernel per pair of channels) or "separable" (a linear map of the channels, then a kernel each).
    `relaxed`: as in `GroupConv`.
    `reach`: farthest lag of the upright kernel in samples, one int for all axes, at least 0; None for half the size.
    `boundary`, `bias`, `engine`: as in `Conv`; the bias is the same for all elements of the group, and the boundary on
    axes that the group turns into one another.

    `sampling`: at which elements `draw()` asks for outputs in training: "grid", those of `samples`; "offset", that grid
    moved as a whole by a random part of a cell, so that every integral over the group is right on average; or
    "independent". At evaluation it is the grid.

    `forward(x, outputs=None, *, spacing=None)`: `outputs` are `Samples`; None for `draw()`, unless these are random and
    have to be known to the next layer. `spacing` is as in `Conv`.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> from omniconv.groups import SO2
    >>> LiftingConv(1, 4, 9, SO2(), 8, reach=2)(torch.zeros(2, 1, 9, 9)).shape
    torch.Size([2, 4, 8, 9, 9])

    Cohen and Welling 2016; with continuous kernels, Knigge et al. 2022.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: PerAxis[int],
        group: Group,
        samples: Count | None = None,
        *,
        kernel: KernelFactory = SHARP,
        support: SupportFactory = UPRIGHT,
        mixing: str = "dense",
        relaxed: int = 0,
        reach: int | None = None,
        boundary: PerAxis[str] = "zero",
        bias: bool = True,
        engine: str = "auto",
        sampling: str = "grid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        options: dict[str, Any] = {"support": support, "reach": reach, "boundary": boundary, "engine": engine, **place}
        where = (out_channels, size, group, samples)
        super().__init__(in_channels, *where, on_group=False, bias=bias, sampling=sampling, **options)
        self.mixing = check_choice("mixing", mixing, tuple(LIFTINGS))
        steps = LIFTINGS[mixing](self._maker(kernel, place), in_channels, out_channels)

        def branch(channels: int) -> LiftingConv:
            return LiftingConv(channels, *where, kernel=kernel, mixing=mixing, bias=False, **options)

        self._build(steps, relaxation_of(relaxed, in_channels, branch, group, self.grid, place))

    def forward(
        self, x: Signal, outputs: Samples | None = None, *, spacing: PerAxis[float] | None = None
    ) -> GroupSignal:
        self._check_signal(x, "", None)
        return self.run(x.unsqueeze(2), None, outputs, spacing)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mixing={self.mixing!r}"
