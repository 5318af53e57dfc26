"""What the layers of a group have in common: kernels that stand upright, and the poses into which they are moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_choice, check_floating_tensor, check_integer, check_number, describe
from omniconv._references import GCNN_PAPER, Cited, Reference
from omniconv._typing import PerAxis, Signal, Taps, check_bool, check_reach, per_axis
from omniconv.domains.grid import Grid, check_spacing
from omniconv.engines import ENGINES, convolve
from omniconv.engines._shorten import fold
from omniconv.groups import Count, Group, Product, Samples
from omniconv.groups._group import check_group
from omniconv.kernels import SIREN, Kernel, KernelFactory
from omniconv.nn._checks import check_placed, check_samples
from omniconv.nn._group_steps import GroupSignal, Maker, Step
from omniconv.nn._kept_taps import may_be_kept
from omniconv.nn._parts import build_kernel, build_support
from omniconv.nn._poses import Poses, keeps_axes, placed, poses, sampled, some_of
from omniconv.nn._refreshed import Refreshed
from omniconv.nn.conv import THRESHOLD, strict_precision
from omniconv.nn.relaxed import Relaxation
from omniconv.supports import Disk, Full, SupportFactory

SAMPLINGS = ("grid", "offset", "independent")

SHARP = partial(SIREN, bandwidth=0.5)
"""The kernel of group layers if none is given, for few samples in space and on the group: it tells them apart."""

UPRIGHT = partial(Disk, radius=0.75)
"""The support of group layers if none is given: the same in all directions, and soft where it ends."""


def check_boundaries(grid: Grid, group: Group) -> None:
    """Raise for axes of different boundaries that the group brings together: it would turn one edge into the other."""
    edges = grid.boundary
    if len(set(edges)) == 1:
        return
    matrices = some_of(group)
    for i, j in combinations(range(grid.dim), 2):
        if edges[i] != edges[j] and bool((matrices[:, (i, j), (j, i)].abs() > 1e-9).any()):
            raise ValueError(
                f"`boundary` must be the same on axes that the group turns into one another; {group} does so with axes "
                f"{i} and {j}; got {edges}. Give one boundary for all axes."
            )


class GroupLayer(Cited, Refreshed):
    """A chain of steps, whose kernels are functions of the poses of outputs and inputs, and a bias per channel.

    A subclass gives the steps to `_build`, and says in its `forward` what goes in.
    """

    references: tuple[Reference, ...] = (GCNN_PAPER,)
    gain: Tensor
    steps: nn.ModuleList
    relaxation: Relaxation | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: PerAxis[int],
        group: Group,
        samples: Count | None,
        *,
        on_group: bool,
        support: SupportFactory,
        reach: int | None,
        boundary: PerAxis[str],
        bias: bool,
        engine: str,
        sampling: str,
        group_reach: float | None = None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ):
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels)
        self.out_channels = check_integer("out_channels", out_channels)
        check_group(group)
        dim = len(size) if isinstance(size, Sequence) else group.dim
        self.grid = Grid(per_axis("size", size, dim, check_integer), 1.0, boundary)
        if self.grid.dim != group.dim:
            raise ValueError(
                f"`group` must act on the {self.grid.dim} axes of signals of `size` {self.grid.size}; {group} acts on "
                f"{group.dim}."
            )
        self.group, self.count = group, samples
        self.samples = sampled(group, samples)
        check_boundaries(self.grid, group)
        one = Samples(group.identity(device="cpu")[None], self.samples.weights.new_ones(1), magnification=1.0)
        self.inputs = self.samples if on_group else one
        self.group_reach = None if group_reach is None else check_number("group_reach", group_reach, low=0.0)
        self.sampling = check_choice("sampling", sampling, SAMPLINGS)
        self.reach = max(n // 2 for n in self.grid.size) if reach is None else check_reach("reach", reach)
        self.ball = not keeps_axes(group)
        self.engine = check_choice("engine", engine, ("auto", *ENGINES))
        check_bool("bias", bias)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        where = {"reach": (self.reach,) * self.dim, "causal": (False,) * self.dim, **place}
        self.support = build_support(support if self.reach else Full, self.dim, where)
        self.register_buffer("gain", torch.ones((), **place))
        self.bias = nn.Parameter(torch.zeros(self.out_channels, **place)) if bias else None
        self.extent = 1.0

    @property
    def dim(self) -> int:
        """Number of axes of the space."""
        return self.grid.dim

    @property
    def window(self) -> tuple[int, ...]:
        """How far taps reach at the grid's elements, in samples of the reference grid, for each axis."""
        return (self._window(self.samples),) * self.dim

    def _maker(self, kernel: KernelFactory, place: dict[str, Any]) -> Maker:
        """What makes kernels whose unit of frequency on the group is that of the samples, as it is in space."""
        space, on_group = (self.reach,) * self.dim, self._group_reach()
        factors = self.group.factors if isinstance(self.group, Product) else ()
        reaches = {"space": space, "group": on_group, "both": space + on_group}
        reaches |= {f"factor {i}": on_group[: factor.features] for i, factor in enumerate(factors)}

        def make(what: str, channels: int) -> Kernel:
            reach = reaches[what]
            where = {"reach": reach, "causal": (False,) * len(reach), **place}
            return build_kernel(kernel, len(reach), channels, where)

        return Maker(make, self.group, self.count, place)

    def _group_reach(self) -> tuple[int, ...]:
        """Samples of the group between features that differ by 1, on average over an element's nearest neighbours."""
        elements = self.samples.elements
        features = self.group.describe(elements)
        apart = torch.cdist(features, features).fill_diagonal_(math.inf).amin(1)
        nearest = apart[(apart > 1e-6) & apart.isfinite()]
        return (max(1, round(1 / nearest.mean().item())) if len(nearest) else 1,) * self.group.features

    @property
    def chain(self) -> list[Step]:
        """The steps, in their order."""
        return list(self.steps)  # type: ignore[arg-type]

    def _build(self, steps: Sequence[Step], relaxation: Relaxation | None) -> None:
        """Take the steps and what is added to them, and set the gain."""
        self.steps, self.relaxation = nn.ModuleList(steps), relaxation
        self._settle()

    def _move_samples(self) -> None:
        """Have the elements where the parameters are."""
        if self.samples.elements.device == self.gain.device:
            return
        alike = self.inputs is self.samples
        self.samples = self.samples.to(self.gain.device)
        self.inputs = self.samples if alike else self.inputs.to(self.gain.device)

    def _settle(self) -> None:
        self.refresh()
        self._calibrate()

    def reset_parameters(self) -> None:
        """Draw the parameters anew and set the gain for them."""
        for step in self.chain:
            step.reset_parameters()
        self.support.reset_parameters()
        if self.relaxation is not None:
            self.relaxation.reset_parameters()
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self._settle()

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the learned extent of the support on the host, rounded up to a power of 2^(1/4), as in `Conv`."""
        if self.gain.is_meta:
            return
        self.kept_taps.clear()
        self._move_samples()
        extents = self.support.extent(THRESHOLD)
        if len(extents) != self.dim or not all(0 < extent <= 1 for extent in extents):
            raise ValueError(
                f"the extent of {type(self.support).__name__} must be in (0, 1] on each of {self.dim} axes; got "
                f"{extents}. If it is not a number, training has diverged: lower the learning rate."
            )
        self.extent = min(1.0, 2.0 ** (-math.floor(-4 * math.log2(max(extents)) + 1e-6) / 4))

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Set the gain with which white noise on the reference grid keeps its variance, as in `Conv`."""
        if self.gain.is_meta:
            return
        self.gain.fill_(1.0)
        sampled = self._sample(self.inputs, self.samples, None)
        variance = self.gain.new_ones(self.in_channels, len(self.inputs), dtype=torch.float64)
        for step, weights in zip(self.chain, sampled, strict=True):
            variance = step.variance(variance, weights.double(), self._energy)
        total = variance.mean().item()
        if not (math.isfinite(total) and total > 0):
            raise ValueError(
                f"`kernel` and `support` must make taps of finite, positive energy; they made {total}. Check their "
                "initialisation."
            )
        self.gain.fill_(total**-0.5)

    def _energy(self, taps: Tensor) -> Tensor:
        """The energy of taps (*channels, *kernel) on the reference grid, for each of the channels, as in `Conv`."""
        for axis, edge in enumerate(self.grid.boundary):
            if edge == "circular":
                taps = fold(taps, axis - self.dim, self.grid.size[axis])
        energy = taps.square()
        for axis, size in enumerate(self.grid.size):
            if self.grid.boundary[axis] == "zero":
                taps_there = energy.shape[axis - self.dim]
                lags = torch.arange(taps_there, device=energy.device) - taps_there // 2
                energy = energy * (1 - lags.abs() / size).clamp(min=0).reshape(-1, *[1] * (self.dim - 1 - axis))
        return energy.flatten(-self.dim).sum(-1)

    def flattened(self, inputs: Samples, outputs: Samples) -> list[tuple[Tensor, int]]:
        """The steps at these elements as grouped convolutions of channels times elements, channels first.

        For each its taps (out, in / groups, *kernel) and the number of groups. The bias, and what a relaxed layer adds,
        are not among them.
        """
        found, count = [], len(inputs)
        for step, weights in zip(self.chain, self._sample(inputs, outputs, None), strict=True):
            found.append(step.flattened(weights, count, self.dim))
            count = found[-1][0].shape[0] // self.out_channels
        return found

    def is_random(self) -> bool:
        """Whether `draw` gives other elements at each call."""
        moves = any(self.group.continuous) or self.sampling == "independent"
        return self.training and self.sampling != "grid" and moves

    def draw(self) -> Samples:
        """The elements at which an output is to be computed: at evaluation those of the grid.

        In training as `sampling` says: "grid"; "offset", the grid moved as a whole by a part of a cell that is drawn
        uniformly, from torch's global generator on the CPU; "independent", elements drawn one by one.
        """
        if self.sampling == "grid" or not self.training:
            return self.samples
        if self.sampling == "offset":
            offset = torch.rand(self.group.coordinates, dtype=torch.float64, device="cpu")
            return self.group.grid(self.count, offset=offset).to(self.gain.device)
        drawn = self.group.draw(len(self.samples), generator=torch.default_generator)
        return drawn.to(self.gain.device)

    def _window(self, outputs: Samples) -> int:
        """How far taps reach in samples of the reference grid: as far as the most magnified kernel.

        Of elements of which nothing else is known, that is what the group may magnify: none are read in `forward`.
        """
        magnified = self.group.magnification if outputs.magnification is None else outputs.magnification
        return math.ceil(magnified * self.extent * self.reach - 1e-6)

    def _poses(self, inputs: Samples, outputs: Samples, spacing: tuple[float, ...] | None) -> Poses:
        """Poses of the outputs among the inputs, with the support in their volumes."""
        grid = self.grid if spacing is None else self.grid.resampled(spacing)
        dtype = torch.promote_types(self.gain.dtype, torch.float32)
        found = poses(
            *(self.group, inputs, outputs, grid, self._window(outputs)),
            reach=self.reach,
            extent=self.extent,
            ball=self.ball,
            dtype=dtype,
            group_reach=self.group_reach,
        )
        return Poses(found.positions, found.volume * self.support(found.positions), found.relative, found.weights)

    def _sample(self, inputs: Samples, outputs: Samples, spacing: tuple[float, ...] | None) -> list[Tensor]:
        """The weights of all steps, the gain among them."""
        with strict_precision(self.gain.device):
            where = self._poses(inputs, outputs, spacing)
            sampled = [step.sample(where) for step in self.chain]
        return [*sampled[:-1], sampled[-1] * self.gain.to(sampled[-1].dtype)]

    def _kept(self, inputs: Samples, outputs: Samples, spacing: tuple[float, ...] | None) -> list[Tensor]:
        """The same; at evaluation without gradients those of the last call, if nothing has changed."""
        made = (inputs.elements, inputs.weights, outputs.elements, outputs.weights)
        sources = [*self.parameters(), *self.buffers(), *made]
        if self.training or not may_be_kept(sources):
            return self._sample(inputs, outputs, spacing)
        return self.kept_taps.get((spacing, self.extent), sources, lambda: self._sample(inputs, outputs, spacing))

    def run(
        self, x: GroupSignal, inputs: Samples | None, outputs: Samples | None, spacing: PerAxis[float] | None
    ) -> GroupSignal:
        """The steps one after the other, what a relaxed layer adds, and the bias; of a signal that was checked."""
        if outputs is None and self.is_random():
            raise ValueError(
                f"`outputs` must be given in training, where they are random here: outputs=layer.draw(). The next "
                f'layer takes them as `inputs`. Or build the layer with sampling="grid"; this has {self.sampling!r}.'
            )
        inputs = self._placed("inputs", self.inputs if inputs is None else inputs)
        outputs = self._placed("outputs", self.draw() if outputs is None else outputs)
        steps = None if spacing is None else per_axis("spacing", spacing, self.dim, check_spacing)
        y = x
        for step, weights in zip(self.chain, self._kept(inputs, outputs, steps), strict=True):
            y = step.run(y, weights, self._convolve)
        if self.relaxation is not None:
            y = y + self.relaxation(x, inputs, outputs, steps)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype).reshape(-1, *[1] * (self.dim + 1))
        return y.to(x.dtype)  # whatever autocast made of it

    def _convolve(self, x: Signal, taps: Taps) -> Signal:
        return convolve(x, taps, boundary=self.grid.boundary, engine=self.engine)

    def _placed(self, name: str, samples: Any) -> Samples:
        """Samples on the device of the layer."""
        return placed(name, samples, self.group, self.gain.device)

    def _check_signal(self, x: Any, axes: str, count: int | None) -> None:
        """Raise unless `x` has the axes of the layer's inputs."""
        extra = self.dim + (2 if count is None else 3)
        check_floating_tensor("x", x)
        fits = x.ndim == extra and x.shape[1] == self.in_channels
        if not fits or (count is not None and x.shape[2] != count):
            sizes = "".join(f", size_{axis}" for axis in range(self.dim))
            raise ValueError(f"`x` must be (batch, {self.in_channels}{axes}{sizes}); got {describe(x)}.")
        check_samples(x, self.dim)
        check_placed(x, self.gain)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        if not self.gain.is_meta:
            self._move_samples()
        return self

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, size={self.grid.size}, group={self.group}, "
            f"samples={self.count}, reach={self.reach}, boundary={self.grid.boundary}, bias={self.bias is not None}, "
            f"engine={self.engine!r}, sampling={self.sampling!r}"
        )
