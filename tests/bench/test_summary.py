"""The figures of the summary, on made-up times."""

from __future__ import annotations

import math

import pytest
import torch

from omniconv.bench import Case, Cell, Measured, headlines, summarise
from omniconv.bench.cases import GOALS, LONG, Goal


def cell(case: Case, times: dict[str, float], memory: dict[str, int] | None = None, once: tuple[str, ...] = ()) -> Cell:
    """A cell with these times in three rounds, the second of them during other work."""
    rounds = [{name: slow * t for name, t in times.items() if name not in once} for slow in (1.0, 3.0, 1.0)]
    return Cell(
        case,
        "fft",
        predicted={"auto": 2.0, "direct": 0.5, "fft": 2.0},
        errors={name: {"y": 1e-7} for name in times},
        memory=memory or dict.fromkeys(times, 100),
        rounds=rounds,
        once={name: times[name] for name in once},
    )


def case(kernel: int) -> Case:
    return Case("f", 1, 1, (64,), (kernel,))


MEASURED = Measured(
    "cpu",
    1e9,
    cells=[
        cell(case(1), {"auto": 1.0, "direct": 2.0, "fft": 1.0, "F.conv": 2.0, "torch.fft": 4.0}),
        cell(case(2), {"auto": 1.08, "direct": 1.0, "fft": 2.0, "F.conv": 1.0, "torch.fft": 3.0}),
        cell(case(3), {"auto": 1.5, "direct": 1.0, "fft": 1.5, "F.conv": 3.0, "torch.fft": 2.0}),
        cell(case(4), {"auto": 1.0, "direct": 50.0, "fft": 1.0, "torch.fft": 0.5}, once=("direct",)),
    ],
)


def test_the_choice_is_compared_with_the_best_engine() -> None:
    choice = summarise(MEASURED)["choice"]
    assert choice == {
        "cells": 4,
        "share_within_10_percent": 0.75,
        "worst": pytest.approx(1.5),
        "worst_case": case(3).name,
    }


def test_predictions_are_compared_with_what_was_measured_more_than_once() -> None:
    predictions = summarise(MEASURED)["predictions"]
    assert list(predictions) == ["auto", "direct", "fft"]
    direct = predictions["direct"]
    assert direct["cells"] == 3
    assert direct["typical"] == pytest.approx(math.exp(math.log(2) * math.sqrt((4 + 1 + 1) / 3)))
    assert (direct["worst"], direct["worst_case"]) == (pytest.approx(0.25), case(1).name)


def test_peers_are_compared_by_the_better_of_two() -> None:
    peers = summarise(MEASURED)["peers"]
    assert peers["cells"] == 4
    assert peers["worst"] == pytest.approx(2.0)
    assert peers["worst_case"] == case(4).name
    assert peers["mean"] == pytest.approx((0.5 * 1.08 * 0.75 * 2.0) ** 0.25)
    assert [(row["case"], row["peer"]) for row in peers["slower"]] == [
        (case(4).name, "torch.fft"),
        (case(2).name, "F.conv"),
    ]
    assert [row["ratio"] for row in peers["slower"]] == [pytest.approx(2.0), pytest.approx(1.08)]


def test_other_peers_do_not_count() -> None:
    faster = cell(case(1), {"auto": 1.0, "fft": 1.0, "torch.fft": 2.0, "FlashFFTConv": 0.1})
    assert summarise(Measured("cuda", 1.0, cells=[faster]))["peers"]["worst"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("auto", "memory", "reached"), [(1.0, 50, True), (1.0, 60, True), (1.3, 50, False), (1.0, 70, False)]
)
def test_a_goal_needs_speed_and_memory(auto: float, memory: int, reached: bool) -> None:
    times = {"auto": auto, "fft": 1.0, "F.conv": 2.5, "torch.fft": 2.0}
    found = cell(case(1), times, {"auto": memory, "fft": 50, "F.conv": 10, "torch.fft": 100})
    goal = Goal(case(1), "F.conv", 2.0)
    (row,) = summarise(Measured("cpu", 1.0, cells=[found]), [goal])["goals"]
    assert row["times_as_fast"] == pytest.approx(2.5 / auto)
    assert row["memory"] == memory / 100
    assert row["reached"] is reached


def test_a_goal_without_its_peer_is_not_reached() -> None:
    found = cell(case(1), {"auto": 1.0, "fft": 1.0})
    (row,) = summarise(Measured("cpu", 1.0, cells=[found]), [Goal(case(1), "F.conv", 2.0)])["goals"]
    assert (row["times_as_fast"], row["memory"], row["reached"]) == (None, None, False)
    (missed, _) = summarise(MEASURED)["goals"]
    assert missed["times_as_fast"] is missed["memory"] is None
    assert not missed["reached"]


def test_the_long_sequences_have_their_rows() -> None:
    long = Case(LONG, 8, 16, (1024,), (1024,), causal=True, dtype=torch.bfloat16)
    found = cell(long, {"auto": 2e-3, "fft": 1e-3, "torch.fft": 4e-3, "nvSubquadratic": 1e-3})
    (row,) = summarise(Measured("cuda", 1e9, cells=[found, *MEASURED.cells]))["long"]
    assert row["ms"] == pytest.approx(2.0)
    assert row["times_copy"] == pytest.approx(2e-3 / (8 * 16 * 1024 * 2 * 2 / 1e9))
    assert row["times_as_fast"] == {"torch.fft": pytest.approx(2.0), "nvSubquadratic": pytest.approx(0.5)}


def test_the_headlines_say_what_was_wanted() -> None:
    lines = headlines(summarise(MEASURED, [Goal(case(1), "F.conv", 2.0)]))
    assert lines["cases in which auto takes at most 1.1 times the best engine's time"] == "75.0% of 4"
    assert lines["its largest ratio to the best engine"] == f"1.50 ({case(3).name})"
    assert lines["cases in which that is above 1.05"] == "2 of 4"
    assert lines[f"{case(1).name}: times as fast as F.conv"] == "2.00 (wanted: 2)"
    assert lines[f"{case(1).name}: memory over that of torch.fft"] == "1.00 (wanted: 0.6)"


def test_nothing_measured_is_no_error() -> None:
    lines = headlines(summarise(Measured("cpu", 1.0), GOALS))
    assert lines["the largest"] == "-"
