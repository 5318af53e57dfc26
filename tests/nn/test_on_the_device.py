"""A layer in training neither copies numbers from the host nor waits for any: it can be recorded in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from omniconv._constants import numbers
from omniconv.kernels import Conditional
from omniconv.nn import Conv, Conv1d, Conv2d, TokenEmbedding
from omniconv.supports import Gaussian
from tests.cases import KERNELS, SUPPORTS

CALLS = ("aten.lift_fresh", "aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal")
"""A list that becomes a tensor; a number that the host asks for, or a size that depends on numbers."""

DEVICES = ("cpu", "meta")
"""On the second, what comes from the host is of another device."""

PLACES: dict[str, Callable[..., Conv]] = {
    "1d": partial(Conv1d, 3, 4, 20, reach=5),
    "2d": partial(Conv2d, 3, 4, (9, 8), reach=(5, 3)),
}


class Between(TorchDispatchMode):
    """Names of the calls with which host and device meet."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, call: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        moved = str(call) == "aten._to_copy.default" and kwargs.get("device", args[0].device) != args[0].device
        if moved or str(call).startswith(CALLS):
            self.seen.append(str(call))
        return call(*args, **kwargs)


def met(action: Callable[[], object]) -> list[str]:
    with Between() as between:
        action()
    return between.seen


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
        assert met(partial(train, layer, device)) == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("support", [*SUPPORTS.values(), partial(Gaussian, learn_mean=True)])
def test_every_support_stays_on_its_device(support: Any, place: str) -> None:
    for device in DEVICES:
        layer = PLACES[place](support=support, device=device)
        assert met(partial(train, layer, device)) == []


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
