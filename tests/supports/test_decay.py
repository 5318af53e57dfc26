"""The exponential window against its formula and its bounds."""

from __future__ import annotations

import math

import pytest
import torch

from omniconv.supports import Decay


def test_formula() -> None:
    support = Decay(2, reach=(4, 9), causal=(True, False), width=(0.3, 0.5), dtype=torch.float64)
    p = torch.rand(5, 2, dtype=torch.float64) * torch.tensor([1.0, -1.0])
    torch.testing.assert_close(support(p), torch.exp(-p[:, 0] / 0.3 + p[:, 1] / 0.5))
    torch.testing.assert_close(support.width, torch.tensor([0.3, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("step", [-1e3, 1e3])
def test_width_stays_within_its_bounds_whatever_is_learned(step: float) -> None:
    support = Decay(1, reach=10, width=0.3, widest=1.5)
    with torch.no_grad():
        support.width_logit.add_(step)
    assert support.width.item() == pytest.approx(0.025 if step < 0 else 1.5)
    assert math.isfinite(support(torch.tensor([[0.5]])).item())


def test_extent_is_where_the_weight_falls_to_the_threshold() -> None:
    support = Decay(2, reach=100, width=(0.1, 0.3), dtype=torch.float64)
    near, far = support.extent(0.1)
    assert near == pytest.approx(0.1 * math.log(10))
    assert far == pytest.approx(0.3 * math.log(10))
    on_the_axes = torch.tensor([[near, 0.0], [0.0, far]], dtype=torch.float64)
    assert support(on_the_axes).tolist() == pytest.approx([0.1, 0.1])
    assert support.extent(1e-6) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Decay(1, reach=10, width=0.01), r"`width` must lie between 0.025 .* and 2 .*; got 0.01"),
        (lambda: Decay(1, reach=10, width=3.0), r"`width` must lie between .* got 3"),
        (lambda: Decay(2, reach=10, width=(0.3, 0.3, 0.3)), "`width` must be one value or 2 values"),
        (lambda: Decay(1, reach=10).extent(0.0), "`threshold` must be finite and above 0 and at most 1"),
    ],
)
def test_bad_supports_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
