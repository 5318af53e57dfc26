"""Processes that answer questions, and are started anew where they die or hang.

torch's loader raises from a signal handler when one of its processes dies, wherever the training process is just then:
in the middle of a step, which cannot be taken again. These are asked, each one question at a time, and what befell a
process shows when its answer is waited for. Answers come by value or by memory without a name: nothing of them is left
when a process dies, and none waits for a process that hangs.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import random
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import numpy as np
import torch

from omniconv.training.handover import Receiver, Sender
from omniconv.training.interrupts import SIGNALS

SECONDS = 5.0
"""Between looks of an idle worker at whether the process that asks is still there."""

Note = Callable[[int], None]
"""Is told the index of what is being read."""


class Work(Protocol):
    """What a worker does: answers the question which samples make a batch. It notes each that it reads."""

    def __call__(self, question: list[int], note: Note) -> Any: ...


class WorkerLost(Exception):  # noqa: N818, it is told as an error of a sample
    """A worker died or hung as often as it may. `reading`: the sample that it read, or -1 between samples."""

    def __init__(self, told: str, reading: int):
        super().__init__(told)
        self.reading = reading


class Worker:
    """A process that does `work` for one question at a time.

    `limit`: seconds for which an answer is waited. `retries`: how often the process is started anew for one question.
    `told`: what a sample is called, by its index. `number`: of the worker, the seed of what its samples draw.
    """

    def __init__(self, work: Work, *, limit: float, retries: int, told: Callable[[int], str], number: int):
        self.work, self.limit, self.retries, self.told, self.number = work, limit, retries, told, number
        self.question: list[int] | None = None
        self._process: Any = None
        self._connection: Connection | None = None
        self._receiver: Receiver | None = None
        self._reading: Any = None

    def ask(self, question: list[int]) -> None:
        """Let the process begin with the next answer."""
        self.question = question
        if self._process is None:
            self._start()
        assert self._connection is not None
        with suppress(OSError):  # it has died meanwhile: whoever waits for the answer will see
            self._connection.send(question)

    def answer(self) -> Any:
        """The answer to the question; raises `WorkerLost` where it kills the process, or takes it for ever."""
        assert self.question is not None
        for left in range(self.retries, -1, -1):
            try:
                answer = self._received()
            except WorkerLost as lost:
                self.close()
                if not left:
                    raise
                where = f" while it read {self.told(lost.reading)}" if lost.reading >= 0 else ""
                warnings.warn(f"a worker {lost}{where}; another takes its place.", RuntimeWarning, stacklevel=2)
                self.ask(self.question)
            else:
                self.question = None
                return answer
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the process: it only reads, so that there is nothing to wait for, and it may never listen again."""
        if self._process is not None and self._connection is not None:
            atexit.unregister(self.close)
            self._process.kill()
            self._process.join()
            self._process.close()
            self._connection.close()
        self._process = self._connection = self._receiver = None

    def _start(self) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._receiver = Receiver(self._connection)
        self._reading = multiprocessing.RawValue("q", -1)
        parts = (theirs, self._reading, self.work, self.number)
        self._process = multiprocessing.Process(target=serve, args=parts, daemon=True)
        self._process.start()
        theirs.close()
        atexit.register(self.close)  # before multiprocessing waits for it, which does not listen to SIGTERM

    def _received(self) -> Any:
        """The answer of this process; raises `WorkerLost` if it gives none."""
        assert self._connection is not None
        assert self._receiver is not None
        broken: Exception | None = None
        if not wait([self._connection, self._process.sentinel], self.limit):
            raise WorkerLost(f"gave no answer for {self.limit:g} s", self._reading.value)
        if self._connection.poll():
            try:
                return self._receiver.receive()
            except (EOFError, OSError) as error:
                broken = error
        self._process.join(SECONDS)
        code = self._process.exitcode
        told = f"could not hand over what it read ({broken})" if code is None else f"ended with exit code {code}"
        raise WorkerLost(told, self._reading.value)


def serve(connection: Connection, reading: Any, work: Work, number: int) -> None:
    """What a worker runs: answers one question after the other, until whoever asks is gone."""
    for ignored in SIGNALS:  # left to the training process, which ends its workers when it ends
        signal.signal(ignored, signal.SIG_IGN)
    torch.set_num_threads(1)
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002, for samples that draw from it: else all workers draw the same

    def note(index: int) -> None:
        reading.value = index

    parent, sender = multiprocessing.parent_process(), Sender(connection)
    with suppress(EOFError, OSError):  # nobody asks any more
        while True:
            while not connection.poll(SECONDS):
                if parent is not None and os.getppid() != parent.pid:
                    return
            sender.send(work(connection.recv(), note))
