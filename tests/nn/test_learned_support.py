"""A learned support finds the length of the memory that a task needs, from far too short and far too long."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

import omniconv as oc
from omniconv._typing import PerAxis, Positions, Values
from omniconv.supports import Gaussian


class Constant(oc.Kernel):
    """k(p) = a: with a Gaussian support a Gaussian kernel, whose length is that of the support alone."""

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(dim, channels, reach=reach, causal=causal)
        self.amplitude = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.amplitude)

    def forward(self, positions: Positions) -> Values:
        return self.amplitude.to(positions.dtype).expand(*positions.shape[:-1], -1)


def learned_memory(steps_to_remember: int, begin: float) -> float:
    """What the memory becomes that begins with that length: the integral of the window, in steps."""
    reach = 8 * steps_to_remember
    area = math.sqrt(math.pi / 2)  # of half a Gaussian of width 1
    support = partial(Gaussian, width=begin / (area * reach))
    conv = oc.Conv1d(1, 1, reach, reach=reach, causal=True, bias=False, kernel=Constant, support=support)
    optimizer = torch.optim.Adam(conv.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    sums = torch.ones(1, steps_to_remember) / math.sqrt(steps_to_remember)
    for _ in range(300):
        x = torch.randn(8, 1, reach)
        loss = (conv(x) - oc.convolve(x, sums, causal=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        oc.refresh(conv)
    support_now = conv.support
    assert isinstance(support_now, Gaussian)
    return support_now.width.item() * reach * area


@pytest.mark.parametrize("factor", [0.5, 4.0])
@pytest.mark.parametrize("steps", [12, 40])
def test_the_sum_of_the_last_k_steps_makes_a_memory_of_k_steps(steps: int, factor: float) -> None:
    memory = learned_memory(steps, factor * steps)
    assert memory == pytest.approx(steps, rel=0.2)
    # The Gaussian a exp(-s^2 / 2 w^2) that is nearest to a box of K steps maximises w erf(u)^2 with u = K / (w sqrt 2):
    # 4 u exp(-u^2) / sqrt(pi) = erf(u), so u = 0.9896, and its integral is sqrt(pi) K / (2 u) = 0.8955 K.
    assert memory == pytest.approx(0.8955 * steps, rel=0.05)
