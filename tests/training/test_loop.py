from __future__ import annotations

import copy
import csv
import json
import math
import random
import re
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from omniconv._errors import Interrupted, NonFiniteError
from omniconv.data import ArraySamples, Samples
from omniconv.nn import all_pass
from omniconv.training import (
    Classification,
    Recipe,
    Run,
    outputs_of,
    read_checkpoint,
    read_latest,
    train,
)
from omniconv.training.batches import BatchPlan
from omniconv.training.checkpoints import list_checkpoints
from tests.training.makers import TASK, Means, convolutions, differing, network, waves, weights, without_times

SHORT = Recipe(epochs=3, batch_size=4)


def of_signals(signals: Tensor, labels: list[int]) -> ArraySamples:
    return ArraySamples(signals.numpy(), np.array(TASK.classes)[labels])


def levels(count: int = 6, channels: int = 3) -> ArraySamples:
    """Constant signals at random levels, with labels of no meaning."""
    return of_signals(torch.randn(count, channels, 1).expand(-1, -1, 5), [index * 5 % 3 % 2 for index in range(count)])


def by_epoch(batch_size: int, samples: Samples, seed: int = 0) -> BatchPlan:
    return BatchPlan(samples.sizes, batch_size, seed)


# ---- what is learned


def test_two_frequencies_are_told_apart() -> None:
    model = network()
    record = train(model, TASK, waves(32, ragged=True), recipe=Recipe(epochs=15, batch_size=8))
    assert record[0]["loss"] > 0.5 > 0.1 > record[-1]["loss"]
    others = waves(64, ragged=True, seed=9)
    assert TASK.score(outputs_of(model, others), np.asarray(others.targets)) == 1.0


@pytest.mark.parametrize("ragged", [False, True])
def test_the_first_loss_is_the_mean_smoothed_cross_entropy_of_the_first_batch(ragged: bool) -> None:
    samples, share = waves(6, ragged=ragged), 0.2
    logs = torch.cat([torch.from_numpy(samples[i])[None].mean((1, 2))[:, None] for i in range(6)])
    expected = []

    class Levels(nn.Module):
        """The mean over what was observed as the difference of two logits."""

        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.tensor(0.3))

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            count = x.shape[-1] if mask is None else mask.sum(-1)
            level = x[:, 0].sum(-1) / count
            return torch.stack([level + self.shift, -level], dim=1)

    for level, label in zip(logs[:, 0].tolist(), TASK.encode(np.asarray(samples.targets)).tolist(), strict=True):
        total = math.log(math.exp(level + 0.3) + math.exp(-level))
        both = [level + 0.3 - total, -level - total]
        expected.append(-((1 - share) * both[label] + share * (both[0] + both[1]) / 2))
    task = Classification(TASK.classes, label_smoothing=share)
    (row,) = train(Levels(), task, samples, recipe=Recipe(epochs=1))
    assert row["loss"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_training_is_adamw_with_clipping_warm_up_over_a_tenth_and_cosine() -> None:
    samples, model = levels(), Means(3)
    plain = copy.deepcopy(model)
    inputs = torch.stack([torch.from_numpy(samples[i]) for i in range(6)])
    labels = TASK.encode(np.asarray(samples.targets))
    record = train(model, TASK, samples, recipe=Recipe(epochs=12, lr=0.3, weight_decay=0.5, clip=0.1))
    decays = [
        {"params": [plain.linear.weight], "weight_decay": 0.5},
        {"params": [plain.linear.bias], "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(decays)
    for step, row in enumerate(record):  # every batch holds all samples: 12 steps, of which 2 warm up
        factor = (step + 1) / 3 if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 10))
        assert row["lr"] == pytest.approx(0.3 * factor)
        for group in optimizer.param_groups:
            group["lr"] = 0.3 * factor
        loss = nn.functional.cross_entropy(plain(inputs), labels)
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimizer.step()
    torch.testing.assert_close(weights(model), weights(plain), rtol=1e-4, atol=1e-5)


def test_clipping_makes_the_first_step_as_small_as_the_gradient_is_allowed_to_be() -> None:
    # The first step of AdamW is lr g / (|g| + 1e-8); a gradient of norm 1e-8 shows the epsilon.
    samples, model = levels(), Means(3)
    before = copy.deepcopy(model)
    train(model, TASK, samples, recipe=Recipe(epochs=1, lr=0.1, weight_decay=0.0, clip=1e-8))
    inputs = torch.stack([torch.from_numpy(samples[i]) for i in range(6)])
    nn.functional.cross_entropy(before(inputs), TASK.encode(np.asarray(samples.targets))).backward()
    gradients = [before.linear.weight.grad, before.linear.bias.grad]
    norm = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).norm()
    for parameter, start, gradient in zip(model.parameters(), before.parameters(), gradients, strict=True):
        assert gradient is not None
        clipped = gradient * 1e-8 / norm
        step = 0.1 * clipped / (clipped.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), start.detach() - step, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("odds", [(1.0, 1.0), (3.0, 1.0), (1.0, 4.0)])
