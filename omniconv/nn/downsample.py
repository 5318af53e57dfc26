"""Halving the resolution of a signal without breaking its symmetry."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_choice, check_floating_tensor, check_integer, describe
from omniconv.nn._checks import check_samples

POOLS: dict[str, dict[int, Any]] = {
    "max": {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d},
    "mean": {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d},
}


class Downsample(nn.Module):
    """The maximum or mean of neighbours at half the resolution: from n samples per axis to ceil(n / 2).

    An axis of even size is taken in pairs, one of odd size in windows of three about every second sample, the first and
    the last among them. So windows lie symmetrically about the middle for every size, and a signal that is turned or
    mirrored gives the output turned or mirrored, to the last bit.

    `dim`: axes that are halved, the last ones, 1 to 3. `reduce`: "max" or "mean".

    >>> import torch
    >>> Downsample(2)(torch.zeros(1, 3, 8, 9, 7)).shape
    torch.Size([1, 3, 8, 5, 4])
    """

    def __init__(self, dim: int, reduce: str = "max"):
        super().__init__()
        self.dim = check_integer("dim", dim)
        self.reduce = check_choice("reduce", reduce, tuple(POOLS))
        if dim > 3:
            raise ValueError(f"`dim` must be at most 3; got {dim}.")

    def forward(self, x: Tensor) -> Tensor:
        check_floating_tensor("x", x)
        if x.ndim < self.dim + 2:
            raise ValueError(f"`x` must be (batch, channels, *size), {self.dim} axes in size; got {describe(x)}.")
        check_samples(x, self.dim)
        size = x.shape[-self.dim :]
        window = tuple(3 if n % 2 else 2 for n in size)
        margin = tuple(n % 2 for n in size)
        options: dict[str, bool] = {} if self.reduce == "max" else {"count_include_pad": False}
        flat = x.reshape(-1, 1, *size)
        y: Tensor = POOLS[self.reduce][self.dim](flat, window, stride=2, padding=margin, **options)
        return y.reshape(*x.shape[: -self.dim], *y.shape[2:])

    def extra_repr(self) -> str:
        return f"{self.dim}, {self.reduce!r}"


def halved(size: tuple[int, ...]) -> tuple[int, ...]:
    """The size of a signal behind `Downsample`."""
    return tuple(-(-n // 2) for n in size)
