"""The convolutions that are timed. A family is a panel of the figure: in it the length changes, or the kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from omniconv.engines import Problem


@dataclass(frozen=True)
class Case:
    """A convolution to time: B signals of C channels with a kernel per channel, or with a matrix of kernels.

    `out`: output channels of a kernel that mixes channels; None is depthwise. `training`: whether both gradients are
    computed too. The taps of a float16 or bfloat16 signal are in float32, as a continuous kernel gives them.
    """

    family: str
    batch: int
    channels: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    out: int | None = None
    causal: bool = False
    boundary: str = "zero"
    dtype: torch.dtype = torch.float32
    training: bool = False

    def problem(self, device: str) -> Problem:
        """What the engines are asked."""
        x = torch.empty((), dtype=self.dtype).expand(self.batch, self.channels, *self.size)  # shapes without memory
        taps = torch.empty((), dtype=self.taps_dtype).expand(self.taps_shape)
        problem = Problem.of(x, taps, causal=self.causal, boundary=self.boundary, training=self.training)
        return replace(problem, device=device)

    @property
    def taps_shape(self) -> tuple[int, ...]:
        """(channels, *kernel), or (out, in, *kernel)."""
        mixed = () if self.out is None else (self.out,)
        return (*mixed, self.channels, *self.kernel)

    @property
    def taps_dtype(self) -> torch.dtype:
        """At least float32."""
        return self.dtype if self.dtype == torch.float64 else torch.float32

    @property
    def origin(self) -> tuple[int, ...]:
        """Index of the zero lag per axis."""
        return tuple(0 if self.causal else k // 2 for k in self.kernel)

    @property
    def products(self) -> int:
        """Products of a sample with a tap in the sum that defines the convolution."""
        mixed = 1 if self.out is None else self.out
        return self.batch * self.channels * mixed * math.prod(self.size) * math.prod(self.kernel)

    @property
    def outputs(self) -> int:
        """Samples of the result."""
        return self.batch * (self.out or self.channels) * math.prod(self.size)

    @property
    def traffic(self) -> int:
        """The fewest bytes to move: x and y; in training x twice, y, its cotangent and dx, 5 numbers per sample.

        Taps and their gradient are left out: a batch shares them.
        """
        inputs = self.batch * self.channels * math.prod(self.size)
        numbers = 3 * inputs + 2 * self.outputs if self.training else inputs + self.outputs
        return numbers * self.dtype.itemsize

    def __str__(self) -> str:
        channels = f"{self.channels}" if self.out is None else f"{self.channels} to {self.out}"
        size, kernel = ("x".join(map(str, lengths)) for lengths in (self.size, self.kernel))
        kind = ["causal"] * self.causal + ["circular"] * (self.boundary == "circular")
        kind += [str(self.dtype).removeprefix("torch.")] * (self.dtype != torch.float32)
        return " ".join([f"{self.batch} x {channels}, {size}, {kernel}", *kind])

    @property
    def name(self) -> str:
        """The case in words, with its pass."""
        return f"{self}, {'training' if self.training else 'forward'}"


def cells(
    family: str,
    batch: int,
    channels: int,
    size: tuple[int, ...],
    kernels: Sequence[int],
    *,
    out: int | None = None,
    causal: bool = False,
    boundary: str = "zero",
    dtype: torch.dtype = torch.float32,
) -> list[Case]:
    """Two cases per kernel, of as many taps on every axis: the forward pass alone, and with both gradients."""
    return [
        Case(family, batch, channels, size, (kernel,) * len(size), out, causal, boundary, dtype, training)
        for kernel in kernels
        for training in (False, True)
    ]


FULL = "sequences, full kernel"
ONE = "one sequence, full kernel"
SHORT = "sequences, 3 taps"
ODD, ODD_SHORT = "awkward lengths, full kernel", "awkward lengths, 64 taps"
DENSE_1D, DENSE_2D = "dense layers on sequences of 1,024", "dense layers on images of 32x32"
AROUND = "circular sequences"
DOUBLE = "float64"

GRID = [
    *cells(FULL, 8, 64, (64,), (64,), causal=True),
    *cells(FULL, 8, 64, (128,), (128,), causal=True),
    *cells(FULL, 8, 64, (256,), (256,), causal=True),
    *cells(FULL, 8, 64, (512,), (512,), causal=True),
    *cells(FULL, 8, 64, (1024,), (1024,), causal=True),
    *cells(FULL, 8, 64, (2048,), (2048,), causal=True),
    *cells(FULL, 8, 32, (4096,), (4096,), causal=True),
    *cells(FULL, 8, 16, (8192,), (8192,), causal=True),
    *cells(FULL, 2, 32, (16384,), (16384,), causal=True),
    *cells(FULL, 1, 16, (65536,), (65536,), causal=True),
    *cells(ONE, 1, 64, (128,), (128,), causal=True),
    *cells(ONE, 1, 64, (512,), (512,), causal=True),
    *cells(ONE, 1, 64, (1024,), (1024,), causal=True),
    *cells(ONE, 1, 64, (4096,), (4096,), causal=True),
    *cells(SHORT, 8, 64, (64,), (3,), causal=True),
    *cells(SHORT, 8, 64, (256,), (3,), causal=True),
    *cells(SHORT, 8, 64, (2048,), (3,), causal=True),
    *cells(SHORT, 1, 16, (65536,), (3,), causal=True),
    *cells("sequences of 1,024", 8, 110, (1024,), (3, 16, 64, 256, 1024), causal=True),
    *cells("sequences of 4,096", 1, 128, (4096,), (3, 16, 64, 256), causal=True),
    *cells("sequences of 16,384", 2, 32, (16384,), (3, 16, 64, 256), causal=True),
    *cells(ODD_SHORT, 8, 64, (1000,), (64,), causal=True),
    *cells(ODD_SHORT, 2, 32, (10007,), (64,), causal=True),
    *cells(ODD_SHORT, 2, 32, (16000,), (64,), causal=True),
    *cells(ODD, 8, 64, (1000,), (1000,), causal=True),
    *cells(ODD, 2, 32, (10007,), (10007,), causal=True),
    *cells(ODD, 2, 32, (16000,), (16000,), causal=True),
    *cells("images of 28x28", 8, 32, (28, 28), (3, 7, 15)),
    *cells("images of 32x32", 8, 140, (32, 32), (3, 7, 13, 15, 21, 33)),
    *cells("images of 64x64", 4, 32, (64, 64), (7, 13, 21, 33)),
    *cells("images of 128x128", 2, 16, (128, 128), (3, 7, 15, 33)),
    *cells("volumes of 16x16x16", 2, 16, (16, 16, 16), (3, 5, 9)),
    *cells(DENSE_1D, 8, 16, (1024,), (3, 16, 64, 1024), out=16, causal=True),
    *cells("dense layers on sequences of 256", 8, 64, (256,), (3, 31), out=64, causal=True),
    *cells(DENSE_2D, 8, 32, (32, 32), (3, 7), out=32),
    *cells(DENSE_2D, 8, 16, (32, 32), (33,), out=16),
    *cells("dense layers on images of 16x16", 8, 64, (16, 16), (3,), out=64),
    *cells("dense layers on images of 64x64", 4, 16, (64, 64), (3, 13), out=16),
    *cells(AROUND, 8, 64, (1000,), (16, 64, 1000), boundary="circular"),
    *cells("circular images of 32x32", 8, 32, (32, 32), (7, 32), boundary="circular"),
    *cells(DOUBLE, 8, 32, (512,), (16, 512), causal=True, dtype=torch.float64),
    *cells(DOUBLE, 4, 16, (28, 28), (7,), dtype=torch.float64),
]
"""Convolutions on a CPU: what a user of layers with short and with long kernels meets."""

LONG = "long causal sequences, 2^27 samples"
BF16, FP16 = torch.bfloat16, torch.float16

CUDA_GRID = [
    *cells(LONG, 170, 768, (1024,), (1024,), causal=True, dtype=BF16),
    *cells(LONG, 42, 768, (4096,), (4096,), causal=True, dtype=BF16),
    *cells(LONG, 21, 768, (8192,), (8192,), causal=True, dtype=BF16),
    *cells(LONG, 10, 768, (16384,), (16384,), causal=True, dtype=BF16),
    *cells(LONG, 8, 256, (65536,), (65536,), causal=True, dtype=BF16),
    *cells(LONG, 8, 64, (262144,), (262144,), causal=True, dtype=BF16),
    *cells(LONG, 8, 16, (1048576,), (1048576,), causal=True, dtype=BF16),
    *cells("sequences of 4,096", 8, 768, (4096,), (3, 16, 64, 256), causal=True, dtype=BF16),
    *cells("images of 16x16, bfloat16", 8, 768, (16, 16), (3, 7, 17), dtype=BF16),
    *cells("images of 32x32, bfloat16", 8, 768, (32, 32), (3, 7, 15, 33), dtype=BF16),
    *cells("images of 64x64, bfloat16", 8, 768, (64, 64), (7, 31, 65), dtype=BF16),
    *cells("float32", 8, 768, (1024,), (3, 64, 1024), causal=True),
    *cells("float32", 8, 256, (32, 32), (7, 33)),
    *cells("float32", 8, 768, (16384,), (16384,), causal=True),
    *cells("float16", 8, 768, (1024,), (64, 1024), causal=True, dtype=FP16),
    *cells("float16", 8, 256, (32, 32), (33,), dtype=FP16),
    *cells(ODD, 8, 768, (1000,), (1000,), causal=True, dtype=BF16),
    *cells(ODD, 8, 64, (10007,), (10007,), causal=True, dtype=BF16),
    *cells("volumes of 32x32x32", 4, 64, (32, 32, 32), (3, 9)),
    *cells(DENSE_1D, 8, 256, (1024,), (3, 64), out=256, causal=True, dtype=BF16),
    *cells(DENSE_2D, 8, 256, (32, 32), (3, 33), out=256, dtype=BF16),
    *cells(AROUND, 8, 768, (1024,), (1024,), boundary="circular"),
]
"""Convolutions on a graphics processor; the first family is that of the published comparisons."""

QUICK = [
    *cells(FULL, 2, 16, (128,), (128,), causal=True),
    *cells(FULL, 2, 16, (1024,), (1024,), causal=True),
    *cells("images of 32x32", 2, 16, (32, 32), (3, 33)),
    *cells("volumes of 8x8x8", 1, 8, (8, 8, 8), (3,)),
    *cells("dense layers on sequences of 256", 2, 16, (256,), (16,), out=16),
    *cells(AROUND, 2, 16, (100,), (20,), boundary="circular"),
]
"""Small ones, on either, to see the benchmark work."""


@dataclass(frozen=True)
class Goal:
    """A case in which the automatic choice is to be `times` as fast as a peer, and to take `memory` of its memory."""

    case: Case
    peer: str
    times: float
    memory_peer: str = "torch.fft"
    memory: float = 0.6


def goal_case(family: str, size: tuple[int, ...], kernel: int) -> Case:
    """The case of the grid with both gradients."""
    (found,) = (c for c in GRID if (c.family, c.size, c.training) == (family, size, True) and c.kernel[0] == kernel)
    return found


GOALS = [
    Goal(goal_case("sequences of 1,024", (1024,), 1024), "torch.fft", 2.0),
    Goal(goal_case("images of 32x32", (32, 32), 33), "F.conv", 15.0),
]
"""Speed and memory that the library sets itself on a CPU."""


def grid(device: str, *, quick: bool = False) -> list[Case]:
    """The cases for a device."""
    if quick:
        return QUICK
    return CUDA_GRID if device == "cuda" else GRID
