"""Sums of bumps whose places and widths are learned."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._constants import numbers
from omniconv._errors import check_choice, check_integer, check_number, check_positions
from omniconv._precision import at_least_float32
from omniconv._references import DCLS_GAUSSIAN_PAPER, DCLS_PAPER, LAYERWISE_PAPER, SMPCONV_PAPER
from omniconv._sharding import gathered
from omniconv._sizes import bounded_sizes, size_logits
from omniconv._tags import Tag
from omniconv._typing import PerAxis, Positions, Values, check_bool
from omniconv.kernels._kernel import Kernel
from omniconv.kernels._lattice import check_values, lattice_size

PROFILES: dict[str, Callable[[Tensor], Tensor]] = {
    "triangle": lambda u: F.relu(1 - u.abs()),
    "gaussian": lambda u: torch.exp(-u.square() / 2),
}
"""Bumps that are products over the axes: the factor of one axis."""
WIDTHS = {"cone": 2.0, "triangle": 1.0, "gaussian": 1.0}
"""Initial widths, in samples. The published 0.5 of a Gaussian holds frequencies beyond the grid's own."""
NORMALIZE = ("none", "count", "sum", "posterior")
BLOCK = 2**22
"""Values of bumps that calibration holds in memory at once."""


class Bumps(Kernel):
    """A sum of bumps that move: each has a place in the window, a width, and a weight per channel.

    k_c(p) = sum_i w_ci phi((p - q_i) reach / r_i) / Z, with the distance in samples of the reference grid.

    `dim`, `channels`, `reach`, `causal`: as in `Kernel`. `bumps`: their number, at least 1.
    `shape`: phi(u) is "gaussian", exp(-|u|^2 / 2); "triangle", prod_d max(0, 1 - |u_d|); or "cone",
    max(0, 1 - sum_d |u_d|).
    `normalize`: Z is 1 ("none"), the number of bumps that are not zero at p ("count", not for Gaussians), or the sum of
    phi_i over the reference lags ("sum", not for cones). With "posterior", for Gaussians, the parameters are values v
    at the bumps: w = (K + noise^2 I)^-1 v with K_ij = phi((q_i - q_j) reach / r), so that k is the posterior mean of a
    Gaussian process that was observed at q, and passes through v up to the noise; one width r is common to all.
    `width`: initial r in samples of the reference grid; None: 1, for cones 2, with "posterior" the distance of the
    bumps, at least 0.5. It is learned between `narrowest`, at which a bump still touches a lag wherever it stands (3/4
    for triangles, (2 dim + 1) / 4 for cones, 0.27 for Gaussians), and `widest` (the largest reach, or twice the initial
    width), bounds that it can approach but not leave. `learn_width`: whether it is learned.
    `spread`: standard deviation of the initial q around the zero lag, in units of the reach, (0, inf); None: 0.1, and
    with "posterior" even over the window instead.
    `shared`: whether all channels have the same places and widths, which saves memory and time by a factor `channels`.
    `noise`: standard deviation of the noise of "posterior", [1e-6, inf): below, K + noise^2 I is singular even in
    float64, in which this is computed.

    A place is mirrored at the ends of the window, q = `centre()`: no bump is lost, and its gradient keeps its size.
    Weights are drawn from N(0, 1) and calibrated on the reference lags.

    What is published: DCLS has `shared=False` and spread = 0.5 / reach, and interpolates by the shape "triangle" of
    constant width 1 (bilinear), or with "sum" by "triangle" or by "gaussian" of width 0.5. SMPConv is a "cone", with
    "count", or shared without it, and a radius of r / reach (twice that on a causal axis). Widths learn at a tenth of
    the learning rate, as in SMPConv, and places at the plain one in units of the reach; the five-fold rate of DCLS, in
    samples, is about the same at its reach of 8.

    Raises `ValueError` or `TypeError` for values out of range and for choices that do not go together.

    >>> Bumps(2, 4, reach=8, bumps=16)(torch.zeros(5, 2)).shape
    torch.Size([5, 4])

    Khalfaoui-Hassani et al. 2023 (DCLS); Kim and Park 2023 (SMPConv); van der Ouderaa et al. 2023 ("posterior").
    """

    references = (DCLS_PAPER, DCLS_GAUSSIAN_PAPER, SMPCONV_PAPER, LAYERWISE_PAPER)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        bumps: int = 32,
        shape: str = "gaussian",
        normalize: str = "none",
        width: float | None = None,
        learn_width: bool = True,
        spread: float | None = None,
        shared: bool = True,
        noise: float = 0.01,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        check_values("Bumps", [max(lattice_size(self.reach, self.causal))] * dim)
        self.bumps = check_integer("bumps", bumps)
        self.shape, self.normalize = check_shape(shape, normalize)
        self.shared = check_bool("shared", shared)
        self.noise = check_number("noise", noise, low=1e-6, closed=True)
        self.spread = None if spread is None else check_number("spread", spread, low=0.0)
        self.narrowest = {"triangle": 0.75, "gaussian": 0.27, "cone": (2 * dim + 1) / 4}[self.shape]
        self.initial_width = self._check_width(width)
        self.widest = max(*self.reach, 2 * self.initial_width)
        groups, dtype = 1 if self.shared else channels, at_least_float32(dtype)
        self.position = nn.Parameter(torch.empty(groups, bumps, dim, device=device, dtype=dtype))
        widths = 1 if self.normalize == "posterior" else bumps
        learned = check_bool("learn_width", learn_width)
        self.width_logit = nn.Parameter(torch.empty(groups, widths, device=device, dtype=dtype)) if learned else None
        self.weight = nn.Parameter(torch.empty(channels, bumps, device=device, dtype=dtype))
        self.reset_parameters()

    def _check_width(self, width: float | None) -> float:
        initial = self._default_width() if width is None else check_number("width", width, low=0.0)
        if initial <= self.narrowest:
            raise ValueError(
                f"`width` must be above {self.narrowest:g} samples, so that every {self.shape} touches a lag; got "
                f"{initial:g}."
            )
        return initial

    def _default_width(self) -> float:
        return max(self._distance(), 0.5) if self.normalize == "posterior" else WIDTHS[self.shape]

    def _distance(self) -> float:
        """Distance between bumps that fill the window evenly, in samples."""
        return float(math.prod(lattice_size(self.reach, self.causal)) / self.bumps) ** (1 / self.dim)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        nn.init.normal_(self.position, std=0.1 if self.spread is None else self.spread)
        if self.spread is None and self.normalize == "posterior":
            self.position.copy_(even_positions(self.bumps, self.causal))
        self.position.copy_(self.centre())
        if self.width_logit is not None:
            self.width_logit.copy_(size_logits((self.initial_width,), (self.narrowest,), self.widest))
        nn.init.normal_(self.weight)
        self._calibrate()

    def _calibrate(self) -> None:
        """Scale the weights to unit mean square over all reference lags: bumps are easily missed between fewer."""
        if self.weight.is_meta:
            return
        lags = self.reference_positions(max(lattice_size(self.reach, self.causal)) ** self.dim).to(self.weight.device)
        parts = self._parts(lags)
        blocks = lags.split(max(1, BLOCK // self.position[..., 0].numel()))
        square = sum(self._values(block, *parts).square().sum() for block in blocks) / len(lags) / self.channels
        self.weight.div_(square**0.5)

    def centre(self) -> Tensor:
        """Where the bumps stand, in units of the reach, as `groups bumps dim`; there is one group if `shared`."""
        first = numbers([0.0 if past else -1.0 for past in self.causal], self.position)
        length = 1 - first
        # Comparing, rather than an absolute value, leaves a slope at the very end.
        along = torch.remainder(self.position - first, 2 * length)
        return first + torch.where(along <= length, along, 2 * length - along)

    def width(self) -> Tensor:
        """Widths in samples of the reference grid, as `groups bumps` or one that is common to the bumps."""
        if self.width_logit is None:
            return self.position.new_full((1, 1), self.initial_width)
        return bounded_sizes(self.width_logit, (self.narrowest,), self.widest)

    def forward(self, positions: Positions) -> Values:
        check_positions(positions, self.dim)
        # The weights of "posterior" are large numbers that cancel: float32 would keep none of their digits.
        exact = positions.double() if self.normalize == "posterior" else positions
        return self._values(exact, *self._parts(exact)).to(positions.dtype)

    def _parts(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Places and widths in samples, and what multiplies the bumps (`channels bumps`), in the dtype of `like`."""
        centre, width = self.centre().to(like.dtype) * numbers(self.reach, like), self.width().to(like.dtype)
        weight = self.weight.to(like.dtype)
        if self.normalize == "sum":
            weight = weight / self._sums(centre, width)
        if self.normalize == "posterior":
            weight = self._solve(weight, centre, width)
        return centre, width, weight

    def _values(self, positions: Positions, centre: Tensor, width: Tensor, weight: Tensor) -> Values:
        far = numbers([max(far, 1) for far in self.reach], positions)
        lag = (positions * far)[..., None, None, :]
        bumps = self._bumps([lag[..., d] - centre[..., d] for d in range(self.dim)], width)
        if self.normalize == "count":
            bumps = bumps / (bumps > 0).sum(-1, keepdim=True).clamp(min=1)
        return F.linear(bumps[..., 0, :], weight) if self.shared else (bumps * weight).sum(-1)

    def _bumps(self, offsets: list[Tensor], width: Tensor) -> Tensor:
        """phi at an offset per axis, in samples; offsets on all axes in one tensor would be `dim` times as large."""
        value = torch.ones((), dtype=width.dtype, device=width.device)
        for offset in offsets:
            u = offset / width
            value = value - u.abs() if self.shape == "cone" else value * PROFILES[self.shape](u)
        return F.relu(value) if self.shape == "cone" else value

    def _sums(self, centre: Tensor, width: Tensor) -> Tensor:
        """Sum of every bump over the reference lags: the product of its sums along the axes."""
        total = torch.ones((), dtype=width.dtype, device=width.device)
        for d, (far, past) in enumerate(zip(self.reach, self.causal, strict=True)):
            lags = torch.arange(0 if past else -far, far + 1, dtype=width.dtype, device=width.device)
            total = total * self._bumps([lags[:, None, None] - centre[..., d]], width).sum(0)
        return total

    def _solve(self, values: Tensor, centre: Tensor, width: Tensor) -> Tensor:
        """(K + noise^2 I)^-1 v in every group."""
        offsets = [centre[:, :, None, d] - centre[:, None, :, d] for d in range(self.dim)]
        noise = self.noise**2 * torch.eye(self.bumps, dtype=width.dtype, device=width.device)
        covariance = self._bumps(offsets, width[..., None]) + noise
        observed = values.reshape(len(centre), -1, self.bumps).mT
        factor, _ = torch.linalg.cholesky_ex(covariance)  # without a look at success, for which a device would halt
        return torch.cholesky_solve(observed, factor).mT.reshape(values.shape)

    def bandwidths(self) -> Tensor | None:
        """Two standard deviations of the spectrum of the narrowest Gaussian, in Nyquist units; None for other shapes.

        A Gaussian of width r samples has a spectrum of standard deviation 1 / r radians per sample. Values at even
        distances h are any function below pi / h; with "posterior" one standard deviation beyond that is the limit, if
        that is more. The other shapes have edges, and so no limit.
        """
        if self.shape != "gaussian":
            return None
        r = torch.tensor(self.initial_width, dtype=torch.float64, device="cpu")
        if self.width_logit is not None:
            r = bounded_sizes(gathered(self.width_logit), (self.narrowest,), self.widest).amin()
        free = math.pi / self._distance() if self.normalize == "posterior" else 0.0
        return ((1 / r + (1 / r).clamp(min=free)) / math.pi).expand(1, self.dim)

    def parameter_tags(self) -> dict[str, Tag]:
        tags = {"position": Tag(decay=False), "width_logit": Tag(lr_scale=0.1, decay=False)}
        return {name: tags[name] for name, _ in self.named_parameters() if name in tags}

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, bumps={self.bumps}, shape={self.shape!r}, normalize={self.normalize!r}, "
            f"width={self.initial_width:g}, shared={self.shared}"
        )


def check_shape(shape: str, normalize: str) -> tuple[str, str]:
    """Return both, or raise `ValueError` if one is unknown or they do not go together."""
    shape = check_choice("shape", shape, (*PROFILES, "cone"))
    normalize = check_choice("normalize", normalize, NORMALIZE)
    allowed = {"count": ("triangle", "cone"), "sum": tuple(PROFILES), "posterior": ("gaussian",)}
    if shape not in allowed.get(normalize, (shape,)):
        raise ValueError(
            f"`normalize` {normalize!r} goes with the shape {' or '.join(map(repr, allowed[normalize]))}; got `shape` "
            f"{shape!r}."
        )
    return shape, normalize


def even_positions(count: int, causal: tuple[bool, ...]) -> Tensor:
    """Points that fill the window evenly, whatever their number, as `count dim` in float64 on the CPU.

    Equal steps along the first axis; along the others steps by the powers of 1 / g modulo 1, where g^dim = g + 1: the
    golden ratio on two axes, a lattice of Fibonacci's kind.
    """
    steps, dim, g = torch.arange(count, dtype=torch.float64, device="cpu"), len(causal), 1.5
    for _ in range(60):
        g = (1 + g) ** (1 / dim)
    axes = [(steps + 0.5) / count, *(((steps + 0.5) * g**-power) % 1 for power in range(1, dim))]
    return torch.stack([s if past else 2 * s - 1 for s, past in zip(axes, causal, strict=True)], dim=-1)
