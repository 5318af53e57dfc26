"""Groups by name, for who builds no network: what signals they suit, and how well a trained network keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from omniconv._errors import check_choice, check_integer
from omniconv.data import Samples
from omniconv.groups import O2, SO2, SO3, Group
from omniconv.models import Network
from omniconv.symmetry import EquivarianceReport, equivariance_report
from omniconv.training.loading import read_sample

LEAST_WIDTH = 8
"""A network on a group is not made narrower than this for its elements."""

GROUP_BANDWIDTH = 0.5
"""That of the kernels, as of group layers to which no kernel is given."""

REPORTED = 4
"""So many training samples are moved to see how well a network keeps its group."""

MOVES = 16
"""So often, by elements of the group that are spread evenly, or drawn at random of rotations of space and the like."""


@dataclass(frozen=True)
class NamedGroup:
    """`group`: what it makes. `axes`: of the signals that it moves. `samples`: elements if no number is given: those
    that map the grid to itself among them. `step`: their number is a multiple of it.
    """

    group: Callable[[], Group]
    axes: int
    samples: int
    step: int = 1


GROUPS: Mapping[str, NamedGroup] = MappingProxyType(
    {"SO2": NamedGroup(SO2, 2, 8), "O2": NamedGroup(O2, 2, 16, step=2), "SO3": NamedGroup(SO3, 3, 24)}
)
"""Those that suit signals on a grid and need to be told nothing: of scalings one has to say how far they go."""


def check_group_options(group: str | None, samples: int | None, causal: bool, head: str) -> None:
    """Raise unless these options of an architecture go together."""
    if group is None:
        if samples is not None:
            raise ValueError(
                f"`group_samples` counts elements of a `group`, and there is none; got {samples!r}. Give a group, or "
                "leave it out."
            )
        return
    known = GROUPS[check_choice("group", group, tuple(GROUPS))]
    if samples is not None and check_integer("group_samples", samples, minimum=2) % known.step:
        raise ValueError(
            f"`group_samples` must be a multiple of {known.step} for {group}, half of whose elements are reflections; "
            f"got {samples}."
        )
    if causal:
        raise ValueError("`causal` and `group` exclude each other: a group moves all axes. Leave one of them out.")
    if head == "last":
        raise ValueError(
            '`head` "last" and `group` exclude each other: a group moves the last position. Use head="pool".'
        )


def check_group_suits(group: str, axes: int, *, space: bool, timed: bool) -> None:
    """Raise unless the group acts on signals of so many axes; `space`: of clouds of points; `timed`: with times."""
    if space or timed:
        kind = "clouds of points" if space else "series with times"
        raise ValueError(f"`group` is for signals on a grid; got {group!r} for {kind}. Leave it out.")
    if GROUPS[group].axes != axes:
        others = [name for name, known in GROUPS.items() if known.axes == axes]
        remedy = f"Give {' or '.join(map(repr, others))}, or leave it out." if others else "Leave it out."
        raise ValueError(
            f"`group` must act on the axes of the signals; {group!r} acts on {GROUPS[group].axes}, and these have "
            f"{axes}. {remedy}"
        )


def check_one_size(samples: Samples) -> None:
    """Raise unless all signals have one size, for networks that take no mask."""
    if not samples.equal:
        least, most = samples.sizes.min(0), samples.sizes.max(0)
        sizes = " x ".join(f"{low} to {high}" for low, high in zip(least, most, strict=True))
        raise ValueError(
            f"`samples` must all have one size for a network on a group, which takes no mask; got {sizes}. Bring them "
            "to one size, or train without `group`."
        )


def narrowed(width: int, elements: int) -> int:
    """What becomes of `width` on a group: width / sqrt(elements), at least 8, and never more than it was.

    Channels times elements, in which a network on a group computes, still grow with sqrt(elements); so does a step.
    """
    return min(width, max(LEAST_WIDTH, round(width / elements**0.5)))


def symmetry_of(model: Network, samples: Samples) -> EquivarianceReport:
    """How well a trained network on a group keeps it, on a few of the samples, evenly chosen."""
    chosen = np.unique(np.linspace(0, len(samples) - 1, REPORTED).astype(int))
    like = next(model.parameters())
    signals = [read_sample(samples.__getitem__, samples, int(index)) for index in chosen]
    x = torch.from_numpy(np.stack(signals)).to(like)
    return equivariance_report(model, x, count=MOVES)


def described_symmetry(report: EquivarianceReport, elements: int) -> dict[str, Any]:
    """What a model card says of it."""
    return {
        "group": type(report.group).__name__,
        "elements": elements,
        "moves": len(report.errors),
        "mean_error": report.errors.mean().item(),
        "largest_error": report.errors.max().item(),
    }
