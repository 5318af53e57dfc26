"""Multiplicative networks of sines."""

from __future__ import annotations

import math

import torch

from omniconv._errors import check_integer
from omniconv._precision import at_least_float32
from omniconv._references import MFN_PAPER
from omniconv._sharding import gathered
from omniconv._typing import PerAxis, Positions, Values
from omniconv.kernels._kernel import calibrate, check_frequency
from omniconv.kernels._multiplicative import Multiplicative, single


class FourierNet(Multiplicative):
    """Multiplicative filter network with sines: a trigonometric polynomial whose band limit is known.

    g_l(p) = sin(w_l . p + b_l), for each hidden unit,
    z_0 = g_0(p);  z_l = g_l(p) * (A_l z_{l-1} + a_l), l = 1 .. depth;  k(p) = A z_depth + a.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `hidden`: units per filter, at least 1. `depth`: multiplications, at least 1; there are `depth + 1` filters.
    `bandwidth`: bound on `bandlimit()` at construction, in units of the reference grid's Nyquist frequency, (0, inf);
    1 if neither this nor `omega_0` is given. In a product the frequencies add: those of a filter are uniform in
    [-bandwidth, bandwidth] / (depth + 1).
    `omega_0`: the published parameter instead of `bandwidth`, for replication: w ~ U(-1, 1) 2 pi omega_0 / dim per unit
    of a position that spans [-1, 1] whether the kernel is causal or not.

    The phases are uniform, the A_l uniform with variance 2 / hidden (a sine halves a variance), the a_l one.
    Raises `ValueError` or `TypeError` for values out of range.

    >>> FourierNet(2, 3, reach=(4, 8))(torch.zeros(5, 2)).shape
    torch.Size([5, 3])

    Fathony et al. 2021.
    """

    references = (MFN_PAPER,)

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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        self.hidden, self.depth = check_integer("hidden", hidden), check_integer("depth", depth)
        self.bandwidth, self.omega_0 = check_frequency(bandwidth, omega_0, default=1.0)
        self.make_layers(device, at_least_float32(dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.draw_layers(self._highest_frequencies(), gain=math.sqrt(2))
        calibrate(self, self.output_weight)

    def _highest_frequencies(self) -> torch.Tensor:
        if self.omega_0 is None:
            return self.budget() / (self.depth + 1)
        # The published position runs over an interval of length 2; ours over 1 on a causal axis.
        return 2 * math.pi * self.omega_0 / self.dim * single([2.0 if past else 1.0 for past in self.causal])

    def filter(self, index: int, positions: Positions) -> Values:
        return self.sine(index, positions)

    def spectral_widths(self) -> torch.Tensor:
        """Frequency of the sine."""
        return gathered(self.frequency).abs()
