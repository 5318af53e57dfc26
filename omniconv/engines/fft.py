"""Products of spectra: the engine for long kernels."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._typing import Signal, Taps
from omniconv.engines._blocks import Block, beyond_cache, channel_blocks
from omniconv.engines._engine import Engine, Launch
from omniconv.engines._float32 import full_float32
from omniconv.engines._problem import Problem

BLOCK = 2**19
"""Samples of the frame that are worked on at a time on a CPU: two megabytes in float32, which stay in its cache."""
ROWS = 128
"""Frames that are worked on at a time at least, however long: fewer leave threads idle."""

SMALL = 2**17
"""Samples of all frames up to which memory comes from what was given back, whatever the order of asking for it."""

JOINT = 0.78
"""Share of the frame's rows that hold samples from which one transform of all axes is faster than one axis after the
other, which leaves out the rows of padding."""


BUTTERFLIES = {2: 1.0, 3: 1.8, 5: 1.6, 7: 1.6, 11: 2.0, 13: 2.0}
"""Time of a transform's butterflies per sample and power of two, by prime factor; for larger ones the framework has no
butterflies, and takes about five times as long.
"""
STEPS = 0.8
"""What a transform takes besides, such as reading and writing, in the same unit."""


def prepare(taps: Taps, problem: Problem) -> Tensor:
    """The taps' spectrum: `channels *frequencies`, or `frequencies in out` where the taps mix channels."""
    return arranged(spectrum(placed(taps, problem), problem), problem)


def run(x: Signal, spectrum_taps: Tensor, problem: Problem) -> Signal:
    """y = F^-1(F x * F taps), in a frame long enough that no output meets what wraps around."""
    start, slices = first_output(problem), slices_of(problem)
    if len(slices) == 1:
        return signal(mix(spectrum(x, problem), spectrum_taps, problem), start, problem)
    y = x.new_empty(problem.batch, problem.out_channels, *problem.size)
    for batch, channels in slices:
        product = mix(spectrum(x[batch, channels], problem), spectrum_taps[channels], problem)
        y[batch, channels] = signal(product, start, problem)
    return y


@lru_cache(maxsize=4096)
def lean(problem: Problem) -> bool:
    """Whether there is one zero axis, with a kernel per channel, and slices have the whole batch: then every step is a
    single transform or product, and what stands around them counts.
    """
    alone = problem.dim == 1 and problem.depthwise and not any(problem.circular)
    return alone and problem.device == "cpu" and all(batch == slice(None) for batch, _ in slices_of(problem))


def bound(problem: Problem) -> Launch | None:
    """The four transforms and products with their sizes at hand, where they are `lean`."""
    if not lean(problem):
        return None
    (n,), (start,), (size,), slices = frame(problem), first_output(problem), problem.size, slices_of(problem)
    rfft, irfft, contiguous = torch.fft.rfft, torch.fft.irfft, torch.contiguous_format

    def convolved(x: Signal, taps: Taps) -> Signal:
        return irfft(rfft(x, n).mul_(rfft(taps, n)), n).narrow(-1, start, size)

    if problem.batch * problem.in_channels * n <= SMALL:
        return lambda x, taps: convolved(x, taps).clone(memory_format=contiguous)

    def launch(x: Signal, taps: Taps) -> Signal:
        y = x.new_empty(x.shape)  # before the frames: behind them it would take new memory
        if len(slices) == 1:
            return y.copy_(convolved(x, taps))
        for _, channels in slices:
            y[:, channels] = convolved(x[:, channels], taps[channels])
        return y

    return launch


