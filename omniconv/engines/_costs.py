"""Predicted times of the engines on a CPU: seconds per unit of work, times the units of work in a problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from omniconv.engines._problem import Problem

LANES = 16
"""Channels that the framework's kernels work on at a time: fewer cost as much."""


@dataclass(frozen=True)
class Rates:
    """What one pass of an engine takes: the forward pass, or both gradients.

    `call`: seconds of a call with nothing to do. `units`: seconds per unit of each kind of work, in the order of the
    functions that count it. `double`: how many times longer the work takes in float64.
    """

    call: float
    units: tuple[float, ...]
    double: float

    def seconds(self, work: tuple[float, ...], dtype: torch.dtype) -> float:
        """The time of that much work."""
        busy = sum(rate * amount for rate, amount in zip(self.units, work, strict=True))
        return self.call + busy * (self.double if dtype == torch.float64 else 1.0)


# By whether the problem is depthwise, and its number of axes: the forward pass, both gradients.
# Fitted by benchmarks/engine_costs.py on 2026-11-20 (AMD EPYC, family 26, model 2; two threads; torch 2.13.0), whose
# report is docs/results/engine_costs.md. Other processors share the ratios between the engines more than the seconds.
DIRECT = {
    (True, 1): (Rates(0.000163, (1.59e-10, 9.58e-12), 5.92), Rates(0.000288, (5.99e-10, 3.33e-11, 1.52e-10), 2.35)),
    (True, 2): (Rates(0.000174, (1.65e-10, 6.03e-12), 12.4), Rates(0.000294, (4.2e-10, 1.76e-11, 2.56e-10), 1.53)),
    (True, 3): (Rates(0.000177, (2.31e-10, 6.28e-12), 5.93), Rates(0.000273, (2.64e-10, 2.66e-10, 3.08e-10), 1.0)),
    (False, 1): (
        Rates(0.000153, (6.51e-11, 4.36e-12, 5.01e-12), 2.79),
        Rates(0.000216, (7.18e-10, 2.37e-12, 9.03e-10), 1.38),
    ),
    (False, 2): (
        Rates(0.000143, (1.13e-10, 4.6e-12, 0.0), 7.42),
        Rates(0.000282, (1.21e-10, 5.75e-12, 4.54e-10), 6.25),
    ),
    (False, 3): (Rates(0.000176, (2.13e-10, 4.26e-12, 0.0), 5.17), Rates(0.000366, (2.03e-11, 4.94e-12, 0.0), 6.74)),
}
FFT = {
    (True, 1): (Rates(0.000132, (7.41e-11, 0.0, 2.93e-10), 1.49), Rates(0.000232, (8.96e-11, 0.0, 2.18e-10), 1.86)),
    (True, 2): (
        Rates(0.000164, (8.27e-11, 4.16e-10, 1.22e-10), 1.59),
        Rates(0.000284, (9.85e-11, 6.23e-10, 0.0), 1.87),
    ),
    (True, 3): (Rates(0.000202, (7.85e-11, 4.99e-10, 0.0), 1.61), Rates(0.000341, (8.68e-11, 8.56e-10, 0.0), 1.89)),
    (False, 1): (
        Rates(0.00015, (5.14e-11, 0.0, 0.0, 2.22e-06, 2.78e-09), 1.12),
        Rates(0.000233, (3.5e-11, 0.0, 0.0, 2.75e-06, 3.01e-09), 1.06),
    ),
    (False, 2): (
        Rates(0.000161, (0.0, 1.65e-09, 8.73e-10, 0.0, 4.59e-10), 1.48),
        Rates(0.000271, (2.93e-11, 1.22e-09, 4.7e-10, 0.0, 1.33e-09), 1.6),
    ),
    (False, 3): (
        Rates(0.00024, (0.0, 1.22e-09, 0.0, 0.0, 1.49e-09), 1.65),
        Rates(0.000424, (0.0, 7.28e-10, 2.34e-10, 0.0, 3.28e-09), 1.43),
    ),
}


def direct_seconds(problem: Problem) -> float:
    """Predicted seconds of the direct engine's convolution."""
    return DIRECT[problem.depthwise, problem.dim][0].seconds(direct_forward(problem), problem.dtype)


def direct_adjoint_seconds(problem: Problem) -> float:
    """Predicted seconds of the direct engine's gradients."""
    return DIRECT[problem.depthwise, problem.dim][1].seconds(direct_backward(problem), problem.dtype)


def fft_seconds(problem: Problem, frame: tuple[int, ...]) -> float:
    """Predicted seconds of the FFT engine's convolution, its transforms of length `frame`."""
    return FFT[problem.depthwise, problem.dim][0].seconds(fft_forward(problem, frame), problem.dtype)


def fft_adjoint_seconds(problem: Problem, frame: tuple[int, ...]) -> float:
    """Predicted seconds of the FFT engine's gradients."""
    return FFT[problem.depthwise, problem.dim][1].seconds(fft_backward(problem, frame), problem.dtype)


