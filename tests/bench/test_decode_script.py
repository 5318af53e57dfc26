"""The benchmark of decoding: what it measures of tiny models, and that it reports nothing where ours is wrong."""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.engines.decode import reference_gated_step, reference_multi_head_step
from omniconv.testing import assert_close
from tests.engines.triton.compiled import Kernel, compiled

pytest.importorskip("triton")

# The interpreter's loops over a number that is known at run time alone.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
GROWING = ["Transformer, MHA", "Transformer, GQA", "Hyena, cached"]
CONSTANT = ["Hyena, distilled", "Hyena, distilled, bf16 state", *(f"MultiHyena, heads of {n}" for n in (2, 4, 8))]


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts there share a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))


def run(*options: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/decode.py", *map(str, options)])
    runpy.run_path(str(SCRIPTS / "decode.py"), run_name="__main__")


def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / "decode.py"))


def test_all_contestants_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--sizes", "small", "--seconds", 0.005, "--out", tmp_path, monkeypatch=monkeypatch)
    found = json.loads((tmp_path / "decode.json").read_text())
    cases = [(one["contestant"], one["prompt"], one["generate"]) for one in found["results"]]
    assert cases == [(name, *tokens) for name in [*GROWING, *CONSTANT] for tokens in ((20, 4), (300, 8))]
    for one in found["results"]:
        rates = {point["batch"]: 1e3 * point["batch"] / point["milliseconds"] for point in one["points"]}
        assert list(rates) == [1, 2]
        assert one["rate"] == pytest.approx(rates[one["best"]])
        assert one["rate"] == max(rates.values())
        assert one["end_to_end"] < one["rate"]
        generating, prompts = one["generate"] / one["rate"], one["prefill"] / 1e3
        assert one["end_to_end"] == pytest.approx(one["generate"] / (generating + prompts))
        assert one["share"] > 0
        assert (one["backend"] is not None) == ("Transformer" in one["contestant"])
    # 2 layers of 2 bytes: keys and values of 4 or 2 heads of 8; windows of 2 x 96 and inputs of 32, or 8 modes.
    window, states = 2 * 2 * 2 * 96, 2 * 8 * 2 * 32
    expected = {
        "Transformer, MHA": [2 * 2 * 2 * 32 * n for n in (24, 308)],
        "Transformer, GQA": [2 * 2 * 2 * 16 * n for n in (24, 308)],
        "Hyena, cached": [window + 2 * 2 * 32 * n for n in (24, 308)],
        "Hyena, distilled": [window + 4 * states] * 2,
        "Hyena, distilled, bf16 state": [window + 2 * states] * 2,
    } | {f"MultiHyena, heads of {n}": [window + 4 * n * states] * 2 for n in (2, 4, 8)}
    assert {name: [one["nbytes"] for one in found["results"] if one["contestant"] == name] for name in expected} == (
        expected
    )
    steps = {name: [one["points"] for one in found["results"] if one["contestant"] == name] for name in expected}
    assert all(steps[name][0] == steps[name][1] for name in CONSTANT)
    assert all(steps[name][0] != steps[name][1] for name in GROWING)
    memory = {one["contestant"]: one["gigabytes"] for one in found["memory"]}
    assert all(memory[name][0] < memory[name][1] < memory[name][2] for name in GROWING)
    assert all(memory[name][0] == pytest.approx(memory[name][2], rel=0.01) for name in CONSTANT)
    page = (tmp_path / "decode.md").read_text()
    assert "recurrences of order 16, 8 complex modes" in page
    assert page.count("| MultiHyena, heads of 8 | 17,120 |") == 2
    assert page.count("| tokens/s at a batch of | 1 | 2 |") == 2
    assert "Not measured" not in page
    assert (tmp_path / "decode.png").exists()


def test_what_there_was_no_time_for_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = ("--contestants", "Hyena, distilled", "--minutes", 0)
    run("--sizes", "small", *some, "--out", tmp_path, monkeypatch=monkeypatch)
    page = (tmp_path / "decode.md").read_text()
    assert "Not measured, for want of time or memory: Hyena, distilled at 20 + 4; Hyena, distilled at 300 + 8." in page


def test_a_fused_step_that_is_wrong_is_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*memory: Tensor, **given: Any) -> Tensor:
        return 1.1 * reference_gated_step(*memory, **given)

    monkeypatch.setattr("omniconv.engines.triton.decode.gated_step", wrong)
    with pytest.raises(SystemExit, match=r"nothing is reported:\ngated_step, heads of 1, torch.float32.*: 1\.0e-01"):
        run("--sizes", "small", "--out", tmp_path, monkeypatch=monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_steps_that_do_not_go_on_from_the_prompt_are_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(projected: Tensor, window: Tensor, state: Tensor, **given: Any) -> Tensor:
        return reference_multi_head_step(projected, window, state.mul_(0.9), **given)

    monkeypatch.setattr("omniconv.engines.decode.multi_head_step", forgetful)
    wrong = r"nothing is reported:\nMultiHyena, heads of 2, steps beside the whole sequence: \d"
    with pytest.raises(SystemExit, match=wrong):
        run("--sizes", "small", "--out", tmp_path, monkeypatch=monkeypatch)


def test_filters_and_states_are_those_of_the_recurrence() -> None:
    names = script()
    for balanced in (False, True):
        system = names["random_system"](3, 2, "cpu", balanced=balanced)
        u = torch.randn(2, 3, 300)
        window, state = torch.zeros(2, 2, 9), torch.zeros(2, 2, 2, 3)
        now = {"short_taps": torch.tensor([[1.0, 0, 0]]).expand(9, 3), "short_bias": torch.zeros(9)}
        ones = torch.ones(2, 3)
        for sample in u.unbind(-1):
            y = reference_gated_step(torch.cat([ones, ones, sample], 1), window, state, **now, **system._asdict())
        assert_close(y, (u.double() * system.taps(300).double().flip(-1)).sum(-1), tolerance=1e-5)
        assert_close(names["System"].after(system, u), state, tolerance=1e-5)
        assert (system.inputs is not None) == balanced


@pytest.mark.parametrize(("room", "largest"), [(77, 1000), (64, 1000), (1, 1000), (1000, 64), (0, 64)])
def test_the_largest_batch_that_fits_is_found(room: int, largest: int) -> None:
    names, asked = script(), list[int]()

    def measure(batch: int) -> Any:
        asked.append(batch)
        return names["Point"](batch, 1.0) if batch <= room else None

    found = [one.batch for one in names["points"](measure, largest, time.monotonic() + 60)]
    assert len(set(asked)) == len(asked)
    assert max(asked) <= largest
    if room == 0:
        assert found == []
    else:
        assert max(found) <= min(room, largest) <= max(found) * 9 / 8


def test_the_kernel_of_the_cache_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """For sm_90, with what is loaded as vectors."""
    monkeypatch.setenv("PYTHONPATH", f"{SCRIPTS}:{SCRIPTS.parent}")
    pointers = {"cache_ptr": "*bf16", "taps_ptr": "*bf16", "parts_ptr": "*fp32"}
    arguments = pointers | dict.fromkeys(["batch", "width", "reach", "span"], "i32")
    constants = {"SIGNALS": 8, "CHANNELS": 64, "SAMPLES": 4}
    (made,) = compiled(Kernel("decode", "cached_kernel", arguments, constants, aligned=[*pointers, "width"]))
    assert made.stack == 0
    assert "ld.global.v4.b32" in made.assembly
