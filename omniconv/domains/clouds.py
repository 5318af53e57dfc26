"""Clouds of points: where they are, how much each stands for, and which are near each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from omniconv._errors import check_floating_tensor, describe
from omniconv.domains.neighbours import Edges, Inside, Points, within

SLACK = 2.0**-20
"""In reference samples: lags on a lattice that was moved are not whole numbers to the last bit."""


RESOLUTION = 2.0**-34
"""Lags are rounded to this share of a reference sample where they are looked for among each other."""

TRIED, FEW, MOST = 2**12, 0.25, 2**16
"""So many pairs are looked at to see whether lags repeat: whether at most this share of them is different; and so many
different lags are the most."""


class Cloud:
    """The points of a batch of clouds, in samples of the reference grid.

    `positions`: (batch, points, dim), finite where they are not masked. `mask` (batch, points), bool: False where a
    cloud is padded; None for all. `measure` (batch, points): the volume that every point stands for, in cells of the
    reference grid; None divides one volume among the points of a cloud. `edges`: the pairs of outputs and points to use
    in place of those within a window, where they are known; of them, too, only those of points that are not masked, and
    in causal layers those of the past.
    Raises `TypeError` or `ValueError` that names the argument.

    >>> cloud = Cloud(torch.tensor([[[0.0], [1.0], [9.0]]]))
    >>> cloud.volumes(10.0)
    tensor([[3.3333, 3.3333, 3.3333]])
    >>> cloud.edges_within((1,), (True,)).source.tolist()
    [0, 0, 1, 2]
    """

    def __init__(
        self, positions: Points, mask: Inside | None = None, measure: Tensor | None = None, edges: Edges | None = None
    ):
        check_points("positions", positions)
        self.positions, self.mask, self.measure, self.edges = positions, mask, measure, edges
        self.observed = checked_mask(positions, mask)
        check_finite("positions", positions, self.observed)
        if measure is not None:
            self.measure = checked_measure(measure, self.observed)
        if edges is not None and not isinstance(edges, Edges):
            raise TypeError(f"`edges` must be `omniconv.domains.Edges`; got {describe(edges)}.")
        self._found: dict[tuple[Any, ...], Edges] = {}
        self._lags: dict[Edges, tuple[Tensor, Tensor] | None] = {}
        self._state: tuple[int, ...] = ()

    @classmethod
    def of(cls, positions: Tensor | Cloud) -> Cloud:
        """A cloud as it is, or made of a tensor."""
        return positions if isinstance(positions, Cloud) else cls(positions)

    @property
    def dim(self) -> int:
        """Number of axes."""
        return self.positions.shape[2]

    def scaled(self, factors: Sequence[float]) -> Cloud:
        """The same points in other units, one per axis; the volumes stay."""
        scale = self.positions.new_tensor(factors)
        return Cloud(self.positions * scale, self.mask, self.measure, self.edges)

    def volumes(self, total: float) -> Tensor:
        """The volume that every point stands for, (batch, points), 0 where there is none: `measure`, or equal shares.

        `total`: what the points of a cloud share where they have no `measure`.
        """
        dtype = torch.promote_types(self.positions.dtype, torch.float32)
        if self.measure is not None:
            return torch.where(self.observed, self.measure.to(dtype), 0.0)
        counts = self.observed.sum(1, keepdim=True).to(dtype)
        return self.observed * (total / counts.clamp(min=1))

    def edges_within(
        self, window: Sequence[float], causal: Sequence[bool], output_positions: Points | None = None
    ) -> Edges:
        """The pairs of outputs (targets) and points (sources) whose lag is within a window, of the past where causal.

        `window`: one number per axis. `output_positions`: (batch, outputs, dim), None for the points themselves. What
        was found is kept for the next layer that asks the same, until positions or mask are changed.
        """
        outputs = self.positions if output_positions is None else output_positions
        if self.edges is not None:
            wanted = (*outputs.shape[:2], self.positions.shape[1])
            if self.edges.shape != wanted:
                raise ValueError(f"`edges` must be of (batch, outputs, points) {wanted}; got {self.edges.shape}.")
        self._forget_if_changed()
        key = (() if self.edges is not None else tuple(window), tuple(causal))
        if output_positions is None and key in self._found:
            return self._found[key]
        seen = self.mask if output_positions is None else None
        if self.edges is not None:
            edges = self._between_points(self.edges, seen)
        else:
            radius = tuple(far + SLACK for far in window)
            edges = within(outputs, self.positions, radius, norm="largest", target_mask=seen, source_mask=self.mask)
        if any(causal):
            lags = outputs.double()[edges.batch, edges.target] - self.positions.double()[edges.batch, edges.source]
            edges = edges.only(((lags >= -SLACK) | ~torch.tensor(causal, device=lags.device)).all(-1))
        if output_positions is None and self._may_keep():
            self._found[key] = edges
        return edges

    def _forget_if_changed(self) -> None:
        """Keep nothing of positions and a mask that were changed in place since."""
        state = tuple(0 if tensor.is_inference() else tensor._version for tensor in self._sources)
        if state != self._state:
            self._found, self._lags, self._state = {}, {}, state

    def _may_keep(self) -> bool:
        """Whether changes are counted; what is found in inference mode is of no use for training later."""
        uncounted = any(tensor.is_inference() for tensor in self._sources)
        return not (uncounted or torch.is_inference_mode_enabled())

    @property
    def _sources(self) -> list[Tensor]:
        """What pairs are found from."""
        return [self.positions] if self.mask is None else [self.positions, self.mask]

    def _between_points(self, edges: Edges, seen: Inside | None) -> Edges:
        """The pairs of points that are there; `seen`: of the outputs, None where all are."""
        if self.mask is None:
            return edges
        kept = self.mask[edges.batch, edges.source]
        return edges.only(kept if seen is None else kept & seen[edges.batch, edges.target])

    def repeated_lags(self, edges: Edges, output_positions: Points | None = None) -> tuple[Tensor, Tensor] | None:
        """The different lags of pairs, (lags, dim), and which of them each pair has; None unless they repeat a lot.

        And None where positions want a gradient. What was found of the points themselves is kept for the next layer
        with the same pairs.
        """
        outputs = self.positions if output_positions is None else output_positions
        if len(edges) < TRIED or (torch.is_grad_enabled() and (outputs.requires_grad or self.positions.requires_grad)):
            return None
        self._forget_if_changed()
        if output_positions is None and edges in self._lags:
            return self._lags[edges]
        near, far = outputs.detach().double().flatten(0, 1), self.positions.detach().double().flatten(0, 1)
        target, source = edges.flat()
        few = slice(None, None, max(1, len(edges) // TRIED))
        tried = rounded_lags(near, far, target[few], source[few])  # before anything is as long as the pairs
        repeated = len(unique_rows(tried)[0]) <= FEW * len(tried)
        found = unique_rows(rounded_lags(near, far, target, source)) if repeated else None
        if found is not None and len(found[0]) > MOST:
            found = None  # the kernel is taken at all of them at once
        if output_positions is None and self._may_keep():
            self._lags[edges] = found
        return found


def taken_apart(
    positions: Cloud | Points, mask: Inside | None, edges: Edges | None = None, measure: Tensor | None = None
) -> tuple[Points, Inside | None, Edges | None, Tensor | None]:
    """Positions, mask, edges and measure as tensors, those of a `Cloud` or those that are given in place of one."""
    if not isinstance(positions, Cloud):
        return positions, mask, edges, measure
    for name, value in (("mask", mask), ("edges", edges), ("measure", measure)):
        if value is not None and (name != "edges" or positions.edges is not None):
            raise ValueError(f"`{name}` must be that of the `Cloud`, where positions come as one; got both.")
    return positions.positions, positions.mask, positions.edges if edges is None else edges, positions.measure


def rounded_lags(near: Tensor, far: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """Lags of pairs, (pairs, dim), in multiples of `RESOLUTION`; in place, for there may be many pairs."""
    return near[target].sub_(far[source]).div_(RESOLUTION).round_().mul_(RESOLUTION)


def unique_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of a matrix, in order, and which of them each row is.

    Column by column: to sort numbers is much faster than to sort rows.
    """
    key = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    for column in rows.unbind(1):
        values, which = torch.unique(column, return_inverse=True)
        _, key = torch.unique(key * len(values) + which, return_inverse=True)
    count = int(key.max()) + 1 if len(key) else 0
    unique = rows.new_empty(count, rows.shape[1])
    unique[key] = rows  # equal rows: whichever comes last
    return unique, key


