"""The benchmark of group layers: what it times of small ones, and when its bars hold."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from omniconv.bench import groups
from omniconv.nn.group_conv import FACTORIZATIONS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "groups.py"
NAMES = ["torch conv2d", *(name for name in FACTORIZATIONS if name != "factor-separable")]


def test_layers_are_timed_beside_the_plain_convolution(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    measured = groups.benchmark(batch=1, channels=2, rounds=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert [layer.name for layer in measured.layers] == NAMES
    same = [layer.name for layer in measured.layers if layer.convolutions == "the plain one"]
    assert same == ["none", "group-separable"]
    assert max(layer.error or 0.0 for layer in measured.layers) < 1e-5
    assert {kind: list(taken) for kind, taken in measured.seconds.items()} == {
        "forward and backward": NAMES,
        "evaluation": NAMES,
        "baked": NAMES[1:],
        "kernels": NAMES[1:],
    }
    assert all(len(times) == 2 for taken in measured.seconds.values() for times in taken.values())
    groups.write_report(measured, tmp_path, command="some words")
    found = json.loads((tmp_path / "groups.json").read_text())
    assert [bar["limit"] for bar in found["bars"]] == [1.25, 1.1, 2.0]
    assert found["seconds"] == measured.seconds
    page = (tmp_path / "groups.md").read_text()
    assert "Written by `some words` on" in page
    assert "| torch conv2d | 16 to 16, 5x5 | 6,416 |" in page
    assert page.count("| yes |") + page.count("| no |") == 3
    assert (tmp_path / "groups.png").stat().st_size > 1000


def test_bars_hold_by_the_median_of_rounds() -> None:
    train = {
        groups.PLAIN: [1.0, 2.0, 4.0],
        "none": [1.1, 2.4, 6.0],
        "separable": [0.5, 1.5, 3.0],
    }  # 1.1, 1.2, 1.5; 2.2, 1.6, 2
    evaluate = {groups.PLAIN: [1.0, 1.0, 1.0], "none": [1.0, 1.2, 1.3]}
    bars = groups.bars({"forward and backward": train, "evaluation": evaluate})
    assert [round(bar.quartiles[1], 6) for bar in bars] == [1.2, 1.2, 2.0]
    assert [bar.holds for bar in bars] == [True, False, True]


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="`rounds` must be at least 1; got 0"):
        groups.benchmark(rounds=0)
    with pytest.raises(ValueError, match="`minutes` must be finite and above 0"):
        groups.benchmark(minutes=0)


def test_the_script_writes_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    options = ("--batch", "1", "--channels", "1", "--rounds", "1", "--out", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["benchmarks/groups.py", *options])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    found = json.loads((tmp_path / "groups.json").read_text())
    assert [layer["name"] for layer in found["layers"]] == NAMES
    assert "benchmarks/groups.py --batch 1" in found["about"]["command"]
