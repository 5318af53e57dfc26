"""The scripts of the benchmarks run, the one for graphics processors in its rehearsal."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._C._autograd import DeviceType

from omniconv.bench import Case, Contestant, cells
from omniconv.bench.contestants import by_transform, entrants, inputs, never

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
TINY = cells("tiny", 1, 2, (16,), (3,), causal=True)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omniconv.bench.conv.copy_bandwidth", lambda device: 1e9)
    monkeypatch.setattr("omniconv.bench.conv.wait_until_quiet", lambda stop: None)
    monkeypatch.setattr("omniconv.bench.grid", lambda device, *, quick: TINY)


def run(script: str, *options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{script}.py", *options])
    runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")


def enter(contestant: Contestant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omniconv.bench.entrants", lambda *, compiled=False: [*entrants(), contestant])


def engine(name: str, factor: float, **only: Any) -> Contestant:
    """An engine of ours that is off by a factor on the cases with these fields."""

    def convolve(x: Tensor, taps: Tensor, case: Case) -> Tensor:
        wrong = all(getattr(case, key) == value for key, value in only.items())
        return (factor if wrong else 1.0) * by_transform(x, taps, case)

    return Contestant(name, convolve, never, ours=True)


def test_conv_writes_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("conv", "--quick", "--out", str(tmp_path), monkeypatch=monkeypatch)
    data = json.loads((tmp_path / "conv.json").read_text())
    assert [cell["case"] for cell in data["cells"]] == [case.name for case in TINY]
    assert "benchmarks/conv.py --quick" in data["about"]["command"]


def test_conv_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(engine("wrong", 1.1), monkeypatch)
    with pytest.raises(SystemExit, match=r"nothing is reported: wrong differs from float64 by 1\.0e-01"):
        run("conv", "--out", str(tmp_path), monkeypatch=monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_gpu_checks_then_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(engine("new", 1.0), monkeypatch)
    run("gpu", "--rehearse", "--minutes", "0.5", "--out", str(tmp_path), monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    checks = [line for line in printed.splitlines() if line.startswith("check new: ")]
    assert len(checks) == 10
    assert "check new: 1 x 2, 6x5, 3x3, training: y " in printed
    assert "WRONG" not in printed
    assert "check direct" not in printed
    assert printed.count("1/2 1 x 2, 16, 3 causal, forward: ") == 1
    assert printed.count("2/2 1 x 2, 16, 3 causal, training: ") == 1
    assert (tmp_path / "conv_cuda.json").exists()
    assert not (tmp_path / "conv_cuda_refused.json").exists()


def test_gpu_does_not_time_an_engine_that_fails_its_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(engine("new", 1.1, size=(6, 5)), monkeypatch)
    with pytest.raises(SystemExit, match="nothing is reported:\nnew fails its check"):
        run("gpu", "--rehearse", "--minutes", "0.5", "--out", str(tmp_path), monkeypatch=monkeypatch)
    assert "WRONG: new differs from float64 by 1.0e-01" in capsys.readouterr().out
    found = json.loads((tmp_path / "conv_cuda_refused.json").read_text())
    assert len(found["cells"]) == 2
    assert all("new" not in cell["contestants"] for cell in found["cells"])
    assert not (tmp_path / "conv_cuda.json").exists()


def test_gpu_skips_a_case_in_which_ours_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(engine("new", 1.1, size=(16,), training=True), monkeypatch)
    with pytest.raises(SystemExit, match=r"new differs from float64 by 1\.0e-01"):
        run("gpu", "--rehearse", "--minutes", "0.5", "--out", str(tmp_path), monkeypatch=monkeypatch)
    assert "2/2 skipped: an engine of ours is wrong" in capsys.readouterr().out
    found = json.loads((tmp_path / "conv_cuda_refused.json").read_text())
    assert [cell["case"] for cell in found["cells"]] == [TINY[0].name]
    assert len(found["wrong"]) == 1


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without engines that would be interpreted."""
    some = [contestant for contestant in entrants() if contestant.name in ("auto", "direct", "fft")]
    monkeypatch.setattr("omniconv.bench.entrants", lambda: some)


