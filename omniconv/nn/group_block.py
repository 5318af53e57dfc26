"""Residual blocks on a group."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from omniconv._errors import check_probability
from omniconv._references import GROUP_ATTENTION_PAPER, PARTIAL_PAPER, RESNET_PAPER, Cited
from omniconv._typing import PerAxis
from omniconv.groups import Samples
from omniconv.nn._chained import check_part, check_parts
from omniconv.nn._group_steps import GroupSignal
from omniconv.nn.group_attention import GroupAttention
from omniconv.nn.group_conv import GroupConv
from omniconv.nn.group_self_attention import GroupSelfAttention
from omniconv.nn.norm import BatchNorm, LayerNorm
from omniconv.nn.pointwise import Pointwise


class GroupBasicBlock(Cited, nn.Module):
    """Residual block of two group convolutions: ReLU(shortcut(x) + branch(x)).

    branch(x) = norm_2(conv_2(dropout(ReLU(norm_1(conv_1(x)))))).

    `conv_1`, `norm_1`, `conv_2`, `norm_2`: in this order. `shortcut`: a group convolution of reach 0, which takes x to
    the channels and to the elements of the branch; None is x itself, and then the branch ends at the elements of x.
    `dropout`: probability, [0, 1). `attention_1`, `attention_2`: attentive maps before the convolutions, or None.

    `draw(inputs)`: the elements at which the output is to be computed. `forward(x, inputs=None, outputs=None)`: with
    the `Samples` of x, None for the grid, and `draw`n outputs.
    Raises `ValueError` or `TypeError` that names the argument, where parts are none or their channels do not fit.

    >>> import torch
    >>> from omniconv.groups import SO2
    >>> convs, norms = [GroupConv(2, 2, 7, SO2(), 4, reach=1) for _ in range(2)], [BatchNorm(2) for _ in range(2)]
    >>> GroupBasicBlock(convs[0], norms[0], convs[1], norms[1])(torch.zeros(3, 2, 4, 7, 7)).shape
    torch.Size([3, 2, 4, 7, 7])

    He et al. 2016 (ResNet); on a group, as Romero and Lohit 2022.
    """

    references = (RESNET_PAPER, PARTIAL_PAPER)

    def __init__(
        self,
        conv_1: GroupConv,
        norm_1: BatchNorm | LayerNorm,
        conv_2: GroupConv,
        norm_2: BatchNorm | LayerNorm,
        shortcut: GroupConv | None = None,
        *,
        dropout: float = 0.0,
        attention_1: GroupAttention | None = None,
        attention_2: GroupAttention | None = None,
    ):
        super().__init__()
        for name, part, kinds in (
            ("conv_1", conv_1, [GroupConv]),
            ("norm_1", norm_1, []),
            ("conv_2", conv_2, [GroupConv]),
            ("norm_2", norm_2, []),
        ):
            check_part(name, part, *kinds)
        check_part("shortcut", shortcut, GroupConv, optional=True)
        check_part("attention_1", attention_1, GroupAttention, optional=True)
        check_part("attention_2", attention_2, GroupAttention, optional=True)
        self.conv_1, self.norm_1, self.conv_2, self.norm_2 = conv_1, norm_1, conv_2, norm_2
        self.shortcut, self.dropout = shortcut, nn.Dropout(check_probability("dropout", dropout))
        self.attention_1, self.attention_2 = attention_1, attention_2
        check_chain(conv_1, conv_2)
        first = (("attention_1", attention_1), ("conv_1", conv_1), ("norm_1", norm_1))
        check_parts(*first, ("attention_2", attention_2), ("conv_2", conv_2), ("norm_2", norm_2))
        if shortcut is None and conv_2.partial is not None:
            raise ValueError(
                "`shortcut` must be a GroupConv of reach 0 where `conv_2` is partial: x itself can only be added at "
                "its own elements."
            )
        skipped = conv_1.in_channels if shortcut is None else shortcut.out_channels
        if skipped != conv_2.out_channels:
            raise ValueError(
                f"`shortcut` must lead to the channels of `conv_2`, {conv_2.out_channels}; it leads to {skipped}. Give "
                "it a GroupConv of reach 0."
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
        for optional in (self.shortcut, self.attention_1, self.attention_2):
            if optional is not None:
                optional.reset_parameters()

    def draw(self, inputs: Samples | None = None) -> Samples:
        """The elements of the outputs: those of x where x itself is added to them."""
        if self.shortcut is None:
            return self.conv_2.samples if inputs is None else inputs
        return self.conv_2.draw()

    def forward(self, x: GroupSignal, inputs: Samples | None = None, outputs: Samples | None = None) -> GroupSignal:
        outputs = self.draw(inputs) if outputs is None else outputs
        between = self.conv_1.draw()
        y = x if self.attention_1 is None else self.attention_1(x, inputs)
        y = self.dropout(F.relu(self.norm_1(self.conv_1(y, inputs, between))))
        y = y if self.attention_2 is None else self.attention_2(y, between)
        y = self.norm_2(self.conv_2(y, between, outputs))
        return F.relu((x if self.shortcut is None else self.shortcut(x, inputs, outputs)) + y)


def check_chain(first: GroupConv, second: GroupConv) -> None:
    """Raise unless the second convolution takes what the first gives."""
    if second.in_channels != first.out_channels or second.group != first.group:
        raise ValueError(
            f"`conv_2` must take the {first.out_channels} channels of `conv_1` on {first.group}; it takes "
            f"{second.in_channels} on {second.group}."
        )


class GroupConvBlock(nn.Module):
    """A group convolution between what a plain network has around it: dropout(ReLU(norm(conv(attention(x))))).

    `conv`, `norm`, `attention`: in the order of their use; attentive maps, or None. `dropout`: probability, [0, 1).
    `draw(inputs)`, `forward(x, inputs=None, outputs=None)`: as in `GroupBasicBlock`.
    """

    def __init__(
        self,
        conv: GroupConv,
        norm: BatchNorm | LayerNorm,
        *,
        dropout: float = 0.0,
        attention: GroupAttention | None = None,
    ):
        super().__init__()
        check_part("conv", conv, GroupConv)
        check_part("norm", norm)
        check_part("attention", attention, GroupAttention, optional=True)
        check_parts(("attention", attention), ("conv", conv), ("norm", norm))
        self.conv, self.norm, self.attention = conv, norm, attention
        self.dropout = nn.Dropout(check_probability("dropout", dropout))

    def reset_parameters(self) -> None:
        """Draw the parameters of all parts anew."""
        for part in (self.conv, self.norm):
            part.reset_parameters()
        if self.attention is not None:
            self.attention.reset_parameters()

    def draw(self, inputs: Samples | None = None) -> Samples:
        """The elements of the outputs."""
        return self.conv.draw()

    def forward(self, x: GroupSignal, inputs: Samples | None = None, outputs: Samples | None = None) -> GroupSignal:
        x = x if self.attention is None else self.attention(x, inputs)
        return self.dropout(F.relu(self.norm(self.conv(x, inputs, outputs))))


class GroupResidualBlock(Cited, nn.Module):
    """Pre-norm residual block on a group: x + GELU(linear(dropout(GELU(conv(norm(x)))))), at the elements of x.

    `norm`, `conv`, `linear`: modules that keep the number of channels. `dropout`: probability, [0, 1).
    `forward(x, inputs=None, spacing=None)`: with the `Samples` of x, None for the grid; `spacing` is as in `Conv`.

    He et al. 2016 (ResNet); the block of CCNN with a group in place of translations.
    """

    references = (RESNET_PAPER,)

    def __init__(self, norm: BatchNorm | LayerNorm, conv: GroupConv, linear: Pointwise, dropout: float = 0.0):
        super().__init__()
        check_part("norm", norm)
        check_part("conv", conv, GroupConv)
        check_part("linear", linear)
        if conv.in_channels != conv.out_channels or conv.partial is not None:
            raise ValueError("`conv` must keep the number of channels and the elements; got one that does not.")
        check_parts(("norm", norm), ("conv", conv), ("linear", linear), back=True)
        self.norm, self.conv, self.linear = norm, conv, linear
        self.dropout = nn.Dropout(check_probability("dropout", dropout))

    def reset_parameters(self) -> None:
        """Draw the parameters of all parts anew."""
        for part in (self.norm, self.conv, self.linear):
            part.reset_parameters()

    def forward(
        self, x: GroupSignal, inputs: Samples | None = None, spacing: PerAxis[float] | None = None
    ) -> GroupSignal:
        at = self.conv.samples if inputs is None else inputs
        y = F.gelu(self.conv(self.norm(x), at, at, spacing=spacing))
        return x + F.gelu(self.linear(self.dropout(y)))


class GroupSelfAttentionBlock(Cited, nn.Module):
    """Residual block of self-attention: y = shortcut(x) + dropout(attention(GELU(norm_1(x)))), and then
    y + widen(GELU(narrow(norm_2(y)))), at the elements of x.

    `norm_1`, `attention`, `norm_2`, `narrow`, `widen`: in this order. `shortcut`: to the channels of the attention;
    None is x itself. `dropout`: probability, [0, 1). `forward(x, inputs=None)`: with the `Samples` of x.
    Raises `ValueError` or `TypeError` that names the argument, where parts are none or their channels do not fit.

    Romero and Cordonnier 2021.
    """

    references = (GROUP_ATTENTION_PAPER,)

    def __init__(
        self,
        norm_1: BatchNorm | LayerNorm,
        attention: GroupSelfAttention,
        norm_2: BatchNorm | LayerNorm,
        narrow: Pointwise,
        widen: Pointwise,
        shortcut: Pointwise | None = None,
        *,
        dropout: float = 0.0,
    ):
        super().__init__()
        for name, part, kinds in (
            ("norm_1", norm_1, []),
            ("attention", attention, [GroupSelfAttention]),
            ("norm_2", norm_2, []),
            ("narrow", narrow, []),
            ("widen", widen, []),
        ):
            check_part(name, part, *kinds)
        check_part("shortcut", shortcut, Pointwise, optional=True)
        ahead = (("norm_2", norm_2), ("narrow", narrow), ("widen", widen))
        check_parts(("norm_1", norm_1), ("attention", attention), *ahead)
        check_parts(*ahead, back=True)
        self.norm_1, self.attention, self.norm_2 = norm_1, attention, norm_2
        self.narrow, self.widen, self.shortcut = narrow, widen, shortcut
        self.dropout = nn.Dropout(check_probability("dropout", dropout))
        skipped = attention.in_channels if shortcut is None else shortcut.out_channels
        if skipped != attention.out_channels:
            raise ValueError(
                f"`shortcut` must lead to the channels of `attention`, {attention.out_channels}; it leads to {skipped}."
            )

    def reset_parameters(self) -> None:
        """Draw the parameters of all parts anew."""
        for part in (self.norm_1, self.attention, self.norm_2, self.narrow, self.widen):
            part.reset_parameters()
        if self.shortcut is not None:
            self.shortcut.reset_parameters()

    def forward(self, x: GroupSignal, inputs: Samples | None = None) -> GroupSignal:
        y = self.dropout(self.attention(F.gelu(self.norm_1(x)), inputs))
        y = (x if self.shortcut is None else self.shortcut(x)) + y
        return y + self.widen(F.gelu(self.narrow(self.norm_2(y))))
