from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from omniconv.training import EXIT_CODE
from omniconv.training.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted_as_the_reason(number: signal.Signals) -> None:
    with Interrupts() as found:
        assert found.reason == ""
        os.kill(os.getpid(), number)
        assert found.reason == f"received {number.name}"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_request_by_hand_stops_at_once(first: signal.Signals) -> None:
    with Interrupts() as found:
        os.kill(os.getpid(), first)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert found.reason == f"received {first.name}"


def test_what_runs_in_the_background_ignores_ctrl_c_as_before() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as found:
            os.kill(os.getpid(), signal.SIGINT)
            assert found.reason == ""
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("failing", [False, True])
def test_the_handlers_of_before_come_back(failing: bool) -> None:
    noted: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: noted.append(number))
    try:
        if failing:
            with pytest.raises(RuntimeError, match="on purpose"), Interrupts():
                raise RuntimeError("on purpose")
        else:
            with Interrupts():
                os.kill(os.getpid(), signal.SIGUSR1)
        assert noted == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert noted == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_without_signals_the_handlers_stay() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts(signals=False):
        assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_there_is_the_time_limit_alone() -> None:
    before, reasons = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with Interrupts(time_limit=0.0) as found:
            reasons.append(found.reason)
            reasons.append(str(signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reasons == ["reached the time limit of 0 s", "True"]


def test_the_time_limit_counts_from_entering(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    found = Interrupts(time_limit=2.5)
    now[0] = 10.0
    with found:
        now[0] = 12.4
        assert found.reason == ""
        now[0] = 12.5
        assert found.reason == "reached the time limit of 2.5 s"


def test_the_exit_code_is_that_of_a_temporary_failure() -> None:
    assert os.EX_TEMPFAIL == EXIT_CODE
