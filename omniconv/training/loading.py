"""Batches of samples in the order of a sampler, whatever befalls samples, disks and the processes that read."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray

from omniconv._errors import Interrupted, SampleError
from omniconv.data import Samples
from omniconv.training.batches import Batch, Signals, collate
from omniconv.training.workers import Note, Worker, WorkerLost

Read = TypeVar("Read")

TIMEOUT = 300.0
"""Seconds for which a batch of a worker is waited."""

RETRIES = 2
"""How often reading is tried again."""

PAUSE = 0.1
"""Seconds before the first of these; before the second twice as many, and so on."""

SHOWN = 8
"""So many samples of a batch are named."""


@dataclass(frozen=True)
class Failure:
    """What a worker tells of samples that cannot be read: an error, what raised it, and where."""

    told: str
    cause: BaseException
    trace: str

    def error(self) -> SampleError:
        """As if it had been raised here."""
        error = SampleError(self.told)
        self.cause.add_note(f"In a worker: {self.trace}")
        error.__cause__ = self.cause
        return error


def named(samples: Samples, indices: Sequence[int] | int) -> str:
    """What samples are called, with their indices."""
    indices = [indices] if isinstance(indices, int) else indices
    listed = ", ".join(f"{samples.names[index]!r} (index {index})" for index in indices[:SHOWN])
    more = f" and {len(indices) - SHOWN} more" if len(indices) > SHOWN else ""
    return f"sample{'s' if len(indices) > 1 else ''} {listed}{more}"


def read_sample(read: Callable[[int], Read], samples: Samples, index: int, *, retries: int = RETRIES) -> Read:
    """What `read` makes of a sample; where the disk or the network fails, it is tried again.

    Raises `SampleError` that names the sample, from what `read` raised.
    """
    for tried in range(1, retries + 2):
        try:
            return read(index)
        except Interrupted:  # no fault of the sample: a signal came while it was read
            raise
        except Exception as error:
            if tried <= retries and isinstance(error, OSError):
                time.sleep(PAUSE * tried)
                continue
            told = f"{named(samples, index)} cannot be read: {type(error).__name__}: {error}"
            raise SampleError(told) from error
    raise AssertionError("unreachable")


class Reader:
    """Reads batches of samples; `retries`: how often a sample is tried again whose reading raises `OSError`."""

    def __init__(self, samples: Samples, retries: int):
        self.samples, self.retries = samples, retries

    def read(self, indices: Sequence[int], note: Note | None = None) -> Batch:
        """The batch of these samples; `note`: is told each index before, and -1 behind the last one.

        Raises `SampleError` that names the sample.
        """
        signals, items = Signals(self.samples), []
        for index in indices:
            if note is not None:
                note(index)
            items.append(read_sample(signals.__getitem__, self.samples, index, retries=self.retries))
        if note is not None:
            note(-1)
        try:
            return collate(items, space=self.samples.space)
        except Exception as error:
            told = f"{named(self.samples, indices)} make no batch: {type(error).__name__}: {error}"
            raise SampleError(told) from error

    def __call__(self, question: list[int], note: Note) -> tuple[NDArray[Any] | None, ...] | Failure:
        """The same for a worker: arrays and errors that can be sent."""
        try:
            return tuple(None if part is None else part.numpy() for part in self.read(question, note))
        except SampleError as error:
            cause = error.__cause__ or error
            trace = "".join(traceback.format_exception(cause))
            return Failure(str(error), sendable(cause), trace)


def sendable(error: BaseException) -> BaseException:
    """The error where it can be sent to another process, else one that tells of it."""
    plain = type(error).__module__ == "builtins" and all(isinstance(part, str | int | bytes) for part in error.args)
    return error.with_traceback(None) if plain else RuntimeError(f"{type(error).__name__}: {error}")


def loader(
    samples: Samples,
    sampler: Iterable[list[int]],
    workers: int = 0,
    *,
    timeout: float = TIMEOUT,
    retries: int = RETRIES,
) -> Generator[Batch]:
    """Batches of `samples` in the order of `sampler`, read by so many processes ahead, or by this one.

    A sample whose reading raises `OSError` is tried again, at most `retries` times. A process that dies, or gives no
    batch for `timeout` seconds, is started anew with that batch, as often; nothing can end a read in this process.
    Raises `SampleError` that names the sample. Who does not take all batches closes the generator.
    """
    reader = Reader(samples, retries)
    if workers == 0:
        for indices in sampler:
            yield reader.read(indices)
        return
    crew = [
        Worker(reader, limit=timeout, retries=retries, told=partial(named, samples), number=number)
        for number in range(workers)
    ]
    wanted = iter(sampler)
    with ExitStack() as stack:
        for worker, indices in zip(crew, wanted, strict=False):
            stack.callback(worker.close)
            worker.ask(indices)
        for worker in cycle(crew):
            if worker.question is None:  # they take turns: the others have none either
                return
            batch = answered(worker, samples)
            following = next(wanted, None)
            if following is not None:
                worker.ask(following)
            yield batch


def answered(worker: Worker, samples: Samples) -> Batch:
    """The batch that a worker was asked for; raises `SampleError` for what it cannot read, and what ends it."""
    question = worker.question or []
    try:
        answer = worker.answer()
    except WorkerLost as lost:
        what = lost.reading if lost.reading >= 0 else question
        raise SampleError(
            f"{named(samples, what)} cannot be read: the worker {lost}, {worker.retries + 1} times. The "
            f"batch is {named(samples, question)}. Read them one by one to see why; use fewer `workers` if memory ran "
            "out, and a longer `read_timeout` if batches take so long."
        ) from lost
    if isinstance(answer, Failure):
        raise answer.error()
    parts: list[Any] = [None if part is None else torch.from_numpy(part) for part in answer]
    return Batch(*parts)
