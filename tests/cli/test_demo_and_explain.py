from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from omniconv.cli import main
from omniconv.cli.demo import Demo, Row, demo_model, evaluate, results_table
from omniconv.cli.explain import Explain, integers
from omniconv.data import Digits, View, load_digits
from omniconv.engines import ENGINES, Problem, explain_engine, select_engine
from omniconv.engines._costs import run_seconds
from omniconv.models import CCNN
from omniconv.training import Classification, Recipe, accuracy, train
from omniconv.training.evaluation import outputs_of

pytest.importorskip("tyro")
pytestmark = pytest.mark.timeout(280)

ROOT = Path(__file__).parents[2]
VIEWS = {"sequence": "64", "image": "8x8", "volume": "8x8x17", "points": "8x8"}


def python(*args: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter on one thread, with a terminal wide enough for every line."""
    environment = os.environ | {"COLUMNS": "200", "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, encoding="utf-8", env=environment, timeout=240
    )


def omniconv(*args: str) -> subprocess.CompletedProcess[str]:
    """The command, as a user runs it."""
    return python("-m", "omniconv", *args)


def problem(**changes: Any) -> Problem:
    """A depthwise causal convolution of 1024 samples with as many taps, changed."""
    plain: dict[str, Any] = {
        "batch": 8,
        "in_channels": 110,
        "out_channels": 110,
        "depthwise": True,
        "size": (1024,),
        "kernel_size": (1024,),
        "causal": (True,),
        "boundary": ("zero",),
        "dtype": torch.float32,
        "device": "cpu",
        "training": False,
    }
    return Problem(**plain | changes)


# The command


def test_the_command_is_installed_as_main() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="omniconv")
    assert script.value == "omniconv.cli:main"
    assert script.load() is main


def test_the_command_lists_its_subcommands() -> None:
    result = omniconv("--help")
    assert result.returncode == 0
    assert "One convolution for every signal." in result.stdout
    for kind, name in ((Demo, "demo"), (Explain, "explain")):
        assert kind.__doc__ is not None
        (line,) = (line for line in result.stdout.splitlines() if re.match(rf"\W*{name}\s", line))
        assert kind.__doc__.split()[0] in line


def test_a_mistake_is_one_line_on_stderr_and_exit_code_1() -> None:
    result = omniconv("explain", "--shape", "2,3", "--kernel", "5")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("omniconv: `--shape` must be batch,channels and one to three sizes")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("explain --shape 2,3,8 --kernel 0", "^omniconv: `--kernel` must be positive integers"),
        ("explain --shape 2,3,8 --kernel 5 --boundary wrap", "^omniconv: `boundary` must be one of 'zero', 'circular'"),
        ("demo --epochs 0 --out {folder}", "^omniconv: `epochs` must be at least 1; got 0"),
    ],
)
def test_a_mistake_names_the_option(line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["omniconv", *line.format(folder=tmp_path).split()])
    with pytest.raises(SystemExit, match=message):
        main()


def test_without_tyro_the_command_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['tyro'] = None; sys.argv = 'omniconv explain --shape 1,1,8 --kernel 3'.split();"
        "import omniconv.cli; omniconv.cli.main()"
    )
    result = python("-c", code)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "omniconv: the command omniconv needs the package 'tyro'. Install it with: pip install 'omniconv[cli]'\n"
    )


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("rich.console", r"the demo needs the package 'rich'. Install it with: pip install 'omniconv\[cli\]'"),
        ("sklearn.datasets", r"the digits data set needs the package 'sklearn'.*'omniconv\[estimators\]'"),
        ("accelerate", r"training needs the package 'accelerate'.*'omniconv\[train\]'"),
    ],
)
def test_without_an_optional_package_the_demo_says_what_to_install(
    missing: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("rich", "sklearn", "accelerate"):
        pytest.importorskip(package)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=message):
        Demo(out=tmp_path).run()


def test_the_library_needs_no_optional_package() -> None:
    optional = ("tyro", "rich", "sklearn", "accelerate", "matplotlib")
    code = f"import sys; import omniconv, omniconv.cli; print([name for name in {optional} if name in sys.modules])"
    result = python("-c", code)
    assert (result.returncode, result.stdout) == (0, "[]\n")


# explain


def test_explain_prints_the_table_of_that_problem() -> None:
    result = omniconv("explain", "--shape", "8,110,1024", "--kernel", "1024", "--causal")
    assert result.returncode == 0
    assert result.stderr == ""
    assert result.stdout == explain_engine(problem()) + "\n"
    heading, *lines, source = result.stdout.splitlines()
    assert heading.split() == ["engine", "convolution", "remark"]
    assert [line.split()[0] for line in lines] == list(ENGINES)
    (marked,) = (line.split() for line in lines if "*" in line)
    chosen = select_engine(problem())
    assert marked == [chosen.name, f"{run_seconds(chosen, problem()) * 1e3:.3f}", "ms", "*", "chosen"]
    assert source.startswith("Predicted from ")


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        (Explain("8,110,1024", "1024", causal=True), {}),
        (Explain("8,110,1024", "1024"), {"causal": (False,)}),
        (Explain(" 8, 110, 1024", "3", causal=True), {"kernel_size": (3,)}),
        (Explain("8,110,1024", "1024", causal=True, training=True), {"training": True}),
        (
            Explain("8,110,1024", "1024", out_channels=7, causal=True),
            {"out_channels": 7, "depthwise": False},
        ),
        (
            Explain("2,3,32,16", "5", boundary="circular"),
            {
                "batch": 2,
                "in_channels": 3,
                "out_channels": 3,
                "size": (32, 16),
                "kernel_size": (5, 5),
                "causal": (False, False),
                "boundary": ("circular", "circular"),
            },
        ),
        (
            Explain("1,2,8,16,4", "3,5,7", out_channels=2),
            {
                "batch": 1,
                "in_channels": 2,
                "out_channels": 2,
                "depthwise": False,
                "size": (8, 16, 4),
                "kernel_size": (3, 5, 7),
                "causal": (False,) * 3,
                "boundary": ("zero",) * 3,
            },
        ),
    ],
)
def test_every_option_reaches_the_problem(
    command: Explain, changes: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Problem] = []

    def remember(asked: Problem) -> str:
        seen.append(asked)
        return explain_engine(asked)

    monkeypatch.setattr("omniconv.cli.explain.explain_engine", remember)
    command.run()
    assert seen == [problem(**changes)]
    assert capsys.readouterr().out == explain_engine(problem(**changes)) + "\n"


def test_explain_takes_no_memory_for_the_signal(capsys: pytest.CaptureFixture[str]) -> None:
    Explain("1000,1000,1000,1000,1000", "999", causal=True).run()  # four petabytes
    assert capsys.readouterr().out.count("*") == 1


@pytest.mark.parametrize(
    ("shape", "kernel", "message"),
    [
        ("8,16", "3", "`--shape` must be batch,channels and one to three sizes.* got 8,16 and 3"),
        ("8", "3", "`--shape` must be batch,channels and one to three sizes"),
        ("1,2,3,4,5,6", "3", "`--shape` must be batch,channels and one to three sizes"),
        ("1,2,8", "3,3", "`--kernel` one number or one per size; got 1,2,8 and 3,3"),
        ("1,2,8,8", "3,3,3", "`--kernel` one number or one per size"),
        ("1,2,8,8,8", "3,3", "`--kernel` one number or one per size"),
        ("1,2,x", "3", "`--shape` must be positive integers separated by commas, such as 8,110,1024; got '1,2,x'"),
        ("1,0,8", "3", "`--shape` must be positive integers separated by commas"),
        ("1,-2,8", "3", "`--shape` must be positive integers separated by commas"),
        ("1,,8", "3", "`--shape` must be positive integers separated by commas"),
        ("", "3", "`--shape` must be positive integers separated by commas"),
        ("1,2,8", "3.5", r"`--kernel` must be positive integers separated by commas.* got '3\.5'"),
        ("1,2,8", "0", "`--kernel` must be positive integers separated by commas"),
    ],
)
def test_explain_refuses_bad_shapes(shape: str, kernel: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Explain(shape, kernel).run()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Explain("1,2,8", "3", boundary="reflect"), "`boundary` must be one of 'zero', 'circular'; got 'reflect'"),
        (
            Explain("1,2,8", "3", boundary="circular", causal=True),
            '`causal` and boundary "circular" exclude each other',
        ),
    ],
)
def test_explain_refuses_bad_options(command: Explain, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command.run()


def test_integers_are_read_as_written() -> None:
    assert integers("shape", "8,110, 1024 ") == (8, 110, 1024)


# demo


@dataclass(frozen=True)
class Ran:
    """One run of the demo."""

    result: subprocess.CompletedProcess[str]
    folder: Path
    digits: Digits

    @property
    def rows(self) -> list[Row]:
        """The rows of results.json."""
        loaded: list[dict[str, Any]] = json.loads((self.folder / "results.json").read_text())
        return [Row(**{**row, "size": tuple(row["size"])}) for row in loaded]

    def view(self, name: str) -> View:
        (found,) = (view for view in self.digits.views if view.name == name)
        return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The demo, one epoch, in a folder that does not exist yet."""
    for package in ("rich", "sklearn", "accelerate", "matplotlib"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    result = omniconv("demo", "--epochs", "1", "--out", str(folder))
    assert result.returncode == 0, result.stderr
    return Ran(result, folder, load_digits(seed=0))


def test_the_demo_writes_models_figures_and_results(ran: Ran) -> None:
    written = {path.name for path in ran.folder.iterdir()}
    figures = {name for name in written if name.endswith(".png")}
    assert {f"{name}_kernels.png" for name in VIEWS} <= figures
    assert written - figures == {f"{name}.safetensors" for name in VIEWS} | {"results.json"}


@pytest.mark.parametrize("name", VIEWS)
def test_the_results_are_those_of_the_saved_model(ran: Ran, name: str) -> None:
    (row,) = (row for row in ran.rows if row.view == name)
    view = ran.view(name)
    model = demo_model(view)
    model.load_state_dict(load_file(ran.folder / f"{name}.safetensors"))
    model.eval()
    labels = ran.digits.test_labels
    assert row.accuracy == (outputs_of(model, view.samples(labels)).argmax(1) == labels).double().mean().item()
    if view.test_positions is None:
        assert row.accuracy == accuracy(model, view.test, labels)
    for factor, share in ((0.5, row.half_resolution), (2.0, row.double_resolution)):
        signals = view.resampled.get(factor)
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            expected = None if signals is None else accuracy(model.at_resolution(factor), signals, labels)
        assert share == expected
    assert row.seconds > 0
    with safe_open(ran.folder / f"{name}.safetensors", framework="pt") as file:
        assert file.metadata() == {"size": str(view.size)}


def test_the_demo_trains_for_the_epochs_and_with_the_seed_that_were_asked_for(ran: Ran) -> None:
    view = ran.view("image")
    torch.manual_seed(0)
    model = demo_model(view)
    samples = view.samples(ran.digits.train_labels)
    recipe = Recipe(epochs=1, batch_size=64, weight_decay=0.0)
    train(model, Classification(tuple(range(10))), samples, recipe=recipe)
    saved = load_file(ran.folder / "image.safetensors")
    torch.testing.assert_close(dict(model.state_dict()), saved, rtol=0, atol=1e-3)


def test_one_evaluation_makes_one_row(ran: Ran) -> None:
    class Fixed(nn.Module):
        """Always the same digit: another one at each resolution."""

        def __init__(self, digit: int):
            super().__init__()
            self.digit = nn.Parameter(torch.tensor(float(digit)))

        def at_resolution(self, factor: float) -> Fixed:
            return Fixed({0.5: 1, 2.0: 2}[factor])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(self.digit.long(), 10).expand(len(x), 10)

    labels = ran.digits.test_labels
    plain, half, double = ((labels == digit).double().mean().item() for digit in range(3))
    row = evaluate(cast(CCNN, Fixed(0)), ran.view("image"), labels, 1.5)
    assert row == Row("image", (8, 8), 1, plain, half, double, 1.5)


def test_the_results_have_a_row_for_every_view(ran: Ran) -> None:
    assert [(row.view, "x".join(map(str, row.size))) for row in ran.rows] == list(VIEWS.items())
    for row in ran.rows:
        shares = [row.accuracy, row.half_resolution, row.double_resolution]
        given = [share for share in shares if share is not None]
        assert len(given) == (3 if row.view == "image" else 1)
        assert all(0 <= share <= 1 and (share * 360) == pytest.approx(round(share * 360)) for share in given)
        assert row.accuracy > 0.15, "one epoch is better than guessing"


def test_the_figures_show_something(ran: Ran) -> None:
    for path in ran.folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n"), path.name
        pixels = import_module("matplotlib.image").imread(path)
        assert min(pixels.shape[:2]) > 100, path.name
        assert pixels[..., :3].std() > 0.01, path.name


def test_the_demo_prints_what_it_does_and_the_table(ran: Ran) -> None:
    assert ran.result.stdout.startswith("Training one CCNN configuration on four views of 1437 digits; 360 are held")
    assert "One CCNN, four views" in ran.result.stdout
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in ran.result.stdout.splitlines() if "│" in line]
    assert cells == [
        [
            row.view,
            VIEWS[row.view],
            f"{row.parameters:,}",
            *("-" if s is None else f"{s:.4f}" for s in (row.accuracy, row.half_resolution, row.double_resolution)),
            f"{row.seconds:.0f}",
        ]
        for row in ran.rows
    ]
    assert "omniconv explain --shape 8,110,1024 --kernel 1024 --causal" in ran.result.stdout


def test_the_four_models_are_one_configuration(ran: Ran) -> None:
    models = {view.name: demo_model(view) for view in ran.digits.views}
    for name, model in models.items():
        view = ran.view(name)
        assert (model.in_channels, model.out_features) == (1, 10)
        assert model.stem.grid.size == view.size
        assert model.stem.causal == (view.causal,) * len(view.size)
        assert {module.p for module in model.blocks.modules() if isinstance(module, nn.Dropout)} == {0.1}
    # They differ in the axes of the positions alone: the parameters of the same names, and of the same sizes but those.
    names = {tuple(name for name, _ in model.named_parameters()) for model in models.values()}
    assert len(names) == 1
    rows = {row.view: row.parameters for row in ran.rows}
    for name, count in rows.items():
        assert count == sum(math.prod(parameter.shape) for parameter in models[name].parameters())
    # Every further axis costs as much as the one before.
    assert rows["volume"] - rows["image"] == rows["image"] - rows["sequence"] > 0


def test_the_table_marks_what_was_not_measured() -> None:
    rich: Any = pytest.importorskip("rich.console")
    console = rich.Console(width=120)
    row = Row("image", (8, 8), 12345, 0.98765, None, 0.5, 61.4)
    with console.capture() as capture:
        console.print(results_table([row]))
    (line,) = (line for line in capture.get().splitlines() if "│" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["image", "8x8", "12,345", "0.9877", "-", "0.5000", "61"]