@pytest.mark.usefixtures("few")
def test_gpu_checks_the_choice_where_no_engine_has_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("gpu", "--rehearse", "--minutes", "0.5", "--out", str(tmp_path), monkeypatch=monkeypatch)
    checks = [line for line in capsys.readouterr().out.splitlines() if line.startswith("check ")]
    cases = ["1 x 2, 4x4x4, 3x3x3", "1 x 2 to 3, 9, 3 causal"]
    expected = [f"check auto: {case}, {part}: y " for case in cases for part in ("forward", "training")]
    assert [line[: len(start)] for line, start in zip(checks, expected, strict=True)] == expected


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("size", "cells_before"), [((4, 4, 4), 0), ((16,), 1)])
def test_gpu_notes_an_error_that_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, ...], cells_before: int
) -> None:
    def illegal(case: Case, device: str, seed: int) -> Any:
        if case.size == size and case.training:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return inputs(case, device, seed)

    monkeypatch.setattr("omniconv.bench.conv.inputs", illegal)
    message = "the run ended with RuntimeError: CUDA error: an illegal memory access was encountered"
    with pytest.raises(SystemExit, match=f"nothing is reported:\n{message}"):
        run("gpu", "--rehearse", "--minutes", "0.5", "--out", str(tmp_path), monkeypatch=monkeypatch)
    found = json.loads((tmp_path / "conv_cuda_refused.json").read_text())
    assert found["wrong"] == [message]
    assert [cell["case"] for cell in found["cells"]] == [case.name for case in TINY[:cells_before]]
    assert not (tmp_path / "conv_cuda.json").exists()


def test_times_on_a_device_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    own_times = runpy.run_path(str(SCRIPTS / "training_step.py"))["own_times"]
    rows = [
        SimpleNamespace(
            key=key, device_type=where, is_user_annotation=named, self_device_time_total=time, self_cpu_time_total=1.0
        )
        for key, where, named, time in (
            ("aten::mul", DeviceType.CPU, False, 5.0),
            ("mul_kernel", DeviceType.CUDA, False, 5.0),
            ("Optimizer.step", DeviceType.CUDA, True, 9.0),
        )
    ]
    assert own_times(rows, "cuda") == [("mul_kernel", 5.0)]
    assert [key for key, _ in own_times(rows, "cpu")] == ["aten::mul", "mul_kernel", "Optimizer.step"]


