"""Kernels of convolution layers, drawn with their supports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omniconv._errors import check_integer, require
from omniconv.nn import Conv, GroupConv, LiftingConv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours that remain apart under the common colour-vision deficiencies (Okabe and Ito)."""
DIVERGING = "RdBu_r"
OUTSIDE = "#D0D0D0"
WIDTH, MARGIN = 8.0, 1.0
"""Inches: of a full figure, and of what its colour bar and edges take."""
COLUMNS = 4
"""Images in a row, and kernels per layer in the figure of a model."""


def kernel(layer: Conv, *, channels: int = 4) -> Figure:
    """Figure of a layer's kernel times its support and gain, over the lag in samples of the reference grid.

    One axis: the continuous kernel as curves with the taps as dots, the support shaded (scaled to the highest curve),
    and the extent to which the kernel is sampled. Two axes: an image per channel, white where the kernel is zero. Three
    axes: the three planes through the zero lag, a row per channel. On images a dashed contour shows where the support
    is 1/2, and what lies beyond the extent is grey.

    `layer`: a `Conv` of any mixing. A separable layer shows its depthwise kernels; a dense one has a kernel per pair of
    channels, ordered as in `layer.taps()`.
    `channels`: how many kernels to show, the first ones, at least 1; all if there are fewer.
    Raises `TypeError` or `ValueError` that names the argument, and `ImportError` without matplotlib.

    >>> from omniconv import Conv1d, Conv3d
    >>> kernel(Conv1d(3, 8, 33, causal=True)).axes[0].get_legend_handles_labels()[1][:2]
    ['out 0, in 0', 'out 0, in 1']
    >>> [axes.get_title() for axes in kernel(Conv3d(1, 1, 7)).axes][:2]
    ['channel 0, lag 0 on axis 2', 'channel 0, lag 0 on axis 1']
    """
    check_integer("channels", channels)
    if not isinstance(layer, Conv):
        raise TypeError(f"`layer` must be an omniconv convolution; got an object of type {type(layer).__name__}.")
    check_values("layer", layer)
    shown = min(channels, layer.kernel.channels)
    return arrange([Row(type(layer).__name__, layer, shown, min(shown, COLUMNS) if layer.dim == 2 else layer.dim)])


