"""Multilayer perceptrons, of ordinary activations and of damped sines."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice, zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_choice, check_integer, check_number, check_positions
from omniconv._factories import build
from omniconv._precision import at_least_float32
from omniconv._references import CKCONV_PAPER, SPDER_PAPER, WEIGHT_NORM_PAPER, Reference
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Values, check_bool
from omniconv.kernels._kernel import (
    Kernel,
    KernelFactory,
    affine,
    calibrate,
    make_length,
    normalized,
    phases,
    set_length,
)


def damped_sine(x: Tensor) -> Tensor:
    """sin(x) sqrt(|x|). The slope at zero is zero, but that of the root is infinite, so the root sees no zero."""
    nonzero = x != 0
    root = torch.where(nonzero, x.abs(), 1.0).sqrt()
    return torch.where(nonzero, x.sin() * root, 0.0)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "swish": F.silu,
    "spder": damped_sine,
}


class MLP(Kernel):
    """A multilayer perceptron on the positions: by default a piecewise linear kernel of low frequency.

    z_1 = f(W p + b);  z_l = f(A_l z_{l-1} + a_l), l = 2 .. depth - 1;  k(p) = A z + a.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `hidden`: units per layer, at least 1. `depth`: linear layers with the output, at least 2.
    `activation`: f, "relu" (max(x, 0)), "leaky_relu" (max(x, x / 100)), "swish" (x / (1 + exp(-x))) or "spder"
    (sin(x) sqrt(|x|)).
    `bandwidth`: highest frequency of W at construction, in units of the reference grid's Nyquist frequency, (0, inf): W
    is uniform in [-bandwidth, bandwidth]. None: 0.25 for "spder"; otherwise W is normal with deviation 1 over a window
    of length 2.
    `first`: a `Kernel` class, or `functools.partial` of one, that makes z_1 in place of f(W p + b), a channel per unit:
    with `FourierSeries` the network is FKAN, with `ChebyshevSeries` it begins as SL2A-INR.
    `weight_norm`: learn every linear layer as W = g v / |v| per row, with a length g that begins as |v|: the same
    function at construction, and a number more per row.

    The argument of unit i of layer l, its knee, begins at zero at the share (i + (l - 1/2) / (depth - 1)) / hidden of
    the window on every axis, the units in a random order per axis: the knees of all layers are spread evenly. That is
    the published intent, which the published code undid: it normalised the weights after the biases were set.
    A_l is uniform with variance 2 / hidden; for "spder", which grows with its argument, it is scaled so that the
    arguments of every later layer have unit mean square over the window, as they have in a `SIREN`.
    Raises `ValueError` or `TypeError` for values out of range.

    >>> MLP(2, 3, reach=(4, 8), activation="swish")(torch.zeros(5, 2)).shape
    torch.Size([5, 3])

    Romero et al. 2022 (CKConv); "spder", Shah and Sitawarin 2023.
    """

    references: tuple[Reference, ...] = (CKCONV_PAPER,)
    weight: nn.Parameter  # these three are there unless `first` is given
    bias: nn.Parameter
    length: nn.Parameter | None

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
        bandwidth: float | None = None,
        first: KernelFactory | None = None,
        weight_norm: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        dtype = at_least_float32(dtype)
        self.hidden, self.depth = check_integer("hidden", hidden), check_integer("depth", depth, minimum=2)
        self.activation = check_choice("activation", activation, tuple(ACTIVATIONS))
        if bandwidth is not None and first is not None:
            raise ValueError(f"`bandwidth` and `first` exclude each other; got {bandwidth}. Give it to `first`.")
        self.bandwidth = None if bandwidth is None else check_number("bandwidth", bandwidth, low=0.0)
        self.weight_norm = check_bool("weight_norm", weight_norm)
        self.references += (SPDER_PAPER,) if activation == "spder" else ()
        self.references += (WEIGHT_NORM_PAPER,) if weight_norm else ()
        if first is None:
            self.first = None
            self.weight = nn.Parameter(torch.empty(hidden, dim, device=device, dtype=dtype))
            self.bias = nn.Parameter(torch.empty(hidden, device=device, dtype=dtype))
            self.length = make_length(self.weight, self.weight_norm)
        else:
            where = {"reach": self.reach, "causal": self.causal, "device": device, "dtype": dtype}
            self.first = build(first, Kernel, "first", (dim, hidden), where)
        layers = range(depth - 2)  # a list, because an empty tensor would be a parameter without a gradient
        square, line = (hidden, hidden), (hidden,)
        self.hidden_weight = nn.ParameterList(torch.empty(square, device=device, dtype=dtype) for _ in layers)
        self.hidden_bias = nn.ParameterList(torch.empty(line, device=device, dtype=dtype) for _ in layers)
        self.output_weight = nn.Parameter(torch.empty(channels, hidden, device=device, dtype=dtype))
        self.output_bias = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))
        lengths = [make_length(weight, self.weight_norm) for weight in self.hidden_weight]
        self.hidden_length = nn.ParameterList(length for length in lengths if length is not None)
        self.output_length = make_length(self.output_weight, self.weight_norm)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        if self.first is None:
            self._reset_weight()
        bound = math.sqrt(6 / self.hidden)
        for weight in self.hidden_weight:
            nn.init.uniform_(weight, -bound, bound)
        nn.init.uniform_(self.output_weight, -bound, bound)
        nn.init.zeros_(self.output_bias)
        if self.first is None:
            self.bias.copy_(-(self.weight * self._knees(0).to(self.weight)).sum(-1))
            set_length(self.length, self.weight)
        else:
            self.first.reset_parameters()
        self._reset_hidden()
        set_length(self.output_length, self.output_weight)
        calibrate(self, self.output_weight, self.output_length)

    def _reset_weight(self) -> None:
        bandwidth = 0.25 if self.bandwidth is None and self.activation == "spder" else self.bandwidth
        for d, (past, nyquist) in enumerate(zip(self.causal, self.nyquist(), strict=True)):
            if bandwidth is None:
                nn.init.normal_(self.weight[:, d], std=2.0 if past else 1.0)
            else:
                nn.init.uniform_(self.weight[:, d], -bandwidth * nyquist, bandwidth * nyquist)

    def _reset_hidden(self) -> None:
        """Set the biases of the hidden layers for their knees, and for damped sines the scale of their arguments."""
        hidden = zip_longest(self.hidden_weight, self.hidden_length)
        for index, ((weight, length), bias) in enumerate(zip(hidden, self.hidden_bias, strict=True)):
            values = self._features(self._knees(index + 1).to(weight), index)
            bias.copy_(-(values * weight).sum(-1))  # unit j at knee j
            if self.activation == "spder":
                values = self._features(self.reference_positions().to(weight), index)
                scale = affine(values, weight, bias).square().mean().sqrt()
                weight.div_(scale)
                bias.div_(scale)
            set_length(length, weight)

    def _knees(self, layer: int) -> Tensor:
        """A point per unit, even over the window on each axis and in a random order, as `hidden dim` on the CPU."""
        units = torch.arange(self.hidden, dtype=torch.float64, device="cpu")
        share = (units + (layer + 0.5) / (self.depth - 1)) / self.hidden
        orders = [share[torch.randperm(self.hidden, device="cpu")] for _ in self.causal]
        return torch.stack([s if past else 2 * s - 1 for s, past in zip(orders, self.causal, strict=True)], dim=-1)

    def _features(self, positions: Tensor, layers: int) -> Tensor:
        """Values after the first layer and `layers` hidden ones."""
        activate = ACTIVATIONS[self.activation]
        if self.first is None:
            values = activate(phases(positions, normalized(self.weight, self.length), self.bias))
        else:
            values = self.first(positions)
        hidden = zip_longest(self.hidden_weight, self.hidden_length)  # without weight normalisation, of length None
        for (weight, length), bias in islice(zip(hidden, self.hidden_bias, strict=True), layers):
            values = activate(affine(values, normalized(weight, length), bias))
        return values

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        values = self._features(positions, self.depth - 2)
        return affine(values, normalized(self.output_weight, self.output_length), self.output_bias)

    def bandwidths(self) -> Tensor | None:
        """Where `first` is given: its limit times the number of layers before the output; otherwise None is known.

        Exact at depth 2. The kinks of ReLU have no sharp limit; on average 99 % of a new kernel's energy lies below.
        """
        first = None if self.first is None else self.first.bandwidths()
        return None if first is None else (self.depth - 1) * first

    def parameter_tags(self) -> dict[str, Tag]:
        return {name: Tag(decay=False) for name, _ in self.named_parameters()}
