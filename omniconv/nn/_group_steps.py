"""The linear maps that group convolutions are made of: over channels, over the group, over space, or over several."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import torch
from torch import Tensor, nn

from omniconv._typing import Signal, Taps
from omniconv.groups import Count, Group, Product, Samples
from omniconv.kernels import Kernel
from omniconv.nn._poses import Poses
from omniconv.nn.pointwise import Pointwise, mixed

GroupSignal: TypeAlias = Annotated[Tensor, "batch channels group *size"]
Convolve: TypeAlias = Callable[[Signal, Taps], Signal]
Energy: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Maker:
    """What makes the parts of a layer's steps.

    `kernel(what, channels)`: a kernel of positions in "space", of features of the "group", of "both", or of those of
    one factor of the group, "factor 0" and so on. `group`, `count`: of the layer.
    """

    kernel: Callable[[str, int], Kernel]
    group: Group
    count: Count | None
    place: dict[str, Any]

    def linear(self, in_channels: int, out_channels: int) -> Pointwise:
        """A map of the channels."""
        return Pointwise(in_channels, out_channels, bias=False, **self.place)


class Step(nn.Module, ABC):
    """One linear map of a group signal, whose weights are sampled for the poses that a layer is given."""

    @abstractmethod
    def sample(self, poses: Poses) -> Tensor:
        """The weights, in the form in which `run` takes them."""

    @abstractmethod
    def run(self, x: GroupSignal, weights: Tensor, convolve: Convolve) -> GroupSignal:
        """The map."""

    @abstractmethod
    def variance(self, before: Tensor, weights: Tensor, energy: Energy) -> Tensor:
        """Variances (channels, group) of what comes out where white noise of the variances `before` goes in.

        `energy`: of taps (*channels, *kernel), for each of the channels.
        """

    @abstractmethod
    def flattened(self, weights: Tensor, inputs: int, dim: int) -> tuple[Tensor, int]:
        """The map as a grouped convolution of channels times elements, channels first, for so many elements in.

        Its taps (out, in / groups, *kernel) with `dim` axes, in the order of the library's, and the number of groups.
        """

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw the parameters anew."""


Factorization: TypeAlias = Callable[[Maker, int, int], list[Step]]
"""The steps for so many input and output channels."""


class OverChannels(Step):
    """A linear map of the channels, the same everywhere on the group and in space."""

    def __init__(self, make: Maker, in_channels: int, out_channels: int):
        super().__init__()
        self.linear = make.linear(in_channels, out_channels)

    def reset_parameters(self) -> None:
        self.linear.reset_parameters()

    def sample(self, poses: Poses) -> Tensor:
        return self.linear.weight

    def run(self, x: GroupSignal, weights: Tensor, convolve: Convolve) -> GroupSignal:
        return mixed(weights.to(x.dtype), x.flatten(2)).unflatten(2, x.shape[2:])

    def flattened(self, weights: Tensor, inputs: int, dim: int) -> tuple[Tensor, int]:
        return pointwise(torch.kron(weights, torch.eye(inputs).to(weights)), dim), 1

    def variance(self, before: Tensor, weights: Tensor, energy: Energy) -> Tensor:
        return weights.square() @ before


class OverGroup(Step):
    """y(o, h) = sum_g w_g sum_c K(h^-1 g)[o, c] x(c, g); `depthwise`: of every channel for itself."""

    def __init__(self, make: Maker, in_channels: int, out_channels: int, *, depthwise: bool = False):
        super().__init__()
        self.in_channels, self.out_channels, self.depthwise = in_channels, out_channels, depthwise
        self.kernel = make.kernel("group", out_channels if depthwise else in_channels * out_channels)

    def reset_parameters(self) -> None:
        self.kernel.reset_parameters()

    def sample(self, poses: Poses) -> Tensor:
        values = poses.weigh(self.kernel(poses.relative))
        if self.depthwise:
            return values.movedim(-1, 0)
        return channels_first(values, self.out_channels, self.in_channels).flatten(2, 3).flatten(0, 1)

    def run(self, x: GroupSignal, weights: Tensor, convolve: Convolve) -> GroupSignal:
        weights = weights.to(x.dtype)
        if self.depthwise:
            return torch.matmul(weights, x.flatten(3)).unflatten(3, x.shape[3:])
        y = mixed(weights, x.flatten(1, 2).flatten(2))
        return y.unflatten(2, x.shape[3:]).unflatten(1, (self.out_channels, -1))

    def flattened(self, weights: Tensor, inputs: int, dim: int) -> tuple[Tensor, int]:
        if self.depthwise:
            return pointwise(weights.flatten(0, 1), dim), self.out_channels
        return pointwise(weights, dim), 1

    def variance(self, before: Tensor, weights: Tensor, energy: Energy) -> Tensor:
        if self.depthwise:
            return (weights.square() @ before[..., None])[..., 0]
        return (weights.square() @ before.flatten()).unflatten(0, (self.out_channels, -1))


