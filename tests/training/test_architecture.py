from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omniconv import Conv, Gaussian
from omniconv.data import ArraySamples
from omniconv.training import Architecture, Recipe, choose
from omniconv.training.architecture import EFFORTS, EPOCHS, with_given
from tests.training.makers import convolutions


def samples(count: int, *size: int) -> ArraySamples:
    return ArraySamples(np.broadcast_to(np.float32(0), (count, 1, *size)))


@pytest.mark.parametrize("effort", ["quick", "standard", "strong"])
@pytest.mark.parametrize(
    ("count", "size"), [(10, (8,)), (500, (100,)), (300, (30, 40)), (1999, (2000,)), (9000, (600,))]
)
def test_epochs_go_through_a_fixed_number_of_positions_within_bounds(
    effort: str, count: int, size: tuple[int, ...]
) -> None:
    (width, blocks, positions), (least, most) = EFFORTS[effort], EPOCHS[effort]
    architecture, recipe = choose(samples(count, *size), effort)
    assert architecture == Architecture(blocks=blocks, width=width)
    assert recipe.epochs == min(max(math.floor(positions / (count * math.prod(size))), least), most)


@pytest.mark.parametrize(("count", "processes", "batch_size"), [(10, 1, 32), (2000, 1, 64), (10, 3, 10), (10, 64, 1)])
def test_the_batch_of_all_processes_is_that_of_one(count: int, processes: int, batch_size: int) -> None:
    assert choose(samples(count, 8), processes=processes)[1].batch_size == batch_size


def test_signals_of_many_sizes_count_with_their_own() -> None:
    ragged = ArraySamples([np.zeros((1, length), np.float32) for length in (20_000, 30_000, 50_000)])
    assert choose(ragged, "quick")[1].epochs == 2_000_000 // 100_000


def test_an_unknown_effort_is_refused() -> None:
    with pytest.raises(ValueError, match="`effort` must be one of 'quick', 'standard', 'strong'; got 'huge'"):
        choose(samples(2, 8), "huge")


def width_of(conv: Conv) -> Tensor:
    assert isinstance(conv.support, Gaussian)
    return conv.support.width.detach()


@pytest.mark.parametrize(("causal", "reaches"), [(False, (50, 8)), (True, (99, 15))])
def test_supports_begin_at_a_fourth_root_of_the_farthest_lag(causal: bool, reaches: tuple[int, int]) -> None:
    model = Architecture(blocks=1, width=4, causal=causal).build(2, 3, (100, 16))
    assert len(convolutions(model)) == 2
    for conv in convolutions(model):
        torch.testing.assert_close(
            width_of(conv), torch.tensor([1.35 * math.sqrt(math.sqrt(far)) / far for far in reaches])
        )


def test_a_given_width_is_in_samples_and_ends_at_the_signal() -> None:
    model = Architecture(blocks=1, width=4, support_width=10.0).build(1, 2, (100, 12))
    torch.testing.assert_close(width_of(convolutions(model)[0]), torch.tensor([10 / 50, 1.0]))


def test_the_network_has_the_sizes_that_it_is_asked_for() -> None:
    architecture = Architecture(blocks=3, width=6, bandwidth=0.5, causal=True, head="last", dropout=0.25)
    arguments = architecture.build(2, 5, (20,)).arguments
    expected: dict[str, Any] = {
        "in_channels": 2, "out_features": 5, "size": (20,), "blocks": 3, "width": 6, "causal": True, "head": "last",
        "dropout": 0.25,
    }  # fmt: skip
    assert {name: arguments[name] for name in expected} == expected
    assert arguments["kernel"].keywords == {"bandwidth": 0.5}


def test_the_same_random_state_gives_the_same_network() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(Architecture(blocks=1, width=4).build(1, 2, (9,)).state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, "`blocks` must be at least 1; got 0"),
        ({"width": 0}, "`width` must be at least 1; got 0"),
        ({"support_width": 0.0}, "`support_width` must be finite and above 0; got 0.0"),
        ({"bandwidth": 0.0}, "`bandwidth` must be finite and above 0; got 0.0"),
        ({"head": "dense"}, "`head` must be one of 'pool', 'last'; got 'dense'"),
        ({"dropout": -0.1}, "`dropout` must be finite and at least 0; got -0.1"),
        ({"dropout": 1.0}, "`dropout` must be a probability below 1; got 1.0"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(**options).build(1, 2, (8,))


def test_options_that_are_given_replace_those_that_were_chosen() -> None:
    assert with_given(Recipe(epochs=7), lr=0.5, epochs=None) == Recipe(epochs=7, lr=0.5)
