"""Who is timed: the automatic choice, every engine by its name, and what people use instead, all from the same inputs.

Inputs are the signal and the taps in the order of lags, as a continuous kernel gives them. What a peer needs besides,
such as padding, reversed taps, another precision, is part of its time.
"""

from __future__ import annotations

import importlib
import math
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._errors import EngineError
from omniconv._precision import HALF
from omniconv._typing import Signal, Taps
from omniconv.bench.cases import Case
from omniconv.engines import ENGINES, convolve, select_engine

PRODUCTS = {"cpu": 3e9, "cuda": 2e11}
"""Most products for which depthwise sums over the taps are timed: beyond, one run takes many seconds."""
DENSE = 10
"""How many times more where the taps mix channels: those sums are products of matrices."""

CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Contestant:
    """A way to convolve.

    `convolve(x, taps, case)`: the result, differentiable in both. `reject(case, device)`: None if it can, else the
    reason. `ours`: whether an error beyond the tolerance ends the benchmark.
    """

    name: str
    convolve: Callable[[Signal, Taps, Case], Signal]
    reject: Callable[[Case, str], str | None]
    ours: bool = False


def entrants(*, compiled: bool = False) -> list[Contestant]:
    """All of them: ours first, "auto" before the engines; `compiled` adds torch.compile, which builds for long."""
    ours = [engine(name) for name in ("auto", *ENGINES) if name != "reference"]
    peers = [
        Contestant("F.conv", correlation, reject_sums),
        Contestant("torch.fft", by_transform, never),
        *([Contestant("torch.compile(torch.fft)", compiled_transform, never)] if compiled else []),
        Contestant("FlashFFTConv", flash, reject_flash),
        Contestant("nvSubquadratic", subquadratic, reject_subquadratic),
    ]
    return [*ours, *peers]


AXES = {dim: tuple(range(-dim, 0)) for dim in (1, 2, 3)}


def never(case: Case, device: str) -> str | None:
    """None: it can do every case."""
    return None


def engine(name: str) -> Contestant:
    """An engine of this library by its name, or "auto"."""

    def run(x: Signal, taps: Taps, case: Case) -> Signal:
        return convolve(x, taps, causal=case.causal, boundary=case.boundary, engine=name)

    def reject(case: Case, device: str) -> str | None:
        try:
            select_engine(case.problem(device), name)
        except EngineError as error:
            return str(error)
        return reject_sums(case, device) if name == "direct" else None

    return Contestant(name, run, reject, ours=True)


def reject_sums(case: Case, device: str) -> str | None:
    """A reason if the sum over the taps would take far too long."""
    limit = PRODUCTS[device] * (1 if case.out is None else DENSE)
    return f"{case.products:.1e} products, more than {limit:.0e}" if case.products > limit else None


def correlation(x: Signal, taps: Taps, case: Case) -> Signal:
    """`torch.nn.functional.conv1d` and its kin, the taps reversed because they correlate."""
    dim = len(case.size)
    weight = (taps[:, None] if case.out is None else taps).flip(AXES[dim]).to(x.dtype)
    groups, (around, padding) = case.channels if case.out is None else 1, edges(case)
    if isinstance(padding, int):
        return CONV[dim](x, weight, padding=padding, groups=groups)
    return CONV[dim](F.pad(x, padding, mode="circular" if around else "constant"), weight, groups=groups)


@lru_cache(maxsize=1024)
def edges(case: Case) -> tuple[bool, int | list[int]]:
    """Whether the signal is circular, and the samples to add: a number where all sides get as many zeros."""
    margins = [(k - 1 - o, o) for k, o in zip(case.kernel, case.origin, strict=True)]
    sides = [side for pair in reversed(margins) for side in pair]
    around = case.boundary == "circular"
    return around, sides[0] if len(set(sides)) == 1 and not around else sides


def by_transform(x: Signal, taps: Taps, case: Case) -> Signal:
    """`torch.fft` as research code has it: frames of a power of two, products of spectra, autograd through them.

    A circular axis takes its period. float16 and bfloat16 are computed in float32.
    """
    frame = frames(case)
    work = torch.float32 if x.dtype in HALF else x.dtype
    spectrum_x, spectrum_taps = spectrum(x.to(work), frame), spectrum(taps.to(work), frame)
    product = (
        spectrum_x * spectrum_taps
        if case.out is None
        else torch.einsum("bi...,oi...->bo...", spectrum_x, spectrum_taps)
    )
    axes = AXES[len(frame)]
    y = torch.fft.irfft(product, n=frame[0]) if len(frame) == 1 else torch.fft.irfftn(product, s=frame, dim=axes)
    if case.boundary == "circular":
        return torch.roll(y, [-o for o in case.origin], axes).to(x.dtype)
    for axis, n, o in zip(axes, case.size, case.origin, strict=True):
        y = y.narrow(axis, o, n)
    return y.to(x.dtype)


