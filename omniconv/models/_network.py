"""What every network has: an input that is checked and standardised, a reference grid, views at other resolutions."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from omniconv._errors import check_floating_tensor, check_integer, check_number, check_probability, describe
from omniconv._references import Cited
from omniconv._typing import Condition, Mask, PerAxis, Signal, Tokens, check_bool, per_axis
from omniconv.domains import Cloud, Times
from omniconv.domains.grid import Grid, check_spacing
from omniconv.models._pretrained import Pretrained
from omniconv.nn import Conv, DenseHead, LastHead, PoolHead, Standardize, TokenEmbedding, check_mask, observed
from omniconv.nn._checks import check_samples
from omniconv.nn.causal import Chain, Filter, Layer, Part, Window
from omniconv.nn.heads import Head

HEADS = {"pool": PoolHead, "last": LastHead, "dense": DenseHead}


@dataclass(frozen=True)
class Where:
    """Where signals were sampled, and what else layers are told of them; for each its argument of `Conv` and blocks."""

    spacing: tuple[float, ...] | None
    mask: Mask | None
    times: Times | None
    lowpass: bool
    condition: Condition | None
    positions: Cloud | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that go by their names."""
        if self.positions is not None:
            return {"positions": self.positions}
        return {"times": self.times, "lowpass": self.lowpass, "condition": self.condition}

    @property
    def measure(self) -> Tensor | None:
        """The time that every sample stands for, if there are times; of points, their volumes where these are known."""
        if self.positions is not None:
            return self.positions.measure
        return None if self.times is None else self.times.measure

    def united(self) -> Where:
        """The same after the first layer, for which channels may have times of their own."""
        return self if self.times is None else replace(self, times=self.times.united())


