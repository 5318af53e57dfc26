"""A kernel as layers hand it to convolutions of signals that lie on no grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Lags(NamedTuple):
    """`values(lags)` gives the kernel, `out in points` (dense) or `channels points`, at any lags `points dim`.

    It reaches to lags of `window`, per axis, in samples of the reference grid, of the past alone where `causal`; `size`
    values are taken at every lag.
    """

    values: Callable[[Tensor], Tensor]
    size: int
    window: tuple[int, ...]
    causal: tuple[bool, ...]
    engine: str
