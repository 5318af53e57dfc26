"""Parts of a block, one behind the other: of the right kind, and of channels that fit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import nn

from omniconv._errors import describe
from omniconv.nn._group_layer import GroupLayer
from omniconv.nn.conv import Conv
from omniconv.nn.group_attention import GroupAttention
from omniconv.nn.group_self_attention import SelfAttention
from omniconv.nn.norm import BatchNorm, ChannelNorm, LayerNorm
from omniconv.nn.pointwise import Pointwise


def check_part(name: str, part: Any, *kinds: type[nn.Module], optional: bool = False) -> None:
    """Raise `TypeError` unless the part is a module, of one of the kinds if there are any; or None, if `optional`."""
    if (optional and part is None) or isinstance(part, kinds or nn.Module):
        return
    names = " or a ".join(kind.__name__ for kind in kinds) or "torch.nn.Module"
    raise TypeError(f"`{name}` must be a {names}{' or None' if optional else ''}; got {describe(part)}.")


def check_parts(*parts: tuple[str, Any], back: bool = False) -> None:
    """Raise `ValueError` unless every part takes the channels that the one before gives; each with its argument's name.

    `back`: whether the last has to give what the first takes, because it is added to that. Parts that are no layers of
    this library keep how many they take to themselves.
    """
    known = [(name, found) for name, part in parts if (found := ends(part)) is not None]
    for (before, (_, given)), (name, (taken, _)) in pairwise(known):
        if taken != given:
            raise ValueError(f"`{name}` must take the {given} channels of `{before}`; it takes {taken}.")
    if back and known and known[-1][1][1] != known[0][1][0]:
        (first, (taken, _)), (last, (_, given)) = known[0], known[-1]
        raise ValueError(
            f"`{last}` must lead back to the {taken} channels of `{first}`, to which it is added; it leads to {given}."
        )


def ends(part: Any) -> tuple[int, int] | None:
    """The channels that a part takes and gives; None where they are not known."""
    if isinstance(part, BatchNorm):
        return part.num_features, part.num_features
    if isinstance(part, LayerNorm):
        return part.num_channels, part.num_channels
    if isinstance(part, ChannelNorm):
        return part.channels, part.channels
    if isinstance(part, GroupAttention):
        return part.squeeze.in_channels, part.squeeze.in_channels
    if isinstance(part, (Conv, GroupLayer, SelfAttention, Pointwise)):
        return part.in_channels, part.out_channels
    return None