def centred(positions: Points, mask: Inside | None = None) -> Points:
    """Every cloud about its mean, in the unit of its largest coordinate: within [-1, 1] on every axis.

    `positions`: (batch, points, dim). `mask` (batch, points), bool: False where there is no point, and 0 comes out.
    A cloud of one place, or of no point, is all zeros. In float32 at least, and back. Raises `TypeError` or
    `ValueError` that names the argument, also for points that are NaN or infinite.

    >>> centred(torch.tensor([[[1.0], [2.0], [6.0]]])).flatten().tolist()
    [-0.6666666865348816, -0.3333333432674408, 1.0]
    """
    check_points("positions", positions)
    inside = checked_mask(positions, mask)
    check_finite("positions", positions, inside)
    seen = inside[..., None]
    there = torch.where(seen, positions.to(torch.promote_types(positions.dtype, torch.float32)), 0.0)
    mean = there.sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1)
    about = torch.where(seen, there - mean, 0.0)
    largest = about.abs().amax((1, 2), keepdim=True) if about.shape[1] else about.new_ones(len(about), 1, 1)
    return (about / torch.where(largest > 0, largest, 1.0)).to(positions.dtype)


def check_points(name: str, positions: Any) -> None:
    """Raise unless these are positions of a batch of clouds."""
    check_floating_tensor(name, positions)
    if positions.ndim != 3 or positions.shape[2] == 0:
        raise ValueError(f"`{name}` must be (batch, points, dim); got {describe(positions)}.")


def check_finite(name: str, positions: Points, seen: Inside) -> None:
    """Raise unless the points that there are lie somewhere."""
    if positions.is_meta or torch.compiler.is_compiling():
        return  # compiled code must not depend on values
    if not bool((positions.detach().isfinite().all(-1) | ~seen).all()):
        raise ValueError(f"`{name}` must be finite where they are not masked; got NaN or infinity.")


def checked_measure(measure: Any, seen: Inside) -> Tensor:
    """The volume of every point, 0 where there is none, or raise."""
    if not isinstance(measure, Tensor) or measure.shape != seen.shape:
        expected = tuple(seen.shape)
        raise ValueError(f"`measure` must be {expected}, the volume of every point; got {describe(measure)}.")
    volumes = torch.where(seen, measure, 0.0)
    if not bool((volumes.detach().isfinite() & (volumes >= 0)).all()):
        raise ValueError("`measure` must be finite and at least 0 where there are points; got other volumes.")
    return volumes


def checked_mask(positions: Points, mask: Any) -> Inside:
    """The mask, all True for None, or raise."""
    if mask is None:
        return torch.ones(positions.shape[:2], dtype=torch.bool, device=positions.device)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != positions.shape[:2]:
        raise ValueError(f"`mask` must be bool {tuple(positions.shape[:2])}; got {describe(mask)}.")
    return mask
