"""The contract of a support."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from omniconv._errors import check_integer
from omniconv._precision import AtLeastFloat32
from omniconv._references import Cited
from omniconv._tags import Tagged
from omniconv._typing import PerAxis, Positions, Weights, check_bool, check_reach, per_axis


class Support(Cited, Tagged, AtLeastFloat32, ABC):
    """A window on a kernel: a function from relative positions to [0, 1], and how far it reaches.

    `dim`, `reach`, `causal`: the same as for the `Kernel` that it multiplies. Its parameters, too, stay in float32 when
    a network is cast to half precision. A subclass writes `forward`, `extent` and `reset_parameters` (called at the end
    of its constructor).
    """

    def __init__(self, dim: int, *, reach: PerAxis[int], causal: PerAxis[bool] = False):
        super().__init__()
        self.dim = check_integer("dim", dim)
        self.reach = per_axis("reach", reach, dim, check_reach)
        self.causal = per_axis("causal", causal, dim, check_bool)

    @abstractmethod
    def forward(self, positions: Positions) -> Weights:
        """Weights in [0, 1] at `positions` (`*points dim`), as `*points`."""

    @abstractmethod
    def extent(self, threshold: float) -> tuple[float, ...]:
        """Per axis, the distance from the zero lag beyond which the weight is below `threshold`, at most 1.

        Reads learned sizes on the host: a layer calls it outside `forward`.
        """

    @abstractmethod
    def reset_parameters(self) -> None:
        """Set the learned sizes back to where they began."""

    @property
    def everywhere_one(self) -> bool:
        """Whether the weight is exactly 1 at every position, whatever the parameters: kernels stay as they are."""
        return False

    def bandwidth(self) -> Tensor | None:
        """Highest frequency per axis (`dim`), in units of the reference grid's Nyquist frequency; None: not known.

        Differentiable. It adds to the frequencies of the kernel that the support multiplies.
        """
        return None

    def extra_repr(self) -> str:
        return f"{self.dim}, reach={self.reach}, causal={self.causal}"


class SupportFactory(Protocol):
    """What a layer takes as `support`: a support class, or `functools.partial` of one."""

    def __call__(
        self,
        dim: int,
        *,
        reach: PerAxis[int],
        causal: PerAxis[bool] = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Support: ...