def kernels(model: nn.Module) -> Figure:
    """Figure of every convolution in a model, a row per layer: each as in `kernel`, under its name in the model.

    A title states, in samples, the lags within which the support is above 1/2, the extent to which the kernel is
    sampled, and the reach that limits both. The layers come in the order of `model.named_modules()`; of a layer with
    three axes the first kernel is shown, of others the first four.

    `model`: a module that contains a `Conv`, or is one. Layers of a group, whose kernel has many poses, are left out.
    Raises `TypeError` or `ValueError` that names the argument, and `ImportError` without matplotlib.

    >>> from omniconv import CCNN
    >>> len(kernels(CCNN(1, 10, size=64, blocks=2, width=8)).axes)
    3
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module; got an object of type {type(model).__name__}.")
    rows = []
    for name, layer in model.named_modules():
        if isinstance(layer, Conv):
            check_values("model", layer)
            shown = 1 if layer.dim == 3 else min(COLUMNS, layer.kernel.channels)
            rows.append(Row(name or type(layer).__name__, layer, shown, COLUMNS if layer.dim == 2 else layer.dim))
    if not rows and any(isinstance(layer, (GroupConv, LiftingConv)) for layer in model.modules()):
        raise ValueError(
            f"`model` has no kernels that are drawn here: all convolutions of this {type(model).__name__} are on a "
            "group, with a kernel in every pose. Look at a layer's answer to one bright pixel, as "
            "examples/plot_symmetry.py does, or pass a model with a Conv1d, Conv2d or Conv3d of omniconv.nn."
        )
    if not rows:
        raise ValueError(
            f"`model` contains no omniconv convolution; it is of type {type(model).__name__}. Pass a model with at "
            "least one Conv1d, Conv2d or Conv3d of omniconv.nn."
        )
    return arrange(rows)


def check_values(name: str, layer: Conv) -> None:
    """Raise `ValueError` if the layer has no values to draw."""
    if layer.gain.is_meta:
        raise ValueError(f'`{name}` is on the device "meta", where kernels have no values. Build it on another device.')


@dataclass(frozen=True)
class Row:
    """What a figure shows of one layer: its first `shown` kernels, as images in `columns` columns.

    Three axes make three planes, so that a kernel of three axes takes a line of three images.
    """

    name: str
    layer: Conv
    shown: int
    columns: int

    @property
    def planes(self) -> list[tuple[int, ...]]:
        """Pairs of axes to draw images over."""
        return list(combinations(range(self.layer.dim), 2))

    @property
    def lines(self) -> int:
        """Lines of images."""
        return math.ceil(self.shown * len(self.planes) / self.columns)

    @property
    def cell(self) -> float:
        """Inches from one image to the next."""
        return (WIDTH - MARGIN) / max(2, self.columns)

    @property
    def width(self) -> float:
        """Inches of the row."""
        return WIDTH if self.layer.dim == 1 else MARGIN + self.columns * self.cell

    @property
    def height(self) -> float:
        """Inches of the row, with its title."""
        if self.layer.dim == 1:
            return 2.3
        sides = zip(self.layer.window, self.layer.causal, strict=True)
        sizes = [far + 1 if past else 2 * far + 1 for far, past in sides]
        aspect = max(sizes[down] / sizes[right] for down, right in self.planes)
        return 0.5 + self.lines * (0.7 + (self.cell - 0.5) * min(1.6, max(0.4, aspect)))


def arrange(rows: Sequence[Row]) -> Figure:
    """A figure of its own, which no window and no pyplot state knows of, with the rows below each other."""
    module = require("matplotlib.figure", extra="plots", purpose="plotting kernels")
    heights = [row.height for row in rows]
    figure: Figure = module.Figure(figsize=(max(row.width for row in rows), sum(heights)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for row, part in zip(rows, parts, strict=True):
        part.suptitle(f"{row.name}\n{describe_support(row.layer)}", fontsize=9, wrap=True)
        if row.layer.dim == 1:
            draw_curves(part.add_subplot(), row.layer, row.shown)
            part.legend(loc="outside right center", fontsize=8, frameon=False)
        else:
            draw_images(part, row)
    return figure


def describe_support(layer: Conv) -> str:
    """The sizes that a support has learned, in samples."""
    half = layer.support.extent(0.5)
    within = [share * far for share, far in zip(half, layer.reach, strict=True)]
    above = "everywhere" if min(half) >= 1 else f"within {per_axis_text(within)}"
    extent, reach = per_axis_text(layer.window), per_axis_text(layer.reach)
    return f"support above ½ {above}, extent {extent}, reach {reach} (samples)"


def per_axis_text(sizes: Sequence[float]) -> str:
    """Sizes of the axes: one number if they agree."""
    texts = [f"{size:.3g}" if isinstance(size, float) else str(size) for size in sizes]
    return texts[0] if len(set(texts)) == 1 else " by ".join(texts)


def label(layer: Conv, index: int) -> str:
    """Name of one of a layer's kernels."""
    if layer.mixing != "dense" or layer.kernel.channels == 1:
        return f"channel {index}"
    output, source = divmod(index, layer.in_channels)
    return f"out {output}, in {source}"


