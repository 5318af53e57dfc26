"""Values on a lattice, and multilinear interpolation between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from omniconv._constants import numbers
from omniconv._typing import Positions, Values

MOST = 2**27
"""Values that a lattice may hold: half a gigabyte in float32."""


def check_values(kernel: str, size: Sequence[int], channels: int = 1) -> None:
    """Raise `ValueError` if a lattice of that size, which grows with every axis, has more than `MOST` values."""
    values = math.prod(size) * channels
    if values > MOST:
        raise ValueError(
            f"`reach` on {len(size)} axes makes a lattice of {values:.1e} values for {kernel}, more than {MOST:.1e}. "
            "Give a smaller reach, or a kernel without a lattice, such as SIREN."
        )


def lattice_size(reach: tuple[int, ...], causal: tuple[bool, ...]) -> list[int]:
    """Number of reference lags per axis: from -reach (0 if causal) to reach."""
    return [far + 1 if past else 2 * far + 1 for far, past in zip(reach, causal, strict=True)]


def lattice_index(positions: Positions, reach: tuple[int, ...], causal: tuple[bool, ...]) -> Tensor:
    """Where the positions lie among the reference lags, counted from the first one, as `*points dim`."""
    far = numbers([max(r, 1) for r in reach], positions)
    first = [0 if past else -r for r, past in zip(reach, causal, strict=True)]
    index = positions * far - numbers(first, positions)
    # Positions are lags over reach: on the lattice, undo the rounding of that division.
    nearest, rounding = index.round(), 8 * torch.finfo(index.dtype).eps * max(*reach, 1)
    return torch.where((index - nearest).abs() < rounding, nearest.detach(), index)


def multilinear(taps: Tensor, index: Tensor) -> Values:
    """`taps` (`*size channels`) at `index` (`*points dim`), linear along each axis, and linear to zero beyond the ends.

    sum_i taps[i] prod_d max(0, 1 - |index_d - i_d|).
    """
    values = torch.zeros((), dtype=index.dtype, device=index.device)
    for corner in product((0, 1), repeat=index.shape[-1]):
        cell = index.floor() + numbers(corner, index)
        weight = (1 - (index - cell).abs()).prod(-1, keepdim=True)
        inside = torch.stack([(c >= 0) & (c < n) for c, n in zip(cell.unbind(-1), taps.shape, strict=False)]).all(0)
        cells = [c.clamp(0, n - 1).long() for c, n in zip(cell.unbind(-1), taps.shape, strict=False)]
        values = values + torch.where(inside[..., None], weight, 0.0) * taps[tuple(cells)]
    return values
