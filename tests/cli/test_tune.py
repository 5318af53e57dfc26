"""`omniconv tune`: the command on two problems."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("tyro")
pytest.importorskip("rich")

from omniconv.bench import tune
from omniconv.bench.tune_problems import problems
from omniconv.cli import main
from omniconv.engines import Problem
from omniconv.engines._costs import Rates


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def grid(device: str, *, quick: bool) -> list[Problem]:
        return problems(1, 2, (16,), (3, 16), causal=True)

    monkeypatch.setattr("omniconv.cli.tune.tuning_problems", grid)
    monkeypatch.setattr(tune, "wait_until_quiet", lambda stop: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["omniconv", "tune", *arguments])
    main()


def test_it_writes_the_rates_to_the_cache_and_says_how_well_they_predict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "--minutes", "0.01")
    path = tmp_path / "cache" / "omniconv" / "rates-cpu.json"
    made = Rates.from_json(path.read_text())
    assert {key.split()[0] for key in made.units} >= {"direct", "fft"}
    printed = capsys.readouterr().out
    assert str(path) in printed
    assert "Typical factor" in printed
    assert "within 10 % of the fastest" in printed


def test_it_stops_in_time_and_says_what_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "--minutes", "1e-9")
    made = Rates.from_json((tmp_path / "cache" / "omniconv" / "rates-cpu.json").read_text())
    assert "fft dense 3 run" in made.units  # of the package
    assert "1 of 2 problems were not measured, for want of time" in " ".join(capsys.readouterr().out.split())


def test_it_writes_to_a_file_of_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command(monkeypatch, "--quick", "--out", str(tmp_path / "new" / "cpu.json"))
    assert set(json.loads((tmp_path / "new" / "cpu.json").read_text())) == {"about", "units", "double"}
    assert not (tmp_path / "cache").exists()


def test_ctrl_c_says_that_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(timing: tune.Timing) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "visit", stopped)
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, "--out", str(tmp_path / "cpu.json"))
    assert end.value.code == 130
    assert "stopped by Ctrl-C: no rates were written. Give fewer `--minutes`" in capsys.readouterr().err
    assert not (tmp_path / "cpu.json").exists()


def test_where_the_rates_cannot_be_written_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setattr(tune, "visit", lambda timing: pytest.fail("measured"))
    with pytest.raises(SystemExit, match="`--out` must be a file in a folder"):
        command(monkeypatch, "--out", str(tmp_path / "taken" / "cpu.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "cuda"), "`--device cuda` needs a graphics processor"),
        (("--minutes", "-1"), "`--minutes` must be"),
        (("--quick",), "`--quick` measures too little to predict from"),
    ],
)
def test_what_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, *arguments)
    assert message in str(stopped.value)
