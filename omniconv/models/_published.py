"""The kernels and supports of the published networks, in the units of this library."""

from __future__ import annotations

import math
from functools import partial

from omniconv._typing import PerAxis, check_bool, check_reach, per_axis
from omniconv.domains.grid import Grid
from omniconv.kernels import Gabor
from omniconv.supports import Gaussian

PUBLISHED_WIDTH = 0.075
"""Initial width of the published Gaussian supports, on positions in [-1, 1] whether the kernel is causal or not."""

FLEXCONV_OMEGA_0 = 25.6 / 2 / (2 * math.pi)
"""FlexConv draws w from U(-1, 1) 25.6 gamma / sqrt(depth + 1) / sqrt(dim), with depth 3."""


def published_kernel(
    size: PerAxis[int],
    causal: PerAxis[bool],
    *,
    hidden: int = 32,
    width: float = PUBLISHED_WIDTH,
    omega_0: float | None = None,
) -> partial[Gabor]:
    """A Gabor network whose filters are centred within 5/3 widths of the zero lag.

    A causal axis here has the unit of position that two published units make.
    """
    pasts = per_axis("causal", causal, Grid(size).dim, check_bool)
    spread = min(1.0, 5 / 3 * width) / (2 if any(pasts) else 1)
    return partial(Gabor, hidden=hidden, spread=spread, omega_0=omega_0)


def published_support(
    size: PerAxis[int],
    causal: PerAxis[bool],
    *,
    width: float = PUBLISHED_WIDTH,
    reach: PerAxis[int] | None = None,
    learn_mean: bool = False,
) -> partial[Gaussian]:
    """A Gaussian of the published width, or of half a sample on grids so small that this is wider.

    `learn_mean`: whether the mean is learned on the axes that are not causal. Widths as plain numbers: they can be
    saved.
    """
    sizes = Grid(size).size
    pasts = per_axis("causal", causal, len(sizes), check_bool)
    farthest = [n - 1 if past else n // 2 for n, past in zip(sizes, pasts, strict=True)]
    reaches = farthest if reach is None else per_axis("reach", reach, len(sizes), check_reach)
    widths = [max(width / (2 if past else 1), 0.5 / max(far, 1)) for far, past in zip(reaches, pasts, strict=True)]
    return partial(Gaussian, width=widths, learn_mean=learn_mean and not all(pasts))
