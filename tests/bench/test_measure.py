"""The measuring: peaks of memory that are known, repeats, bandwidth."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from omniconv.bench import measure
from omniconv.bench.measure import (
    copy_bandwidth,
    idle_share,
    interleaved,
    largest_sum,
    made_within,
    peak_memory,
    processor,
    provenance,
    repeated,
    wait_until_quiet,
)

MIB = 2**20


def test_the_peak_is_that_of_what_lives_at_once() -> None:
    x = torch.zeros(MIB // 4)  # outside: 1 MiB

    def chain() -> torch.Tensor:
        first = x + x  # 1 MiB
        second = first + x  # 2 MiB
        del first
        third = second + x  # 2 MiB again
        return third[: MIB // 16].clone()  # 2.25 MiB at the peak

    result, peak = peak_memory(chain, "cpu")
    assert result.shape == (MIB // 16,)
    assert peak == 2.25 * MIB


def test_what_autograd_keeps_counts() -> None:
    x = torch.zeros(MIB // 4, requires_grad=True)

    def train() -> torch.Tensor:
        y = x.exp().exp()  # the first is kept for its gradient
        return torch.autograd.grad(y, x, torch.ones_like(y))[0]  # with the cotangent and a gradient at each step

    _, peak = peak_memory(train, "cpu")
    assert peak == pytest.approx(5 * MIB, abs=4096)


def test_temporaries_inside_an_operator_count() -> None:
    channels_last = torch.zeros(1, 8, 64, 64).contiguous(memory_format=torch.channels_last)
    kernel = torch.zeros(8, 8, 3, 3)
    result, peak = peak_memory(lambda: torch.nn.functional.conv2d(channels_last.double(), kernel.double()), "cpu")
    assert peak > result.nbytes + 8 * (channels_last.numel() + kernel.numel())


def test_what_lived_before_and_is_freed_within_does_not_count() -> None:
    kept = [torch.zeros(MIB)]

    def drop_and_make() -> torch.Tensor:
        kept.clear()
        return torch.empty(1024)

    _, peak = peak_memory(drop_and_make, "cpu")
    assert peak == 4096


def test_no_allocation_is_zero() -> None:
    assert peak_memory(lambda: 3, "cpu") == (3, 0)


def test_releases_of_what_lived_before_are_left_out() -> None:
    assert made_within([(1, 8), (2, -64), (1, -8), (1, -8), (2, 4), (2, -4)]) == [8, -8, 4, -4]


def test_the_largest_sum() -> None:
    assert largest_sum([3, 4, -5, 2, 1, -6]) == 7
    assert largest_sum([]) == largest_sum([-3, 2]) == 0
    assert largest_sum([1, -1, 5]) == 5


def test_a_repeated_action_runs_so_often() -> None:
    calls: list[int] = []
    repeated(lambda: calls.append(1), 5, "cpu")()
    assert len(calls) == 5


def test_actions_take_turns_until_their_time_is_up() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        time.sleep(0.3)

    times = interleaved([lambda: order.append("quick"), slow], repeats=3, seconds=0.2)
    assert order == ["quick", "slow", "quick", "quick"]
    assert [len(taken) for taken in times] == [3, 1]
    assert times[1][0] >= 0.3


def test_the_bandwidth_counts_reading_and_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "interleaved", lambda actions, repeats, seconds: [[0.5] * repeats for _ in actions])
    assert copy_bandwidth("cpu", 1000) == 2 * 4000 / 0.5


def test_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "idle_share", lambda: 0.0)
    start = time.monotonic()
    wait_until_quiet(start + 60, patience=0.05)
    wait_until_quiet(start - 1)
    monkeypatch.setattr(measure, "idle_share", lambda: None)
    wait_until_quiet(start + 60, patience=60)
    assert time.monotonic() - start < 10


def test_the_idle_share_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    share = idle_share()
    assert share is None or 0 <= share <= 1
    monkeypatch.setattr(measure, "PROCESSORS", tmp_path / "none")
    assert idle_share() is None


def test_provenance_names_the_machine() -> None:
    about = provenance(3)
    assert about["seed"] == 3
    assert about["processor"] == processor() != ""
    assert about["torch"] == torch.__version__
