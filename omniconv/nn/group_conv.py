"""Convolution of signals on a group."""

from __future__ import annotations

from typing import Any

import torch

from omniconv._errors import check_choice, check_number
from omniconv._references import SEPARABLE_PAPER
from omniconv._typing import PerAxis
from omniconv.groups import Count, Group, Product, Samples
from omniconv.kernels import KernelFactory
from omniconv.nn._group_layer import SHARP, UPRIGHT, GroupLayer
from omniconv.nn._group_steps import (
    Factorization,
    GroupSignal,
    Maker,
    OverBoth,
    OverBothByChannel,
    OverChannels,
    OverFactor,
    OverGroup,
    OverSpace,
    Step,
)
from omniconv.nn.partial import Partial, chooses_by_factors
from omniconv.nn.relaxed import relaxation_of
from omniconv.supports import SupportFactory


def joint(make: Maker, in_channels: int, out_channels: int) -> list[Step]:
    """K(r, eta)[out, in]."""
    return [OverBoth(make, in_channels, out_channels)]


def group_separable(make: Maker, in_channels: int, out_channels: int) -> list[Step]:
    """K_H(eta)[out, in] K_X(r)[out, in]."""
    return [OverBoth(make, in_channels, out_channels, factored=True)]


def separable(make: Maker, in_channels: int, out_channels: int) -> list[Step]:
    """K_H(eta)[out, in] K_X(r)[out]."""
    return [OverGroup(make, in_channels, out_channels), OverSpace(make, out_channels)]


def depthwise_separable(make: Maker, in_channels: int, out_channels: int) -> list[Step]:
    """W[out, in] K(r, eta)[out]."""
    return [OverChannels(make, in_channels, out_channels), OverBothByChannel(make, out_channels)]


def depthwise_group_separable(make: Maker, in_channels: int, out_channels: int) -> list[Step]:
    """W[out, in] K_H(eta)[out] K_X(r)[out]."""
    over_channels = OverChannels(make, in_channels, out_channels)
    over_group = OverGroup(make, out_channels, out_channels, depthwise=True)
    return [over_channels, over_group, OverSpace(make, out_channels)]


def factor_separable(make: Maker, in_channels: int, out_channels: int) -> list[Step]:
    """K_1(eta_1)[out, in] K_2(eta_2)[out] .. K_X(r)[out], one factor of the kernel for each factor of the group."""
    if not isinstance(make.group, Product):
        raise ValueError(f'`factorization` "factor-separable" needs a Product of groups; got {make.group}.')
    first = OverFactor(make, 0, in_channels, out_channels)
    others = [
        OverFactor(make, i, out_channels, out_channels, depthwise=True) for i in range(1, len(make.group.factors))
    ]
    return [first, *others, OverSpace(make, out_channels)]


def on_the_group(make: Maker, in_channels: int, out_channels: int) -> list[Step]:
    """K_H(eta)[out, in], and nothing in space."""
    return [OverGroup(make, in_channels, out_channels)]


FACTORIZATIONS: dict[str, Factorization] = {
    "none": joint,
    "group-separable": group_separable,
    "separable": separable,
    "depthwise-separable": depthwise_separable,
    "depthwise-group-separable": depthwise_group_separable,
    "factor-separable": factor_separable,
}
"""By name, the steps whose kernels multiply to that of the convolution."""


def part_of(partial: Any, group: Group, samples: Count | None, place: dict[str, Any]) -> Partial | None:
    """What the argument `partial` of a layer asks for."""
    if partial is False:
        return None
    begin = 1.0 if partial is True else check_number("partial", partial, low=0.0, high=1.0)
    return Partial(group, samples, begin=begin, **place)


