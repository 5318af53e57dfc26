"""Smooth steps of learned place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_number, check_positions
from omniconv._precision import at_least_float32
from omniconv._references import DNARCH_PAPER
from omniconv._sharding import whole
from omniconv._sizes import bounded_sizes, size_logits
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Weights
from omniconv.supports._sizes import check_sizes, narrowest_size
from omniconv.supports._support import Support


class Sigmoid(Support):
    """Smooth step down at a learned distance on every axis: flat before it, exponential beyond it.

    m(p) = prod_d sigmoid((offset_d - |p_d|) / temperature) / sigmoid(offset_d / temperature): 1 at the zero lag.

    `dim`, `reach`, `causal`: as in `Support`.
    `offset`: initial distance of the step in units of the reach, one or one per axis. Learned in (narrowest, widest),
    bounds it can approach but not leave: offset = narrowest (widest / narrowest)^sigmoid(theta).
    `temperature`: width of the step in units of the reach, fixed, at least a quarter of a sample of the axis with the
    smallest reach above 0, because the offset is learned from the lags in the step alone; None: 0.05, or a quarter of
    such a sample if that is more.
    `widest`: upper bound of the offset, (0, inf). The lower bound, `narrowest`, is a quarter of a reference sample.

    Raises `ValueError` if an offset is outside of its bounds or the temperature too low.

    >>> window = Sigmoid(1, reach=10, offset=0.5, temperature=0.1)
    >>> [round(w, 3) for w in window(torch.tensor([[0.0], [0.25], [-0.5], [1.0]])).tolist()]
    [1.0, 0.93, 0.503, 0.007]

    Romero and Zeghidour 2023 (DNArch).
    """

    references = (DNARCH_PAPER,)

    def __init__(
        self,
        dim: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        offset: PerAxis[float] = 0.5,
        temperature: float | None = None,
        widest: float = 2.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, reach=reach, causal=causal)
        # An axis of reach 0 has no step to learn: its one lag weighs 1.
        coarsest = narrowest_size(min((far for far in self.reach if far), default=0))
        self.temperature = check_number(
            "temperature", max(0.05, coarsest) if temperature is None else temperature, low=0.0
        )
        if self.temperature < coarsest:
            raise ValueError(
                f"`temperature` must be at least {coarsest:g}, a quarter of a sample at reach {self.reach}, because "
                f"the offset is learned from the lags in the step; got {self.temperature:g}."
            )
        self.widest = check_number("widest", widest, low=0.0)
        self.narrowest = tuple(narrowest_size(far) for far in self.reach)
        self.initial_offset = check_sizes("offset", offset, self.narrowest, self.widest, self.reach)
        self.offset_logit = nn.Parameter(torch.empty(dim, device=device, dtype=at_least_float32(dtype)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.offset_logit.copy_(size_logits(self.initial_offset, self.narrowest, self.widest))

    @property
    def offset(self) -> Tensor:
        """Distance of the step per axis, in units of the reach."""
        return bounded_sizes(self.offset_logit, self.narrowest, self.widest)

    def forward(self, positions: Positions) -> Weights:
        check_positions(positions, self.dim)
        offset = self.offset.to(positions.dtype)
        # In logarithms, so that far beyond the step the derivative is still that of the formula.
        step = F.logsigmoid((offset - positions.abs()) / self.temperature) - F.logsigmoid(offset / self.temperature)
        return torch.exp(step.sum(-1))

    def extent(self, threshold: float) -> tuple[float, ...]:
        check_number("threshold", threshold, low=0.0, high=1.0)
        offset = whole(self.offset)
        # sigmoid((offset - r) / T) = threshold sigmoid(offset / T), solved for r.
        share = (1 - threshold + torch.exp(-offset / self.temperature)) / threshold
        return tuple((offset + self.temperature * share.log()).clamp(0.0, 1.0).tolist())

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, offset={self.initial_offset}, temperature={self.temperature}"
