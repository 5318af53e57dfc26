"""Handwritten digits that scikit-learn carries, shown as sequences, images, volumes and clouds of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._errors import check_integer, check_number, require
from omniconv._typing import Signal
from omniconv.data.clouds import CloudSamples
from omniconv.data.samples import ArraySamples, Samples

LEVELS = 17
"""Grey values of the digits: 0 to 16."""


@dataclass(frozen=True)
class View:
    """One way to show the same data: signals of `size`, split for training and testing.

    `causal`: whether the axes are time. `resampled`: the test signals at other resolutions, by how many times finer.
    `train_positions`, `test_positions`: (n, points, axes) where the view is clouds of points, whose features are then
    the signals; NaN where a cloud has fewer points than others. None for signals on a grid.
    """

    name: str
    size: tuple[int, ...]
    causal: bool
    train: Signal
    test: Signal
    resampled: dict[float, Signal]
    train_positions: Tensor | None = None
    test_positions: Tensor | None = None

    def samples(self, labels: Tensor) -> Samples:
        """The training or the test signals, whichever there are as many of as `labels`, with these."""
        parts = ((self.train, self.train_positions), (self.test, self.test_positions))
        found = [part for part in parts if len(part[0]) == len(labels)]
        if len(found) != 1:
            counts = f"{len(self.train)} or {len(self.test)}"
            raise ValueError(f"`labels` must be those of one part, {counts}; got {len(labels)}.")
        signals, positions = found[0]
        if positions is None:
            return ArraySamples(signals.numpy(), labels.numpy())
        seen = positions.isfinite().all(-1)
        places = [place[here].numpy() for place, here in zip(positions, seen, strict=True)]
        features = [feature[:, here].numpy() for feature, here in zip(signals, seen, strict=True)]
        return CloudSamples(places, features, labels.numpy())


@dataclass(frozen=True)
class Digits:
    """Four views of the same digits, with their labels."""

    views: tuple[View, ...]
    train_labels: Tensor
    test_labels: Tensor


def load_digits(*, test_share: float = 0.2, seed: int = 0) -> Digits:
    """The 1,797 handwritten 8x8 digits of scikit-learn: a pixel sequence, an image, a volume and a cloud of each.

    sequence: 64 steps, row by row; image: 8x8; volume: 8x8x17, filled up to the pixel's grey value as a height; points:
    the pixels that are not white, at (row, column), with their grey value.
    Every view has one channel and is centred and scaled by the mean and standard deviation of its training part; the
    points have the grey values of the image.
    `test_share`: held-out share, (0, 1), stratified by digit. `seed`: of the split, at least 0. Raises `ValueError` or
    `TypeError` for others, and for shares that leave no digit of some class on one side.
    """
    if check_number("test_share", test_share, low=0.0) >= 1:
        raise ValueError(f"`test_share` must be a share below 1; got {test_share!r}.")
    check_integer("seed", seed, minimum=0)
    datasets: Any = require("sklearn.datasets", extra="estimators", purpose="the digits data set")
    selection: Any = require("sklearn.model_selection", extra="estimators", purpose="the digits data set")
    grey, labels = datasets.load_digits(return_X_y=True)
    try:
        parts = selection.train_test_split(grey, labels, test_size=test_share, random_state=seed, stratify=labels)
    except ValueError as error:
        raise ValueError(
            f"`test_share` must leave a digit of every class on either side; got {test_share!r}. Give one nearer 1/2."
        ) from error
    train, test, train_labels, test_labels = (torch.from_numpy(part) for part in parts)
    views = tuple(
        make_view(name, size, causal, factors, train, test)
        for name, size, causal, factors in (
            ("sequence", (64,), True, ()),
            ("image", (8, 8), False, (0.5, 2.0)),
            ("volume", (8, 8, LEVELS), False, ()),
        )
    )
    views += (make_cloud_view(views[1], train, test),)
    return Digits(views, train_labels.long(), test_labels.long())


def make_view(
    name: str, size: tuple[int, ...], causal: bool, factors: tuple[float, ...], train: Tensor, test: Tensor
) -> View:
    """The view of grey values (n, 64) with that size, centred and scaled by its training part."""
    signals, held_out = show(train, size), show(test, size)
    mean, std = signals.mean(), signals.std()
    standard = (held_out - mean) / std
    finer = {factor: resampled(standard, factor) for factor in factors}
    return View(name, size, causal, (signals - mean) / std, standard, finer)


def make_cloud_view(image: View, train: Tensor, test: Tensor) -> View:
    """The pixels of images, (n, 64) grey values, that are not 0, as points; grey values as the images have them."""
    rows = torch.cartesian_prod(*(torch.arange(float(n)) for n in image.size))
    clouds = []
    for grey, images in ((train, image.train), (test, image.test)):
        seen = grey > 0
        order = (~seen).to(torch.uint8).sort(dim=1, stable=True).indices[:, : int(seen.sum(1).max())]
        there = seen.gather(1, order)
        signals = torch.where(there, images.flatten(1).gather(1, order), 0.0)
        clouds.append((signals[:, None], torch.where(there[..., None], rows[order], torch.nan)))
    (signals, positions), (held_out, elsewhere) = clouds
    return View("points", image.size, False, signals, held_out, {}, positions, elsewhere)


def show(grey: Tensor, size: tuple[int, ...]) -> Signal:
    """Grey values (n, 64) as signals (n, 1, *size); a third axis is the height that a pixel is filled to."""
    if len(size) == 3:
        return (grey[..., None] >= torch.arange(LEVELS)).float().reshape(-1, 1, *size)
    return grey.float().reshape(-1, 1, *size)


def resampled(images: Signal, factor: float) -> Signal:
    """Images sampled `factor` times as finely: area means to coarser grids, bilinear interpolation to finer ones."""
    mode, corners = ("area", None) if factor < 1 else ("bilinear", False)
    return F.interpolate(images, scale_factor=factor, mode=mode, align_corners=corners)
