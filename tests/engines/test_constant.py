"""What is prepared of constant taps is kept, and never changes a result."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from omniconv import convolve
from omniconv.engines import ENGINES
from omniconv.engines._constant import CONSTANT, MOST, constant
from omniconv.engines._plan import forget_plans
from omniconv.testing import assert_close


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """The sizes of taps for which the FFT engine prepared a spectrum."""
    seen: list[tuple[int, ...]] = []
    fft = ENGINES["fft"]

    def prepare(taps: Tensor, problem: object) -> Tensor:
        seen.append(tuple(taps.shape))
        return fft.prepare(taps, problem)  # type: ignore[arg-type]

    monkeypatch.setitem(ENGINES, "fft", replace(fft, prepare=prepare))
    forget_plans()
    yield seen
    monkeypatch.undo()
    forget_plans()


def run(x: Tensor, taps: Tensor) -> Tensor:
    return convolve(x, taps, causal=True, engine="fft")


def test_a_spectrum_is_made_once_for_every_length(prepared: list[tuple[int, ...]]) -> None:
    x, taps = torch.randn(2, 3, 20), constant(torch.randn(3, 12))
    exact = convolve(x, taps, causal=True, engine="reference")
    for _ in range(3):
        assert_close(run(x, taps), exact)
        assert_close(run(x[..., :9], taps), exact[..., :9])
    assert prepared == [(3, 12), (3, 9)]


def test_taps_that_were_not_declared_are_prepared_anew() -> None:
    x, taps = torch.randn(2, 3, 20), torch.randn(3, 12)
    before = run(x, taps)
    taps.data.mul_(2)  # a change that the framework does not count
    assert_close(run(x, taps), 2 * before)


def test_a_change_in_place_is_noticed(prepared: list[tuple[int, ...]]) -> None:
    x, taps = torch.randn(2, 3, 20), constant(torch.randn(3, 12))
    before = run(x, taps)
    taps.mul_(2)
    assert_close(run(x, taps), 2 * before)
    assert len(prepared) == 2


def test_gradients_pass_through_constant_taps() -> None:
    x, taps = torch.randn(2, 3, 20, requires_grad=True), constant(torch.randn(3, 12, requires_grad=True))
    for _ in range(2):
        dx, dtaps = torch.autograd.grad(run(x, taps).square().sum(), (x, taps))
    expected = torch.autograd.grad(convolve(x, taps, causal=True, engine="reference").square().sum(), (x, taps))
    assert_close(dx, expected[0])
    assert_close(dtaps, expected[1])


@pytest.mark.parametrize("engine", ["fft", "direct", "overlap_save", "shifts", "reference"])
def test_what_was_kept_goes_with_the_taps_and_is_bounded(engine: str) -> None:
    taps = constant(torch.randn(3, 12))
    for n in range(12, 12 + 2 * MOST):
        for batch in (1, 2, 3):
            convolve(torch.randn(batch, 3, n), taps, engine=engine)
    assert len(CONSTANT[taps].by_problem) == (0 if engine in ("shifts", "reference") else MOST)
    held = len(CONSTANT)
    del taps
    gc.collect()
    assert len(CONSTANT) == held - 1


def test_nothing_is_kept_of_taps_whose_changes_are_not_counted() -> None:
    x = torch.randn(2, 3, 20)
    with torch.inference_mode():
        taps = constant(torch.randn(3, 12))
        before = run(x, taps)
        assert_close(before, convolve(x, taps, causal=True, engine="reference"))
        taps.mul_(2)
        assert_close(run(x, taps), 2 * before)
