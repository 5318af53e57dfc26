"""The convolution layer: a grid, a continuous kernel, a support and an engine."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from omniconv._errors import check_choice, check_floating_tensor, check_integer, describe
from omniconv._typing import PerAxis, Signal, Taps, check_bool, per_axis
from omniconv.domains.grid import Grid, check_spacing
from omniconv.engines import convolve
from omniconv.engines._select import check_engine_name
from omniconv.kernels import SIREN, Kernel, KernelFactory
from omniconv.nn.pointwise import Pointwise
from omniconv.supports import Gaussian, Support, SupportFactory

MIXINGS = ("dense", "depthwise", "separable")
THRESHOLD = 0.01
"""A support below this weight counts as zero: it holds under 1e-4 of a Gaussian window's energy."""


class Conv(nn.Module):
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
    `causal`, `boundary`, `engine`: as in `convolve`.
    `bias`: whether channels get a bias (in a separable layer, those of both steps).

    `forward(x, spacing=None)` takes `batch channels *size` or `channels *size` of any size. A longer signal at the
    reference spacing is just longer; `spacing=0.5`, one number or one per axis, says that the same span is sampled
    twice as finely, and the layer computes the same integral.

    The kernel is sampled only as far as the support reaches. That extent, rounded up to one of a few steps, is read on
    the host at construction, after `load_state_dict`, on `train()` and `eval()`, and by `refresh()`, never in
    `forward`; a training loop calls `refresh(model)` after a step of the optimiser.

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
        self.engine = check_engine_name(engine)
        self.grid = Grid(size if self.axes is None else per_axis("size", size, self.axes, check_integer), 1.0, boundary)
        self.causal = per_axis("causal", causal, self.dim, check_bool)
        self.reach = self._reach(reach)
        if mixing == "depthwise" and in_channels != out_channels:
            raise ValueError(
                f'mixing="depthwise" needs as many output as input channels; got `in_channels` (={in_channels}) and '
                f'`out_channels` (={out_channels}). Use mixing="separable" to change the number.'
            )
        check_causal_boundary(self.causal, self.grid.boundary)
        channels = in_channels * out_channels if mixing == "dense" else in_channels
        where: dict[str, Any] = {"reach": self.reach, "causal": self.causal, "device": device, "dtype": dtype}
        self.kernel = check_kernel_shape(kernel(self.dim, channels, **where), self.dim, channels)
        self.support = check_support_shape(support(self.dim, **where), self.dim)
        self.register_buffer("gain", torch.ones((), device=device, dtype=dtype))
        filtered = out_channels if mixing == "dense" else in_channels
        self.bias = nn.Parameter(torch.zeros(filtered, device=device, dtype=dtype)) if bias else None
        self.mixer = (
            Pointwise(in_channels, out_channels, bias=bias, device=device, dtype=dtype)
            if mixing == "separable"
            else None
        )
        self.register_load_state_dict_post_hook(refresh_after_loading)
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
        return per_axis("reach", reach, self.dim, lambda name, value: check_integer(name, value, minimum=0))

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
        energy = self.taps().double().square()
        for axis, lags in enumerate(self.grid.lags(self.window, causal=self.causal, device=energy.device)):
            if self.grid.boundary[axis] == "zero":
                met = (1 - lags.abs() / self.grid.size[axis]).clamp(min=0)
                energy = energy * met.reshape(-1, *[1] * (self.dim - 1 - axis))
        if self.mixer is not None:
            passed = self.mixer.weight.double().square().sum(0)
            energy = energy * passed.reshape(-1, *[1] * self.dim)
        self.gain.fill_((energy.sum() / self.out_channels).rsqrt())

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the learned extent of the support and the band limit of the kernel on the host, for `forward` to use.

        The extent is rounded up to a power of 2^(1/4), so that a size that is learned takes few values.
        """
        if self.gain.is_meta:
            return
        extents = self.support.extent(THRESHOLD)
        steps = (2.0 ** (-math.floor(-4 * math.log2(extent) + 1e-6) / 4) for extent in extents)
        self.window = tuple(min(far, math.ceil(step * far - 1e-6)) for step, far in zip(steps, self.reach, strict=True))
        self.bandlimit = self.kernel.bandlimit()

    def train(self, mode: bool = True) -> Conv:
        """Set the mode as `torch.nn.Module.train` does, and `refresh()`."""
        super().train(mode)
        self.refresh()
        return self

    def taps(self, spacing: PerAxis[float] | None = None) -> Taps:
        """The sampled kernel, `out in *kernel` (dense) or `channels *kernel`, on a grid of that spacing."""
        grid = self.grid.resampled(1.0 if spacing is None else spacing)
        device, dtype = self.gain.device, torch.promote_types(self.gain.dtype, torch.float32)
        lags = grid.lags(self.window, causal=self.causal, device=device)
        axes = [lag / max(far, 1) for lag, far in zip(lags, self.reach, strict=True)]
        positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).to(dtype)
        with torch.autocast(device.type, enabled=False):  # large phases do not survive half precision
            values = self.kernel(positions) * self.support(positions)[..., None]
        for axis, weights in enumerate(grid.quadrature(self.window, causal=self.causal, device=device)):
            values = values * weights.to(dtype).reshape(-1, *[1] * (self.dim - axis))
        taps = values.movedim(-1, 0) * self.gain.to(dtype)
        return taps.unflatten(0, (self.out_channels, self.in_channels)) if self.mixing == "dense" else taps

    def forward(self, x: Signal, spacing: PerAxis[float] | None = None) -> Signal:
        self._check_input(x)
        batched = x if x.ndim == self.dim + 2 else x[None]
        if spacing is not None:
            spacing = per_axis("spacing", spacing, self.dim, check_spacing)
            self.check_resolution(spacing)
        y = convolve(batched, self.taps(spacing), causal=self.causal, boundary=self.grid.boundary, engine=self.engine)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype).reshape(-1, *[1] * self.dim)
        if self.mixer is not None:
            y = self.mixer(y)
        return y if x.ndim == self.dim + 2 else y[0]

    def check_resolution(self, spacing: tuple[float, ...], name: str = "") -> None:
        """Warn if a grid of that spacing is too coarse for the frequencies of the kernel; `name` is the layer's."""
        if self.bandlimit is None or torch.compiler.is_compiling():
            return
        for axis, (limit, step) in enumerate(zip(self.bandlimit, spacing, strict=True)):
            if step > 1 and limit * step > 1:
                warnings.warn(
                    f"{name or type(self).__name__}: the kernel holds frequencies up to {limit:.2f} of the reference "
                    f"Nyquist frequency on axis {axis}; spacing {step:g} carries {1 / step:.2f}. Expect aliasing; "
                    f"train with a `bandwidth` below {1 / step:.2f} to use this resolution.",
                    stacklevel=3,
                )

    def _check_input(self, x: Any) -> None:
        check_floating_tensor("x", x)
        if x.ndim not in (self.dim + 1, self.dim + 2) or x.shape[-self.dim - 1] != self.in_channels:
            axes = "".join(f", size_{axis}" for axis in range(self.dim))
            raise ValueError(
                f"`x` must be (batch, {self.in_channels}{axes}) or ({self.in_channels}{axes}); got {describe(x)}."
            )

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


