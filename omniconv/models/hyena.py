"""Hyena and MultiHyena: networks of gates and long convolutions, for signals and for language."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from omniconv._errors import check_choice, check_integer
from omniconv._references import HYENA_PAPER, LAUGHING_HYENA_PAPER
from omniconv._typing import Condition, Mask, PerAxis, Signal, check_bool
from omniconv.kernels import HyenaFilter, KernelFactory, Table
from omniconv.models._network import HEADS, Network
from omniconv.models.generate import Generates
from omniconv.models.stepper import Stepper
from omniconv.nn import ChannelNorm, Conv, GatedBlock, GatedConv, MultiHeadConv
from omniconv.nn.causal import Filter, Part
from omniconv.nn.heads import TiedReadout
from omniconv.supports import Full, SupportFactory

SHAPES = {"125M": (18, 768), "153M": (18, 864), "355M": (36, 1024), "1.3B": (36, 2048)}
"""Blocks and width of the published language models."""

TOKENS, CONTEXT = 50264, 2048
"""Ids of the GPT-2 tokenizer, 50257, up to a multiple of 8; and the length that the models were trained on."""

SPREAD = 0.02
"""Standard deviation of new vectors of tokens that are the read-out too."""


@dataclass(frozen=True)
class Body:
    """What `Hyena` and `MultiHyena` have around their mixers; their arguments of those names."""

    expansion: int
    head: str
    dropout: float
    tied: bool


class GatedNetwork(Network, Generates):
    """Base of `Hyena` and `MultiHyena`, which differ in the mixer of their blocks.

    With tokens: `generate`, and presets of the published language models.
    """

    def _build(
        self,
        size: PerAxis[int],
        mixers: Sequence[GatedConv | MultiHeadConv],
        body: Body,
        parts: dict[str, Any],
        place: dict[str, Any],
    ) -> None:
        """Make the layers around the mixers, and say what was built."""
        tied = check_bool("tied", body.tied)
        width = mixers[0].channels
        self.tied = tied
        if tied and (self.embedding is None or (self.embedding.tokens, self.in_channels) != (self.out_features, width)):
            raise ValueError(
                f"`tied` needs as many `tokens` as `out_features` (={self.out_features}), and as many `in_channels` as "
                f"the width (={width}); got tokens={None if self.embedding is None else self.embedding.tokens} and "
                f"in_channels={self.in_channels}."
            )
        self.stem = None
        if self.embedding is None or self.in_channels != width:
            mode = {name: parts[name] for name in ("causal", "boundary")}
            reach = mixers[0].short.reach
            self.stem = Conv(self.in_channels, width, size, kernel=Table, support=Full, reach=reach, **mode, **place)
        depth = len(mixers)
        self.blocks = nn.ModuleList(
            GatedBlock(mixer, expansion=body.expansion, depth=depth, dropout=body.dropout) for mixer in mixers
        )
        self.norm = ChannelNorm(width, **place)
        readout = TiedReadout(self.embedding) if tied and self.embedding is not None else None
        kind = HEADS[check_choice("head", body.head, tuple(HEADS))]
        self.head = kind(width, self.out_features, readout=readout, **place)
        self._draw_embedding()
        self._refer_to(mixers[0].short.grid)
        self.arguments = {**self._shape(), "blocks": depth, **parts, **asdict(body)}

    def _draw_embedding(self) -> None:
        if self.tied and self.embedding is not None:
            nn.init.normal_(self.embedding.vectors.weight, std=SPREAD)

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        super().reset_parameters()
        for part in (*([] if self.stem is None else [self.stem]), *self.blocks, self.norm, self.head):
            part.reset_parameters()
        self._draw_embedding()

    def forward(
        self,
        x: Signal,
        spacing: PerAxis[float] | None = None,
        mask: Mask | None = None,
        *,
        times: Tensor | None = None,
        condition: Condition | None = None,
    ) -> Tensor:
        x, where = self._prepare(x, spacing, mask, times, condition)
        if self.stem is not None:
            x = self.stem(x, where.spacing, lowpass=where.lowpass, times=where.times)
        where = where.united()
        for block in self.blocks:
            x = block(x, where.spacing, where.mask, **where.options)
        return self.head(self.norm(x), where.mask, where.measure)

    def causal_body(self, filtered: Filter) -> list[Part]:
        stem = [] if self.stem is None else [self.stem.causal_part("stem", filtered)]
        blocks = [block.causal_part(f"blocks.{i}", filtered) for i, block in enumerate(self.blocks)]  # type: ignore[operator]
        return [*stem, *blocks, self.norm.causal_part("norm")]

    def stepper(self) -> Stepper:
        """The network exactly, in evaluation mode: every layer remembers as many samples as its kernel reaches.

        For constant memory and time distil it: `omniconv.recurrence.stream(model, tol=..)`.
        """
        model = copy.deepcopy(self).eval()
        return Stepper(model, model.causal_part())


class Hyena(GatedNetwork):
    """Hyena: a network of gates and long convolutions, of the form of a Transformer, for signals and for language.

    standardize or embed; stem: a convolution of few taps (none for tokens whose vectors have the width); then `blocks`
    residual blocks of a `GatedConv` and two linear maps with GELU between; then norm and head.

    `in_channels`, `out_features`, `size`, `head`, `dropout`, `input_dropout`, `tokens`, `span`: as in `CCNN`.
    `blocks`, `width` (channels): at least 1. `order`, `short`: as in `GatedConv`. `expansion`: hidden channels per
    channel between the linear maps, at least 1.
    `kernel`, `support`, `reach`, `causal`, `boundary`, `engine`: as in `Conv`, for the long convolutions.
    `tied`: whether the vectors of the tokens are the read-out too, which needs `tokens` = `out_features` and
    `in_channels` = `width`.

    `forward` takes and gives what `CCNN` does; with head "dense" and tokens: ids (batch, length) to logits of the next
    token (batch, tokens, length), of any length. Kernels reach as far as they do, `size - 1` samples back unless told
    otherwise. `generate` continues prompts.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> model = Hyena(8, 256, size=64, blocks=1, width=8, tokens=256, tied=True, head="dense")
    >>> model(torch.zeros(2, 20, dtype=torch.long)).shape
    torch.Size([2, 256, 20])

    Poli et al. 2023 (Hyena).
    """

    references = (HYENA_PAPER,)

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        size: PerAxis[int],
        *,
        blocks: int = 4,
        width: int = 128,
        order: int = 2,
        short: int = 3,
        expansion: int = 2,
        kernel: KernelFactory = HyenaFilter,
        support: SupportFactory = Full,
        reach: PerAxis[int] | None = None,
        causal: PerAxis[bool] = True,
        boundary: PerAxis[str] = "zero",
        head: str = "pool",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        tokens: int | None = None,
        tied: bool = False,
        span: float | None = None,
        engine: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_features, tokens=tokens, span=span, input_dropout=input_dropout, **place)
        parts = convolutions(kernel, support, reach, causal, boundary, engine)
        width = check_integer("width", width)
        mixers = [
            GatedConv(width, size, order=order, short=short, **parts, **place)
            for _ in range(check_integer("blocks", blocks))
        ]
        self._build(size, mixers, Body(expansion, head, dropout, tied), parts, place)
        self.arguments |= {"width": width, "order": order, "short": short}

    @classmethod
    def preset(cls, name: str, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """A language model of a published size, newly drawn: "125M", "153M", "355M" or "1.3B".

        Of 18 or 36 blocks, 768 to 2048 wide, with filters of 64 hidden units and frequency 14, for ids of the GPT-2
        tokenizer and 2048 tokens. `device="meta"` draws nothing and takes no memory.
        """
        blocks, width = shape_of(name)
        return cls(
            width,
            TOKENS,
            CONTEXT,
            blocks=blocks,
            width=width,
            kernel=partial(HyenaFilter, hidden=64, frequency=14.0),
            head="dense",
            tokens=TOKENS,
            tied=True,
            device=device,
            dtype=dtype,
        )


class MultiHyena(GatedNetwork):
    """MultiHyena: a `Hyena` whose mixers are `MultiHeadConv`, with few long filters, each for a head of channels.

    `n_filters`, `head_width`: as in `MultiHeadConv`; the width is their product. All else is as in `Hyena`.

    >>> model = MultiHyena(8, 256, size=64, blocks=1, n_filters=4, head_width=2, tokens=256, tied=True, head="dense")
    >>> model(torch.zeros(2, 20, dtype=torch.long)).shape
    torch.Size([2, 256, 20])

    Massaroli et al. 2023 (Laughing Hyena Distillery).
    """

    references = (LAUGHING_HYENA_PAPER, HYENA_PAPER)

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        size: PerAxis[int],
        *,
        blocks: int = 4,
        n_filters: int = 64,
        head_width: int = 2,
        short: int = 3,
        expansion: int = 2,
        kernel: KernelFactory = HyenaFilter,
        support: SupportFactory = Full,
        reach: PerAxis[int] | None = None,
        causal: PerAxis[bool] = True,
        boundary: PerAxis[str] = "zero",
        head: str = "pool",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        tokens: int | None = None,
        tied: bool = False,
        span: float | None = None,
        engine: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_features, tokens=tokens, span=span, input_dropout=input_dropout, **place)
        parts = convolutions(kernel, support, reach, causal, boundary, engine)
        mixers = [
            MultiHeadConv(n_filters, head_width, size, short=short, **parts, **place)
            for _ in range(check_integer("blocks", blocks))
        ]
        self._build(size, mixers, Body(expansion, head, dropout, tied), parts, place)
        self.arguments |= {"n_filters": n_filters, "head_width": head_width, "short": short}

    @classmethod
    def preset(
        cls,
        name: str,
        *,
        head_width: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """A language model of the published sizes, as `Hyena.preset`, of heads of that width."""
        blocks, width = shape_of(name)
        if width % check_integer("head_width", head_width):
            raise ValueError(f"`head_width` must divide the width (={width}) of {name}; got {head_width}.")
        return cls(
            width,
            TOKENS,
            CONTEXT,
            blocks=blocks,
            n_filters=width // head_width,
            head_width=head_width,
            kernel=partial(HyenaFilter, hidden=64, frequency=14.0),
            head="dense",
            tokens=TOKENS,
            tied=True,
            device=device,
            dtype=dtype,
        )


def shape_of(name: str) -> tuple[int, int]:
    """Blocks and width of a published size, or raise."""
    return SHAPES[check_choice("name", name, tuple(SHAPES))]


def convolutions(
    kernel: KernelFactory,
    support: SupportFactory,
    reach: PerAxis[int] | None,
    causal: PerAxis[bool],
    boundary: PerAxis[str],
    engine: str,
) -> dict[str, Any]:
    """The arguments of the long convolutions by their names."""
    return {
        "kernel": kernel,
        "support": support,
        "reach": reach,
        "causal": causal,
        "boundary": boundary,
        "engine": engine,
    }
