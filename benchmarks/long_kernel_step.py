"""Shows where a training step with a kernel as long as its signals goes on a CPU, and what other ways would take.

python benchmarks/long_kernel_step.py --out docs/results
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from _report import interleaved, markdown, provenance, table, wait_until_quiet, write
from torch import Tensor
from torch.fft import fft, ifft, irfft, rfft

from omniconv import convolve
from omniconv.bench.cases import GOALS
from omniconv.bench.contestants import by_transform, inputs, reference

SEED = 0
CASE = GOALS[0].case
(LENGTH,) = CASE.size
FRAME, CHANNELS = 2 * LENGTH, CASE.channels
BLOCKS = 4
"""Blocks of the partitioned way: transforms of 256 complex numbers are the fastest per sample."""
TOLERANCE = 1e-5
ROUNDS, MINUTES = 60, 1.5
FREED = 31 * 2**20
"""Bytes that, once freed, make the system's allocator keep what is freed later: it learns up to 32 MB."""

ABOUT = f"""One causal depthwise convolution with both gradients, {CASE}, every way checked against float64 in y, dx and
dtaps ({TOLERANCE:.0e}). "torch.fft" is autograd through products of spectra; "omniconv" is `convolve`. The other rows
are written out here, without autograd and its checks: what is left out of a row takes no time there.

In a new process the allocator gives memory back to the system after every step and pays for it anew, most of all for
the many large tensors of "torch.fft". After larger tensors were freed once, as in any real training, it keeps it: the
second pair of columns. Milliseconds are medians of rounds in which all ways take turns; "times as fast" is the median
of the ratios to "torch.fft" in the same round. "transforms alone" makes the transforms that a way with real frames
needs and nothing else: the least that it can take."""
HEAD = ("way", "new process", "times as fast", "memory kept", "times as fast")

Results = tuple[Tensor, Tensor, Tensor]
"""y, dx, dtaps."""
Step = Callable[[Tensor, Tensor, Tensor], Results]
"""A way to make them of x, taps and the cotangent."""


def with_autograd(forward: Callable[[Tensor, Tensor], Tensor], x: Tensor, taps: Tensor, cotangent: Tensor) -> Results:
    """The results of a differentiable convolution."""
    leaves = x.detach().requires_grad_(), taps.detach().requires_grad_()
    y = forward(*leaves)
    dx, dtaps = torch.autograd.grad(y, leaves, cotangent)
    return y.detach(), dx, dtaps


def transforms_alone(x: Tensor, taps: Tensor, cotangent: Tensor, *, kept: bool) -> Results:
    """The transforms that the results need, without products; `kept`: one less, that of x in the backward pass."""
    of_x, _ = rfft(x, FRAME), rfft(taps, FRAME)
    y = irfft(of_x, FRAME)
    of_x = of_x if kept else rfft(x, FRAME)
    of_taps, dx = rfft(taps, FRAME), irfft(rfft(cotangent, FRAME), FRAME)
    return y, dx, irfft(of_taps, FRAME)


def by_slices(x: Tensor, taps: Tensor, cotangent: Tensor, *, channels: int, kept: bool) -> Results:
    """All steps for some channels at a time, so that they stay in cache; `kept`: with the spectrum of x kept."""
    y, dx, dtaps, spectra = torch.empty_like(x), torch.empty_like(x), torch.empty_like(taps), {}
    slices = [slice(first, first + channels) for first in range(0, CHANNELS, channels)]
    for part in slices:
        of_x, of_taps = rfft(x[:, part], FRAME), rfft(taps[part], FRAME)
        if kept:
            spectra[part.start] = of_x
        y[:, part] = irfft(of_x * of_taps if kept else of_x.mul_(of_taps), FRAME)[..., :LENGTH]
    for part in slices:
        of_x = spectra[part.start] if kept else rfft(x[:, part], FRAME)
        of_taps, of_cotangent = rfft(taps[part], FRAME).conj_physical_(), rfft(cotangent[:, part], FRAME)
        dtaps[part] = irfft(of_x.conj_physical_().mul_(of_cotangent).sum(0), FRAME)[..., :LENGTH]
        dx[:, part] = irfft(of_cotangent.mul_(of_taps), FRAME)[..., :LENGTH]
    return y, dx, dtaps


def phases(length: int, dtype: torch.dtype) -> Tensor:
    """exp(i pi t / 2 length) for t < length: modulo z^length - i a product of real polynomials is its lower half plus i
    times its upper half, and needs no padding.
    """
    angles = torch.arange(length, dtype=torch.float64) * (math.pi / 2 / length)
    return torch.polar(torch.ones_like(angles), angles).to(dtype.to_complex())


def by_right_angles(x: Tensor, taps: Tensor, cotangent: Tensor) -> Results:
    """Complex transforms as long as the signals, in place of real ones twice as long."""
    turn = phases(LENGTH, x.dtype)

    def spectrum(signal: Tensor) -> Tensor:
        return fft(signal * turn)

    def lower(product: Tensor) -> Tensor:
        return ifft(product).mul_(turn.conj()).real.contiguous()

    y = lower(spectrum(x).mul_(spectrum(taps)))
    of_taps, of_cotangent = spectrum(taps).conj_physical_(), spectrum(cotangent)
    dtaps = lower(spectrum(x).conj_physical_().mul_(of_cotangent).sum(0))
    return y, lower(of_cotangent.mul_(of_taps)), dtaps


