"""The convolution layer: a grid, a continuous kernel, a support and an engine."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from omniconv._constants import numbers
from omniconv._errors import EngineError, check_choice, check_floating_tensor, check_integer, describe
from omniconv._typing import (
    Condition,
    PerAxis,
    Positions,
    Signal,
    Taps,
    Values,
    check_bool,
    check_directions,
    check_reach,
    per_axis,
)
from omniconv.domains import Cloud, Times
from omniconv.domains.clouds import check_finite, check_points
from omniconv.domains.grid import Grid, check_spacing
from omniconv.domains.times import check_output_times
from omniconv.engines import ENGINES, convolve
from omniconv.engines._shorten import fold
from omniconv.kernels import SIREN, KernelFactory, Modes
from omniconv.nn._at_positions import convolve_at_positions
from omniconv.nn._at_times import convolve_at_times
from omniconv.nn._checks import check_placed
from omniconv.nn._kept_taps import may_be_kept
from omniconv.nn._lags import Lags
from omniconv.nn._lowpass import coarsened
from omniconv.nn._parts import build_kernel, build_support
from omniconv.nn._recurrent import convolve_recurrent, refusal
from omniconv.nn._refreshed import Refreshed
from omniconv.nn.causal import Chain, Filter, Part, Shift
from omniconv.nn.masks import observed
from omniconv.nn.pointwise import Pointwise
from omniconv.nn.stepper import Steps
from omniconv.supports import Gaussian, SupportFactory

MIXINGS = ("dense", "depthwise", "separable")
THRESHOLD = 0.01
"""A support below this weight counts as zero: it holds under 1e-4 of a Gaussian window's energy."""


