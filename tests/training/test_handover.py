"""Arrays that go from one process to another by memory."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest

from omniconv.training import handover
from omniconv.training.handover import LINE, Places, Receiver, Sender, places

by_memory = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a name")


def sent_one_after_the_other(connection: Connection, answers: list[Any], least: int) -> None:
    """What the other process runs: an answer for every word that comes."""
    handover.LEAST = least
    sender = Sender(connection)
    for answer in answers:
        connection.recv()
        sender.send(answer)


def received(answers: list[Any], least: int = 1) -> tuple[list[Any], Receiver]:
    """What arrives, one after the other."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=sent_one_after_the_other, args=(theirs, answers, least), daemon=True)
    process.start()
    theirs.close()
    receiver, found = Receiver(ours), []
    for _ in answers:
        ours.send("go on")
        found.append(receiver.receive())
    process.join(10)
    assert process.exitcode == 0
    return found, receiver


def arrays() -> tuple[Any, ...]:
    random = np.random.default_rng(0)
    signals = random.standard_normal((3, 2, 50)).astype(np.float32)
    return (
        signals,
        random.random((3, 50)) < 0.5,
        None,
        np.arange(3),
        signals[:, ::2, ::3].astype(np.float64),
        signals[:0],
    )


def same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one.dtype == other.dtype and one.shape == other.shape and (one == other).all())


@by_memory
@pytest.mark.parametrize("least", [1, 2**40])
def test_arrays_arrive_as_they_are_by_either_way(least: int) -> None:
    (found,), receiver = received([arrays()], least)
    assert all(same(one, other) for one, other in zip(found, arrays(), strict=True))
    assert (receiver._memory is None) == (least > 1)


@by_memory
def test_memory_is_used_again_and_grows_where_it_does_not_suffice() -> None:
    answers: list[Any] = [(np.full(count, count),) for count in (10, 1000, 20, 5000)]
    found, receiver = received(answers)
    assert all(same(one[0], other[0]) for one, other in zip(found, answers, strict=True))
    assert receiver._memory is not None
    assert len(receiver._memory) == 40_000
    found[0][0][:] = -1  # copies, to be changed in place
    assert found[2][0][0] == 20


def test_whatever_can_be_pickled_goes_by_value() -> None:
    answers = [ValueError("no"), "word", [np.zeros(3)], (1, np.zeros(3))]
    found, receiver = received(answers)
    assert str(found[0]) == "no"
    assert found[1] == "word"
    assert same(found[2][0], np.zeros(3))
    assert same(found[3][1], np.zeros(3))
    assert receiver._memory is None


def test_arrays_begin_at_lines() -> None:
    parts, end = places((np.zeros(3, np.float32), None, np.zeros((2, 9))))
    assert parts == (("<f4", (3,), 0), None, ("<f8", (2, 9), LINE))
    assert end == 4 * LINE


@by_memory
def test_a_sender_that_dies_before_its_memory_came_is_told() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.send(Places((("<f4", (3,), 0),), 4096))
    theirs.close()
    with pytest.raises((EOFError, OSError)):
        Receiver(ours).receive()


@by_memory
def test_without_memory_of_that_kind_all_goes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    (found,), receiver = received([arrays()])
    assert all(same(one, other) for one, other in zip(found, arrays(), strict=True))
    assert receiver._memory is None
