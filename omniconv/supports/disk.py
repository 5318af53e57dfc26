"""Balls of learned radius with a soft edge."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from omniconv._errors import check_number, check_positions
from omniconv._precision import at_least_float32
from omniconv._sharding import whole
from omniconv._sizes import bounded_sizes, size_logits
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Weights
from omniconv.supports._sizes import check_sizes, narrowest_size
from omniconv.supports._support import Support


class Disk(Support):
    """Radial window whose radius is learned: 1 within the radius, then half a cosine down to 0, by the distance |p|.

    m(p) = 1/2 + 1/2 cos(pi min(max((|p| - radius) / edge, 0), 1)), with the Euclidean norm |p|: a disk on two axes and
    a ball on three, where the axes have the same reach, and an ellipse in samples where they have not.

    `dim`, `reach`, `causal`: as in `Support`.
    `radius`: initial radius in units of the reach. Learned in (narrowest, widest), bounds it can approach but not
    leave: radius = narrowest (widest / narrowest)^sigmoid(theta).
    `edge`: width of the soft edge in units of the reach, fixed, at least a sample of the axis with the largest reach,
    because the radius is learned from the lags in the edge alone; None: 0.25, or one such sample if that is more.
    `widest`: upper bound of the radius, (0, inf). The lower bound, `narrowest`, is a quarter of such a sample.

    Raises `ValueError` if the radius is outside of its bounds or the edge too narrow.

    >>> window = Disk(2, reach=(8, 8), radius=0.5, edge=0.2)
    >>> [round(w, 3) for w in window(torch.tensor([[0.0, 0.0], [0.3, 0.4], [0.36, 0.48], [0.6, 0.6]])).tolist()]
    [1.0, 1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        dim: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        radius: float = 0.5,
        edge: float | None = None,
        widest: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, reach=reach, causal=causal)
        sample = 1 / max(*self.reach, 1)
        self.edge = check_number("edge", max(0.25, sample) if edge is None else edge, low=0.0)
        if self.edge < sample:
            raise ValueError(
                f"`edge` must be at least {sample:g}, one sample at reach {self.reach}, because the radius is learned "
                f"from the lags in the edge; got {self.edge:g}."
            )
        self.widest = check_number("widest", widest, low=0.0)
        self.narrowest = narrowest_size(max(self.reach))
        (self.initial_radius,) = check_sizes(
            "radius", (check_number("radius", radius, low=0.0),), (self.narrowest,), self.widest, self.reach
        )
        self.radius_logit = nn.Parameter(torch.empty(1, device=device, dtype=at_least_float32(dtype)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.radius_logit.copy_(size_logits((self.initial_radius,), (self.narrowest,), self.widest))

    @property
    def radius(self) -> Tensor:
        """Where the edge begins, in units of the reach, one value."""
        return bounded_sizes(self.radius_logit, (self.narrowest,), self.widest)

    def forward(self, positions: Positions) -> Weights:
        check_positions(positions, self.dim)
        # The slope of a root is infinite at zero; within the radius the window is flat, so any small number will do.
        tiny = torch.finfo(positions.dtype).tiny
        distance = positions.square().sum(-1).clamp(min=tiny).sqrt()
        share = ((distance - self.radius.to(positions.dtype)) / self.edge).clamp(0, 1)
        return 0.5 + 0.5 * torch.cos(math.pi * share)

    def extent(self, threshold: float) -> tuple[float, ...]:
        check_number("threshold", threshold, low=0.0, high=1.0)
        far = whole(self.radius) + self.edge * math.acos(2 * threshold - 1) / math.pi
        return (min(far.item(), 1.0),) * self.dim  # in this order what is not a number stays it

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, radius={self.initial_radius}, edge={self.edge}"
