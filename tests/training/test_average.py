from __future__ import annotations

import pytest
import torch
from torch import nn

from omniconv.training.average import Average
from tests.training.makers import differing, network, weights


def one_weight(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(layer.weight, value)
    return layer


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
def test_every_update_moves_the_average_by_its_share_that_is_large_at_first(decay: float) -> None:
    layer = one_weight(5.0)
    average, expected = Average(layer, decay), 5.0
    for step in range(1, 40):
        nn.init.constant_(layer.weight, float(step % 7))
        average.update(step)
        share = min(decay, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * (step % 7)
        assert average.values[0].item() == pytest.approx(expected, rel=1e-12)
        assert layer.weight.item() == step % 7


def moved_average() -> tuple[nn.Module, Average]:
    """A network that has moved away from its average."""
    model = network()
    average = Average(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter))
    average.update(1)
    return model, average


def test_within_applied_the_weights_are_the_average_and_after_it_what_they_were() -> None:
    model, average = moved_average()
    before, values = weights(model), [value.clone() for value in average.values]
    with average.applied():
        assert all(torch.equal(now, value) for now, value in zip(average.weights, values, strict=True))
        assert set(differing(weights(model), before)) == {name for name, _ in model.named_parameters()}
    assert differing(weights(model), before) == []
    assert all(torch.equal(now, value) for now, value in zip(average.values, values, strict=True))


def test_the_weights_come_back_when_something_fails_within() -> None:
    model, average = moved_average()
    before = weights(model)
    with pytest.raises(RuntimeError, match="on purpose"), average.applied():
        raise RuntimeError("on purpose")
    assert differing(weights(model), before) == []


def test_adopting_makes_the_weights_the_average_and_leaves_it() -> None:
    model, average = moved_average()
    values = [value.clone() for value in average.values]
    average.adopt()
    assert all(torch.equal(now, value) for now, value in zip(model.parameters(), values, strict=True))
    assert all(torch.equal(now, value) for now, value in zip(average.values, values, strict=True))


def test_frozen_weights_are_not_averaged() -> None:
    layers = nn.Sequential(one_weight(1.0), one_weight(2.0))
    layers[0].requires_grad_(False)
    assert [value.item() for value in Average(layers, 0.5).values] == [2.0]


def test_with_a_decay_of_nothing_the_weights_are_the_average() -> None:
    layer = one_weight(1.0)
    average = Average(layer, 0.0)
    nn.init.constant_(layer.weight, 3.0)
    average.update(1)
    with average.applied():
        assert layer.weight.item() == 3.0
    average.adopt()
    assert layer.weight.item() == 3.0
