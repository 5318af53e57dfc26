"""What every network has: an input that is checked and standardised, a reference grid, views at other resolutions."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from omniconv._errors import check_integer, check_probability, describe
from omniconv._references import Cited
from omniconv._typing import Mask, PerAxis, Signal, Tokens, per_axis
from omniconv.domains.grid import Grid, check_spacing
from omniconv.models._pretrained import Pretrained
from omniconv.nn import Conv, DenseHead, LastHead, PoolHead, Standardize, TokenEmbedding, check_mask, observed

HEADS = {"pool": PoolHead, "last": LastHead, "dense": DenseHead}


class Network(Cited, Pretrained):
    """Base of networks: a subclass builds its layers and a head, calls `_refer_to`, and sets `arguments`.

    `in_channels`, `out_features`: at least 1. `tokens`: number of tokens, if the network takes ids and embeds them in
    `in_channels`; None for signals. `input_dropout`: probability with which values of the input are dropped, [0, 1).
    """

    grid: Grid
    spacing: tuple[float, ...]

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        tokens: int | None = None,
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

    def _refer_to(self, grid: Grid) -> None:
        """Take the reference grid of the layers, and be at its resolution."""
        self.grid, self.spacing = grid, (1.0,) * grid.dim

    def reset_parameters(self) -> None:
        """Draw all parameters anew, with the running statistics of the norms."""
        self.standardize.reset_parameters()
        if self.embedding is not None:
            self.embedding.reset_parameters()

    def at_resolution(self, factor: PerAxis[float]) -> Self:
        """The model for signals sampled `factor` times as finely as the reference grid, (0, inf), one or one per axis.

        A view: it shares its layers with this model, parameters, statistics and mode. Warns, naming the layer, where a
        coarser grid cannot carry a kernel's frequencies.
        """
        factors = per_axis("factor", factor, self.grid.dim, check_spacing)
        view = copy.copy(self)
        view.spacing = tuple(step / times for step, times in zip(self.spacing, factors, strict=True))
        for name, module in self.named_modules():
            if isinstance(module, Conv):
                module.check_resolution(view.spacing, name)
        return view

    def _prepare(
        self, x: Signal | Tokens, spacing: PerAxis[float] | None, mask: Mask | None
    ) -> tuple[Signal, tuple[float, ...] | None]:
        """The input, checked, as the first layer takes it, and the spacing to hand to the layers."""
        self._check_signal(x)
        if mask is not None:
            self._check_mask(mask, x if self.embedding is None else x[:, None])
        step = self._spacing(spacing)
        if self.embedding is None:
            x = self.standardize(x)
        else:  # behind the mask there may be any id, one that is no token too
            x = self.embedding(x if mask is None else torch.where(mask, x, 0))
        return observed(self.input_dropout(x), mask), step

    def _check_signal(self, x: Any) -> None:
        if self.embedding is not None:
            if not isinstance(x, Tensor) or x.ndim != self.grid.dim + 1:
                raise ValueError(f"`x` must be ids (batch, *size), {self.grid.dim} axes in size; got {describe(x)}.")
            return
        if not isinstance(x, Tensor) or x.ndim != self.grid.dim + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"`x` must be (batch, {self.in_channels}, *size) with {self.grid.dim} axes in size; got {describe(x)}."
            )

    def _check_mask(self, mask: Mask, x: Signal) -> None:
        check_mask(mask, x)
        if "circular" in self.grid.boundary:
            raise ValueError('`mask` needs boundary="zero" on every axis: a padded circle is another circle.')

    def _spacing(self, spacing: PerAxis[float] | None) -> tuple[float, ...] | None:
        """What to hand to the layers: None at the reference spacing."""
        if spacing is None:
            return None if all(step == 1.0 for step in self.spacing) else self.spacing
        return per_axis("spacing", spacing, self.grid.dim, check_spacing)
