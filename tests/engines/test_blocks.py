"""Slices of a batch: together they are the whole, and none is larger than it has to be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from omniconv import Problem, convolve
from omniconv.engines import direct, fft, overlap_save
from omniconv.engines._blocks import LONG, ROWS, blocks, channel_blocks
from omniconv.engines._extend import margins
from omniconv.testing import assert_close


def problem(batch: int, channels: int) -> Problem:
    return Problem.of(torch.zeros(batch, channels, 8), torch.zeros(channels, 3))


@given(
    batch=st.integers(0, 9),
    channels=st.integers(1, 40),
    row=st.integers(1, 300),
    budget=st.integers(1, 3000),
    multiple=st.sampled_from([1, 8, 16]),
)
def test_every_channel_of_every_signal_is_in_one_slice(
    batch: int, channels: int, row: int, budget: int, multiple: int
) -> None:
    asked = problem(batch, channels)
    for pieces in (
        blocks(asked, row, budget, multiple=multiple),
        channel_blocks(asked, row, budget, fewest=multiple),
    ):
        count = torch.zeros(batch, channels)
        for piece in pieces:
            count[piece] += 1
        assert torch.equal(count, torch.ones_like(count))


def test_slices_of_channels_have_the_whole_batch_and_about_one_size() -> None:
    every = slice(None)
    expected = [(every, slice(start, start + 28)) for start in (0, 28, 56, 84)]
    assert list(channel_blocks(problem(8, 110), 2048, 2**19, fewest=128)) == expected
    assert list(channel_blocks(problem(8, 110), 2**16, 2**19, fewest=880)) == [(every, every)]
    assert channel_blocks(problem(300, 2), 2048, 2**17, fewest=128) == tuple(
        (slice(first, first + 100), slice(channel, channel + 1)) for channel in (0, 1) for first in (0, 100, 200)
    )
    dense = Problem.of(torch.zeros(8, 110, 8), torch.zeros(4, 110, 3))
    assert len(channel_blocks(dense, 2048, 2**19, fewest=1)) == 1
    assert len(channel_blocks(replace(problem(8, 110), device="cuda"), 2048, 2**19, fewest=1)) == 1


@pytest.mark.parametrize("engine", ["direct", "fft", "overlap_save"])
@pytest.mark.parametrize(("batch", "channels", "fewest"), [(9, 3, 1), (9, 3, 18), (2, 40, 1), (1, 40, 1)])
def test_engines_in_slices_equal_the_reference(
    batch: int, channels: int, fewest: int, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices of signals, and of channels, with the whole batch or without."""
    for module, names in ((direct, ("BLOCK", "WHOLE")), (fft, ("BLOCK",)), (overlap_save, ("BLOCK",))):
        for name in names:
            monkeypatch.setattr(module, name, 16 * 1024 if module is overlap_save else 640)
    monkeypatch.setattr(fft, "ROWS", fewest)
    direct.slices_of.cache_clear()
    x = torch.randn(batch, channels, 20, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(channels, 17, dtype=torch.float64, requires_grad=True)
    asked = Problem.of(x, taps)
    assert len(direct.slices_of(asked)) > 1
    assert len(fft.slices_of(asked)) > 1
    assert len(blocks(asked, overlap_save.covered(asked), 16 * 1024, multiple=1)) > 1

    def results(name: str) -> tuple[Tensor, ...]:
        y = convolve(x, taps, engine=name)
        return y, *torch.autograd.grad(y.square().sum(), (x, taps))

    for actual, expected in zip(results(engine), results("reference"), strict=True):
        assert_close(actual, expected)
    direct.slices_of.cache_clear()


def test_slices_have_the_size_of_the_cache() -> None:
    slices = blocks(problem(8, 110), 2048, 2**19)
    assert len(slices) == 4
    assert all(torch.zeros(8, 110)[piece].numel() * 2048 <= 2**19 for piece in slices)
    channels = blocks(problem(2, 64), 2**15, 2**19)
    assert all(torch.zeros(2, 64)[piece].shape == (1, 16) for piece in channels)


def test_one_slice_where_slices_would_gain_nothing() -> None:
    row = 2**17  # a slice of the cache's size would have fewer than `ROWS` channels
    assert 2**19 // row < ROWS
    assert len(blocks(problem(1, 16), row, 2**19)) == 1
    assert len(blocks(problem(1, 17), row, 2**19)) > 1  # more than `LONG` times the budget
    assert 16 * row == LONG * 2**19
    dense = Problem.of(torch.zeros(8, 110, 8), torch.zeros(4, 110, 3))
    assert len(blocks(dense, 2048, 2**19)) == 1
    assert len(blocks(replace(problem(8, 110), device="cuda"), 2048, 2**19)) == 1


@pytest.mark.parametrize("k", [3, 9, 11, 13, 21])
def test_the_framework_pads_no_more_than_its_fast_kernels_do(k: int) -> None:
    asked = Problem.of(torch.zeros(2, 3, 32, 32), torch.zeros(3, k, k))
    padding = direct.padding_of(margins(asked), asked.circular)
    assert direct.FAST_PADDING in (4, 6)
    assert padding == ([k // 2] * 2 if k // 2 <= direct.FAST_PADDING else None)
