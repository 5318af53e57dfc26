"""The report: page, JSON and figure say what was measured, and there is none when an engine was wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from omniconv.bench import Case, Cell, DisagreementError, Measured, cells, write_report
from omniconv.bench.cases import LONG
from omniconv.bench.report import draw, number, scatter, time_text

TIMES = {"auto": 2e-3, "direct": 9e-3, "fft": 2e-3, "F.conv": 8e-3, "torch.fft": 1e-3}


def made(case: Case) -> Cell:
    names = ("y", "dx", "dtaps") if case.training else ("y",)
    return Cell(
        case,
        "fft",
        predicted={"auto": 3e-3, "fft": 3e-3},
        errors={name: dict.fromkeys(names, 1e-7) for name in TIMES},
        memory=dict.fromkeys(TIMES, 3 * 2**20),
        rounds=[{name: seconds for name, seconds in TIMES.items() if name != "F.conv"}] * 4,
        once={"F.conv": TIMES["F.conv"]},
        left_out={"FlashFFTConv": "CUDA only", "rough": "rough differs from float64 by 1e-2"},
    )


@pytest.fixture
def measured() -> Measured:
    cases = [
        *cells("sequences", 2, 3, (64,), (3, 16), causal=True),
        *cells("sizes", 1, 2, (8, 8), (3,)),
        *cells("sizes", 1, 2, (16, 16), (3,)),
        *cells(LONG, 1, 2, (32,), (32,), causal=True, dtype=torch.bfloat16),
    ]
    return Measured("cpu", 2e9, cells=[made(case) for case in cases], missing=[replace(cases[0], batch=99)], sweeps=3)


def test_the_files_are_written(measured: Measured, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_report(measured, tmp_path / "new", "conv", command="omniconv bench conv")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"conv.md", "conv.json", "conv.png"}
    page = (tmp_path / "new" / "conv.md").read_text()
    assert page.startswith("# Convolutions beside peers\n\nWritten by `omniconv bench conv` on ")
    assert "| 2 x 3, 64, 3 causal, forward | fft | 2 ±0% | 9 ±0% | 2 ±0% | ~8 | 1 ±0% | 0.00154 | 1302.1 |" in page
    assert "2 x 3, 64, 3 causal, forward: rough is left out: rough differs" in page
    assert "FlashFFTConv is left out" not in page
    assert "99 x 3, 64, 3 causal, forward: the time did not suffice" in page
    assert "float32 1e-05" in page
    assert "## Where a peer is faster" in page
    assert "## Long sequences" in page
    assert "| fft | 10 | 1.50 | 1.50 | 2 x 3, 64, 3 causal, forward |" in page


def test_the_json_has_everything(measured: Measured, tmp_path: Path) -> None:
    write_report(measured, tmp_path, "conv")
    data: dict[str, Any] = json.loads((tmp_path / "conv.json").read_text())
    assert list(data) == ["about", "summary", "missing", "cells"]
    assert {"command", "date", "processor", "threads", "torch", "device", "bandwidth_GB_per_s"} <= set(data["about"])
    assert set(data["summary"]) == {"choice", "predictions", "peers", "measured", "missing", "goals", "long"}
    assert data["missing"] == ["99 x 3, 64, 3 causal, forward"]
    assert len(data["cells"]) == len(measured.cells)
    cell = data["cells"][1]
    assert cell["pass"] == "training"
    assert cell["kernel"] == [3]
    assert cell["copy_ms"] == pytest.approx(1e3 * 5 * 2 * 3 * 64 * 4 / 2e9)
    assert set(cell["contestants"]) == set(TIMES)
    assert cell["contestants"]["fft"]["predicted_ms"] == pytest.approx(3.0)
    assert cell["contestants"]["torch.fft"]["predicted_ms"] is None
    assert set(cell["contestants"]["auto"]) == {
        "ms",
        "predicted_ms",
        "spread",
        "rounds",
        "times_copy",
        "peak_bytes",
        "errors",
    }
    assert cell["contestants"]["auto"]["ms"] == pytest.approx(2.0)
    assert cell["contestants"]["F.conv"]["rounds"] == 1
    assert set(cell["contestants"]["fft"]["errors"]) == {"y", "dx", "dtaps"}
    assert cell["left_out"]["FlashFFTConv"] == "CUDA only"


def test_there_is_no_report_when_an_engine_was_wrong(measured: Measured, tmp_path: Path) -> None:
    measured.wrong.append("fft differs")
    with pytest.raises(DisagreementError, match="nothing is reported: fft differs"):
        write_report(measured, tmp_path, "conv")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_there_is_no_figure(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str, **named: str) -> None:
        raise ImportError(package)

    monkeypatch.setattr("omniconv.bench.report.require", missing)
    write_report(measured, tmp_path, "conv")
    assert not (tmp_path / "conv.png").exists()
    assert "![" not in (tmp_path / "conv.md").read_text()


def test_a_panel_per_family_and_pass_and_a_line_per_contestant(measured: Measured) -> None:
    pytest.importorskip("matplotlib")
    figure = draw(measured.cells)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles[:3] == ["sequences, forward", "sequences, training", "sizes, forward"]
    first, sizes = figure.axes[0], figure.axes[2]
    assert [line.get_label() for line in first.lines] == list(TIMES)
    assert first.get_xlabel() == "taps per axis"
    assert list(first.lines[0].get_xdata()) == [3, 16]  # type: ignore[arg-type]
    assert first.lines[0].get_ydata()[0] == pytest.approx(2e6 / (2 * 3 * 64))  # type: ignore[index]
    assert sizes.get_xlabel() == "length"
    assert list(sizes.lines[0].get_xdata()) == [8, 16]  # type: ignore[arg-type]
    assert (first.get_xscale(), first.get_yscale()) == ("log", "log")


def test_where_lengths_and_kernels_change_there_are_dots(measured: Measured) -> None:
    pytest.importorskip("matplotlib")
    mixed = [made(case) for size in (8, 16) for case in cells("mixed", 1, 2, (size,), (3, 5))]
    dots, *_ = draw(mixed).axes
    lines, *_ = draw(measured.cells).axes
    assert {line.get_linestyle() for line in dots.lines} == {"None"}
    assert {line.get_linestyle() for line in lines.lines} == {"-"}


def test_the_scatter_is_that_of_the_middle_case() -> None:
    found = [made(case) for case in cells("f", 1, 2, (8,), (3, 5))][:3]
    for cell, high in zip(found, (1.0, 3.0, 5.0), strict=True):
        cell.rounds = [{"auto": 1.0}, {"auto": 1.0}, {"auto": high}]
    assert [scatter(Measured("cpu", 1.0, cells=part)) for part in (found, [])] == [1.0, 0.0]


def test_numbers_have_three_digits() -> None:
    assert [number(x) for x in (0.00123456, 1.2345, 123.456)] == ["0.00123", "1.23", "123"]
    cell = made(Case("f", 1, 1, (8,), (3,)))
    assert [time_text(cell, name) for name in ("auto", "F.conv", "FlashFFTConv")] == ["2 ±0%", "~8", "-"]
