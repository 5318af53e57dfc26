"""Which token comes next: the definitions by brute force over small vocabularies, and statistics of draws."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from omniconv.models import Sampling

F64 = torch.float64


def shares_of(sampling: Sampling, logits: list[float], seen: list[bool] | None = None) -> list[float]:
    """The probabilities from which a token is drawn."""
    asked: list[Tensor] = []

    def spy(shares: Tensor, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        asked.append(shares)
        return shares.argmax(-1, keepdim=True)

    row = torch.tensor([logits], dtype=F64)
    with patch("torch.multinomial", spy):
        sampling.draw(row, None if seen is None else torch.tensor([seen]))
    (shares,) = asked
    found: list[float] = (shares[0] / shares.sum()).tolist()
    return found


def softmax(logits: list[float], temperature: float) -> list[float]:
    top = max(logits)
    weights = [math.exp((logit - top) / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def kept(shares: list[float], chosen: tuple[int, ...]) -> list[float]:
    total = sum(shares[i] for i in chosen)
    return [share / total if i in chosen else 0.0 for i, share in enumerate(shares)]


def likeliest(shares: list[float], size: int) -> tuple[int, ...]:
    """Of all sets of that size the one of the largest probability."""
    return max(combinations(range(len(shares)), size), key=lambda chosen: sum(shares[i] for i in chosen))


def by_brute_force(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> list[float]:
    """The definitions, over all sets of tokens; gives up where two answers are equally right but for rounding."""
    shares = softmax(logits, temperature)
    if top_k is not None:
        shares = kept(shares, likeliest(shares, min(top_k, len(shares))))
    if top_p is not None:
        for size in range(1, len(shares) + 1):
            chosen = likeliest(shares, size)
            total = sum(shares[i] for i in chosen)
            assume(abs(total - top_p) > 1e-9 or size == len(shares))
            if total >= top_p or size == len(shares):
                shares = kept(shares, chosen)
                break
    if min_p is not None:
        limit = min_p * max(shares)
        assume(all(abs(share - limit) > 1e-12 or share == max(shares) for share in shares if share > 0))
        shares = kept(shares, tuple(i for i, share in enumerate(shares) if share >= limit))
    return shares


@st.composite
def vocabularies(draw: st.DrawFn) -> list[float]:
    """Logits that differ by a hundredth at least, in any order: which of two equal ones goes first is not defined."""
    size = draw(st.integers(1, 6))
    gaps = draw(st.lists(st.floats(0.01, 3.0), min_size=size, max_size=size))
    heights = [sum(gaps[: i + 1]) - 4 for i in range(size)]
    return draw(st.permutations(heights))


@given(
    logits=vocabularies(),
    temperature=st.floats(0.2, 4.0),
    top_k=st.none() | st.integers(1, 8),
    top_p=st.none() | st.floats(0.01, 1.0),
    min_p=st.none() | st.floats(0.0, 1.0),
)
def test_what_is_drawn_from_is_what_the_definitions_say(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    expected = by_brute_force(logits, temperature, top_k, top_p, min_p)
    found = shares_of(Sampling(temperature, top_k, top_p, min_p), logits)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert [share > 0 for share in found] == [share > 0 for share in expected]


FOUR = [math.log(share) for share in (0.1, 0.4, 0.2, 0.3)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 9}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.39}, [0, 1, 0, 0]),
        ({"top_p": 0.41}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.69}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.71}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 1e-9}, [0, 1, 0, 0]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.3]),
        ({"min_p": 0.0}, [0.1, 0.4, 0.2, 0.3]),
        ({"min_p": 0.49}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"min_p": 0.51}, [0, 4 / 7, 0, 3 / 7]),
        ({"min_p": 1.0}, [0, 1, 0, 0]),
        ({"top_k": 2, "top_p": 0.56}, [0, 1, 0, 0]),  # of the two that are left the first has 4/7
        ({"top_k": 3, "top_p": 0.71, "min_p": 0.76}, [0, 1, 0, 0]),
        ({"temperature": 0.5}, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
    ],
)
def test_of_four_tokens(options: dict[str, Any], expected: list[float]) -> None:
    assert shares_of(Sampling(**options), FOUR) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(
    logits=st.lists(st.floats(-5, 5), min_size=1, max_size=8),
    penalty=st.floats(0.1, 10.0),
    temperature=st.floats(0.5, 2.0),
    data=st.data(),
)
def test_the_penalty_of_tokens_that_occurred(
    logits: list[float], penalty: float, temperature: float, data: st.DataObject
) -> None:
    seen = data.draw(st.lists(st.booleans(), min_size=len(logits), max_size=len(logits)))
    worse = []
    for logit, before in zip(logits, seen, strict=True):
        if before and logit > 0:
            worse.append(logit / penalty)
        elif before:
            worse.append(logit * penalty)
        else:
            worse.append(logit)
    sampling = Sampling(temperature, repetition_penalty=penalty)
    assert shares_of(sampling, logits, seen) == pytest.approx(softmax(worse, temperature), rel=1e-9)
    assert shares_of(sampling, logits) == pytest.approx(softmax(logits, temperature), rel=1e-9)  # nothing occurred
    greedy = Sampling(0.0, repetition_penalty=penalty).draw(torch.tensor([logits], dtype=F64), torch.tensor([seen]))
    assert worse[int(greedy)] == max(worse)


def test_a_penalty_above_1_makes_both_signs_less_likely() -> None:
    logits, seen = torch.tensor([[2.0, 1.9], [-2.0, -2.1]]), torch.tensor([[True, False], [True, False]])
    assert Sampling(0.0).draw(logits, seen).tolist() == [0, 0]
    assert Sampling(0.0, repetition_penalty=1.5).draw(logits, seen).tolist() == [1, 1]
    assert Sampling(0.0, repetition_penalty=0.5).draw(logits, ~seen).tolist() == [1, 1]


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_temperature_0_takes_the_likeliest(options: dict[str, Any]) -> None:
    logits = torch.randn(50, 7)
    before = torch.random.get_rng_state()
    assert torch.equal(Sampling(0.0, **options).draw(logits), logits.argmax(-1))
    assert torch.equal(torch.random.get_rng_state(), before)  # and draws nothing
    for cold in (1e-4, 1e-30, 1e-40, 1e-300):
        assert torch.equal(Sampling(cold, **options).draw(logits), logits.argmax(-1))


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"top_k": 4, "temperature": 2.0}, {"top_p": 0.8}])
def test_statistics_of_draws(options: dict[str, Any]) -> None:
    """Pearson's chi-square against the shares, below its 99.9 % quantile."""
    logits = [0.3, -1.0, 1.2, 0.0, 0.9, -0.4]
    shares = shares_of(Sampling(**options), logits)
    rows = 20_000
    drawn = Sampling(**options).draw(
        torch.tensor([logits]).expand(rows, -1), generator=torch.Generator().manual_seed(0)
    )
    counts = torch.bincount(drawn, minlength=6).tolist()
    quantile = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52}
    expected = [share * rows for share in shares]
    assert all(count == 0 for count, wanted in zip(counts, expected, strict=True) if wanted == 0)
    terms = [(count - wanted) ** 2 / wanted for count, wanted in zip(counts, expected, strict=True) if wanted > 0]
    assert sum(terms) < quantile[len(terms) - 1]


