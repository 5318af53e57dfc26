"""The filter of Hyena: a sine network on harmonics of the position, under an exponential window."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_integer, check_number, check_positions
from omniconv._precision import at_least_float32
from omniconv._references import HYENA_PAPER
from omniconv._sharding import gathered
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Values
from omniconv.kernels._kernel import Kernel, affine, calibrate

TARGET = 0.01
"""What the window has fallen to at the distances `fast` and `slow`."""


class HyenaFilter(Kernel):
    """A sine network on harmonics of the position, under a window that falls at another rate in every channel.

    z_0 = [p_d, cos(2 pi f_db p_d), sin(2 pi f_db p_d): axes d, bands b];
    z_l = sin(w * (A_l z_{l-1} + a_l)), l = 1 .. depth - 1;
    k_c(p) = (A z_{depth-1})_c (exp(-rate_c sum_d |p_d|) + shift).

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `bands`: harmonics per axis; f_b is evenly spaced from 1e-4 to `bands - 1` periods per reach, or to the Nyquist
    frequency of the reference grid where that is lower.
    `hidden`: units per layer, at least 1. `depth`: linear layers with the output, at least 2.
    `frequency`: w at construction, (0, inf), without a unit. It is learned per unit, the same one in every layer. Each
    layer spreads the harmonics the wider the larger it is: at a reach of 1000 the default 1 leaves them at 0.03 of the
    Nyquist frequency, 5 makes them 0.4, and the published 10 and 14 noise beyond it.
    `fast`, `slow`: distance in units of the reach at which the window of the last and of the first channel has fallen
    to 1/100, (0, inf); the rates are evenly spaced between ln(100) / slow and ln(100) / fast, and not learned.
    `shift`: what the window falls to, at least 0.

    All linear maps have torch's default distribution, as published. A layer multiplies this window by its support:
    `Full` leaves it as published. Raises `ValueError` or `TypeError` for values out of range.

    >>> HyenaFilter(1, 4, reach=16, causal=True)(torch.zeros(5, 1)).shape
    torch.Size([5, 4])

    Poli et al. 2023 (Hyena).
    """

    references = (HYENA_PAPER,)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        bands: int = 16,
        hidden: int = 64,
        depth: int = 4,
        frequency: float = 1.0,
        fast: float = 0.3,
        slow: float = 1.5,
        shift: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        dtype = at_least_float32(dtype)
        self.bands = check_integer("bands", bands)
        self.hidden, self.depth = check_integer("hidden", hidden), check_integer("depth", depth, minimum=2)
        self.initial_frequency = check_number("frequency", frequency, low=0.0)
        self.fast, self.slow = check_number("fast", fast, low=0.0), check_number("slow", slow, low=0.0)
        self.shift = check_number("shift", shift, low=0.0, closed=True)
        features = dim * (2 * bands + 1)
        self.frequency = nn.Parameter(torch.empty(hidden, device=device, dtype=dtype))
        self.weight = nn.Parameter(torch.empty(hidden, features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(hidden, device=device, dtype=dtype))
        layers = range(depth - 2)  # a list, because an empty tensor would be a parameter without a gradient
        square, line = (hidden, hidden), (hidden,)
        self.hidden_weight = nn.ParameterList(torch.empty(square, device=device, dtype=dtype) for _ in layers)
        self.hidden_bias = nn.ParameterList(torch.empty(line, device=device, dtype=dtype) for _ in layers)
        self.output_weight = nn.Parameter(torch.empty(channels, hidden, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        nn.init.constant_(self.frequency, self.initial_frequency)
        for weight, bias in self._layers():
            bound = weight.shape[1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)
        nn.init.uniform_(self.output_weight, -1.0, 1.0)
        calibrate(self, self.output_weight)

    def _layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of the layers with sines."""
        return [(self.weight, self.bias), *zip(self.hidden_weight, self.hidden_bias, strict=True)]

    def _harmonics(self, axis: int, like: Tensor) -> Tensor:
        """Frequencies of the features on an axis, in radians per unit of position."""
        highest = min(self.bands - 1, max(self.reach[axis], 1) / 2)
        return 2 * math.pi * torch.linspace(1e-4, highest, self.bands, dtype=like.dtype, device=like.device)

    def _features(self, positions: Positions) -> Tensor:
        features = []
        for axis, p in enumerate(positions.unbind(-1)):
            angles = p[..., None] * self._harmonics(axis, p)
            features += [p[..., None], angles.cos(), angles.sin()]
        return torch.cat(features, dim=-1)

    def window(self, positions: Positions) -> Values:
        """The exponential window of every channel, `*points channels`."""
        channel = torch.arange(self.channels, dtype=positions.dtype, device=positions.device)
        slow, fast = -math.log(TARGET) / self.slow, -math.log(TARGET) / self.fast
        rates = slow + (fast - slow) * channel / max(self.channels - 1, 1)
        return torch.exp(-rates * positions.abs().sum(-1, keepdim=True)) + self.shift

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        values, frequency = self._features(positions), self.frequency.to(positions.dtype)
        for weight, bias in self._layers():
            values = torch.sin(frequency * affine(values, weight, bias))
        return F.linear(values, self.output_weight.to(values.dtype)) * self.window(positions)

    def bandwidths(self) -> Tensor:
        """Highest harmonic + 2.5 times the steepest phase of the last sines, in root mean square, in Nyquist units.

        Sines of sines have no sharp limit, and neither has the window, which is left out; on average 99 % of a new
        network's energy lies below this one.
        """
        frequency = gathered(self.frequency).double()
        weights = [gathered(weight).double() for weight, _ in self._layers()]
        limits = []
        for axis in range(self.dim):
            harmonics = self._harmonics(axis, frequency)
            one, cosine, sine = weights[0].split([1, self.bands, self.bands] * self.dim, dim=1)[3 * axis : 3 * axis + 3]
            square = (one.square().sum(1) + (cosine.square() + sine.square()) @ harmonics.square() / 2) * frequency**2
            for weight in weights[1:]:
                square = weight.square() @ square / 2 * frequency**2  # a cosine squared is 1/2 on average
            limits.append(harmonics.max() + 2.5 * square.max().sqrt())
        return self.in_nyquist_units(torch.stack(limits)[None])

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bands={self.bands}, hidden={self.hidden}, depth={self.depth}"
