from __future__ import annotations

import math
from itertools import chain, product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from omniconv.data import ArraySamples
from omniconv.training.batches import BatchPlan, StepSampler, collate, evaluation_batches, pad


def sizes(count: int, *, dim: int = 1, ragged: bool = True) -> NDArray[Any]:
    random = np.random.default_rng(count)
    return random.integers(4, 40, (count, dim)) if ragged else np.full((count, dim), 7)


def plan(count: int = 50, batch_size: int = 8, *, seed: int = 0, ragged: bool = True) -> BatchPlan:
    return BatchPlan(sizes(count, ragged=ragged), batch_size, seed)


def steps(sampler: StepSampler) -> list[list[list[int]]]:
    """What a sampler gives, the parts of each step together."""
    parts = list(sampler)
    assert len(parts) == len(sampler)
    return [parts[start : start + sampler.parts] for start in range(0, len(parts), sampler.parts)]


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (7, 1), (7, 7), (7, 100), (50, 8), (33, 16), (1000, 10)])
@pytest.mark.parametrize("ragged", [False, True])
def test_an_epoch_has_every_sample_once_in_batches_that_are_nearly_equal(
    count: int, batch_size: int, ragged: bool
) -> None:
    found = plan(count, batch_size, ragged=ragged)
    for epoch in range(3):
        batches = found.epoch(epoch)
        assert sorted(chain(*batches)) == list(range(count))
        lengths = [len(batch) for batch in batches]
        assert len(batches) == found.batches == math.ceil(count / batch_size)
        assert max(lengths) <= batch_size
        assert max(lengths) - min(lengths) <= 1
        assert found.counts(epoch) == lengths


def test_the_batches_are_a_function_of_seed_and_epoch() -> None:
    first, again, other = plan(seed=3), plan(seed=3), plan(seed=4)
    np.random.seed(0)  # noqa: NPY002, the global state must not matter
    epochs = [tuple(chain(*found.epoch(epoch))) for found in (first, other) for epoch in range(3)]
    np.random.seed(1)  # noqa: NPY002
    assert [tuple(chain(*again.epoch(epoch))) for epoch in range(3)] == epochs[:3]
    assert [again.epoch(2)[0].tolist(), again.epoch(0)[0].tolist()] == [
        first.epoch(2)[0].tolist(),
        first.epoch(0)[0].tolist(),
    ]
    assert len(set(epochs)) == 6


def test_batches_of_similar_sizes_need_less_padding_than_batches_at_random() -> None:
    found = plan(2000, 16)
    lengths = found.sizes[:, 0]

    def padding(batches: list[NDArray[Any]]) -> int:
        return sum(int((lengths[batch].max() - lengths[batch]).sum()) for batch in batches)

    at_random = np.array_split(np.random.default_rng(0).permutation(2000), found.batches)
    assert padding(found.epoch(0)) < padding(at_random) / 5
    assert padding(evaluation := [np.array(batch) for batch in evaluation_batches(of_lengths(lengths), 16)]) < padding(
        found.epoch(0)
    )
    assert sorted(chain(*evaluation)) == list(range(2000))


def test_batches_of_one_size_hold_every_sample_once_and_no_two_sizes() -> None:
    shapes = np.array([(6, 4), (4, 6), (8, 3), (6, 4), (4, 6), (6, 4), (2, 12)])
    samples = ArraySamples([np.zeros((1, *size)) for size in shapes])
    found = evaluation_batches(samples, 2, alike=True)
    assert sorted(chain(*found)) == list(range(len(shapes)))
    assert [len({tuple(shapes[index]) for index in batch}) for batch in found] == [1] * len(found)
    assert sorted(len(batch) for batch in found) == [1, 1, 1, 2, 2]  # as few as there can be
    same = of_lengths(np.full(5, 7))
    assert evaluation_batches(same, 2, alike=True) == evaluation_batches(same, 2)


def test_batches_of_similar_sizes_do_not_come_in_the_order_of_their_sizes() -> None:
    found = plan(320, 10)
    means = [found.sizes[batch].mean() for batch in found.epoch(0)]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)


@pytest.mark.parametrize(("processes", "parts"), list(product((1, 2, 3, 4), (1, 2, 3))))
def test_the_shares_of_the_processes_are_disjoint_and_make_up_every_step(processes: int, parts: int) -> None:
    found = plan(50, 14)
    shares = [steps(StepSampler(found, 0, 9, rank, processes, parts)) for rank in range(processes)]
    for step in range(9):
        epoch, position = divmod(step, found.batches)
        everyone = list(chain(*(chain(*share[step]) for share in shares)))
        assert sorted(everyone) == sorted(found.epoch(epoch)[position].tolist())
        counts = [len(part) for share in shares for part in share[step]]
        assert max(counts) - min(counts) <= 2
        assert min(counts) >= 1


@pytest.mark.parametrize("start", range(12))
def test_a_sampler_that_starts_later_gives_the_tail_of_the_whole(start: int) -> None:
    found = plan(30, 8)  # four batches an epoch: starts within epochs and at their ends
    whole = steps(StepSampler(found, 0, 12, 1, 2, 2))
    assert steps(StepSampler(found, start, 12, 1, 2, 2)) == whole[start:]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_signals_are_padded_with_zeros_that_the_mask_tells_apart(dim: int) -> None:
    random = np.random.default_rng(dim)
    signals = [
        (1 + random.random((2, *random.integers(1, 6, dim)))).astype(np.float32) for _ in range(5)
    ]  # all above 0
    padded, mask = pad(signals)
    assert mask is not None
    assert padded.shape[2:] == mask.shape[1:] == tuple(np.max([signal.shape[1:] for signal in signals], axis=0))
    for row, signal in enumerate(signals):
        np.testing.assert_array_equal(padded[row][:, mask[row]].numpy(), signal.reshape(2, -1))
        corner = tuple(slice(length) for length in signal.shape[1:])
        assert mask[row][corner].all()
        assert mask[row].sum() == signal[0].size
    assert torch.equal((padded != 0).all(1), mask)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_signals_of_one_size_are_stacked_without_a_mask(dim: int) -> None:
    signals = list(np.random.default_rng(0).random((4, 2, *(3, 4, 5)[:dim])).astype(np.float32))
    padded, mask = pad(signals)
    assert mask is None
    np.testing.assert_array_equal(padded.numpy(), np.stack(signals))


def of_lengths(lengths: NDArray[Any]) -> ArraySamples:
    """A signal of every length, filled with its index."""
    return ArraySamples([np.full((1, length), index, np.float32) for index, length in enumerate(lengths)])


def test_a_batch_moves_with_its_mask_and_without() -> None:
    ragged = collate([(np.ones((1, 3), np.float32), 4, None), (np.ones((1, 2), np.float32), 7, None)])
    even = collate([(np.ones((1, 3), np.float32), 4, None)])
    moved = ragged.to(torch.device("meta"))
    assert moved.mask is not None
    assert (moved.signals.device.type, moved.mask.device.type, moved.indices.tolist()) == ("meta", "meta", [4, 7])
    assert even.to(torch.device("meta")).mask is None
