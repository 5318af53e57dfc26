"""The suites with which scikit-learn, aeon and sktime test estimators: every check, none excluded, none skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

SCIKIT_LEARN = """
import json, sys
from sklearn.utils.estimator_checks import check_estimator
from omniconv import estimators

name, parameters = sys.argv[1], json.loads(sys.argv[2])
results = check_estimator(getattr(estimators, name)(**parameters), on_skip=None, on_fail=None)
print(json.dumps([[row["check_name"], row["status"], repr(row["exception"])] for row in results]))
"""

OTHERS = """
import importlib, json, sys

suite, module, name = sys.argv[1:]
check = importlib.import_module(suite).check_estimator
results = check(getattr(importlib.import_module(module), name), raise_exceptions=False, verbose=False)
print(json.dumps([[check, "passed" if result == "PASSED" else "failed", repr(result)]
                  for check, result in results.items()]))
"""

SMALL: dict[str, Any] = {"effort": "quick", "width": 16, "blocks": 1, "batch_size": 64, "lr": 0.03, "dropout": 0.0}


def results(script: str, *arguments: str) -> list[tuple[str, str, str]]:
    """Name, status and exception of every check, from a process of its own: scipy reads the variable when imported."""
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, timeout=290
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows = json.loads(done.stdout.strip().splitlines()[-1])
    return [(str(name), str(status), str(told)) for name, status, told in rows]


def assert_all_passed(rows: list[tuple[str, str, str]], at_least: int) -> None:
    """Raise unless there were that many checks and every one passed."""
    assert [row for row in rows if row[1] != "passed"] == []
    assert len(rows) >= at_least


@pytest.mark.parametrize(("name", "epochs"), [("CCNNClassifier", 25), ("CCNNRegressor", 60)])
def test_scikit_learn_accepts(name: str, epochs: int) -> None:
    rows = results(SCIKIT_LEARN, name, json.dumps({**SMALL, "epochs": epochs}))
    assert_all_passed(rows, at_least=50)
    assert "check_array_api_input" in {check for check, _, _ in rows}


@pytest.mark.parametrize("name", ["AeonCCNNClassifier", "AeonCCNNRegressor"])
def test_aeon_accepts(name: str) -> None:
    rows = results(OTHERS, "aeon.testing.estimator_checking", "omniconv.estimators.aeon", name)
    assert_all_passed(rows, at_least=28)


@pytest.mark.parametrize(("name", "at_least"), [("SktimeCCNNClassifier", 250), ("SktimeCCNNRegressor", 140)])
def test_sktime_accepts(name: str, at_least: int) -> None:
    rows = results(OTHERS, "sktime.utils.estimator_checks", "omniconv.estimators.sktime", name)
    assert_all_passed(rows, at_least=at_least)