def direct_forward(problem: Problem) -> tuple[float, ...]:
    """Units of work: samples moved, multiplications, and multiplications of long dense kernels.

    Depthwise kernels of any size stay on the framework's fast path: it ends at 13 taps per axis where the framework is
    asked to pad, but the engine extends the signal itself. Dense kernels on one axis leave it beyond 32 taps.
    """
    multiplied = problem.positions * problem.tap_count * problem.batch * padded(problem.out_channels)
    if problem.depthwise:
        return samples(problem), multiplied
    multiplied *= problem.in_channels
    return samples(problem), multiplied, multiplied if problem.dim == 1 and problem.kernel_size[-1] > 32 else 0


def direct_backward(problem: Problem) -> tuple[float, ...]:
    """Units of work: samples moved, multiplications, and those that leave the framework's fast path.

    Depthwise gradients leave it beyond three taps along the last axis (on three axes beyond one). Dense ones on lines
    and images leave it beyond 13 taps, where the framework copies the signal once per tap.
    """
    inputs, outputs, last = problem.in_channels, problem.out_channels, problem.kernel_size[-1]
    pairs = problem.positions * problem.tap_count * problem.batch
    if problem.depthwise:
        slow = last > (3 if problem.dim < 3 else 1)
        return samples(problem), pairs * padded(inputs), pairs * inputs if slow else 0
    # The gradient of the signal has the inputs in the lanes; for that of the taps they are rounded up to eight, but for
    # images of up to three channels the framework has a path of its own.
    lanes = padded(inputs) + (inputs if inputs <= 3 else padded(inputs, 8))
    copies = pairs * inputs if problem.dim < 3 and last > 13 else 0
    return samples(problem), pairs * padded(outputs) * lanes, copies


def samples(problem: Problem) -> int:
    """Samples that the direct engine reads, with the margins, and writes."""
    extended = math.prod(n + k - 1 for n, k in zip(problem.size, problem.kernel_size, strict=True))
    return problem.batch * (problem.in_channels * extended + problem.out_channels * problem.positions)


def padded(channels: int, lanes: int = LANES) -> int:
    """The next multiple of `lanes`."""
    return -(-channels // lanes) * lanes


def fft_forward(problem: Problem, frame: tuple[int, ...]) -> tuple[float, ...]:
    """Units of work: see `fft_work`. One transform of every signal in and out, and one of the taps."""
    signals = problem.batch * (problem.in_channels + problem.out_channels)
    return fft_work(problem, frame, signals, kernels(problem), (problem.in_channels,))


def fft_backward(problem: Problem, frame: tuple[int, ...]) -> tuple[float, ...]:
    """Units of work: see `fft_work`. Signal, cotangent and taps are transformed again, then both gradients back."""
    signals = problem.batch * (2 * problem.in_channels + problem.out_channels)
    return fft_work(problem, frame, signals, 2 * kernels(problem), (problem.out_channels, problem.batch))


def fft_work(
    problem: Problem, frame: tuple[int, ...], signals: int, placed: int, summed: tuple[int, ...]
) -> tuple[float, ...]:
    """Units of work: butterflies, samples of strided transforms, samples of framed taps; and where the taps mix
    channels, products of matrices that are not batched, and elements that the products touch.

    `signals`, `placed`: numbers of transforms. `summed`: per product of spectra, the terms of its sums, of which there
    is one at each frequency. With a single term the product is elementwise, and costs no more than without mixing.
    """
    butterflies = placed * transform(frame, frame)[0] + signals * transform(problem.size, frame)[0]
    strided = placed * transform(frame, frame)[1] + signals * transform(problem.size, frame)[1]
    work = butterflies, strided, placed * math.prod(frame)
    if problem.depthwise:
        return work
    products = sum(terms > 1 for terms in summed) * frequencies(frame)
    # On one axis the framework loops over the matrices, unless they have few elements to multiply.
    looped = problem.dim == 1 and problem.batch * kernels(problem) >= 400
    elements = problem.batch * (problem.in_channels + problem.out_channels) + kernels(problem)
    return *work, products if looped else 0, products * elements


def kernels(problem: Problem) -> int:
    """Number of kernels."""
    return problem.out_channels * (1 if problem.depthwise else problem.in_channels)


def frequencies(frame: tuple[int, ...]) -> int:
    """Size of the half spectrum."""
    return math.prod(frame[:-1]) * (frame[-1] // 2 + 1)


def transform(size: tuple[int, ...], frame: tuple[int, ...]) -> tuple[float, float]:
    """Butterflies, and samples of the transforms along other axes than the last, that take an array of `size` to the
    frame or back. Rows that hold only padding are left out; a real transform takes half as long if its length is even.
    """
    butterflies = math.prod(size[:-1]) * frame[-1] * levels(frame[-1]) / (1 if frame[-1] % 2 else 2)
    strided = 0.0
    for axis, n in enumerate(frame[:-1]):
        points = math.prod(size[:axis]) * frequencies(frame[axis:])
        butterflies += points * levels(n)
        strided += points
    return butterflies, strided


def levels(n: int) -> float:
    """log2 of n, where a prime factor counts by what its butterflies take: odd ones double, those beyond 13, for which
    the framework's transform has no butterflies, five times.
    """
    weighed = 0.0
    for prime in (2, 3, 5, 7, 11, 13):
        while n % prime == 0:
            n //= prime
            weighed += math.log2(prime) * (1 if prime == 2 else 2)
    return weighed + 5 * math.log2(n)
