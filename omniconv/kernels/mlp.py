"""Multilayer perceptrons with ordinary activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice, zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_choice, check_integer, check_positions
from omniconv._precision import at_least_float32
from omniconv._references import CKCONV_PAPER
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Values, check_bool
from omniconv.kernels._kernel import Kernel, affine, calibrate, make_length, normalized, phases, set_length

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "leaky_relu": F.leaky_relu, "swish": F.silu}


class MLP(Kernel):
    """A multilayer perceptron on the positions: a smooth or piecewise linear kernel of low frequency.

    z_1 = f(W p + b);  z_l = f(A_l z_{l-1} + a_l), l = 2 .. depth - 1;  k(p) = A z + a.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `hidden`: units per layer, at least 1. `depth`: linear layers with the output, at least 2.
    `activation`: f, "relu" (max(x, 0)), "leaky_relu" (max(x, x / 100)) or "swish" (x / (1 + exp(-x))).
    `weight_norm`: learn every linear layer as W = g v / |v| per row, with a length g that begins as |v|: the same
    function at construction, and a number more per row.

    The argument of unit i of layer l, its knee, begins at zero at the share (i + (l - 1/2) / (depth - 1)) / hidden of
    the window on every axis, the units in a random order per axis: the knees of all layers are spread evenly. That is
    the published intent; no normalisation of the weights follows that would undo it, as one did in the published code.
    W is normal with deviation 1 over a window of length 2, and A_l is uniform with variance 2 / hidden.
    Raises `ValueError` or `TypeError` for values out of range.

    >>> MLP(2, 3, reach=(4, 8), activation="swish")(torch.zeros(5, 2)).shape
    torch.Size([5, 3])

    Romero et al. 2022 (CKConv).
    """

    references = (CKCONV_PAPER,)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        hidden: int = 32,
        depth: int = 3,
        activation: str = "relu",
        weight_norm: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        dtype = at_least_float32(dtype)
        self.hidden, self.depth = check_integer("hidden", hidden), check_integer("depth", depth, minimum=2)
        self.activation = check_choice("activation", activation, tuple(ACTIVATIONS))
        self.weight = nn.Parameter(torch.empty(hidden, dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(hidden, device=device, dtype=dtype))
        layers = range(depth - 2)  # a list, because an empty tensor would be a parameter without a gradient
        square, line = (hidden, hidden), (hidden,)
        self.hidden_weight = nn.ParameterList(torch.empty(square, device=device, dtype=dtype) for _ in layers)
        self.hidden_bias = nn.ParameterList(torch.empty(line, device=device, dtype=dtype) for _ in layers)
        self.output_weight = nn.Parameter(torch.empty(channels, hidden, device=device, dtype=dtype))
        self.output_bias = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))
        self.weight_norm = check_bool("weight_norm", weight_norm)
        self.length = make_length(self.weight, self.weight_norm)
        lengths = [make_length(weight, self.weight_norm) for weight in self.hidden_weight]
        self.hidden_length = nn.ParameterList(length for length in lengths if length is not None)
        self.output_length = make_length(self.output_weight, self.weight_norm)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for d, past in enumerate(self.causal):
            nn.init.normal_(self.weight[:, d], std=2.0 if past else 1.0)
        bound = math.sqrt(6 / self.hidden)
        for weight in self.hidden_weight:
            nn.init.uniform_(weight, -bound, bound)
        nn.init.uniform_(self.output_weight, -bound, bound)
        nn.init.zeros_(self.output_bias)
        for length, weight in zip(self.hidden_length, self.hidden_weight, strict=False):
            set_length(length, weight)
        set_length(self.length, self.weight)
        set_length(self.output_length, self.output_weight)
        self.bias.copy_(-(self.weight * self._knees(0).to(self.weight)).sum(-1))
        for index, (weight, bias) in enumerate(zip(self.hidden_weight, self.hidden_bias, strict=True)):
            values = self._features(self._knees(index + 1).to(weight), index)
            bias.copy_(-(values * weight).sum(-1))  # unit j at knee j
        calibrate(self, self.output_weight, self.output_length)

    def _knees(self, layer: int) -> Tensor:
        """A point per unit, even over the window on each axis and in a random order, as `hidden dim` on the CPU."""
        units = torch.arange(self.hidden, dtype=torch.float64, device="cpu")
        share = (units + (layer + 0.5) / (self.depth - 1)) / self.hidden
        orders = [share[torch.randperm(self.hidden, device="cpu")] for _ in self.causal]
        return torch.stack([s if past else 2 * s - 1 for s, past in zip(orders, self.causal, strict=True)], dim=-1)

    def _features(self, positions: Tensor, layers: int) -> Tensor:
        """Values after the first layer and `layers` hidden ones."""
        activate = ACTIVATIONS[self.activation]
        values = activate(phases(positions, normalized(self.weight, self.length), self.bias))
        hidden = zip_longest(self.hidden_weight, self.hidden_length)  # without weight normalisation, of length None
        for (weight, length), bias in islice(zip(hidden, self.hidden_bias, strict=True), layers):
            values = activate(affine(values, normalized(weight, length), bias))
        return values

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        values = self._features(positions, self.depth - 2)
        return affine(values, normalized(self.output_weight, self.output_length), self.output_bias)

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}
