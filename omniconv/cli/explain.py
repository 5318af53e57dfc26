"""`omniconv explain`: which engine would run a convolution, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from omniconv._errors import check_integer
from omniconv.engines import Problem, explain_engine


@dataclass(frozen=True)
class Explain:
    """Print which engine would run a convolution, at what predicted cost, and why not the others."""

    shape: str
    """Shape of the signal: batch,channels,size, with one to three numbers in size, such as 8,110,1024."""

    kernel: str
    """Taps per axis, such as 1024 or 33,33."""

    out_channels: int | None = None
    """Output channels of a kernel that mixes channels; without it every channel has its own kernel."""

    causal: bool = False
    """Whether the kernel looks at the past only."""

    boundary: str = "zero"
    """What lies beyond the edges: zero or circular."""

    training: bool = False
    """Whether gradients are wanted too."""

    def run(self) -> None:
        """Print the table."""
        shape, kernel = integers("shape", self.shape), integers("kernel", self.kernel)
        if not 3 <= len(shape) <= 5 or len(kernel) not in (1, len(shape) - 2):
            raise ValueError(
                "`--shape` must be batch,channels and one to three sizes, and `--kernel` one number or one per size; "
                f"got {self.shape} and {self.kernel}."
            )
        mixed = () if self.out_channels is None else (check_integer("--out-channels", self.out_channels),)
        taps = (*mixed, shape[1])
        sizes = kernel * (len(shape) - 2) if len(kernel) == 1 else kernel
        nothing = torch.empty(())  # expanded: shapes without memory
        problem = Problem.of(
            nothing.expand(shape),
            nothing.expand(*taps, *sizes),
            causal=self.causal,
            boundary=self.boundary,
            training=self.training,
        )
        print(explain_engine(problem))


def integers(option: str, text: str) -> tuple[int, ...]:
    """Positive integers separated by commas."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(
            f"`--{option}` must be positive integers separated by commas, such as 8,110,1024; got {text!r}."
        )
    return tuple(int(part) for part in parts)
