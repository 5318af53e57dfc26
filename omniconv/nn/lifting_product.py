"""Products of a whole signal with kernels in all poses: from a signal to features on a group."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_floating_tensor, check_integer, describe
from omniconv._references import GCNN_PAPER, Cited
from omniconv._typing import PerAxis, Signal, check_bool, per_axis
from omniconv.domains.grid import Grid, check_spacing
from omniconv.groups import Count, Group, Samples
from omniconv.groups._group import check_group
from omniconv.kernels import KernelFactory
from omniconv.nn._checks import check_placed, check_samples
from omniconv.nn._group_layer import SHARP, UPRIGHT
from omniconv.nn._group_steps import GroupSignal
from omniconv.nn._parts import build_kernel, build_support
from omniconv.nn._poses import INSIDE, placed, sampled
from omniconv.nn.conv import strict_precision
from omniconv.supports import SupportFactory


class LiftingProduct(Cited, nn.Module):
    """The product of a signal with a kernel in all poses: y(h) = |det h|^-1 sum_p k(h^-1 p / reach) f(p) + bias.

    From `batch channels *size` to `batch channels group *1`: it looks at the signal from its middle alone, from which
    p is measured, so one sample is left on every axis. Where the signal is moved about its middle by an element g of
    the group, y(h) becomes y(g^-1 h). A convolution lifts every position and is far dearer; this is for what stands in
    the middle, such as a digit.

    `in_channels`, `out_channels`: at least 1.
    `size`: samples per axis of the reference grid, one int for all.
    `group`: from `omniconv.groups`, which acts on as many axes. `samples`: its elements, as in `Group.grid`; None for
    all of a finite group.
    `kernel`, `support`: as in `Conv`, functions of the position as the pose sees it, within a ball.
    `reach`: radius of the ball in samples, one int for all axes, at least 1; None for half the largest size.
    `bias`: the same for all elements of the group.

    `forward(x, outputs=None, *, spacing=None)`: `outputs` are `Samples`, None for the grid of `samples`; `spacing` is
    as in `Conv`. A larger signal is one with more around it, which the ball leaves out.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> from omniconv.groups import SO2
    >>> LiftingProduct(1, 4, 9, SO2(), 8)(torch.zeros(2, 1, 9, 9)).shape
    torch.Size([2, 4, 8, 1, 1])

    Cohen and Welling 2016, at one position.
    """

    references = (GCNN_PAPER,)
    gain: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: PerAxis[int],
        group: Group,
        samples: Count | None = None,
        *,
        kernel: KernelFactory = SHARP,
        support: SupportFactory = UPRIGHT,
        reach: int | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels)
        self.out_channels = check_integer("out_channels", out_channels)
        check_group(group)
        self.group, self.count, self.samples = group, samples, sampled(group, samples)
        self.grid = Grid(per_axis("size", size, group.dim, check_integer))
        self.reach = max(1, max(self.grid.size) // 2) if reach is None else check_integer("reach", reach)
        check_bool("bias", bias)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        where = {"reach": (self.reach,) * group.dim, "causal": (False,) * group.dim, **place}
        self.kernel = build_kernel(kernel, group.dim, in_channels * out_channels, where)
        self.support = build_support(support, group.dim, where)
        self.register_buffer("gain", torch.ones((), **place))
        self.bias = nn.Parameter(torch.zeros(out_channels, **place)) if bias else None
        self._calibrate()

    def reset_parameters(self) -> None:
        """Draw the parameters anew and set the gain for them."""
        self.kernel.reset_parameters()
        self.support.reset_parameters()
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self._calibrate()

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Set the gain with which white noise on the reference grid keeps its variance."""
        if self.gain.is_meta:
            return
        self.gain.fill_(1.0)
        energy = self._weights(self.grid, self._placed(self.samples)).double().square().sum((2, 3)).mean().item()
        if not (math.isfinite(energy) and energy > 0):
            raise ValueError(
                f"`kernel` and `support` must make weights of finite, positive energy; they made {energy}. Check their "
                "initialisation."
            )
        self.gain.fill_(energy**-0.5)

    def _placed(self, samples: Any) -> Samples:
        """Samples on the device of the layer."""
        return placed("outputs", samples, self.group, self.gain.device)

    def _weights(self, grid: Grid, outputs: Samples) -> Tensor:
        """The kernels in all poses on a grid, (out, outputs, in, points)."""
        axes = [
            step * (torch.arange(n, dtype=torch.float64, device=self.gain.device) - (n - 1) / 2)
            for n, step in zip(grid.size, grid.spacing, strict=True)
        ]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
        elements = outputs.elements[:, None]
        positions = self.group.act(self.group.inverse(elements), points) / self.reach
        volume = grid.measure / self.group.determinant(elements)
        volume = torch.where(positions.norm(dim=-1) <= INSIDE, volume, 0.0)
        dtype = torch.promote_types(self.gain.dtype, torch.float32)
        with strict_precision(self.gain.device):
            values = self.kernel(positions.to(dtype))
            factor = self.support(positions.to(dtype)) * volume.to(dtype) * self.gain.to(dtype)
        return (
            (values * factor[..., None]).unflatten(-1, (self.out_channels, self.in_channels)).movedim((-2, -1), (0, 2))
        )

    def forward(
        self, x: Signal, outputs: Samples | None = None, *, spacing: PerAxis[float] | None = None
    ) -> GroupSignal:
        self._check_signal(x)
        steps = per_axis("spacing", 1.0 if spacing is None else spacing, self.group.dim, check_spacing)
        outputs = self._placed(self.samples if outputs is None else outputs)
        weights = self._weights(Grid(tuple(x.shape[2:]), steps), outputs).to(x.dtype)
        y = (x.flatten(1) @ weights.flatten(2).flatten(0, 1).T).unflatten(1, (self.out_channels, -1))
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)[:, None]
        return y.to(x.dtype).reshape(*y.shape, *[1] * self.group.dim)  # whatever autocast made of it

    def _check_signal(self, x: Any) -> None:
        """Raise unless `x` is a signal of the layer."""
        check_floating_tensor("x", x)
        if x.ndim != self.group.dim + 2 or x.shape[1] != self.in_channels:
            sizes = "".join(f", size_{axis}" for axis in range(self.group.dim))
            raise ValueError(f"`x` must be (batch, {self.in_channels}{sizes}); got {describe(x)}.")
        check_samples(x, self.group.dim)
        check_placed(x, self.gain)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, size={self.grid.size}, group={self.group}, "
            f"samples={self.count}, reach={self.reach}, bias={self.bias is not None}"
        )
