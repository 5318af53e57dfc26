"""Gaussian windows of learned size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from omniconv._constants import numbers
from omniconv._errors import check_number, check_positions
from omniconv._precision import at_least_float32
from omniconv._references import FLEXCONV_PAPER
from omniconv._sharding import gathered, whole
from omniconv._sizes import bounded_sizes, size_logits
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Weights, check_bool
from omniconv.supports._sizes import check_sizes, narrowest_size
from omniconv.supports._support import Support


class Gaussian(Support):
    """Gaussian window exp(-1/2 sum_d (p_d - mean_d)^2 / width_d^2) whose width, and optionally mean, are learned.

    `dim`, `reach`, `causal`: as in `Support`. On a causal axis the window is anchored at the zero lag, "now": mean 0.
    `width`: initial standard deviation in units of the reach, one or one per axis. Learned in
    (narrowest, widest), bounds it can approach but not leave: width = narrowest (widest / narrowest)^sigmoid(theta).
    `widest`: upper bound of the width, (0, inf). The lower bound, `narrowest`, is a quarter of a reference sample.
    `learn_mean`: learn the centre, initially at the zero lag, in (-1, 1), on the axes that are not causal.

    Raises `ValueError` if a width is outside of its bounds, or if there is no axis to learn a mean on.

    >>> window = Gaussian(1, reach=10, width=0.3)
    >>> [round(w, 3) for w in window(torch.tensor([[0.0], [0.3], [0.6]])).tolist()]
    [1.0, 0.607, 0.135]

    Romero et al. 2022 (FlexConv).
    """

    references = (FLEXCONV_PAPER,)

    def __init__(
        self,
        dim: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        width: PerAxis[float] = 0.3,
        widest: float = 2.0,
        learn_mean: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, reach=reach, causal=causal)
        self.widest = check_number("widest", widest, low=0.0)
        self.narrowest = tuple(narrowest_size(far) for far in self.reach)
        self.initial_width = check_sizes("width", width, self.narrowest, self.widest, self.reach)
        if check_bool("learn_mean", learn_mean) and all(self.causal):
            raise ValueError(
                "`learn_mean` needs an axis that is not causal: a causal window is anchored at the zero lag."
            )
        dtype = at_least_float32(dtype)
        self.width_logit = nn.Parameter(torch.empty(dim, device=device, dtype=dtype))
        self.mean_logit = nn.Parameter(torch.empty(dim, device=device, dtype=dtype)) if learn_mean else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.width_logit.copy_(size_logits(self.initial_width, self.narrowest, self.widest))
        if self.mean_logit is not None:
            self.mean_logit.zero_()

    @property
    def width(self) -> Tensor:
        """Standard deviation per axis, in units of the reach."""
        return bounded_sizes(self.width_logit, self.narrowest, self.widest)

    @property
    def mean(self) -> Tensor:
        """Centre per axis, in units of the reach; exactly the zero lag unless it is learned."""
        if self.mean_logit is None:
            return torch.zeros_like(self.width_logit)
        return torch.tanh(self.mean_logit) * numbers([not past for past in self.causal], self.mean_logit)

    def forward(self, positions: Positions) -> Weights:
        check_positions(positions, self.dim)
        offset = (positions - self.mean.to(positions.dtype)) / self.width.to(positions.dtype)
        return torch.exp(-0.5 * offset.square().sum(-1))

    def extent(self, threshold: float) -> tuple[float, ...]:
        check_number("threshold", threshold, low=0.0, high=1.0)
        radius = whole(self.width) * math.sqrt(-2 * math.log(threshold))
        return tuple((whole(self.mean).abs() + radius).clamp(max=1.0).tolist())

    def bandwidth(self) -> Tensor:
        """Two standard deviations of the window's spectrum: 2 / (pi reach width)."""
        width = bounded_sizes(gathered(self.width_logit), self.narrowest, self.widest)
        return 2 / (math.pi * numbers(self.reach, width).clamp(min=1) * width)

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, width={self.initial_width}, learn_mean={self.mean_logit is not None}"
