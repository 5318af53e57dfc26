"""Multiplicative networks of anisotropic Gabor filters."""

from __future__ import annotations

import math

import torch
from torch import nn

from omniconv._errors import check_integer, check_number, check_positions
from omniconv._precision import at_least_float32
from omniconv._references import FLEXCONV_PAPER, MFN_PAPER
from omniconv._sharding import whole
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Values
from omniconv.kernels._kernel import Kernel, affine, calibrate, check_frequency, phases


class Gabor(Kernel):
    """Multiplicative anisotropic Gabor network (MAGNet): products of windowed sines, each linear in the one before.

    g_l(p) = exp(-1/2 sum_d gamma_ld^2 (p_d - mu_ld)^2) sin(w_l . p + b_l), for each hidden unit,
    z_0 = g_0(p);  z_l = g_l(p) * (A_l z_{l-1} + a_l), l = 1 .. depth;  k(p) = A z_depth + a.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `hidden`: units per filter, at least 1. `depth`: multiplications, at least 1; there are `depth + 1` filters.
    `bandwidth`: bound on `bandlimit()` at construction, in units of the reference grid's Nyquist frequency, (0, inf);
    1 if neither this nor `omega_0` is given. In a product the frequencies add, so it bounds their sum over the filters;
    windows get at most half of it.
    `omega_0`: the published parameter instead of `bandwidth`, for replication:
    w ~ U(-1, 1) 2 pi omega_0 gamma / sqrt(dim).
    `spread`: the filters' centres are drawn within this fraction of the window around the zero lag, (0, 1].

    The inverse widths gamma of filter l are drawn from Gamma(6 / (l + 1), 1) per window of length 2 (scaled down where
    `bandwidth` asks for it), and the frequencies of a unit are in proportion to them.
    Raises `ValueError` or `TypeError` for values out of range.

    >>> Gabor(2, 3, reach=(4, 8))(torch.zeros(5, 2)).shape
    torch.Size([5, 3])

    Romero et al. 2022 (FlexConv), after Fathony et al. 2021.
    """

    references = (FLEXCONV_PAPER, MFN_PAPER)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        hidden: int = 32,
        depth: int = 3,
        bandwidth: float | None = None,
        omega_0: float | None = None,
        spread: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        dtype = at_least_float32(dtype)
        self.hidden, self.depth = check_integer("hidden", hidden), check_integer("depth", depth)
        self.bandwidth, self.omega_0 = check_frequency(bandwidth, omega_0, default=1.0)
        self.spread = check_number("spread", spread, low=0.0, high=1.0)
        filters = (depth + 1, hidden, dim)
        self.inverse_width = nn.Parameter(torch.empty(filters, device=device, dtype=dtype))
        self.centre = nn.Parameter(torch.empty(filters, device=device, dtype=dtype))
        self.frequency = nn.Parameter(torch.empty(filters, device=device, dtype=dtype))
        self.phase = nn.Parameter(torch.empty(filters[:2], device=device, dtype=dtype))
        self.hidden_weight = nn.Parameter(torch.empty(depth, hidden, hidden, device=device, dtype=dtype))
        self.hidden_bias = nn.Parameter(torch.empty(depth, hidden, device=device, dtype=dtype))
        self.output_weight = nn.Parameter(torch.empty(channels, hidden, device=device, dtype=dtype))
        self.output_bias = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        shape = single([6 / (layer + 1) for layer in range(self.depth + 1)])
        gamma = torch._standard_gamma(shape[:, None, None].expand(-1, self.hidden, self.dim).contiguous())
        gamma = gamma * single([2.0 if past else 1.0 for past in self.causal])  # a causal window has length 1
        if self.omega_0 is None:
            gamma = gamma * (self._budget() / 2 / summed_maxima(2 * gamma)).clamp(max=1.0)
        self.inverse_width.copy_(gamma)
        for d, past in enumerate(self.causal):
            nn.init.uniform_(self.centre[..., d], 0.0 if past else -self.spread, self.spread)
        nn.init.uniform_(self.frequency, -1.0, 1.0)
        self.frequency.mul_(self._frequency_scale(gamma).to(self.frequency))
        nn.init.uniform_(self.phase, -math.pi, math.pi)
        bound = math.sqrt(3 / self.hidden)
        nn.init.uniform_(self.hidden_weight, -bound, bound)
        nn.init.ones_(self.hidden_bias)
        nn.init.uniform_(self.output_weight, -bound, bound)
        nn.init.zeros_(self.output_bias)
        calibrate(self, self.output_weight)

    def _frequency_scale(self, gamma: torch.Tensor) -> torch.Tensor:
        """Largest frequency of each unit, in proportion to its inverse width."""
        if self.omega_0 is not None:
            return 2 * math.pi * self.omega_0 * gamma / math.sqrt(self.dim)
        return gamma / summed_maxima(gamma) * (self._budget() - summed_maxima(2 * gamma))

    def _budget(self) -> torch.Tensor:
        """Highest frequency allowed per axis, in radians per unit of position."""
        return self.bandwidth * single(self.nyquist())

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        values = self._filter(0, positions)
        for index, (weight, bias) in enumerate(zip(self.hidden_weight, self.hidden_bias, strict=True), start=1):
            values = self._filter(index, positions) * affine(values, weight, bias)
        return affine(values, self.output_weight, self.output_bias)

    def _filter(self, index: int, positions: Positions) -> torch.Tensor:
        gamma, centre = self.inverse_width[index].to(positions.dtype), self.centre[index].to(positions.dtype)
        exponent = torch.zeros((), dtype=positions.dtype, device=positions.device)
        for d in range(self.dim):
            exponent = exponent - 0.5 * (gamma[:, d] * (positions[..., d, None] - centre[:, d])).square()
        return torch.exp(exponent) * torch.sin(phases(positions, self.frequency[index], self.phase[index]))

    def bandlimit(self) -> tuple[float, ...]:
        """Bound per axis in Nyquist units: sines plus two standard deviations of the windows' spectra, summed."""
        width = whole(self.frequency).abs() + 2 * whole(self.inverse_width).abs()
        highest = summed_maxima(width).tolist()
        return tuple(top / nyquist for top, nyquist in zip(highest, self.nyquist(), strict=True))

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}


def summed_maxima(width: torch.Tensor) -> torch.Tensor:
    """The largest spectral width among the units of each filter, summed over the filters, per axis."""
    return width.amax(1).sum(0)


def single(values: list[float]) -> torch.Tensor:
    """Values in float32 on the CPU, whatever the defaults: the sampler of the Gamma distribution needs both."""
    return torch.tensor(values, dtype=torch.float32, device="cpu")
