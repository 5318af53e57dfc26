"""Point-NN: classes of clouds without a learned parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_integer, check_number, describe
from omniconv._references import POINT_NN_PAPER, Cited
from omniconv.domains import Cloud, farthest, nearest
from omniconv.domains.clouds import check_points, checked_mask, taken_apart

CLOUDS = 256
"""Clouds whose points are chosen together."""

NUMBERS = 2**24
"""Values of pairs of points, or of clouds, that are held at a time."""

SMALLEST = 1e-5
"""Added to a standard deviation: a cloud of one place has none."""

GAMMAS = tuple(10 ** (step / 10) for step in range(41))
"""Sharpnesses to choose from, 1 to 10000."""

KEPT = ("vectors", "labels", "classes")
"""Buffers as long as what was fitted."""

Progress = Callable[[int, int], None]
"""Called with how many clouds are done, and of how many."""


class PointNN(Cited, nn.Module):
    """Classes of clouds by their similarity to known clouds, as vectors that no parameter makes.

    A point begins as sin and cos of f_d p per axis, f_d = beta / alpha^(d / D), d = 0 .. D - 1, D = width / (2 dim).
    Each stage keeps half of the points, each the farthest from those before it (`farthest`), and looks at the nearest
    neighbours j of each of these, c: with o the offsets p_j - p_c and r the changes x_j - x_c, both divided by their
    standard deviation over the cloud, h = [r, x_c] and e the sin and cos of o, as wide as h, the point becomes GELU of
    the maximum plus the mean of (h + e) e over j. After the last stage the vector of the cloud is the maximum plus the
    mean over the points. A class has the weight sum of exp(-gamma (1 - S_i)) over its known clouds i, S_i the cosine of
    the angle to their vectors; `fit` chooses gamma by leaving one of the known clouds out, from 1 to 10000.

    `dim`: axes of the positions, at least 1. `width`: channels at the beginning, a multiple of 2 dim; every stage
    doubles them. `stages`: at least 1. `neighbours`: of a point in a stage, at least 1; all where there are fewer.
    `alpha`, `beta`: (0, inf), the range of the frequencies and the highest, in radians per unit of the positions.

    Positions are (batch, points, dim), best within [-1, 1] (`omniconv.domains.centred`). `mask` (batch, points), bool,
    is False where a cloud is padded: what lies there changes nothing, and neither do the other clouds of a batch.
    Both may come as one `Cloud`. The order of points changes nothing, save for ties between points equally far. Clouds
    are gone through a part at a time; `progress(done, total)` is called after each. Nothing has a gradient.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> points = torch.cat([torch.rand(4, 20, 3), torch.rand(4, 20, 1) * torch.ones(3)])
    >>> model = PointNN(width=12, stages=2, neighbours=4).fit(points, torch.arange(8) // 4)
    >>> model.predict(torch.rand(1, 25, 1) * torch.ones(3)).tolist()
    [1]

    Zhang et al. 2023 (Parameter is Not All You Need).
    """

    references = (POINT_NN_PAPER,)
    vectors: Tensor
    labels: Tensor
    classes: Tensor
    gamma: Tensor

    def __init__(
        self,
        *,
        dim: int = 3,
        width: int = 72,
        stages: int = 4,
        neighbours: int = 90,
        alpha: float = 1000.0,
        beta: float = 100.0,
    ):
        super().__init__()
        self.dim, self.width = check_integer("dim", dim), check_integer("width", width)
        if self.width % (2 * self.dim):
            raise ValueError(f"`width` must be a multiple of 2 `dim` (={2 * self.dim}); got {width}.")
        self.stages, self.neighbours = check_integer("stages", stages), check_integer("neighbours", neighbours)
        self.alpha, self.beta = check_number("alpha", alpha, low=0.0), check_number("beta", beta, low=0.0)
        self.register_buffer("vectors", torch.zeros(0, self.out_width))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))
        self.register_buffer("classes", torch.zeros(0, dtype=torch.long))
        self.register_buffer("gamma", torch.tensor(GAMMAS[0]))

    @property
    def out_width(self) -> int:
        """Length of the vector of a cloud."""
        return self.width * 2**self.stages

    @torch.no_grad()
    def features(
        self, positions: Cloud | Tensor, mask: Tensor | None = None, *, progress: Progress | None = None
    ) -> Tensor:
        """The vectors of clouds, (batch, out_width); zeros for a cloud of no point.

        >>> PointNN(width=12, stages=2).features(torch.rand(5, 30, 3)).shape
        torch.Size([5, 48])
        """
        positions, mask, _, _ = taken_apart(positions, mask)
        return self._features(positions, mask, progress).to(positions.dtype)

    @torch.no_grad()
    def fit(
        self, positions: Cloud | Tensor, labels: Tensor, mask: Tensor | None = None, *, progress: Progress | None = None
    ) -> Self:
        """Know these clouds, and these alone; `labels`: (batch,), integers, any. Returns the model."""
        positions, mask, _, _ = taken_apart(positions, mask)
        check_points("positions", positions)
        if not isinstance(labels, Tensor) or labels.dtype.is_floating_point or labels.dtype == torch.bool:
            raise TypeError(f"`labels` must be a tensor of integers; got {describe(labels)}.")
        if labels.shape != positions.shape[:1] or not len(labels):
            expected = f"({len(positions)},), one for every cloud, of one cloud at least"
            raise ValueError(f"`labels` must be {expected}; got {describe(labels)}.")
        vectors = F.normalize(self._features(positions, mask, progress), dim=1)
        classes, known = labels.to(vectors.device).long().unique(return_inverse=True)
        self.vectors, self.classes, self.labels = vectors, classes, known
        self.gamma = vectors.new_tensor(best_gamma(vectors, known))
        return self

    @torch.no_grad()
    def forward(
        self, positions: Cloud | Tensor, mask: Tensor | None = None, *, progress: Progress | None = None
    ) -> Tensor:
        """The logarithms of the shares that the classes have in the weight, (batch, classes); raises before `fit`."""
        positions, mask, _, _ = taken_apart(positions, mask)
        if not len(self.vectors):
            raise ValueError("the model knows no cloud yet. Call `fit(positions, labels)` first.")
        vectors = F.normalize(self._features(positions, mask, progress), dim=1)
        known = self.vectors.to(vectors.dtype)
        each = max(1, NUMBERS // len(known))
        shares = [class_shares(some @ known.T, self.labels, float(self.gamma)) for some in vectors.split(each)]
        return torch.cat(shares).log().to(positions.dtype)

    def predict(
        self, positions: Cloud | Tensor, mask: Tensor | None = None, *, progress: Progress | None = None
    ) -> Tensor:
        """The labels of clouds, (batch,), among those of `fit`; raises before that."""
        return self.classes[self(positions, mask, progress=progress).argmax(1)]

    def _features(self, positions: Tensor, mask: Tensor | None, progress: Progress | None) -> Tensor:
        """The vectors, in float32 at least."""
        check_points("positions", positions)
        if positions.shape[2] != self.dim:
            raise ValueError(f"`positions` must be (batch, points, {self.dim}); got {describe(positions)}.")
        seen = checked_mask(positions, mask)
        exact = torch.where(seen[..., None], positions, 0.0).to(torch.promote_types(positions.dtype, torch.float32))
        if not bool(exact.isfinite().all()):
            raise ValueError("`positions` must be finite where they are not masked; got NaN or infinity.")
        vectors = exact.new_zeros(len(exact), self.out_width)
        if exact.shape[1] == 0:
            return vectors
        done = 0
        for points, there in zip(exact.split(CLOUDS), seen.split(CLOUDS), strict=True):
            for some in self._parts(points, there):
                vectors[done : done + len(some)] = some
                done += len(some)
                if progress is not None:
                    progress(done, len(exact))
        return vectors

    def _parts(self, positions: Tensor, seen: Tensor) -> Iterator[Tensor]:
        """The vectors of a few clouds at a time."""
        levels, places, there, points = [], positions, seen, positions.shape[1]
        for _ in range(self.stages):
            index, real = farthest(places, (places.shape[1] + 1) // 2, there)
            half = (there.sum(1, keepdim=True) + 1) // 2  # of this cloud, however far it is padded
            there = real & (torch.arange(index.shape[1], device=index.device) < half)
            levels.append((index, there))
            places = taken(places, index)
        pairs = (points + 1) // 2 * min(self.neighbours, points)  # a stage has half the pairs, of twice the channels
        each = max(1, NUMBERS // (pairs * 2 * self.width))
        for first in range(0, len(positions), each):
            rows = slice(first, first + each)
            yield self._vectors(positions[rows], seen[rows], [(index[rows], real[rows]) for index, real in levels])

    def _vectors(self, places: Tensor, seen: Tensor, levels: list[tuple[Tensor, Tensor]]) -> Tensor:
        x = self._waves(places, self.width)
        for index, real in levels:
            x, places, seen = self._stage(x, places, seen, index, real), taken(places, index), real
        return most_and_mean(x, seen)

    def _stage(self, x: Tensor, places: Tensor, seen: Tensor, index: Tensor, real: Tensor) -> Tensor:
        """Features of the chosen points, (batch, chosen, 2 channels)."""
        centres, own = taken(places, index), taken(x, index)[:, :, None]
        near, held = neighbours_of(centres, places, self.neighbours, real, seen)
        changes = normalised(taken(x, near.flatten(1)).unflatten(1, near.shape[1:]) - own, held)
        offsets = taken(places, near.flatten(1)).unflatten(1, near.shape[1:]) - centres[:, :, None]
        waves = self._waves(normalised(offsets, held), 2 * x.shape[2])
        joined = torch.cat([changes, own.expand_as(changes)], -1)
        return F.gelu(most_and_mean((joined + waves) * waves, held))

    def _waves(self, positions: Tensor, width: int) -> Tensor:
        """sin and cos of the positions at every frequency, (*points, width): by axis, then frequency."""
        count = width // (2 * self.dim)
        steps = torch.arange(count, dtype=positions.dtype, device=positions.device) / count
        phases = positions[..., None] * (self.beta / self.alpha**steps)
        return torch.stack([phases.sin(), phases.cos()], -1).flatten(-3)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Be as long as what is loaded."""
        for name in KEPT:
            given = state_dict.get(prefix + name)
            if isinstance(given, Tensor):
                own = getattr(self, name)
                setattr(self, name, own.new_empty(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, width={self.width}, stages={self.stages}, neighbours={self.neighbours}"


def taken(values: Tensor, index: Tensor) -> Tensor:
    """The rows (batch, rows, channels) of values (batch, points, channels) that an index (batch, rows) names."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def neighbours_of(
    centres: Tensor, places: Tensor, count: int, centre_mask: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Indices of the nearest places of every centre, (batch, centres, neighbours), and which of them are real."""
    edges = nearest(centres, places, count, target_mask=centre_mask, source_mask=mask)
    batch, targets, sources = edges.shape
    counts = edges.counts().flatten()
    target = edges.batch * targets + edges.target
    slot = torch.arange(len(edges), device=places.device) - (counts.cumsum(0) - counts)[target]
    index = torch.zeros(batch * targets, min(count, sources), dtype=torch.long, device=places.device)
    index[target, slot] = edges.source
    held = torch.arange(index.shape[1], device=places.device) < counts[:, None]
    return index.unflatten(0, (batch, targets)), held.unflatten(0, (batch, targets))


def normalised(values: Tensor, held: Tensor) -> Tensor:
    """Values (batch, centres, neighbours, channels) by their standard deviation in each cloud, 0 where there are none.

    Of all that is held, every channel alike.
    """
    values = torch.where(held[..., None], values, 0.0)
    axes = (1, 2, 3)
    number = held.sum((1, 2)).clamp(min=1)[:, None, None, None] * values.shape[3]
    mean = values.sum(axes, keepdim=True) / number
    variance = torch.where(held[..., None], values - mean, 0.0).square().sum(axes, keepdim=True) / number
    return values / (variance.sqrt() + SMALLEST)


def most_and_mean(values: Tensor, held: Tensor) -> Tensor:
    """The maximum plus the mean over the last axis but one, of what is held; 0 where nothing is."""
    number = held.sum(-1)[..., None]
    mean = torch.where(held[..., None], values, 0.0).sum(-2) / number.clamp(min=1)
    most = torch.where(held[..., None], values, -torch.inf).amax(-2)
    return torch.where(number > 0, most + mean, 0.0)


def class_shares(cosines: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Shares of the classes (clouds, classes) in the weights exp(-gamma (1 - cosine)) of known clouds with labels.

    Above 0, by the smallest number there is, so that they have logarithms.
    """
    weights = (gamma * cosines).softmax(1)  # the factor exp(-gamma) cancels
    shares = weights.new_zeros(len(weights), int(labels.max()) + 1).index_add(1, labels, weights)
    return shares.clamp(min=torch.finfo(shares.dtype).tiny)


def best_gamma(vectors: Tensor, labels: Tensor) -> float:
    """Which gamma tells the classes of most known clouds by the others; of several the one that is surest, on average.

    `vectors` (clouds, width) of unit length, `labels` (clouds,) from 0 on.
    """
    if len(vectors) < 2:
        return GAMMAS[0]
    right, sure = [0] * len(GAMMAS), [0.0] * len(GAMMAS)
    each, first = max(1, NUMBERS // len(vectors)), 0
    for some, own in zip(vectors.split(each), labels.split(each), strict=True):
        cosines, rows = some @ vectors.T, torch.arange(len(some), device=vectors.device)
        cosines[rows, first + rows] = -torch.inf
        first += len(some)
        for i, gamma in enumerate(GAMMAS):
            shares = class_shares(cosines, labels, gamma)
            right[i] += int((shares.argmax(1) == own).sum())
            sure[i] += float(shares[rows, own].double().log().sum())
    return GAMMAS[max(range(len(GAMMAS)), key=lambda i: (right[i], sure[i]))]
