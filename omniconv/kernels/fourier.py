"""Random Fourier features, and a perceptron on them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from omniconv._errors import check_integer, check_positions
from omniconv._precision import at_least_float32
from omniconv._references import CKCONV_PAPER, FOURIER_FEATURES_PAPER
from omniconv._sharding import gathered
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Values
from omniconv.kernels._kernel import Kernel, affine, calibrate, check_frequency, phases


class Fourier(Kernel):
    """Random Fourier features of the positions, and a perceptron with ReLU on them.

    z_1 = [cos(W p), sin(W p)];  z_l = max(A_l z_{l-1} + a_l, 0), l = 2 .. depth - 1;  k(p) = A z + a.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `hidden`: units per layer, an even number: `hidden / 2` frequencies. `depth`: layers with the features and the
    output, at least 2; at 2 the kernel is linear in the features.
    `bandwidth`: standard deviation of the frequencies W, which are normal, in units of the reference grid's Nyquist
    frequency, (0, inf); 0.1 if neither this nor `omega_0` is given: then features one sample apart correlate by
    exp(-(0.1 pi)^2 / 2) = 0.95, and the kernel is smooth on the grid.
    `omega_0`: the published parameter instead of `bandwidth`, for replication: a standard deviation of 2 pi omega_0
    per unit of a position that spans [-1, 1] whether the kernel is causal or not.

    The A_l are uniform with variance 2 / hidden. Raises `ValueError` or `TypeError` for values out of range.

    >>> Fourier(1, 4, reach=16)(torch.zeros(5, 1)).shape
    torch.Size([5, 4])

    Tancik et al. 2020; as a convolution kernel, Romero et al. 2022 (CKConv).
    """

    references = (FOURIER_FEATURES_PAPER, CKCONV_PAPER)

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
        dtype = at_least_float32(dtype)
        self.hidden, self.depth = check_integer("hidden", hidden), check_integer("depth", depth, minimum=2)
        if hidden % 2:
            raise ValueError(f"`hidden` must be even, a cosine and a sine per frequency; got {hidden}.")
        self.bandwidth, self.omega_0 = check_frequency(bandwidth, omega_0, default=0.1)
        self.frequency = nn.Parameter(torch.empty(hidden // 2, dim, device=device, dtype=dtype))
        layers = range(depth - 2)  # a list, because an empty tensor would be a parameter without a gradient
        square, line = (hidden, hidden), (hidden,)
        self.hidden_weight = nn.ParameterList(torch.empty(square, device=device, dtype=dtype) for _ in layers)
        self.hidden_bias = nn.ParameterList(torch.empty(line, device=device, dtype=dtype) for _ in layers)
        self.output_weight = nn.Parameter(torch.empty(channels, hidden, device=device, dtype=dtype))
        self.output_bias = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = math.sqrt(6 / self.hidden)
        for d, deviation in enumerate(self._deviations()):
            nn.init.normal_(self.frequency[:, d], std=deviation)
        for weight in self.hidden_weight:
            nn.init.uniform_(weight, -bound, bound)
        for bias in self.hidden_bias:
            nn.init.zeros_(bias)
        nn.init.uniform_(self.output_weight, -bound, bound)
        nn.init.zeros_(self.output_bias)
        calibrate(self, self.output_weight)

    def _deviations(self) -> list[float]:
        if self.omega_0 is None:
            return [self.bandwidth * nyquist for nyquist in self.nyquist()]
        # The published position runs over an interval of length 2; ours over 1 on a causal axis.
        return [2 * math.pi * self.omega_0 * (2 if past else 1) for past in self.causal]

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        angles = phases(positions, self.frequency, self.frequency.new_zeros(()))
        values = torch.cat([angles.cos(), angles.sin()], dim=-1)
        for weight, bias in zip(self.hidden_weight, self.hidden_bias, strict=True):
            values = F.relu(affine(values, weight, bias))
        return affine(values, self.output_weight, self.output_bias)

    def bandwidths(self) -> torch.Tensor:
        """One filter: the highest frequency of the features times the number of layers before the output.

        Exact at depth 2. The kinks of ReLU have no sharp limit; on average 99 % of a new kernel's energy lies below.
        """
        highest = gathered(self.frequency).abs().amax(0, keepdim=True)
        return self.in_nyquist_units((self.depth - 1) * highest)

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}
