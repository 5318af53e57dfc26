"""The radial window against its formula, its bounds, and how it learns."""

from __future__ import annotations

import math

import pytest
import torch

from omniconv.supports import Disk


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_formula(dim: int) -> None:
    support = Disk(dim, reach=8, radius=0.4, edge=0.3, dtype=torch.float64)
    p = 2 * torch.rand(200, dim, dtype=torch.float64) - 1
    distance = p.norm(dim=-1)
    cosine = (1 + torch.cos(math.pi * (distance - 0.4) / 0.3)) / 2
    expected = torch.where(distance < 0.4, 1.0, torch.where(distance > 0.7, 0.0, cosine))
    torch.testing.assert_close(support(p), expected)
    assert 0 < (distance < 0.4).sum() < 200


def test_weights_depend_on_the_distance_alone() -> None:
    support = Disk(2, reach=8, dtype=torch.float64)
    angle, distance = torch.rand(50, dtype=torch.float64) * 2 * math.pi, torch.linspace(0, 1, 50, dtype=torch.float64)
    around = torch.stack([distance * angle.cos(), distance * angle.sin()], dim=-1)
    along = torch.stack([distance, torch.zeros_like(distance)], dim=-1)
    torch.testing.assert_close(support(around), support(along))


@pytest.mark.parametrize("step", [-1e3, 1e3])
def test_radius_stays_within_its_bounds_whatever_is_learned(step: float) -> None:
    support = Disk(2, reach=(5, 10), radius=0.3, widest=1.5)
    with torch.no_grad():
        support.radius_logit.add_(step)
    assert support.radius.item() == pytest.approx(0.025 if step < 0 else 1.5)
    assert support(torch.zeros(1, 2)).item() == 1.0


@pytest.mark.parametrize("threshold", [0.01, 0.5, 0.9])
def test_extent_is_where_the_weight_falls_to_the_threshold(threshold: float) -> None:
    support = Disk(2, reach=100, radius=0.3, edge=0.2, dtype=torch.float64)
    extent, other = support.extent(threshold)
    assert extent == other
    assert support(torch.tensor([[extent, 0.0]], dtype=torch.float64)).item() == pytest.approx(threshold)
    assert Disk(2, reach=100, radius=0.9).extent(0.1) == (1.0, 1.0)


@pytest.mark.parametrize("reach", [1, 2, 5, 40])
@pytest.mark.parametrize("causal", [False, True])
def test_the_radius_can_always_be_learned(reach: int, causal: bool) -> None:
    """At any radius within its bounds some lag lies in the edge, even where the window keeps a single sample."""
    for radius in torch.linspace(0.26 / reach, 0.99, 23).tolist():
        support = Disk(1, reach=reach, causal=causal, radius=radius, edge=1 / reach, dtype=torch.float64)
        support(torch.arange(reach + 1, dtype=torch.float64)[:, None] / reach).sum().backward()
        assert support.radius_logit.grad is not None
        assert support.radius_logit.grad.item() > 0


def test_derivatives_in_positions_are_finite_at_the_zero_lag() -> None:
    positions = torch.zeros(1, 3, requires_grad=True)
    Disk(3, reach=4)(positions).sum().backward()
    assert positions.grad is not None
    assert positions.grad.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Disk(1, reach=10, radius=0.01), r"`radius` must lie between 0.025 .* and 1 .*; got 0.01"),
        (lambda: Disk(1, reach=10, radius=1.0), r"`radius` must lie between .* got 1"),
        (lambda: Disk(2, reach=(5, 10), edge=0.05), r"`edge` must be at least 0.1, one sample at reach \(5, 10\)"),
        (lambda: Disk(1, reach=10, edge=0.0), "`edge` must be finite and above 0"),
        (lambda: Disk(1, reach=10).extent(2.0), "`threshold` must be finite and above 0 and at most 1"),
    ],
)
def test_bad_supports_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
