"""Parts of a block, one behind the other: of the right kind, and of channels that fit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import nn

from omniconv._errors import describe


def check_part(name: str, part: Any, *kinds: type[nn.Module], optional: bool = False) -> None:
    """Raise `TypeError` unless the part is a module, of one of the kinds if there are any; or None, if `optional`."""
    if (optional and part is None) or isinstance(part, kinds or nn.Module):
        return
    names = " or a ".join(kind.__name__ for kind in kinds) or "torch.nn.Module"
    raise TypeError(f"`{name}` must be a {names}{' or None' if optional else ''}; got {describe(part)}.")


def check_parts(*parts: tuple[str, Any], back: bool = False) -> None:
    """Raise `ValueError` unless every part takes the channels that the one before gives; each with its argument's name.

    `back`: whether the last has to give what the first takes, because it is added to that. Parts that do not say how
    many they take are passed over.
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
    """The channels that a part takes and gives, its `in_channels` and `out_channels`; None if it has none."""
    taken, given = getattr(part, "in_channels", None), getattr(part, "out_channels", None)
    return (taken, given) if isinstance(taken, int) and isinstance(given, int) else None
