"""The benchmark of decoding: what it measures of tiny models, and that it reports nothing where ours is wrong."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.bench import DisagreementError
from omniconv.bench.decode import CONTESTANTS, SIZES, Measured, benchmark, write_report
from omniconv.bench.decode.checks import check_contestant, disagreements, fused_runs
from omniconv.bench.decode.report import draw
from omniconv.bench.decode.results import Point
from omniconv.bench.decode.systems import random_system
from omniconv.bench.decode.timing import points
from omniconv.engines.decode import reference_gated_step, reference_multi_head_step
from omniconv.testing import assert_close
from tests.engines.triton.compiled import Kernel, compiled

# The interpreter's loops over a number that is known at run time alone.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "decode.py"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = SIZES["small"]
GROWING = ["Transformer, MHA", "Transformer, GQA", "Hyena, cached"]
CONSTANT = ["Hyena, distilled", "Hyena, distilled, bf16 state", *(f"MultiHyena, heads of {n}" for n in (2, 4, 8))]


@pytest.fixture(scope="module")
def measured() -> Measured:
    return benchmark(SMALL, DEVICE, seconds=0.005)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks, which take a second."""
    monkeypatch.setattr("omniconv.bench.decode.measure.disagreements", lambda device, progress: [])


def run(*options: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/decode.py", *map(str, options)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_all_contestants_are_measured(measured: Measured, tmp_path: Path) -> None:
    write_report(measured, tmp_path)
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
    assert found["bandwidth"] == measured.bandwidth > 0
    assert found["skipped"] == []


def test_the_page_has_them_all(measured: Measured, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_report(measured, tmp_path / "new", command="omniconv bench decode")
    page = (tmp_path / "new" / "decode.md").read_text()
    assert page.startswith("# Decoding\n\nWritten by `omniconv bench decode` on ")
    assert "recurrences of order 16, 8 complex modes" in page
    assert page.count("| MultiHyena, heads of 8 | 17,120 |") == 2
    assert page.count("| tokens/s at a batch of | 1 | 2 |") == 2
    assert "Not measured" not in page
    assert page.endswith("![tokens per second, memory](decode.png)\n")
    assert (tmp_path / "new" / "decode.png").exists()


def test_without_optional_packages_there_is_a_page(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("omniconv.bench.decode.report.refuse_package", lambda: "Triton is not installed")
    write_report(measured, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"decode.md", "decode.json"}
    assert "![" not in (tmp_path / "decode.md").read_text()
    assert json.loads((tmp_path / "decode.json").read_text())["about"]["triton"] is None


def test_the_figure_has_a_line_for_every_contestant(measured: Measured) -> None:
    pytest.importorskip("matplotlib")
    *panels, memory = draw(measured).axes
    titles = [axes.get_title() for axes in panels]
    assert titles == ["Prompts of 20, 4 generated", "Prompts of 300, 8 generated"]
    for axes in (*panels, memory):
        assert [line.get_label() for line in axes.lines] == list(CONTESTANTS)
        assert [line.get_color() for line in axes.lines] == [f"C{i}" for i in range(len(CONTESTANTS))]
    for axes, result in zip(panels, measured.results[:2], strict=True):
        assert list(axes.lines[0].get_xdata()) == [1, 2]  # type: ignore[arg-type]
        assert list(axes.lines[0].get_ydata()) == [one.rate for one in result.points]  # type: ignore[arg-type]
    assert list(memory.lines[0].get_ydata()) == measured.curves[0].gigabytes  # type: ignore[arg-type]


def test_nothing_measured_makes_a_report(tmp_path: Path) -> None:
    write_report(Measured(SMALL, "cpu", 1e9), tmp_path)
    assert json.loads((tmp_path / "decode.json").read_text())["results"] == []


@pytest.mark.usefixtures("unchecked")
def test_what_there_was_no_time_for_is_named(tmp_path: Path) -> None:
    write_report(benchmark(SMALL, DEVICE, contestants=["Hyena, distilled"], minutes=0), tmp_path)
    page = (tmp_path / "decode.md").read_text()
    assert "Not measured, for want of time or memory: Hyena, distilled at 20 + 4; Hyena, distilled at 300 + 8." in page


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omniconv.bench.decode.measure.point", lambda *given: None)
    found = benchmark(SMALL, DEVICE, contestants=["Hyena, cached"], seconds=0.001)
    assert found.results == []
    assert found.skipped == ["Hyena, cached at 20 + 4", "Hyena, cached at 300 + 8"]


def test_every_check_is_told() -> None:
    told: list[str] = []
    assert disagreements(DEVICE, told.append) == []
    names = [text.removeprefix("check ").rsplit(": ", 1)[0] for text in told]
    ours = [f"{name}, steps beside the whole sequence" for name in CONTESTANTS]
    assert names[-len(ours) :] == ours
    assert len(set(names)) == len(names) == len(ours) + (13 if fused_runs(DEVICE) else 0)
    assert all(text.startswith("check ") and re.search(r": \d\.\de[+-]\d\d$", text) for text in told)


@pytest.mark.usefixtures("unchecked")
def test_there_is_something_after_every_contestant() -> None:
    told, held = list[str](), list[list[str]]()

    def finished(found: Measured) -> None:
        assert (found.sizes, found.device) == (SMALL, DEVICE)
        held.append([one.contestant for one in found.results])

    some = ["Hyena, distilled", "Transformer, GQA"]
    benchmark(SMALL, DEVICE, contestants=some, seconds=0.001, progress=told.append, finished=finished)
    assert held == [["Hyena, distilled"] * 2, ["Hyena, distilled"] * 2 + ["Transformer, GQA"] * 2]
    expected = [f"{name}, {workload}: " for name in some for workload in ("20 + 4", "300 + 8")]
    assert [text[: len(start)] for text, start in zip(told, expected, strict=True)] == expected
    assert all(re.search(r"tokens/s at [12], .* ms, .*% of a copy; .* ms \(\d+ s left\)$", text) for text in told)


@pytest.mark.usefixtures("unchecked")
def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    benchmark(SMALL, DEVICE, contestants=["Hyena, distilled"], minutes=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"contestants": ["Hyena, distilled", "Hyena"]}, r"`contestants` must be one of .*; got 'Hyena'"),
        ({"sizes": SIZES["full"]}, r'`sizes` must be small on a CPU.*Use SIZES\["small"\], or device="cuda"'),
        ({"device": "tpu"}, r"`device` must be one of 'cpu', 'cuda'; got 'tpu'"),
        ({"seconds": 0.0}, r"`seconds` must be finite and above 0; got 0\.0"),
        ({"seconds": float("inf")}, r"`seconds` must be finite"),
        ({"minutes": -1.0}, r"`minutes` must be finite and at least 0; got -1\.0"),
        ({"minutes": float("nan")}, r"`minutes` must be finite"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"sizes": SMALL, "device": "cpu"} | given
    with pytest.raises(ValueError, match=message):
        benchmark(**arguments)


def test_a_graphics_processor_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(
        ImportError, match=r"needs the package 'triton'. Install it with: pip install 'omniconv\[gpu\]'"
    ):
        benchmark(SMALL, "cuda")


def test_steps_that_do_not_go_on_from_the_prompt_are_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(projected: Tensor, window: Tensor, state: Tensor, **given: Any) -> Tensor:
        return reference_multi_head_step(projected, window, state.mul_(0.9), **given)

    monkeypatch.setattr("omniconv.bench.decode.hyena.multi_head_step", forgetful)
    held: list[Measured] = []
    line = r"MultiHyena, heads of {}, steps beside the whole sequence: \d\S+, above 0.0001"
    with pytest.raises(DisagreementError, match="^" + "\n".join(line.format(n) for n in (2, 4, 8)) + "$"):
        benchmark(SMALL, DEVICE, finished=held.append)
    assert held == []


def test_filters_and_states_are_those_of_the_recurrence() -> None:
    for balanced in (False, True):
        system = random_system(3, 2, "cpu", balanced=balanced)
        u = torch.randn(2, 3, 300)
        window, state = torch.zeros(2, 2, 9), torch.zeros(2, 2, 2, 3)
        now = {"short_taps": torch.tensor([[1.0, 0, 0]]).expand(9, 3), "short_bias": torch.zeros(9)}
        ones = torch.ones(2, 3)
        for sample in u.unbind(-1):
            y = reference_gated_step(torch.cat([ones, ones, sample], 1), window, state, **now, **system._asdict())
        assert_close(y, (u.double() * system.taps(300).double().flip(-1)).sum(-1), tolerance=1e-5)
        assert_close(system.after(u), state, tolerance=1e-5)
        assert (system.inputs is not None) == balanced


@pytest.mark.parametrize(("room", "largest"), [(77, 1000), (64, 1000), (1, 1000), (1000, 64), (0, 64)])
def test_the_largest_batch_that_fits_is_found(room: int, largest: int) -> None:
    asked: list[int] = []

    def measure(batch: int) -> Point | None:
        asked.append(batch)
        return Point(batch, 1.0) if batch <= room else None

    found = [one.batch for one in points(measure, largest, time.monotonic() + 60)]
    assert len(set(asked)) == len(asked)
    assert max(asked) <= largest
    if room == 0:
        assert found == []
    else:
        assert max(found) <= min(room, largest) <= max(found) * 9 / 8


def test_the_fused_cache_is_that_of_the_whole_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    if not fused_runs(DEVICE):
        pytest.skip("no graphics processor, and no interpreter")
    from omniconv.bench.decode.cached import fused_cached_output

    given: list[Tensor] = []

    def fused(cache: Tensor, taps: Tensor, reach: int) -> Tensor:
        given.append(taps)
        return fused_cached_output(cache, taps, reach)

    monkeypatch.setattr("omniconv.bench.decode.hyena.cached_output", fused)
    sizes = replace(SMALL, dtype=torch.float32)
    check = check_contestant("Hyena, cached", CONTESTANTS["Hyena, cached"](sizes, DEVICE))
    assert check.error < check.limit
    assert len(given) == 4 * sizes.hyena[0]
    assert all(taps.is_contiguous() for taps in given)


def test_the_kernel_of_the_cache_compiles() -> None:
    """For sm_90, with what is loaded as vectors."""
    pytest.importorskip("triton")
    pointers = {"cache_ptr": "*bf16", "taps_ptr": "*bf16", "parts_ptr": "*fp32"}
    arguments = pointers | dict.fromkeys(["batch", "width", "reach", "span"], "i32")
    constants = {"SIGNALS": 8, "CHANNELS": 64, "SAMPLES": 4}
    module = "omniconv.bench.decode.cached"
    (made,) = compiled(Kernel(module, "cached_kernel", arguments, constants, aligned=[*pointers, "width"]))
    assert made.stack == 0
    assert "ld.global.v4.b32" in made.assembly


def test_import_loads_no_optional_package() -> None:
    code = (
        "import sys, omniconv.bench.decode; sys.exit(bool({'triton', 'matplotlib', 'tyro', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_script_writes_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    some = ("--contestants", "Hyena, distilled;Hyena, cached", "--seconds", 0.001)
    run("--sizes", "small", *some, "--out", tmp_path, monkeypatch=monkeypatch)
    assert {path.name for path in tmp_path.iterdir()} == {"decode.md", "decode.json", "decode.png"}
    found = json.loads((tmp_path / "decode.json").read_text())
    assert [one["contestant"] for one in found["memory"]] == ["Hyena, distilled", "Hyena, cached"]
    assert "benchmarks/decode.py --sizes small" in found["about"]["command"]
    told = capsys.readouterr().out
    assert "check Hyena, cached, steps beside the whole sequence: " in told
    assert "Hyena, distilled, 20 + 4: " in told


def test_the_script_does_not_report_a_fused_step_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")

    def wrong(*memory: Tensor, **given: Any) -> Tensor:
        return 1.1 * reference_gated_step(*memory, **given)

    monkeypatch.setattr("omniconv.engines.triton.decode.gated_step", wrong)
    with pytest.raises(SystemExit, match=r"nothing is reported:\ngated_step, heads of 1, torch.float32.*: 1\.0e-01"):
        run("--sizes", "small", "--out", tmp_path, monkeypatch=monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_the_script_has_no_large_models_for_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        run("--out", tmp_path, monkeypatch=monkeypatch)
    assert "--sizes small runs on a CPU" in capsys.readouterr().err