def test_rows_are_drawn_each_from_its_own() -> None:
    logits = torch.full((6, 6), -torch.inf).fill_diagonal_(0.0)
    for options in ({}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.5}):
        assert Sampling(**options).draw(logits).tolist() == list(range(6))
    two = torch.tensor([[0.0, -torch.inf, 0.0], [-torch.inf, 0.0, 0.0]]).repeat(200, 1)
    drawn = Sampling().draw(two).view(200, 2)
    assert set(drawn[:, 0].tolist()) == {0, 2}
    assert set(drawn[:, 1].tolist()) == {1, 2}


def test_draws_follow_the_generator() -> None:
    logits = torch.randn(1, 9).expand(100, -1)
    one, same, other = (
        Sampling().draw(logits, generator=torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)
    )
    assert one == same != other
    torch.manual_seed(4)
    first = Sampling().draw(logits)
    torch.manual_seed(4)
    assert torch.equal(Sampling().draw(logits), first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_in_half_precision(dtype: torch.dtype) -> None:
    """Are as good as the same numbers in float32."""
    logits = torch.randn(200, 30).to(dtype)
    options: dict[str, Any] = {"top_k": 20, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1}
    seen = torch.rand(200, 30) > 0.5
    low, high = (
        Sampling(**options).draw(values, seen, torch.Generator().manual_seed(0)) for values in (logits, logits.float())
    )
    assert torch.equal(low, high)


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 0.8])
@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_p": 0.9}, {"min_p": 0.1}, {"repetition_penalty": 2.0}])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_told(wrong: float, options: dict[str, Any], temperature: float) -> None:
    logits, seen = torch.randn(3, 5), torch.ones(3, 5, dtype=torch.bool)
    Sampling(temperature, **options).draw(logits, seen)
    logits[1, 2] = wrong
    with pytest.raises(ValueError, match="the model's logits are not finite in 1 of 3 rows"):
        Sampling(temperature, **options).draw(logits, seen)
    logits[:] = -math.inf  # nothing is left to draw
    with pytest.raises(ValueError, match="the model's logits are not finite in 3 of 3 rows"):
        Sampling(temperature, **options).draw(logits, seen)


