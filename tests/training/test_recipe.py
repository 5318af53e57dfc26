from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from omniconv.training import Recipe


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"epochs": 0}, ValueError, "`epochs` must be at least 1; got 0"),
        ({"epochs": 1.5}, TypeError, r"`epochs` must be an integer; got float 1\.5"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1; got 0"),
        ({"accumulate": 0}, ValueError, "`accumulate` must be at least 1; got 0"),
        ({"lr": 0.0}, ValueError, "`lr` must be finite and above 0; got 0.0"),
        ({"lr": math.inf}, ValueError, "`lr` must be finite and above 0; got inf"),
        ({"weight_decay": -0.1}, ValueError, "`weight_decay` must be finite and at least 0; got -0.1"),
        ({"warmup": 1.1}, ValueError, "`warmup` must be finite and at least 0 and at most 1; got 1.1"),
        ({"clip": 0.0}, ValueError, "`clip` must be finite and above 0; got 0.0"),
        ({"kernel_norm": -1.0}, ValueError, "`kernel_norm` must be finite and at least 0; got -1.0"),
        ({"all_pass": -1.0}, ValueError, "`all_pass` must be finite and at least 0; got -1.0"),
        ({"antialias": -1.0}, ValueError, "`antialias` must be finite and at least 0; got -1.0"),
        ({"average": 1.0}, ValueError, "`average` must be below 1; got 1.0"),
        ({"average": -0.5}, ValueError, "`average` must be finite and at least 0; got -0.5"),
        ({"patience": -1}, ValueError, "`patience` must be at least 0; got -1"),
        ({"precision": "fp8"}, ValueError, "`precision` must be one of 'no', 'bf16', 'fp16'; got 'fp8'"),
        ({"compile": 1}, TypeError, "`compile` must be True or False; got int 1"),
        ({"workers": -1}, ValueError, "`workers` must be at least 0; got -1"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0; got -1"),
        (
            {"accumulate": 5, "batch_size": 4},
            ValueError,
            r"`accumulate` \(=5\) must not exceed `batch_size` \(=4\): every part needs a sample",
        ),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Recipe(**options)


def test_the_ends_of_every_range_are_taken() -> None:
    least: dict[str, Any] = {
        "weight_decay": 0,
        "warmup": 0,
        "kernel_norm": 0,
        "all_pass": 0,
        "antialias": 0,
        "average": 0,
        "patience": 0,
    }
    assert dataclasses.asdict(Recipe(epochs=1, batch_size=1, **least)).items() >= least.items()
    most: dict[str, Any] = {"warmup": 1.0, "accumulate": 32, "batch_size": 32}
    assert dataclasses.asdict(Recipe(**most)).items() >= most.items()


def test_a_recipe_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'lr'"):
        Recipe().lr = 0.1  # type: ignore[misc]
