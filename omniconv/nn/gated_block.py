"""The residual block of Hyena."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_integer, check_probability
from omniconv._references import HYENA_PAPER, Cited
from omniconv._typing import Condition, Mask, PerAxis, Signal
from omniconv.domains import Times
from omniconv.nn._chained import check_part
from omniconv.nn._checks import check_signal
from omniconv.nn.causal import Chain, Filter, Part, Same, Sum, gelu
from omniconv.nn.gated_conv import GatedConv
from omniconv.nn.masks import observed
from omniconv.nn.multi_head_conv import MultiHeadConv
from omniconv.nn.norm import ChannelNorm
from omniconv.nn.pointwise import Pointwise
from omniconv.nn.stepper import Steps


class GatedBlock(Steps, Cited, nn.Module):
    """Pre-norm residual block: y = x + mixer(norm(x)); y + down(GELU(up(norm(y)))).

    `mixer`: a `GatedConv` or a `MultiHeadConv`. `expansion`: channels between up and down per channel, at least 1.
    `depth`: residual blocks of the network: what both halves add begins smaller by 1 / sqrt(2 depth), so that the sum
    over all does not grow with their number. `dropout`: probability, [0, 1).
    `forward(x, spacing=None, mask=None)`: as in `GatedConv`.

    Poli et al. 2023 (Hyena).
    """

    references = (HYENA_PAPER,)

    def __init__(
        self,
        mixer: GatedConv | MultiHeadConv,
        *,
        expansion: int = 2,
        depth: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_part("mixer", mixer, GatedConv, MultiHeadConv)
        check_integer("expansion", expansion)
        self.depth = check_integer("depth", depth)
        place: dict[str, Any] = {"device": mixer.skip.device, "dtype": mixer.skip.dtype}
        channels = mixer.channels
        self.norm_1, self.mixer, self.norm_2 = ChannelNorm(channels, **place), mixer, ChannelNorm(channels, **place)
        self.up = Pointwise(channels, expansion * channels, **place)
        self.down = Pointwise(expansion * channels, channels, **place)
        self.dropout = nn.Dropout(check_probability("dropout", dropout))
        self._soften()

    def _soften(self) -> None:
        for last in (self.mixer.mix, self.down):
            last.weight.data.mul_((2 * self.depth) ** -0.5)

    def reset_parameters(self) -> None:
        """Draw the parameters of all parts anew."""
        for part in (self.norm_1, self.mixer, self.norm_2, self.up, self.down):
            part.reset_parameters()
        self._soften()

    def forward(
        self,
        x: Signal,
        spacing: PerAxis[float] | None = None,
        mask: Mask | None = None,
        *,
        lowpass: bool = False,
        times: Times | None = None,
        condition: Condition | None = None,
    ) -> Signal:
        check_signal(x, self.mixer.channels, mask)
        x = observed(x, mask)
        y = self.mixer(self.norm_1(x), spacing, mask, lowpass=lowpass, times=times, condition=condition)
        y = x + self.dropout(y)
        return y + self.dropout(self.down(F.gelu(self.up(self.norm_2(y)))))

    def _ends(self) -> tuple[int, int, Tensor]:
        return self.mixer._ends()

    def causal_part(self, name: str, filtered: Filter) -> Part:
        """The block as a causal map that takes a signal in pieces, with `filtered` in place of its kernels."""
        mixer = Chain([self.norm_1.causal_part(f"{name}.norm_1"), self.mixer.causal_part(f"{name}.mixer", filtered)])
        ahead = [self.norm_2.causal_part(f"{name}.norm_2"), self.up.causal_part(), gelu(), self.down.causal_part()]
        return Chain([Sum(Same(), mixer), Sum(Same(), Chain(ahead))])
