"""Series: sums of fixed functions of each axis, with learned coefficients."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_number, check_positions
from omniconv._precision import at_least_float32
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Values
from omniconv.kernels._kernel import Kernel, calibrate


class Series(Kernel):
    """A constant, and a series of at most `terms` orders on every axis: k(p) = a_0 + sum_d sum_j a_dj B_j(p_d).

    Orders whose frequencies exceed `bandwidth` are left out. `functions`: number of functions per order. A subclass
    writes `rate` and `axis_functions`.
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool],
        terms: int,
        bandwidth: float,
        functions: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        self.bandwidth = check_number("bandwidth", bandwidth, low=0.0)
        highest = (bandwidth * nyquist / self.rate(axis) for axis, nyquist in enumerate(self.nyquist()))
        self.orders = tuple(max(1, min(terms, math.floor(order + 1e-6))) for order in highest)
        width = 1 + functions * sum(self.orders)
        self.coefficients = nn.Parameter(torch.empty(channels, width, device=device, dtype=at_least_float32(dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.coefficients)
        calibrate(self, self.coefficients)

    @abstractmethod
    def rate(self, axis: int) -> float:
        """Highest frequency of order 1 on that axis, in radians per unit of position; order k has k times as much."""

    @abstractmethod
    def axis_functions(self, positions: Tensor, axis: int) -> list[Tensor]:
        """The functions of that axis, order after order, at its positions (`*points`), each as `*points`."""

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        functions = [torch.ones_like(positions[..., 0])]
        for axis in range(self.dim):
            functions += self.axis_functions(positions[..., axis], axis)
        return F.linear(torch.stack(functions, dim=-1), self.coefficients.to(positions.dtype))

    def bandwidths(self) -> Tensor:
        """Frequency of the highest order, in Nyquist units."""
        highest = [order * self.rate(axis) for axis, order in enumerate(self.orders)]
        return self.in_nyquist_units(torch.tensor([highest], dtype=torch.float64, device="cpu"))

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, orders={self.orders}"