def lean_gradients(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """See `adjoint`: of some channels, where steps are `lean`."""
    (n,), (start,), dx, dtaps = frame(problem), first_output(problem), None, None
    of_grad = torch.fft.rfft(moved(grad, -1, start, n), n)
    if need_taps:
        total = torch.fft.rfft(x, n).conj_physical_().mul_(of_grad).sum(0)
        dtaps = torch.fft.irfft(total, n).narrow(-1, 0, taps.shape[-1])
    if need_x:
        conjugate = torch.fft.rfft(taps, n).conj_physical_()
        dx = torch.fft.irfft(of_grad.mul_(conjugate), n).narrow(-1, 0, x.shape[-1])
    return dx, dtaps


def lean_adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """See `adjoint`: some channels after the other, where steps are `lean`."""
    if len(slices_of(problem)) == 1:
        return lean_gradients(grad, x, taps, problem, need_x, need_taps)
    dx, dtaps = x.new_empty(x.shape) if need_x else None, taps.new_empty(taps.shape) if need_taps else None
    for _, channels in slices_of(problem):
        part = lean_gradients(grad[:, channels], x[:, channels], taps[channels], problem, need_x, need_taps)
        if dx is not None and part[0] is not None:
            dx[:, channels] = part[0]
        if dtaps is not None and part[1] is not None:
            dtaps[channels] = part[1]
    return dx, dtaps


def adjoint(
    grad: Signal, x: Signal, taps: Taps, problem: Problem, need_x: bool, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """With the cotangent at the place of the outputs in the frame, dx = F^-1(F grad * conj F taps) and
    dtaps = F^-1(sum over the batch of F grad * conj F x) stand where x and the taps do.

    The spectra are computed again rather than kept from the forward pass: they take four times the memory of x.
    """
    if lean(problem):
        return lean_adjoint(grad, x, taps, problem, need_x, need_taps)
    conjugate, slices = prepare(taps, problem).conj_physical_() if need_x else None, slices_of(problem)
    if len(slices) == 1:
        dx, total = gradients_of(grad, x, conjugate, problem, need_taps)
        return dx, None if total is None else pick(total, problem)
    dx = torch.empty_like(x, memory_format=torch.contiguous_format) if need_x else None
    shape = problem.in_channels, *half_frame(frame(problem))
    total = x.new_zeros(shape, dtype=x.dtype.to_complex()) if need_taps else None
    for batch, channels in slices:
        of_taps = None if conjugate is None else conjugate[channels]
        part = gradients_of(grad[batch, channels], x[batch, channels], of_taps, problem, need_taps)
        if dx is not None and part[0] is not None:
            dx[batch, channels] = part[0]
        if total is not None and part[1] is not None:
            total[channels] += part[1]
    return dx, None if total is None else pick(total, problem)


def slices_of(problem: Problem) -> tuple[Block, ...]:
    """The blocks: with the whole batch, so that the spectra of the channels' taps are read, and added up, in cache."""
    return channel_blocks(problem, math.prod(frame(problem)), BLOCK, fewest=ROWS)


def gradients_of(
    grad: Signal, x: Signal, conjugate: Tensor | None, problem: Problem, need_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Of some signals: dx, if the conjugate spectrum of the taps is given, and the spectrum of their share in dtaps."""
    spectrum_grad = spectrum(grad, problem, first_output(problem))
    share = correlate(spectrum_grad, spectrum(x, problem), problem) if need_taps else None
    if conjugate is None:
        return None, share
    backwards = conjugate if problem.depthwise else conjugate.transpose(1, 2)
    return signal(mix(spectrum_grad, backwards, problem), (0,) * problem.dim, problem), share


def arranged(spectrum_taps: Tensor, problem: Problem) -> Tensor:
    """Where the taps mix channels the frequencies come first, as in a list of matrices `in out`."""
    return spectrum_taps if problem.depthwise else spectrum_taps.flatten(2).permute(2, 1, 0).contiguous()


def mix(spectrum_x: Tensor, spectrum_taps: Tensor, problem: Problem) -> Tensor:
    """Products of spectra, summed over the input channels where the taps mix them; `spectrum_x` may be overwritten."""
    if problem.depthwise:
        return spectrum_x.mul_(spectrum_taps)
    matrices = spectrum_x.flatten(2).permute(2, 0, 1).contiguous()
    with full_float32(problem.device):
        products = torch.bmm(matrices, spectrum_taps)
    return products.permute(1, 2, 0).unflatten(2, spectrum_x.shape[2:])


def correlate(spectrum_grad: Tensor, spectrum_x: Tensor, problem: Problem) -> Tensor:
    """The adjoint of `mix` in the taps; `spectrum_x` may be overwritten."""
    # Conjugated in memory: the framework's lazy conjugation is lost when a compiled graph calls the operator.
    conjugate = spectrum_x.conj_physical_()
    if problem.depthwise:
        return conjugate.mul_(spectrum_grad).sum(0)
    left = spectrum_grad.flatten(2).permute(2, 1, 0).contiguous()
    right = conjugate.flatten(2).permute(2, 0, 1).contiguous()
    with full_float32(problem.device):
        products = torch.bmm(left, right)
    return products.permute(1, 2, 0).unflatten(2, spectrum_x.shape[2:])


def spectrum(x: Tensor, problem: Problem, start: tuple[int, ...] | None = None) -> Tensor:
    """Half spectrum of a real tensor, zero-padded to the frame, in which it begins at `start`: None is its corner."""
    n = frame(problem)
    starts = start or (0,) * problem.dim
    if problem.dim == 1:
        return torch.fft.rfft(moved(x, -1, starts[0], n[0]), n=n[0])
    if joint(problem):
        for axis, first, length in zip(problem.axes, starts, n, strict=True):
            x = moved(x, axis, first, length)
        return torch.fft.rfftn(x, s=n, dim=problem.axes)
    # Axis by axis, the last first: rows that would be padding are not transformed.
    transformed = torch.fft.rfft(moved(x, -1, starts[-1], n[-1]), n=n[-1], dim=-1)
    for axis, first, length in reversed(list(zip(problem.axes[:-1], starts[:-1], n[:-1], strict=True))):
        transformed = torch.fft.fft(moved(transformed, axis, first, length), n=length, dim=axis)
    return transformed


def moved(x: Tensor, axis: int, start: int, length: int) -> Tensor:
    """The tensor between zeros that make the axis so long and put its first sample to `start`; at 0 as it is, for
    transforms pad at the end by themselves.
    """
    return F.pad(x, [0, 0] * (-axis - 1) + [start, length - start - x.shape[axis]]) if start else x


def signal(transformed: Tensor, start: tuple[int, ...], problem: Problem) -> Signal:
    """`size` samples of the frame from `start`."""
    n = frame(problem)
    # The inverse real transform needs the frame: whether a length was odd is lost in the half spectrum.
    if joint(problem):
        x = torch.fft.irfftn(transformed, s=n, dim=problem.axes)
        for axis, first, size in zip(problem.axes, start, problem.size, strict=True):
            x = x.narrow(axis, first, size)
        return x
    for axis, first, size in zip(problem.axes[:-1], start[:-1], problem.size[:-1], strict=True):
        transformed = torch.fft.ifft(transformed, dim=axis).narrow(axis, first, size)
    return torch.fft.irfft(transformed, n=n[-1], dim=-1).narrow(-1, start[-1], problem.size[-1])


@lru_cache(maxsize=4096)
def joint(problem: Problem) -> bool:
    """Whether all axes are transformed at once."""
    return problem.dim > 1 and math.prod(problem.size[:-1]) >= JOINT * math.prod(frame(problem)[:-1])


def placed(taps: Taps, problem: Problem) -> Tensor:
    """The taps; on a circular axis they fill the frame, the zero lag at index 0 and negative lags at the end."""
    padding, shifts, axes = turns(problem)
    taps = F.pad(taps, padding) if any(padding) else taps
    return torch.roll(taps, [-shift for shift in shifts], axes) if axes else taps


@lru_cache(maxsize=4096)
def turns(problem: Problem) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """What `placed` adds to the axes, the last first, and by how many samples it turns which of them."""
    sizes = zip(problem.size, problem.kernel_size, problem.circular, strict=True)
    added = [n - k if circular else 0 for n, k, circular in sizes]
    places = zip(problem.axes, problem.origin, problem.circular, strict=True)
    turned = tuple(axis for axis, first, circular in places if circular and first)
    padding = tuple(side for more in reversed(added) for side in (0, more))
    return padding, tuple(problem.origin[axis] for axis in turned), turned


@lru_cache(maxsize=4096)
def first_output(problem: Problem) -> tuple[int, ...]:
    """Where in the frame the outputs begin: on a zero axis the taps stay at their indices, which delays by `origin`."""
    return tuple(0 if circular else first for first, circular in zip(problem.origin, problem.circular, strict=True))


def pick(total: Tensor, problem: Problem) -> Taps:
    """The taps out of the spectrum of a frame in which they are `placed`."""
    n = frame(problem)
    framed = torch.fft.irfft(total, n=n[0]) if problem.dim == 1 else torch.fft.irfftn(total, s=n, dim=problem.axes)
    _, shifts, axes = turns(problem)
    framed = torch.roll(framed, shifts, axes) if axes else framed
    for axis, k in zip(problem.axes, problem.kernel_size, strict=True):
        framed = framed.narrow(axis, 0, k)
    return framed


@lru_cache(maxsize=4096)
def frame(problem: Problem) -> tuple[int, ...]:
    """Length of the transform per axis: the period of a circular axis, else room for the farthest lag."""
    axes = zip(problem.size, problem.kernel_size, problem.origin, problem.circular, strict=True)
    return tuple(n if circular else fast_length(n + max(o, k - 1 - o)) for n, k, o, circular in axes)


@lru_cache(maxsize=4096)
def fast_length(n: int) -> int:
    """The even number of at least `n`, with prime factors of at most 7, whose transform takes the least time.

    The smallest is often slower than a larger one, as 2,000 is than 2,048.
    """
    return min(smooth_numbers(n), key=lambda m: m * (levels(m) + STEPS))


def smooth_numbers(n: int) -> list[int]:
    """For each product of powers of 3, 5 and 7 below 2n, the smallest even multiple by a power of two from `n` on."""
    odd = [1]
    for prime in (3, 5, 7):
        odd = [m * prime**power for m in odd for power in range(n.bit_length() + 1) if m * prime**power < 2 * n]
    return [m << max(1, (-(-n // m) - 1).bit_length()) for m in odd]


def reject(problem: Problem) -> str | None:
    """Never."""
    return None


def work(problem: Problem) -> tuple[float, ...]:
    """See `transforms`: every signal in and out, and the taps."""
    signals = problem.batch * (problem.in_channels + problem.out_channels)
    return transforms(problem, signals, kernels(problem), (problem.in_channels,))


def adjoint_work(problem: Problem, need_x: bool, need_taps: bool) -> tuple[float, ...]:
    """See `transforms`: cotangent, signal and taps again, then the gradients back."""
    signals = problem.batch * (problem.out_channels + problem.in_channels * (need_x + need_taps))
    terms = (*((problem.out_channels,) if need_x else ()), *((problem.batch,) if need_taps else ()))
    return transforms(problem, signals, kernels(problem) * (need_x + need_taps), terms)


def transforms(problem: Problem, signals: int, placed: int, summed: tuple[int, ...]) -> tuple[float, ...]:
    """Units of work: calls, butterflies, samples of strided transforms, samples of the frames and those beyond the
    cache; and where the taps mix channels, products of matrices, elements that the products touch, and multiplications.

    `signals`, `placed`: numbers of transforms, of signals and of kernels. `summed`: per product of spectra, the terms
    of its sums, of which there is one at each frequency.
    """
    n = frame(problem)
    calls = len(slices_of(problem))
    taken = problem.size if not joint(problem) else n
    butterflies = placed * transform(problem.kernel_size, n)[0] + signals * transform(taken, n)[0]
    strided = placed * transform(problem.kernel_size, n)[1] + signals * transform(taken, n)[1]
    samples = float((signals + placed) * math.prod(n))
    work = 1.0, calls - 1.0, butterflies, strided, samples, beyond_cache(problem, samples)
    if problem.depthwise:
        return work
    elements = problem.batch * (problem.in_channels + problem.out_channels) + kernels(problem)
    products = len(summed) * frequencies(n)
    return *work, products, products * elements, frequencies(n) * problem.pairs * len(summed)


def kernels(problem: Problem) -> int:
    """Number of kernels."""
    return problem.out_channels * (1 if problem.depthwise else problem.in_channels)


def frequencies(n: tuple[int, ...]) -> int:
    """Number of frequencies in the half spectrum of a frame."""
    return math.prod(half_frame(n))


def half_frame(n: tuple[int, ...]) -> tuple[int, ...]:
    """Size of the half spectrum of a frame."""
    return *n[:-1], n[-1] // 2 + 1


def transform(size: tuple[int, ...], n: tuple[int, ...]) -> tuple[float, float]:
    """Butterflies, and samples of the transforms along other axes than the last, that take an array of `size` to the
    frame `n` or back. Rows that hold only padding are left out; a real transform takes half as long if its length is
    even.
    """
    butterflies = math.prod(size[:-1]) * n[-1] * levels(n[-1]) / (1 if n[-1] % 2 else 2)
    strided = 0.0
    for axis, length in enumerate(n[:-1]):
        points = math.prod(size[:axis]) * frequencies(n[axis:])
        butterflies += points * levels(length)
        strided += points
    return butterflies, strided


@lru_cache(maxsize=4096)
def levels(n: int) -> float:
    """log2 of n, where a prime factor counts by what its butterflies take beside those of 2."""
    weighed = 0.0
    for prime, factor in BUTTERFLIES.items():
        while n % prime == 0:
            n //= prime
            weighed += math.log2(prime) * factor
    return weighed + 5 * math.log2(n)


FFT = Engine("fft", run, adjoint, reject, work, adjoint_work, prepare=prepare, bound=bound)
