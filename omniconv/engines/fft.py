"""Products of spectra: the engine for long kernels."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines import _costs
from omniconv.engines._engine import Engine
from omniconv.engines._problem import Problem


def run(x: Signal, taps: Taps, problem: Problem) -> Signal:
    """y = F^-1(F x * F taps), in a frame long enough that nothing wraps around on a zero axis."""
    mix = "bc...,c...->bc..." if problem.depthwise else "bc...,oc...->bo..."
    return signal(torch.einsum(mix, spectrum(x, problem), spectrum(place(taps, problem), problem)), problem)


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dx = F^-1(F grad * conj F taps);  dtaps = F^-1(sum over the batch of F grad * conj F x), at the lags of the taps.

    The spectra are computed again rather than kept from the forward pass: they take four times the memory of x.
    """
    dx = dtaps = None
    spectrum_grad = spectrum(grad, problem)
    if need_x:
        mix = "bc...,c...->bc..." if problem.depthwise else "bo...,oc...->bc..."
        dx = signal(torch.einsum(mix, spectrum_grad, spectrum(place(taps, problem), problem).conj()), problem)
    if need_taps:
        mix = "bc...,bc...->c..." if problem.depthwise else "bo...,bc...->oc..."
        product = torch.einsum(mix, spectrum_grad, spectrum(x, problem).conj())
        dtaps = pick(torch.fft.irfftn(product, s=frame(problem), dim=problem.axes), problem)
    return dx, dtaps


def spectrum(x: Tensor, problem: Problem) -> Tensor:
    """Half spectrum of a real tensor, zero-padded to the frame."""
    return torch.fft.rfftn(x, s=frame(problem), dim=problem.axes)


def signal(spectrum: Tensor, problem: Problem) -> Signal:
    """The first `size` samples of the frame."""
    # irfftn needs the frame: whether a length was odd is lost in the half spectrum.
    y = torch.fft.irfftn(spectrum, s=frame(problem), dim=problem.axes)
    for axis, n in zip(problem.axes, problem.size, strict=True):
        y = y.narrow(axis, 0, n)
    return y


def place(taps: Taps, problem: Problem) -> Tensor:
    """Taps in the frame with the zero lag at index 0 and negative lags at the end."""
    n = frame(problem)
    framed = taps.new_zeros(*taps.shape[: -problem.dim], *n)
    framed[(..., *map(slice, problem.kernel_size))] = taps
    return torch.roll(framed, [-o for o in problem.origin], problem.axes)


def pick(framed: Tensor, problem: Problem) -> Taps:
    """The adjoint of `place`: the taps' lags out of the frame."""
    return torch.roll(framed, problem.origin, problem.axes)[(..., *map(slice, problem.kernel_size))]


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


FFT = Engine("fft", run, adjoint, reject, cost)
