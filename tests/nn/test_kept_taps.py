"""At evaluation a layer keeps its taps until a parameter changes; a kept kernel never changes a result."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from omniconv.nn import Conv, Conv1d
from omniconv.testing import assert_close


@pytest.fixture
def layer() -> Conv1d:
    return Conv1d(3, 3, size=16, mixing="depthwise").eval()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A word for every time that a layer samples its kernel."""
    made: list[object] = []
    values = Conv.values

    def counted(self: Conv, *arguments: object) -> Tensor:
        made.append(arguments)
        return values(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Conv, "values", counted)
    return made


def fresh(layer: Conv, x: Tensor, **options: float) -> Tensor:
    """The output of a copy, which has kept nothing."""
    return copy.deepcopy(layer)(x, **options).detach()


def test_the_kernel_is_sampled_once_for_every_resolution(layer: Conv1d, calls: list[object]) -> None:
    x = torch.randn(2, 3, 16)
    with torch.no_grad():
        for _ in range(3):
            layer(x), layer(x[..., :9]), layer(x, spacing=0.5)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: next(layer.kernel.parameters()).detach().mul_(1.5),
        lambda layer: next(layer.support.parameters()).detach().mul_(0.5),
        lambda layer: layer.gain.mul_(2),
        lambda layer: layer.reset_parameters(),
        lambda layer: layer.load_state_dict(Conv1d(3, 3, size=16, mixing="depthwise").state_dict()),
        lambda layer: layer.double().float(),
        lambda layer: layer.train(),
        lambda layer: torch.nn.utils.vector_to_parameters(
            1.1 * torch.nn.utils.parameters_to_vector(layer.parameters()), layer.parameters()
        ),
        lambda layer: [p.data.mul_(1.1) for p in layer.parameters()] and layer.refresh(),
    ],
    ids=["kernel", "support", "gain", "reset", "load", "dtype", "train", "vector", "data"],
)
def test_a_change_is_noticed(layer: Conv1d, change: Callable[[Conv1d], object]) -> None:
    x = torch.randn(2, 3, 16)
    with torch.no_grad():
        layer(x)
        change(layer)
        assert torch.equal(layer(x), fresh(layer, x))


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": True}], ids=str)
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_of_the_optimiser_is_noticed(
    layer: Conv1d, make: Callable[..., torch.optim.Optimizer], options: dict[str, bool]
) -> None:
    x, optimizer = torch.randn(2, 3, 16), make(layer.parameters(), lr=0.1, **options)
    for _ in range(3):
        with torch.no_grad():
            before = layer(x)
            assert torch.equal(before, fresh(layer, x))
        layer(x).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            assert not torch.equal(layer(x), before)
            assert torch.equal(layer(x), fresh(layer, x))


def test_other_parameters_for_one_call_are_noticed(layer: Conv1d) -> None:
    x = torch.randn(2, 3, 16)
    with torch.no_grad():
        before = layer(x)
        for factor in (1.5, 2.0):
            others = {name: factor * value for name, value in layer.named_parameters()}
            expected = copy.deepcopy(layer)
            expected.load_state_dict(others, strict=False)
            expected.refresh()
            expected.window = layer.window
            assert_close(torch.func.functional_call(layer, others, (x,)), expected(x))
        assert torch.equal(layer(x), before)


def test_training_keeps_nothing(layer: Conv1d, calls: list[object]) -> None:
    x = torch.randn(2, 3, 16)
    layer.train()
    with torch.no_grad():
        layer(x), layer(x)
    layer.eval()
    layer(x), layer(x)  # gradients are asked for
    assert len(calls) == 4
    assert not layer.kept_taps.taps


def test_what_is_kept_is_no_part_of_the_layer(layer: Conv1d) -> None:
    names = set(layer.state_dict())
    with torch.no_grad():
        y = layer(torch.ones(2, 3, 16))
    assert set(layer.state_dict()) == names
    assert layer.kept_taps.taps
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert not twin.kept_taps.taps
        with torch.no_grad():
            assert torch.equal(twin(torch.ones(2, 3, 16)), y)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_both_modes_without_gradients_may_alternate(layer: Conv1d, mode: type[torch.no_grad]) -> None:
    x = torch.randn(2, 3, 16)
    expected = layer(x).detach()
    for context in (mode, torch.no_grad, torch.inference_mode, mode):
        with context():
            assert_close(layer(x), expected)
    y = nn.Sequential(layer)(x.requires_grad_())
    y.sum().backward()
    assert x.grad is not None
