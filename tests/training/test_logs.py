from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from omniconv.training.logs import Logs, read_log

ROWS: list[dict[str, float]] = [
    {"step": 1, "loss": 0.1},
    {"step": 2, "loss": 1 / 3, "validation_loss": 2.5},
    {"step": 3, "loss": 1e-17},
]


def written(folder: Path, rows: list[dict[str, float]]) -> None:
    logs = Logs(folder)
    for row in rows:
        logs.write(row)
    logs.close()


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_both_files_hold_every_row_with_every_digit(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == ROWS
    assert read_log(tmp_path / "log.jsonl") == ROWS
    assert list(table(tmp_path)[0]) == ["step", "loss", "validation_loss"]
    assert [{name: float(value) for name, value in row.items() if value} for row in table(tmp_path)] == ROWS


def test_a_value_that_a_row_does_not_have_is_empty_in_the_table(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    assert [row["validation_loss"] for row in table(tmp_path)] == ["", "2.5", ""]


def test_a_flush_makes_the_rows_readable_while_the_log_is_open(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    logs.write(ROWS[0])
    logs.flush()
    assert read_log(tmp_path / "log.jsonl") == ROWS[:1]
    assert len(table(tmp_path)) == 1
    logs.close()


def test_a_run_that_goes_on_replaces_the_rows_after_its_step(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    logs = Logs(tmp_path, step=2)
    logs.write({"step": 3, "loss": 7.0})
    logs.close()
    assert read_log(tmp_path / "log.jsonl") == [*ROWS[:2], {"step": 3, "loss": 7.0}]
    assert [row["loss"] for row in table(tmp_path)] == ["0.1", repr(1 / 3), "7.0"]


def test_a_run_that_begins_anew_has_none_of_the_old_rows(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    written(tmp_path, ROWS[:1])
    assert read_log(tmp_path / "log.jsonl") == ROWS[:1]


def test_a_last_line_that_was_cut_off_anywhere_is_left_out(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    whole = (tmp_path / "log.jsonl").read_bytes()
    last = whole.rindex(b"{")
    for end in range(last, len(whole) - 1):
        (tmp_path / "log.jsonl").write_bytes(whole[:end])
        assert read_log(tmp_path / "log.jsonl") == ROWS[:2]


def test_the_rows_are_there_at_every_moment_of_going_on(tmp_path: Path) -> None:
    # A kill right after the log was opened finds what was there before: nothing was written in place.
    written(tmp_path, ROWS)
    logs = Logs(tmp_path, step=2)
    assert read_log(tmp_path / "log.jsonl") == ROWS[:2]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["log.csv", "log.jsonl"]
    logs.close()


def test_without_a_log_there_are_no_rows(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log.jsonl") == []
    logs = Logs(tmp_path, step=3)
    assert logs.rows == []
    logs.close()
    assert (tmp_path / "log.jsonl").read_bytes() == b""


def test_a_log_is_found_by_a_string_too(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    assert read_log(str(tmp_path / "log.jsonl")) == ROWS
    with pytest.raises(TypeError, match="`path` must be a path; got int 3"):
        read_log(3)  # type: ignore[arg-type]
