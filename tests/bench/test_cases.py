"""The grids: every case is a problem that the engines accept, and says what it is."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from omniconv.bench.cases import CUDA_GRID, GOALS, GRID, LONG, QUICK, Case, cells, grid
from omniconv.bench.contestants import inputs
from omniconv.engines import Problem, select_engine


@pytest.mark.parametrize("cases", [GRID, CUDA_GRID, QUICK], ids=["cpu", "cuda", "quick"])
def test_cases_are_problems_and_differ(cases: list[Case]) -> None:
    assert len(set(cases)) == len(cases)
    assert len({(case.name, case.family) for case in cases}) == len(cases)
    for case in cases:
        assert select_engine(case.problem("cpu")).reject(case.problem("cpu")) is None
    assert {case.training for case in cases} == {False, True}


def test_the_grids_cover_what_they_promise() -> None:
    assert 70 <= len(GRID) // 2 <= 100
    sequences = [c for c in GRID if len(c.size) == 1 and c.out is None]
    assert {64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536, 1000, 10007, 16000} == {
        c.size[0] for c in sequences
    }
    images = [c for c in GRID if len(c.size) == 2 and c.out is None]
    assert {28, 32, 64, 128} == {c.size[0] for c in images}
    assert {3, 7, 13, 15, 21, 33} <= {c.kernel[0] for c in images}
    assert {3, 5, 9} == {c.kernel[0] for c in GRID if len(c.size) == 3}
    assert {1, 8} <= {c.batch for c in sequences}
    long = [c for c in CUDA_GRID if c.family == LONG]
    assert len(long) == 14
    assert all(c.dtype == torch.bfloat16 and c.causal and c.size == c.kernel for c in long)
    assert all(0.9 * 2**27 < c.outputs <= 2**27 for c in long)
    assert {c.dtype for c in CUDA_GRID} == {torch.float32, torch.float16, torch.bfloat16}


def test_the_goals_are_the_cases_that_they_name() -> None:
    first, second = GOALS
    assert first.case == Case("sequences of 1,024", 8, 110, (1024,), (1024,), causal=True, training=True)
    assert second.case == Case("images of 32x32", 8, 140, (32, 32), (33, 33), training=True)
    assert all(goal.case in GRID for goal in GOALS)


def test_a_device_has_its_grid() -> None:
    assert grid("cpu") is GRID
    assert grid("cuda") is CUDA_GRID
    assert grid("cpu", quick=True) is grid("cuda", quick=True) is QUICK


@pytest.mark.parametrize(
    "case",
    [
        Case("f", 2, 3, (7,), (4,), causal=True),
        Case("f", 2, 3, (7, 5), (4, 3), out=2, training=True),
        Case("f", 1, 2, (4, 3, 5), (3, 3, 3), boundary="circular", dtype=torch.float64),
        Case("f", 2, 3, (7,), (4,), causal=True, dtype=torch.bfloat16),
    ],
    ids=str,
)
def test_a_case_is_the_problem_of_its_inputs(case: Case) -> None:
    x, taps, cotangent = inputs(case, "cpu", 0)
    problem = Problem.of(x, taps, causal=case.causal, boundary=case.boundary, training=case.training)
    assert case.problem("cpu") == problem
    assert case.problem("cuda").device == "cuda"
    assert case.origin == problem.origin
    assert case.products == problem.pairs * problem.positions * problem.tap_count
    assert (x.dtype, cotangent.dtype) == (case.dtype, case.dtype)
    assert taps.dtype == (torch.float64 if case.dtype == torch.float64 else torch.float32)
    assert cotangent.numel() == case.outputs
    assert all(torch.equal(a, b) for a, b in zip(inputs(case, "cpu", 0), (x, taps, cotangent), strict=True))


def test_the_traffic_is_two_numbers_per_sample_and_five_in_training() -> None:
    forward, training = cells("f", 2, 3, (10,), (4,))
    assert (forward.traffic, training.traffic) == (2 * 60 * 4, 5 * 60 * 4)
    forward, training = cells("f", 2, 3, (10,), (4,), out=5, dtype=torch.bfloat16)
    assert forward.traffic == 2 * (60 + 100)
    assert training.traffic == 2 * (3 * 60 + 2 * 100)


def test_the_outputs_have_unit_variance() -> None:
    for out, dtype in product((None, 8), (torch.float32, torch.float16)):
        _, taps, _ = inputs(Case("f", 1, 4, (5, 5), (9, 9), out=out, dtype=dtype), "cpu", 0)
        energy = taps.square().sum(tuple(range(taps.ndim - 2, taps.ndim)))
        assert (energy.sum(1).mean() if out else energy.mean()).item() == pytest.approx(1, abs=0.2)


def test_names_say_everything() -> None:
    assert Case("f", 8, 110, (1024,), (16,), causal=True).name == "8 x 110, 1024, 16 causal, forward"
    case = Case("f", 1, 3, (4, 5), (2, 3), out=6, boundary="circular", dtype=torch.float64, training=True)
    assert case.name == "1 x 3 to 6, 4x5, 2x3 circular float64, training"
