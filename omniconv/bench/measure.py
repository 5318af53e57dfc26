"""Measuring: functions side by side, peaks of allocated memory, the bandwidth of a copy, what machine this is."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from omniconv._machine import processor as processor

T = TypeVar("T")

PROCESSORS = Path("/proc/stat")
"""Linux's count of what its processors spend their time on."""

COPIED = {"cpu": 2**25, "cuda": 2**28}
"""Numbers in the float32 tensor that is copied to measure the bandwidth: far more than any cache holds."""


def interleaved(actions: Sequence[Callable[[], object]], *, repeats: int, seconds: float) -> list[list[float]]:
    """Wall times of every action, in seconds.

    The actions take turns, so that other work on the machine meets all of them alike. Each runs at least once and at
    most `repeats` times, and not again after `seconds` of its own.
    """
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(repeats):
        for taken, action in zip(times, actions, strict=True):
            if sum(taken) < seconds:
                start = time.perf_counter()
                action()
                taken.append(time.perf_counter() - start)
    return times


def wait_until_quiet(until: float, *, idle: float = 0.85, patience: float = 0.5) -> None:
    """Return when the processors have been idle for a moment: at once where the system does not say.

    `until`: time, on `time.monotonic`, at which to return in any case, as after `patience` seconds.
    """
    stop = min(until, time.monotonic() + patience)
    while (share := idle_share()) is not None and share < idle and time.monotonic() < stop:
        pass


def idle_share(window: float = 0.05) -> float | None:
    """Share of the processors' time that was idle during the next `window` seconds; None where it is not known."""
    if not PROCESSORS.exists():
        return None
    ticks = []
    for pause in (window, 0.0):
        fields = [int(field) for field in PROCESSORS.read_text().split("\n", 1)[0].split()[1:9]]
        ticks.append((fields[3] + fields[4], sum(fields)))
        time.sleep(pause)
    (idle_before, before), (idle_after, after) = ticks
    return (idle_after - idle_before) / max(1, after - before)


def repeated(action: Callable[[], object], times: int, device: str) -> Callable[[], None]:
    """The action so many times in a row, and what it left to the device finished before it returns."""

    def run() -> None:
        for _ in range(times):
            action()
        finish(device)

    return run


def finish(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_memory(action: Callable[[], T], device: str) -> tuple[T, int]:
    """What the action returns, and the largest number of bytes that it had allocated at any time, its results included.

    On a CPU these are the allocations of the framework; buffers that its libraries take from the system by themselves,
    such as those of MKL, are outside.
    """
    if device == "cuda":
        finish(device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = action()
        finish(device)
        return result, torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would write two lines per use to the terminal
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        result = action()
    return result, largest_sum(allocations(profile))


def allocations(profile: torch.profiler.profile) -> list[int]:
    """Bytes of every allocation in the order of time, those of releases negative, but for what lived before."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    memory = sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"])
    return made_within([(int(event["args"]["Addr"]), int(event["args"]["Bytes"])) for event in memory])


def made_within(blocks: Sequence[tuple[int, int]]) -> list[int]:
    """The sizes of (address, size) without releases of what was not allocated among them: the profiler leaves those out
    too, unless it remembers the address from another use.
    """
    alive: set[int] = set()
    sizes = []
    for address, size in blocks:
        if size > 0:
            alive.add(address)
        elif address not in alive:
            continue
        else:
            alive.remove(address)
        sizes.append(size)
    return sizes


def largest_sum(sizes: Sequence[int]) -> int:
    """Largest sum of the first n sizes, over n; at least 0."""
    total = largest = 0
    for size in sizes:
        total += size
        largest = max(largest, total)
    return largest


def copy_bandwidth(device: str, numbers: int | None = None) -> float:
    """Bytes per second, read and written together, of the copy of a tensor that no cache holds: a median of ten.

    `numbers`: elements of the tensor; None takes 2**25 on a CPU, 2**28 on a graphics processor.
    """
    source = torch.zeros(numbers or COPIED[device], device=device)
    target = torch.ones_like(source)
    copy = repeated(lambda: target.copy_(source), 1, device)
    copy()
    (times,) = interleaved([copy], repeats=10, seconds=5.0)
    return 2 * source.nbytes / statistics.median(times)


def provenance(seed: int, device: str = "cpu", command: str | None = None) -> dict[str, Any]:
    """Where, when and how the numbers were made; `command`: None takes it from the interpreter."""
    return {
        "command": shlex.join(["python", *sys.argv]) if command is None else command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seed": seed,
    }
