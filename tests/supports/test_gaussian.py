"""The Gaussian window against its formula, its bounds, and how it learns."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from omniconv import Conv1d
from omniconv.kernels import Table
from omniconv.supports import Full, Gaussian


def test_formula() -> None:
    support = Gaussian(2, reach=(4, 9), width=(0.3, 0.5), dtype=torch.float64)
    p = torch.rand(5, 2, dtype=torch.float64)
    expected = torch.exp(-0.5 * ((p[:, 0] / 0.3) ** 2 + (p[:, 1] / 0.5) ** 2))
    torch.testing.assert_close(support(p), expected)
    torch.testing.assert_close(support.width, torch.tensor([0.3, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("step", [-1e3, 1e3])
def test_width_stays_within_its_bounds_whatever_is_learned(step: float) -> None:
    support = Gaussian(1, reach=10, width=0.3, widest=1.5)
    with torch.no_grad():
        support.width_logit.add_(step)
    assert 0.025 <= support.width.item() <= 1.5
    assert math.isfinite(support(torch.tensor([[0.5]])).item())


def test_extent_is_where_the_weight_falls_to_the_threshold() -> None:
    support = Gaussian(1, reach=100, width=0.1, dtype=torch.float64)
    (extent,) = support.extent(0.1)
    assert extent == pytest.approx(0.1 * math.sqrt(-2 * math.log(0.1)))
    assert support(torch.tensor([[extent]], dtype=torch.float64)).item() == pytest.approx(0.1)


def test_mean_is_learned_where_time_has_no_direction_and_anchored_where_it_has() -> None:
    support = Gaussian(2, reach=8, causal=(True, False), learn_mean=True)
    assert support.mean.tolist() == [0.0, 0.0]
    support(torch.rand(20, 2)).sum().backward()
    assert support.mean_logit is not None
    assert support.mean_logit.grad is not None
    anchored, free = support.mean_logit.grad.tolist()
    assert anchored == 0.0
    assert free != 0.0
    with torch.no_grad():
        support.mean_logit.fill_(2.0)
    assert support.mean[0].item() == 0.0
    assert support.extent(0.1)[1] == 1.0  # 0.96 + 0.64 reaches past the end


def test_support_grows_towards_a_longer_memory() -> None:
    """The window has weight at lags that it does not keep yet: gradient through the kept taps moves it there."""
    torch.manual_seed(0)
    layer = Conv1d(1, 1, 64, kernel=Table, support=partial(Gaussian, width=0.05), causal=True, bias=False)
    support = layer.support
    assert isinstance(support, Gaussian)
    with torch.no_grad():
        for taps in layer.kernel.parameters():
            taps.fill_(1.0)
        layer.gain.fill_(1.0)
    optimizer = torch.optim.Adam([support.width_logit], lr=0.05)
    target = torch.exp(-0.5 * (torch.arange(64) / 63 / 0.4) ** 2)  # a Gaussian memory of width 0.4
    impulse = torch.zeros(1, 1, 64)
    impulse[..., 0] = 1
    windows = []
    for _ in range(200):
        loss = (layer(impulse)[0, 0] - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        layer.refresh()
        windows.append(layer.window[0])
    assert windows[0] < 16
    assert windows[-1] == 63
    assert support.width.item() == pytest.approx(0.4, rel=0.05)


def test_full_is_one_and_learns_nothing() -> None:
    support = Full(3, reach=4)
    assert support(torch.rand(2, 5, 3)).tolist() == [[1.0] * 5] * 2
    assert list(support.parameters()) == []
    assert support.extent(0.5) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(1, reach=10, width=0.01), r"`width` must lie between 0.025 .* and 2 .*; got 0.01"),
        (lambda: Gaussian(1, reach=10, width=3.0), r"`width` must lie between .* got 3"),
        (lambda: Gaussian(2, reach=10, width=(0.3, 0.3, 0.3)), "`width` must be one value or 2 values"),
        (lambda: Gaussian(1, reach=10, causal=True, learn_mean=True), "`learn_mean` needs an axis that is not causal"),
        (lambda: Gaussian(1, reach=10).extent(0.0), "`threshold` must be finite and above 0 and at most 1"),
    ],
)
def test_bad_supports_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_bandwidth_is_two_deviations_of_the_spectrum_in_nyquist_units() -> None:
    support = Gaussian(2, reach=(8, 20), width=(0.3, 0.1), dtype=torch.float64)
    # A Gaussian of deviation s in position has one of deviation 1 / s in frequency; Nyquist is pi * reach.
    expected = torch.tensor([2 / 0.3 / (math.pi * 8), 2 / 0.1 / (math.pi * 20)], dtype=torch.float64)
    torch.testing.assert_close(support.bandwidth(), expected)
    assert Full(2, reach=8).bandwidth() is None
    assert Gaussian(1, reach=0, width=0.5).bandwidth().item() == pytest.approx(4 / math.pi)  # the unit of a reach of 1
