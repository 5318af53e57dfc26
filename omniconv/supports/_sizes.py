"""The bounds of a support's learned sizes."""

from __future__ import annotations

from omniconv._errors import check_number
from omniconv._typing import PerAxis, per_axis


def narrowest_size(reach: int) -> float:
    """A quarter of a reference sample, in units of the reach."""
    return 0.25 / max(reach, 1)


def check_sizes(
    name: str, value: PerAxis[float], narrowest: tuple[float, ...], widest: float, reach: tuple[int, ...]
) -> tuple[float, ...]:
    """One size per axis, or raise `ValueError` unless each lies between its bounds."""
    sizes = per_axis(name, value, len(narrowest), lambda name, item: check_number(name, item, low=0.0))
    for size, low in zip(sizes, narrowest, strict=True):
        if not low < size < widest:
            raise ValueError(
                f"`{name}` must lie between {low:g} (a quarter of a sample at reach {reach}) and {widest:g} "
                f"(`widest`), in units of the reach; got {size:g}."
            )
    return sizes
