"""Sine networks."""

from __future__ import annotations

import math

import torch
from torch import nn

from omniconv._errors import check_integer, check_positions
from omniconv._precision import at_least_float32
from omniconv._references import CKCONV_PAPER, SIREN_PAPER
from omniconv._sharding import whole
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Values, check_bool
from omniconv.kernels._kernel import (
    Kernel,
    affine,
    calibrate,
    check_frequency,
    make_length,
    normalized,
    phases,
    set_length,
)


class SIREN(Kernel):
    """A multilayer perceptron with sine activations on the positions.

    z_1 = sin(W p + b);  z_l = sin(A_l z_{l-1} + a_l), l = 2 .. depth - 1;  k(p) = A z + a.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `hidden`: units per layer, at least 1. `depth`: linear layers with the output, at least 2.
    `bandwidth`: highest frequency of the first layer at construction, in units of the reference grid's Nyquist
    frequency, (0, inf), 0.25 if neither this nor `omega_0` is given; the frequencies are uniform in
    [-bandwidth, bandwidth]. Every later sine adds harmonics.
    `omega_0`: the published parameter instead of `bandwidth`, for replication. It is in radians per unit of a position
    that spans [-1, 1] whether the kernel is causal or not, and gives frequencies uniform in [-omega_0, omega_0] / dim.
    `weight_norm`: learn every linear layer as W = g v / |v| per row, with a length g that begins as |v|: the same
    function at construction, and a number more per row.

    The hidden layers have the published distribution (A ~ U(-sqrt(6 / hidden), sqrt(6 / hidden)), the factor omega_0
    folded in); the first phases are uniform, so that the kernel is not odd. Raises `ValueError` or `TypeError` for
    values out of range.

    >>> SIREN(1, 4, reach=16)(torch.zeros(5, 1)).shape
    torch.Size([5, 4])

    Sitzmann et al. 2020; as a convolution kernel, Romero et al. 2022 (CKConv).
    """

    references = (SIREN_PAPER, CKCONV_PAPER)

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
        weight_norm: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        dtype = at_least_float32(dtype)
        self.hidden, self.depth = check_integer("hidden", hidden), check_integer("depth", depth, minimum=2)
        self.bandwidth, self.omega_0 = check_frequency(bandwidth, omega_0, default=0.25)
        self.frequency = nn.Parameter(torch.empty(hidden, dim, device=device, dtype=dtype))
        self.phase = nn.Parameter(torch.empty(hidden, device=device, dtype=dtype))
        layers = depth - 2
        self.hidden_weight = nn.Parameter(torch.empty(layers, hidden, hidden, device=device, dtype=dtype))
        self.hidden_bias = nn.Parameter(torch.empty(layers, hidden, device=device, dtype=dtype))
        self.output_weight = nn.Parameter(torch.empty(channels, hidden, device=device, dtype=dtype))
        self.output_bias = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))
        self.weight_norm = check_bool("weight_norm", weight_norm)
        self.frequency_length = make_length(self.frequency, self.weight_norm)
        self.hidden_length = make_length(self.hidden_weight, self.weight_norm)
        self.output_length = make_length(self.output_weight, self.weight_norm)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = math.sqrt(6 / self.hidden)
        for d, highest in enumerate(self._highest_frequencies()):
            nn.init.uniform_(self.frequency[:, d], -highest, highest)
        nn.init.uniform_(self.phase, -math.pi, math.pi)
        nn.init.uniform_(self.hidden_weight, -bound, bound)
        nn.init.zeros_(self.hidden_bias)
        nn.init.uniform_(self.output_weight, -bound, bound)
        nn.init.zeros_(self.output_bias)
        set_length(self.frequency_length, self.frequency)
        set_length(self.hidden_length, self.hidden_weight)
        set_length(self.output_length, self.output_weight)
        calibrate(self, self.output_weight, self.output_length)

    def _highest_frequencies(self) -> list[float]:
        if self.omega_0 is None:
            return [self.bandwidth * nyquist for nyquist in self.nyquist()]
        # The published position runs over an interval of length 2; ours over 1 on a causal axis.
        return [self.omega_0 * (2 if past else 1) / self.dim for past in self.causal]

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        values = torch.sin(phases(positions, normalized(self.frequency, self.frequency_length), self.phase))
        hidden = normalized(self.hidden_weight, self.hidden_length)
        for weight, bias in zip(hidden, self.hidden_bias, strict=True):
            values = torch.sin(affine(values, weight, bias))
        return affine(values, normalized(self.output_weight, self.output_length), self.output_bias)

    def bandlimit(self) -> tuple[float, ...]:
        """Highest frequency of the first layer times the number of sine layers, per axis, in Nyquist units.

        Sines of sines have no sharp limit; on average 99 % of a new kernel's energy lies below this one.
        """
        highest = whole(normalized(self.frequency, self.frequency_length)).abs().amax(0).tolist()
        sines = self.depth - 1
        return tuple(sines * top / nyquist for top, nyquist in zip(highest, self.nyquist(), strict=True))

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}