def test_a_training_step_is_timed_and_taken_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    options = ("--batch", "1", "--length", "32", "--repeats", "1", "--out", str(tmp_path))
    run("training_step", *options, monkeypatch=monkeypatch)
    found = json.loads((tmp_path / "training_step.json").read_text())
    assert set(found["seconds"]) == set(found["memory"]) == set(found["profiles"]) == {"omniconv", "torch.fft"}
    assert found["ratio"] > 0
    assert found["kernels"]["share"] > 0
    assert len(found["kernels"]["seconds"]) == 1
    page = (tmp_path / "training_step.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(("| omniconv |", "| torch.fft |"))]
    losses = [row.rsplit("|", 2)[1].strip() for row in rows]
    assert len(losses) == 2
    assert abs(float(losses[0]) - float(losses[1])) < 1e-2  # the same network, trained by the same steps


def test_errors_of_invariance_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    options = ("--seeds", "1", "--angles", "8", "--draws", "4", "--out", str(tmp_path))
    run("equivariance", *options, monkeypatch=monkeypatch)
    found = json.loads((tmp_path / "equivariance.json").read_text())
    curves = {row["name"]: row["curve"] for row in found["grids"]}
    assert found["grids"][0]["degrees"] == [45.0 * i for i in range(8)]
    assert list(curves) == [*(f"GCNN, {n} sample{'s' * (n > 1)}" for n in (1, 2, 4, 8, 16)), "CCNN"]
    for name in ("GCNN, 4 samples", "GCNN, 8 samples", "GCNN, 16 samples"):
        assert max(curves[name][::2]) < 1e-5  # quarter turns
        assert min(curves[name][1::2]) > 1e-4
    assert min(curves["CCNN"][1:]) > 1e-2
    finer = {row["name"]: row["means"][0] for row in found["finer"]}
    for bandwidth in (0.5, 0.25):
        four, eight, sixteen = (finer.pop(f"bandwidth {bandwidth}, {n} samples") for n in (4, 8, 16))
        assert four > eight > sixteen  # one function
    assert not finer
    assert found["finer"][2]["curve"] == pytest.approx(curves["GCNN, 16 samples"])  # the network as it was made
    assert [row["name"] for row in found["offsets"]] == ["mean of 1", "mean of 4"]
    assert max(found["offsets"][0]["curve"][::2]) < 1e-5  # the moved grid is one of quarter turns still
    assert (tmp_path / "equivariance.png").exists()
    rows = {line.split(" | ")[0]: line for line in (tmp_path / "equivariance.md").read_text().splitlines()}
    own = curves["GCNN, 8 samples"][1::2]
    assert f" | {sum(own) / 4:.2e} | " in rows["| GCNN, 8 samples"]  # turns by a sample that are no quarter turns
    assert " | - | " in rows["| CCNN"]


def test_ways_of_a_long_step_are_checked_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    run("long_kernel_step", "--rounds", "3", "--out", str(tmp_path), monkeypatch=monkeypatch)
    rows = json.loads((tmp_path / "long_kernel_step.json").read_text())["rows"]
    assert rows[0]["way"] == "torch.fft"
    assert rows[0]["new_times"] == rows[0]["kept_times"] == 1
    assert min(row["kept_ms"] for row in rows) > 0


def test_a_way_of_a_long_step_that_is_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    script = runpy.run_path(str(SCRIPTS / "long_kernel_step.py"))
    script["STEPS"]["wrong"] = lambda x, taps, cotangent: (x, cotangent, taps)
    with pytest.raises(ArithmeticError, match="wrong differs from float64"):
        script["check"]()


def test_what_a_call_adds_to_a_short_convolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)  # those of the other tests stay as they are
    run("short_convolution", "--rounds", "2", "--out", str(tmp_path), monkeypatch=monkeypatch)
    rows = json.loads((tmp_path / "short_convolution.json").read_text())["rows"]
    assert [row["way"] for row in rows] == ["transforms", "omniconv", "F.conv"] * 4
    assert all(row["loop"] > 0 and row["cold"] > 0 for row in rows)
    assert {row["loop_added"] for row in rows[::3]} == {0.0}
    assert "| 8 x 64, 64 | omniconv |" in (tmp_path / "short_convolution.md").read_text()


def test_import_time_keeps_every_time_that_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    imported: list[str] = []
    monkeypatch.setattr("subprocess.run", lambda command, check, env: imported.append(command[-1]))
    with pytest.raises(SystemExit) as ended:
        run("import_time", "--repeats", "3", "--out", str(tmp_path), monkeypatch=monkeypatch)
    assert not ended.value.code
    data = json.loads((tmp_path / "import_time.json").read_text())
    assert sorted(data["times"]) == ["omniconv", "torch"]
    assert all(len(times) == 3 and min(times) > 0 for times in data["times"].values())
    assert data["torch"] == torch.__version__
    assert data["command"] == f"python benchmarks/import_time.py --out {tmp_path} --repeats 3"
    assert imported.count("import omniconv") == imported.count("import torch") >= 3
    assert "import omniconv" in (tmp_path / "import_time.md").read_text()
