"""Stable systems at random, and their taps by plain loops."""

from __future__ import annotations

import torch
from torch import Tensor


def system(channels: int, pairs: int, reals: int = 0, seed: int = 0, radius: float = 0.99) -> tuple[Tensor, Tensor]:
    """Poles and residues (channels, pairs + reals): conjugate pairs first, then real poles of either sign."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(count: int) -> Tensor:
        return torch.rand(channels, count, generator=generator, dtype=torch.float64)

    paired = torch.polar(radius * uniform(pairs) ** 0.3, 0.1 + 2.9 * uniform(pairs))
    real = radius * (2 * uniform(reals) - 1)
    residues = torch.complex(0.5 + uniform(pairs), uniform(pairs) - 0.5)
    poles = torch.cat([paired, real + 0j], dim=1)
    return poles, torch.cat([residues, 0.5 + uniform(reals) + 0j], dim=1)


def taps_of(poles: Tensor, residues: Tensor, direct: Tensor, length: int) -> Tensor:
    """The tap at lag 0 is `direct`, that at lag t is Re sum_n residues_n poles_n^(t-1)."""
    state, taps = residues.clone(), [direct]
    for _ in range(length - 1):
        taps.append(state.sum(1).real)
        state = state * poles
    return torch.stack(taps, 1)