def by_blocks(x: Tensor, taps: Tensor, cotangent: Tensor) -> Results:
    """Blocks with transforms of their own, at right angles, and a product for each pair of blocks that meet."""
    width = LENGTH // BLOCKS
    turn = phases(width, x.dtype)

    def spectrum(signal: Tensor) -> Tensor:
        return fft(signal.unflatten(-1, (BLOCKS, width)) * turn)

    def pairs(of_taps: Tensor, of_x: Tensor) -> Tensor:
        total = of_x * of_taps.narrow(-2, 0, 1)
        for lag in range(1, BLOCKS):
            met = of_x.narrow(-2, 0, BLOCKS - lag)
            total.narrow(-2, lag, BLOCKS - lag).addcmul_(met, of_taps.narrow(-2, lag, 1))
        return total

    def reversed_pairs(of_taps: Tensor, of_cotangent: Tensor) -> Tensor:
        conjugate = of_taps.conj_physical()
        total = of_cotangent * conjugate.narrow(-2, 0, 1)
        for lag in range(1, BLOCKS):
            met = of_cotangent.narrow(-2, lag, BLOCKS - lag)
            total.narrow(-2, 0, BLOCKS - lag).addcmul_(met, conjugate.narrow(-2, lag, 1))
        return total

    def tap_pairs(of_x: Tensor, of_cotangent: Tensor) -> Tensor:
        conjugate, sums = of_x.conj_physical_(), []
        for lag in range(BLOCKS):
            left, right = of_cotangent.narrow(-2, lag, BLOCKS - lag), conjugate.narrow(-2, 0, BLOCKS - lag)
            sums.append((left * right).sum(0).sum(-2))
        return torch.stack(sums, -2)

    def unturned(product: Tensor) -> Tensor:
        return ifft(product).mul_(turn.conj())

    def later(product: Tensor) -> Tensor:  # the upper half of a block's product belongs to the next block
        halves = unturned(product)
        out = halves.real.contiguous()
        out.narrow(-2, 1, BLOCKS - 1).add_(halves.imag.narrow(-2, 0, BLOCKS - 1))
        return out.flatten(-2)

    def earlier(product: Tensor) -> Tensor:  # negative lags belong to the block before, as minus the upper half
        halves = unturned(product)
        out = halves.real.contiguous()
        out.narrow(-2, 0, BLOCKS - 1).sub_(halves.imag.narrow(-2, 1, BLOCKS - 1))
        return out.flatten(-2)

    y = later(pairs(spectrum(taps), spectrum(x)))
    of_cotangent = spectrum(cotangent)
    dtaps = earlier(tap_pairs(spectrum(x), of_cotangent))
    return y, earlier(reversed_pairs(spectrum(taps), of_cotangent)), dtaps


STEPS: dict[str, Step] = {
    "torch.fft": partial(with_autograd, partial(by_transform, case=CASE)),
    "omniconv": partial(with_autograd, partial(convolve, causal=True)),
    "eleven channels at a time": partial(by_slices, channels=11, kept=False),
    "all channels at once, spectrum of x kept": partial(by_slices, channels=CHANNELS, kept=True),
    "complex transforms without padding": by_right_angles,
    f"{BLOCKS} blocks, complex transforms": by_blocks,
    "transforms alone": partial(transforms_alone, kept=False),
    "transforms alone, spectrum of x kept": partial(transforms_alone, kept=True),
}


@dataclass
class Row:
    """A way: milliseconds, and how many times as fast as the first way, in a new process and with memory kept."""

    way: str
    new_ms: float
    new_times: float
    kept_ms: float
    kept_times: float


def check() -> None:
    """Raise unless every whole step makes the results of float64."""
    operands = inputs(CASE, "cpu", SEED)
    expected = reference(CASE, operands)
    for name, step in STEPS.items():
        if name.startswith("transforms alone"):
            continue
        for result, made in zip(("y", "dx", "dtaps"), step(*operands), strict=True):
            error = float((made.double() - expected[result]).norm() / expected[result].norm())
            if not error < TOLERANCE:
                raise ArithmeticError(f"{name} differs from float64 by {error:.1e} in {result}")


def measure(most: int) -> list[tuple[float, float]]:
    """Milliseconds of every way, and how many times as fast as the first one it is, of so many rounds at most."""
    operands = inputs(CASE, "cpu", SEED)
    turns = [partial(step, *operands) for step in STEPS.values()]
    interleaved(turns, repeats=3, seconds=5.0)
    rounds: list[list[float]] = []
    stop = time.monotonic() + 60 * MINUTES
    while len(rounds) < most and (len(rounds) < 3 or time.monotonic() < stop):
        wait_until_quiet(stop)
        rounds.append([taken[0] for taken in interleaved(turns, repeats=1, seconds=1.0)])
    return [
        (1e3 * statistics.median(times), statistics.median(row[0] / row[i] for row in rounds))
        for i, times in enumerate(zip(*rounds, strict=True))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of long_kernel_step.md and .json")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds in which all ways take turns")
    options = parser.parse_args()
    new = measure(options.rounds)
    check()
    torch.empty(FREED, dtype=torch.uint8).fill_(0)
    kept = measure(options.rounds)
    rows = [Row(name, *first, *second) for name, first, second in zip(STEPS, new, kept, strict=True)]
    cells = [
        [row.way, f"{row.new_ms:.3g} ms", f"{row.new_times:.2f}", f"{row.kept_ms:.3g} ms", f"{row.kept_times:.2f}"]
        for row in rows
    ]
    about = provenance(SEED)
    print(table(HEAD, cells))
    page = markdown("A training step with a long kernel on a CPU", about, ABOUT, table(HEAD, cells))
    write(options.out, "long_kernel_step", page, {"about": about, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
