"""Products of spectra: the engine for long kernels."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines import _costs
from omniconv.engines._engine import Engine
from omniconv.engines._problem import Problem

BLOCK = 2**19
"""Samples of the frame that are worked on at a time on a CPU: two megabytes in float32, which stay in its cache."""


def run(x: Signal, taps: Taps, problem: Problem) -> Signal:
    """y = F^-1(F x * F taps), in a frame long enough that nothing wraps around on a zero axis."""
    y = x.new_empty(problem.batch, problem.out_channels, *problem.size)
    spectrum_taps = spectrum(place(taps, problem), problem)
    for block in blocks(problem):
        y[block] = signal(mix(spectrum(x[block], problem), spectrum_taps, problem), problem)
    return y


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dx = F^-1(F grad * conj F taps);  dtaps = F^-1(sum over the batch of F grad * conj F x), at the lags of the taps.

    The spectra are computed again rather than kept from the forward pass: they take four times the memory of x.
    """
    dx = torch.empty_like(x) if need_x else None
    spectrum_taps = spectrum(place(taps, problem), problem).conj_physical() if need_x else None
    spectrum_dtaps: Tensor | None = None
    for block in blocks(problem):
        spectrum_grad = spectrum(grad[block], problem)
        if dx is not None and spectrum_taps is not None:
            dx[block] = signal(mix_back(spectrum_grad, spectrum_taps, problem), problem)
        if need_taps:
            product = correlate(spectrum_grad, spectrum(x[block], problem), problem)
            spectrum_dtaps = product if spectrum_dtaps is None else spectrum_dtaps + product
    if spectrum_dtaps is None:
        return dx, None
    return dx, pick(torch.fft.irfftn(spectrum_dtaps, s=frame(problem), dim=problem.axes), problem)


def blocks(problem: Problem) -> list[slice]:
    """The batch in slices that stay in cache; whole where the taps mix channels, or where there is no such cache."""
    if not problem.depthwise or problem.device != "cpu":
        return [slice(None)]
    step = max(1, BLOCK // (problem.in_channels * math.prod(frame(problem))))
    return [slice(start, start + step) for start in range(0, problem.batch, step)]


def mix(spectrum_x: Tensor, spectrum_taps: Tensor, problem: Problem) -> Tensor:
    """Products of spectra, summed over the input channels where the taps mix them."""
    return (
        spectrum_x * spectrum_taps
        if problem.depthwise
        else torch.einsum("bc...,oc...->bo...", spectrum_x, spectrum_taps)
    )


def mix_back(spectrum_grad: Tensor, spectrum_taps: Tensor, problem: Problem) -> Tensor:
    """The transpose of `mix` in x; the caller conjugates the taps."""
    if problem.depthwise:
        return spectrum_grad * spectrum_taps
    return torch.einsum("bo...,oc...->bc...", spectrum_grad, spectrum_taps)


def correlate(spectrum_grad: Tensor, spectrum_x: Tensor, problem: Problem) -> Tensor:
    """The adjoint of `mix` in the taps."""
    # Conjugated in memory: the framework's lazy conjugation is lost when a compiled graph calls the operator.
    conjugate = spectrum_x.conj_physical()
    if problem.depthwise:
        return (spectrum_grad * conjugate).sum(0)
    return torch.einsum("bo...,bc...->oc...", spectrum_grad, conjugate)


def spectrum(x: Tensor, problem: Problem) -> Tensor:
    """Half spectrum of a real tensor, zero-padded to the frame."""
    # Axis by axis, the last first: rows that would be padding are not transformed.
    *others, last = zip(problem.axes, frame(problem), strict=True)
    transformed = torch.fft.rfft(x, n=last[1], dim=last[0])
    for axis, n in reversed(others):
        transformed = torch.fft.fft(transformed, n=n, dim=axis)
    return transformed


def signal(transformed: Tensor, problem: Problem) -> Signal:
    """The first `size` samples of the frame."""
    *others, last = zip(problem.axes, frame(problem), problem.size, strict=True)
    for axis, _, size in others:
        transformed = torch.fft.ifft(transformed, dim=axis).narrow(axis, 0, size)
    # irfft needs the frame: whether a length was odd is lost in the half spectrum.
    return torch.fft.irfft(transformed, n=last[1], dim=last[0]).narrow(last[0], 0, last[2])


def place(taps: Taps, problem: Problem) -> Tensor:
    """Taps in the frame with the zero lag at index 0 and negative lags at the end."""
    n = frame(problem)
    framed = taps.new_zeros(*taps.shape[: -problem.dim], *n)
    corner(framed, problem).copy_(taps)
    return torch.roll(framed, [-o for o in problem.origin], problem.axes)


def pick(framed: Tensor, problem: Problem) -> Taps:
    """The adjoint of `place`: the taps' lags out of the frame."""
    return corner(torch.roll(framed, problem.origin, problem.axes), problem)


def corner(framed: Tensor, problem: Problem) -> Taps:
    """The first `kernel_size` places of the frame: a view."""
    for axis, k in zip(problem.axes, problem.kernel_size, strict=True):
        framed = framed.narrow(axis, 0, k)
    return framed


def frame(problem: Problem) -> tuple[int, ...]:
    """Length of the transform per axis: the period of a circular axis, else room for the farthest lag."""
    axes = zip(problem.size, problem.kernel_size, problem.origin, problem.circular, strict=True)
    return tuple(n if circular else fast_length(n + max(o, k - 1 - o)) for n, k, o, circular in axes)


@lru_cache(maxsize=4096)
def fast_length(n: int) -> int:
    """Smallest even number of at least `n` whose prime factors are at most 7."""
    candidate = n + n % 2
    while not is_smooth(candidate):
        candidate += 2
    return candidate


def is_smooth(n: int) -> bool:
    """Whether 2, 3, 5 and 7 are the only prime factors of `n`."""
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n == 1


def reject(problem: Problem) -> str | None:
    """Never."""
    return None


def cost(problem: Problem) -> float:
    """Transforms and products over the measured rates."""
    return _costs.fft_seconds(problem, frame(problem))


def adjoint_cost(problem: Problem, need_x: bool, need_taps: bool) -> float:
    """As for `cost`, whichever gradients are needed."""
    return _costs.fft_adjoint_seconds(problem, frame(problem))


FFT = Engine("fft", run, adjoint, reject, cost, adjoint_cost)
