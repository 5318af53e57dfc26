from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from omniconv.training.batches import Batch
from omniconv.training.diagnosis import first_bad_gradient, first_bad_part
from tests.training.makers import network

NAMES = [str(number) for number in range(99)]


def batch(*, mask: bool = False) -> Batch:
    """Three samples of other indices than their rows."""
    seen = torch.arange(20) < torch.tensor([[20], [9], [15]]) if mask else None
    return Batch(torch.randn(3, 1, 20), seen, torch.tensor([4, 8, 2]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mask", [False, True])
def test_a_bad_sample_is_named_by_its_index(value: float, mask: bool) -> None:
    spoilt = batch(mask=mask)
    spoilt.signals[1, 0, 3] = value
    assert first_bad_part(network(), spoilt, NAMES) == "sample 8 of the training data"


def test_what_the_mask_hides_is_not_bad() -> None:
    spoilt = batch(mask=True)
    spoilt.signals[1, 0, 12] = math.nan
    assert first_bad_part(network(), spoilt, NAMES).startswith("the loss itself")


@pytest.mark.parametrize("name", ["stem.kernel.output_weight", "blocks.0.linear.weight", "head.readout.bias"])
def test_a_bad_weight_is_named(name: str) -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[-1] = math.nan
    assert first_bad_part(model, batch(), NAMES) == f"the values of {name!r}"


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(
    ("parameter", "layer"),
    [
        ("stem.mixer.weight", "stem.mixer"),
        ("blocks.0.linear.weight", "blocks.0.linear"),
        ("head.readout.weight", "head.readout"),
    ],
)
def test_the_first_layer_that_overflows_is_named(parameter: str, layer: str, mask: bool) -> None:
    model, found = network(), batch(mask=mask)
    with torch.no_grad():
        model.get_parameter(parameter).fill_(3e38).view(-1)[0] = -3e38
    model(found.signals * 1e3, mask=found.mask)  # the running statistics have seen it, as they have in training
    spoilt = found._replace(signals=found.signals * 1e3)
    assert first_bad_part(model, spoilt, NAMES) == f"the output of layer {layer!r}"


def test_where_all_is_finite_it_is_the_loss() -> None:
    assert first_bad_part(network(), batch(), NAMES) == "the loss itself: every layer's output is finite"


def test_a_network_that_takes_no_mask_is_asked_without() -> None:
    class Overflows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp() * math.inf

    model = nn.Sequential(nn.Flatten(), Overflows())
    assert first_bad_part(model, batch(), NAMES) == "the output of layer '1'"


def test_no_hook_stays() -> None:
    model = network()
    first_bad_part(model, batch(), NAMES)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_first_parameter_with_a_bad_gradient_is_named() -> None:
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert first_bad_gradient(model) == "the norm of the gradients, which overflows"
    for name in ("head.readout.bias", "blocks.0.linear.weight"):
        grad = model.get_parameter(name).grad
        assert grad is not None
        grad.view(-1)[0] = math.inf
        assert first_bad_gradient(model) == f"the gradient of {name!r}"
