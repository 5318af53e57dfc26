"""Sizes of a network and of its training, chosen from the size of the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from omniconv._errors import check_choice, check_instance, check_integer, check_number, check_probability
from omniconv._typing import check_bool
from omniconv.data import Samples
from omniconv.kernels import SIREN
from omniconv.models import CCNN, GriddedNet, Network
from omniconv.supports import Gaussian
from omniconv.training.evaluation import AS_SAMPLES
from omniconv.training.groups import (
    GROUP_BANDWIDTH,
    GROUPS,
    check_group_options,
    check_group_suits,
    check_one_size,
    narrowed,
)
from omniconv.training.recipe import Recipe

Chosen = TypeVar("Chosen", "Architecture", Recipe)

EFFORTS = {"quick": (32, 2, 2e6), "standard": (48, 3, 8e6), "strong": (96, 4, 24e6)}
"""Width, blocks, and how many positions of training signals are gone through, all epochs together."""

EPOCHS = {"quick": (8, 60), "standard": (12, 150), "strong": (30, 300)}
"""Least and most epochs, whatever the data."""


@dataclass(frozen=True)
class Architecture:
    """A CCNN but for what the data decide: channels, outputs and the size of the reference grid."""

    blocks: int = 4
    """Residual blocks; of clouds of points shared out evenly over the lattices, rounded up."""

    width: int = 64
    """Channels in the blocks."""

    support_width: float | None = None
    """Initial width of the learned supports in samples; without it 1.35 times the fourth root of the farthest lag.
    Of clouds of points in nodes of the lattice."""

    bandwidth: float = 0.25
    """Highest frequency of the kernels' first layer, as a share of the Nyquist frequency."""

    causal: bool = False
    """Whether every output may depend on the past only."""

    head: str = "pool"
    """What the outputs are read from: pool (mean over positions) or last (the last position)."""

    dropout: float = 0.1
    """Share of values that drop-out removes in the blocks."""

    resolution: int = 9
    """Nodes per axis of the lattice that clouds of points are carried to."""

    group: str | None = None
    """Transformations that are to change nothing that is predicted: SO2 (rotations of images), O2 (reflections too) or
    SO3 (rotations of volumes); None for translations alone."""

    group_samples: int | None = None
    """Elements of the group; None for 8 of SO2, 16 of O2, 24 of SO3. Quarter turns are exact in a multiple of 4 of SO2,
    of 8 of O2, and in 24 of SO3."""

    def __post_init__(self) -> None:
        check_integer("blocks", self.blocks)
        check_integer("width", self.width)
        if self.support_width is not None:
            check_number("support_width", self.support_width, low=0.0)
        check_number("bandwidth", self.bandwidth, low=0.0)
        check_bool("causal", self.causal)
        check_choice("head", self.head, ("pool", "last"))
        check_probability("dropout", self.dropout)
        check_integer("resolution", self.resolution, minimum=2)
        check_group_options(self.group, self.group_samples, self.causal, self.head)

    @property
    def elements(self) -> int:
        """Elements of the group, those that were chosen if no number is given; 1 without a group."""
        return 1 if self.group is None else self.group_samples or GROUPS[self.group].samples

    def check(self, samples: Samples) -> None:
        """Raise `ValueError` for samples that a network on the group does not take; without one nothing is said."""
        if self.group is not None:
            axes = samples.space or samples.dim
            check_group_suits(self.group, axes, space=samples.space > 0, timed=samples.times is not None)
            check_one_size(samples)

    @property
    def stages(self) -> int:
        """Lattices that clouds are carried to: the first one, and halves of it as long as 3 nodes are left."""
        size, count = self.resolution, 1
        while (size := -(-size // 2)) >= 3:
            count += 1
        return count

    @property
    def blocks_of_stage(self) -> int:
        """Blocks on every lattice, of clouds: all of them shared out, and rounded up."""
        return -(-self.blocks // self.stages)

    def build(
        self, channels: int, out_features: int, size: tuple[int, ...], span: float | None = None, *, space: int = 0
    ) -> Network:
        """The network for signals of `channels` and at most `size`, `span` in the unit of their times if they have any.

        `space`: for clouds of points, the number of their axes; 0 for signals on a grid. Draws from the global random
        state.
        """
        if self.group is not None:
            check_group_suits(self.group, len(size), space=space > 0, timed=span is not None)
        if space:
            return self._gridded(channels, out_features, space)
        return CCNN(
            channels,
            out_features,
            size,
            blocks=self.blocks,
            width=self.width,
            kernel=partial(SIREN, bandwidth=self.bandwidth),
            support=partial(Gaussian, width=self._shares(size)),
            causal=self.causal,
            head=self.head,
            dropout=self.dropout,
            span=span,
            group=None if self.group is None else GROUPS[self.group].group(),
            samples=None if self.group is None else self.elements,
        )

    def _shares(self, size: tuple[int, ...]) -> list[float] | float:
        """Initial widths of the supports as shares of the farthest lags; one on a group, which turns axes round."""
        reaches = [max(length - 1 if self.causal else length // 2, 1) for length in size]
        shares = [
            min((1.35 * far**0.25 if self.support_width is None else self.support_width) / far, 1.0) for far in reaches
        ]
        return shares if self.group is None else shares[reaches.index(max(reaches))]  # kernels reach as far everywhere

    def _gridded(self, channels: int, out_features: int, space: int) -> GriddedNet:
        """The network for clouds: on a lattice that is halved as long as 3 nodes are left, blocks shared out over it.

        Clouds are normalised, each by itself, and positions are features, too.
        """
        if self.causal or self.head != "pool":
            raise ValueError('`causal` and head="last" are for signals on a grid; clouds of points have no last point.')
        width = self.support_width
        return GriddedNet(
            channels,
            out_features,
            self.resolution,
            dim=space,
            stages=self.stages,
            width=self.width,
            blocks=self.blocks_of_stage,
            reach=2,
            support=Gaussian if width is None else partial(Gaussian, width=min(width / 2, 1.0)),
            neighbours=2**space if space < 3 else 4,
            edges="points",
            kernel=partial(SIREN, bandwidth=self.bandwidth, hidden=16),
            absolute=True,
            normalize=True,
            dropout=self.dropout,
        )


def choose(
    samples: Samples,
    effort: str = "standard",
    *,
    processes: int = 1,
    group: str | None = None,
    group_samples: int | None = None,
) -> tuple[Architecture, Recipe]:
    """The network and the recipe for these samples.

    `effort`: "quick" (seconds for a few hundred series), "standard" (about a minute on two cores) or "strong" (several
    times that). Epochs are as many as go through a fixed number of positions, within bounds. `processes`: at least 1;
    the batch is shared out among them. `group`, `group_samples`: as in `Architecture`; the network on a group is
    narrower, by the root of its elements but not below 8, and a step still takes about that root times as long; its
    kernels begin with the double bandwidth, or they would hardly tell its few elements apart. Raises `ValueError` or
    `TypeError` for what is none of these, or samples that a network on the group does not take.

    >>> from omniconv.data import ArraySamples
    >>> network, recipe = choose(ArraySamples(np.zeros((200, 1, 427))), "standard")
    >>> network.width, recipe.epochs, recipe.batch_size
    (48, 93, 32)
    """
    check_instance("samples", samples, Samples, remedy=AS_SAMPLES)
    check_integer("processes", processes)
    width, blocks, positions = EFFORTS[check_choice("effort", effort, tuple(EFFORTS))]
    least, most = EPOCHS[effort]
    volume = float(samples.sizes.prod(1).sum())
    epochs = int(np.clip(positions / volume, least, most))
    batch_size = max(1, (32 if len(samples) < 2000 else 64) // processes)
    architecture = Architecture(blocks=blocks, width=width, group=group, group_samples=group_samples)
    architecture.check(samples)
    if group is not None:
        architecture = replace(architecture, width=narrowed(width, architecture.elements), bandwidth=GROUP_BANDWIDTH)
    return architecture, Recipe(epochs=epochs, batch_size=batch_size)


def with_given(chosen: Chosen, **options: Any) -> Chosen:
    """An architecture or a recipe with those of `options` that are not None."""
    return replace(chosen, **{name: value for name, value in options.items() if value is not None})
