"""The smooth step against its formula, its bounds, and how it learns."""

from __future__ import annotations

import math

import pytest
import torch

from omniconv.supports import Sigmoid


def test_formula() -> None:
    support = Sigmoid(2, reach=(8, 20), causal=(True, False), offset=(0.3, 0.6), temperature=0.1, dtype=torch.float64)
    p = torch.rand(50, 2, dtype=torch.float64) * torch.tensor([1.0, -1.0])

    def step(distance: torch.Tensor, offset: float) -> torch.Tensor:
        return (1 + math.exp(-offset / 0.1)) / (1 + torch.exp((distance - offset) / 0.1))

    torch.testing.assert_close(support(p), step(p[:, 0], 0.3) * step(-p[:, 1], 0.6))
    assert support(torch.zeros(1, 2, dtype=torch.float64)).item() == 1.0


@pytest.mark.parametrize("step", [-1e3, 1e3])
def test_offset_stays_within_its_bounds_whatever_is_learned(step: float) -> None:
    support = Sigmoid(2, reach=(5, 10), offset=0.3, widest=1.5)
    with torch.no_grad():
        support.offset_logit.add_(step)
    assert support.offset.tolist() == pytest.approx([0.05, 0.025] if step < 0 else [1.5, 1.5])
    assert support(torch.zeros(1, 2)).item() == 1.0


@pytest.mark.parametrize("threshold", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("offset", [0.05, 0.4])
def test_extent_is_where_the_weight_falls_to_the_threshold(threshold: float, offset: float) -> None:
    support = Sigmoid(2, reach=100, offset=(offset, 0.3), temperature=0.04, dtype=torch.float64)
    near, far = support.extent(threshold)
    on_the_axes = torch.tensor([[near, 0.0], [0.0, -far]], dtype=torch.float64)
    assert support(on_the_axes).tolist() == pytest.approx([threshold, threshold])
    assert Sigmoid(1, reach=100, offset=0.9, temperature=0.1).extent(0.1) == (1.0,)


def test_extent_at_threshold_one_is_the_zero_lag() -> None:
    assert Sigmoid(1, reach=10, offset=0.3, dtype=torch.float64).extent(1.0) == pytest.approx((0.0,), abs=1e-12)
    assert Sigmoid(1, reach=4000, offset=0.9, temperature=1e-3).extent(1.0) == (0.0,)  # exp(-900) is no number


@pytest.mark.parametrize("reach", [1, 2, 5, 40])
@pytest.mark.parametrize("causal", [False, True])
def test_the_offset_can_always_be_learned(reach: int, causal: bool) -> None:
    """Wherever the step stands within the window, a lag is near enough to move it."""
    for offset in torch.linspace(0.26 / reach, 0.99, 23).tolist():
        support = Sigmoid(1, reach=reach, causal=causal, offset=offset, temperature=0.25 / reach)
        support(torch.arange(reach + 1)[:, None] / reach).sum().backward()
        assert support.offset_logit.grad is not None
        assert support.offset_logit.grad.item() > 1e-3


def test_repr_and_default_temperature() -> None:
    assert Sigmoid(1, reach=100).temperature == 0.05
    assert Sigmoid(2, reach=(2, 100)).temperature == 0.125
    assert Sigmoid(2, reach=(0, 100)).temperature == 0.05  # a single lag on that axis
    assert Sigmoid(3, reach=(4, 0, 100)).temperature == 0.0625
    assert Sigmoid(2, reach=(0, 100), temperature=0.0025).temperature == 0.0025
    assert Sigmoid(1, reach=0).temperature == 0.25
    assert "offset=(0.5,), temperature=0.05" in repr(Sigmoid(1, reach=100))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sigmoid(1, reach=10, offset=0.01), r"`offset` must lie between 0.025 .* and 2 .*; got 0.01"),
        (lambda: Sigmoid(1, reach=10, offset=3.0), r"`offset` must lie between .* got 3"),
        (
            lambda: Sigmoid(2, reach=(5, 10), temperature=0.04),
            r"`temperature` must be at least 0.05, a quarter of a sample at reach \(5, 10\), .*; got 0.04",
        ),
        (
            lambda: Sigmoid(2, reach=(0, 10), temperature=0.02),
            r"`temperature` must be at least 0.025, a quarter of a sample at reach \(0, 10\)",
        ),
        (lambda: Sigmoid(1, reach=10, temperature=0.0), "`temperature` must be finite and above 0"),
        (lambda: Sigmoid(1, reach=10).extent(0.0), "`threshold` must be finite and above 0 and at most 1"),
    ],
)
def test_bad_supports_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
