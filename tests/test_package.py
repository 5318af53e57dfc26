"""The package as a whole: what it exports, what importing it loads, what it cites."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import pytest
import torch

import omniconv as oc
from omniconv.engines._costs import measured_file

PUBLIC = [
    "CCNN", "CKCNN", "Conv", "Conv1d", "Conv2d", "Conv3d", "EngineError", "FlexNet", "Full", "Gabor", "Gaussian",
    "Grid", "Kernel", "Problem", "SIREN", "Support", "Table", "Times", "cite", "convolve", "create_model",
    "explain_engine", "list_models", "refresh", "select_engine",
]  # fmt: skip

FOLDERS = [
    "domains",
    "groups",
    "kernels",
    "supports",
    "engines",
    "nn",
    "models",
    "export",
    "plots",
    "symmetry",
    "recurrence",
    "training",
    "bench",
    "data",
    "estimators",
    "cli",
    "testing",
]


def test_public_names_are_these() -> None:
    assert sorted(oc.__all__) == sorted(PUBLIC)
    assert all(hasattr(oc, name) for name in PUBLIC)


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_export_what_they_say(folder: str) -> None:
    module = import_module(f"omniconv.{folder}")
    assert module.__doc__
    for name in module.__all__:
        assert getattr(module, name).__doc__, f"{folder}.{name} has no docstring"


def test_every_folder_of_the_package_is_listed() -> None:
    found = {path.parent.name for path in Path(oc.__file__).parent.glob("*/__init__.py")}
    assert found == set(FOLDERS)


def test_import_loads_nothing_but_torch_numpy_and_safetensors() -> None:
    code = (
        "import torch, numpy, json, sys; before = set(sys.modules); import omniconv; "
        "print(json.dumps(sorted({name.split('.')[0] for name in set(sys.modules) - before})))"
    )
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    third_party = set(loaded) - set(sys.stdlib_module_names)
    assert third_party <= {"omniconv", "safetensors", "torch", "numpy"}, f"import omniconv also loads {third_party}"


def seconds_over_torch() -> float:
    """What `import omniconv` takes in a fresh process that has imported torch; byte code is kept, as users have it."""
    code = "import time, torch; began = time.perf_counter(); import omniconv; print(time.perf_counter() - began)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(Path(oc.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_importing_takes_at_most_three_tenths_of_a_second_over_torch() -> None:
    seconds_over_torch()  # compiles
    assert statistics.median(seconds_over_torch() for _ in range(5)) <= 0.3


def test_what_was_measured_on_this_machine_decides_no_test() -> None:
    folder = Path(os.environ["XDG_CACHE_HOME"])
    assert folder.parent == Path(tempfile.gettempdir())
    assert folder.is_dir()
    assert not any(measured_file(device).exists() for device in ("cpu", "cuda"))
    assert measured_file("cpu").is_relative_to(folder)


def test_type_checkers_see_the_types() -> None:
    assert (Path(oc.__file__).parent / "py.typed").exists()


def test_import_leaves_the_global_generator_alone() -> None:
    code = (
        "import torch; torch.manual_seed(0); state = torch.get_rng_state(); import omniconv; "
        "assert torch.equal(state, torch.get_rng_state())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("package", ["sklearn.model_selection", "accelerate", "rich.progress"])
def test_packages_that_are_imported_late_leave_the_global_generators_alone(package: str) -> None:
    code = f"""
import random, numpy, torch
from omniconv._errors import require
before = random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()
require({package!r}, extra="train", purpose="a test")
assert (random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()) == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cite_lists_the_papers_of_the_parts_once() -> None:
    text = oc.cite(oc.CCNN(1, 2, 8, blocks=2, width=4, kernel=oc.Gabor))
    for key in ("omniconv", "romero2022ccnn", "romero2022flexconv", "fathony2021multiplicative"):
        assert text.count(f"@misc{{{key},") == 1
    assert "sitzmann" not in text
    assert "sitzmann2020siren" in oc.cite(oc.Conv1d(1, 1, 8, kernel=oc.SIREN))
    assert oc.cite(torch.nn.Linear(1, 1)).count("@misc") == 1
