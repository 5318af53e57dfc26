"""Multiplicative networks of Gabor filters."""

from __future__ import annotations

import math

import torch
from torch import nn

from omniconv._errors import check_integer, check_number
from omniconv._precision import at_least_float32
from omniconv._references import FLEXCONV_PAPER, MFN_PAPER
from omniconv._sharding import gathered
from omniconv._typing import PerAxis, Positions, Values, check_bool
from omniconv.kernels._kernel import calibrate, check_frequency
from omniconv.kernels._multiplicative import Multiplicative, single, summed_maxima


class Gabor(Multiplicative):
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
    `isotropic`: one inverse width gamma_l for all axes of a unit, so that its window depends on |p - mu_l| alone (the
    published GaborNet).

    The inverse widths gamma of filter l are drawn from Gamma(6 / (l + 1), 1) per window of length 2 (scaled down where
    `bandwidth` asks for it), and the frequencies of a unit are in proportion to them. Isotropic ones are drawn from
    Gamma(6 / (depth + 1), 1), and their published w has dim in place of sqrt(dim).
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
        isotropic: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        dtype = at_least_float32(dtype)
        self.hidden, self.depth = check_integer("hidden", hidden), check_integer("depth", depth)
        self.bandwidth, self.omega_0 = check_frequency(bandwidth, omega_0, default=1.0)
        self.spread = check_number("spread", spread, low=0.0, high=1.0)
        self.isotropic = check_bool("isotropic", isotropic)
        widths = 1 if self.isotropic else dim
        self.inverse_width = nn.Parameter(torch.empty(depth + 1, hidden, widths, device=device, dtype=dtype))
        self.centre = nn.Parameter(torch.empty(depth + 1, hidden, dim, device=device, dtype=dtype))
        self.make_layers(device, dtype)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        gamma = self._draw_inverse_widths()
        self.inverse_width.copy_(gamma)
        for d, past in enumerate(self.causal):
            nn.init.uniform_(self.centre[..., d], 0.0 if past else -self.spread, self.spread)
        self.draw_layers(self._frequency_scale(gamma))
        calibrate(self, self.output_weight)

    def _draw_inverse_widths(self) -> torch.Tensor:
        layers = range(self.depth + 1)
        shape = single([6 / (self.depth + 1 if self.isotropic else layer + 1) for layer in layers])
        gamma = torch._standard_gamma(shape[:, None, None].expand(self.inverse_width.shape).contiguous())
        lengths = single([2.0 if past else 1.0 for past in self.causal])  # a causal window has length 1
        gamma = gamma * (lengths.amin() if self.isotropic else lengths)
        if self.omega_0 is None:
            scale = (self.budget() / 2 / summed_maxima(2 * gamma)).clamp(max=1.0)
            gamma = gamma * (scale.amin() if self.isotropic else scale)
        return gamma

    def _frequency_scale(self, gamma: torch.Tensor) -> torch.Tensor:
        """Largest frequency of each unit, in proportion to its inverse width."""
        if self.omega_0 is not None:
            return 2 * math.pi * self.omega_0 * gamma / (self.dim if self.isotropic else math.sqrt(self.dim))
        return gamma / summed_maxima(gamma) * (self.budget() - summed_maxima(2 * gamma))

    def filter(self, index: int, positions: Positions) -> Values:
        gamma = self.inverse_width[index].to(positions.dtype).expand(-1, self.dim)
        centre = self.centre[index].to(positions.dtype)
        exponent = torch.zeros((), dtype=positions.dtype, device=positions.device)
        for d in range(self.dim):
            exponent = exponent - 0.5 * (gamma[:, d] * (positions[..., d, None] - centre[:, d])).square()
        return torch.exp(exponent) * self.sine(index, positions)

    def spectral_widths(self) -> torch.Tensor:
        """Frequency of the sine plus two standard deviations of the window's spectrum."""
        return gathered(self.frequency).abs() + 2 * gathered(self.inverse_width).abs()
