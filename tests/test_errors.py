"""What messages show of a value that does not fit: enough to see what it is, on one short line."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import omniconv as oc
from omniconv._errors import check_choice, check_number, describe, shown


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3, "int 3"),
        ("a", "str 'a'"),
        ((1, 2), "tuple (1, 2)"),
        (torch.zeros(2, 3), "a float32 tensor of shape (2, 3)"),
        (np.zeros((2, 3)), "a float64 array of shape (2, 3)"),
        (list(range(200000)), "list of length 200000"),
        ({i: i for i in range(1000)}, "dict of length 1000"),
        ("x" * 1000, "str of length 1000"),
        (np.dtype("int64"), "Int64DType dtype('int64')"),
    ],
)
def test_a_value_is_described_in_a_few_words(value: Any, told: str) -> None:
    assert describe(value) == told


def test_what_is_long_or_has_several_lines_is_cut() -> None:
    class Long:
        def __repr__(self) -> str:
            return "Long(\n" + "x" * 1000 + ")"

    assert describe(Long()) == f"Long Long( {'x' * 90}..."
    assert len(shown(Long())) == 99
    assert shown([1, 2]) == "[1, 2]"
    assert shown(0.5) == "0.5"


def test_messages_stay_short() -> None:
    with pytest.raises(TypeError, match=r"got list of length 200000\. Convert it with torch\.as_tensor"):
        oc.convolve(torch.zeros(1, 1, 5), list(range(200000)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`n` must be a number; got a float64 array of shape \(3,\)\."):
        check_number("n", np.zeros(3), low=0.0)
    with pytest.raises(ValueError, match=r"one of 'a', 'b'; got str of length 5000\."):
        check_choice("kind", "c" * 5000, ("a", "b"))


def test_without_scikit_learn_the_extra_is_named() -> None:
    script = "import sys; sys.modules['sklearn'] = None; from omniconv.estimators import CCNNClassifier"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert "needs the package 'sklearn'. Install it with: pip install 'omniconv[estimators]'" in done.stderr
