"""Kernels that depend on numbers given with every sample."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_floating_tensor, check_integer, check_number, check_positions, describe
from omniconv._factories import build
from omniconv._precision import at_least_float32
from omniconv._references import MIP_PAPER
from omniconv._tags import Tag
from omniconv._typing import Condition, PerAxis, Positions, Values
from omniconv.kernels._kernel import Kernel, KernelFactory, affine
from omniconv.kernels.siren import SIREN


class Conditional(Kernel):
    """Any kernel, whose parameters a network shifts by numbers z of each sample: a magnitude-invariant hypernetwork.

    k(p; z) = kernel of the parameters theta_0 + h(z) at p, with
    v_0 = [cos(pi z / 2), sin(pi z / 2)];  v_l = LeakyReLU(W_l v_{l-1} + b_l), l = 1 .. depth - 1;  h(z) = W v.

    The encoding v_0 has the same norm at every z: a larger number does not make larger parameters.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `conditions`: numbers per sample, at least 1. `kernel`: a `Kernel` class, or `functools.partial` of one.
    `hidden`: units per layer of h, at least 1. `depth`: its linear layers with the output, at least 2.
    `strength`: root mean square of h(z) at construction in units of that of theta_0, tensor by tensor, (0, inf).

    `forward(positions)` is the kernel of theta_0. `forward(positions, condition)` takes z, `batch conditions`, numbers
    in [0, 1], and gives `batch *points channels`. A condition of another shape raises `ValueError`, as do numbers
    outside of [0, 1], on the CPU and outside `torch.compile`: elsewhere the look at the numbers would halt the device.

    The W_l are normal with variance 2 / rows ("fan-out"), which keeps the norm of v; b_l = 0. Raises `ValueError` or
    `TypeError` for values out of range.

    >>> kernel = Conditional(1, 4, reach=16, conditions=2)
    >>> kernel(torch.zeros(5, 1)).shape, kernel(torch.zeros(5, 1), torch.rand(3, 2)).shape
    (torch.Size([5, 4]), torch.Size([3, 5, 4]))

    Gonzalez Ortiz et al. 2024 (MIP).
    """

    references = (MIP_PAPER,)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        conditions: int = 1,
        kernel: KernelFactory = SIREN,
        hidden: int = 64,
        depth: int = 2,
        strength: float = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        self.conditions = check_integer("conditions", conditions)
        self.hidden, self.depth = check_integer("hidden", hidden), check_integer("depth", depth, minimum=2)
        self.strength = check_number("strength", strength, low=0.0)
        where: dict[str, Any] = {"device": device, "dtype": at_least_float32(dtype)}
        sizes: dict[str, Any] = {"reach": self.reach, "causal": self.causal}
        self.kernel = build(kernel, Kernel, "kernel", (dim, channels), sizes | where)
        widths = [2 * conditions] + [hidden] * (depth - 1)
        self.hidden_weight = nn.ParameterList(torch.empty(hidden, width, **where) for width in widths[:-1])
        self.hidden_bias = nn.ParameterList(torch.empty(hidden, **where) for _ in widths[:-1])
        count = sum(parameter.numel() for parameter in self.kernel.parameters())
        if not count:
            raise ValueError(f"`kernel` must have parameters to shift; {type(self.kernel).__name__} has none.")
        self.output_weight = nn.Parameter(torch.empty(count, hidden, **where))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.kernel.reset_parameters()
        for weight in self.hidden_weight:
            nn.init.kaiming_normal_(weight, a=0.01, mode="fan_out", nonlinearity="leaky_relu")
        for bias in self.hidden_bias:
            nn.init.zeros_(bias)
        nn.init.normal_(self.output_weight)
        sizes = [theta.square().mean().sqrt().expand(theta.numel()) for theta in self.kernel.parameters()]
        self.output_weight.mul_(self.strength * self.conditions**-0.5 * torch.cat(sizes)[:, None])

    def shifts(self, condition: Condition) -> Tensor:
        """h(z), all parameters of the kernel in a row, as `batch parameters`."""
        angles = math.pi / 2 * condition
        values = torch.cat([angles.cos(), angles.sin()], dim=-1)
        for weight, bias in zip(self.hidden_weight, self.hidden_bias, strict=True):
            values = F.leaky_relu(affine(values, weight, bias), 0.01)
        return F.linear(values, self.output_weight.to(values.dtype))

    def forward(self, positions: Positions, condition: Condition | None = None) -> Values:
        check_positions(positions, self.dim)
        if condition is None:
            return self.kernel(positions)
        self._check_condition(condition)
        if condition.shape[0] == 0:
            return positions.new_empty(0, *positions.shape[:-1], self.channels)
        names, thetas = zip(*self.kernel.named_parameters(), strict=True)
        shifts = self.shifts(condition.to(positions.dtype)).split([theta.numel() for theta in thetas], dim=-1)
        shifted = [theta + shift.reshape(-1, *theta.shape) for theta, shift in zip(thetas, shifts, strict=True)]

        def evaluate(*parameters: Tensor) -> Tensor:
            named = dict(zip(names, parameters, strict=True))
            return torch.func.functional_call(self.kernel, named, (positions,))

        return torch.vmap(evaluate, randomness="different")(*shifted)

    def _check_condition(self, condition: Any) -> None:
        check_floating_tensor("condition", condition)
        if condition.ndim != 2 or condition.shape[1] != self.conditions:
            raise ValueError(
                f"`condition` must be (batch, {self.conditions}), the numbers of each sample; got "
                f"{describe(condition)}."
            )
        if torch.compiler.is_compiling() or condition.device.type != "cpu":
            return
        if not bool(((condition >= 0) & (condition <= 1)).all()):
            raise ValueError(
                f"`condition` must lie in [0, 1]; got {condition.min().item():g} to {condition.max().item():g}. "
                "Scale the numbers by their range."
            )

    def bandwidths(self) -> Tensor | None:
        """Those of the kernel of theta_0."""
        return self.kernel.bandwidths()

    def parameter_tags(self) -> dict[str, Tag]:
        own = (name for name, _ in self.named_parameters() if not name.startswith("kernel."))
        return {name: Tag(decay=False) for name in own}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, conditions={self.conditions}"
