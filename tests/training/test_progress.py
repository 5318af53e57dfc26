from __future__ import annotations

import io
import sys

import pytest

from omniconv.training import progress
from omniconv.training.progress import Bar, Lines, Silent, progress_for


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """Text that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_line_every_thirty_seconds_with_loss_score_speed_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Lines() as shown:
        for step in range(1, 11):
            clock.now += 10
            shown.update(step, 100, 8, 1 / step, "accuracy 0.5000" if step > 4 else "")
    # 3 of 100 steps of 8 samples took 30 s: 0.8 samples a second, 970 s for the 97 that are left.
    assert capsys.readouterr().err.splitlines() == [
        "step 3/100  loss 0.3333  1 samples/s  970 s left",
        "step 6/100  loss 0.1667  accuracy 0.5000  1 samples/s  940 s left",
        "step 9/100  loss 0.1111  accuracy 0.5000  1 samples/s  910 s left",
    ]


def test_a_run_that_goes_on_counts_the_time_of_its_own_steps(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Lines()
    for step in (51, 52):
        clock.now += 20
        shown.update(step, 100, 100, None, "")
    assert capsys.readouterr().err == "step 52/100  5 samples/s  960 s left\n"  # 2 steps in 40 s, 48 to go


@pytest.mark.parametrize(("seconds", "lines"), [(1.9, []), (2.1, ["step 1/1  loss 2.0000  1 samples/s  0 s left"])])
def test_the_end_is_told_unless_it_came_at_once(
    clock: Clock, capsys: pytest.CaptureFixture[str], seconds: float, lines: list[str]
) -> None:
    shown = Lines()
    clock.now += seconds
    shown.update(1, 1, 2, 2.0, "")
    assert capsys.readouterr().err.splitlines() == lines


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Silent() as shown:
        shown.update(1, 1, 1, 0.0, "")
    assert capsys.readouterr() == ("", "")


def test_a_bar_appears_after_two_seconds_and_shows_the_state_of_the_run(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with Bar() as shown:
        clock.now += 1
        shown.update(1, 4, 8, 0.5, "")
        assert terminal.getvalue() == ""
        clock.now += 3
        shown.update(2, 4, 8, 0.25, "accuracy 0.7500")
    # 16 samples in 4 s
    assert all(word in terminal.getvalue() for word in ("step 2/4", "loss 0.2500", "accuracy 0.7500", "4 samples/s"))


def test_a_bar_on_a_terminal_lines_elsewhere_and_nothing_if_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(progress_for(True)) is Lines
    assert type(progress_for(False)) is Silent
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert type(progress_for(True)) is Bar
    assert type(progress_for(False)) is Silent