def spectrum(x: Tensor, frame: tuple[int, ...]) -> Tensor:
    """The half spectrum in a frame."""
    if len(frame) == 1:
        return torch.fft.rfft(x, n=frame[0])
    return torch.fft.rfftn(x, s=frame, dim=AXES[len(frame)])


@lru_cache(maxsize=1024)
def frames(case: Case) -> tuple[int, ...]:
    """The period of circular axes, the next power of two of others."""
    if case.boundary == "circular":
        return case.size
    return tuple(power_of_two(n + k - 1) for n, k in zip(case.size, case.kernel, strict=True))


def power_of_two(n: int) -> int:
    """The smallest power of two of at least n."""
    return 1 << (n - 1).bit_length()


def compiled_transform(x: Signal, taps: Taps, case: Case) -> Signal:
    """`by_transform` under torch.compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that complex numbers are not compiled
        return compiled_for(case)(x, taps, case)


@lru_cache(maxsize=1024)
def compiled_for(case: Case) -> Callable[[Signal, Taps, Case], Signal]:
    """`by_transform` compiled for a case alone."""
    # The compiler counts what it has compiled per code object, and gives up after eight.
    code = by_transform.__code__.replace()
    return torch.compile(types.FunctionType(code, by_transform.__globals__), dynamic=False)


def flash(x: Signal, taps: Taps, case: Case) -> Signal:
    """FlashFFTConv in a frame of twice the length, taps padded to it."""
    length = case.size[0]
    return flash_module(2 * length, x.dtype)(x, F.pad(taps, (0, length - taps.shape[-1])))


@lru_cache(maxsize=8)
def flash_module(frame: int, dtype: torch.dtype) -> Any:
    """Its module with the tables of a frame."""
    return importlib.import_module("flashfftconv").FlashFFTConv(frame, dtype=dtype).to("cuda")


def reject_flash(case: Case, device: str) -> str | None:
    """It knows lengths that are a power of two, and channels by sixteen."""
    if (reason := reject_peer(case, device, "flashfftconv")) is not None:
        return reason
    length = case.size[0]
    if length != power_of_two(length) or case.kernel[0] > length or case.channels % 16:
        return "lengths that are a power of two, kernels no longer, and channels by sixteen only"
    return None


def subquadratic(x: Signal, taps: Taps, case: Case) -> Signal:
    """The CUDA kernels behind nvSubquadratic, whose taps are in the order of lags and of the dtype of x."""
    kernels = importlib.import_module("subquadratic_ops_torch.fft_causal_conv1d")
    y: Tensor = kernels.fft_causal_conv1d(x, taps.to(x.dtype))
    return y


def reject_subquadratic(case: Case, device: str) -> str | None:
    """It knows what `reject_peer` asks."""
    return reject_peer(case, device, "subquadratic_ops_torch.fft_causal_conv1d")


def reject_peer(case: Case, device: str, module: str) -> str | None:
    """A reason unless the peer is here and the case is a causal depthwise sequence in half precision on CUDA."""
    able = device == "cuda" and case.causal and case.out is None and len(case.size) == 1 and case.dtype in HALF
    if not able:
        return "causal depthwise sequences of float16 or bfloat16 on CUDA only"
    return None if importable(module) else f"the package {module.split('.')[0]} is not installed"


@lru_cache
def importable(module: str) -> bool:
    """Whether the module can be imported: what is built for another driver or version of torch can fail in any way."""
    try:
        importlib.import_module(module)
    except Exception:
        return False
    return True


def inputs(case: Case, device: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, taps and cotangent: white noise, the taps of unit energy, so that outputs have unit variance."""
    generator = torch.Generator(device).manual_seed(seed)
    fan_in = math.prod(case.kernel) * (1 if case.out is None else case.channels)
    shapes = (
        (case.batch, case.channels, *case.size),
        case.taps_shape,
        (case.batch, case.out or case.channels, *case.size),
    )
    x, taps, cotangent = (torch.randn(shape, generator=generator, device=device) for shape in shapes)
    return x.to(case.dtype), (taps / math.sqrt(fan_in)).to(case.taps_dtype), cotangent.to(case.dtype)


def action(
    contestant: Contestant, case: Case, operands: tuple[Tensor, Tensor, Tensor]
) -> Callable[[], dict[str, Tensor]]:
    """What is timed: the convolution, and in training both gradients for the cotangent."""
    x, taps, cotangent = operands
    if not case.training:
        return lambda: {"y": contestant.convolve(x, taps, case)}
    leaves = (x.detach().requires_grad_(), taps.detach().requires_grad_())

    def train() -> dict[str, Tensor]:
        y = contestant.convolve(*leaves, case)
        dx, dtaps = torch.autograd.grad(y, leaves, cotangent)
        return {"y": y.detach(), "dx": dx, "dtaps": dtaps}

    return train


def reference(case: Case, operands: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    """The results in float64, by transforms."""
    x, taps, cotangent = (operand.double() for operand in operands)
    return action(Contestant("reference", by_transform, never), case, (x, taps, cotangent))()
