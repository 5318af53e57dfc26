"""A convolution at true times is a continuous function of the times, and both ways to compute it agree."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from omniconv import Conv1d, Gaussian
from omniconv.domains import Times


def layer(causal: bool, width: float, mixing: str = "separable") -> Conv1d:
    """A layer whose kernel is not small where its window ends."""
    torch.manual_seed(0)
    return Conv1d(2, 2, 23, causal=causal, support=partial(Gaussian, width=width), mixing=mixing).double()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("mixing", ["separable", "dense"])
@pytest.mark.parametrize("jitter", [1e-12, 1e-11, 1e-10, 1e-8, 1e-7, 1e-5])
def test_an_output_changes_no_more_than_its_times(causal: bool, width: float, mixing: str, jitter: float) -> None:
    conv = layer(causal, width, mixing)
    x, noise = torch.randn(3, 2, 40).double(), torch.randn(3, 40).double()
    times = torch.arange(40.0).double().expand(3, 40)
    expected = conv(x, times=times)
    torch.testing.assert_close(expected, conv(x), rtol=1e-12, atol=1e-12)
    for moved in (times + jitter * noise, times * (1 + jitter), times * (1 - jitter), times + 1e6 * jitter):
        torch.testing.assert_close(conv(x, times=moved), expected, rtol=0, atol=1e3 * jitter)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("stretch", [1.0, 1 + 2e-11, 1 + 1e-9, 1 - 1e-9, 0.37, 2.0])
def test_a_lattice_is_computed_as_pairs_are(causal: bool, stretch: float) -> None:
    conv, x = layer(causal, 1.0), torch.randn(1, 2, 31).double()
    times = stretch * torch.randperm(90)[:31].sort().values[None].double()
    at_pairs = conv(x, times=times, output_times=times)
    torch.testing.assert_close(conv(x, times=times), at_pairs, rtol=1e-8, atol=1e-8)


def test_the_weights_at_the_end_of_a_window_are_those_of_the_trapezoidal_rule() -> None:
    times = Times(torch.tensor([[0.0, 1.0, 3.0]], dtype=torch.float64))
    found = times.neighbours(1.5, causal=False, output_times=torch.tensor([[1.0]], dtype=torch.float64))
    rows = zip(
        found.index.flatten().tolist(), found.lag.flatten().tolist(), found.weight.flatten().tolist(), strict=True
    )
    weights: dict[tuple[int, float], float] = {}
    for index, lag, weight in rows:
        weights[index, lag] = weights.get((index, lag), 0.0) + weight
    # The window ends at 2.5, 1.5 after the sample at 1, of which half go to the sample and half to the end, where the
    # signal is 1/4 of the sample at 1 and 3/4 of that at 3. The series begins in the window: half a sample before it.
    expected = {(0, 1.0): 0.5 + 0.5, (1, 0.0): 0.5 + 0.75, (1, -1.5): 1.25 / 4, (2, -1.5): 1.25 * 3 / 4}
    assert {key: value for key, value in weights.items() if value} == pytest.approx(expected, rel=1e-9)