def view(layer: Conv, axis: int, finest: int, points: int) -> Tensor:
    """Lags to draw on an axis: the extent with a margin, within the reach, at most `finest` per sample."""
    far = min(layer.reach[axis], math.ceil(1.2 * layer.window[axis]))
    first = 0 if layer.causal[axis] else -far
    per_sample = max(1, min(finest, points // (far - first + 1)))
    return torch.arange(first * per_sample, far * per_sample + 1, dtype=torch.float64) / per_sample


@torch.no_grad()
def sample(layer: Conv, lags: Iterable[Tensor], shown: int) -> tuple[Tensor, Tensor]:
    """Kernels with support and gain, `shown *lags`, NaN beyond the sampled extent; and the support, `*lags`."""
    grid = torch.stack(torch.meshgrid(*lags, indexing="ij"), dim=-1)
    window = torch.tensor(layer.window)
    outside = (grid.abs() > window).any(-1)
    dtype = torch.promote_types(layer.gain.dtype, torch.float32)
    positions = (grid / torch.tensor(layer.reach).clamp(min=1)).to(layer.gain.device, dtype).reshape(-1, layer.dim)
    pieces = positions.split(4096)  # a dense layer has many kernels, of which few are shown
    values = torch.cat([layer.kernel(piece)[:, :shown] for piece in pieces])
    support = torch.cat([layer.support(piece) for piece in pieces])
    values = (values * support[:, None] * layer.gain).T.reshape(-1, *outside.shape).cpu().double()
    return values.masked_fill(outside, math.nan), support.reshape(outside.shape).cpu().double()


@torch.no_grad()
def draw_curves(axes: Axes, layer: Conv, shown: int) -> None:
    """Kernels of one axis as curves, with taps, support and extent."""
    far, past = layer.window[0], layer.causal[0]
    lags = view(layer, 0, finest=16, points=2048)
    values, support = sample(layer, [lags], shown)
    taps = layer.taps().flatten(0, -2)[:shown].cpu().double()
    steps = torch.arange(0 if past else -far, far + 1)
    dot = min(4.0, max(1.0, 250 / len(steps)))
    peak = values.nan_to_num().abs().max().item()
    axes.axhline(0.0, color="0.6", linewidth=0.6)
    for index in range(shown):
        color = PALETTE[index % len(PALETTE)]
        axes.plot(lags.numpy(), values[index].numpy(), color=color, linewidth=1.2, label=label(layer, index))
        axes.plot(steps.numpy(), taps[index].numpy(), "o", color=color, markersize=dot, markeredgewidth=0)
    envelope = peak * support.numpy()
    axes.fill_between(lags.numpy(), -envelope, envelope, color="0.5", alpha=0.15, linewidth=0, label="support")
    for edge in {far if past else -far, far}:
        axes.axvline(edge, color="0.35", linewidth=0.9, linestyle="--", label="extent" if edge == far else None)
    margin = 0.02 * (lags[-1] - lags[0]).item() + 0.2
    axes.set_xlim(lags[0].item() - margin, lags[-1].item() + margin)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set_xlabel("lag (samples)", fontsize=8)
    axes.set_ylabel("kernel value", fontsize=8)
    axes.tick_params(labelsize=8)


def draw_images(part: FigureBase, row: Row) -> None:
    """Kernels of two or three axes as images, each a plane through the zero lag of the axis that it leaves out."""
    layer = row.layer
    lags = [view(layer, axis, finest=8, points=160) for axis in range(layer.dim)]
    slices = [(plane, *sample(layer, cut(lags, plane), row.shown)) for plane in row.planes]
    peak = max(values.nan_to_num().abs().max().item() for _, values, _ in slices) or 1.0
    panels = []
    for number, (channel, (plane, values, support)) in enumerate(product(range(row.shown), slices)):
        axes = part.add_subplot(row.lines, row.columns, number + 1)
        down, right = (lags[axis] for axis in plane)
        draw_image(axes, values[channel].reshape(len(down), len(right)), down, right, peak)
        draw_contour(axes, support.reshape(len(down), len(right)), down, right)
        left_out = [f"lag 0 on axis {axis}" for axis in range(layer.dim) if axis not in plane]
        axes.set_title(", ".join([label(layer, channel), *left_out]), fontsize=9)
        axes.set_xlabel(f"lag on axis {plane[1]}", fontsize=8)
        if layer.dim == 3 or number % row.columns == 0:
            axes.set_ylabel(f"lag on axis {plane[0]}", fontsize=8)
        panels.append(axes)
    bar = part.colorbar(panels[0].images[0], ax=panels, shrink=0.8 if row.lines == 1 else 0.5)
    bar.set_label("kernel value", fontsize=8)
    bar.ax.tick_params(labelsize=8)


def cut(lags: Sequence[Tensor], plane: Sequence[int]) -> list[Tensor]:
    """The lags of a plane through the zero lag of the other axes."""
    return [axis_lags if axis in plane else axis_lags.new_zeros(1) for axis, axis_lags in enumerate(lags)]


def draw_image(axes: Axes, values: Tensor, down: Tensor, right: Tensor, peak: float) -> None:
    """Values over lags, zero in white; the first axis runs downwards, as in an array."""
    axes.set_facecolor(OUTSIDE)
    left_edge, right_edge = edges(right)
    top, bottom = edges(down)
    axes.imshow(values.numpy(), cmap=DIVERGING, vmin=-peak, vmax=peak, extent=(left_edge, right_edge, bottom, top))
    axes.locator_params(nbins=5, integer=True, min_n_ticks=1)
    axes.tick_params(labelsize=8)


def draw_contour(axes: Axes, support: Tensor, down: Tensor, right: Tensor) -> None:
    """Where the support is 1/2, if it is anywhere in view."""
    if min(support.shape) > 1 and support.min() < 0.5 < support.max():
        axes.contour(
            right.numpy(), down.numpy(), support.numpy(), levels=[0.5], colors="0.2", linewidths=0.9, linestyles="--"
        )


def edges(lags: Tensor) -> tuple[float, float]:
    """Where the first pixel begins and the last ends."""
    half = (lags[1] - lags[0]).item() / 2 if len(lags) > 1 else 0.5
    return lags[0].item() - half, lags[-1].item() + half