class Network(Cited, Pretrained, ABC):
    """Base of networks: a subclass builds its layers and a head, calls `_refer_to`, and sets `arguments`.

    `in_channels`, `out_features`: at least 1. `tokens`: number of tokens, if the network takes ids and embeds them in
    `in_channels`; None for signals. `input_dropout`: probability with which values of the input are dropped, [0, 1).
    `span`: how long the reference grid is in the unit of the times or positions, (0, inf), one number or one per axis;
    None if these count its samples.
    """

    takes_positions: ClassVar[bool] = False
    """Whether `forward` takes clouds, `positions=`."""

    takes_masks: bool = True
    """Whether `forward` takes signals of several sizes in one batch, `mask=`; no network on a group does."""

    least_batch: ClassVar[int] = 1
    """So many samples a batch must have in training."""

    head: Head
    grid: Grid
    spacing: tuple[float, ...]
    lowpass: bool

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        tokens: int | None = None,
        span: PerAxis[float] | None = None,
        input_dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels)
        self.out_features = check_integer("out_features", out_features)
        self.standardize = Standardize(in_channels, device=device, dtype=dtype)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.embedding = None if tokens is None else TokenEmbedding(tokens, in_channels, **place)
        self.input_dropout = nn.Dropout(check_probability("input_dropout", input_dropout))
        self.span = span

    def _refer_to(self, grid: Grid) -> None:
        """Take the reference grid of the layers, and be at its resolution."""
        if self.span is not None:
            if grid.dim != 1 and not self.takes_positions:
                raise ValueError(f"`span` is for series, of one axis; got size {grid.size}. Leave it out.")
            spans = per_axis("span", self.span, grid.dim, lambda name, value: check_number(name, value, low=0.0))
            self.span = spans[0] if grid.dim == 1 else spans
        self.grid, self.spacing, self.lowpass = grid, (1.0,) * grid.dim, False

    def _shape(self) -> dict[str, Any]:
        """The arguments that say what the network takes and gives."""
        return {
            "in_channels": self.in_channels,
            "out_features": self.out_features,
            "tokens": None if self.embedding is None else self.embedding.tokens,
            "size": self.grid.size,
            "span": self.span,
            "input_dropout": self.input_dropout.p,
        }

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        self.standardize.reset_parameters()
        if self.embedding is not None:
            self.embedding.reset_parameters()

    def at_resolution(self, factor: PerAxis[float], lowpass: bool = False) -> Self:
        """The model for signals sampled `factor` times as finely as the reference grid, (0, inf), one or one per axis.

        A view: it shares its layers with this model, parameters, statistics and mode. Where a coarser grid cannot carry
        a kernel's frequencies, `lowpass` filters them out, as in `Conv`; without it, warns, naming the layer.
        """
        factors = per_axis("factor", factor, self.grid.dim, check_spacing)
        view = copy.copy(self)
        view.spacing = tuple(step / times for step, times in zip(self.spacing, factors, strict=True))
        view.lowpass = check_bool("lowpass", lowpass)
        for name, module in self.named_modules():
            if isinstance(module, Conv) and not lowpass:
                module.check_resolution(view.spacing, name)
        return view

    @abstractmethod
    def forward(
        self,
        x: Signal,
        spacing: PerAxis[float] | None = None,
        mask: Mask | None = None,
        *,
        times: Tensor | None = None,
        condition: Condition | None = None,
    ) -> Tensor:
        """The outputs, as `CCNN` describes them."""

    @torch.no_grad()
    def causal_part(self, filtered: Filter | None = None) -> Chain:
        """The network as a causal map that takes a series in pieces, with `filtered` in place of its kernels.

        Without it exactly: layers remember as many samples as their kernels have taps.
        Its last part is the read-out. Raises `ValueError` that names the layer that looks at samples to come,
        `TypeError` for a network of another kind.
        """
        if self.grid.dim != 1:
            raise ValueError(f"`model` must be a network of series, of one axis; this one has {self.grid.dim}.")
        body = self.causal_body(self._remembered if filtered is None else filtered)
        return Chain([self._entry(), *body, *self.head.causal_parts()])

    def _remembered(self, name: str, conv: Conv) -> Part:
        """The taps of a layer as they are, at the resolution of the network."""
        return Window(conv.taps(self.spacing, self.lowpass))

    def causal_body(self, filtered: Filter) -> list[Part]:
        """The parts between the input and the head, in the order in which a signal meets them."""
        raise TypeError(f"`model` must be a network that streams, such as CCNN or CKCNN; got {type(self).__name__}.")

    def _entry(self) -> Part:
        """Standardised signals, or embedded ids, as a part of a stream."""
        if self.embedding is None:
            return Layer(self.standardize)
        return Layer(self.embedding, self.embedding.vectors.weight.detach().double().abs().amax(0))

    def _prepare(
        self,
        x: Signal | Tokens,
        spacing: PerAxis[float] | None,
        mask: Mask | None,
        times: Tensor | None,
        condition: Condition | None,
    ) -> tuple[Signal, Where]:
        """The input, checked, as the first layer takes it, and where it was sampled."""
        self._check_signal(x)
        if times is not None:
            sampled = self._times(x, times, mask, spacing)
            where = Where(None, sampled.mask, sampled, lowpass=False, condition=condition)
            return self._input(x, sampled.observed), where
        if mask is not None:
            self._check_mask(mask, x if self.embedding is None else x[:, None])
        where = Where(self._spacing(spacing), mask, None, self.lowpass, condition)
        return self._input(x, mask), where

    def _input(self, x: Signal | Tokens, mask: Mask | None) -> Signal:
        """Standardised or embedded, zero where nothing was observed."""
        if self.embedding is None:
            x = self.standardize(x)
        else:  # behind the mask there may be any id, one that is no token too
            x = self.embedding(x if mask is None else torch.where(mask.reshape(x.shape), x, 0))
        return observed(self.input_dropout(x), mask)

    def _times(self, x: Signal | Tokens, times: Tensor, mask: Tensor | None, spacing: PerAxis[float] | None) -> Times:
        """Times in samples of the reference grid."""
        if spacing is not None or any(step != 1.0 for step in self.spacing):
            raise ValueError(
                "`times` and a spacing exclude each other: times say how finely a series is sampled. Call the model "
                "itself, not a view of it at another resolution, and without `spacing`."
            )
        if self.grid.dim != 1:
            raise ValueError(f"`times` are for series, of one axis; this network has {self.grid.dim} axes.")
        sampled = Times(times, mask)
        channels = 1 if self.embedding is not None else x.shape[1]
        if (x.shape[0], x.shape[-1]) != tuple(sampled.times.shape) or sampled.channels not in (1, channels):
            raise ValueError(
                f"`times` must be (batch, samples), here ({x.shape[0]}, {x.shape[-1]}), and a mask that, or (batch, "
                f"{channels}, samples); got {tuple(times.shape)} and a mask for {sampled.channels} channels."
            )
        return sampled if self.span is None else sampled.scaled(self._samples_per_unit[0])

    @property
    def _samples_per_unit(self) -> tuple[float, ...]:
        """Samples of the reference grid in the unit of times and positions, per axis."""
        if self.span is None:
            return (1.0,) * self.grid.dim
        spans = self.span if isinstance(self.span, tuple) else (self.span,) * self.grid.dim
        return tuple(size / span for size, span in zip(self.grid.size, spans, strict=True))

    def _place(
        self, x: Signal, positions: Cloud | Tensor, mask: Mask | None, others: Mapping[str, object]
    ) -> tuple[Signal, Where]:
        """The features of points, as the first layer takes them, and where these are."""
        for name, value in others.items():
            if value is not None:
                raise ValueError(f"`positions` and `{name}` exclude each other. Leave one of them out.")
        if self.head.ordered:
            raise ValueError(
                f"`positions` have no order, so no last one, which {type(self.head).__name__} reads. Build the network "
                'with head="pool" or head="dense".'
            )
        if any(step != 1.0 for step in self.spacing) or self.embedding is not None:
            raise ValueError("`positions` are for the model itself, no view at another resolution, and for no tokens.")
        check_floating_tensor("x", x)
        if x.ndim != 3 or x.shape[1] != self.in_channels:
            raise ValueError(f"`x` must be (batch, {self.in_channels}, points); got {describe(x)}.")
        if mask is not None and isinstance(positions, Cloud):
            raise ValueError("`mask` must be that of the `Cloud`, where positions come as one; got both.")
        cloud = positions if isinstance(positions, Cloud) else Cloud(positions, mask)
        expected = (x.shape[0], x.shape[2], self.grid.dim)
        if tuple(cloud.positions.shape) != expected:
            raise ValueError(
                f"`positions` must be (batch, points, dim), here {expected}; got {describe(cloud.positions)}."
            )
        if self.span is not None:
            cloud = cloud.scaled(self._samples_per_unit)
        return self._input(x, cloud.mask), Where(None, cloud.mask, None, False, None, cloud)

    def _check_signal(self, x: Any) -> None:
        if self.embedding is not None:
            if not isinstance(x, Tensor) or x.ndim != self.grid.dim + 1:
                raise ValueError(f"`x` must be ids (batch, *size), {self.grid.dim} axes in size; got {describe(x)}.")
        else:
            check_floating_tensor("x", x)
            if x.ndim != self.grid.dim + 2 or x.shape[1] != self.in_channels:
                raise ValueError(
                    f"`x` must be (batch, {self.in_channels}, *size) with {self.grid.dim} axes in size; got "
                    f"{describe(x)}."
                )
        check_samples(x, self.grid.dim)

    def _check_mask(self, mask: Mask, x: Signal) -> None:
        check_mask(mask, x)
        if "circular" in self.grid.boundary:
            raise ValueError('`mask` needs boundary="zero" on every axis: a padded circle is another circle.')

    def _spacing(self, spacing: PerAxis[float] | None) -> tuple[float, ...] | None:
        """What to hand to the layers: None at the reference spacing."""
        if spacing is None:
            return None if all(step == 1.0 for step in self.spacing) else self.spacing
        return per_axis("spacing", spacing, self.grid.dim, check_spacing)
