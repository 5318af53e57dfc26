"""Networks of stages, each at half the resolution of the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from omniconv._errors import check_integer, describe
from omniconv.nn.downsample import halved


def check_stages(name: str, value: Any) -> tuple[int, ...]:
    """One integer of at least 1 per stage, or raise."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise TypeError(f"`{name}` must be a sequence of integers, one per stage; got {describe(value)}.")
    return tuple(check_integer(name, item) for item in value)


def check_same_stages(widths: Any, blocks: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and number of blocks of each stage, one block if nothing is said, or raise."""
    widths = check_stages("widths", widths)
    blocks = (1,) * len(widths) if blocks is None else check_stages("blocks", blocks)
    if len(blocks) != len(widths):
        raise ValueError(f"`blocks` and `widths` must name the same stages; got {blocks} and {widths}.")
    return widths, blocks


def build_stages(
    make: Callable[[int, int, tuple[int, ...]], nn.Module],
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
    size: tuple[int, ...],
) -> tuple[nn.ModuleList, list[bool], tuple[int, ...]]:
    """All blocks, whether each is the last of its stage, and the size of what comes out of the last stage.

    `make(channels, width, size)`: a block from so many channels to so many, for signals of that size.
    """
    made, ends, channels = nn.ModuleList(), [False] * sum(blocks), widths[0]
    for width, count in zip(widths, blocks, strict=True):
        outputs = [channels] + [width] * count
        made.extend(make(*pair, size) for pair in pairwise(outputs))
        ends[len(made) - 1] = True
        size, channels = halved(size), width
    return made, ends, size
