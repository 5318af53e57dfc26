"""From a signal on a group back to a signal in space."""

from __future__ import annotations

import torch
from torch import nn

from omniconv._errors import check_choice, check_floating_tensor, describe
from omniconv._typing import Signal
from omniconv.groups import Samples
from omniconv.nn._group_steps import GroupSignal


class GroupProject(nn.Module):
    """The maximum or the mean over the group: `batch channels group *size` to `batch channels *size`.

    y(x) = max_h f(x, h), or sum_h w_h f(x, h): a signal that moves with the group as images do.

    `reduce`: "max" or "mean".
    `forward(x, inputs=None)`: `Samples` at which x was sampled, whose weights make the mean; elements that weigh
    nothing do not count in the maximum. None: all count alike.

    >>> GroupProject("mean")(torch.ones(2, 3, 8, 5, 5)).shape
    torch.Size([2, 3, 5, 5])
    """

    def __init__(self, reduce: str = "max"):
        super().__init__()
        self.reduce = check_choice("reduce", reduce, ("max", "mean"))

    def forward(self, x: GroupSignal, inputs: Samples | None = None) -> Signal:
        check_floating_tensor("x", x)
        if x.ndim < 4:
            raise ValueError(f"`x` must be (batch, channels, group, *size); got {describe(x)}.")
        if inputs is not None and not isinstance(inputs, Samples):
            raise TypeError(f"`inputs` must be omniconv.groups.Samples; got {describe(inputs)}.")
        if inputs is not None and len(inputs) != x.shape[2]:
            raise ValueError(f"`inputs` must be the {x.shape[2]} elements of `x`; got {len(inputs)}.")
        if inputs is None:
            return x.amax(2) if self.reduce == "max" else x.mean(2)
        weights = inputs.weights.to(x).reshape(-1, *[1] * (x.ndim - 3))
        if self.reduce == "mean":
            return (x * weights).sum(2)
        if inputs.kept is not None:  # a choice must feel the maximum that it is part of: a factor of 1, with a slope
            x = x * inputs.kept.to(x).reshape(weights.shape)
        return torch.where(weights > 0, x, -torch.inf).amax(2)

    def extra_repr(self) -> str:
        return repr(self.reduce)