class GroupConv(GroupLayer):
    """Convolution on R^dim x| H: y(x, h) = |det h|^-1 sum_g w_g sum_lag k(h^-1 lag / reach, h^-1 g) f(x - lag, g).

    From `batch channels group *size` to the same. Where f is moved by an element of the group, y moves with it. The
    weights w_g of the samples g sum to 1, so that the layer computes one integral whatever their number.

    `in_channels`, `out_channels`, `size`, `group`, `samples`, `support`, `boundary`, `bias`, `engine`,
    `sampling`: as in `LiftingConv`.
    `kernel`: as in `Conv`, a function of the position as the pose h sees it, and of the features of h^-1 g
    (`Group.describe`), which have no cut: for rotations their cosine and sine.
    `reach`: with 0 there is no kernel in space, and no support: y(x, h) = sum_g w_g k(h^-1 g) f(x, g).
    `group_reach`: the kernel is zero for relative elements farther than this, |log(h^-1 g)|, (0, inf); None: nowhere.
    On groups that are not compact, such as scalings, it keeps what lies beyond the sampled range out of most outputs.
    `factorization`: what the kernel k(r, eta), a matrix of output and input channels, is a product of.
    "none": nothing;  "group-separable": K_H(eta)[out, in] K_X(r)[out, in];
    "separable": K_H(eta)[out, in] K_X(r)[out];  "depthwise-separable": W[out, in] K(r, eta)[out];
    "depthwise-group-separable": W[out, in] K_H(eta)[out] K_X(r)[out];  "factor-separable", for a `Product` of groups:
    K_1(eta_1)[out, in] K_2(eta_2)[out] .. K_X(r)[out], on samples that are a grid of as many elements of each factor as
    the layer's, offset or moved as a whole or not; it has no `group_reach`.

    `partial`: whether `draw()` gives a learned part of the group, as in `Partial`, instead of all of it; a number is
    where its widths begin, True is 1.

    `relaxed`: rank of a part with other kernels at every absolute pose (x, g) of its inputs, 0 or False for none, True
    for 4: y = C_0(f) + s C_1(c f), with `rank` functions c(x, g) that multiply all channels. The part begins with
    s = 0.01; with s = 0 the layer is the strict one, to the last bit.

    `forward(x, inputs=None, outputs=None, *, spacing=None)`: the elements at which x was sampled, `Samples`, None for
    the grid; and those at which the output shall be, None for `draw()`, unless these are random and have to be known to
    the next layer. `spacing` is as in `Conv`.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> from omniconv.groups import SO2
    >>> layer = GroupConv(4, 6, 9, SO2(), 8, reach=2, factorization="separable")
    >>> layer(torch.zeros(2, 4, 8, 9, 9)).shape
    torch.Size([2, 6, 8, 9, 9])

    Cohen and Welling 2016; with continuous kernels and their factorizations, Knigge et al. 2022.
    """

    references = (*GroupLayer.references, SEPARABLE_PAPER)

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
        factorization: str = "none",
        partial: bool | float = False,
        relaxed: int = 0,
        reach: int | None = None,
        group_reach: float | None = None,
        boundary: PerAxis[str] = "zero",
        bias: bool = True,
        engine: str = "auto",
        sampling: str = "grid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        options: dict[str, Any] = {"support": support, "reach": reach, "boundary": boundary, "engine": engine, **place}
        options |= {"group_reach": group_reach}
        where = (out_channels, size, group, samples)
        super().__init__(in_channels, *where, on_group=True, bias=bias, sampling=sampling, **options)
        self.factorization = check_choice("factorization", factorization, tuple(FACTORIZATIONS))
        if factorization == "factor-separable" and sampling == "independent":
            raise ValueError('`sampling` "independent" has no factors. Use "grid" or "offset" with "factor-separable".')
        if factorization == "factor-separable" and group_reach is not None:
            raise ValueError(
                '`group_reach` is a distance over all factors, and "factor-separable" has a kernel for each.'
            )
        self.partial = part_of(partial, group, samples, place)
        if factorization == "factor-separable" and self.partial is not None and not chooses_by_factors(group):
            raise ValueError(
                f"`partial` chooses among the components of several factors of {group} together, which is no product. "
                'Use another `factorization` than "factor-separable".'
            )
        make = self._maker(kernel, place)
        steps = (FACTORIZATIONS[factorization] if self.reach else on_the_group)(make, in_channels, out_channels)

        def branch(channels: int) -> GroupConv:
            return GroupConv(channels, *where, kernel=kernel, factorization=factorization, bias=False, **options)

        self._build(steps, relaxation_of(relaxed, in_channels, branch, group, self.grid, place))

    def is_random(self) -> bool:
        return super().is_random() or (self.training and self.partial is not None and self.partial.random)

    def draw(self) -> Samples:
        whole = super().draw()
        return whole if self.partial is None else self.partial(whole, centred=whole is self.samples)

    def _placed(self, name: str, samples: Any) -> Samples:
        placed = super()._placed(name, samples)
        for step in self.chain:
            if isinstance(step, OverFactor) and not step.takes(placed):
                came = f"{len(placed)} others" if placed.counts is None else f"a grid of {placed.counts}"
                raise ValueError(
                    f"`{name}` must combine {step.counts} elements of the factors, each with each, the last changing "
                    f'fastest, with weights that are products, for "factor-separable"; got {came}. Take them from '
                    f"`layer.draw()` or `group.grid({step.counts})`."
                )
        return placed

    def refresh(self) -> None:
        """Read the learned extent of the support, and bring the learned part of the group back into its bounds."""
        super().refresh()
        if self.partial is not None:
            self.partial.refresh()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.partial is not None:
            self.partial.reset_parameters()

    def forward(
        self,
        x: GroupSignal,
        inputs: Samples | None = None,
        outputs: Samples | None = None,
        *,
        spacing: PerAxis[float] | None = None,
    ) -> GroupSignal:
        return self.run(x, self.check_input(x, inputs), outputs, spacing)

    def check_input(self, x: Any, inputs: Samples | None) -> Samples:
        """The elements of `x` on the device of the layer; raises unless these and `x` are what the layer takes."""
        inputs = self._placed("inputs", self.inputs if inputs is None else inputs)
        self._check_signal(x, f", {len(inputs)}", len(inputs))
        return inputs

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, factorization={self.factorization!r}, partial={self.partial is not None}"
