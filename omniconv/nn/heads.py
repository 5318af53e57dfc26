"""What a network makes of its last signal."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from omniconv._errors import check_integer
from omniconv._typing import Mask, Signal
from omniconv.nn._checks import check_samples, check_signal
from omniconv.nn.causal import Affine, Mean, Part
from omniconv.nn.embedding import TokenEmbedding
from omniconv.nn.masks import observed
from omniconv.nn.pointwise import Pointwise, mixed


class TiedReadout(nn.Module):
    """The vectors of an embedding as a read-out: y[b, o, t] = sum_c E[o, c] x[b, c, t], its parameters.

    The embedding is no part of this module: its parameters count, and are saved, once.
    """

    bias = None

    def __init__(self, embedding: TokenEmbedding):
        super().__init__()
        self._embedding = (embedding,)  # in a tuple, so that it is not registered
        self.in_channels, self.out_channels = embedding.channels, embedding.tokens

    @property
    def weight(self) -> Tensor:
        return self._embedding[0].vectors.weight

    def reset_parameters(self) -> None:
        """The embedding draws them."""

    def forward(self, x: Signal) -> Signal:
        return mixed(self.weight.to(x.dtype), x.flatten(2)).unflatten(2, x.shape[2:])

    def causal_part(self) -> Part:
        """The read-out as a causal map that takes a signal in pieces."""
        return Affine(self, self.weight, None)


class Head(nn.Module):
    """A linear read-out of `channels` into `out_features`, or the one that is given."""

    ordered: ClassVar[bool] = False
    """Whether the order of the positions matters, which points have none of."""

    def __init__(
        self,
        channels: int,
        out_features: int,
        *,
        readout: TiedReadout | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_integer("channels", channels)
        check_integer("out_features", out_features)
        own = Pointwise(channels, out_features, device=device, dtype=dtype) if readout is None else readout
        self.readout: Pointwise | TiedReadout = own

    def reset_parameters(self) -> None:
        self.readout.reset_parameters()

    def causal_parts(self) -> list[Part]:
        """The read-out of the signal so far, at every sample; the last of the parts is linear in every sample."""
        return [self.readout.causal_part()]


class PoolHead(Head):
    """The mean over all observed positions, read out: `batch channels *size` to `batch out_features`.

    `measure` (batch, *size): the weight of every position, such as the time that it stands for.
    """

    def forward(self, x: Signal, mask: Mask | None = None, measure: Tensor | None = None) -> Tensor:
        check_signal(x, self.readout.in_channels, mask)
        if mask is None and measure is None and x.shape[2:].numel() > 0:  # of nothing there is no mean
            return self.readout(x.flatten(2).mean(-1, keepdim=True)).squeeze(-1)
        x = observed(x, mask).flatten(2)
        weight = x.new_ones(x.shape[0], x.shape[2]) if measure is None else measure.flatten(1).to(x.dtype)
        weight = weight if mask is None else weight * mask.flatten(1)
        total = weight.sum(-1)
        mean = (x * weight[:, None]).sum(-1) / torch.where(total > 0, total, 1.0)[:, None]
        return self.readout(mean[..., None]).squeeze(-1)

    def causal_parts(self) -> list[Part]:
        """The read-out of the mean over the signal so far, at every sample."""
        return [Mean(self.readout.in_channels), self.readout.causal_part()]


class LastHead(Head):
    """The last observed position of every signal, read out: `batch channels *size` to `batch out_features`.

    On several axes the last is the one with the largest indices, axis by axis. `measure` changes nothing.
    """

    ordered = True

    def forward(self, x: Signal, mask: Mask | None = None, measure: Tensor | None = None) -> Tensor:
        check_signal(x, self.readout.in_channels, mask)
        check_samples(x, x.ndim - 2)
        if mask is None:
            return self.readout(x.flatten(2)[..., -1:]).squeeze(-1)
        seen = mask.flatten(1)
        last = (seen * torch.arange(seen.shape[1], device=seen.device)).argmax(-1)
        chosen = last[:, None, None].expand(-1, x.shape[1], 1)
        return self.readout(x.flatten(2).gather(-1, chosen)).squeeze(-1)


class DenseHead(Head):
    """Every position, read out: `batch channels *size` to `batch out_features *size`, zero where not observed.

    `measure` changes nothing.
    """

    def forward(self, x: Signal, mask: Mask | None = None, measure: Tensor | None = None) -> Tensor:
        check_signal(x, self.readout.in_channels, mask)
        return observed(self.readout(observed(x, mask)), mask)
