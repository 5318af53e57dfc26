"""The same network on different views of the same data, in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from omniconv._errors import require
from omniconv._typing import Signal
from omniconv.nn import Conv
from omniconv.plots._kernels import draw_contour, draw_curves, draw_image, sample, view

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def views(
    signals: Mapping[str, Signal], models: Mapping[str, nn.Module], *, positions: Mapping[str, Tensor] | None = None
) -> Figure:
    """Figure with a column per view: a signal of one to three axes, and below it a kernel that its model has learned.

    `signals`: by title, one signal each, `channels *size`; the first channel is drawn, a volume as its filled voxels.
    `positions`: by the titles of those that are clouds of points, (points, axes), whose signals are the features
    `channels points`; where they are NaN there is no point. `models`: by the same titles;
    the kernel is that of the last convolution, of three axes a plane through lag zero.
    Raises `ValueError` if the titles differ or a model has no convolution, `ImportError` without matplotlib.

    >>> from omniconv import CCNN
    >>> model = CCNN(1, 2, 16, blocks=1, width=4)
    >>> len(views({"a wave": torch.sin(torch.arange(16.0))[None]}, {"a wave": model}).axes)
    2
    """
    if list(signals) != list(models):
        raise ValueError(f"`signals` and `models` must have the same titles; got {list(signals)} and {list(models)}.")
    module = require("matplotlib.figure", extra="plots", purpose="plotting views")
    figure: Figure = module.Figure(figsize=(3.6 * len(signals), 6.4), layout="constrained")
    for column, (title, signal) in enumerate(signals.items(), start=1):
        layers = [layer for layer in models[title].modules() if isinstance(layer, Conv)]
        if not layers:
            raise ValueError(f"`models` must contain omniconv convolutions; {title!r} has none.")
        place = (positions or {}).get(title)
        dim = signal.ndim - 1 if place is None else place.shape[1]
        top = figure.add_subplot(2, len(signals), column, projection="3d" if dim == 3 else None)
        if place is None:
            draw_signal(top, signal[0].detach().cpu())
        else:
            draw_points(top, place.detach().cpu(), signal[0].detach().cpu())
        top.set_title(title)
        draw_kernel(figure.add_subplot(2, len(signals), len(signals) + column), layers[-1])
    return figure


def draw_signal(axes: Any, values: Tensor) -> None:
    """One channel as a curve, an image, or the voxels above the middle of its range."""
    if values.ndim == 1:
        axes.step(torch.arange(len(values)).numpy(), values.numpy(), where="mid", color="0.2", linewidth=1)
        axes.set_xlabel("step", fontsize=8)
    elif values.ndim == 2:
        axes.imshow(values.numpy(), cmap="gray_r")
    else:
        filled = (values > (values.min() + values.max()) / 2).numpy()
        axes.voxels(filled, facecolors="#56B4E9", edgecolor="#0072B2", linewidth=0.2)
        axes.view_init(elev=40, azim=-20)
        axes.set_box_aspect(values.shape)
    axes.tick_params(labelsize=7)


def draw_points(axes: Any, positions: Tensor, values: Tensor) -> None:
    """Points (points, axes), coloured by one number each; two axes as in an image, rows downwards."""
    seen = positions.isfinite().all(-1)
    places = positions[seen].T.numpy()
    shading = {"c": values[seen].numpy(), "cmap": "viridis_r", "s": 12}
    if len(places) == 1:
        axes.scatter(places[0], 0 * places[0], **shading)
    elif len(places) == 2:
        axes.scatter(places[1], places[0], **shading)
        axes.invert_yaxis()
        axes.set_aspect("equal")
    else:
        axes.scatter(*places, **shading)
        axes.set_box_aspect((1, 1, 1))
    axes.tick_params(labelsize=7)


def draw_kernel(axes: Any, layer: Conv) -> None:
    """Kernels of one axis as curves; else one kernel as an image over the first two axes."""
    if layer.dim == 1:
        draw_curves(axes, layer, min(3, layer.kernel.channels))
        axes.set_title("learned kernels, 3 channels", fontsize=9)
        return
    down, right = (view(layer, axis, finest=8, points=160) for axis in (0, 1))
    rest = [torch.zeros(1, dtype=torch.float64)] * (layer.dim - 2)
    values, support = sample(layer, [down, right, *rest], 1)
    shape = (len(down), len(right))
    draw_image(axes, values[0].reshape(shape), down, right, values.nan_to_num().abs().max().item() or 1.0)
    draw_contour(axes, support.reshape(shape), down, right)
    axes.set_title("learned kernel" + (", lag 0 on axis 2" if layer.dim == 3 else ""), fontsize=9)
    axes.set_xlabel("lag (samples)", fontsize=8)
