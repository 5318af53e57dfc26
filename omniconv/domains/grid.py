"""Regular grids of one to three axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omniconv._errors import check_integer, check_number
from omniconv._typing import PerAxis, check_bool, check_boundary, per_axis

MOST = 2**27
"""Lags of a kernel, on all axes together: a gigabyte of positions per axis."""


@dataclass(frozen=True, init=False)
class Grid:
    """A regular grid: how many samples per axis, how far apart, and what lies beyond the edges.

    Two grids may differ from a reference in two independent ways, which `extended` and `resampled` keep apart: a
    *longer* signal has more samples at the same spacing; a *finer* one has a smaller spacing on the same span.

    `size`: samples per axis, at least 1, one to three axes; an int is one axis.
    `spacing`: distance between neighbouring samples, one number or one per axis, (0, inf).
    `boundary`: "zero" (silence beyond the edges) or "circular" (the axis is periodic), one or one per axis.

    Raises `ValueError` or `TypeError` that names the argument.

    >>> fine = Grid((8, 8)).resampled(0.5)
    >>> fine.size, fine.spacing, Grid((8, 8)).extended((16, 8)).spacing
    ((16, 16), (0.5, 0.5), (1.0, 1.0))
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    boundary: tuple[str, ...]

    def __init__(self, size: PerAxis[int], spacing: PerAxis[float] = 1.0, boundary: PerAxis[str] = "zero"):
        dim = len(size) if isinstance(size, (Sequence, np.ndarray)) else 1
        if not 1 <= dim <= 3:
            raise ValueError(f"`size` must have one to three axes; got {size!r}.")
        object.__setattr__(self, "size", per_axis("size", size, dim, check_integer))
        object.__setattr__(self, "spacing", per_axis("spacing", spacing, dim, check_spacing))
        object.__setattr__(self, "boundary", per_axis("boundary", boundary, dim, check_boundary))

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.size)

    @property
    def span(self) -> tuple[float, ...]:
        """Length that the samples cover per axis, each sample standing for one spacing."""
        return tuple(n * step for n, step in zip(self.size, self.spacing, strict=True))

    @property
    def measure(self) -> float:
        """Volume that one sample stands for: the quadrature weight of a sum over the grid."""
        return math.prod(self.spacing)

    def extended(self, size: PerAxis[int]) -> Grid:
        """The grid of a longer (or shorter) signal: `size` samples at the same spacing."""
        return Grid(per_axis("size", size, self.dim, check_integer), self.spacing, self.boundary)

    def resampled(self, spacing: PerAxis[float]) -> Grid:
        """The grid of the same span sampled at another `spacing`; the size is rounded to the nearest count."""
        steps = per_axis("spacing", spacing, self.dim, check_spacing)
        size = tuple(max(1, round(span / step)) for span, step in zip(self.span, steps, strict=True))
        return replace(self, size=size, spacing=steps)

    def lags(
        self, reach: PerAxis[float], *, causal: PerAxis[bool] = False, device: torch.device | None = None
    ) -> tuple[Tensor, ...]:
        """Offsets between samples, per axis: the multiples of the spacing in [-reach, reach], or [0, reach] if causal.

        `reach`: farthest offset per axis, in the units of the spacing, [0, inf). Returns one 1-D float64 tensor per
        axis; the zero lag is at index 0 of a causal axis and in the middle, `len // 2`, of the others.
        Raises `ValueError` for more than `MOST` lags of all axes together, whose kernel no memory would hold.

        >>> Grid(16, spacing=0.5).lags(1.0)[0].tolist()
        [-1.0, -0.5, 0.0, 0.5, 1.0]
        """
        sides = [(0 if past else -count(far, step), count(far, step)) for far, past, step in self._sides(reach, causal)]
        # of a list: torch.compile takes no generator here
        number = math.prod([last - first + 1 for first, last in sides])
        if number > MOST:
            raise ValueError(
                f"`reach` (={reach}) at a spacing of {self.spacing} makes {number:.1e} lags, more than {MOST:.1e}. "
                "Give a smaller reach or a larger spacing."
            )
        return tuple(
            torch.arange(first, last + 1, device=device, dtype=torch.float64) * step
            for (first, last), step in zip(sides, self.spacing, strict=True)
        )

    def quadrature(
        self, reach: PerAxis[float], *, causal: PerAxis[bool] = False, device: torch.device | None = None
    ) -> tuple[Tensor, ...]:
        """Weights of the lags, per axis, with which a sum over them is the same integral at every spacing.

        At spacing 1, the reference, every weight is exactly 1: the plain sum. At spacing D an inner lag weighs D.
        Where the window ends, the kernel jumps to zero, and the plain sum differs from the integral by terms in the
        kernel's value and slope there (Euler and Maclaurin): `end_corrections` gives the last two lags what makes those
        terms the reference's at any D. The weights of an axis sum to 2 reach + 1 (reach + 1 if causal).

        >>> Grid(16, spacing=0.5).quadrature(1.0, causal=True)[0].sum().item()
        2.0
        """
        return tuple(axis_weights(far, past, step, device) for far, past, step in self._sides(reach, causal))

    def _sides(self, reach: PerAxis[float], causal: PerAxis[bool]) -> Iterator[tuple[float, bool, float]]:
        """Reach, direction and spacing of every axis."""
        reaches = per_axis("reach", reach, self.dim, check_distance)
        return zip(reaches, per_axis("causal", causal, self.dim, check_bool), self.spacing, strict=True)


def check_spacing(name: str, value: Any) -> float:
    """Return a spacing as a float, or raise unless it is finite and positive."""
    return check_number(name, value, low=0.0)


def check_distance(name: str, value: Any) -> float:
    """Return a distance as a float, or raise unless it is finite and not negative."""
    return check_number(name, value, low=0.0, closed=True)


def count(reach: float, step: float) -> int:
    """Number of whole steps in `reach`; the tolerance keeps 3 * 0.1 inside 0.3."""
    return math.floor(reach / step * (1 + 1e-9) + 1e-9)


def axis_weights(reach: float, causal: bool, step: float, device: torch.device | None) -> Tensor:
    """Quadrature weights of one axis: `step`, corrected at both ends."""
    n = count(reach, step)
    if n == 0:  # A single lag stands for the whole window.
        return torch.full((1,), (reach if causal else 2 * reach) + 1, device=device, dtype=torch.float64)
    weights = torch.full((n + 1 if causal else 2 * n + 1,), step, device=device, dtype=torch.float64)
    last, next_to_last = end_corrections(max(0.0, reach - n * step), step)
    weights[-1] += last
    weights[-2] += next_to_last
    first, second = end_corrections(0.0, step) if causal else (last, next_to_last)
    weights[0] += first
    weights[1] += second
    return weights


def end_corrections(rest: float, step: float) -> tuple[float, float]:
    """What to add to the weights of the last two lags, when the window ends `rest` beyond the last, in [0, step).

    A sum of f over the multiples of `step` that ends `rest` before an edge s = 0 is, with Bernoulli polynomials B,
    step sum f = integral f - B_1(rest / step) step f(0) - B_2(rest / step) step^2 / 2 f'(0) - ...
    The reference has step 1 and rest 0. The two corrections reproduce the difference for f = 1 and f = s.
    """
    value = rest - step / 2 + 1 / 2
    slope = (rest**2 - rest * step + (step**2 - 1) / 6) / 2
    second = (slope - rest * value) / step
    return value - second, second
