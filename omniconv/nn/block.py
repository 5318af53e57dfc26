"""The residual block of CCNN."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_probability
from omniconv._references import CCNN_PAPER, Cited
from omniconv._typing import Condition, Mask, PerAxis, Signal
from omniconv.domains import Cloud, Times
from omniconv.nn._chained import check_part, check_parts
from omniconv.nn.causal import Chain, Filter, Part, Same, Sum, gelu
from omniconv.nn.conv import Conv
from omniconv.nn.masks import observed
from omniconv.nn.norm import BatchNorm, LayerNorm
from omniconv.nn.pointwise import Pointwise
from omniconv.nn.stepper import Steps


class ResidualBlock(Steps, Cited, nn.Module):
    """Pre-norm residual block: x + GELU(linear(dropout(GELU(conv(norm(x)))))).

    `norm`, `conv`, `linear`: modules that keep the number of channels. `dropout`: probability, [0, 1).
    `forward(x, spacing=None, mask=None)`: positions (batch, *size) that are False count for nothing; `spacing`,
    `lowpass`, `times`, `positions` and `condition` are as in `Conv`.
    Raises `ValueError` or `TypeError` that names the argument, where parts are none or their channels do not fit.

    Romero et al. 2022 (CCNN).
    """

    references = (CCNN_PAPER,)

    def __init__(self, norm: BatchNorm | LayerNorm, conv: Conv, linear: Pointwise, dropout: float = 0.0):
        super().__init__()
        check_part("norm", norm)
        check_part("conv", conv, Conv)
        check_part("linear", linear)
        check_parts(("norm", norm), ("conv", conv), ("linear", linear), back=True)
        self.norm, self.conv, self.linear = norm, conv, linear
        self.dropout = nn.Dropout(check_probability("dropout", dropout))

    def reset_parameters(self) -> None:
        """Draw the parameters of all parts anew."""
        for part in (self.norm, self.conv, self.linear):
            part.reset_parameters()

    def _ends(self) -> tuple[int, int, Tensor]:
        return self.conv.in_channels, self.linear.out_channels, self.linear.weight

    def causal_part(self, name: str, filtered: Filter) -> Part:
        """The block as a causal map that takes a signal in pieces, with `filtered` in place of its kernel."""
        norm, conv = self.norm.causal_part(f"{name}.norm"), self.conv.causal_part(f"{name}.conv", filtered)
        return Sum(Same(), Chain([norm, conv, gelu(), self.linear.causal_part(), gelu()]))

    def forward(
        self,
        x: Signal,
        spacing: PerAxis[float] | None = None,
        mask: Mask | None = None,
        *,
        lowpass: bool = False,
        times: Times | None = None,
        positions: Cloud | None = None,
        condition: Condition | None = None,
    ) -> Signal:
        y = observed(self.norm(x, mask), mask)
        y = self.conv(y, spacing, lowpass=lowpass, times=times, positions=positions, condition=condition)
        y = F.gelu(y)
        return x + F.gelu(self.linear(self.dropout(y)))
