"""Supports that act together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from omniconv._errors import check_positions, describe
from omniconv._factories import build
from omniconv._typing import PerAxis, Positions, Weights
from omniconv.supports._support import Support, SupportFactory


class Product(Support):
    """Product of supports: m(p) = m_1(p) m_2(p) ...

    `dim`, `reach`, `causal`: as in `Support`.
    `factors`: `Support` classes, or `functools.partial` of them, at least one; each keeps its own learned sizes.

    Its extent is the smallest one of its factors per axis: none of them exceeds 1, so that beyond it the product, too,
    is below the threshold. Raises `TypeError` or `ValueError` for factors that are no supports of these
    sizes.

    >>> from functools import partial
    >>> from omniconv.supports import Decay, Disk
    >>> window = Product(1, reach=10, factors=(partial(Decay, width=0.5), partial(Disk, radius=0.5, edge=0.5)))
    >>> [round(w, 3) for w in window(torch.tensor([[0.0], [0.5], [0.75]])).tolist()]
    [1.0, 0.368, 0.112]
    """

    def __init__(
        self,
        dim: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        factors: Sequence[SupportFactory],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, reach=reach, causal=causal)
        if not isinstance(factors, Sequence) or not factors:
            raise TypeError(
                f"`factors` must be a tuple of at least one Support class or functools.partial of one; "
                f"got {describe(factors)}."
            )
        where: dict[str, Any] = {"reach": self.reach, "causal": self.causal, "device": device, "dtype": dtype}
        self.factors = nn.ModuleList(
            build(factory, Support, f"factors[{index}]", (dim,), where) for index, factory in enumerate(factors)
        )

    def reset_parameters(self) -> None:
        for factor in self._factors():
            factor.reset_parameters()

    def _factors(self) -> list[Support]:
        """The factors, as what they are."""
        return [cast(Support, factor) for factor in self.factors]

    def forward(self, positions: Positions) -> Weights:
        check_positions(positions, self.dim)
        weights: Tensor = positions.new_ones(positions.shape[:-1])
        for factor in self.factors:
            weights = weights * factor(positions)
        return weights

    def extent(self, threshold: float) -> tuple[float, ...]:
        extents = [factor.extent(threshold) for factor in self._factors()]
        return tuple(min(axis) for axis in zip(*extents, strict=True))

    @property
    def everywhere_one(self) -> bool:
        return all(factor.everywhere_one for factor in self._factors())

    def bandwidth(self) -> Tensor | None:
        """The sum of those of the factors, which is where their product ends; None unless all of them are known."""
        known = [width for factor in self._factors() if (width := factor.bandwidth()) is not None]
        return torch.stack(known).sum(0) if len(known) == len(self.factors) else None
