"""What an engine is asked to do, without the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from omniconv._errors import check_floating_tensor
from omniconv._precision import HALF
from omniconv._typing import PerAxis, Signal, Taps, check_bool, check_boundary, check_directions, per_axis


@dataclass(frozen=True)
class Problem:
    """A convolution, described by sizes alone: y[t] = sum_s taps[s] x[t + origin - s].

    `size`, `kernel_size`, `causal`, `boundary` have one entry per axis. `depthwise`: every channel has its own taps;
    otherwise the taps mix `in_channels` into `out_channels`. `training`: whether gradients will be asked for.
    """

    batch: int
    in_channels: int
    out_channels: int
    depthwise: bool
    size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    causal: tuple[bool, ...]
    boundary: tuple[str, ...]
    dtype: torch.dtype
    device: str
    training: bool

    @staticmethod
    def of(
        x: Signal,
        taps: Taps,
        *,
        causal: PerAxis[bool] = False,
        boundary: PerAxis[str] = "zero",
        training: bool | None = None,
    ) -> Problem:
        """The problem of convolving `x` with `taps`; the arguments and errors are those of `convolve`.

        `training`: None looks whether `x` or `taps` require gradients.
        """
        check_operands(x, taps)
        dim = x.ndim - 2
        causal = per_axis("causal", causal, dim, check_bool)
        boundary = per_axis("boundary", boundary, dim, check_boundary)
        check_directions(causal, boundary)
        depthwise = taps.ndim == x.ndim - 1
        return Problem(
            batch=x.shape[0],
            in_channels=x.shape[1],
            out_channels=taps.shape[0],
            depthwise=depthwise,
            size=tuple(x.shape[2:]),
            kernel_size=tuple(taps.shape[-dim:]),
            causal=causal,
            boundary=boundary,
            dtype=x.dtype,
            device=x.device.type,
            training=x.requires_grad or taps.requires_grad if training is None else training,
        )

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.size)

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes of signals and taps, counted from the end."""
        return tuple(range(-self.dim, 0))

    @property
    def origin(self) -> tuple[int, ...]:
        """Index of the zero lag per axis: 0 if causal, else `kernel_size // 2`."""
        return tuple(0 if past else k // 2 for k, past in zip(self.kernel_size, self.causal, strict=True))

    @property
    def circular(self) -> tuple[bool, ...]:
        """Which axes are periodic."""
        return tuple(edge == "circular" for edge in self.boundary)

    @property
    def pairs(self) -> int:
        """Products of one sample with one tap per output position and tap: (batch, channel) pairs that are weighed."""
        return self.batch * self.out_channels * (1 if self.depthwise else self.in_channels)

    @property
    def positions(self) -> int:
        """Samples per channel."""
        return math.prod(self.size)

    @property
    def tap_count(self) -> int:
        """Taps per channel."""
        return math.prod(self.kernel_size)

    def with_kernel_size(self, kernel_size: tuple[int, ...]) -> Problem:
        """The same problem with another kernel size."""
        return replace(self, kernel_size=kernel_size)


def check_operands(x: Any, taps: Any) -> None:
    """Raise unless `x` is `batch channels *size` and `taps` fit it."""
    check_floating_tensor("x", x)
    check_floating_tensor("taps", taps)
    if not 3 <= x.ndim <= 5:
        raise ValueError(
            "`x` must be (batch, channels, *size) with one to three axes in size; "
            f"got shape {tuple(x.shape)}. Add the missing axes with `x[None]` or `x[:, None]`."
        )
    if taps.ndim not in (x.ndim - 1, x.ndim):
        raise ValueError(
            f"`taps` must be (channels, *kernel) or (out, in, *kernel) with {x.ndim - 2} kernel axes, as in `x` "
            f"of shape {tuple(x.shape)}; got shape {tuple(taps.shape)}."
        )
    channels = taps.shape[0] if taps.ndim == x.ndim - 1 else taps.shape[1]
    if channels != x.shape[1]:
        kind = "depthwise" if taps.ndim == x.ndim - 1 else "dense"
        raise ValueError(
            f"`taps` of shape {tuple(taps.shape)} are {kind} and need an `x` of {channels} channels; "
            f"got `x` of shape {tuple(x.shape)}."
        )
    if min(x.shape[1:]) < 1 or min(taps.shape) < 1:
        raise ValueError(
            f"`x` and `taps` must have at least one channel and one sample per axis; got shapes {tuple(x.shape)} and "
            f"{tuple(taps.shape)}."
        )
    if taps.dtype != x.dtype and not (x.dtype in HALF and taps.dtype == torch.float32):
        raise TypeError(
            f"`taps` must have the dtype of `x` (or float32 where `x` is float16 or bfloat16); got {taps.dtype} taps "
            f"for {x.dtype} `x`. Convert one of them with `.to(dtype)`."
        )
    if taps.device != x.device:
        raise ValueError(f"`x` and `taps` must be on one device; got {x.device} and {taps.device}.")
