"""Exponential windows of learned size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from omniconv._errors import check_number, check_positions
from omniconv._precision import at_least_float32
from omniconv._references import HYENA_PAPER
from omniconv._sharding import whole
from omniconv._sizes import bounded_sizes, size_logits
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Weights
from omniconv.supports._sizes import check_sizes, narrowest_size
from omniconv.supports._support import Support


class Decay(Support):
    """Exponential window exp(-sum_d |p_d| / width_d) whose width is learned: a memory that fades at a constant rate.

    `dim`, `reach`, `causal`: as in `Support`.
    `width`: initial distance, in units of the reach, over which the weight falls by a factor e, one or one per axis.
    Learned in (narrowest, widest), bounds it can approach but not leave:
    width = narrowest (widest / narrowest)^sigmoid(theta).
    `widest`: upper bound of the width, (0, inf). The lower bound, `narrowest`, is a quarter of a reference sample.

    Raises `ValueError` if a width is outside of its bounds.

    >>> window = Decay(1, reach=10, causal=True, width=0.5)
    >>> [round(w, 3) for w in window(torch.tensor([[0.0], [0.5], [1.0]])).tolist()]
    [1.0, 0.368, 0.135]

    Poli et al. 2023 (Hyena), where the rates are fixed.
    """

    references = (HYENA_PAPER,)

    def __init__(
        self,
        dim: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        width: PerAxis[float] = 0.3,
        widest: float = 2.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, reach=reach, causal=causal)
        self.widest = check_number("widest", widest, low=0.0)
        self.narrowest = tuple(narrowest_size(far) for far in self.reach)
        self.initial_width = check_sizes("width", width, self.narrowest, self.widest, self.reach)
        self.width_logit = nn.Parameter(torch.empty(dim, device=device, dtype=at_least_float32(dtype)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.width_logit.copy_(size_logits(self.initial_width, self.narrowest, self.widest))

    @property
    def width(self) -> Tensor:
        """Distance per axis over which the weight falls by a factor e, in units of the reach."""
        return bounded_sizes(self.width_logit, self.narrowest, self.widest)

    def forward(self, positions: Positions) -> Weights:
        check_positions(positions, self.dim)
        return torch.exp(-(positions.abs() / self.width.to(positions.dtype)).sum(-1))

    def extent(self, threshold: float) -> tuple[float, ...]:
        check_number("threshold", threshold, low=0.0, high=1.0)
        return tuple((whole(self.width) * -math.log(threshold)).clamp(max=1.0).tolist())

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, width={self.initial_width}"
