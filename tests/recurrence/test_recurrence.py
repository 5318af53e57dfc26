"""Recurrences: their taps, and that sample by sample, chunk by chunk and all at once are the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omniconv import convolve
from omniconv.recurrence import Recurrence
from omniconv.testing import assert_close
from tests.recurrence.systems import system, taps_of


def recurrence(channels: int = 3, pairs: int = 2, reals: int = 1, radius: float = 0.99) -> Recurrence:
    return Recurrence(*system(channels, pairs, reals, radius=radius), torch.linspace(-1, 1, channels))


def test_taps_by_hand() -> None:
    rec = recurrence()
    assert_close(rec.taps(50), taps_of(rec.poles, rec.residues, rec.direct, 50))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 130])
def test_it_convolves_with_its_taps(length: int, dtype: torch.dtype) -> None:
    rec, x = recurrence(), torch.randn(2, 3, length, dtype=dtype)
    y, _ = rec.prefill(x)
    assert y.dtype == dtype
    assert_close(y, convolve(x, rec.taps(length).to(dtype), causal=True, engine="reference"))


@given(cuts=st.lists(st.integers(1, 90), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_any_chunks_are_the_whole(cuts: list[int], seed: int) -> None:
    rec = recurrence()
    x = torch.randn(2, 3, sum(cuts), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    state, parts = rec.init_state(2, dtype=torch.float64), []
    for chunk in x.split(cuts, dim=-1):
        y, state = rec.prefill(chunk, state)
        parts.append(y)
    whole, last = rec.prefill(x)
    assert_close(torch.cat(parts, -1), whole)
    assert_close(torch.view_as_real(state), torch.view_as_real(last))


def test_steps_are_the_whole() -> None:
    rec, x = recurrence(), torch.randn(2, 3, 70, dtype=torch.float64)
    state, parts = rec.init_state(2, dtype=torch.float64), []
    for sample in x.unbind(-1):
        y, state = rec.step(sample, state)
        parts.append(y)
    whole, last = rec.prefill(x)
    assert_close(torch.stack(parts, -1), whole)
    assert_close(torch.view_as_real(state), torch.view_as_real(last))


def test_a_hundred_thousand_steps_do_not_drift() -> None:
    """Slow poles, in float32, against float64."""
    poles = torch.polar(torch.tensor([[1 - 1e-5, 0.9999, 0.99]]).double(), torch.tensor([[0.0, 0.3, 2.0]]).double())
    rec = Recurrence(poles, torch.ones_like(poles), torch.ones(1))
    x = torch.randn(1, 1, 100_000, generator=torch.Generator().manual_seed(0))
    exact, _ = rec.prefill(x.double())
    state, worst = rec.init_state(1), 0.0
    for t, sample in enumerate(x.unbind(-1)):
        y, state = rec.step(sample, state)
        if t % 1000 == 999:
            worst = max(worst, abs(y.item() - exact[0, 0, t].item()))
    assert worst < 1e-4 * exact.abs().max().item()


def test_state_is_what_it_says() -> None:
    rec = recurrence()
    assert rec.init_state(5).shape == (5, 3, 3)
    assert rec.init_state(5).dtype == torch.complex64
    assert rec.init_state(5, dtype=torch.float64).dtype == torch.complex128
    assert (rec.channels, rec.modes) == (3, 3)


def test_rows_do_not_meet() -> None:
    rec, x = recurrence(), torch.randn(4, 3, 40, dtype=torch.float64)
    y, state = rec.prefill(x)
    alone, own = rec.prefill(x[2:3])
    assert_close(alone, y[2:3])
    assert_close(torch.view_as_real(own), torch.view_as_real(state[2:3]))


def test_bad_input() -> None:
    poles, residues = system(2, 1)
    with pytest.raises(ValueError, match=r"`poles` must lie within the unit circle; the largest has modulus 1.5"):
        Recurrence(torch.full_like(poles, 1.5), residues, torch.zeros(2))
    with pytest.raises(ValueError, match="the largest has modulus nan"):
        Recurrence(torch.full_like(poles, torch.nan), residues, torch.zeros(2))
    with pytest.raises(TypeError, match="`poles` must hold complex numbers"):
        Recurrence(poles.real, residues, torch.zeros(2))
    with pytest.raises(ValueError, match=r"`residues` must have the shape of `poles`, \(2, 1\)"):
        Recurrence(poles, residues[:1], torch.zeros(2))
    with pytest.raises(ValueError, match=r"`direct` must be \(2,\), one per channel"):
        Recurrence(poles, residues, torch.zeros(3))
    rec = Recurrence(poles, residues, torch.zeros(2))
    with pytest.raises(ValueError, match=r"`x` must be \(batch, 2, length\), one sample at least"):
        rec.prefill(torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match=r"`x` must be \(batch, 2\), a sample per channel"):
        rec.step(torch.zeros(1, 2, 1), rec.init_state(1))
    with pytest.raises(ValueError, match=r"`state` must be what `init_state` or the last call returned, \(1, 2, 1\)"):
        rec.step(torch.zeros(1, 2), rec.init_state(2))
    with pytest.raises(TypeError, match="`state` must hold complex numbers, as `init_state` gives them; got a float32"):
        rec.step(torch.zeros(1, 2), rec.init_state(1).real)
    with pytest.raises(TypeError, match="`state` must hold complex numbers, as `init_state` gives them; got a float32"):
        rec.prefill(torch.zeros(1, 2, 3), rec.init_state(1).real)
    with pytest.raises(ValueError, match=r"`residues` must be finite; got \(nan"):
        Recurrence(poles, torch.full_like(residues, torch.nan), torch.zeros(2))
    with pytest.raises(ValueError, match="`direct` must be finite; got inf"):
        Recurrence(poles, residues, torch.tensor([0.0, torch.inf]))