def refresh(model: nn.Module) -> None:
    """`refresh()` of every convolution in `model`: call it after the parameters have changed."""
    for module in model.modules():
        if isinstance(module, Conv):
            module.refresh()


def refresh_after_loading(module: nn.Module, incompatible_keys: object) -> None:
    """Read the loaded sizes; a function of the module, so that layers can be copied and pickled."""
    refresh(module)


def check_causal_boundary(causal: tuple[bool, ...], boundary: tuple[str, ...]) -> None:
    """Raise `ValueError` if an axis is both causal and circular."""
    for axis, (past, edge) in enumerate(zip(causal, boundary, strict=True)):
        if past and edge == "circular":
            raise ValueError(
                f'`causal` and boundary "circular" exclude each other: axis {axis} has both, and around a circle the '
                'past is the future. Use boundary="zero" or causal=False there.'
            )


@torch.no_grad()
def check_kernel_shape(kernel: Any, dim: int, channels: int) -> Kernel:
    """Return what the kernel callable made, or raise unless it is a kernel of `dim` axes and `channels` values."""
    if not isinstance(kernel, Kernel):
        raise TypeError(f"`kernel` must be a callable that returns an omniconv Kernel; it returned {describe(kernel)}.")
    parameter = next(kernel.parameters(), torch.zeros(()))
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    values = kernel(torch.zeros(2, dim, device=parameter.device, dtype=dtype))
    if values.shape != (2, channels):
        raise ValueError(
            f"`kernel` must map positions of shape (points, {dim}) to values of shape (points, {channels}); two points "
            f"gave {describe(values)}. Check the `channels` of {type(kernel).__name__}."
        )
    return kernel


@torch.no_grad()
def check_support_shape(support: Any, dim: int) -> Support:
    """Return what the support callable made, or raise unless it is a support of `dim` axes."""
    if not isinstance(support, Support):
        raise TypeError(
            f"`support` must be a callable that returns an omniconv Support; it returned {describe(support)}."
        )
    parameter = next(support.parameters(), torch.zeros(()))
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    weights = support(torch.zeros(2, dim, device=parameter.device, dtype=dtype))
    if weights.shape != (2,):
        raise ValueError(
            f"`support` must map positions of shape (points, {dim}) to weights of shape (points,); two points gave "
            f"{describe(weights)}. Check the `forward` of {type(support).__name__}."
        )
    return support
