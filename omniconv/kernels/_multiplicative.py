"""What multiplicative filter networks share: products of filters, each linear in the product before."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from omniconv._errors import check_positions
from omniconv._tags import Tag
from omniconv._typing import Positions, Values
from omniconv.kernels._kernel import Kernel, affine, phases


class Multiplicative(Kernel):
    """z_0 = g_0(p);  z_l = g_l(p) * (A_l z_{l-1} + a_l), l = 1 .. depth;  k(p) = A z_depth + a, with filters g.

    A subclass sets `hidden`, `depth` and `bandwidth`, calls `make_layers` in its constructor and `draw_layers` in
    `reset_parameters`, and writes `filter`.
    """

    hidden: int
    depth: int
    bandwidth: float

    def make_layers(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Add the frequencies and phases of the sines in the filters, and the linear maps between the filters."""
        depth, hidden = self.depth, self.hidden
        self.frequency = nn.Parameter(torch.empty(depth + 1, hidden, self.dim, device=device, dtype=dtype))
        self.phase = nn.Parameter(torch.empty(depth + 1, hidden, device=device, dtype=dtype))
        self.hidden_weight = nn.Parameter(torch.empty(depth, hidden, hidden, device=device, dtype=dtype))
        self.hidden_bias = nn.Parameter(torch.empty(depth, hidden, device=device, dtype=dtype))
        self.output_weight = nn.Parameter(torch.empty(self.channels, hidden, device=device, dtype=dtype))
        self.output_bias = nn.Parameter(torch.empty(self.channels, device=device, dtype=dtype))

    @torch.no_grad()
    def draw_layers(self, highest: Tensor, gain: float = 1.0) -> None:
        """Draw frequencies in [-highest, highest], phases, and linear maps of variance `gain**2 / hidden`."""
        nn.init.uniform_(self.frequency, -1.0, 1.0)
        self.frequency.mul_(highest.to(self.frequency))
        nn.init.uniform_(self.phase, -math.pi, math.pi)
        bound = gain * math.sqrt(3 / self.hidden)
        nn.init.uniform_(self.hidden_weight, -bound, bound)
        nn.init.ones_(self.hidden_bias)
        nn.init.uniform_(self.output_weight, -bound, bound)
        nn.init.zeros_(self.output_bias)

    def budget(self) -> Tensor:
        """Highest frequency allowed per axis, in radians per unit of position."""
        return self.bandwidth * single(self.nyquist())

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        values = self.filter(0, positions)
        for index, (weight, bias) in enumerate(zip(self.hidden_weight, self.hidden_bias, strict=True), start=1):
            values = self.filter(index, positions) * affine(values, weight, bias)
        return affine(values, self.output_weight, self.output_bias)

    @abstractmethod
    def filter(self, index: int, positions: Positions) -> Values:
        """Values of that filter, `*points hidden`."""

    def sine(self, index: int, positions: Positions) -> Values:
        """The sine of that filter."""
        return torch.sin(phases(positions, self.frequency[index], self.phase[index]))

    @abstractmethod
    def spectral_widths(self) -> Tensor:
        """Highest frequency of every unit, in radians per unit of position, `filters hidden dim`, differentiable."""

    def bandwidths(self) -> Tensor:
        """The highest frequency among the units of each filter, per axis in Nyquist units."""
        return self.in_nyquist_units(self.spectral_widths().amax(1))

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}


def summed_maxima(width: Tensor) -> Tensor:
    """The largest spectral width among the units of each filter, summed over the filters, per axis."""
    return width.amax(1).sum(0)


def single(values: list[float]) -> Tensor:
    """Values in float32 on the CPU, whatever the defaults: the sampler of the Gamma distribution needs both."""
    return torch.tensor(values, dtype=torch.float32, device="cpu")
