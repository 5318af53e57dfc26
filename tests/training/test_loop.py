from __future__ import annotations

import copy
import math
import random
from functools import partial
from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from omniconv import CCNN, Conv, Gabor, Gaussian
from omniconv.training import accuracy, train_classifier

pytest.importorskip("accelerate")

STEPS = 16


def waves(count: int) -> tuple[Tensor, Tensor]:
    """Sequences of one period or of four, at random phases: the label is which."""
    labels = torch.arange(count) % 2
    cycles = torch.where(labels == 0, 1.0, 4.0)[:, None] * torch.arange(STEPS) / STEPS
    return torch.sin(2 * math.pi * (cycles + torch.rand(count, 1)))[:, None], labels


def network(dropout: float = 0.0) -> CCNN:
    """A tiny network with fixed weights."""
    torch.manual_seed(1)
    kernel, support = partial(Gabor, hidden=8, depth=1), partial(Gaussian, width=0.15)
    return CCNN(1, 2, STEPS, blocks=1, width=4, kernel=kernel, support=support, dropout=dropout)


def spoil_random_states() -> None:
    """Move every global generator."""
    torch.rand(7)
    random.random()
    np.random.random()  # noqa: NPY002


def test_two_frequencies_are_told_apart() -> None:
    (inputs, labels), (others, other_labels) = waves(32), waves(64)
    model = network()
    losses = train_classifier(model, inputs, labels, epochs=20, batch_size=8, lr=0.02)
    assert losses[0] > 0.5 > 0.2 > losses[-1]
    assert accuracy(model, inputs, labels) == 1.0
    assert accuracy(model, others, other_labels) == 1.0


@pytest.mark.parametrize(("count", "batch_size", "epochs", "steps"), [(8, 4, 3, 6), (9, 4, 2, 6), (3, 64, 1, 1)])
def test_a_loss_and_a_report_for_every_step(count: int, batch_size: int, epochs: int, steps: int) -> None:
    reports: list[tuple[int, int, float]] = []

    def report(step: int, total: int, loss: float) -> None:
        reports.append((step, total, loss))

    losses = train_classifier(network(), *waves(count), epochs=epochs, batch_size=batch_size, report=report)
    assert len(losses) == steps
    assert reports == [(step, steps, loss) for step, loss in enumerate(losses, start=1)]


def test_the_first_loss_is_the_smoothed_cross_entropy() -> None:
    inputs, labels = waves(6)
    model = network()
    logits = copy.deepcopy(model).train()(inputs).log_softmax(1)
    share = 0.1  # of the target that is spread over both classes
    right, both = logits.gather(1, labels[:, None]).mean(), logits.mean()
    (loss,) = train_classifier(model, inputs, labels, epochs=1, label_smoothing=share)
    assert loss == pytest.approx(-((1 - share) * right + share * both).item(), rel=1e-6)


def test_the_first_step_is_that_of_adamw_on_clipped_gradients() -> None:
    # One linear layer, one step: theta <- theta (1 - lr decay) - lr g / (|g| + epsilon), with |g| <= clip in all.
    inputs, labels = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    model = nn.Linear(3, 2)
    before = copy.deepcopy(model)
    clip = 1e-8  # as small as the epsilon of AdamW, so that the step shows it
    train_classifier(model, inputs, labels, epochs=1, lr=0.1, weight_decay=0.5, clip=clip)
    nn.functional.cross_entropy(before(inputs), labels).backward()
    weight, bias = before.weight.grad, before.bias.grad
    assert weight is not None
    assert bias is not None
    norm = torch.cat([weight.flatten(), bias]).norm()
    for parameter, start, grad, decay in (
        (model.weight, before.weight, weight, 0.05),
        (model.bias, before.bias, bias, 0.0),
    ):
        clipped = grad * clip / norm
        step = 0.1 * clipped / (clipped.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), start.detach() * (1 - decay) - step, rtol=1e-4, atol=1e-5)


def test_training_is_adamw_with_warm_up_over_a_tenth_and_cosine() -> None:
    inputs, labels = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, 0])
    model = nn.Linear(3, 2, dtype=torch.float64)
    plain = copy.deepcopy(model)
    losses = train_classifier(model, inputs, labels, epochs=12, lr=0.3, weight_decay=0.5, clip=0.1)
    decays = [{"params": [plain.weight], "weight_decay": 0.5}, {"params": [plain.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decays)
    for step, loss_there in enumerate(losses):  # every batch holds all samples: 12 steps, of which 2 warm up
        factor = (step + 1) / 3 if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 10))
        for group in optimizer.param_groups:
            group["lr"] = 0.3 * factor
        loss = nn.functional.cross_entropy(plain(inputs), labels)
        assert loss_there == pytest.approx(loss.item(), rel=1e-9)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-9, atol=1e-12)


