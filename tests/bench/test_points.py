"""The benchmark of clouds: what it measures of small ones, and that it reports nothing where ours is wrong."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from omniconv.bench import DisagreementError, points
from omniconv.nn import PointConv

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "points.py"
CASES = [(way, count) for count in (20, 40) for way in ("lattice", "points", "all at once")]


def small(*counts: int) -> points.Measured:
    return points.benchmark(counts, width=2, blocks=1, repeats=1)


def test_every_way_is_measured_at_every_number(tmp_path: Path) -> None:
    seen: list[points.Result] = []
    measured = points.benchmark((20, 40), width=2, blocks=1, repeats=1, progress=seen.append)
    assert [(one.way, one.points) for one in measured.results] == CASES
    assert seen == measured.results
    assert all(one.seconds > 0 and one.nbytes > 0 for one in measured.results)
    pairs = {one.points: one.pairs for one in measured.results}
    assert 20 <= pairs[20] < pairs[40] <= 40**2  # a point is near itself
    points.write_report(measured, tmp_path, command="some words")
    found = json.loads((tmp_path / "points.json").read_text())
    assert [(one["way"], one["points"]) for one in found["results"]] == CASES
    assert found["about"]["width"] == 2
    page = (tmp_path / "points.md").read_text()
    assert "Written by `some words` on" in page
    assert "At 40 points the lattice takes" in page
    assert "| 20 |" in page
    assert (tmp_path / "points.png").stat().st_size > 1000


def test_too_many_pairs_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omniconv.bench.points.PAIRS", 1)
    measured = small(20)
    assert [one.way for one in measured.results] == ["lattice"]
    assert points.ratios(measured) == ""
    points.write_report(measured, tmp_path)
    assert (tmp_path / "points.md").read_text().count("| - | - |") == 2


def test_a_wrong_layer_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    right = PointConv.forward

    def wrong(self: PointConv, *operands: Any, **others: Any) -> Tensor:
        return 1.01 * right(self, *operands, **others)

    monkeypatch.setattr(PointConv, "forward", wrong)
    with pytest.raises(DisagreementError, match=r"PointConv differs from the sum over all pairs by \S+ at 20 points"):
        small(20)


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="`counts` must have a number of points at least"):
        points.benchmark(())
    with pytest.raises(ValueError, match="`counts` must be at least 1; got 0"):
        small(0)
    with pytest.raises(ValueError, match="`repeats` must be at least 1"):
        points.benchmark((20,), repeats=0)
    with pytest.raises(ValueError, match="`seconds` must be finite and above 0"):
        points.benchmark((20,), seconds=0)


def test_the_script_writes_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    options = ("--points", "20,40", "--width", "2", "--blocks", "1", "--repeats", "1", "--out", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["benchmarks/points.py", *options])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    found = json.loads((tmp_path / "points.json").read_text())
    assert [(one["way"], one["points"]) for one in found["results"]] == CASES
    assert "benchmarks/points.py --points 20,40" in found["about"]["command"]


def test_what_takes_more_is_not_said_to_take_less() -> None:
    found = zip(points.WAYS, ((2.0, 50), (0.5, 4), (1.0, 100)), strict=True)
    results = [points.Result(way, 1024, 9, seconds, nbytes) for way, (seconds, nbytes) in found]
    measured = points.Measured("cpu", width=1, blocks=1, repeats=1, seconds=1.0, results=results)
    assert points.ratios(measured) == (
        "At 1,024 points the lattice takes 2 times more time and 2 times less memory than all pairs at once; "
        "`PointConv` takes 25 times less memory and 2 times less time than these."
    )
