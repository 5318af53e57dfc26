"""Times what a call of `convolve` adds to its transforms where these are short: in a loop, and after a cold cache.

python benchmarks/short_convolution.py --out docs/results
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from _report import called, markdown, provenance, table, write
from torch import Tensor
from torch.fft import irfft, rfft

from omniconv import convolve

SEED = 0
SHAPES = ((1, 8, 16), (1, 64, 128), (8, 64, 64), (8, 64, 128))
"""Batch, channels and length; the kernel is as long."""
REPEATED = 20
"""Calls in a row, of which one is taken, where caches are warm."""
COLD = 8_000_000
"""Samples that are touched before a call to empty the caches: as many as the last one of the processor has bytes."""
TOLERANCE = 1e-5

ABOUT = """Causal depthwise convolutions with kernels as long as the signals, forward, without gradients, float32, one
thread. "transforms" is the product of spectra written out for these very sizes, without any check or choice, which
returns a view of its frame; "F.conv" pads, reverses and correlates. Microseconds are medians of {rounds} rounds with
the order of the ways drawn anew in each: of a call among {repeated} in a row ("in a loop"), and of one call after
{megabytes} megabytes were touched ("cold"), as between the layers of a large network: then what Python reads comes from
memory. "added" is the median of the differences to "transforms" in the same round."""
HEAD = ("batch x channels, length", "way", "in a loop", "added", "cold", "added")

Way = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """One way at one shape, in microseconds; what it adds to the transforms."""

    shape: tuple[int, int, int]
    way: str
    loop: float
    loop_added: float
    cold: float
    cold_added: float


def ways(length: int) -> dict[str, Way]:
    """The ways for signals and kernels of this length."""
    frame = 1 << (2 * length - 2).bit_length()

    def transforms(x: Tensor, taps: Tensor) -> Tensor:
        return irfft(rfft(x, n=frame) * rfft(taps, n=frame), n=frame)[..., :length]

    def correlated(x: Tensor, taps: Tensor) -> Tensor:
        return F.conv1d(F.pad(x, (length - 1, 0)), taps.flip(-1)[:, None], groups=len(taps))

    return {"transforms": transforms, "omniconv": lambda x, taps: convolve(x, taps, causal=True), "F.conv": correlated}


def timed(way: Way, x: Tensor, taps: Tensor, repeats: int) -> float:
    """Microseconds a call."""
    begin = time.perf_counter()
    for _ in range(repeats):
        way(x, taps)
    return (time.perf_counter() - begin) / repeats * 1e6


def measured(shape: tuple[int, int, int], rounds: int) -> list[Row]:
    """All ways at one shape."""
    generator = torch.Generator().manual_seed(SEED)
    x, taps = torch.randn(shape, generator=generator), torch.randn(shape[1:], generator=generator)
    made, far = ways(shape[2]), torch.zeros(COLD)
    check(made, x, taps)
    loops: dict[str, list[float]] = {name: [] for name in made}
    colds: dict[str, list[float]] = {name: [] for name in made}
    drawn = random.Random(SEED)
    for _ in range(rounds):
        for name, way in drawn.sample(list(made.items()), len(made)):
            loops[name].append(timed(way, x, taps, REPEATED))
        for name, way in drawn.sample(list(made.items()), len(made)):
            far.add_(1.0)
            colds[name].append(timed(way, x, taps, 1))
    return [
        Row(shape, name, statistics.median(loops[name]), added(loops, name), statistics.median(colds[name]),
            added(colds, name))
        for name in made
    ]  # fmt: skip


def check(made: dict[str, Way], x: Tensor, taps: Tensor) -> None:
    """Raise unless all ways agree."""
    expected = made["transforms"](x.double(), taps.double())
    for name, way in made.items():
        error = float((way(x, taps).double() - expected).norm() / expected.norm())
        if not error < TOLERANCE:
            raise ArithmeticError(f"{name} differs from float64 by {error:.1e}")


def added(times: dict[str, list[float]], name: str) -> float:
    """What a way takes more than the transforms."""
    return statistics.median(own - bare for own, bare in zip(times[name], times["transforms"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the page and the JSON")
    parser.add_argument("--rounds", type=int, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        rows = [row for shape in SHAPES for row in measured(shape, options.rounds)]
    about = provenance(SEED) | {"command": called("short_convolution.py", options, parser)}
    told = ABOUT.format(rounds=options.rounds, repeated=REPEATED, megabytes=COLD * 4 // 10**6)
    shown = [
        [f"{row.shape[0]} x {row.shape[1]}, {row.shape[2]}", row.way, f"{row.loop:.1f}", f"{row.loop_added:+.1f}",
         f"{row.cold:.0f}", f"{row.cold_added:+.0f}"]
        for row in rows
    ]  # fmt: skip
    page = markdown("What a call adds to a short convolution", about, told, table(HEAD, shown))
    write(options.out, "short_convolution", page, {"about": about, "rows": [asdict(row) for row in rows]})
    print(table(HEAD, shown))


if __name__ == "__main__":
    main()
