"""What several tests of group layers use: a smooth kernel, band-limited images, and groups worked out by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from omniconv._typing import Positions, Values
from omniconv.kernels import Kernel

F64 = torch.float64


class Bump(Kernel):
    """exp(-|p - c|^2 / (2 width^2)) for a centre c per channel: smooth, positive, and nearly band-limited."""

    def __init__(
        self, dim: int, channels: int, *, width: float = 1.0, aside: float = 0.2, device: Any = None,
        dtype: torch.dtype | None = None, **where: Any,
    ):  # fmt: skip
        super().__init__(dim, channels, **where)
        self.width, self.aside = width, aside
        self.centre = nn.Parameter(torch.empty(channels, dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.centre, -self.aside, self.aside)

    def forward(self, positions: Positions) -> Values:
        apart = positions[..., None, :] - self.centre.to(positions.dtype)
        return (-apart.square().sum(-1) / (2 * self.width**2)).exp()


def waves(shape: tuple[int, ...], size: tuple[int, ...], *, highest: int = 2) -> Tensor:
    """Random periodic images (*shape, *size) in float64, of up to `highest` periods along every axis.

    The same random state gives the same images, however finely they are sampled.
    """
    generator = torch.Generator().manual_seed(0)
    axes = [torch.arange(n, dtype=F64) / n for n in size]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    total = torch.zeros(*shape, *size, dtype=F64)
    for _ in range(4):
        periods = torch.randint(-highest, highest + 1, (len(size),), generator=generator).to(F64)
        phase = 2 * torch.pi * torch.rand(*shape, *[1] * len(size), generator=generator, dtype=F64)
        total = total + torch.cos(2 * torch.pi * points @ periods + phase)
    return total


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """In the Euclidean norm."""
    return ((actual - expected).norm() / expected.norm()).item()
