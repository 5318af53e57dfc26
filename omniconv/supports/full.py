"""No limit within the reach."""

from __future__ import annotations

import torch

from omniconv._errors import check_number, check_positions
from omniconv._typing import PerAxis, Positions, Weights
from omniconv.supports._support import Support


class Full(Support):
    """Weight 1 everywhere: the kernel fills its whole reach.

    >>> Full(1, reach=4)(torch.zeros(3, 1)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        dim: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, reach=reach, causal=causal)

    def reset_parameters(self) -> None:
        """Nothing is learned."""

    def forward(self, positions: Positions) -> Weights:
        check_positions(positions, self.dim)
        return positions.new_ones(positions.shape[:-1])

    @property
    def everywhere_one(self) -> bool:
        return True

    def extent(self, threshold: float) -> tuple[float, ...]:
        check_number("threshold", threshold, low=0.0, high=1.0)
        return (1.0,) * self.dim
