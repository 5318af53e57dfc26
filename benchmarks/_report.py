"""What the benchmarks share: timing side by side, the machine's name, tables and files."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

PROCESSORS = Path("/proc/stat")
"""Linux's count of what its processors spend their time on."""


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


def provenance(seed: int) -> dict[str, Any]:
    """Where, when and how the numbers were made."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seed": seed,
    }


def called(script: str, options: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """The command with the options that are not at their defaults; the folder of the data differs between machines."""
    given = [
        f"--{name} {value}"
        for name, value in vars(options).items()
        if name not in ("data", "out") and value != parser.get_default(name)
    ]
    return " ".join([f"python benchmarks/{script} DATA --out {options.out}", *given])


def processor() -> str:
    """The processor's name as its maker writes it, with family and model where the name alone says little."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family')}, model {fields.get('model')})"


def markdown(title: str, about: dict[str, Any], *parts: str) -> str:
    """A page: the title, where the numbers come from, and its parts."""
    origin = "Written by `{command}` on {date}: {processor}, {threads} threads, torch {torch}, seed {seed}."
    return "\n\n".join([f"# {title}", origin.format(**about), *parts]) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table: the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(folder: Path, name: str, page: str, data: dict[str, Any]) -> None:
    """The page as `name.md`, and the data as `name.json` with a line for every item of its lists."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(page)
    values = [f"{json.dumps(key)}: {lined(value)}" for key, value in data.items()]
    (folder / f"{name}.json").write_text("{\n" + ",\n".join(values) + "\n}\n")


def lined(value: Any) -> str:
    """JSON; a list has a line for every item."""
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(f" {json.dumps(item)}" for item in value) + "\n]"
