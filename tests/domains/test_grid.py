"""Grids: sizes and spacings kept apart, lags, and quadrature that is one integral at every spacing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omniconv import Grid
from omniconv.domains.grid import end_corrections


def test_a_longer_signal_keeps_the_spacing_and_a_finer_one_keeps_the_span() -> None:
    grid = Grid((8, 6), spacing=(1.0, 2.0), boundary=("zero", "circular"))
    longer = grid.extended((16, 6))
    assert (longer.size, longer.spacing, longer.boundary) == ((16, 6), grid.spacing, grid.boundary)
    finer = grid.resampled((0.5, 1.0))
    assert (finer.size, finer.span, finer.boundary) == ((16, 12), grid.span, grid.boundary)
    assert finer.measure == 0.5
    assert grid.measure == 2.0


def test_grids_are_values() -> None:
    assert Grid(8) == Grid((8,), 1.0, "zero")
    assert len({Grid(8), Grid(8), Grid(9)}) == 2


@pytest.mark.parametrize("spacing", [1.0, 0.5, 0.3, 0.1, 1.5, 2.0, 7.0])
@pytest.mark.parametrize("reach", [0.0, 1.0, 3.0, 6.0, 2.5])
def test_lags_are_the_multiples_of_the_spacing_within_reach(reach: float, spacing: float) -> None:
    (both,) = Grid(8, spacing).lags(reach)
    (past,) = Grid(8, spacing).lags(reach, causal=True)
    assert both[len(both) // 2] == 0
    assert past[0] == 0
    torch.testing.assert_close(both, -both.flip(0))
    torch.testing.assert_close(past, both[len(both) // 2 :])
    torch.testing.assert_close(past, spacing * torch.arange(len(past), dtype=torch.float64))
    assert past[-1] <= reach + 1e-6 < past[-1] + spacing + 1e-5


def test_weights_at_the_reference_spacing_are_the_plain_sum() -> None:
    for causal in (False, True):
        (weights,) = Grid(8).quadrature(5.0, causal=causal)
        torch.testing.assert_close(weights, torch.ones_like(weights), rtol=0, atol=1e-15)


@given(reach=st.integers(0, 40), spacing=st.floats(0.05, 9.0), causal=st.booleans())
def test_weights_sum_to_the_reference_number_of_lags(reach: int, spacing: float, causal: bool) -> None:
    (weights,) = Grid(8, spacing).quadrature(float(reach), causal=causal)
    (lags,) = Grid(8, spacing).lags(float(reach), causal=causal)
    assert weights.shape == lags.shape
    assert weights.sum().item() == pytest.approx(reach + 1 if causal else 2 * reach + 1)


@pytest.mark.parametrize("spacing", [0.5, 0.25, 0.3, 0.7, 2.0])
def test_weights_reproduce_the_reference_sum_of_linear_functions(spacing: float) -> None:
    (weights,), (lags,) = Grid(8, spacing).quadrature(12.0, causal=True), Grid(8, spacing).lags(12.0, causal=True)
    reference = torch.arange(13, dtype=torch.float64)
    for slope in (0.0, 1.0, -0.3):
        expected = (1 + slope * reference).sum().item()
        assert (weights * (1 + slope * lags)).sum().item() == pytest.approx(expected)


def test_the_difference_to_the_reference_is_of_second_order_in_the_rate_of_change() -> None:
    def error(rate: float) -> float:
        (weights,), (lags,) = Grid(8, 0.25).quadrature(400.0, causal=True), Grid(8, 0.25).lags(400.0, causal=True)
        exact = torch.exp(-rate * torch.arange(401, dtype=torch.float64)).sum()
        return abs((weights * torch.exp(-rate * lags)).sum() - exact).item()

    # Value and slope at the jump are corrected, the curvature is not. The plain sum times the spacing has order 0.
    assert math.log2(error(0.2) / error(0.1)) == pytest.approx(2.0, abs=0.1)


def test_bad_windows_are_named() -> None:
    with pytest.raises(ValueError, match="`reach` must be finite and at least 0; got -1"):
        Grid(8).lags(-1)
    with pytest.raises(TypeError, match="`causal` must be True or False; got str 'yes'"):
        Grid(8).lags(2, causal="yes")  # type: ignore[arg-type]


def test_end_corrections_vanish_at_the_reference() -> None:
    assert end_corrections(0.0, 1.0) == pytest.approx((0.0, 0.0))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": ()}, ValueError, "`size` must have one to three axes"),
        ({"size": (2, 2, 2, 2)}, ValueError, "`size` must have one to three axes"),
        ({"size": (8, 0)}, ValueError, "`size` must be at least 1; got 0"),
        ({"size": 2.5}, TypeError, "`size` must be an integer; got float 2.5"),
        ({"size": True}, TypeError, "`size` must be an integer"),
        ({"size": 8, "spacing": float("nan")}, ValueError, "`spacing` must be finite and above 0"),
        ({"size": 8, "spacing": float("inf")}, ValueError, "`spacing` must be finite and above 0"),
        ({"size": 8, "spacing": -1.0}, ValueError, "`spacing` must be finite and above 0"),
        ({"size": (8, 8), "spacing": (1.0, 1.0, 1.0)}, ValueError, "`spacing` must be one value or 2 values"),
        ({"size": 8, "boundary": "reflect"}, ValueError, "`boundary` must be one of 'zero', 'circular'; got 'reflect'"),
    ],
)
def test_bad_grids_are_named(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Grid(**arguments)  # type: ignore[arg-type]


def test_lags_that_no_memory_holds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`reach` \(=8\) at a spacing of \(1e-09,\) makes 1\.6e\+10 lags"):
        Grid(16, 1e-9).lags(8)
    with pytest.raises(ValueError, match="smaller reach or a larger spacing"):
        Grid((16, 16)).lags(10**4)
