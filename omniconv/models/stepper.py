"""Causal networks that take samples, or tokens, as they come."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omniconv._errors import describe
from omniconv.models._network import Network
from omniconv.models.generate import Generates
from omniconv.nn import LayerStepper
from omniconv.nn.causal import Chain


class Stepper(LayerStepper, Generates):
    """A causal network that takes samples as they come: `init_state`, `step`, `prefill`, and `generate` for tokens.

    `network`: what it computes. `chain`: its parts. With tokens a sample is an id, and a signal ids (batch, length).

    >>> from omniconv.models import CCNN
    >>> model = CCNN(1, 2, size=32, blocks=1, width=4, causal=True, head="last").eval()
    >>> stepper, x = Stepper(model, model.causal_part()), torch.randn(3, 1, 32)
    >>> y, state = stepper.prefill(x)
    >>> torch.allclose(y[..., -1], model(x), atol=1e-5)
    True
    """

    def __init__(self, network: Network, chain: Chain):
        super().__init__(chain, network.in_channels, network.out_features, network.head.readout.weight)
        self.network = network
        self.axes = 3 if network.embedding is None else 2

    def stepper(self) -> Stepper:
        """This one."""
        return self

    def _dtype(self, x: Tensor) -> torch.dtype:
        return x.dtype if self.network.embedding is None else self._like.dtype

    def _shape(self, more: str) -> str:
        return super()._shape(more) if self.network.embedding is None else f"ids (batch{more})"

    def _check(self, x: Any) -> None:
        if self.network.embedding is None:
            super()._check(x)
        elif not isinstance(x, Tensor) or x.ndim != 2 or x.shape[-1] < 1:
            raise ValueError(f"`x` must be {self._shape(', length')}, one sample at least; got {describe(x)}.")
