"""The contract of a kernel, and the arithmetic that coordinate networks share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._constants import numbers
from omniconv._errors import check_integer, check_number
from omniconv._precision import AtLeastFloat32
from omniconv._references import Cited
from omniconv._tags import Tagged
from omniconv._typing import PerAxis, Positions, Values, check_bool, check_reach, per_axis
from omniconv.kernels._modes import Modes


class Kernel(Cited, Tagged, AtLeastFloat32, ABC):
    """A function from relative positions to kernel values: position 0 is the sample itself, 1 the reach of the kernel.

    `dim`: number of axes, 1 or more. `channels`: values per position.
    `reach`: samples of the reference grid between position 0 and 1, one int or one per axis, at least 0. It fixes the
    unit of frequency: the Nyquist frequency of the reference grid is pi * reach radians per unit of position.
    `causal`: whether positions are in [0, 1] rather than [-1, 1], one or one per axis.

    At construction a kernel has unit mean square over its window, so that the layer alone settles the gain.
    Its parameters stay in float32 when a network is cast to half precision.
    A subclass writes `forward` and `reset_parameters` (called at the end of its constructor).

    `conditions`: numbers per sample that `forward` may be given as a second argument, `batch conditions`; it then
    returns `batch *points channels`.
    """

    conditions: int = 0

    def __init__(self, dim: int, channels: int, *, reach: PerAxis[int], causal: PerAxis[bool] = False):
        super().__init__()
        self.dim = check_integer("dim", dim)
        self.channels = check_integer("channels", channels)
        self.reach = per_axis("reach", reach, dim, check_reach)
        self.causal = per_axis("causal", causal, dim, check_bool)

    @abstractmethod
    def forward(self, positions: Positions) -> Values:
        """Kernel values at `positions` (`*points dim`), as `*points channels`, in the positions' dtype."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw the parameters anew."""

    def on_grid(self, steps: tuple[int, ...], spacing: tuple[float, ...], dtype: torch.dtype) -> Values | None:
        """Kernel values on a regular grid, `*grid channels` of that dtype; None: `forward` is the way to have them.

        For kernels that know their values on a whole grid at less cost than point by point. The grid has the lags
        i spacing on every axis, in samples of the reference grid, i = -steps .. steps, or 0 .. steps on a causal axis:
        the positions i spacing / reach (1 for a reach of 0). It is told in numbers, not as positions, because equal
        distances cannot be read off rounded positions, nor off a device without halting it. Differentiable in the
        parameters, as the values of `forward` are, and as accurate as these at least.
        """
        return None

    def bandwidths(self) -> Tensor | None:
        """Highest frequency of each filter per axis (`filters dim`, Nyquist units), differentiable; None: not known.

        Filters are factors of the kernel: in a product the frequencies add. A kernel that is no product is one filter.
        """
        return None

    def recurrence(self, spacing: float = 1.0) -> Modes | None:
        """The recurrence whose taps are this kernel's values at the lags 0, 1, .. times `spacing`, in samples of the
        reference grid; None where none is known.

        Exact, differentiable in the parameters, and in complex128 whatever their dtype: a rounding of a pole grows with
        the number of steps. It goes on beyond the reach.
        """
        return None

    @torch.no_grad()
    def to_modal(self) -> Modes | None:
        """The recurrence of the reference grid as it is now, without a graph; None where none is known."""
        return self.recurrence()

    @torch.no_grad()
    def bandlimit(self) -> tuple[float, ...] | None:
        """Highest frequency per axis in units of the reference grid's Nyquist frequency; None where none is known.

        The sum of `bandwidths()`, read on the host.
        """
        widths = self.bandwidths()
        return None if widths is None else tuple(widths.sum(0).tolist())

    def nyquist(self) -> list[float]:
        """Nyquist frequency of the reference grid per axis, in radians per unit of position."""
        return [math.pi * max(far, 1) for far in self.reach]

    def in_nyquist_units(self, frequency: Tensor) -> Tensor:
        """Frequencies (`*units dim`) in radians per unit of position, as shares of the Nyquist frequency."""
        return frequency / numbers(self.nyquist(), frequency)

    def reference_positions(self, limit: int = 4096) -> Tensor:
        """About `limit` or fewer even positions that cover the window, as `points dim` in float64 on the CPU."""
        if 3**self.dim > limit:  # not even three per axis: spread at random, in pairs that keep the middle
            return self._random_positions(limit // 2)
        side = max(2, round(limit ** (1 / self.dim)))
        axes = []
        for far, past in zip(self.reach, self.causal, strict=True):
            first, points = (0.0, far + 1) if past else (-1.0, 2 * far + 1)
            ends = (first, 1.0) if far else (0.0, 0.0)
            axis = torch.linspace(*ends, min(side, points), dtype=torch.float64, device="cpu")
            axes.append(axis if past else (axis - axis.flip(0)) / 2)  # rounded, the middle would not be zero
        return torch.cartesian_prod(*axes).reshape(-1, self.dim)

    def _random_positions(self, pairs: int) -> Tensor:
        """The same positions at every call, each with its mirror image, or on causal axes with itself."""
        generator = torch.Generator("cpu").manual_seed(0)
        half = torch.rand(pairs, self.dim, dtype=torch.float64, device="cpu", generator=generator)
        half *= torch.tensor([float(far > 0) for far in self.reach], device="cpu")
        mirror = torch.tensor([1.0 if past else -1.0 for past in self.causal], dtype=torch.float64, device="cpu")
        if self.dim > 1:  # a random sign for every axis, or only two orthants would be seen
            signs = torch.randint(2, half.shape, device="cpu", generator=generator) * 2.0 - 1.0
            half = torch.where(mirror < 0, half * signs, half)
        return torch.cat([half, half * mirror])

    def extra_repr(self) -> str:
        return f"{self.dim}, {self.channels}, reach={self.reach}, causal={self.causal}"


def check_frequency(bandwidth: float | None, omega_0: float | None, *, default: float) -> tuple[float, float | None]:
    """The bandwidth, and `omega_0` if that is what was given; raise `ValueError` if both were."""
    if bandwidth is not None and omega_0 is not None:
        raise ValueError(f"`bandwidth` and `omega_0` exclude each other; got {bandwidth} and {omega_0}. Give one.")
    checked = None if omega_0 is None else check_number("omega_0", omega_0, low=0.0)
    return check_number("bandwidth", default if bandwidth is None else bandwidth, low=0.0), checked


class KernelFactory(Protocol):
    """What a layer takes as `kernel`: a kernel class, or `functools.partial` of one."""

    def __call__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Kernel: ...


def affine(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer in the dtype of `values`: a kernel in bfloat16 is still evaluated in float32."""
    return F.linear(values, weight.to(values.dtype), bias.to(values.dtype))


def phases(positions: Positions, frequency: Tensor, shift: Tensor) -> Tensor:
    """Phases `sum_d frequency[..., d] positions[..., d] + shift` as `*points units`, in the positions' dtype.

    A sum of products rather than a matrix product: no setting of the matrix units may round a large phase.
    """
    frequency, shift = frequency.to(positions.dtype), shift.to(positions.dtype)
    total = shift
    for d in range(positions.shape[-1]):
        total = total + positions[..., d, None] * frequency[:, d]
    return total


@torch.no_grad()
def calibrate(kernel: Kernel, output_weight: Tensor, output_length: Tensor | None = None) -> None:
    """Scale the output layer, whose bias is zero, so that the kernel has unit mean square over its window."""
    if output_weight.is_meta:
        return
    values = kernel(kernel.reference_positions().to(output_weight.device))
    # A kernel that is zero everywhere stays so, instead of growing without bound: whoever needs its energy names it.
    output_weight.div_(values.square().mean().clamp(min=torch.finfo(output_weight.dtype).tiny).sqrt())
    set_length(output_length, output_weight)


def make_length(weight: Tensor, weight_norm: bool) -> nn.Parameter | None:
    """A length per row of `weight` for `normalized`, to be set by `set_length`; None without weight normalisation."""
    return nn.Parameter(torch.empty_like(weight[..., 0])) if weight_norm else None


@torch.no_grad()
def set_length(length: Tensor | None, weight: Tensor) -> None:
    """Set the lengths with which `normalized` gives back `weight`, to the last bit."""
    if length is not None:
        length.copy_(row_norm(weight))


def normalized(weight: Tensor, length: Tensor | None) -> Tensor:
    """Weight normalisation, row by row: g v / |v| of a weight v and its length g; v itself where there is no length."""
    return weight if length is None else weight * (length / row_norm(weight))[..., None]


def row_norm(weight: Tensor) -> Tensor:
    """Euclidean norm of the rows; a row of zeros has the smallest number, so that it stays one when normalised."""
    return torch.linalg.vector_norm(weight, dim=-1).clamp(min=torch.finfo(weight.dtype).tiny)