def test_where_signals_say_nothing_the_weights_of_the_classes_are_their_odds(odds: tuple[float, float]) -> None:
    samples, task, model = of_signals(torch.zeros(8, 1, 5), [0, 1] * 4), Classification(TASK.classes, odds), Means()
    train(model, task, samples, recipe=Recipe(epochs=60, batch_size=8, lr=0.1, weight_decay=0.0))
    found = task.probabilities(outputs_of(model, samples))
    np.testing.assert_allclose(found[:, 0], odds[0] / sum(odds), atol=0.01)


def test_a_weight_on_the_kernels_shrinks_them() -> None:
    sums = []
    for kernel_norm in (0.0, 0.1):
        model = network()
        record = train(model, TASK, waves(16), recipe=Recipe(epochs=6, batch_size=4, kernel_norm=kernel_norm))
        sums.append(sum(conv.taps().square().sum().item() for conv in convolutions(model)))
    assert sums[1] < sums[0] / 2
    assert record[0]["loss"] > 0.1 * sums[1]


def test_a_weight_on_all_pass_makes_layers_keep_energy() -> None:
    distances = []
    for weight in (0.0, 1.0):
        model = network()
        train(model, TASK, waves(16), recipe=Recipe(epochs=10, batch_size=4, all_pass=weight))
        distances.append(all_pass(model).item())
    assert distances[1] < distances[0] / 2


def test_a_weight_on_aliasing_keeps_the_frequencies_on_the_grid() -> None:
    limits = []
    for antialias in (0.0, 10.0):
        model = network()
        with torch.no_grad():
            for conv in convolutions(model):
                conv.kernel.get_parameter("frequency").mul_(2.2)
        train(model, TASK, waves(16), recipe=Recipe(epochs=30, batch_size=4, lr=0.1, antialias=antialias))
        limits.append(max(conv.bandlimit[0] for conv in convolutions(model) if conv.bandlimit is not None))
    assert limits[0] > 1.05
    assert limits[1] < 1.0


