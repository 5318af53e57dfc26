"""Times of steps: as graphs on a graphics processor, and at more and more signals until they do not fit."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import torch

from omniconv.bench.decode.mixers import Action
from omniconv.bench.decode.results import Point
from omniconv.bench.measure import interleaved, repeated


def recorded(action: Action, device: str) -> Action:
    """The action as one graph on a graphics processor; raises `torch.OutOfMemoryError` where there is no room."""
    if device == "cpu":
        return action
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    action()
    torch.cuda.synchronize()
    needed = torch.cuda.max_memory_allocated() - before
    torch.cuda.empty_cache()
    # Out of memory while recording would leave the device in a state that outlives the exception.
    if torch.cuda.mem_get_info()[0] < 1.25 * needed + 2**29:
        raise torch.OutOfMemoryError("no room to record a step")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        action()
    return graph.replay


def median_ms(action: Action, device: str, seconds: float, repeats: int = 30) -> float:
    """Median milliseconds of the action, after one call that is not counted."""
    run = repeated(action, 1, device)
    run()
    (times,) = interleaved([run], repeats=repeats, seconds=seconds)
    return 1e3 * statistics.median(times)


def release(device: str) -> None:
    """Give back what nobody holds."""
    if device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def points(measure: Callable[[int], Point | None], largest: int, stop: float) -> list[Point]:
    """At batches of 1, 2, 4, .. until one does not fit, then the largest that does, to within an eighth.

    `measure`: of a batch, None where it does not fit. `stop`: time, on `time.monotonic`, after which none but the first
    is measured.

    >>> found = points(lambda batch: Point(batch, 1.0) if batch <= 11 else None, largest=64, stop=time.monotonic() + 60)
    >>> [one.batch for one in found]
    [1, 2, 4, 8, 10, 11]
    """
    found: list[Point] = []
    fits, beyond = 0, 1
    while beyond <= largest and (not found or time.monotonic() < stop) and (one := measure(beyond)) is not None:
        found.append(one)
        fits, beyond = beyond, 2 * beyond
    while fits and beyond <= largest and beyond - fits > max(1, fits // 8) and time.monotonic() < stop:
        half = (fits + beyond) // 2
        if (one := measure(half)) is None:
            beyond = half
        else:
            found.append(one)
            fits = half
    return found
