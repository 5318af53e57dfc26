"""A layer in training neither copies numbers from the host nor waits for any: it can be recorded in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv._constants import numbers
from omniconv.kernels import Conditional
from omniconv.nn import Conv, Conv1d, Conv2d, TokenEmbedding
from omniconv.supports import Gaussian
from omniconv.testing._device import met, stays
from tests.cases import KERNELS, SUPPORTS

DEVICES = ("cpu", "meta")
"""On the second, what comes from the host is of another device."""

PLACES: dict[str, Callable[..., Conv]] = {
    "1d": partial(Conv1d, 3, 4, 20, reach=5),
    "2d": partial(Conv2d, 3, 4, (9, 8), reach=(5, 3)),
}


def train(layer: Conv, device: str) -> None:
    x = torch.zeros(2, 3, *layer.grid.size, device=device, requires_grad=True)
    layer(x).sum().backward()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_stays_on_its_device(name: str, causal: bool, place: str) -> None:
    if getattr(KERNELS[name], "func", None) is Conditional:
        pytest.skip("takes a condition")
    for device in DEVICES:
        layer = PLACES[place](kernel=KERNELS[name], causal=causal, device=device)
        stays(partial(train, layer, device), f"a layer with {name}")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("support", [*SUPPORTS.values(), partial(Gaussian, learn_mean=True)])
def test_every_support_stays_on_its_device(support: Any, place: str) -> None:
    for device in DEVICES:
        layer = PLACES[place](support=support, device=device)
        stays(partial(train, layer, device), f"a layer with {support}")


class Elsewhere(Tensor):
    """Numbers that are said to lie on another device."""

    is_cpu = property(lambda self: False)


def test_ids_are_looked_at_on_a_cpu_alone() -> None:
    embedding, ids = TokenEmbedding(5, 3), torch.tensor([[4, 0]])
    assert met(lambda: embedding(ids))
    assert met(lambda: embedding(ids.as_subclass(Elsewhere))) == []


def test_what_is_counted_is_what_meets() -> None:
    x = torch.zeros(3)
    assert met(lambda: x.new_tensor([1.0, 2.0, 3.0])) == ["aten.lift_fresh.default"]
    assert met(lambda: torch.ones(3).to("meta")) == ["aten._to_copy.default"]
    assert met(lambda: x.sum().item()) == ["aten._local_scalar_dense.default"]
    assert met(lambda: x * 2 + torch.ones(3).double()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", [[0.1], [0.1, 0.1], [7, 3, 3, 1e-3], [True, False], [2**24 + 1, 1 / 3]])
def test_numbers_are_those_of_a_list(values: list[float], dtype: torch.dtype) -> None:
    like: Tensor = torch.zeros(1, dtype=dtype)
    assert torch.equal(numbers(values, like), like.new_tensor(values))
    assert numbers(values, like).dtype == dtype