@pytest.mark.parametrize(("parts", "batch_size"), [(2, 6), (3, 6), (3, 7)])
def test_a_batch_in_parts_is_the_batch_where_nothing_is_normalised(parts: int, batch_size: int) -> None:
    # With batch norm it is not: its statistics are those of a part.
    samples = levels(20, channels=1)
    found = []
    for accumulate in (1, parts):
        model = Means()
        recipe = Recipe(epochs=4, batch_size=batch_size, accumulate=accumulate, lr=0.1, clip=0.2)
        record = train(model, TASK, samples, recipe=recipe)
        found.append((torch.tensor([row["loss"] for row in record]), weights(model)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_the_penalty_counts_once_however_many_parts_a_batch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [network().eval() for _ in range(2)]
    monkeypatch.setattr(nn.Module, "train", lambda module, mode=True: module)  # the norms stay as they are
    losses = []
    for accumulate, model in zip((1, 2), models, strict=True):
        recipe = Recipe(epochs=2, batch_size=4, accumulate=accumulate, kernel_norm=0.5)
        losses.append([row["loss"] for row in train(model, TASK, waves(8), recipe=recipe)])
        assert not model.training
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("average", [0.0, 0.99])
def test_supports_are_read_anew_after_every_step_and_after_validation(average: float) -> None:
    model = network()
    convs = convolutions(model)
    windows: list[tuple[int, ...]] = []

    def report(step: int, steps: int, loss: float) -> None:
        for conv in convs:
            fresh = copy.deepcopy(conv)
            fresh.refresh()
            assert (conv.window, conv.bandlimit) == (fresh.window, fresh.bandlimit)
        windows.append(convs[0].window)

    with torch.no_grad():
        model.get_parameter("stem.support.width_logit").fill_(-1.0)
    recipe = Recipe(epochs=8, batch_size=4, lr=0.3, average=average)
    train(model, TASK, waves(16), recipe=recipe, validation=waves(4), report=report)
    assert len(set(windows)) > 1, "no support has changed: the test would pass without a refresh"


def test_every_epoch_shows_every_sample_once_in_the_order_of_the_plan() -> None:
    seen: list[list[int]] = []

    class Watching(Means):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            seen.append(x[:, 0, 0].long().tolist())
            return super().forward(x)

    samples = of_signals(torch.arange(10.0)[:, None, None].expand(-1, -1, 3), [0, 1] * 5)
    record = train(Watching(), TASK, samples, recipe=Recipe(epochs=2, batch_size=4, seed=7))
    plan = by_epoch(4, samples, seed=7)
    assert seen == [batch.tolist() for epoch in (0, 1) for batch in plan.epoch(epoch)]
    assert [row["samples"] for row in record] == [len(batch) for batch in seen]
    assert [row["epoch"] for row in record] == [0] * 3 + [1] * 3


# ---- seeds


def spoil_random_states() -> None:
    """Move every global generator."""
    torch.rand(7)
    random.random()
    np.random.random()  # noqa: NPY002


def random_states() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), name, np.asarray(keys).tolist(), rest


def test_the_same_seed_gives_the_same_bits_after_200_steps_and_leaves_the_random_states() -> None:
    found = []
    for _ in range(2):
        spoil_random_states()
        before, model = random_states(), network(dropout=0.2)
        recipe = Recipe(epochs=50, batch_size=4, average=0.9, seed=3)
        record = train(model, TASK, waves(16, ragged=True), recipe=recipe, validation=waves(4, seed=8))
        assert random_states() == before
        found.append((without_times(record), weights(model)))
    assert len(found[0][0]) == 200
    assert found[0][0] == found[1][0]
    assert differing(found[0][1], found[1][1]) == []


def test_another_seed_gives_another_order_and_another_drop_out() -> None:
    def losses(seed: int, *, dropout: float, batch_size: int) -> list[float]:
        recipe = Recipe(epochs=1, batch_size=batch_size, seed=seed)
        return [row["loss"] for row in train(network(dropout), TASK, waves(12), recipe=recipe)]

    assert losses(3, dropout=0.0, batch_size=3)[0] != losses(4, dropout=0.0, batch_size=3)[0]
    # One batch of all samples: only drop-out is left to chance.
    assert losses(3, dropout=0.0, batch_size=12) == pytest.approx(losses(4, dropout=0.0, batch_size=12))
    assert abs(losses(3, dropout=0.5, batch_size=12)[0] - losses(4, dropout=0.5, batch_size=12)[0]) > 1e-3


def test_drop_out_is_another_one_at_every_step_and_in_every_part() -> None:
    dropped: list[list[bool]] = []

    class Dropping(Means):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            dropped.append((nn.functional.dropout(torch.ones(64), 0.5) == 0).tolist())
            return super().forward(x)

    train(Dropping(), TASK, levels(8, 1), recipe=Recipe(epochs=3, batch_size=8, accumulate=2))
    assert len({tuple(pattern) for pattern in dropped}) == len(dropped) == 6


# ---- which weights are kept


def noise(count: int, seed: int) -> ArraySamples:
    """Signals and labels that have nothing to do with each other."""
    return of_signals(
        torch.randn(count, 1, 24, generator=torch.Generator().manual_seed(seed)),
        np.random.default_rng(seed).integers(0, 2, count).tolist(),
    )


def watched(
    model: nn.Module, recipe: Recipe, validation: Samples | None
) -> tuple[list[dict[str, float]], list[dict[str, Tensor]]]:
    """The record of a training, and the weights after every step."""
    after: list[dict[str, Tensor]] = []
    record = train(
        model,
        TASK,
        noise(16, 0),
        recipe=recipe,
        validation=validation,
        report=lambda step, steps, loss: after.append(weights(model)),
    )
    assert len(after) == len(record)
    return record, after


def best_epoch(record: list[dict[str, float]]) -> int:
    """The epoch, from 1, of the highest accuracy, of these the lowest loss, of these the first."""
    scores = [(-row["validation_accuracy"], row["validation_loss"]) for row in record if "validation_loss" in row]
    return scores.index(min(scores)) + 1


def test_without_validation_the_last_weights_are_kept() -> None:
    model = network(dropout=0.1)
    _, after = watched(model, SHORT, None)
    assert differing(weights(model), after[-1]) == []
    assert differing(after[-2], after[-1]) != []
    assert model.training


def test_with_validation_the_weights_of_the_best_epoch_are_kept() -> None:
    model = network()
    record, after = watched(model, Recipe(epochs=8, batch_size=4), noise(15, 2))
    best = best_epoch(record)
    assert best < 8, "the best epoch is the last: the test would pass without keeping it"
    assert differing(weights(model), after[4 * best - 1]) == []


def test_figures_of_validation_are_those_of_the_weights_of_then() -> None:
    validation, model = noise(15, 1), network()
    record, after = watched(model, SHORT, validation)
    for row, state in zip(record, after, strict=True):
        if row["step"] % 4:
            assert set(row) == {"step", "epoch", "loss", "lr", "samples", "seconds"}
            continue
        model.load_state_dict(state)
        outputs = outputs_of(model, validation)
        found = TASK.metrics(outputs, np.asarray(validation.targets))
        assert {name: row[f"validation_{name}"] for name in found} == pytest.approx(found, rel=1e-5)
        assert row["validation_loss"] == pytest.approx(found["log_loss"], rel=1e-5)


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_training_ends_when_the_best_epoch_is_as_long_ago_as_the_patience(patience: int) -> None:
    record, _ = watched(network(), Recipe(epochs=30, batch_size=4, patience=patience), noise(15, 1))
    epochs = len(record) // 4
    assert len(record) == 4 * epochs
    for earlier in range(1, epochs):
        assert earlier - best_epoch(record[: 4 * earlier]) < patience
    assert epochs - best_epoch(record) == patience
    assert epochs < 30


@pytest.mark.parametrize("validated", [False, True])
def test_the_average_of_the_weights_of_all_steps_is_validated_and_kept(validated: bool) -> None:
    # With validation there is one epoch, which is the best.
    model, validation = network(), noise(15, 1)
    expected = {name: value.detach().double() for name, value in copy.deepcopy(model).named_parameters()}
    recipe = Recipe(epochs=1 if validated else 8, batch_size=4, average=0.6)
    record, after = watched(model, recipe, validation if validated else None)
    for step, state in enumerate(after, 1):
        share = min(0.6, (1 + step) / (10 + step))
        expected = {name: share * value + (1 - share) * state[name].double() for name, value in expected.items()}
    found = dict(model.named_parameters())
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach().double(), value, rtol=1e-5, atol=1e-6)
    assert differing(weights(model), after[-1]) == [name for name in after[-1] if name in found]
    if validated:
        loss = TASK.metrics(outputs_of(model, validation), np.asarray(validation.targets))["log_loss"]
        assert record[-1]["validation_loss"] == pytest.approx(loss, rel=1e-5)


