"""Sums of decaying exponentials: the kernels of diagonal state spaces."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from omniconv._errors import check_choice, check_integer, check_number, check_positions, describe
from omniconv._precision import at_least_float32
from omniconv._references import S4D_PAPER, S4ND_PAPER
from omniconv._sharding import gathered
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Values
from omniconv.kernels._kernel import Kernel
from omniconv.kernels._modes import Modes

INITIAL = ("lin", "inv", "legs", "real")
DISCRETIZATIONS = ("zoh", "bilinear")
SLOWEST, FASTEST = 1e-7, 50.0
"""Bounds of the decay per reference sample: every pole stays inside the unit circle, and none is zero."""

Rates: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""Decay, frequency, and real and imaginary part of B, each `rank dim channels modes`."""


class Modal(Kernel):
    """Sums of decaying complex exponentials, whose convolution is the output of a linear recurrence.

    k(p) = 2 Re sum_n C_n B_n exp(t L_n), at the lag t = |p| reach in samples of the reference grid.

    L and B discretise x' = A x + u with steps of dt, A_n = -exp(log_decay_n) + i frequency_n:
    "zoh": L = dt A, B = (exp(dt A) - 1) / A;
    "bilinear": exp(L) = (1 + dt A / 2) / (1 - dt A / 2), B = dt / (1 - dt A / 2).

    Every channel has its own dt, A and C. An axis that is not causal has its own C on either side, and at the zero lag
    the mean of both, as a jump asks for in an integral. On several axes k(p) = sum_{r <= rank} prod_d k_rd(p_d), with
    dt, A and C of its own in every factor.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`.
    `modes`: exponentials per factor, half of the published state size. `forward` holds all of them at every point and
    channel; on a grid, where a layer wants its taps, far fewer are enough. Mixing "separable" or "depthwise" is for
    this kernel: in a layer that mixes, every pair of channels has modes of its own.
    `rank`: products that are summed; 1 is the published one.
    `init`: A at construction, with N = 2 modes and n = 0 .. modes - 1. "lin": -1/2 + i pi n;
    "inv": -1/2 + i N/pi (N/(2n+1) - 1); "legs": the eigenvalues of the normal part of HiPPO-LegS, of real
    part -1/2 too; "real": -(n+1), and no frequencies to learn.
    `discretization`: "zoh" or "bilinear".
    `steps`: range of dt at construction in units of 1 / reach, in which it is log-uniform. By default 1 to 100, or to
    a tenth of the reach where that is less: at a reach of 1000 the published 0.001 to 0.1 per sample.
    `bandwidth`: bound on the frequencies at construction, in units of the reference grid's Nyquist frequency, (0, inf).
    Those beyond it are reflected to below; with "zoh" and a bandwidth of 1, they are the same exponentials on the
    reference grid.
    `dt`: the published range per sample instead of `steps`, for replication; then no frequency is reflected.

    The decay per sample is kept within [1e-7, 50]. In float32, at a reach of 16384, the values of `forward` have a root
    mean square error below 1e-4 of theirs, or 1e-3 where training has taken the decay away; those on a grid 1e-6 in any
    case. Raises `ValueError` or `TypeError` for values out of range.

    >>> kernel = Modal(1, 4, reach=16, causal=True)
    >>> kernel(torch.zeros(5, 1)).shape, kernel.to_modal().poles.shape
    (torch.Size([5, 4]), torch.Size([4, 32]))

    Gu et al. 2022 (S4D); on several axes, Nguyen et al. 2022 (S4ND).
    """

    references = (S4D_PAPER, S4ND_PAPER)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        modes: int = 32,
        rank: int = 1,
        init: str = "lin",
        discretization: str = "zoh",
        steps: tuple[float, float] | None = None,
        bandwidth: float = 0.25,
        dt: tuple[float, float] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        self.modes, self.rank = check_integer("modes", modes), check_integer("rank", rank)
        self.init = check_choice("init", init, INITIAL)
        self.discretization = check_choice("discretization", discretization, DISCRETIZATIONS)
        self.bandwidth = check_number("bandwidth", bandwidth, low=0.0)
        if steps is not None and dt is not None:
            raise ValueError(f"`steps` and `dt` exclude each other; got {steps} and {dt}. Give one.")
        self.steps = None if steps is None else check_range("steps", steps)
        self.dt = None if dt is None else check_range("dt", dt)
        dtype, factors = at_least_float32(dtype), (rank, dim, channels)
        # Which axis and which side of it a set of coefficients serves; 0 is a causal axis, which has one side.
        self.sides = [(axis, side) for axis, past in enumerate(self.causal) for side in ((0,) if past else (1, -1))]
        parts = 1 if init == "real" else 2
        self.log_dt = nn.Parameter(torch.empty(factors, device=device, dtype=dtype))
        self.log_decay = nn.Parameter(torch.empty(*factors, modes, device=device, dtype=dtype))
        self.frequency = nn.Parameter(torch.empty(*factors, modes, device=device, dtype=dtype)) if parts == 2 else None
        shape = (rank, len(self.sides), channels, modes, parts)
        self.coefficient = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        decay, frequency = initial_rates(self.init, self.modes)
        for axis, (low, high) in enumerate(self._ranges()):
            nn.init.uniform_(self.log_dt[:, axis], math.log(low), math.log(high))
        self.log_decay.copy_(decay.log())
        if self.frequency is not None:
            self.frequency.copy_(frequency)
            if self.dt is None:
                self.frequency.copy_(self._reflect(self.frequency))
        nn.init.normal_(self.coefficient)
        self._calibrate()

    def _ranges(self) -> list[tuple[float, float]]:
        """Lowest and highest dt on every axis, per reference sample."""
        if self.dt is not None:
            return [self.dt] * self.dim
        lengths = [max(far, 1) for far in self.reach]
        ranges = [self.steps or (1.0, min(max(length / 10, 1.0), 100.0)) for length in lengths]
        return [(low / length, high / length) for (low, high), length in zip(ranges, lengths, strict=True)]

    def _reflect(self, frequency: Tensor) -> Tensor:
        """The same up to the bandwidth, and reflected there and at zero."""
        unit = self.bandwidth * math.pi / self.log_dt.exp()[..., None]
        share = (frequency / unit) % 2
        return unit * torch.minimum(share, 2 - share)

    def _calibrate(self) -> None:
        """Unit mean square over the window."""
        if self.coefficient.is_meta:
            return
        side = max(2, round(4096 ** (1 / self.dim)))
        steps = tuple(
            min(side - 1 if past else side // 2, far) for far, past in zip(self.reach, self.causal, strict=True)
        )
        spacing = tuple(far / max(n, 1) for far, n in zip(self.reach, steps, strict=True))
        square = self.on_grid(steps, spacing, self.coefficient.dtype).square().mean()
        self.coefficient.div_(square.sqrt() ** (1 / self.dim))  # a product of as many factors

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        rates = self._discrete(lambda parameter: parameter.to(positions.dtype))
        values = self._factor(0, positions[..., 0], rates)
        for axis in range(1, self.dim):
            values = values * self._factor(axis, positions[..., axis], rates)
        return values.sum(-2)

    def on_grid(self, steps: tuple[int, ...], spacing: tuple[float, ...], dtype: torch.dtype) -> Values:
        """As in `Kernel`. A power of a mode at a lag (a width + b) spacing is a product of two, one of a and one of b:
        some 2 sqrt(steps) exponentials per mode and channel and one product of matrices give the values of an axis.
        """
        rates = self._discrete(lambda parameter: parameter.double())
        values = self._grid_factor(0, steps[0], spacing[0], rates, dtype)
        for axis in range(1, self.dim):
            factor = self._grid_factor(axis, steps[axis], spacing[axis], rates, dtype)
            values = values[..., None] * factor.reshape(*factor.shape[:2], *[1] * axis, -1)
        return values.sum(0).movedim(0, -1)

    def _grid_factor(self, axis: int, steps: int, spacing: float, rates: Rates, dtype: torch.dtype) -> Tensor:
        """The kernel along one axis of a grid, `rank channels lags`."""
        decay, frequency, real, imaginary = (rate[:, axis] for rate in rates)
        width = math.isqrt(steps) + 1
        lags = spacing * torch.arange(width, device=decay.device, dtype=decay.dtype)
        firsts = spacing * width * torch.arange(steps // width + 1, device=decay.device, dtype=decay.dtype)
        coarse = torch.cat(waves(decay[..., None, :], frequency[..., None, :], firsts[:, None], dtype), dim=-1)
        cosine, sine = waves(decay[..., None], frequency[..., None], lags, dtype)
        sides = []
        for index, (owner, _) in enumerate(self.sides):
            if owner == axis:
                coefficient = self.coefficient[:, index].to(dtype)
                a, b = (part[..., None] for part in self._residues(coefficient, real.to(dtype), imaginary.to(dtype)))
                fine = torch.cat([a * cosine - b * sine, -a * sine - b * cosine], dim=-2)
                sides.append((coarse @ fine).flatten(-2)[..., : steps + 1])
        if len(sides) == 1:
            return sides[0]
        after, before = sides
        zero = 0.5 * (after[..., :1] + before[..., :1])
        return torch.cat([before[..., 1:].flip(-1), zero, after[..., 1:]], dim=-1)

    def _discrete(self, read: Callable[[Tensor], Tensor]) -> Rates:
        """Decay and frequency per reference sample, and B; `read`: how to take a parameter."""
        log_dt, log_decay = read(self.log_dt)[..., None], read(self.log_decay)
        frequency = torch.zeros_like(log_decay) if self.frequency is None else read(self.frequency)
        return discretize(log_dt, log_decay, frequency, self.discretization)

    def _residues(self, coefficient: Tensor, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of 2 C B, with that B."""
        a, b = coefficient[..., 0], 0 if self.frequency is None else coefficient[..., 1]
        return 2 * (a * real - b * imaginary), 2 * (a * imaginary + b * real)

    def _factor(self, axis: int, p: Tensor, rates: Rates) -> Tensor:
        """The kernel along one axis, `*points rank channels`."""
        decay, frequency, real, imaginary = (rate[:, axis] for rate in rates)
        lag = (p.abs() * max(self.reach[axis], 1))[..., None, None, None]
        envelope, angle = torch.exp(-decay * lag), frequency * lag
        cosine, sine = envelope * angle.cos(), envelope * angle.sin()
        factor = torch.zeros((), dtype=p.dtype, device=p.device)
        for index, (owner, side) in enumerate(self.sides):
            if owner == axis:
                a, b = self._residues(self.coefficient[:, index].to(p.dtype), real, imaginary)
                values = (a * cosine - b * sine).sum(-1)
                share = 0.5 + 0.5 * side * p.sign() if side else torch.ones_like(p)
                factor = factor + share[..., None, None] * values
        return factor

    def recurrence(self, spacing: float = 1.0) -> Modes | None:
        """As in `Kernel`. None unless the kernel has one axis and is causal: only that is a recurrence."""
        if self.causal != (True,):
            return None
        decay, frequency, real, imaginary = (rate[:, 0] for rate in self._discrete(lambda p: gathered(p).double()))
        poles = torch.polar(torch.exp(-decay * spacing), frequency * spacing)
        residues = torch.complex(*self._residues(gathered(self.coefficient).double()[:, 0], real, imaginary))
        return Modes(poles.movedim(0, 1).flatten(1), residues.movedim(0, 1).flatten(1))

    def bandwidths(self) -> Tensor:
        """Largest frequency + tan(0.45 pi) decay of a mode, per axis, in Nyquist units.

        A decaying exponential has a Lorentzian spectrum, without a sharp limit: at least 90 % of the energy of every
        mode lies below this one.
        """
        decay, frequency, _, _ = self._discrete(lambda p: gathered(p).double())
        return (frequency.abs() + math.tan(0.45 * math.pi) * decay).amax((0, 2, 3))[None] / math.pi

    def parameter_tags(self) -> dict[str, Tag]:
        names = (name for name, _ in self.named_parameters())
        return {name: Tag(lr_scale=0.1, decay=False) for name in names if name != "coefficient"}

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, modes={self.modes}, rank={self.rank}, init={self.init!r}, "
            f"discretization={self.discretization!r}"
        )


def initial_rates(init: str, modes: int) -> tuple[Tensor, Tensor]:
    """Decay and frequency of A, minus its real and its imaginary part, in float64 on the CPU."""
    n = np.arange(modes, dtype=np.float64)
    size = 2 * modes
    if init == "real":
        decay, frequency = n + 1, 0 * n
    elif init == "lin":
        decay, frequency = 0 * n + 0.5, math.pi * n
    elif init == "inv":
        decay, frequency = 0 * n + 0.5, size / math.pi * (size / (2 * n + 1) - 1)
    else:
        # The normal part of HiPPO-LegS is -1/2 plus an antisymmetric matrix, whose eigenvalues are imaginary pairs.
        root = np.sqrt(np.arange(size) + 0.5)
        lower = np.tril(np.outer(root, root), -1)
        decay, frequency = 0 * n + 0.5, np.linalg.eigvalsh(1j * (lower - lower.T))[modes:]
    return torch.from_numpy(decay), torch.from_numpy(frequency)


def discretize(log_dt: Tensor, log_decay: Tensor, frequency: Tensor, rule: str) -> Rates:
    """Decay and frequency per step of A, and real and imaginary part of B; in real arithmetic, which compiles."""
    dt = log_dt.exp()
    # Bounded before the exponential: the gradient of an overflow that is cut off afterwards is not a number.
    x = -(log_dt + log_decay).clamp(math.log(SLOWEST), math.log(FASTEST)).exp()
    y = dt * frequency
    if rule == "zoh":
        # (exp(z) - 1) / z for z = x + i y, without the cancellation near zero.
        real, imaginary = torch.expm1(x) * y.cos() - 2 * (y / 2).sin().square(), x.exp() * y.sin()
        square = x.square() + y.square()
        return -x, y, dt * (real * x + imaginary * y) / square, dt * (imaginary * x - real * y) / square
    # (1 + w) / (1 - w) for w = z / 2; its logarithm is kept finite where w = -1.
    x, y, smallest = x / 2, y / 2, torch.finfo(x.dtype).eps ** 2
    decay = 0.5 * torch.log1p(-4 * x / ((1 + x).square() + y.square()).clamp(min=smallest))
    angle = torch.atan2(2 * y, 1 - x.square() - y.square())
    square = (1 - x).square() + y.square()
    return decay.clamp(SLOWEST, FASTEST), angle, dt * (1 - x) / square, dt * y / square


def waves(decay: Tensor, frequency: Tensor, lag: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of exp(lag (-decay + i frequency)), in float64 up to the phase within a turn."""
    turns = frequency * (lag / (2 * math.pi))
    envelope, angle = torch.exp(-(decay * lag).to(dtype)), (2 * math.pi * (turns - turns.round())).to(dtype)
    return envelope * angle.cos(), envelope * angle.sin()


def check_range(name: str, value: Any) -> tuple[float, float]:
    """Return two numbers, or raise unless they are positive and in order."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"`{name}` must be two numbers, the lowest and the highest; got {describe(value)}.")
    low = check_number(name, value[0], low=0.0)
    high = check_number(name, value[1], low=0.0)
    if low > high:
        raise ValueError(f"`{name}` must have the lower number first; got {value!r}.")
    return low, high
