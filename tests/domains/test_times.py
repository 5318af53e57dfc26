"""Cells, neighbours and lattices of irregular times, against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omniconv.domains import Times

F64 = torch.float64


def series(*times: float) -> Tensor:
    return torch.tensor([times], dtype=F64)


def test_a_cell_goes_from_midpoint_to_midpoint_and_half_a_reference_sample_beyond_the_ends() -> None:
    times = Times(series(-1.0, 0.0, 3.0, 3.5))
    assert times.measure.tolist() == [[0.5 + 0.5, 0.5 + 1.5, 1.5 + 0.25, 0.25 + 0.5]]
    assert Times(series(7.0)).measure.tolist() == [[1.0]]


def test_what_is_absent_has_no_cell_and_leaves_its_time_to_its_neighbours() -> None:
    times = torch.tensor([[0.0, torch.nan, 4.0, -9.0]])
    observed = torch.tensor([[True, False, True, False]])
    assert Times(times, observed).measure.tolist() == [[2.5, 0.0, 2.5, 0.0]]
    nothing = Times(series(0.0, 1.0), torch.zeros(1, 2, dtype=torch.bool))
    assert nothing.measure.tolist() == [[0.0, 0.0]]


def test_channels_have_cells_of_their_own_and_united_times_those_of_any_channel() -> None:
    observed = torch.tensor([[[True, False, True, False], [False, True, True, False]]])
    times = Times(series(0.0, 1.0, 2.0, 5.0), observed)
    assert times.cells.tolist() == [[[1.5, 0.0, 1.5, 0.0], [0.0, 1.0, 1.0, 0.0]]]
    assert times.measure.tolist() == [[1.0, 1.0, 1.0, 0.0]]
    assert times.united().observed.tolist() == [[[True, True, True, False]]]


@pytest.mark.parametrize("causal", [False, True])
def test_weights_sum_to_the_window_within_the_series_and_half_a_sample_at_either_end(causal: bool) -> None:
    when = torch.rand(3, 40, dtype=F64).mul(30).sort().values
    times = Times(when)
    output = torch.linspace(-3, 33, 25, dtype=F64).expand(3, -1)
    window = 7.25
    found = times.neighbours(window, causal=causal, output_times=output)
    low = torch.maximum(output - window, when[:, :1])
    high = output if causal else torch.minimum(output + window, when[:, -1:])
    expected = (high - low + 1).masked_fill((output + (0 if causal else window) < when[:, :1]), 0.0)
    expected = expected.masked_fill(output - window > when[:, -1:], 0.0)
    torch.testing.assert_close(found.weight[:, 0].sum(-1), expected)
    assert bool((found.lag.abs() <= window).all())


def test_ends_are_what_the_cells_leave_over() -> None:
    when = torch.rand(2, 30, dtype=F64).mul(30).sort().values
    times = Times(when, torch.rand(2, 3, 30) > 0.4)
    for causal in (False, True):
        everything = times.neighbours(4.5, causal=causal)
        ends = times.neighbours(4.5, causal=causal, ends=True)
        inside = everything.weight.sum(-1) - ends.weight.sum(-1)
        lag = times.times[:, None, :, None] - times.times[:, None, None, :]
        low = 0.0 if causal else -4.5
        cells = torch.where((lag >= low) & (lag <= 4.5), times.cells[:, :, None, :], 0.0).sum(-1)
        torch.testing.assert_close(inside, torch.where(times.mask[:, None], cells, 0.0))


def test_the_number_of_neighbours_is_that_of_the_samples_in_a_window_however_long_the_series() -> None:
    short, long = (Times(torch.arange(n, dtype=F64)[None] / 2) for n in (50, 5000))
    assert short.neighbours(3, causal=False).index.shape[-1] == long.neighbours(3, causal=False).index.shape[-1] < 25


@pytest.mark.parametrize("unit", [1.0, 0.1, 1 / 3, 7e-5])
def test_a_lattice_is_found_in_any_unit_with_gaps_and_a_shift_per_series(unit: float) -> None:
    number = torch.tensor([[0, 1, 5, 6, 9], [0, 3, 4, 50, 0]])
    observed = torch.tensor([[True] * 5, [True] * 4 + [False]])
    times = number.double() * unit + torch.tensor([[0.3], [-8.25]], dtype=F64) * unit
    lattice = Times(times, observed).lattice()
    assert lattice is not None
    assert lattice.step == pytest.approx(unit, rel=1e-12)
    assert lattice.index[observed].tolist() == number[observed].tolist()
    assert lattice.size == 51


def test_there_is_no_lattice_in_random_times_in_a_single_sample_or_over_a_huge_span() -> None:
    assert Times(torch.rand(1, 20, dtype=F64).sort().values).lattice() is None
    assert Times(series(3.0)).lattice() is None
    assert Times(series(0.0, 1.0, 1e6)).lattice() is None


def test_scaled_times_are_the_same_instants() -> None:
    times = Times(series(0.0, 2.0, 3.0), torch.tensor([[True, False, True]])).scaled(10.0)
    assert times.measure.tolist() == [[15.5, 0.0, 15.5]]


@pytest.mark.parametrize(
    ("times", "mask", "error", "match"),
    [
        ([0.0, 1.0], None, TypeError, "`times` must be a tensor of real numbers; got list"),
        (torch.zeros(2, dtype=torch.bool), None, TypeError, "`times` must be a tensor of real numbers"),
        (torch.zeros(3), None, ValueError, r"`times` must be \(batch, samples\); got a float32 tensor of shape \(3,\)"),
        (torch.zeros(2, 0), None, ValueError, r"`times` must be \(batch, samples\)"),
        (series(0.0, torch.nan), None, ValueError, "`times` must be finite where a sample was observed"),
        (series(0.0, 2.0, 2.0), None, ValueError, "`times` must increase strictly.*series 0.*Sort the samples"),
        (series(0.0, 2.0, 1.0), None, ValueError, "`times` must increase strictly"),
        (series(0.0, 1.0), torch.ones(1, 2), TypeError, "`mask` must be a tensor of bool"),
        (series(0.0, 1.0), torch.ones(1, 3, dtype=torch.bool), ValueError, r"`mask` must be \(1, 2\) or \(1, channels"),
        (series(0.0, 1.0), torch.ones(2, dtype=torch.bool), ValueError, r"`mask` must be \(1, 2\)"),
    ],
)
def test_errors_name_the_argument(times: Tensor, mask: Tensor | None, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Times(times, mask)


def test_the_order_of_absent_samples_does_not_matter() -> None:
    times = torch.tensor([[0.0, -5.0, 1.0, 1.0]])
    assert Times(times, torch.tensor([[True, False, True, False]])).measure.tolist() == [[1.0, 0.0, 1.0, 0.0]]