def train_twice(first: int, second: int, dropout: float = 0.0) -> tuple[tuple[list[float], CCNN], ...]:
    """Losses and network of two trainings from the same weights, with these seeds."""
    inputs, labels = waves(12)
    results = []
    for seed in (first, second):
        model = network(dropout)
        if dropout == 0.0:
            spoil_random_states()  # the order of the batches may depend on the seed alone
        results.append((train_classifier(model, inputs, labels, epochs=2, batch_size=5, seed=seed), model))
    return tuple(results)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_same_seed_gives_the_same_bits(dropout: float) -> None:
    (losses, model), (again, twin) = train_twice(3, 3, dropout)
    assert losses == again
    state, other = model.state_dict(), twin.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_another_seed_gives_another_order() -> None:
    (losses, _), (others, _) = train_twice(3, 4)
    assert losses[0] != others[0]


def test_every_epoch_shows_every_sample_once_in_a_new_order() -> None:
    seen: list[list[float]] = []

    class Watching(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x[:, 0].tolist())
            return super().forward(x)

    inputs = torch.arange(10.0)[:, None]
    train_classifier(Watching(1, 2), inputs, torch.zeros(10, dtype=torch.long), epochs=2, batch_size=4)
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    first, second = list(chain(*seen[:3])), list(chain(*seen[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != sorted(first)


def test_supports_are_read_anew_after_every_step() -> None:
    model = network()
    convs = [module for module in model.modules() if isinstance(module, Conv)]
    windows: list[tuple[int, ...]] = []

    def report(step: int, steps: int, loss: float) -> None:
        for conv in convs:
            kept = (conv.window, conv.bandlimit)
            fresh = copy.deepcopy(conv)
            fresh.refresh()
            assert kept == (fresh.window, fresh.bandlimit)
        windows.append(convs[0].window)

    train_classifier(model, *waves(32), epochs=5, batch_size=8, lr=0.2, report=report)
    assert len(set(windows)) > 1, "no support has changed: the test would pass without a refresh"


def test_the_network_is_left_training_and_its_weights_have_moved() -> None:
    model = network().eval()
    before = copy.deepcopy(model.state_dict())
    train_classifier(model, *waves(4), epochs=1)
    assert model.training
    assert model.stem.training
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {"head.readout.weight", "stem.kernel.frequency", "stem.support.width_logit", "norm.running_mean"} <= moved
    assert "stem.gain" not in moved


@pytest.mark.parametrize(("inputs", "labels"), [(4, 3), (3, 4)])
def test_inputs_without_a_label_each_are_refused(inputs: int, labels: int) -> None:
    message = f"`inputs` and `labels` must have one entry per sample, at least one; got {inputs} and {labels}"
    with pytest.raises(ValueError, match=message):
        train_classifier(network(), waves(inputs)[0], waves(labels)[1], epochs=1)


@pytest.mark.parametrize(
    ("epochs", "clip", "message"),
    [(0, 1.0, "`epochs` must be at least 1; got 0"), (1, 0.0, "`clip` must be finite and above 0; got 0.0")],
)
def test_options_out_of_range_are_refused(epochs: int, clip: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_classifier(network(), *waves(4), epochs=epochs, clip=clip)


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights() -> None:
    inputs, labels = waves(8)
    inputs[inputs.shape[0] // 2 :] = math.nan
    model = network()
    taken: list[float] = []

    def report(step: int, steps: int, loss: float) -> None:
        taken.append(loss)

    with pytest.raises(
        ValueError, match=r"the loss is nan at step \d, for inputs a float32 tensor of shape \(1, 1, 16\)"
    ):
        train_classifier(model, inputs, labels, epochs=1, batch_size=1, report=report)
    assert all(math.isfinite(loss) for loss in taken)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_the_message_counts_the_steps_taken() -> None:
    inputs = torch.full((1, 1, STEPS), math.inf)
    with pytest.raises(ValueError, match="the loss is nan at step 0"):
        train_classifier(network(), inputs, torch.zeros(1, dtype=torch.long), epochs=1)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 256])
def test_accuracy_is_the_share_of_right_answers(batch_size: int) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 5.0], [1.0, 0.0, 0.5], [0.1, 0.2, 0.3]])
    labels = torch.tensor([0, 1, 1, 2, 2])  # largest: 0, 1, 2, 0, 2, of which the first, second and last are right
    assert accuracy(nn.Identity(), logits, labels, batch_size=batch_size) == 3 / 5
    assert accuracy(nn.Identity(), logits, torch.tensor([0, 1, 2, 0, 2]), batch_size=batch_size) == 1.0
    assert accuracy(nn.Identity(), logits, torch.tensor([1, 2, 0, 1, 0]), batch_size=batch_size) == 0.0


def test_accuracy_evaluates_and_learns_nothing() -> None:
    model = network(dropout=0.5).train()
    inputs, labels = waves(9)
    before = copy.deepcopy(model.state_dict())
    right = (copy.deepcopy(model).eval()(inputs).argmax(1) == labels).sum().item()
    assert {accuracy(model, inputs, labels, batch_size=size) for size in (4, 9)} == {right / 9}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
