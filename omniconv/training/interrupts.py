"""Requests to stop: signals of a scheduler, and a limit on the time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from omniconv._errors import Interrupted

EXIT_CODE = 75
"""Exit code of a run that stopped early and can be resumed: EX_TEMPFAIL of sysexits.h."""

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
"""What asks a training to stop: a scheduler, or who presses Ctrl-C."""


@contextmanager
def raising_interrupts() -> Iterator[None]:
    """While entered, SIGTERM and SIGUSR1 raise `Interrupted`: for what comes before and after the steps of a training.

    SIGINT still raises `KeyboardInterrupt`. `Interrupts` inside takes over, and gives back. Only in the main thread.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"received {signal.Signals(number).name}. Resume to go on from the last checkpoint.")

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in SIGNALS if number != signal.SIGINT} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interrupts:
    """While entered, notes SIGTERM, SIGUSR1 and SIGINT instead of dying of them; `reason` says why to stop, or is "".

    A SIGINT after another signal raises `KeyboardInterrupt` at once. SIGINT stays ignored where it was: so shells start
    what runs in the background, which Ctrl-C in the foreground does not concern.

    `time_limit`: seconds until it is time to stop, or None. `signals`: whether to note signals; that is possible in the
    main thread only.
    """

    def __init__(self, time_limit: float | None = None, *, signals: bool = True):
        self.time_limit, self.signals = time_limit, signals
        self._signal = ""
        self._before: dict[int, Any] = {}
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self.signals and threading.current_thread() is threading.main_thread():
            ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            noted = [number for number in SIGNALS if not (ignored and number == signal.SIGINT)]
            self._before = {number: signal.signal(number, self._note) for number in noted}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name

    @property
    def reason(self) -> str:
        """Why to stop now; empty while there is no reason."""
        if self._signal:
            return f"received {self._signal}"
        if self.time_limit is not None and time.monotonic() - self._began >= self.time_limit:
            return f"reached the time limit of {self.time_limit:g} s"
        return ""