class OverFactor(Step):
    """`OverGroup` along one factor of a product of groups.

    y(o, .. h ..) = sum_g w_g sum_c K(h^-1 g)[o, c] x(c, .. g ..);  `depthwise`: of every channel for itself.
    `index`: of the factor. `count`s of the samples are those of the layer, in and out.
    """

    def __init__(self, make: Maker, index: int, in_channels: int, out_channels: int, *, depthwise: bool = False):
        super().__init__()
        assert isinstance(make.group, Product)  # as the layer has checked
        counts = make.group.grid(make.count).counts
        assert counts is not None  # it is a product
        self.in_channels, self.out_channels, self.depthwise = in_channels, out_channels, depthwise
        self.group, self.index, self.counts = make.group, index, counts
        first = sum(factor.features for factor in make.group.factors[:index])
        self.features = slice(first, first + make.group.factors[index].features)
        self.kernel = make.kernel(f"factor {index}", out_channels if depthwise else in_channels * out_channels)

    def reset_parameters(self) -> None:
        self.kernel.reset_parameters()

    def takes(self, samples: Samples) -> bool:
        """Whether the samples have the order that the step takes for granted."""
        return self.group.combines(samples, self.counts)

    def sample(self, poses: Poses) -> Tensor:
        """(out, outputs, in, inputs) of this factor's elements, or (channels, outputs, inputs)."""
        relative = along(
            along(poses.relative[..., self.features], self.counts, self.index, 0), self.counts, self.index, 1
        )
        others = [axis for axis in range(len(self.counts)) if axis != self.index]
        weights = poses.weights[0].unflatten(0, self.counts)
        weights = weights.sum(others) if others else weights
        values = self.kernel(relative) * weights[:, None]
        if self.depthwise:
            return values.movedim(-1, 0)
        return channels_first(values, self.out_channels, self.in_channels)

    def run(self, x: GroupSignal, weights: Tensor, convolve: Convolve) -> GroupSignal:
        apart = x.unflatten(2, self.counts).movedim(2 + self.index, 2)
        flat, weights = apart.flatten(3), weights.to(x.dtype)
        if self.depthwise:
            y = torch.matmul(weights, flat)
        else:
            y = mixed(weights.flatten(2, 3).flatten(0, 1), flat.flatten(1, 2)).unflatten(1, weights.shape[:2])
        y = y.unflatten(3, apart.shape[3:]).movedim(2, 2 + self.index)
        return y.flatten(2, 1 + len(self.counts))

    def flattened(self, weights: Tensor, inputs: int, dim: int) -> tuple[Tensor, int]:
        before, after = (math.prod(part) for part in (self.counts[: self.index], self.counts[self.index + 1 :]))
        eye, tail = torch.eye(before).to(weights), torch.eye(after).to(weights)
        if self.depthwise:
            full = torch.einsum("chg,pq,rs->cphrqgs", weights, eye, tail)
            return pointwise(full.flatten(4).flatten(0, 3), dim), self.out_channels
        full = torch.einsum("ohig,pq,rs->ophriqgs", weights, eye, tail)
        return pointwise(full.flatten(4).flatten(0, 3), dim), 1

    def variance(self, before: Tensor, weights: Tensor, energy: Energy) -> Tensor:
        return self.run(before[None, :, :, None], weights.square(), torch.add)[0, :, :, 0]


class Lift(Step):
    """y(o, h) = sum_c K(h^-1 lag)[o, c] * x(c), from a signal without a group, whose axis has one element."""

    def __init__(self, make: Maker, in_channels: int, out_channels: int):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel = make.kernel("space", in_channels * out_channels)

    def reset_parameters(self) -> None:
        self.kernel.reset_parameters()

    def sample(self, poses: Poses) -> Tensor:
        values = self.kernel(poses.positions) * poses.volume[..., None]
        return values.unflatten(-1, (self.out_channels, self.in_channels)).movedim((-2, -1), (0, 2)).flatten(0, 1)

    def run(self, x: GroupSignal, weights: Tensor, convolve: Convolve) -> GroupSignal:
        return convolve(x.flatten(1, 2), weights).unflatten(1, (self.out_channels, -1))

    def flattened(self, weights: Tensor, inputs: int, dim: int) -> tuple[Tensor, int]:
        return weights, 1

    def variance(self, before: Tensor, weights: Tensor, energy: Energy) -> Tensor:
        return (energy(weights) @ before.flatten()).unflatten(0, (self.out_channels, -1))