# ---- records


def test_the_report_is_called_after_every_step_with_the_losses_of_the_record() -> None:
    reports: list[tuple[int, int, float]] = []
    record = train(network(), TASK, waves(9), recipe=SHORT, report=lambda *values: reports.append(values))
    assert reports == [(step, 9, row["loss"]) for step, row in enumerate(record, 1)]
    assert [row["step"] for row in record] == list(range(1, 10))


def test_the_files_hold_the_record(tmp_path: Path) -> None:
    record = train(network(), TASK, waves(9), recipe=SHORT, validation=waves(4), run=Run(folder=tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    with (tmp_path / "log.csv").open(newline="") as file:
        table = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    assert lines == table == record


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(network(), TASK, waves(8), recipe=SHORT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("every", "steps"), [(2, [4, 6]), (4, [4, 6]), (100, [6])])
def test_checkpoints_come_as_often_as_asked_and_at_the_end(tmp_path: Path, every: int, steps: list[int]) -> None:
    train(network(), TASK, waves(8), recipe=SHORT, run=Run(folder=tmp_path, every=every, keep=2))
    found = list_checkpoints(tmp_path / "checkpoints")
    assert [read_checkpoint(path).state["step"] for path in found] == steps
    assert [path.name for path in found] == [f"step-{step:09d}" for step in steps]


def test_checkpoints_come_by_the_clock_too(tmp_path: Path) -> None:
    train(network(), TASK, waves(8), recipe=SHORT, run=Run(folder=tmp_path, seconds=1e-9, keep=9))
    assert len(list_checkpoints(tmp_path / "checkpoints")) == 6


def test_trackers_of_accelerate_are_told_every_loss(tmp_path: Path) -> None:
    accumulator: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    record = train(network(), TASK, waves(8), recipe=SHORT, run=Run(folder=tmp_path, trackers=("tensorboard",)))
    (events,) = {
        path.parent for path in (tmp_path / "omniconv").rglob("events.out.tfevents.*") if path.parent.name == "omniconv"
    }
    found = accumulator.EventAccumulator(str(events)).Reload().Scalars("loss")
    assert [event.step for event in found] == [row["step"] for row in record]
    assert [event.value for event in found] == pytest.approx([row["loss"] for row in record], rel=1e-6)


# ---- how it is computed changes nothing


def test_who_reads_the_samples_changes_nothing() -> None:
    found = []
    for workers in (0, 1):
        model = network(dropout=0.1)
        recipe = Recipe(epochs=2, batch_size=4, workers=workers)
        record = train(model, TASK, waves(10, ragged=True), recipe=recipe)
        found.append((without_times(record), weights(model)))
    assert found[0][0] == found[1][0]
    assert differing(found[0][1], found[1][1]) == []


def test_compilation_changes_the_losses_by_rounding_alone() -> None:
    losses = [
        [
            row["loss"]
            for row in train(network(), TASK, waves(8), recipe=Recipe(epochs=2, batch_size=4, compile=compile))
        ]
        for compile in (False, True)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_precision_is_that_of_every_training_of_a_process() -> None:
    losses = [
        [row["loss"] for row in train(network(), TASK, waves(8), recipe=Recipe(epochs=2, precision=precision))]
        for precision in ("no", "bf16", "no")
    ]
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


# ---- going on


def run_twice(folder: Path, first: Recipe, second: Recipe, other: Samples | None = None) -> None:
    """Train to a checkpoint, then resume with another recipe or other samples."""
    with pytest.raises(Interrupted, match="reached the time limit of 0 s after step 1 of 6"):
        train(network(), TASK, waves(8), recipe=first, run=Run(folder=folder, time_limit=0))
    train(network(), TASK, other or waves(8), recipe=second, run=Run(folder=folder, resume=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.02}, "lr: 0.01 before, 0.02 now"),
        ({"epochs": 4}, "epochs: 3 before, 4 now"),
        ({"average": 0.5}, "average: 0.0 before, 0.5 now"),
        ({"seed": 1}, "seed: 0 before, 1 now"),
        ({"batch_size": 2}, "batch_of_all_processes: 4 before, 2 now"),
    ],
)
def test_a_run_goes_on_with_its_own_recipe_only(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    recipe = Recipe(**{"epochs": 3, "batch_size": 4, **change})
    with pytest.raises(ValueError, match=re.escape(f"the checkpoint belongs to another run ({message})")):
        run_twice(tmp_path, SHORT, recipe)


@pytest.mark.parametrize("other", ["targets", "sizes", "fewer"])
def test_a_run_goes_on_with_its_own_data_only(tmp_path: Path, other: str) -> None:
    labels = np.array(TASK.classes)[[1, 0] * 4]
    data = {
        "targets": ArraySamples([waves(8)[i] for i in range(8)], labels),
        "sizes": waves(8, ragged=True),
        "fewer": waves(7),
    }[other]
    with pytest.raises(ValueError, match=r"the checkpoint belongs to another run \(samples: '"):
        run_twice(tmp_path, SHORT, SHORT, data)


def test_workers_and_where_it_runs_may_change(tmp_path: Path) -> None:
    run_twice(tmp_path, SHORT, Recipe(epochs=3, batch_size=4, workers=1))
    assert read_latest(tmp_path / "checkpoints").state["step"] == 6


@pytest.mark.parametrize("every", [1, 100])
def test_a_run_that_is_stopped_at_every_step_gives_the_bits_of_one_that_is_not(tmp_path: Path, every: int) -> None:
    recipe = Recipe(epochs=3, batch_size=4, average=0.8, patience=2)
    found = []
    for limit in (None, 0.0):
        folder, record, told = tmp_path / str(limit), list[dict[str, float]](), list[str]()
        for _ in range(20):
            model = network(dropout=0.3)
            run = Run(folder=folder, resume=True, time_limit=limit, every=every)
            try:
                record = train(model, TASK, noise(10, 0), recipe=recipe, validation=noise(9, 1), run=run)
            except Interrupted as stopped:
                told.append(str(stopped))
            else:
                break
        assert record
        assert all(f"A checkpoint is in {folder}; resume to go on: " in message for message in told)
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        found.append((without_times(lines), weights(model)))
    assert found[0][0] == found[1][0]
    assert differing(found[0][1], found[1][1]) == []


def test_a_finished_run_that_is_resumed_has_the_weights_it_ended_with(tmp_path: Path) -> None:
    recipe, first, second = Recipe(epochs=3, batch_size=4, average=0.8), network(), network()
    train(first, TASK, waves(8), recipe=recipe, run=Run(folder=tmp_path))
    record = train(second, TASK, waves(8), recipe=recipe, run=Run(folder=tmp_path, resume=True))
    assert [row["step"] for row in record] == [1, 2, 3, 4, 5, 6]
    assert differing(weights(first), weights(second)) == []
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 6


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    recipe, first, second = Recipe(epochs=3, batch_size=4, average=0.8), network(0.1), network(0.1)
    train(first, TASK, waves(8), recipe=recipe, run=Run(folder=tmp_path, every=2))
    newest = list_checkpoints(tmp_path / "checkpoints")[-1]
    (newest / "tensors.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match=f"{newest} is damaged"):
        record = train(second, TASK, waves(8), recipe=recipe, run=Run(folder=tmp_path, every=2, resume=True))
    assert [row["step"] for row in record] == [1, 2, 3, 4, 5, 6]
    assert differing(weights(first), weights(second)) == []


def test_resuming_where_there_is_nothing_begins(tmp_path: Path) -> None:
    record = train(network(), TASK, waves(8), recipe=SHORT, run=Run(folder=tmp_path, resume=True))
    assert [row["step"] for row in record] == [1, 2, 3, 4, 5, 6]


def test_a_run_without_a_folder_stops_at_its_limit_too() -> None:
    with pytest.raises(Interrupted, match=r"^reached the time limit of 0 s after step 1 of 6\.$"):
        train(network(), TASK, waves(8), recipe=SHORT, run=Run(time_limit=0))


# ---- numbers that are not finite


def spoilt(index: int) -> tuple[ArraySamples, int]:
    """Samples of which one has a NaN, and the step that meets it, from 1."""
    signals = torch.stack([torch.from_numpy(waves(12)[i]) for i in range(12)])
    signals[index, 0, 3] = math.nan
    samples = of_signals(signals, [0, 1] * 6)
    batches = by_epoch(4, samples).epoch(0)
    return samples, next(step for step, batch in enumerate(batches, 1) if index in batch)


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("index", [0, 5, 11])
def test_a_bad_sample_stops_the_step_that_meets_it_and_its_batch_is_kept(
    tmp_path: Path, index: int, accumulate: int
) -> None:
    samples, step = spoilt(index)
    model = network()
    recipe = Recipe(epochs=2, batch_size=4, accumulate=accumulate)
    told = rf"the loss is nan at step {step}; it begins with sample {index} of the training data\. The batch is kept in"
    with pytest.raises(NonFiniteError, match=told) as caught:
        train(model, TASK, samples, recipe=recipe, run=Run(folder=tmp_path))
    kept = read_checkpoint(tmp_path / "nonfinite-0" / f"step-{step:09d}")
    assert str(tmp_path / "nonfinite-0" / f"step-{step:09d}") in str(caught.value)
    assert index in kept.tensors["indices"].tolist()
    for row, signal in zip(kept.tensors["indices"].tolist(), kept.tensors["signals"], strict=True):
        np.testing.assert_array_equal(signal.numpy(), samples[row])
    assert kept.state["step"] == step
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, step))


def test_without_a_folder_the_message_names_the_samples_of_the_batch() -> None:
    samples, step = spoilt(5)
    batch = by_epoch(4, samples).epoch(0)[step - 1].tolist()
    with pytest.raises(NonFiniteError, match=re.escape(f"The batch holds the samples {batch}. Look at these")):
        train(network(), TASK, samples, recipe=SHORT)


@pytest.mark.parametrize("name", ["stem.mixer", "blocks.0.linear", "head.readout"])
def test_a_layer_that_overflows_is_named(name: str) -> None:
    model = network()
    with torch.no_grad():
        weight = model.get_parameter(f"{name}.weight")
        weight.fill_(3e38)[0] = -3e38
    loud = ArraySamples([1e3 * waves(8)[i] for i in range(8)], waves(8).targets)
    told = rf"the loss is (nan|inf) at step 1; it begins with the output of layer '{name}'\."
    with pytest.raises(NonFiniteError, match=told):
        train(model, TASK, loud, recipe=SHORT)


class BadGradient(Means):
    """Finite outputs, and from the given call on a gradient that is not: that of the root at 0."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))
        self.calls, self.bad = 0, call

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        self.calls += 1
        outputs = super().forward(x)
        return outputs + (self.zero * 0).sqrt() if self.calls == self.bad else outputs + 0 * self.zero


def test_a_bad_gradient_stops_before_it_reaches_the_weights(tmp_path: Path) -> None:
    model, after = BadGradient(call=3), list[dict[str, Tensor]]()
    told = "the gradient is not finite at step 3; it begins with the gradient of 'zero'"
    with pytest.raises(NonFiniteError, match=told):
        train(
            model,
            TASK,
            waves(8),
            recipe=SHORT,
            run=Run(folder=tmp_path),
            report=lambda step, steps, loss: after.append(weights(model)),
        )
    assert len(after) == 2
    assert differing(weights(model), after[-1]) == []
    kept = read_checkpoint(tmp_path / "nonfinite-0" / "step-000000003")
    assert kept.tensors["indices"].tolist() == by_epoch(4, waves(8)).epoch(1)[0].tolist()


# ---- what is refused


def test_samples_without_targets_are_refused() -> None:
    unlabelled = ArraySamples(np.zeros((4, 1, 24)))
    with pytest.raises(ValueError, match="`samples` must have targets to learn from"):
        train(network(), TASK, unlabelled)
    with pytest.raises(ValueError, match="`validation` must have targets to learn from"):
        train(network(), TASK, waves(4), validation=unlabelled)


def test_more_parts_than_samples_are_refused() -> None:
    told = r"a batch of 3 of the 3 samples is less than one per process and part \(4\)\. Lower `accumulate`"
    with pytest.raises(ValueError, match=told):
        train(network(), TASK, waves(3), recipe=Recipe(batch_size=4, accumulate=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "`every` must be at least 1; got 0"),
        ({"keep": 0}, "`keep` must be at least 1; got 0"),
        ({"seconds": 0.0}, "`seconds` must be finite and above 0; got 0.0"),
        ({"time_limit": -1.0}, "`time_limit` must be finite and at least 0; got -1.0"),
    ],
)
def test_a_run_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Run(folder=Path("a"), **options)


@pytest.mark.parametrize("options", [{"resume": True}, {"every": 3}, {"trackers": ("tensorboard",)}])
def test_options_of_a_folder_without_one_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`resume`, `every` and `trackers` need a `folder`"):
        Run(**options)


def test_patience_without_validation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`patience` \(=2\) needs `validation` samples"):
        train(network(), TASK, waves(8), recipe=Recipe(patience=2))


def test_a_folder_with_a_run_is_not_trained_into_without_resuming(tmp_path: Path) -> None:
    train(network(), TASK, waves(8), recipe=SHORT, run=Run(folder=tmp_path))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="holds a run already"):
        train(network(), TASK, waves(8), recipe=SHORT, run=Run(folder=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_newest_checkpoint_does_not_push_out_sound_ones(tmp_path: Path) -> None:
    recipe = Recipe(epochs=5, batch_size=4)
    train(network(), TASK, waves(8), recipe=recipe, run=Run(folder=tmp_path, every=5))
    (tmp_path / "checkpoints" / "step-000000010" / "state.json").write_text("{}")

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 7:
            raise KeyboardInterrupt

    run = Run(folder=tmp_path, resume=True, every=1, keep=1)
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(KeyboardInterrupt):
        train(network(), TASK, waves(8), recipe=recipe, run=run, report=stop)
    assert read_latest(tmp_path / "checkpoints").state["step"] == 6


def test_numbers_and_labels_of_numpy_can_be_saved(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {"epochs": np.int64(1), "batch_size": np.int32(4), "lr": np.float32(0.01)}
    samples = ArraySamples(np.zeros((4, 1, 24)), np.array([3, 5, 3, 5]))
    task = Classification(tuple(np.unique([3, 5])))
    train(network(), task, samples, recipe=Recipe(**numbers), run=Run(folder=tmp_path))
    assert read_latest(tmp_path / "checkpoints").state["step"] == 1


def test_validation_samples_that_are_not_finite_are_named() -> None:
    signals = waves(4)
    spoilt = [signals[index] for index in range(4)]
    spoilt[2][0, 3] = np.nan
    held_out = ArraySamples(spoilt, signals.targets, names=["a", "b", "c", "d"])
    with pytest.raises(NonFiniteError, match="outputs for 1 of 4 samples are not finite, first for c"):
        train(network(), TASK, waves(8), recipe=SHORT, validation=held_out)


def test_losses_fall_on_average_over_the_run() -> None:
    record = train(network(0.1), TASK, waves(32, ragged=True), recipe=Recipe(epochs=8, batch_size=8))
    means = [np.mean([row["loss"] for row in record if row["epoch"] in (epoch, epoch + 1)]) for epoch in (0, 3, 6)]
    assert all(after < before for before, after in pairwise(means))
