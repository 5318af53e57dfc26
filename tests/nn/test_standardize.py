"""Standardize: the constants of the data, as a part of the network."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from omniconv import CCNN
from omniconv.nn import Standardize


@pytest.mark.parametrize("size", [(), (5,), (4, 3), (2, 3, 2)])
def test_it_is_the_formula_per_channel(size: tuple[int, ...]) -> None:
    layer = Standardize(3, dtype=torch.float64)
    mean, std = [1.0, -2.0, 0.5], [2.0, 0.25, 3.0]
    layer.set(mean, std)
    x = torch.randn(4, 3, *size, dtype=torch.float64)
    expected = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-15, atol=0)


def test_constants_of_a_sample_make_it_standard() -> None:
    x = 5 + 3 * torch.randn(8, 2, 40, dtype=torch.float64)
    layer = Standardize(2, dtype=torch.float64)
    layer.set(x.mean((0, 2)), x.std((0, 2)))
    y = layer(x)
    torch.testing.assert_close(y.mean((0, 2)), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(y.std((0, 2)), torch.ones(2, dtype=torch.float64))


def test_it_is_the_identity_until_it_is_set_and_after_a_reset() -> None:
    layer, x = Standardize(2), torch.randn(3, 2, 7)
    assert torch.equal(layer(x), x)
    layer.set([1.0, 2.0], [3.0, 4.0])
    assert not torch.equal(layer(x), x)
    layer.reset_parameters()
    assert torch.equal(layer(x), x)


def test_new_parameters_of_a_network_forget_the_data() -> None:
    model = CCNN(2, 3, 8, blocks=1, width=4)
    model.standardize.set([1.0, 2.0], [3.0, 4.0])
    model.reset_parameters()
    assert torch.equal(model.standardize.mean, torch.zeros(2))
    assert torch.equal(model.standardize.std, torch.ones(2))


def test_constants_are_state_and_nothing_is_learned() -> None:
    layer = Standardize(2)
    layer.set([1.0, 2.0], [3.0, 4.0])
    assert {name: value.tolist() for name, value in layer.state_dict().items()} == {"mean": [1, 2], "std": [3, 4]}
    assert list(layer.parameters()) == []
    other, x = Standardize(2), torch.randn(3, 2, 5)
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))


@pytest.mark.parametrize("values", [[3.0, 4.0], (3.0, 4.0), np.array([3.0, 4.0]), torch.tensor([3.0, 4.0])])
def test_constants_come_as_sequence_array_or_tensor(values: Any) -> None:
    layer = Standardize(2)
    layer.set(values, values)
    assert layer.mean.tolist() == layer.std.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_signal_keeps_its_precision(dtype: torch.dtype) -> None:
    layer = Standardize(2)
    layer.set([1.0, 2.0], [2.0, 4.0])
    x = torch.tensor([[[3.0], [10.0]]], dtype=dtype)
    assert layer(x).dtype == dtype
    assert layer(x).flatten().tolist() == [1.0, 2.0]
    assert layer.mean.dtype == torch.float32
    assert Standardize(2, dtype=dtype).std.dtype == dtype


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.0], [1.0, 1.0], r"`mean` must be 2 finite numbers, one per channel; got \[0.0\]"),
        ([0.0, 0.0], [1.0], "`std` must be 2 finite, positive numbers"),
        ([[0.0, 0.0]], [1.0, 1.0], "`mean` must be 2 finite numbers"),
        (0.0, 1.0, "`mean` must be 2 finite numbers, one per channel; got 0.0"),
        ([0.0, math.nan], [1.0, 1.0], "`mean` must be 2 finite numbers"),
        ([0.0, math.inf], [1.0, 1.0], "`mean` must be 2 finite numbers"),
        ([0.0, 0.0], [1.0, 0.0], "`std` must be 2 finite, positive numbers"),
        ([0.0, 0.0], [1.0, -1.0], "`std` must be 2 finite, positive numbers"),
        ([0.0, 0.0], [1.0, math.inf], "`std` must be 2 finite, positive numbers"),
        ([0.0, 0.0], [1.0, math.nan], "`std` must be 2 finite, positive numbers"),
    ],
)
def test_constants_that_do_not_fit_are_refused(mean: Any, std: Any, message: str) -> None:
    layer = Standardize(2)
    with pytest.raises(ValueError, match=message):
        layer.set(mean, std)


@pytest.mark.parametrize(
    ("channels", "error", "message"),
    [
        (0, ValueError, "`channels` must be at least 1; got 0"),
        (1.5, TypeError, "`channels` must be an integer; got float 1.5"),
    ],
)
def test_channels_are_counted(channels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Standardize(channels)
