from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omniconv.training import accuracy, outputs_of
from omniconv.training.evaluation import evaluating
from tests.training.makers import differing, network, waves, weights


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("ragged", [False, True])
def test_outputs_are_those_of_every_sample_alone_in_the_order_of_the_samples(batch_size: int, ragged: bool) -> None:
    model, samples = network().double().eval(), waves(7, ragged=ragged, noise=0.3)
    with torch.no_grad():
        alone = torch.cat([model(torch.from_numpy(samples[i])[None].double()) for i in range(7)])
    torch.testing.assert_close(outputs_of(model, samples, batch_size=batch_size), alone, rtol=1e-10, atol=1e-12)


def test_evaluation_learns_nothing_and_leaves_every_mode() -> None:
    model = network(dropout=0.5).train()
    model.blocks.eval()
    before, modes = weights(model), [module.training for module in model.modules()]
    first, second = outputs_of(model, waves(5)), outputs_of(model, waves(5))
    assert torch.equal(first, second)  # no drop-out
    assert differing(weights(model), before) == []
    assert [module.training for module in model.modules()] == modes
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_modes_come_back_when_something_fails() -> None:
    model = network().train()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    with pytest.raises(RuntimeError, match="on purpose"), evaluating(model):
        raise RuntimeError("on purpose")
    assert all(module.training for module in model.modules())


def test_what_wraps_the_model_is_called_in_its_place() -> None:
    calls: list[bool] = []

    def forward(x: Tensor, mask: Tensor | None = None) -> Tensor:
        calls.append(mask is not None)
        return torch.full((len(x), 1), 2.0)

    found = outputs_of(network(), waves(6, ragged=True), batch_size=2, forward=forward)
    assert torch.equal(found, torch.full((6, 1), 2.0))
    assert len(calls) == 3
    assert any(calls)


def test_half_precision_is_computed_in_single() -> None:
    seen: list[torch.dtype] = []

    def forward(x: Tensor, mask: Any = None) -> Tensor:
        seen.append(x.dtype)
        return x.mean((1, 2))[:, None].bfloat16()

    assert outputs_of(network().bfloat16(), waves(2), forward=forward).dtype == torch.float32
    assert seen == [torch.float32]


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="`batch_size` must be at least 1; got 0"):
        outputs_of(network(), waves(2), batch_size=0)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 256])
def test_accuracy_is_the_share_of_right_answers(batch_size: int) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 5.0], [1.0, 0.0, 0.5], [0.1, 0.2, 0.3]])
    labels = torch.tensor([0, 1, 1, 2, 2])  # largest: 0, 1, 2, 0, 2, of which the first, second and last are right
    assert accuracy(nn.Identity(), logits, labels, batch_size=batch_size) == 3 / 5
    assert accuracy(nn.Identity(), logits, torch.tensor([0, 1, 2, 0, 2]), batch_size=batch_size) == 1.0
    assert accuracy(nn.Identity(), logits, torch.tensor([1, 2, 0, 1, 0]), batch_size=batch_size) == 0.0


def test_accuracy_evaluates_and_learns_nothing() -> None:
    model = network(dropout=0.5).train()
    inputs, labels = torch.randn(9, 1, 24), torch.arange(9) % 2
    before = weights(model)
    right = (copy.deepcopy(model).eval()(inputs).argmax(1) == labels).sum().item()
    assert {accuracy(model, inputs, labels, batch_size=size) for size in (4, 9)} == {right / 9}
    assert differing(weights(model), before) == []
    assert model.training


@pytest.mark.parametrize(("inputs", "labels"), [(4, 3), (0, 0)])
def test_inputs_without_a_label_each_are_refused(inputs: int, labels: int) -> None:
    message = f"`inputs` and `labels` must have one entry per sample, at least one; got {inputs} and {labels}"
    with pytest.raises(ValueError, match=message):
        accuracy(network(), torch.zeros(inputs, 1, 24), torch.zeros(labels))
