"""The residual block of two convolutions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_probability
from omniconv._references import RESNET_PAPER, Cited
from omniconv._typing import Condition, Mask, PerAxis, Signal, check_bool
from omniconv.domains import Times
from omniconv.nn._chained import check_part, check_parts
from omniconv.nn._checks import check_signal
from omniconv.nn.causal import Chain, Filter, Part, Same, Sum, relu
from omniconv.nn.conv import Conv
from omniconv.nn.masks import observed
from omniconv.nn.norm import BatchNorm, LayerNorm
from omniconv.nn.pointwise import Pointwise
from omniconv.nn.stepper import Steps


class BasicBlock(Steps, Cited, nn.Module):
    """Residual block of two convolutions: ReLU(shortcut(x) + branch(x)).

    branch(x) = norm_2(conv_2(dropout(ReLU(norm_1(conv_1(x)))))), and with `rectify` dropout(ReLU(.)) of that.

    `conv_1`, `norm_1`, `conv_2`, `norm_2`: in this order. `shortcut`: from the channels of x to those of the branch;
    None is x itself. `dropout`: probability, [0, 1). `rectify`: False in FlexNet, True in CKCNN.
    `forward(x, spacing=None, mask=None)`: positions (batch, *size) that are False count for nothing; `spacing`,
    `lowpass`, `times` and `condition` are as in `Conv`.
    Raises `ValueError` or `TypeError` that names the argument, where parts are none or their channels do not fit.

    >>> import torch
    >>> from omniconv.nn import Conv1d
    >>> convs, norms = [Conv1d(2, 2, size=8) for _ in range(2)], [BatchNorm(2) for _ in range(2)]
    >>> BasicBlock(convs[0], norms[0], convs[1], norms[1], dropout=0.1)(torch.zeros(4, 2, 8)).shape
    torch.Size([4, 2, 8])

    He et al. 2016 (ResNet); with continuous kernels, Romero et al. 2022 (CKConv, FlexConv).
    """

    references = (RESNET_PAPER,)

    def __init__(
        self,
        conv_1: Conv,
        norm_1: BatchNorm | LayerNorm,
        conv_2: Conv,
        norm_2: BatchNorm | LayerNorm,
        shortcut: Pointwise | None = None,
        *,
        dropout: float = 0.0,
        rectify: bool = False,
    ):
        super().__init__()
        check_part("conv_1", conv_1, Conv)
        check_part("norm_1", norm_1)
        check_part("conv_2", conv_2, Conv)
        check_part("norm_2", norm_2)
        check_part("shortcut", shortcut, Pointwise, optional=True)
        check_parts(("conv_1", conv_1), ("norm_1", norm_1), ("conv_2", conv_2), ("norm_2", norm_2))
        self.conv_1, self.norm_1, self.conv_2, self.norm_2 = conv_1, norm_1, conv_2, norm_2
        self.shortcut, self.dropout = shortcut, nn.Dropout(check_probability("dropout", dropout))
        self.rectify = check_bool("rectify", rectify)
        skipped = conv_1.in_channels if shortcut is None else shortcut.out_channels
        if skipped != conv_2.out_channels:
            raise ValueError(
                f"`shortcut` must lead to the channels of `conv_2`, {conv_2.out_channels}; it leads to {skipped}. "
                f"Give shortcut=Pointwise({conv_1.in_channels}, {conv_2.out_channels})."
            )
        if shortcut is not None and shortcut.in_channels != conv_1.in_channels:
            raise ValueError(
                f"`shortcut` must take the {conv_1.in_channels} channels that `conv_1` takes; it takes "
                f"{shortcut.in_channels}."
            )

    def reset_parameters(self) -> None:
        """Draw the parameters of all parts anew."""
        for part in (self.conv_1, self.norm_1, self.conv_2, self.norm_2):
            part.reset_parameters()
        if self.shortcut is not None:
            self.shortcut.reset_parameters()

    def _ends(self) -> tuple[int, int, Tensor]:
        return self.conv_1.in_channels, self.conv_2.out_channels, self.conv_1.gain

    def causal_part(self, name: str, filtered: Filter) -> Part:
        """The block as a causal map that takes a signal in pieces, with `filtered` in place of its kernels."""
        branch: list[Part] = []
        for i, conv, norm in ((1, self.conv_1, self.norm_1), (2, self.conv_2, self.norm_2)):
            branch += [conv.causal_part(f"{name}.conv_{i}", filtered), norm.causal_part(f"{name}.norm_{i}"), relu()]
        shortcut = Same() if self.shortcut is None else self.shortcut.causal_part()
        return Chain([Sum(shortcut, Chain(branch if self.rectify else branch[:-1])), relu()])

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
        check_signal(x, self.conv_1.in_channels, mask)
        x = observed(x, mask)
        again = None if times is None else times.united()
        measure = None if again is None else again.measure
        y = self.conv_1(x, spacing, lowpass=lowpass, times=times, condition=condition)
        y = observed(self.dropout(F.relu(self.norm_1(y, mask, measure))), mask)
        y = self.norm_2(self.conv_2(y, spacing, lowpass=lowpass, times=again, condition=condition), mask, measure)
        if self.rectify:
            y = self.dropout(F.relu(y))
        return F.relu((x if self.shortcut is None else self.shortcut(x)) + y)