def test_logits_are_left_alone() -> None:
    logits, seen = torch.randn(3, 5), torch.ones(3, 5, dtype=torch.bool)
    before = logits.clone()
    Sampling(0.7, 3, 0.9, 0.1, 1.3).draw(logits, seen)
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": -0.1}, ValueError, "`temperature` must be finite and at least 0; got -0.1"),
        ({"temperature": math.inf}, ValueError, "`temperature` must be finite"),
        ({"temperature": math.nan}, ValueError, "`temperature` must be finite"),
        ({"temperature": "hot"}, TypeError, "`temperature` must be a number"),
        ({"temperature": None}, TypeError, "`temperature` must be a number"),
        ({"top_k": 0}, ValueError, "`top_k` must be at least 1; got 0"),
        ({"top_k": 2.0}, TypeError, "`top_k` must be an integer"),
        ({"top_k": True}, TypeError, "`top_k` must be an integer"),
        ({"top_p": 0.0}, ValueError, "`top_p` must be .*; got 0.0"),
        ({"top_p": 1.1}, ValueError, r"`top_p` must be in \(0, 1\], a probability; got 1.1"),
        ({"top_p": math.nan}, ValueError, "`top_p` must be"),
        ({"top_p": "most"}, TypeError, "`top_p` must be a number"),
        ({"min_p": -0.1}, ValueError, "`min_p` must be .*; got -0.1"),
        ({"min_p": 1.1}, ValueError, r"`min_p` must be in \[0, 1\], a ratio of probabilities; got 1.1"),
        ({"min_p": "least"}, TypeError, "`min_p` must be a number"),
        ({"repetition_penalty": 0.0}, ValueError, "`repetition_penalty` must be .* at least 0.01 .* 100; got 0.0"),
        ({"repetition_penalty": -1.0}, ValueError, "`repetition_penalty` must be finite and at least 0.01"),
        ({"repetition_penalty": math.inf}, ValueError, "`repetition_penalty` must be finite and at least 0.01"),
        ({"repetition_penalty": 1e-300}, ValueError, "`repetition_penalty` must be .* at most 100; got 1e-300"),
        ({"repetition_penalty": 101}, ValueError, "`repetition_penalty` must be .* at most 100; got 101"),
        ({"repetition_penalty": "much"}, TypeError, "`repetition_penalty` must be a number"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Sampling(**options)