class Conv(Steps, Refreshed):
    """Convolution with a continuous kernel, on signals of one to three axes, any length and any resolution.

    y[t] = sum_lag w(lag) k(lag / reach) m(lag / reach) x[t - lag] + bias, with kernel k, support m and quadrature
    weights w, which are 1 on the reference grid.

    `in_channels`, `out_channels`: at least 1; equal for mixing "depthwise".
    `size`: samples per axis of the reference grid, an int for one axis.
    `kernel`, `support`: a `Kernel` and a `Support` class, or `functools.partial` of one.
    `mixing`: "dense" (a kernel per pair of channels), "depthwise" (one per channel) or "separable" (depthwise, then a
    linear map of the channels).
    `reach`: farthest lag per axis in samples of the reference grid, at least 0; None covers the signal: `size - 1` on a
    causal axis, `size // 2` to either side on the others.
    `causal`, `boundary`, `engine`: as in `convolve`; or "recurrent", for a causal layer of one axis that is not dense,
    with a kernel that has a recurrence, such as `Modal`, and the support `Full`: taps are never formed.
    `bias`: whether channels get a bias (in a separable layer, those of both steps).

    `forward(x, spacing=None)` takes `batch channels *size` or `channels *size` of any size. A longer signal at the
    reference spacing is just longer; `spacing=0.5`, one number or one per axis, says that the same span is sampled
    twice as finely, and the layer computes the same integral. At a spacing above 1 the kernel may hold frequencies that
    the grid does not carry, and aliasing makes it another kernel. With `lowpass=True` they are filtered out: the layer
    does to a coarse signal what it does to that signal interpolated, by sinc(t) cos(pi t / 16)^2 for |t| < 8 samples,
    to the reference spacing or a finer one. On a causal axis it is interpolated from its past alone.
    `forward(x, times=t)` takes series sampled at any times `t`, a tensor (batch, samples) in samples of the reference
    grid, or `Times` with a mask of what was observed; `output_times` (batch, outputs) asks for the output at others.
    On the times of the reference grid this is `forward(x)`.
    `forward(x, positions=p)` takes clouds of points, `batch channels points`, at any positions `p`, a tensor (batch,
    points, dim) in samples of the reference grid, or a `Cloud` with a mask and the volume of every point;
    `output_positions` (batch, outputs, dim) asks for the output at others. See `PointConv`, the same layer for clouds.
    `forward(x, condition=z)`, `batch conditions` in [0, 1], convolves every sample with the kernel of its own numbers,
    where the kernel takes them (`omniconv.kernels.Conditional`).

    The kernel is sampled only as far as the support reaches. That extent, rounded up to one of a few steps, is read on
    the host at construction, after `load_state_dict`, on `train()` and `eval()`, and by `refresh()`, never in
    `forward`; a training loop calls `refresh(model)` after a step of the optimiser. At evaluation without gradients the
    taps, and what the engine makes of them, are kept until a parameter changes; call `refresh()` after a change through
    `parameter.data` too, which the framework does not record.

    Raises `ValueError` or `TypeError` that names the argument, at construction for what does not fit together.

    >>> layer = Conv(3, 8, size=(16, 16), mixing="separable")
    >>> layer(torch.zeros(2, 3, 20, 16)).shape
    torch.Size([2, 8, 20, 16])
    """

    axes: ClassVar[int | None] = None
    gain: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: PerAxis[int],
        *,
        kernel: KernelFactory = SIREN,
        support: SupportFactory = Gaussian,
        mixing: str = "dense",
        reach: PerAxis[int] | None = None,
        causal: PerAxis[bool] = False,
        boundary: PerAxis[str] = "zero",
        bias: bool = True,
        engine: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels)
        self.out_channels = check_integer("out_channels", out_channels)
        self.mixing = check_choice("mixing", mixing, MIXINGS)
        self.engine = check_choice("engine", engine, ("auto", *ENGINES, "recurrent"))
        self.grid = Grid(size if self.axes is None else per_axis("size", size, self.axes, check_integer), 1.0, boundary)
        self.causal = per_axis("causal", causal, self.dim, check_bool)
        self.reach = self._reach(reach)
        if mixing == "depthwise" and in_channels != out_channels:
            raise ValueError(
                f'mixing="depthwise" needs as many output as input channels; got `in_channels` (={in_channels}) and '
                f'`out_channels` (={out_channels}). Use mixing="separable" to change the number.'
            )
        check_directions(self.causal, self.grid.boundary)
        check_bool("bias", bias)
        channels = in_channels * out_channels if mixing == "dense" else in_channels
        where: dict[str, Any] = {"reach": self.reach, "causal": self.causal, "device": device, "dtype": dtype}
        self.kernel = build_kernel(kernel, self.dim, channels, where)
        self.support = build_support(support, self.dim, where)
        if self.engine == "recurrent" and (reason := refusal(self.kernel, self.support, mixing)) is not None:
            raise EngineError(f'engine="recurrent" cannot run this layer: {reason}. Use another engine or "auto".')
        self.register_buffer("gain", torch.ones((), device=device, dtype=dtype))
        filtered = out_channels if mixing == "dense" else in_channels
        self.bias = nn.Parameter(torch.zeros(filtered, device=device, dtype=dtype)) if bias else None
        self.mixer = (
            Pointwise(in_channels, out_channels, bias=bias, device=device, dtype=dtype)
            if mixing == "separable"
            else None
        )
        self.window = self.reach
        self.bandlimit: tuple[float, ...] | None = None
        self.refresh()
        self._calibrate()

    @property
    def dim(self) -> int:
        """Number of axes."""
        return self.grid.dim

    def _reach(self, reach: PerAxis[int] | None) -> tuple[int, ...]:
        if reach is None:
            return tuple(n - 1 if past else n // 2 for n, past in zip(self.grid.size, self.causal, strict=True))
        return per_axis("reach", reach, self.dim, check_reach)

    def reset_parameters(self) -> None:
        """Draw kernel, support, bias and mixer anew and set the gain for them."""
        self.kernel.reset_parameters()
        self.support.reset_parameters()
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.mixer is not None:
            self.mixer.reset_parameters()
        self.refresh()
        self._calibrate()

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Set the gain with which white noise on the reference grid keeps its variance, on average over positions.

        A lag meets a sample at a share 1 - |lag| / size of the positions of a zero axis, at all of a circular one.
        """
        if self.gain.is_meta:
            return
        self.gain.fill_(1.0)
        taps = self.taps().double()
        for axis, edge in enumerate(self.grid.boundary):
            if edge == "circular":
                taps = fold(taps, axis - self.dim, self.grid.size[axis])
        energy = taps.square()
        for axis, lags in enumerate(self.grid.lags(self.window, causal=self.causal, device=energy.device)):
            if self.grid.boundary[axis] == "zero":
                met = (1 - lags.abs() / self.grid.size[axis]).clamp(min=0)
                energy = energy * met.reshape(-1, *[1] * (self.dim - 1 - axis))
        if self.mixer is not None:
            passed = self.mixer.weight.double().square().sum(0)
            energy = energy * passed.reshape(-1, *[1] * self.dim)
        total = (energy.sum() / self.out_channels).item()
        if not (math.isfinite(total) and total > 0):
            raise ValueError(
                f"`kernel` and `support` must make taps of finite, positive energy; {type(self.kernel).__name__} and "
                f"{type(self.support).__name__} made {total}. Check their initialisation."
            )
        self.gain.fill_(total**-0.5)

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the learned extent of the support and the band limit of the kernel on the host, for `forward` to use.

        The extent is rounded up to a power of 2^(1/4), so that a size that is learned takes few values.
        """
        if self.gain.is_meta:
            return
        self.kept_taps.clear()
        extents = self.support.extent(THRESHOLD)
        if len(extents) != self.dim or not all(0 < extent <= 1 for extent in extents):
            raise ValueError(
                f"the extent of {type(self.support).__name__} must be in (0, 1] on each of {self.dim} axes; got "
                f"{extents}. If it is not a number, training has diverged: lower the learning rate."
            )
        steps = (2.0 ** (-math.floor(-4 * math.log2(extent) + 1e-6) / 4) for extent in extents)
        self.window = tuple(min(far, math.ceil(step * far - 1e-6)) for step, far in zip(steps, self.reach, strict=True))
        self.bandlimit = self.kernel.bandlimit()

    def taps(
        self, spacing: PerAxis[float] | None = None, lowpass: bool = False, condition: Condition | None = None
    ) -> Taps:
        """The sampled kernel, `out in *kernel` (dense) or `channels *kernel`, on a grid of that spacing.

        With a condition, those of every sample, with the axis `batch` first.
        """
        if check_bool("lowpass", lowpass):
            return self._lowpass_taps(1.0 if spacing is None else spacing, condition)
        grid = self.grid.resampled(1.0 if spacing is None else spacing)
        axes = grid.lags(self.window, causal=self.causal, device=self.gain.device)
        lags = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        taps = self._values_on_grid(axes, grid.spacing, lags) if condition is None else None
        if taps is None:
            taps = self.values(lags, condition)
        for axis, weights in enumerate(grid.quadrature(self.window, causal=self.causal, device=taps.device)):
            taps = taps * weights.to(taps.dtype).reshape(-1, *[1] * (self.dim - 1 - axis))
        return taps

    def values(self, lags: Tensor, condition: Condition | None = None) -> Taps:
        """The kernel within its support at `lags` (`*points dim`), in samples of the reference grid.

        As `out in *points` (dense) or `channels *points`, without quadrature weights; with a condition `batch` first.
        """
        if condition is not None and not self.kernel.conditions:
            name = type(self.kernel).__name__
            raise ValueError(
                f"`condition` needs a kernel that takes one; {name} takes none. Wrap it: "
                f"kernel=functools.partial(omniconv.kernels.Conditional, kernel={name})."
            )
        positions = self._positions(lags)
        with strict_precision(self.gain.device):
            values = self.kernel(positions) if condition is None else self.kernel(positions, condition)
        return self._within_support(values, positions)

    def _values_on_grid(self, axes: Sequence[Tensor], spacing: tuple[float, ...], lags: Tensor) -> Taps | None:
        """`values(lags)` of the lags of a grid, `axes`, where the kernel offers its values on one; else None."""
        steps = tuple(len(axis) - 1 if past else len(axis) // 2 for axis, past in zip(axes, self.causal, strict=True))
        with strict_precision(self.gain.device):
            values = self.kernel.on_grid(steps, spacing, torch.promote_types(self.gain.dtype, torch.float32))
        return None if values is None else self._within_support(values, self._positions(lags))

    def _positions(self, lags: Tensor) -> Positions:
        """Lags in samples of the reference grid, `*points dim`, as positions in the dtype of the kernel's values."""
        dtype = torch.promote_types(self.gain.dtype, torch.float32)
        return (lags / numbers([max(far, 1) for far in self.reach], lags)).to(dtype)

    def _within_support(self, values: Values, positions: Positions) -> Taps:
        """Values of the kernel at the positions, times the support and the gain, in the order of taps."""
        with strict_precision(positions.device):
            values = values * self.support(positions)[..., None]
        channels = -positions.ndim
        values = values.movedim(-1, channels) * self.gain.to(positions.dtype)
        return values.unflatten(channels, (self.out_channels, self.in_channels)) if self.mixing == "dense" else values

    def _lowpass_taps(self, spacing: PerAxis[float], condition: Condition | None) -> Taps:
        """The taps at the multiples of `spacing` that stand for those on a grid no coarser than the reference."""
        steps = per_axis("spacing", spacing, self.dim, check_spacing)
        times = tuple(max(1, math.ceil(step - 1e-6)) for step in steps)  # 1 / (1 / 49) is a little more than 49
        taps = self.taps(tuple(step / n for step, n in zip(steps, times, strict=True)), condition=condition)
        with strict_precision(taps.device):
            return coarsened(taps, times, self.causal)

    def forward(
        self,
        x: Signal,
        spacing: PerAxis[float] | None = None,
        *,
        lowpass: bool = False,
        times: Times | Tensor | None = None,
        output_times: Tensor | None = None,
        positions: Cloud | Tensor | None = None,
        output_positions: Tensor | None = None,
        condition: Condition | None = None,
    ) -> Signal:
        if output_times is not None and times is None:
            raise ValueError("`output_times` needs `times`, those of the samples.")
        if output_positions is not None and positions is None:
            raise ValueError("`output_positions` needs `positions`, those of the points.")
        if positions is not None:
            self._check_no_grid("positions", spacing, lowpass, condition, times)
            return self._finished(self._convolve_at_positions(x, Cloud.of(positions), output_positions), x)
        self._check_input(x)
        batched = x if x.ndim == self.dim + 2 else x[None]
        if times is not None:
            self._check_no_grid("times", spacing, lowpass, condition)
            y = self._convolve_at_times(batched, Times.of(times), output_times)
        else:
            y = self._convolve_on_grid(batched, spacing, lowpass, condition)
        y = self._finished(y, x)
        return y if x.ndim == self.dim + 2 else y[0]

    def _finished(self, y: Signal, x: Signal) -> Signal:
        """With bias and mixer, in the dtype of `x`, whatever autocast made of the mixer."""
        if self.bias is not None:
            y = y + self.bias.to(y.dtype).reshape(-1, *[1] * (y.ndim - 2))
        if self.mixer is not None:
            y = self.mixer(y)
        return y.to(x.dtype)

    def _convolve_on_grid(
        self, x: Signal, spacing: PerAxis[float] | None, lowpass: bool, condition: Condition | None
    ) -> Signal:
        """The convolution on a grid of that spacing."""
        check_bool("lowpass", lowpass)
        if spacing is not None:
            spacing = per_axis("spacing", spacing, self.dim, check_spacing)
            if not lowpass:
                self.check_resolution(spacing)
        if self.engine == "recurrent":
            return self._convolve_recurrent(x, spacing, lowpass, condition)
        if condition is not None:
            return self._convolve_each(x, self.taps(spacing, lowpass, condition))
        return self._convolve(x, self._kept(spacing, lowpass))

    def _kept(self, spacing: tuple[float, ...] | None, lowpass: bool) -> Taps:
        """`taps(spacing, lowpass)`; at evaluation without gradients those of the last call, if nothing has changed."""
        if self.training or torch.is_grad_enabled():
            return self.taps(spacing, lowpass)
        sources = [*self.kernel.parameters(), *self.kernel.buffers(), self.gain]
        sources += [*self.support.parameters(), *self.support.buffers()]
        if not may_be_kept(sources):
            return self.taps(spacing, lowpass)
        key = (spacing, lowpass, self.window)
        return self.kept_taps.get(key, sources, lambda: [self.taps(spacing, lowpass)])[0]

    def _convolve(self, x: Signal, taps: Taps) -> Signal:
        return convolve(x, taps, causal=self.causal, boundary=self.grid.boundary, engine=self.engine)

    def _convolve_recurrent(
        self, x: Signal, spacing: tuple[float, ...] | None, lowpass: bool, condition: Condition | None
    ) -> Signal:
        """What `_convolve` does with `taps(spacing)`, without the taps."""
        if check_bool("lowpass", lowpass) or condition is not None:
            raise EngineError('engine="recurrent" takes no `lowpass` and no `condition`. Leave them out.')
        grid = self.grid if spacing is None else self.grid.resampled(spacing)
        modes = self.kernel.recurrence(grid.spacing[0])
        assert modes is not None  # as at construction
        (weights,) = grid.quadrature(self.window, causal=self.causal, device=x.device)
        return convolve_recurrent(x, Modes(modes.poles, modes.residues * self.gain), weights, grid.spacing[0])

    def _convolve_each(self, x: Signal, taps: Tensor) -> Signal:
        """Every sample with taps of its own, `batch out in *kernel` or `batch channels *kernel`."""
        if taps.shape[0] != x.shape[0]:
            raise ValueError(
                f"`condition` must be (batch, {self.kernel.conditions}) with the batch of `x`, {x.shape[0]}; got a "
                f"batch of {taps.shape[0]}."
            )
        if x.shape[0] == 0:
            return self._convolve(x, self.taps())
        if self.mixing == "dense":
            return torch.cat([self._convolve(one[None], own) for one, own in zip(x, taps, strict=True)])
        # Channels do not meet: those of all samples are the channels of one signal.
        return self._convolve(x.flatten(0, 1)[None], taps.flatten(0, 1))[0].unflatten(0, x.shape[:2])

    def _convolve_at_times(self, x: Signal, times: Times, output_times: Tensor | None) -> Signal:
        """The convolution at any times, in float32 at least."""
        if (x.shape[0], x.shape[-1]) != tuple(times.times.shape) or times.channels not in (1, x.shape[1]):
            raise ValueError(
                f"`times` must be (batch, samples), here ({x.shape[0]}, {x.shape[-1]}), with a mask for all channels "
                f"or for each of {x.shape[1]}; got {tuple(times.times.shape)} and {times.channels}."
            )
        if output_times is not None:
            check_output_times(output_times, x.shape[0])
            output_times = output_times.double()
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        with strict_precision(x.device):
            y = convolve_at_times(observed(exact, times.observed), self._lags(), times, output_times)
        return y.to(x.dtype)

    def _convolve_at_positions(self, x: Signal, cloud: Cloud, output_positions: Tensor | None) -> Signal:
        """The convolution at any positions, in float32 at least."""
        check_floating_tensor("x", x)
        if x.ndim != 3 or x.shape[1] != self.in_channels:
            raise ValueError(f"`x` must be (batch, {self.in_channels}, points); got {describe(x)}.")
        check_placed(x, self.gain)
        expected = (x.shape[0], x.shape[2], self.dim)
        if tuple(cloud.positions.shape) != expected:
            raise ValueError(
                f"`positions` must be (batch, points, dim), here {expected}; got {describe(cloud.positions)}."
            )
        if output_positions is not None:
            check_points("output_positions", output_positions)
            check_finite("output_positions", output_positions, torch.ones_like(output_positions[..., 0]).bool())
            if (output_positions.shape[0], output_positions.shape[2]) != (x.shape[0], self.dim):
                raise ValueError(
                    f"`output_positions` must be ({x.shape[0]}, outputs, {self.dim}); got {describe(output_positions)}."
                )
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        with strict_precision(x.device):
            return convolve_at_positions(exact, self._lags(), cloud, math.prod(self.grid.size), output_positions)

    def _lags(self) -> Lags:
        """The kernel, for convolutions that lie on no grid."""
        return Lags(self.values, self.kernel.channels, self.window, self.causal, self.engine)

    def _check_no_grid(
        self,
        name: str,
        spacing: PerAxis[float] | None,
        lowpass: bool,
        condition: Condition | None,
        times: Times | Tensor | None = None,
    ) -> None:
        """Raise unless signals can be off the grid, at "times" or "positions"."""
        if name == "times" and self.dim != 1:
            raise ValueError(f"`times` are for series, of one axis; this layer has {self.dim} axes.")
        if "circular" in self.grid.boundary:
            raise ValueError(f'`{name}` need boundary="zero" on every axis; this layer has {self.grid.boundary}.')
        if self.engine == "recurrent":
            raise EngineError(f'`{name}` and engine="recurrent" exclude each other: it steps from sample to sample.')
        if spacing is not None:
            raise ValueError(f"`{name}` and `spacing` exclude each other: {name} say how finely a signal is sampled.")
        if check_bool("lowpass", lowpass):
            raise ValueError(
                f"`{name}` and `lowpass` exclude each other: the kernel is taken at the very lags between samples. "
                "Leave `lowpass` out."
            )
        for other, value in (("condition", condition), ("times", times)):
            if value is not None:
                raise ValueError(f"`{name}` and `{other}` exclude each other. Leave one of them out.")

    def _ends(self) -> tuple[int, int, Tensor]:
        return self.in_channels, self.out_channels, self.gain

    def check_causal(self, what: str) -> None:
        """Raise `ValueError` unless the layer is causal on its one axis, with one kernel for all; `what` is named."""
        if self.dim != 1 or self.causal != (True,):
            raise ValueError(
                f"{what} is not causal on one axis (dim {self.dim}, causal={self.causal}), and what it gives depends "
                "on samples to come. Build it with causal=True."
            )
        if self.kernel.conditions:
            raise ValueError(f"{what} has a kernel that depends on a condition, of which a recurrence knows nothing.")

    def causal_part(self, name: str, filtered: Filter) -> Part:
        """The layer as a causal map that takes a signal in pieces, with `filtered` in place of its kernel."""
        self.check_causal(f"`model`: {name}")
        parts = [filtered(name, self)]
        if self.bias is not None:
            parts.append(Shift(self.bias))
        if self.mixer is not None:
            parts.append(self.mixer.causal_part())
        return Chain(parts)

    def check_resolution(self, spacing: tuple[float, ...], name: str = "") -> None:
        """Warn if a grid of that spacing is too coarse for the frequencies of the kernel; `name` is the layer's."""
        if self.bandlimit is None or torch.compiler.is_compiling():
            return
        for axis, (limit, step) in enumerate(zip(self.bandlimit, spacing, strict=True)):
            if step > 1 and limit * step > 1:
                warnings.warn(
                    f"{name or type(self).__name__}: the kernel holds frequencies up to {limit:.2f} of the reference "
                    f"Nyquist frequency on axis {axis}; spacing {step:g} carries {1 / step:.2f}. Expect aliasing; "
                    f"ask for `lowpass=True`, or train with a smaller `bandwidth` to use this resolution.",
                    stacklevel=3,
                )

    def _check_input(self, x: Any) -> None:
        check_floating_tensor("x", x)
        if x.ndim not in (self.dim + 1, self.dim + 2) or x.shape[-self.dim - 1] != self.in_channels:
            axes = "".join(f", size_{axis}" for axis in range(self.dim))
            raise ValueError(
                f"`x` must be (batch, {self.in_channels}{axes}) or ({self.in_channels}{axes}); got {describe(x)}."
            )
        check_placed(x, self.gain)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, size={self.grid.size}, mixing={self.mixing!r}, "
            f"reach={self.reach}, causal={self.causal}, boundary={self.grid.boundary}, "
            f"bias={self.bias is not None}, engine={self.engine!r}"
        )


class Conv1d(Conv):
    """`Conv` on sequences: `size` is one int."""

    axes = 1


class Conv2d(Conv):
    """`Conv` on images: `size` is (height, width), or one int for both."""

    axes = 2


class Conv3d(Conv):
    """`Conv` on volumes: `size` is (depth, height, width), or one int for all."""

    axes = 3


def strict_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast: large phases do not survive half precision."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()
