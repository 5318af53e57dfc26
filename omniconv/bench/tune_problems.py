"""The convolutions whose times the rates are fitted to: small and large, every mixing, number of axes and boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from omniconv.engines import Problem


def problems(
    batch: int,
    channels: int,
    size: tuple[int, ...],
    kernels: Sequence[int | tuple[int, ...]],
    *,
    out: int | None = None,
    causal: bool = False,
    boundary: str = "zero",
    dtype: torch.dtype = torch.float32,
) -> list[Problem]:
    """A problem per kernel size; an int is the size on every axis, `out` None is depthwise."""
    dim = len(size)
    return [
        Problem(
            batch=batch,
            in_channels=channels,
            out_channels=channels if out is None else out,
            depthwise=out is None,
            size=size,
            kernel_size=(kernel,) * dim if isinstance(kernel, int) else kernel,
            causal=(causal,) * dim,
            boundary=(boundary,) * dim,
            dtype=dtype,
            device="cpu",
            training=False,
        )
        for kernel in kernels
    ]


DEPTHWISE = [
    *problems(2, 4, (16,), (3, 16), causal=True),
    *problems(2, 4, (64,), (3, 17, 64), causal=True),
    *problems(64, 30, (64,), (3, 9, 17, 33, 64), causal=True),
    *problems(32, 32, (256,), (3, 7, 17, 33, 65, 129, 256)),
    *problems(4, 10, (784,), (3, 9, 31, 101, 301, 784), causal=True),
    *problems(1, 64, (1024,), (3, 15, 31, 63, 127, 255, 511, 1024), causal=True),
    *problems(8, 64, (1024,), (1, 3, 7, 15, 31, 63, 127, 255, 511, 1024), causal=True),
    *problems(8, 16, (1000,), (3, 15, 63, 251, 1000), boundary="circular"),
    *problems(8, 16, (1009,), (3, 15, 63, 251), boundary="circular"),
    *problems(2, 110, (1024,), (1024,), causal=True),
    *problems(8, 64, (4096,), (3, 31, 255, 2047), causal=True),
    *problems(2, 32, (8192,), (3, 9, 17, 33, 65, 129, 257, 513, 1025, 4097)),
    *problems(2, 16, (16384,), (15, 63, 200, 700, 2000, 5000), causal=True),
    *problems(1, 8, (65536,), (3, 15, 31, 63, 127, 511, 2047, 8191, 32767), causal=True),
    *problems(2, 32, (12000,), (20, 50, 90, 150), causal=True),
    *problems(4, 64, (2048,), (5, 20, 50, 90, 200), causal=True),
    *problems(16, 64, (512,), (5, 20, 50, 120), causal=True),
    *problems(1, 4, (60000,), (31, 255, 1023), boundary="circular"),
    *problems(1, 64, (128,), (3, 16, 128), causal=True),
    *problems(1, 64, (500,), (3, 500), causal=True),
    *problems(8, 64, (100,), (3, 16, 100), causal=True),
    *problems(1, 128, (4000,), (3, 8, 16, 32, 64, 128, 256), causal=True),
    *problems(2, 32, (16000,), (3, 16, 64, 256), causal=True),
    *problems(8, 64, (1000,), (16, 64), boundary="circular"),
    *problems(1, 8, (8, 8), (3, 7)),
    *problems(8, 32, (28, 28), (3, 5, 7, 11, 15)),
    *problems(2, 16, (120, 120), (3, 5, 7, 15, 33)),
    *problems(1, 8, (16, 16), (3, 7, 11, 17)),
    *problems(16, 16, (28, 28), (3, 5, 7, 9, 11, 13, 17, 29)),
    *problems(4, 32, (32, 32), (1, 3, 5, 7, 9, 11, 13, 15, 17, 21, 27, 33)),
    *problems(1, 64, (32, 32), (3, 7, 11, 15, 21, 33)),
    *problems(8, 16, (32, 32), (3, 7, 13, 31), boundary="circular"),
    *problems(4, 16, (31, 31), (3, 7, 13, 31), boundary="circular"),
    *problems(4, 16, (32, 48), ((3, 31), (31, 3), (1, 49), (33, 1), (7, 15))),
    *problems(4, 32, (64, 64), (3, 5, 7, 9, 13, 17, 25, 33)),
    *problems(2, 3, (96, 96), (3, 7, 11, 21, 41)),
    *problems(1, 16, (128, 128), (3, 7, 13, 31)),
    *problems(8, 96, (32, 32), (7, 33)),
    *problems(2, 4, (4, 4, 4), (3,)),
    *problems(4, 8, (8, 12, 16), (3, 5, 7)),
    *problems(2, 16, (16, 16, 16), (1, 3, 5, 7, 9, 11)),
    *problems(1, 8, (32, 32, 32), (3, 5, 7)),
    *problems(4, 32, (16, 16, 16), (3, 5)),
]
DENSE = [
    *problems(2, 4, (32,), (3, 32), out=4, causal=True),
    *problems(16, 128, (128,), (3, 9, 15, 31, 63), out=128, causal=True),
    *problems(8, 64, (256,), (1, 3, 7, 15, 31, 63, 127), out=64, causal=True),
    *problems(4, 10, (256,), (3, 7, 15, 31, 63, 127, 255), out=10),
    *problems(1, 1, (1024,), (3, 15, 63, 255, 1024), out=32, causal=True),
    *problems(8, 3, (1024,), (3, 15, 63, 255), out=32, causal=True),
    *problems(8, 32, (1024,), (1, 3, 7, 15, 31, 45, 63, 95), out=32, causal=True),
    *problems(2, 16, (4096,), (3, 15, 31, 63, 127, 255), out=16, boundary="circular"),
    *problems(8, 16, (1000,), (3, 16, 64), out=16, causal=True),
    *problems(8, 64, (250,), (3, 31), out=64, causal=True),
    *problems(2, 4, (8, 8), (3, 7), out=4),
    *problems(4, 16, (60, 60), (3, 5, 9, 13), out=16),
    *problems(8, 64, (16, 16), (3, 5), out=64),
    *problems(1, 64, (16, 16), (1, 3, 5, 7, 9, 13, 17), out=64),
    *problems(4, 10, (28, 28), (3, 5, 7, 9, 11, 13, 17, 29), out=10),
    *problems(8, 1, (28, 28), (3, 5, 9, 13, 21), out=16),
    *problems(8, 3, (32, 32), (3, 5, 7, 9, 13, 17, 33), out=32),
    *problems(8, 32, (32, 32), (1, 3, 5, 7, 9, 11, 13, 17), out=32),
    *problems(2, 16, (64, 64), (3, 7, 9, 13, 15, 17, 21), out=16),
    *problems(2, 4, (4, 4, 4), (3,), out=4),
    *problems(4, 8, (8, 8, 8), (3, 5, 7, 9), out=8),
    *problems(2, 16, (12, 12, 12), (1, 3, 5, 7, 9), out=16),
    *problems(1, 1, (24, 24, 24), (3, 5, 7, 9), out=16),
]
CUDA = [
    *problems(16, 256, (1024,), (7, 63, 255, 1024), causal=True),
    *problems(8, 256, (4096,), (7, 63, 1023, 4096), causal=True),
    *problems(4, 256, (16384,), (63, 1023, 16384), causal=True),
    *problems(2, 64, (65536,), (63, 65536), causal=True),
    *problems(1, 16, (1048576,), (63, 1048576), causal=True),
    *problems(8, 256, (32, 32), (3, 7, 15, 33)),
    *problems(8, 256, (64, 64), (3, 7, 15, 33)),
]
DOUBLE = [
    *problems(4, 16, (512,), (3, 15, 63), causal=True, dtype=torch.float64),
    *problems(2, 16, (8192,), (15, 63, 255, 2000), causal=True, dtype=torch.float64),
    *problems(4, 16, (24, 24), (3, 7, 13), dtype=torch.float64),
    *problems(2, 8, (12, 12, 12), (3, 5), dtype=torch.float64),
    *problems(4, 16, (512,), (3, 15, 63), out=16, causal=True, dtype=torch.float64),
    *problems(4, 16, (24, 24), (3, 7, 13), out=16, dtype=torch.float64),
    *problems(2, 8, (12, 12, 12), (3, 5), out=8, dtype=torch.float64),
]


def tuning_problems(device: str, *, quick: bool = False) -> list[Problem]:
    """All of them on a device, or a few of each kind; a graphics processor has half precision in place of double."""
    if device == "cuda":
        low = [replace(problem, dtype=torch.bfloat16) for problem in DEPTHWISE + CUDA]
        return [replace(problem, device=device) for problem in (DEPTHWISE + CUDA + low + DENSE)[:: 9 if quick else 1]]
    return [*DEPTHWISE, *DENSE, *DOUBLE][:: 9 if quick else 1]
