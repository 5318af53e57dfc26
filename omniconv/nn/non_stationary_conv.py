"""Convolution with another kernel at every pose, for small maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from omniconv._precision import at_least_float32
from omniconv._references import RELAXED_PAPER, Reference
from omniconv._tags import Tag, Tagged
from omniconv._typing import PerAxis, Positions, Values
from omniconv.groups import Count, Group, Samples
from omniconv.kernels import Kernel, KernelFactory
from omniconv.nn._group_layer import SHARP, UPRIGHT, GroupLayer
from omniconv.nn._group_steps import GroupSignal, Maker, OverBoth
from omniconv.nn._parts import build_kernel
from omniconv.nn._poses import Poses, neighbourhoods
from omniconv.nn.conv import strict_precision
from omniconv.nn.relaxed import REACH, absolute_poses
from omniconv.supports import SupportFactory


class NonStationaryConv(GroupLayer, Tagged):
    """Relaxed convolution whose kernel is a function of the absolute pose too: k(h^-1 lag / reach, h^-1 g, s (x, h)).

    y(x, h) = |det h|^-1 sum_g w_g sum_lag k(h^-1 lag / reach, h^-1 g, s x, s h) f(x - lag, g), `batch channels group
    *size` to the same. With s = 0 this is the strict `GroupConv`; the larger s, the faster the kernel changes from pose
    to pose, and at last it is any linear map. With `Trivial` it relaxes translations.

    There is a kernel for every position, in memory too: positions * samples^2 * taps * channels^2 numbers. For larger
    maps there is the form of low rank, `GroupConv(relaxed=rank)`.

    `in_channels`, `out_channels`, `size`, `group`, `samples`, `kernel`, `support`, `reach`, `bias`: as in `GroupConv`.
    s begins at 0.01, and learns at a tenth of the learning rate, without weight decay. Beyond the edges is silence.

    `forward(x, inputs=None, outputs=None)`: as in `GroupConv`, on the reference spacing.

    >>> from omniconv.groups import Cyclic
    >>> NonStationaryConv(2, 3, 5, Cyclic(4), reach=1)(torch.zeros(1, 2, 4, 5, 5)).shape
    torch.Size([1, 3, 4, 5, 5])

    van der Ouderaa et al. 2022.
    """

    references: tuple[Reference, ...] = (*GroupLayer.references, RELAXED_PAPER)

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
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            *(in_channels, out_channels, size, group, samples),
            on_group=True,
            support=support,
            reach=reach,
            boundary="zero",
            bias=bias,
            engine="auto",
            sampling="grid",
            **place,
        )
        self.amount = nn.Parameter(torch.full((), 0.01, device=device, dtype=at_least_float32(dtype)))

        relative = (self.reach,) * self.dim + self._group_reach()
        dim, absolute = 2 * len(relative), (REACH,) * len(relative)
        where = {"reach": relative + absolute, "causal": (False,) * dim, **place}
        make = Maker(lambda what, channels: AtRest(build_kernel(kernel, dim, channels, where)), group, samples, place)
        self._build([OverBoth(make, in_channels, out_channels)], None)

    @property
    def kernel(self) -> Kernel:
        """The kernel of relative and absolute poses."""
        return self.chain[0].kernel.kernel  # type: ignore[union-attr, return-value]

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.amount.fill_(0.01)
        super().reset_parameters()

    def forward(self, x: GroupSignal, inputs: Samples | None = None, outputs: Samples | None = None) -> GroupSignal:
        inputs = self._placed("inputs", self.samples if inputs is None else inputs)
        outputs = self._placed("outputs", self.samples if outputs is None else outputs)
        self._check_signal(x, f", {len(inputs)}", len(inputs))
        size = tuple(x.shape[3:])
        where = self._poses(inputs, outputs, None)
        with strict_precision(x.device):
            taps = self._taps(where, absolute_poses(self.group, self.grid, size, outputs.elements, None))
        near = neighbourhoods(x, where.kernel)
        y = torch.einsum("bitnk,nstkoi->bosn", near, taps.to(x.dtype)).unflatten(3, size)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype).reshape(-1, *[1] * (self.dim + 1))
        return y.to(x.dtype)

    def _taps(self, where: Poses, absolute: Tensor) -> Tensor:
        """A kernel for every position, (positions, outputs, inputs, taps, out, in)."""
        relative = where.joint.flatten(2, -2)  # (outputs, inputs, taps, coordinates)
        absolute = (absolute.to(relative) * self.amount).flatten(1, -2).movedim(0, 1)[:, :, None, None]
        shape = (absolute.shape[0], *relative.shape[:3])
        poses = torch.cat([relative.expand(*shape, -1), absolute.expand(*shape, -1)], -1)
        values = self.kernel(poses) * (where.weights[..., None, None] * self.gain.to(poses.dtype))
        values = values * where.volume.flatten(1)[:, None, :, None]
        return values.unflatten(-1, (self.out_channels, self.in_channels))

    def parameter_tags(self) -> dict[str, Tag]:
        return {"amount": Tag(lr_scale=0.1, decay=False)}


class AtRest(Kernel):
    """A kernel of relative and absolute poses at the absolute pose 0: that of the strict convolution."""

    def __init__(self, kernel: Kernel):
        half = kernel.dim // 2
        super().__init__(half, kernel.channels, reach=kernel.reach[:half], causal=kernel.causal[:half])
        self.kernel = kernel

    def reset_parameters(self) -> None:
        self.kernel.reset_parameters()

    def forward(self, positions: Positions) -> Values:
        values: Values = self.kernel(torch.cat([positions, torch.zeros_like(positions)], -1))
        return values
