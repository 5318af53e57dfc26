"""What the kernels of a group layer are functions of, for elements that the layer is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._errors import describe
from omniconv.domains.grid import Grid
from omniconv.groups import Group, Samples

INSIDE = 1 + 1e-6
"""Where the kernel ends: rounding must not decide about the taps that lie just there."""


@dataclass(frozen=True)
class Poses:
    """Offsets as seen from the elements h of the outputs, and the elements of the inputs as seen from them.

    `positions`: h^-1 lag / reach, (outputs, *kernel, dim), what the kernel that stands upright is a function of.
    `volume`: what every tap stands for, (outputs, *kernel): the volume of a sample over |det h|, 0 beyond the kernel.
    `relative`: features of h^-1 g for the inputs' elements g, (outputs, inputs, features).
    `weights`: of the inputs' elements, which sum to 1, (outputs, inputs); 0 for those out of the kernel's reach.
    """

    positions: Tensor
    volume: Tensor
    relative: Tensor
    weights: Tensor

    @property
    def kernel(self) -> torch.Size:
        """Taps per axis."""
        return self.volume.shape[1:]

    @property
    def joint(self) -> Tensor:
        """Positions and features side by side, (outputs, inputs, *kernel, dim + features)."""
        shape = (*self.relative.shape[:2], *self.kernel)
        features = self.relative.reshape(*self.relative.shape[:2], *[1] * len(self.kernel), -1)
        positions = self.positions[:, None]
        return torch.cat([positions.expand(*shape, -1), features.expand(*shape, -1)], -1)

    def weigh(self, values: Tensor) -> Tensor:
        """Values (outputs, inputs, *points, channels) times the weights of the inputs."""
        return values * self.weights.reshape(*self.weights.shape, *[1] * (values.ndim - 2))


def poses(
    group: Group,
    inputs: Samples,
    outputs: Samples,
    grid: Grid,
    window: int,
    *,
    reach: int,
    extent: float,
    ball: bool,
    dtype: torch.dtype,
    group_reach: float | None = None,
) -> Poses:
    """Poses on a grid, for taps as far as `window` samples of the reference grid; made in float64, then rounded.

    `extent`: where the kernel ends, in units of the reach. `ball`: whether it fills a ball rather than a cube.
    `group_reach`: where it ends on the group, as a distance; None: nowhere.
    """
    elements = outputs.elements
    axes = grid.lags(window, device=elements.device)
    lags = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    back = group.inverse(elements).reshape(len(elements), *[1] * grid.dim, group.numbers)
    positions = group.act(back, lags) / max(reach, 1)
    far = positions.norm(dim=-1) if ball else positions.abs().amax(-1)
    magnified = group.determinant(elements).reshape(-1, *[1] * grid.dim)
    volume = torch.where(far <= extent * INSIDE, grid.measure / magnified, 0.0)
    volume = volume if reach else torch.ones_like(volume)  # one lag stands for the whole kernel
    seen = group.relative(elements[:, None], inputs.elements)
    relative = group.describe(seen)
    weights = inputs.weights.expand(len(elements), -1)
    if group_reach is not None:
        # The distance, without the check of what a group made: that would read it from the device.
        near = group._log(seen).norm(dim=-1) <= group_reach * INSIDE
        weights = torch.where(near, weights, 0.0)
    return Poses(positions.to(dtype), volume.to(dtype), relative.to(dtype), weights.to(dtype))


def sampled(group: Group, samples: Any) -> Samples:
    """The grid of so many samples, or an error that names the argument of the layer."""
    try:
        return group.grid(samples)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("`count`", "`samples`")) from None


def placed(name: str, samples: Any, group: Group, device: torch.device) -> Samples:
    """Samples of the group on that device, or an error that names them."""
    if not isinstance(samples, Samples) or samples.elements.shape[-1] != group.numbers:
        came = describe(samples.elements if isinstance(samples, Samples) else samples)
        raise TypeError(f"`{name}` must be omniconv.groups.Samples of {group}, as from its `grid`; got {came}.")
    if samples.elements.dtype != torch.float64:
        raise TypeError(f"`{name}` must be in float64, as groups make them; got {samples.elements.dtype}.")
    return samples if samples.elements.device == device else samples.to(device)


def keeps_axes(group: Group) -> bool:
    """Whether every element maps axes to axes, and so cubes to cubes: then kernels fill a cube, else a ball."""
    matrices = some_of(group).abs()
    return bool((matrices.amax(-1) - matrices.sum(-1)).abs().max() < 1e-9)


def some_of(group: Group) -> Tensor:
    """Matrices of elements by which it is seen what the group does with the axes: all of a finite one, or some."""
    if group.order is not None:
        return group.matrix(group.grid().elements)
    return group.matrix(group.draw(32, generator=torch.Generator("cpu").manual_seed(0)).elements)


def neighbourhoods(x: Tensor, kernel: torch.Size) -> Tensor:
    """x at position - lag, for the lags of the taps: (batch, in, group, positions, taps)."""
    dim = len(kernel)
    near = F.pad(x, [k // 2 for k in reversed(kernel) for _ in range(2)])
    for axis, taps in enumerate(kernel):
        near = near.unfold(3 + axis, taps, 1)
    return near.flip(list(range(-dim, 0))).flatten(-dim).flatten(3, -2)
