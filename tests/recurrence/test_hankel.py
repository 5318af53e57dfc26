"""Singular values of Hankel matrices."""

from __future__ import annotations

import pytest
import torch

from omniconv.recurrence import hankel_singular_values
from omniconv.recurrence.hankel import leading_eigenvalues
from omniconv.testing import assert_close
from tests.recurrence.systems import system, taps_of


@pytest.mark.parametrize("length", [2, 3, 8, 31])
def test_they_are_those_of_the_matrix(length: int) -> None:
    taps = torch.randn(3, length, dtype=torch.float64)
    matrix = torch.zeros(3, length - 1, length - 1, dtype=torch.float64)
    for i in range(length - 1):
        for j in range(length - 1 - i):
            matrix[:, i, j] = taps[:, i + j + 1]
    assert_close(hankel_singular_values(taps), torch.linalg.svdvals(matrix))


def test_as_many_as_there_are_states() -> None:
    """A pair counts twice, a real pole once; the end of the taps is far away."""
    poles, residues = system(2, pairs=2, reals=1, radius=0.8)
    values = hankel_singular_values(taps_of(poles, residues, torch.ones(2).double(), 200))
    assert (values[:, 4] > 1e-6 * values[:, 0]).all()
    assert (values[:, 5] < 1e-12 * values[:, 0]).all()


def test_large_matrices_by_iteration() -> None:
    """Of 1,100 rows eight by iteration, and all at once."""
    poles, residues = system(1, pairs=6, radius=0.995)
    taps = taps_of(poles, residues, torch.zeros(1).double(), 1101)
    values, vectors = leading_eigenvalues(torch.nn.functional.pad(taps[:, 1:], (0, 1099)), 8)
    assert_close(values.abs(), hankel_singular_values(taps)[:, :8])
    assert_close(vectors.mT @ vectors, torch.eye(8).double()[None])


@pytest.mark.parametrize(
    ("taps", "error", "message"),
    [
        (torch.zeros(4), ValueError, r"`taps` must be \(channels, length\) of length 2 at least"),
        (torch.zeros(2, 1), ValueError, r"of length 2 at least; got a float32 tensor of shape \(2, 1\)"),
        (torch.zeros(2, 4, dtype=torch.int64), TypeError, r"`taps` must hold floating-point numbers"),
        (torch.full((1, 4), torch.nan), ValueError, r"`taps` must be finite"),
    ],
)
def test_bad_taps(taps: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hankel_singular_values(taps)
