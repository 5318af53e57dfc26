"""`omniconv bench`: the command on a tiny grid."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("tyro")
pytest.importorskip("rich")

from omniconv.bench import Case, Cell, Contestant, Measured, cells
from omniconv.bench.contestants import by_transform, entrants, never
from omniconv.cli import main
from omniconv.cli.bench import Convolutions, Decode, Groups, Points, times

TINY = cells("tiny", 1, 2, (16,), (3,), causal=True)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """A grid of two cases, and what was asked of it."""
    asked: list[tuple[str, bool]] = []

    def grid(device: str, *, quick: bool) -> list[Case]:
        asked.append((device, quick))
        return TINY

    monkeypatch.setattr("omniconv.cli.bench.grid", grid)
    monkeypatch.setattr("omniconv.bench.conv.copy_bandwidth", lambda device: 1e9)
    monkeypatch.setattr("omniconv.bench.conv.wait_until_quiet", lambda stop: None)
    monkeypatch.setenv("COLUMNS", "160")
    return asked


def test_it_prints_the_tables_and_writes_the_report(
    tiny: list[tuple[str, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    monkeypatch.setattr(sys, "argv", ["/somewhere/omniconv", "bench", "conv", "--quick", "--out", str(out)])
    main()
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "Milliseconds" in printed.out
    assert "In short" in printed.out
    assert "1 x 2, 16, 3 causal, training" in printed.out
    assert tiny == [("cpu", True)]
    page, data = (out / "conv.md").read_text(), json.loads((out / "conv.json").read_text())
    assert f"Written by `omniconv bench conv --quick --out {out}` on" in page
    assert [cell["case"] for cell in data["cells"]] == [case.name for case in TINY]


def test_every_option_reaches_the_benchmark(tiny: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def benchmark(cases: list[Case], device: str, **options: Any) -> Measured:
        seen.update(options, cases=cases, device=device)
        return Measured(device, 1e9)

    monkeypatch.setattr("omniconv.cli.bench.benchmark", benchmark)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    Convolutions(device="cuda", minutes=2.5, compiled=True).run()
    assert (seen["cases"], seen["device"], seen["minutes"]) == (TINY, "cuda", 2.5)
    assert "torch.compile(torch.fft)" in [contestant.name for contestant in seen["entered"]]
    assert tiny == [("cuda", False)]
    long = seen["sweeps"]
    Convolutions(quick=True).run()
    assert seen["sweeps"] < long
    assert "torch.compile(torch.fft)" not in [contestant.name for contestant in seen["entered"]]


def test_a_wrong_engine_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(x: Tensor, taps: Tensor, case: Case) -> Tensor:
        return 1.01 * by_transform(x, taps, case)

    wrong = Contestant("wrong", run, never, ours=True)
    monkeypatch.setattr("omniconv.cli.bench.entrants", lambda *, compiled: [*entrants(), wrong])
    with pytest.raises(SystemExit) as stop:
        Convolutions(out=tmp_path / "new").run()
    assert stop.value.code == (
        "omniconv: nothing is reported: wrong differs from float64 by 1.0e-02 in y on 1 x 2, 16, 3 causal, forward; "
        "1e-05 may be"
    )
    assert not (tmp_path / "new").exists()


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="`--minutes` must be finite and above 0"):
        Convolutions(minutes=0).run()
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="`--device cuda` needs a graphics processor"):
            Convolutions(device="cuda").run()


def test_the_table_has_the_best_of_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    from omniconv.cli._output import console

    row = {"auto": 2e-3, "direct": 3e-3, "fft": 2e-3, "F.conv": 8e-3, "torch.fft": 1e-3}
    cell = Cell(TINY[0], "fft", errors={name: {} for name in row}, rounds=[row])
    alone = replace(cell, errors={"auto": {}}, rounds=[{"auto": 1.0}])
    console().print(times(Measured("cpu", 1e9, cells=[cell, alone])))
    first, second = (line for line in capsys.readouterr().out.splitlines() if "causal" in line)
    assert [part.strip() for part in first.split("│")[2:-1]] == ["fft", "2", "fft 2", "torch.fft 1", "2.00"]
    assert [part.strip() for part in second.split("│")[2:-1]] == ["fft", "1e+03", "-", "-", "-"]


def test_points_prints_its_table_and_writes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("omniconv.bench.points.COUNTS", (20, 40))
    monkeypatch.setattr(sys, "argv", ["omniconv", "bench", "points", "--quick", "--out", str(tmp_path)])
    main()
    printed = " ".join(capsys.readouterr().out.split())
    assert "Forward and backward" in printed
    assert "At 20 points the lattice takes" in printed
    assert [one["points"] for one in json.loads((tmp_path / "points.json").read_text())["results"]] == [20] * 3
    assert "Written by `omniconv bench points --quick" in (tmp_path / "points.md").read_text()


def test_groups_prints_its_tables_and_writes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("omniconv.bench.groups.wait_until_quiet", lambda stop: None)
    monkeypatch.setattr(sys, "argv", ["omniconv", "bench", "groups", "--quick", "--out", str(tmp_path)])
    main()
    printed = capsys.readouterr().out
    assert "depthwise-group-separable" in printed
    assert "What they shall cost" in printed
    assert len(json.loads((tmp_path / "groups.json").read_text())["layers"]) == 6
    assert "Written by `omniconv bench groups --quick" in (tmp_path / "groups.md").read_text()


def test_bad_options_of_the_others_are_named() -> None:
    with pytest.raises(ValueError, match="`--repeats` must be at least 1"):
        Points(repeats=0).run()
    with pytest.raises(ValueError, match="`--minutes` must be finite and above 0"):
        Groups(minutes=0).run()


def test_decode_prints_its_tables_and_writes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("omniconv.bench.decode.measure.disagreements", lambda device, progress: [])
    options = ("--quick", "--device", "cpu", "--out", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["omniconv", "bench", "decode", *options])
    main()
    printed = capsys.readouterr().out
    assert "Prompts of 300, 8 generated" in printed
    assert "Hyena, distilled, 20 + 4: " in printed
    assert len(json.loads((tmp_path / "decode.json").read_text())["results"]) == 16
    assert "Written by `omniconv bench decode --quick" in (tmp_path / "decode.md").read_text()


def test_decode_refuses_what_disagrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omniconv.bench.decode.measure.disagreements", lambda device, progress: ["one", "two"])
    with pytest.raises(SystemExit) as stop:
        Decode(device="cpu", quick=True, out=tmp_path).run()
    assert stop.value.code == "omniconv: nothing is reported: one\ntwo"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="`--device cpu` needs `--quick`"):
        Decode(device="cpu").run()