class OverSpace(Step):
    """y(c, h) = K(h^-1 lag)[c] * x(c, h), of every channel and element for itself.

    A signal without a group, whose axis has one element, is taken as the same at every element.
    """

    def __init__(self, make: Maker, channels: int):
        super().__init__()
        self.channels, self.kernel = channels, make.kernel("space", channels)

    def reset_parameters(self) -> None:
        self.kernel.reset_parameters()

    def sample(self, poses: Poses) -> Tensor:
        return (self.kernel(poses.positions) * poses.volume[..., None]).movedim(-1, 0).flatten(0, 1)

    def run(self, x: GroupSignal, weights: Tensor, convolve: Convolve) -> GroupSignal:
        count = len(weights) // self.channels
        x = x.expand(-1, -1, count, *x.shape[3:])
        return convolve(x.flatten(1, 2), weights).unflatten(1, (self.channels, count))

    def flattened(self, weights: Tensor, inputs: int, dim: int) -> tuple[Tensor, int]:
        return weights.unsqueeze(1), self.channels * inputs

    def variance(self, before: Tensor, weights: Tensor, energy: Energy) -> Tensor:
        return energy(weights).unflatten(0, (self.channels, -1)) * before


class OverBoth(Step):
    """Space and group at once: y(o, h) = sum_g w_g sum_c k(o, c, h, g) * x(c, g), in one convolution.

    `factored`: whether k(o, c, h, g) is K(h^-1 g)[o, c] K(h^-1 lag)[o, c] rather than K(h^-1 lag, h^-1 g)[o, c].
    """

    def __init__(self, make: Maker, in_channels: int, out_channels: int, *, factored: bool = False):
        super().__init__()
        self.in_channels, self.out_channels, self.factored = in_channels, out_channels, factored
        channels = in_channels * out_channels
        self.kernel = make.kernel("space" if factored else "both", channels)
        self.group_kernel = make.kernel("group", channels) if factored else None

    def reset_parameters(self) -> None:
        self.kernel.reset_parameters()
        if self.group_kernel is not None:
            self.group_kernel.reset_parameters()

    def sample(self, poses: Poses) -> Tensor:
        if self.group_kernel is None:
            values = poses.weigh(self.kernel(poses.joint)) * poses.volume[:, None, ..., None]
            taps = channels_first(values, self.out_channels, self.in_channels)
        else:
            values = self.kernel(poses.positions) * poses.volume[..., None]
            space = channels_first(values[:, None], self.out_channels, self.in_channels)
            group = poses.weigh(self.group_kernel(poses.relative))
            group = channels_first(group, self.out_channels, self.in_channels)
            taps = space * group.reshape(*group.shape, *[1] * len(poses.kernel))
        return taps.flatten(2, 3).flatten(0, 1)

    def run(self, x: GroupSignal, weights: Tensor, convolve: Convolve) -> GroupSignal:
        return convolve(x.flatten(1, 2), weights).unflatten(1, (self.out_channels, -1))

    def flattened(self, weights: Tensor, inputs: int, dim: int) -> tuple[Tensor, int]:
        return weights, 1

    def variance(self, before: Tensor, weights: Tensor, energy: Energy) -> Tensor:
        return (energy(weights) @ before.flatten()).unflatten(0, (self.out_channels, -1))


class OverBothByChannel(Step):
    """Space and group at once, of every channel for itself: y(c, h) = sum_g w_g K(h^-1 lag, h^-1 g)[c] * x(c, g)."""

    def __init__(self, make: Maker, channels: int):
        super().__init__()
        self.kernel = make.kernel("both", channels)

    def reset_parameters(self) -> None:
        self.kernel.reset_parameters()

    def sample(self, poses: Poses) -> Tensor:
        values = poses.weigh(self.kernel(poses.joint)) * poses.volume[:, None, ..., None]
        return values.movedim(-1, 0)

    def run(self, x: GroupSignal, weights: Tensor, convolve: Convolve) -> GroupSignal:
        pairs = zip(x.unbind(1), weights.unbind(0), strict=True)
        return torch.stack([convolve(channel, taps) for channel, taps in pairs], 1)

    def flattened(self, weights: Tensor, inputs: int, dim: int) -> tuple[Tensor, int]:
        return weights.flatten(0, 1), weights.shape[0]

    def variance(self, before: Tensor, weights: Tensor, energy: Energy) -> Tensor:
        return (energy(weights) @ before[..., None])[..., 0]


def channels_first(values: Tensor, out_channels: int, in_channels: int) -> Tensor:
    """Values (outputs, inputs, *points, out in) as (out, outputs, in, inputs, *points)."""
    return values.unflatten(-1, (out_channels, in_channels)).movedim((-2, -1), (0, 2))


def pointwise(weights: Tensor, dim: int) -> Taps:
    """Taps (out, in) of a convolution that looks at one position."""
    return weights.reshape(*weights.shape, *[1] * dim)


def along(values: Tensor, counts: tuple[int, ...], index: int, axis: int) -> Tensor:
    """Values on a product's samples, on one axis, at those of the one factor and the first of the others."""
    apart = values.unflatten(axis, counts)
    for other in reversed(range(len(counts))):
        if other != index:
            apart = apart.select(axis + other, 0)
    return apart
