"""Layers and networks that keep a symmetry."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor
from omniconv.groups import Elements, Group, Samples, transform
from omniconv.testing._tolerances import expect

EQUIVARIANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Largest relative error in the Euclidean norm where a symmetry maps the grid to itself."""


def assert_equivariant(
    layer: Callable[[Tensor], Tensor],
    x: Tensor,
    group: Group,
    samples: Samples,
    *,
    outputs: Samples | None = None,
    tolerance: float | None = None,
) -> None:
    """Raise `AssertionError` unless layer(g x) = g layer(x) for every g of the samples that maps the grid to itself.

    `x`: `batch channels *size`, or `batch channels group *size` at `samples`; the output is one of these too, at
    `outputs` (None: at `samples`), or (batch, features), which must not change at all. `tolerance`: relative error in
    the Euclidean norm; None for 1e-12 in float64 and 1e-5 in float32, and for no other dtype.
    Raises `ValueError` or `TypeError` that names a bad argument.

    >>> from omniconv.groups import Cyclic
    >>> group = Cyclic(4)
    >>> assert_equivariant(torch.relu, torch.randn(2, 3, 5, 5), group, group.grid())
    """
    check_floating_tensor("x", x)
    if tolerance is None and x.dtype not in EQUIVARIANCE:
        raise ValueError(
            f"`tolerance` must be given for {x.dtype}; it is known for float64 and float32. Give one, or use "
            "`x.float()`."
        )
    limit = EQUIVARIANCE[x.dtype] if tolerance is None else tolerance
    symmetries = grid_symmetries(group, samples)
    expect(len(symmetries) > 1, f"no sample of {group} but the identity maps the grid to itself")
    y = layer(x)
    for g in symmetries:
        moved = layer(move(x, group, g, samples))
        expected = move(y, group, g, samples if outputs is None else outputs)
        expect(moved.shape == expected.shape, f"the output of moved signals has shape {tuple(moved.shape)}")
        error = ((moved - expected).norm() / y.norm()).item()
        matrix = group.matrix(g).round().tolist()
        expect(error <= limit, f"moved by {matrix}: relative error {error:.1e} above {limit:.0e}")


def grid_symmetries(group: Group, samples: Samples) -> list[Elements]:
    """The samples that map regular grids to themselves: every axis to an axis."""
    matrices = group.matrix(samples.elements)
    whole = (matrices - matrices.round()).abs().amax((-2, -1)) < 1e-9
    single = (matrices.round().abs().sum(-1) == 1).all(-1)
    return list(samples.elements[whole & single])


def move(x: Tensor, group: Group, g: Elements, samples: Samples) -> Tensor:
    """A signal, a signal on the group, or features that do not move, by their axes."""
    if x.ndim == 2:
        return x
    return transform(x, group, g, samples if x.ndim == group.dim + 3 else None)
