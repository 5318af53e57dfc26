"""Self-attention on a group."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_floating_tensor, check_integer, check_probability, describe
from omniconv._references import GROUP_ATTENTION_PAPER, Cited
from omniconv._typing import PerAxis, Signal, check_reach, per_axis
from omniconv.domains.grid import Grid
from omniconv.groups import Count, Group, Samples
from omniconv.groups._group import check_group
from omniconv.kernels import KernelFactory
from omniconv.nn._checks import check_placed, check_samples
from omniconv.nn._group_layer import SHARP
from omniconv.nn._group_steps import GroupSignal
from omniconv.nn._parts import build_kernel
from omniconv.nn._poses import Poses, keeps_axes, neighbourhoods, placed, poses, sampled
from omniconv.nn.conv import strict_precision
from omniconv.nn.pointwise import Pointwise


class SelfAttention(Cited, nn.Module):
    """What both kinds of self-attention share; a subclass says what goes in, and what encodings are functions of."""

    references = (GROUP_ATTENTION_PAPER,)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: PerAxis[int],
        group: Group,
        samples: Count | None = None,
        *,
        heads: int = 4,
        width: int | None = None,
        kernel: KernelFactory = SHARP,
        reach: int = 2,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_channels = check_integer("in_channels", in_channels)
        self.out_channels = check_integer("out_channels", out_channels)
        self.heads = check_integer("heads", heads)
        self.width = check_integer("width", out_channels if width is None else width)
        if self.width % heads:
            raise ValueError(f"`width` must be a multiple of `heads` (={heads}); got {self.width}.")
        check_group(group)
        dim = len(size) if isinstance(size, Sequence) else group.dim
        self.grid = Grid(per_axis("size", size, dim, check_integer))
        if dim != group.dim:
            raise ValueError(f"`group` must act on the {dim} axes of `size`; {group} acts on {group.dim}.")
        self.group, self.count, self.samples = group, samples, sampled(group, samples)
        self.reach, self.ball = check_reach("reach", reach), not keeps_axes(group)
        self.dropout = check_probability("dropout", dropout)
        self.project = Pointwise(in_channels, 3 * self.width, **place)
        coordinates = self._coordinates()
        where = {"reach": (max(1, reach),) * coordinates, "causal": (False,) * coordinates, **place}
        self.encoding = build_kernel(kernel, coordinates, self.width, where)
        self.unite = Pointwise(self.width, out_channels, **place)

    @abstractmethod
    def _coordinates(self) -> int:
        """How many numbers encodings are functions of."""

    @abstractmethod
    def _encoded(self, where: Poses) -> Tensor:
        """Encodings of the relative poses, (outputs, inputs, *window, width)."""

    def reset_parameters(self) -> None:
        for part in (self.project, self.encoding, self.unite):
            part.reset_parameters()

    def _attend(self, x: GroupSignal, inputs: Samples, outputs: Samples) -> GroupSignal:
        """Every output looks at the inputs of all elements in its window."""
        query, key, value = self.project(x).chunk(3, 1)
        with strict_precision(x.device):
            where = self._poses(inputs, outputs)
            encoding = self._encoded(where).flatten(2, -2)  # (outputs, inputs, window, width)
        window = where.kernel
        query = per_position(query.expand(-1, -1, len(outputs), *query.shape[3:]), self.heads)
        keys, values = (per_window(part, window, self.heads) for part in (key, value))
        encoding = encoding.flatten(1, 2).unflatten(-1, (self.heads, -1)).to(query.dtype)
        scores = torch.einsum("nhsd,skhd->nhsk", query, encoding) * (self.width // self.heads) ** -0.5
        scores = scores + self._seen(where, tuple(x.shape[3:]), x.shape[0]).to(scores.dtype)
        dropped = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(query, keys, values, attn_mask=scores, dropout_p=dropped)
        y = y.unflatten(0, (x.shape[0], math.prod(x.shape[3:])))  # in numbers: an empty batch tells no position
        y = y.permute(0, 2, 4, 3, 1).flatten(1, 2)  # batch channels outputs positions
        return self.unite(y).unflatten(3, x.shape[3:]).to(x.dtype)

    @property
    def window(self) -> tuple[int, ...]:
        """How far an output looks at most, in samples, for each axis."""
        return (int(self.group.magnification * self.reach + 1e-6),) * self.grid.dim

    def _poses(self, inputs: Samples, outputs: Samples) -> Poses:
        dtype = torch.promote_types(self.project.weight.dtype, torch.float32)
        where = (self.group, inputs, outputs, self.grid, self.window[0])
        return poses(*where, reach=self.reach, extent=1.0, ball=self.ball, dtype=dtype)

    def _seen(self, where: Poses, size: tuple[int, ...], batch: int) -> Tensor:
        """ln w of the keys that an output looks at, -inf of the others: (batch positions, 1, outputs, inputs window).

        Others are those beyond the window as the output's pose sees it, and those beyond the edges.
        """
        inside = neighbourhoods(where.volume.new_ones(1, 1, 1, *size), where.kernel)[0, 0, 0]  # positions, window
        seen = (inside[:, None, None] > 0) & (where.volume.flatten(1)[:, None] > 0)
        weights = where.weights[..., None]
        seen = seen & (weights > 0)
        # No slope of a logarithm at 0: elements that weigh nothing are out of sight.
        scores = torch.where(seen, torch.where(weights > 0, weights, 1.0).log(), -torch.inf)
        return scores.flatten(2).unsqueeze(1).repeat(batch, 1, 1, 1)

    def draw(self) -> Samples:
        """The elements of the outputs if nothing else is said: those of the grid."""
        return self.samples

    def _placed(self, name: str, samples: Samples | None) -> Samples:
        return placed(name, self.samples if samples is None else samples, self.group, self.project.weight.device)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        if not self.project.weight.is_meta:
            self.samples = self.samples.to(self.project.weight.device)
        return self

    def _check_signal(self, x: Any, axes: str, count: int | None) -> None:
        check_floating_tensor("x", x)
        fits = x.ndim == self.grid.dim + (2 if count is None else 3) and x.shape[1] == self.in_channels
        if not fits or (count is not None and x.shape[2] != count):
            sizes = "".join(f", size_{axis}" for axis in range(self.grid.dim))
            raise ValueError(f"`x` must be (batch, {self.in_channels}{axes}{sizes}); got {describe(x)}.")
        check_samples(x, self.grid.dim)
        check_placed(x, self.project.weight)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, size={self.grid.size}, group={self.group}, "
            f"samples={self.count}, heads={self.heads}, width={self.width}, reach={self.reach}, dropout={self.dropout}"
        )


class LiftingSelfAttention(SelfAttention):
    """Self-attention from a signal to a signal on a group: every pose looks at its neighbourhood in its own way.

    y(x, h) = sum_r softmax_r(q(x) . (k(x - r) + e(h^-1 r / reach)) / sqrt(width / heads)) v(x - r), with linear maps q,
    k and v of the channels, and encodings e of positions as the pose sees them; then a linear map of the heads. From
    `batch channels *size` to `batch channels group *size`. The other arguments are those of `GroupSelfAttention`.

    >>> from omniconv.groups import SO2
    >>> LiftingSelfAttention(1, 8, 9, SO2(), 4)(torch.zeros(2, 1, 9, 9)).shape
    torch.Size([2, 8, 4, 9, 9])

    Romero and Cordonnier 2021.
    """

    def _coordinates(self) -> int:
        return self.grid.dim

    def _encoded(self, where: Poses) -> Tensor:
        return self.encoding(where.positions).unsqueeze(1)

    def forward(self, x: Signal, outputs: Samples | None = None) -> GroupSignal:
        self._check_signal(x, "", None)
        outputs = self._placed("outputs", outputs)
        one = Samples(outputs.elements[:1], outputs.weights.new_ones(1))
        return self._attend(x.unsqueeze(2), one, outputs)


class GroupSelfAttention(SelfAttention):
    """Self-attention of a signal on R^dim x| H, over the poses in a neighbourhood of each.

    y(x, h) = sum_{r, g} softmax_{r, g}(q(x, h) . (k(x - r, g) + e(h^-1 r / reach, h^-1 g)) / sqrt(width / heads)
    + ln w_g) v(x - r, g), with linear maps q, k and v of the channels, and encodings e of relative poses; then a linear
    map of the heads. `batch channels group *size` to the same; where the signal is moved by an element of the group,
    the output moves with it.

    `in_channels`, `out_channels`: at least 1. `size`, `group`, `samples`: as in `GroupConv`.
    `heads`: of attention, at least 1. `width`: channels of all heads together, a multiple of `heads`; None for
    `out_channels`. `kernel`: what makes the encodings, functions of the pose as `GroupConv` describes.
    `reach`: farthest offset in samples, at least 0; the neighbourhood is a cube where the group maps axes to axes, else
    a ball. What lies beyond the edges is not looked at. `dropout`: probability of dropping a score, [0, 1).
    Memory grows with positions * samples^2 * offsets * heads.

    `forward(x, inputs=None)`: with the `Samples` of x, None for the grid; the output is at the same.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> from omniconv.groups import SO2
    >>> GroupSelfAttention(8, 8, 9, SO2(), 4)(torch.zeros(2, 8, 4, 9, 9)).shape
    torch.Size([2, 8, 4, 9, 9])

    Romero and Cordonnier 2021.
    """

    def _coordinates(self) -> int:
        return self.grid.dim + self.group.features

    def _encoded(self, where: Poses) -> Tensor:
        return self.encoding(where.joint)

    def forward(self, x: GroupSignal, inputs: Samples | None = None) -> GroupSignal:
        inputs = self._placed("inputs", inputs)
        self._check_signal(x, f", {len(inputs)}", len(inputs))
        return self._attend(x, inputs, inputs)


def per_position(x: GroupSignal, heads: int) -> Tensor:
    """(batch positions, heads, group, width of a head)."""
    return x.flatten(3).unflatten(1, (heads, -1)).permute(0, 4, 1, 3, 2).flatten(0, 1)


def per_window(x: GroupSignal, window: torch.Size, heads: int) -> Tensor:
    """(batch positions, heads, group window, width of a head): the neighbours of every position."""
    near = neighbourhoods(x, window).unflatten(1, (heads, -1))  # batch heads width group positions window
    return near.permute(0, 4, 1, 3, 5, 2).flatten(3, 4).flatten(0, 1)
