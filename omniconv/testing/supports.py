"""The laws of supports."""

from __future__ import annotations

import copy

import torch

from omniconv.supports import Support, SupportFactory
from omniconv.testing._tolerances import expect


def check_support(factory: SupportFactory, *, dims: tuple[int, ...] = (1, 2, 3)) -> None:
    """Raise `AssertionError` unless the supports that `factory` makes obey the contract of `Support`.

    Shapes and dtypes in every dimension, causal and not; weights in [0, 1], 1 at the zero lag and wherever that is
    promised; nothing of weight
    above the threshold outside the extent; a differentiable bandwidth of the right length; derivatives (float64);
    state-dict and deep-copy round trips; tags that name parameters.

    >>> from omniconv.supports import Gaussian
    >>> check_support(Gaussian, dims=(1,))
    """
    for dim in dims:
        for causal in (False, True):
            support = factory(dim, reach=(8,) * dim, causal=(causal,) * dim, device="cpu", dtype=torch.float64)
            positions = support_positions(support)
            check_weights(support, positions)
            check_extent(support, positions)
            check_bandwidth(support)
            # Off the lattice, where a support that ends at a tap may have an edge.
            check_support_derivatives(support, 0.93 * positions[:: max(1, len(positions) // 5)] + 0.013)
            again = factory(dim, reach=(8,) * dim, causal=(causal,) * dim, device="cpu", dtype=torch.float64)
            check_support_state(support, again, positions)
            on_meta = factory(dim, reach=(8,) * dim, causal=(causal,) * dim, device="meta", dtype=torch.float64)
            expect(all(parameter.is_meta for parameter in on_meta.parameters()), "`device` must reach every parameter")


def support_positions(support: Support) -> torch.Tensor:
    """A lattice over the window, with the zero lag first."""
    axes = [torch.linspace(0.0 if past else -1.0, 1.0, 17, dtype=torch.float64) for past in support.causal]
    lattice = torch.cartesian_prod(*axes).reshape(-1, support.dim)
    return torch.cat([torch.zeros(1, support.dim, dtype=torch.float64), lattice])


def check_weights(support: Support, positions: torch.Tensor) -> None:
    """Shape, dtype, range, and weight 1 at the zero lag."""
    for dtype in (torch.float32, torch.float64):
        weights = support(positions.to(dtype))
        expect(weights.shape == positions.shape[:-1], f"weights must be (*points,); got {tuple(weights.shape)}")
        expect(weights.dtype == dtype, f"weights must have the positions' dtype {dtype}; got {weights.dtype}")
        inside = bool(((weights >= 0) & (weights <= 1)).all())
        expect(inside, f"weights must lie in [0, 1]; got {weights.min().item():g} to {weights.max().item():g}")
        if support.everywhere_one:
            expect(bool((weights == 1).all()), f"every weight must be 1, as promised; got {weights.min().item():g}")
        expect(abs(weights[0].item() - 1) < 1e-6, f"a new support must weigh the zero lag 1; got {weights[0].item():g}")


def check_extent(support: Support, positions: torch.Tensor) -> None:
    """Outside the extent every weight is below the threshold; a lower threshold reaches at least as far."""
    reached = (0.0,) * support.dim
    for threshold in (0.5, 0.1, 0.01):
        extent = support.extent(threshold)
        expect(len(extent) == support.dim and min(extent) > 0 and max(extent) <= 1, "extent must be in (0, 1] per axis")
        expect(all(a <= b for a, b in zip(reached, extent, strict=True)), "a lower threshold must reach farther")
        outside = (positions.abs() > torch.tensor(extent, dtype=positions.dtype) + 1e-9).any(-1)
        heaviest = support(positions)[outside].max().item() if bool(outside.any()) else 0.0
        expect(heaviest <= threshold, f"weight {heaviest:g} outside the extent for threshold {threshold}")
        reached = extent


def check_bandwidth(support: Support) -> None:
    """A bandwidth has the declared form."""
    width = support.bandwidth()
    if width is not None:
        told = width.shape == (support.dim,) and bool((width >= 0).all())
        expect(told, "bandwidth must be None or at least 0, (dim,)")
        expect(width.requires_grad, "bandwidth must have a derivative in the parameters")


def check_support_derivatives(support: Support, positions: torch.Tensor) -> None:
    """First derivatives in the parameters agree with differences, in float64."""
    names = [name for name, _ in support.named_parameters()]
    if not names:
        return

    def evaluate(*values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(support, dict(zip(names, values, strict=True)), (positions,))
        return result

    torch.autograd.gradcheck(evaluate, [p.detach().clone().requires_grad_() for p in support.parameters()])


def check_support_state(support: Support, other: Support, positions: torch.Tensor) -> None:
    """Evaluation changes no state; copies, loaded and reset supports are equal; tags name parameters."""
    before = copy.deepcopy(support.state_dict())
    weights = support(positions)
    after = support.state_dict()
    expect(all(torch.equal(before[name], after[name]) for name in before), "evaluation must not change the state")
    expect(torch.equal(copy.deepcopy(support)(positions), weights), "a deep copy must give the same weights")
    disturb(other)
    other.load_state_dict(support.state_dict())
    expect(torch.equal(other(positions), weights), "a support with the same state must give the same weights")
    disturb(other)
    other.reset_parameters()
    expect(torch.equal(other(positions), weights), "reset_parameters must set learned sizes back to where they began")
    unknown = set(support.parameter_tags()) - {name for name, _ in support.named_parameters()}
    expect(not unknown, f"parameter_tags must name parameters; unknown: {sorted(unknown)}")


@torch.no_grad()
def disturb(support: Support) -> None:
    """Move every parameter."""
    for parameter in support.parameters():
        parameter.add_(1.0)
