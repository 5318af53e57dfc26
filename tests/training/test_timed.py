"""Training and prediction on series that were sampled at any times."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from omniconv import CCNN
from omniconv._errors import NonFiniteError
from omniconv.data import ArraySamples, TimedSamples, without_gaps
from omniconv.training import Architecture, Predictor, Recipe, Run, fit, infer_task, outputs_of, train
from omniconv.training.batches import Batch, Signals, collate
from omniconv.training.checkpoints import read_checkpoint
from omniconv.training.diagnosis import first_bad_part
from omniconv.training.fitting import reference_grid, split, statistics
from omniconv.training.loading import loader
from omniconv.training.objective import Objective
from tests.training.makers import TASK, differing, network, waves, weights

Array = NDArray[Any]

NAN = np.nan
SMALL = Architecture(blocks=1, width=4)
SHORT = Recipe(epochs=2, batch_size=4)


def timed(
    count: int = 12, *, seed: int = 0, gaps: float = 0.2, factor: float = 1.0, shift: float = 0.0
) -> TimedSamples:
    """Two channels of slow or fast waves with noise, at irregular times; a share of the values was not observed."""
    random = np.random.default_rng(seed)
    labels, signals, times = np.arange(count) % 2, [], []
    for label in labels:
        when = np.cumsum(random.uniform(0.2, 1.8, random.integers(9, 17)))
        wave = np.sin(2 * np.pi * when / (3, 12)[label] + random.uniform(0, 6, (2, 1)))
        wave += 0.1 * random.standard_normal(wave.shape)
        seen = random.random(wave.shape) >= gaps
        seen[:, 0] = True
        signals.append(np.where(seen, wave, NAN).astype(np.float32))
        times.append(when * factor + shift)
    return TimedSamples(ArraySamples(signals, np.array(TASK.classes)[labels]), times)


def small_predictor(samples: TimedSamples, **options: Any) -> Predictor:
    return fit(samples, TASK, dataclasses.replace(SMALL, **options), SHORT)


# ---- batches


def item(signal: Any, times: Any, index: int = 0) -> tuple[Array, int, Array]:
    return np.array(signal, np.float32), index, np.array(times, np.float64)


def test_what_is_nan_is_masked_per_channel_and_becomes_zero() -> None:
    first = item([[1.0, NAN, 3.0], [NAN, 5.0, 6.0]], [0.0, 0.5, 4.0], 7)
    second = item([[1.5, 2.5], [NAN, 3.5]], [1e9, 1e9 + 0.25], 3)
    batch = collate([first, second])
    assert batch.mask is not None
    assert batch.times is not None
    assert batch.indices.tolist() == [7, 3]
    assert batch.signals.dtype == torch.float32
    assert batch.signals.tolist() == [[[1, 0, 3], [0, 5, 6]], [[1.5, 2.5, 0], [0, 3.5, 0]]]
    assert batch.mask.int().tolist() == [[[1, 0, 1], [0, 1, 1]], [[1, 1, 0], [0, 1, 0]]]
    assert batch.times.dtype == torch.float64
    assert batch.times[0].tolist() == [0, 0.5, 4]
    assert batch.times[1, :2].tolist() == [1e9, 1e9 + 0.25]


def test_series_of_one_length_with_times_have_a_mask_all_the_same() -> None:
    batch = collate([item([[1.0, NAN]], [0, 1]), item([[3.0, 4.0]], [5, 9])])
    assert batch.mask is not None
    assert batch.times is not None
    assert batch.mask.int().tolist() == [[[1, 0]], [[1, 1]]]
    assert batch.times.tolist() == [[0, 1], [5, 9]]


def test_steps_at_which_nothing_was_observed_are_left_out() -> None:
    signal = np.array([[NAN, 1.0, NAN, 2.0, NAN], [NAN, NAN, NAN, 3.0, 4.0]])
    signals = Signals(TimedSamples(ArraySamples([signal]), [[0, 1, 2, 4, 8]]))
    found, index, times = signals[0]
    assert times is not None
    assert (index, times.tolist()) == (0, [1, 4, 8])
    np.testing.assert_array_equal(found, [[1, 2, NAN], [NAN, 3, 4]])


def test_a_series_without_any_observed_value_is_named() -> None:
    samples = ArraySamples(np.full((1, 2, 3), NAN), names=["tide"])
    with pytest.raises(ValueError, match=r"series tide has no observed value\. Remove it\."):
        Signals(TimedSamples(samples))[0]


def test_signals_without_times_are_given_as_they_are() -> None:
    found, _, times = Signals(ArraySamples(np.array([[[1.0, NAN]]])))[0]
    assert times is None
    np.testing.assert_array_equal(found, [[1, NAN]])


def test_options_are_what_a_batch_has_beside_its_signals() -> None:
    x, mask, times = torch.zeros(1, 1, 2), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2)
    assert Batch(x, None, torch.tensor([0])).options == {}
    assert Batch(x, mask, torch.tensor([0])).options == {"mask": mask}
    found = Batch(x, mask, torch.tensor([0]), times).options
    assert found.keys() == {"mask", "times"}
    assert found["mask"] is mask
    assert found["times"] is times


def test_a_batch_moves_with_its_times() -> None:
    batch = collate([item([[1.0, 2.0]], [0, 1])])
    moved = batch.to(torch.device("meta"))
    assert {name: value.device.type for name, value in moved.options.items()} == {"mask": "meta", "times": "meta"}
    assert moved.signals.device.type == "meta"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_every_series_with_its_times(workers: int) -> None:
    samples = timed(5)
    for batch in loader(samples, [[2, 0], [4, 1, 3]], workers):
        assert batch.mask is not None
        assert batch.times is not None
        for row, index in enumerate(batch.indices.tolist()):
            signal = samples[index]
            kept = ~np.isnan(signal).all(0)
            count = int(kept.sum())
            mask = batch.mask[row].numpy()
            np.testing.assert_array_equal(mask[:, :count], ~np.isnan(signal[:, kept]))
            assert not mask[:, count:].any()
            np.testing.assert_array_equal(batch.times[row, :count].numpy(), samples.times[index][kept])
            np.testing.assert_array_equal(batch.signals[row].numpy()[:, :count], np.nan_to_num(signal[:, kept]))


# ---- statistics


@pytest.mark.parametrize("shift", [0.0, 1e5])
@pytest.mark.parametrize("first", [False, True])
def test_statistics_are_those_of_what_was_observed(shift: float, first: bool) -> None:
    random = np.random.default_rng(0)
    far = np.array([[shift], [-3.0]])
    signals = [(random.standard_normal((2, n)) + far).astype(np.float32) for n in (9, 5, 14)]
    for signal in signals:
        signal[random.random(signal.shape) < 0.3] = NAN
    signals[0][:, 0] = NAN if first else 1.0
    if first:
        signals[0][0] = NAN  # of the first series nothing at all is known of one channel
    together = np.concatenate(signals, axis=1).astype(np.float64)
    mean, std = statistics(TimedSamples(ArraySamples(signals)))
    np.testing.assert_allclose(mean, np.nanmean(together, axis=1), rtol=1e-12)
    np.testing.assert_allclose(std, np.nanstd(together, axis=1), rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_a_constant_channel_has_deviation_one_wherever_it_was_observed(value: float) -> None:
    signals = np.random.default_rng(0).random((7, 2, 13), dtype=np.float32)
    signals[:, 1] = value
    signals[0, :, :5] = signals[2:, 1, 3] = NAN
    mean, std = statistics(TimedSamples(ArraySamples(signals)))
    assert std[1] == 1.0
    assert mean[1] == pytest.approx(np.float32(value), rel=1e-12)


def test_a_channel_that_is_never_observed_is_named() -> None:
    signals = np.ones((3, 3, 4))
    signals[:, 1] = NAN
    with pytest.raises(ValueError, match=r"channel 1 is not observed in any of the samples\. Remove it"):
        statistics(TimedSamples(ArraySamples(signals)))


def test_infinity_is_no_missing_value() -> None:
    signals = np.ones((3, 1, 4))
    signals[1, 0, 2] = np.inf
    with pytest.raises(ValueError, match="sample '1' has values that are NaN or infinite"):
        statistics(TimedSamples(ArraySamples(signals)))


# ---- the reference grid


def series(*lengths: int) -> ArraySamples:
    return ArraySamples([np.ones((1, length)) for length in lengths])


@pytest.mark.parametrize(
    ("gap", "start"), [(1.0, 0.0), (0.1, 0.0), (1e-3, -5.0), (86400.0, 1.7e9), (0.1, 1.7e9), (1 / 3, 7.0)]
)
@pytest.mark.parametrize("length", [2, 7, 100])
def test_regular_times_in_any_unit_are_the_grid_itself(gap: float, start: float, length: int) -> None:
    samples = TimedSamples(series(*[length] * 4), [start + (gap * np.arange(length) + number) for number in range(4)])
    size, span = reference_grid(samples)
    assert size == (length,)
    assert span == pytest.approx(length * gap, rel=1e-5)


def test_the_grid_of_regular_times_is_as_long_as_the_longest_series() -> None:
    samples = TimedSamples(series(5, 12, 3), [2.0 * np.arange(5), 2.0 * np.arange(12), 2.0 * np.arange(3) + 9])
    assert reference_grid(samples) == ((12,), 24.0)


def test_irregular_times_are_as_many_mean_gaps_as_the_longest_series_takes() -> None:
    samples = TimedSamples(series(3, 4), [[0, 1, 6], [10, 11, 12, 13]])  # 5 gaps in 6 + 3 units of time: 1.8 each
    size, span = reference_grid(samples)
    assert size == (5,)  # 6 / 1.8 = 3.3: 4 gaps, 5 samples
    assert span == pytest.approx(5 * 1.8)


def test_steps_without_a_value_are_no_samples_of_the_grid() -> None:
    signal = np.ones((1, 9))
    signal[:, 1::2] = NAN
    assert reference_grid(TimedSamples(ArraySamples([signal]))) == ((5,), 10.0)


def test_one_instant_is_a_grid_of_one_sample() -> None:
    assert reference_grid(TimedSamples(series(1, 1), [[3], [7]])) == ((1,), 1.0)


def test_without_times_the_grid_is_the_largest_size() -> None:
    assert reference_grid(series(5, 12, 3)) == ((12,), None)
    assert reference_grid(ArraySamples(np.ones((2, 1, 4, 6)))) == ((4, 6), None)


# ---- training


def test_training_at_times_learns() -> None:
    samples, unseen = timed(40), timed(40, seed=1)
    predictor = fit(samples, TASK, Architecture(blocks=1, width=8), Recipe(epochs=10, batch_size=8))
    size, span = reference_grid(samples)
    assert (predictor.model.grid.size, predictor.model.span) == (size, span)
    assert predictor.evaluate(unseen)["accuracy"] > 0.9
    assert predictor.about["times"] == "given"


def test_a_number_is_learned_at_times_too() -> None:
    samples = timed(8)
    samples.targets = np.linspace(5, 6.5, 8)
    predictor = fit(samples, infer_task(samples.targets, name="regression"), SMALL, SHORT)
    assert np.isfinite(predictor.predict(samples)).all()


@pytest.mark.parametrize("options", [{}, {"causal": True, "head": "last"}])
def test_the_unit_of_the_times_and_their_origin_do_not_matter(options: dict[str, Any]) -> None:
    plain, other = timed(), timed(factor=1000.0, shift=5.0)
    one, two = small_predictor(plain, **options), small_predictor(other, **options)
    assert one.model.grid.size == two.model.grid.size
    assert isinstance(one.model.span, float)
    assert two.model.span == pytest.approx(1000 * one.model.span)
    torch.testing.assert_close(two.outputs(other), one.outputs(plain), rtol=1e-5, atol=1e-5)


def test_regular_times_train_the_network_that_no_times_train() -> None:
    """Equal losses, and equal outputs where the batch is what normalises.

    Not equal running means: biases in front of a batch norm have gradients of zero up to rounding, of which Adam makes
    steps of `lr`. The norm takes them away again, and its running means follow later.
    """
    samples = waves(8, ragged=True, noise=0.2)
    regular = TimedSamples(samples, [0.25 * np.arange(length) + 3 for length in samples.sizes[:, 0]])
    architecture = dataclasses.replace(SMALL, dropout=0.0)
    losses: list[float] = []
    found = []
    for each in (samples, regular):
        predictor = fit(each, TASK, architecture, SHORT, report=lambda step, steps, loss: losses.append(loss))
        batch = collate([Signals(each)[index] for index in range(8)])
        found.append(predictor.model.train()(batch.signals, **batch.options))
        assert predictor.model.grid.size == (int(samples.sizes.max()),)
    assert len(losses) == 2 * 4
    np.testing.assert_allclose(losses[4:], losses[:4], rtol=1e-5)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"causal": True, "head": "last"}])
def test_at_regular_times_a_network_predicts_what_it_predicts_without_times(options: dict[str, Any]) -> None:
    samples = waves(7, ragged=True, noise=0.2)
    regular = TimedSamples(samples, [0.25 * np.arange(length) + 3 for length in samples.sizes[:, 0]])
    timed_one = fit(regular, TASK, dataclasses.replace(SMALL, **options), SHORT)
    arguments = {name: value for name, value in timed_one.model.arguments.items() if name != "span"}
    plain = CCNN(**arguments).eval()
    plain.load_state_dict(timed_one.model.state_dict())
    expected = Predictor(plain, TASK).outputs(samples)
    torch.testing.assert_close(timed_one.outputs(regular), expected, rtol=1e-9, atol=1e-9)


def test_a_validation_split_keeps_the_times() -> None:
    samples = timed(12)
    for part in split(samples, TASK, 0.25, seed=0):
        assert part.times is not None
        for name, times in zip(part.names, part.times, strict=True):
            np.testing.assert_array_equal(times, samples.times[int(name)])
    predictor = fit(samples, TASK, SMALL, SHORT, validation=0.25)
    assert predictor.about["training_samples"] == 9
    assert predictor.outputs(samples).isfinite().all()


def test_a_run_at_times_that_is_broken_off_ends_with_the_same_bits(tmp_path: Path) -> None:
    samples, recipe = timed(8), dataclasses.replace(SHORT, epochs=3)
    whole = fit(samples, TASK, SMALL, recipe)

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 4:
            raise KeyboardInterrupt

    run = Run(folder=tmp_path, every=1)
    with pytest.raises(KeyboardInterrupt):
        fit(samples, TASK, SMALL, recipe, run=run, report=stop)
    steps: list[int] = []
    resumed = dataclasses.replace(run, resume=True)
    again = fit(samples, TASK, SMALL, recipe, run=resumed, report=lambda step, steps_in_all, loss: steps.append(step))
    assert steps[0] > 1
    assert steps[-1] == 6
    assert differing(weights(again.model), weights(whole.model)) == []


# ---- what a prediction depends on


@pytest.mark.parametrize("options", [{}, {"causal": True, "head": "last"}])
def test_a_prediction_does_not_depend_on_the_company(options: dict[str, Any]) -> None:
    samples = timed(9)
    predictor = small_predictor(samples, **options)
    together = predictor.outputs(samples)
    for index in range(9):
        alone = predictor.outputs(samples.subset([index]))[0]
        torch.testing.assert_close(alone, together[index], rtol=1e-10, atol=1e-10)
    regular = TimedSamples(ArraySamples([np.ones((2, 7)) * np.arange(7)] * 2), [np.arange(7), 0.5 * np.arange(7)])
    mixed = TimedSamples(
        ArraySamples([samples[0], regular[0], regular[1]]), [samples.times[0], regular.times[0], regular.times[1]]
    )
    for row in range(3):  # some of these lie on a lattice, all together do not
        alone = predictor.outputs(mixed.subset([row]))[0]
        torch.testing.assert_close(alone, predictor.outputs(mixed)[row], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shift", [0.0, 1.7e9])
@pytest.mark.parametrize("jitter", [0.0, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8])
def test_times_that_are_regular_but_for_rounding_are_regular_in_any_company(shift: float, jitter: float) -> None:
    """As numbers in seconds since 1970 are: in float64 they are rounded to 2.4e-7."""
    samples, random = waves(6, ragged=True, noise=0.2), np.random.default_rng(0)
    exact = TimedSamples(samples, [0.1 * np.arange(length) for length in samples.sizes[:, 0]])
    predictor = small_predictor(exact)
    rounded = TimedSamples(samples, [shift + at + jitter * random.standard_normal(len(at)) for at in exact.times])
    together = predictor.outputs(rounded)
    torch.testing.assert_close(together, predictor.outputs(exact), rtol=1e-5, atol=1e-5)
    for index in range(6):
        alone = predictor.outputs(rounded.subset([index]))[0]
        torch.testing.assert_close(alone, together[index], rtol=1e-6, atol=1e-6)


def test_a_step_without_any_value_changes_nothing() -> None:
    samples = timed(4)
    predictor = small_predictor(samples)
    signals, times = [], []
    for index in range(4):
        when = samples.times[index]
        between = (when[1:] + when[:-1]) / 2
        order = np.argsort(np.concatenate([when, between, [when[-1] + 100]]))
        nothing = np.full((2, len(between) + 1), NAN, np.float32)
        signals.append(np.concatenate([samples[index], nothing], axis=1)[:, order])
        times.append(np.concatenate([when, between, [when[-1] + 100]])[order])
    more = TimedSamples(ArraySamples(signals), times)
    torch.testing.assert_close(predictor.outputs(more), predictor.outputs(samples), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("filling", [1e3, NAN, np.inf])
def test_what_was_not_observed_may_be_anything(filling: float) -> None:
    samples = timed(6)
    model = small_predictor(samples).model.double()
    batch = collate([Signals(samples)[index] for index in range(6)])
    assert batch.mask is not None
    assert not batch.mask.all()
    expected = model(batch.signals.double(), **batch.options)
    spoilt = torch.where(batch.mask, batch.signals.double(), filling)
    torch.testing.assert_close(model(spoilt, **batch.options), expected, rtol=1e-12, atol=1e-12)


def test_the_objective_gives_the_network_its_times() -> None:
    samples = timed(4)
    model = small_predictor(samples).model
    batch = collate([Signals(samples)[index] for index in range(4)])
    expected = model(batch.signals, mask=batch.mask, times=batch.times)
    assert torch.equal(Objective(model, TASK)(batch.signals, batch.mask, None, batch.times), expected)
    losses, _ = Objective(model, TASK)(batch.signals, batch.mask, torch.tensor([0, 1, 0, 1]), batch.times)
    logs = expected.log_softmax(1)
    torch.testing.assert_close(losses, -(logs[0, 0] + logs[1, 1] + logs[2, 0] + logs[3, 1]))


def test_outputs_are_those_of_the_network_at_the_times_of_each_series() -> None:
    samples = timed(5)
    model = small_predictor(samples).model.double()
    expected = []
    for index in range(5):
        signal = torch.from_numpy(samples[index])[None].double()
        seen = ~signal.isnan()
        times = torch.from_numpy(samples.times[index])[None]
        with torch.no_grad():
            expected.append(model(signal.nan_to_num(), mask=seen, times=times))
    found = outputs_of(model, samples, batch_size=2)
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-10, atol=1e-10)


# ---- where a number stopped being finite


def timed_batch(samples: TimedSamples) -> Batch:
    return collate([Signals(samples)[index] for index in range(len(samples))])


def test_a_bad_value_is_found_where_its_channel_was_observed() -> None:
    samples = timed(3)
    model, batch = small_predictor(samples).model, timed_batch(samples)
    assert batch.mask is not None
    row, channel, step = (~batch.mask).nonzero()[0].tolist()
    batch.signals[row, channel, step] = NAN
    assert first_bad_part(model, batch, samples.names).startswith("the loss itself")
    channel, step = batch.mask[2].nonzero()[-1].tolist()
    batch.signals[2, channel, step] = torch.inf
    assert first_bad_part(model, batch, samples.names) == "sample 2 of the training data"


def test_the_first_layer_that_overflows_at_times_is_named() -> None:
    samples = timed(3)
    model, batch = small_predictor(samples).model, timed_batch(samples)
    with torch.no_grad():
        model.get_parameter("blocks.0.linear.weight").fill_(3e38).view(-1)[0] = -3e38
    assert first_bad_part(model, batch, samples.names) == "the output of layer 'blocks.0.linear'"


def test_a_batch_that_is_kept_keeps_its_times(tmp_path: Path) -> None:
    samples = timed(8)
    model = small_predictor(samples).model
    signals = [samples[index] for index in range(8)]
    signals[3][0, 0] = np.inf
    spoilt = TimedSamples(ArraySamples(signals, samples.targets), samples.times)
    with pytest.raises(NonFiniteError, match="it begins with sample 3 of the training data"):
        train(model, TASK, spoilt, recipe=Recipe(epochs=1, batch_size=8), run=Run(folder=tmp_path))
    kept = read_checkpoint(tmp_path / "nonfinite-0" / "step-000000001").tensors
    assert kept["mask"].shape == kept["signals"].shape
    row = kept["indices"].tolist().index(3)
    seen = ~np.isnan(signals[3]).all(0)
    np.testing.assert_array_equal(kept["times"][row, : seen.sum()].numpy(), samples.times[3][seen])


# ---- what is saved, and what a network takes


def test_a_loaded_network_knows_the_unit_of_its_times(tmp_path: Path) -> None:
    samples = timed(6, factor=60.0)
    before = small_predictor(samples)
    before.save(tmp_path)
    after = Predictor.load(tmp_path, device="cpu")
    assert after.model.span == before.model.span
    assert after.about == before.about
    assert torch.equal(after.outputs(samples), before.outputs(samples))


@pytest.mark.parametrize("loaded", [False, True])
def test_a_network_that_was_trained_with_times_needs_times(loaded: bool, tmp_path: Path) -> None:
    samples = timed(6)
    predictor = small_predictor(samples)
    if loaded:
        predictor.save(tmp_path)
        predictor = Predictor.load(tmp_path, device="cpu")
    bare = ArraySamples([samples[index] for index in range(6)])
    message = "was trained on series with times; got samples without. Give their times"
    for without in (bare, without_gaps(bare, "absent"), without_gaps(bare, "absent").subset([2, 1])):
        with pytest.raises(ValueError, match=message):
            predictor.check(without)
        with pytest.raises(ValueError, match=message):
            predictor.outputs(without)
    predictor.check(samples)
    predictor.check(samples.subset([1]))


def test_a_network_that_counted_its_samples_goes_on_counting() -> None:
    bare = ArraySamples([timed(6)[index] for index in range(6)], timed(6).targets)
    counted = without_gaps(bare, "absent")
    predictor = fit(counted, TASK, SMALL, SHORT)
    assert predictor.about["times"] == "counted"
    predictor.check(counted)
    with pytest.raises(ValueError, match="got samples without"):
        predictor.check(bare)
    with pytest.raises(ValueError, match="without times, and counts their samples; got samples with times"):
        predictor.check(TimedSamples(bare, [np.arange(length) for length in bare.sizes[:, 0]]))


def test_counted_samples_at_another_rate_take_another_time() -> None:
    bare = ArraySamples([timed(6)[index] for index in range(6)], timed(6).targets)
    bare.rate = 100.0
    predictor = fit(without_gaps(bare, "absent"), TASK, SMALL, SHORT)
    every = predictor.outputs(without_gaps(bare, "absent"))
    half = ArraySamples([bare[index][:, ::2] for index in range(6)], bare.targets)
    half.rate = 50.0
    sparse = ArraySamples([bare[index].copy() for index in range(6)], bare.targets)
    for signal in sparse.signals:
        signal[:, 1::2] = np.nan
    expected = predictor.outputs(without_gaps(sparse, "absent"))
    torch.testing.assert_close(predictor.outputs(without_gaps(half, "absent")), expected)
    assert not torch.allclose(expected, every)


def test_a_span_beyond_all_sampling_is_refused() -> None:
    times = [np.arange(3.0) for _ in range(300)]
    times[2] = np.array([0.0, 1.0, 1e9])
    samples = TimedSamples(ArraySamples(np.zeros((300, 1, 3))), times)
    with pytest.raises(ValueError, match=r"series 2 lasts 1e\+09.*Check its times, or split it"):
        reference_grid(samples)


@pytest.mark.parametrize("options", [{"tokens": 5}, {"head": "dense"}])
def test_a_predictor_takes_signals_and_gives_one_target_each(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='`model` must take signals and have head="pool" or "last"'):
        Predictor(CCNN(1, 2, 9, blocks=1, width=3, **options), TASK)


def test_a_network_that_was_trained_without_times_counts_samples() -> None:
    predictor = Predictor(network().eval(), TASK)
    samples = waves(5, ragged=True)
    predictor.check(samples)
    counted = without_gaps(samples, "absent")
    torch.testing.assert_close(predictor.outputs(counted), predictor.outputs(samples), rtol=1e-9, atol=1e-9)
    assert isinstance(predictor.model, CCNN)
    assert predictor.model.span is None
    assert fit(samples, TASK, SMALL, Recipe(epochs=1)).about["times"] is None
