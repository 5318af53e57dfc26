"""Convolutions that may leave a symmetry as far as the data ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_integer
from omniconv._precision import AtLeastFloat32, at_least_float32
from omniconv._references import RELAXED_PAPER, Cited
from omniconv._tags import Tag, Tagged
from omniconv.domains.grid import Grid
from omniconv.groups import Elements, Group, Samples
from omniconv.kernels import SIREN, KernelFactory
from omniconv.nn._group_steps import GroupSignal
from omniconv.nn._kept_taps import may_be_kept
from omniconv.nn._parts import build_kernel
from omniconv.nn._refreshed import Refreshed
from omniconv.nn.conv import strict_precision

RANK = 4
"""Terms of a relaxed convolution if their number is not given."""
REACH = 4
"""How finely modulations may vary: their unit of frequency is that of a grid of so many samples to either side."""


class Modulation(Cited, Tagged, AtLeastFloat32, Refreshed):
    """The signal times functions of the absolute pose: the channels s c_m(x, g) f_c(x, g), for m = 1 .. rank.

    A convolution of these is the part of low rank, sum_m s c_m(v) k_m(v^-1 u), of a filter that is another one at every
    pose v. At s = 0 nothing is left of it.

    `group`: whose elements g are a part of the pose. `grid`: the reference grid; positions are measured from its middle
    in units of half its size. `rank`: number of functions, at least 1. `kernel`: what makes them.
    s begins at 0.01, and learns at a tenth of the learning rate, without weight decay.

    `forward(x, inputs, spacing)` takes `batch channels group *size` to `batch channels*rank group *size`.

    van der Ouderaa et al. 2022; in the low-rank form.
    """

    references = (RELAXED_PAPER,)

    def __init__(
        self,
        group: Group,
        grid: Grid,
        rank: int,
        *,
        kernel: KernelFactory = SIREN,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.group, self.grid, self.rank = group, grid, check_integer("rank", rank)
        dim = grid.dim + group.features
        where: dict[str, Any] = {"reach": (REACH,) * dim, "causal": (False,) * dim, "device": device, "dtype": dtype}
        self.kernel = build_kernel(kernel, dim, rank, where)
        self.amount = nn.Parameter(torch.empty((), device=device, dtype=at_least_float32(dtype)))
        self.reset_parameters()

    def refresh(self) -> None:
        """Forget the functions that were made."""
        self.kept_taps.clear()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.kernel.reset_parameters()
        self.amount.fill_(0.01)

    def forward(self, x: GroupSignal, inputs: Samples, spacing: tuple[float, ...] | None = None) -> GroupSignal:
        values = self._functions(tuple(x.shape[3:]), inputs, spacing)
        return (x[:, :, None] * values.to(x.dtype)).flatten(1, 2)

    def _functions(self, size: tuple[int, ...], inputs: Samples, spacing: tuple[float, ...] | None) -> Tensor:
        """s c_m at all poses of a signal, (rank, group, *size); at evaluation kept until something changes."""
        sources = [*self.parameters(), *self.buffers(), inputs.elements, inputs.weights]
        if self.training or not may_be_kept(sources):
            return self._values(size, inputs, spacing)
        make = [(size, spacing), sources, lambda: [self._values(size, inputs, spacing)]]
        return self.kept_taps.get(*make)[0]  # type: ignore[arg-type]

    def _values(self, size: tuple[int, ...], inputs: Samples, spacing: tuple[float, ...] | None) -> Tensor:
        poses = absolute_poses(self.group, self.grid, size, inputs.elements, spacing).to(self.amount.dtype)
        with strict_precision(poses.device):
            return (self.kernel(poses) * self.amount).movedim(-1, 0)

    def parameter_tags(self) -> dict[str, Tag]:
        return {"amount": Tag(lr_scale=0.1, decay=False)}

    def extra_repr(self) -> str:
        return f"{self.group}, size={self.grid.size}, rank={self.rank}"


class Relaxation(nn.Module):
    """What a relaxed layer adds to the strict one: a convolution of the modulated signal.

    `modulation`: as above. `branch`: a group layer of the strict one's kind, with `rank` times its input channels and
    no bias.
    """

    def __init__(self, modulation: Modulation, branch: Any):
        super().__init__()
        self.modulation, self.branch = modulation, branch

    def reset_parameters(self) -> None:
        self.modulation.reset_parameters()
        self.branch.reset_parameters()

    def forward(
        self, x: GroupSignal, inputs: Samples, outputs: Samples, spacing: tuple[float, ...] | None
    ) -> GroupSignal:
        y: GroupSignal = self.branch.run(self.modulation(x, inputs, spacing), inputs, outputs, spacing)
        return y


def absolute_poses(
    group: Group, grid: Grid, size: tuple[int, ...], elements: Elements, spacing: tuple[float, ...] | None
) -> Tensor:
    """Positions of a signal from its middle, in units of half the reference grid, and features of the elements, side
    by side: (group, *size, dim + features).
    """
    steps = (1.0,) * grid.dim if spacing is None else spacing
    axes = [
        (torch.arange(n, device=elements.device, dtype=torch.float64) - (n - 1) / 2) * (2 * step / reference)
        for n, step, reference in zip(size, steps, grid.size, strict=True)
    ]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    features = group.describe(elements).reshape(len(elements), *[1] * grid.dim, -1)
    shape = (len(elements), *size, -1)
    return torch.cat([positions.expand(*shape), features.expand(*shape)], -1)


def relaxation_of(
    relaxed: Any, in_channels: int, make_branch: Callable[[int], Any], group: Group, grid: Grid, place: dict[str, Any]
) -> Relaxation | None:
    """What a layer with the argument `relaxed` adds: a rank, or True for `RANK`; None for 0 and False."""
    rank = (RANK if relaxed else 0) if isinstance(relaxed, bool) else check_integer("relaxed", relaxed, minimum=0)
    return None if rank == 0 else Relaxation(Modulation(group, grid, rank, **place), make_branch(rank * in_channels))
