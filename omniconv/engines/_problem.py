"""What an engine is asked to do, without the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from omniconv._errors import check_floating_tensor
from omniconv._precision import HALF
from omniconv._typing import PerAxis, Signal, Taps, check_bool, check_boundary, check_directions, per_axis


@dataclass(frozen=True)
class Problem:
    """A convolution, described by sizes alone: y[t] = sum_s taps[s] x[t + origin - s].

    `size`, `kernel_size`, `causal`, `boundary` have one entry per axis. `depthwise`: every channel has its own taps;
    otherwise the taps mix `in_channels` into `out_channels`. `training`: whether gradients will be asked for, which
    `explain_engine` then explains too; the choice for the convolution itself is the same.
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
        causal, boundary = directions(x, taps, causal, boundary)
        if training is None:
            training = x.requires_grad or taps.requires_grad
        training = check_bool("training", training)
        return problem_of_shapes(x.shape, taps.shape, causal, boundary, x.dtype, x.device.type, training)

    def __hash__(self) -> int:
        """The hash of all fields, made once: every choice and table is remembered by problem."""
        return self._hash

    def __getstate__(self) -> dict[str, object]:
        """The fields alone: a hash is another one in the next process."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _hash(self) -> int:
        """See `__hash__`."""
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    @cached_property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.size)

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes of signals and taps, counted from the end."""
        return tuple(range(-self.dim, 0))

    @cached_property
    def origin(self) -> tuple[int, ...]:
        """Index of the zero lag per axis: 0 if causal, else `kernel_size // 2`."""
        return tuple(0 if past else k // 2 for k, past in zip(self.kernel_size, self.causal, strict=True))

    @cached_property
    def circular(self) -> tuple[bool, ...]:
        """Which axes are periodic."""
        return tuple(edge == "circular" for edge in self.boundary)

    @cached_property
    def pairs(self) -> int:
        """Products of one sample with one tap per output position and tap: (batch, channel) pairs that are weighed."""
        return self.batch * self.out_channels * (1 if self.depthwise else self.in_channels)

    @cached_property
    def positions(self) -> int:
        """Samples per channel."""
        return math.prod(self.size)

    @cached_property
    def tap_count(self) -> int:
        """Taps per channel."""
        return math.prod(self.kernel_size)

    def with_kernel_size(self, kernel_size: tuple[int, ...]) -> Problem:
        """The same problem with another kernel size."""
        return replace(self, kernel_size=kernel_size)


def problem_of_shapes(
    x: Sequence[int],
    taps: Sequence[int],
    causal: tuple[bool, ...],
    boundary: tuple[str, ...],
    dtype: torch.dtype,
    device: str,
    training: bool,
) -> Problem:
    """The problem of operands of these shapes, which were checked before."""
    dim = len(x) - 2
    return Problem(
        batch=x[0],
        in_channels=x[1],
        out_channels=taps[0],
        depthwise=len(taps) == dim + 1,
        size=tuple(x[2:]),
        kernel_size=tuple(taps[-dim:]),
        causal=causal,
        boundary=boundary,
        dtype=dtype,
        device=device,
        training=training,
    )


def directions(
    x: Signal, taps: Taps, causal: PerAxis[bool], boundary: PerAxis[str]
) -> tuple[tuple[bool, ...], tuple[str, ...]]:
    """`causal` and `boundary` per axis, after all checks of `convolve`."""
    check_floating_tensor("x", x)
    check_floating_tensor("taps", taps)
    operands = (x.shape, taps.shape, x.dtype, taps.dtype, x.device, taps.device)
    return checked_directions(*operands, causal, boundary)


def is_plain(value: object, kind: type) -> bool:
    """Whether the value is of that very type, or a tuple of such values: lists cannot be remembered, and 1 would be
    taken for True.
    """
    return type(value) is kind or (type(value) is tuple and all([type(item) is kind for item in value]))  # noqa: C419


def checked_directions(
    x: Sequence[int],
    taps: Sequence[int],
    x_dtype: torch.dtype,
    taps_dtype: torch.dtype,
    x_device: torch.device,
    taps_device: torch.device,
    causal: PerAxis[bool],
    boundary: PerAxis[str],
) -> tuple[tuple[bool, ...], tuple[str, ...]]:
    """Raise unless operands of these shapes, dtypes and devices fit together."""
    check_shapes(x, taps)
    if taps_dtype != x_dtype and not (x_dtype in HALF and taps_dtype == torch.float32):
        raise TypeError(
            f"`taps` must have the dtype of `x` (or float32 where `x` is float16 or bfloat16); got {taps_dtype} taps "
            f"for {x_dtype} `x`. Convert one of them with `.to(dtype)`."
        )
    if taps_device != x_device:
        raise ValueError(f"`x` and `taps` must be on one device; got {x_device} and {taps_device}.")
    dim = len(x) - 2
    past, edges = per_axis("causal", causal, dim, check_bool), per_axis("boundary", boundary, dim, check_boundary)
    check_directions(past, edges)
    return past, edges


PLAIN = (Tensor, nn.Parameter)
"""Types of real tensors, whose sizes are numbers and no symbols."""


def check_shapes(x: Sequence[int], taps: Sequence[int]) -> None:
    """Raise unless `x` is `batch channels *size` and `taps` fit it."""
    if not 3 <= len(x) <= 5:
        raise ValueError(
            "`x` must be (batch, channels, *size) with one to three axes in size; "
            f"got shape {tuple(x)}. Add the missing axes with `x[None]` or `x[:, None]`."
        )
    if len(taps) not in (len(x) - 1, len(x)):
        raise ValueError(
            f"`taps` must be (channels, *kernel) or (out, in, *kernel) with {len(x) - 2} kernel axes, as in `x` "
            f"of shape {tuple(x)}; got shape {tuple(taps)}."
        )
    channels = taps[0] if len(taps) == len(x) - 1 else taps[1]
    if channels != x[1]:
        kind = "depthwise" if len(taps) == len(x) - 1 else "dense"
        raise ValueError(
            f"`taps` of shape {tuple(taps)} are {kind} and need an `x` of {channels} channels; "
            f"got `x` of shape {tuple(x)}."
        )
    if min(x[1:]) < 1 or min(taps) < 1:
        raise ValueError(
            f"`x` and `taps` must have at least one channel and one sample per axis; got shapes {tuple(x)} and "
            f"{tuple(taps)}."
        )
