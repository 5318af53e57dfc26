"""What people see while a network trains."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self

from omniconv._errors import require

SILENT_SECONDS = 2.0
"""Shorter runs show nothing."""

LINE_SECONDS = 30.0
"""Between two lines where the output is not a terminal."""


class Progress(Protocol):
    """Shows how far a run is, as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, step: int, steps: int, samples: int, loss: float | None, score: str) -> None:
        """After `step` of `steps`, `samples` of them in this step; `score` is the last of validation, or empty."""


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, step: int, steps: int, samples: int, loss: float | None, score: str) -> None:
        """Nothing."""


class Lines(Silent):
    """Now and then a line on standard error."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self._samples = 0
        self._first: int | None = None

    def update(self, step: int, steps: int, samples: int, loss: float | None, score: str) -> None:
        now = time.monotonic()
        self._samples += samples
        self._first = step - 1 if self._first is None else self._first
        finished = step == steps and now - self._began > SILENT_SECONDS
        if now - self._last < LINE_SECONDS and not finished:
            return
        self._last, elapsed = now, now - self._began
        left = elapsed / (step - self._first) * (steps - step)
        sys.stderr.write(
            f"step {step}/{steps}  {shown(loss)}{score + '  ' if score else ''}"
            f"{self._samples / elapsed:.0f} samples/s  {left:.0f} s left\n"
        )
        sys.stderr.flush()


class Bar(Silent):
    """A bar with loss, score, throughput and time left, once the run has taken two seconds."""

    def __init__(self) -> None:
        rich: Any = require("rich.progress", extra="train", purpose="the progress bar")
        console: Any = require("rich.console", extra="train", purpose="the progress bar").Console(stderr=True)
        self._bar = rich.Progress(
            rich.TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            rich.BarColumn(),
            rich.TextColumn("{task.fields[loss]}{task.fields[score]}"),
            rich.TextColumn("{task.fields[speed]:.0f} samples/s"),
            rich.TimeRemainingColumn(),
            console=console,
        )
        self._task: Any = None
        self._began = time.monotonic()
        self._samples = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._bar.stop()

    def update(self, step: int, steps: int, samples: int, loss: float | None, score: str) -> None:
        self._samples += samples
        elapsed = time.monotonic() - self._began
        if self._task is None and elapsed > SILENT_SECONDS:
            self._task = self._bar.add_task("", total=steps, loss=shown(loss), score=score, speed=0.0)
            self._bar.start()
        if self._task is not None:
            speed = self._samples / elapsed
            self._bar.update(self._task, completed=step, loss=shown(loss), score=score, speed=speed)


def progress_for(shown: bool) -> Progress:
    """A bar on a terminal, lines elsewhere; nothing if not `shown`."""
    if not shown:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()


def shown(loss: float | None) -> str:
    """The loss as people read it, or nothing where there is none."""
    return "" if loss is None else f"loss {loss:.4f}  "
