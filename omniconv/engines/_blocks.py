"""Slices of a batch of signals that stay in a processor's cache while they are worked on."""

from __future__ import annotations

from functools import lru_cache

from omniconv.engines._problem import Problem

Block = tuple[slice, slice]
"""A slice of the batch and one of the channels."""

CACHED = 2**19
"""Samples of the signals of which a processor's cache holds several copies."""

ROWS = 8
"""Fewest channels in a slice: a transform of fewer leaves threads idle."""


LONG = 4
"""How many times more is done at once where a slice of the cache's size would have too few rows."""


@lru_cache(maxsize=4096)
def blocks(problem: Problem, row: int, budget: int, *, whole: int = 0, multiple: int = ROWS) -> tuple[Block, ...]:
    """Slices of (batch, channels) that cover all, of at most about `budget` samples where a channel takes `row`.

    One slice up to `whole` samples, where the taps mix channels, where there is no such cache, or, up to `LONG` times
    the budget, where channels are so long that fewer than `multiple` would fit. Otherwise whole signals as long as they
    fit; then channels, a multiple of `multiple` at a time, the batch last, so that what belongs to the channels stays
    in cache too.
    """
    every, rows = slice(None), budget // row
    whole = max(whole, budget if rows >= multiple else LONG * budget)
    if not problem.depthwise or problem.device != "cpu" or problem.pairs * row <= whole:
        return ((every, every),)
    if rows >= problem.in_channels:
        step = rows // problem.in_channels
        return tuple((slice(start, start + step), every) for start in range(0, problem.batch, step))
    step = max(1, rows // multiple) * multiple
    return tuple(
        (slice(batch, batch + 1), slice(start, start + step))
        for start in range(0, problem.in_channels, step)
        for batch in range(problem.batch)
    )


@lru_cache(maxsize=4096)
def channel_blocks(problem: Problem, row: int, budget: int, *, fewest: int) -> tuple[Block, ...]:
    """Slices that take some channels of the whole batch, of about `budget` samples where a channel of a signal takes
    `row`, but of `fewest` signals' channels at least; of a larger batch some signals at a time, of one channel after
    the other. One slice where the taps mix channels or there is no such cache.
    """
    rows = max(fewest, budget // row)
    if not problem.depthwise or problem.device != "cpu" or problem.batch == 0:
        return ((slice(None), slice(None)),)
    of_batch, of_channels = parts(problem.batch, rows), parts(problem.in_channels, max(1, rows // problem.batch))
    return tuple((signals, channels) for channels in of_channels for signals in of_batch)


def parts(count: int, most: int) -> tuple[slice, ...]:
    """Slices that cover so many, of about equal lengths up to `most`."""
    if count <= most:
        return (slice(None),)
    step = -(-count // -(-count // most))
    return tuple(slice(start, start + step) for start in range(0, count, step))


def beyond_cache(problem: Problem, samples: float) -> float:
    """That many samples where the signals do not stay in a processor's cache from one pass to the next, else none."""
    return samples if problem.batch * problem.in_channels * problem.positions > CACHED else 0.0
