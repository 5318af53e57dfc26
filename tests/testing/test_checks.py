"""The shipped checks refuse what is wrong: for every law, something that breaks that law and as little else as can be.

Each wrong kernel, support, engine and layer differs from a right one, which the checks accept, in one place.
"""

from __future__ import annotations

import copy
import math
import pickle
import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError

from omniconv._tags import Tag
from omniconv.engines import ENGINES, Engine, Problem
from omniconv.kernels import SIREN, Bumps, KernelFactory, Modal, Modes
from omniconv.nn import BatchNorm, Pointwise
from omniconv.supports import Gaussian, SupportFactory
from omniconv.testing import (
    TOLERANCE,
    assert_close,
    check_bad_signals,
    check_engine,
    check_kernel,
    check_layer,
    check_support,
)
from omniconv.testing.kernels import grid_positions

# assert_close


def test_assert_close_looks_at_imaginary_parts() -> None:
    assert_close(torch.tensor([1 + 2j]), torch.tensor([1 + 2j], dtype=torch.complex128))
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(torch.tensor([1 + 2j]), torch.tensor([1 + 3j]))
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(torch.tensor([1.0]), torch.tensor([1 + 3j]))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_assert_close_draws_the_line_at_the_tolerance_of_the_dtype(dtype: torch.dtype) -> None:
    actual = torch.tensor([3.0, 4.0], dtype=dtype)
    limit = TOLERANCE[dtype]
    assert_close(actual, actual.double() / (1 + 0.9 * limit))
    message = re.escape(f"result: relative error {1.1 * limit:.2e} above {limit:.0e}")
    with pytest.raises(AssertionError, match=message):
        assert_close(actual, actual.double() / (1 + 1.1 * limit))


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], r"taps has shape \(2,\), expected \(3,\)"),
        ([1.0, math.nan], [1.0, math.nan], "taps: relative error nan above 1e-06"),
        ([math.inf], [1.0], "taps: relative error inf above 1e-06"),
        ([0.0, 1e-30], [0.0, 0.0], "taps: relative error 1.00e-30 above 1e-06"),
        ([1e6, 1.0], [1e6, 3.0], "taps: relative error 2.00e-06 above 1e-06"),
        ([0.0, 0.0], [0.0, 5.0], r"taps: relative error 1\.00e\+00 above 1e-06"),
    ],
    ids=["shape", "nan", "inf", "not-zero", "one-entry", "all-zero"],
)
def test_assert_close_refuses(actual: list[float], expected: list[float], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_close(torch.tensor(actual), torch.tensor(expected), "taps")


def test_assert_close_takes_a_tolerance_instead() -> None:
    actual, expected = torch.tensor([1.0]), torch.tensor([1.01])
    assert_close(actual, expected, tolerance=0.01)
    with pytest.raises(AssertionError, match=r"relative error 9\.90e-03 above 5e-03"):
        assert_close(actual, expected, tolerance=0.005)
    assert_close(torch.zeros(3), torch.zeros(3))


# Engines

REFERENCE = ENGINES["reference"]
Gradients = tuple[Tensor | None, Tensor | None]


class LowOrigin(Problem):
    """The zero lag of an even kernel one tap too early."""

    @property
    def origin(self) -> tuple[int, ...]:
        return tuple(0 if past else (k - 1) // 2 for k, past in zip(self.kernel_size, self.causal, strict=True))


class LateOrigin(Problem):
    """A causal kernel that begins one sample in the future."""

    @property
    def origin(self) -> tuple[int, ...]:
        return tuple(min(1, k - 1) if past else k // 2 for k, past in zip(self.kernel_size, self.causal, strict=True))


class SwappedAxes(Problem):
    """The first axis taken for the last."""

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(reversed(range(-self.dim, 0)))


def retyped(kind: type[Problem], problem: Problem) -> Problem:
    """The problem with the properties of `kind`."""
    return kind(**{field.name: getattr(problem, field.name) for field in fields(problem)})


def all_zero(problem: Problem) -> Problem:
    return replace(problem, boundary=("zero",) * problem.dim)


def all_circular(problem: Problem) -> Problem:
    return replace(problem, boundary=("circular",) * problem.dim)


def sides_of_first_axis(problem: Problem) -> Problem:
    return replace(problem, boundary=problem.boundary[:1] * problem.dim, causal=problem.causal[:1] * problem.dim)


def solves_another(change: Callable[[Problem], Problem], *, forward: bool = True) -> Engine:
    """The reference, of another problem than the one asked for: in the output, or in the gradients alone."""

    def run(x: Tensor, taps: Tensor, problem: Problem) -> Tensor:
        return REFERENCE.run(x, taps, change(problem))

    def adjoint(g: Tensor, x: Tensor, taps: Tensor, problem: Problem, need_x: bool, need_taps: bool) -> Gradients:
        return REFERENCE.adjoint(g, x, taps, change(problem), need_x, need_taps)

    return replace(REFERENCE, run=run) if forward else replace(REFERENCE, adjoint=adjoint)


def output(change: Callable[[Tensor, Tensor, Tensor, Problem], Tensor]) -> Engine:
    """The reference with `change(y, x, taps, problem)` for its output y."""

    def run(x: Tensor, taps: Tensor, problem: Problem) -> Tensor:
        return change(REFERENCE.run(x, taps, problem), x, taps, problem)

    return replace(REFERENCE, run=run)


def gradients(change: Callable[[Gradients, Tensor, Tensor, Tensor, Problem], Gradients]) -> Engine:
    """The reference with `change((dx, dtaps), grad, x, taps, problem)` for its gradients."""

    def adjoint(g: Tensor, x: Tensor, taps: Tensor, problem: Problem, need_x: bool, need_taps: bool) -> Gradients:
        dx, dtaps = change(REFERENCE.adjoint(g, x, taps, problem, True, True), g, x, taps, problem)
        return dx if need_x else None, dtaps if need_taps else None

    return replace(REFERENCE, adjoint=adjoint)


def half_spectrum(y: Tensor, x: Tensor, taps: Tensor, problem: Problem) -> Tensor:
    """A causal product of spectra that takes every frame for an even one: `irfft` without its `n`."""
    if problem.causal != (True,):
        return y
    n = max(2, x.shape[-1] + taps.shape[-1] - 1)
    weigh = "bc...,c...->bc..." if problem.depthwise else "bc...,oc...->bo..."
    return torch.fft.irfft(torch.einsum(weigh, torch.fft.rfft(x, n), torch.fft.rfft(taps, n)))[..., : x.shape[-1]]


def no_conjugate(right: Gradients, grad: Tensor, x: Tensor, taps: Tensor, problem: Problem) -> Gradients:
    """dtaps = F^-1(F grad F x), without the conjugate: the signal backwards in time."""
    return right[0], REFERENCE.adjoint(grad, x.flip(problem.axes), taps, problem, False, True)[1]


def no_flip(right: Gradients, grad: Tensor, x: Tensor, taps: Tensor, problem: Problem) -> Gradients:
    """dtaps by decreasing lag, as a framework's convolution numbers its weights."""
    assert right[1] is not None
    return right[0], right[1].flip(problem.axes)


def convolved(right: Gradients, grad: Tensor, x: Tensor, taps: Tensor, problem: Problem) -> Gradients:
    """dx by the convolution itself instead of its transpose."""
    return (REFERENCE.run(grad, taps, problem) if problem.depthwise else right[0]), right[1]


def first_sample(right: Gradients, grad: Tensor, x: Tensor, taps: Tensor, problem: Problem) -> Gradients:
    """dtaps of the first sample of the batch alone."""
    one = replace(problem, batch=1)
    return right[0], REFERENCE.adjoint(grad[:1], x[:1], taps, one, False, True)[1]


def transposed(x: Tensor, taps: Tensor, problem: Problem) -> Tensor:
    """Taps read in the order of the transposed axes."""
    if problem.dim > 1:
        taps = taps.transpose(-1, -2).reshape(taps.shape)
    return REFERENCE.run(x, taps, problem)


def rounded(y: Tensor, x: Tensor, taps: Tensor, problem: Problem) -> Tensor:
    """Sums with the mantissa of bfloat16, as fast matrix units have it."""
    return REFERENCE.run(x.bfloat16().to(x.dtype), taps.bfloat16().to(x.dtype), problem)


def spoiled(which: str) -> Engine:
    """The right results, and zeros left behind in an operand."""

    def run(x: Tensor, taps: Tensor, problem: Problem) -> Tensor:
        y = REFERENCE.run(x, taps, problem)
        if which in ("x", "taps"):
            (x if which == "x" else taps).zero_()
        return y

    def adjoint(g: Tensor, x: Tensor, taps: Tensor, problem: Problem, need_x: bool, need_taps: bool) -> Gradients:
        results = REFERENCE.adjoint(g, x, taps, problem, need_x, need_taps)
        if which == "grad":
            g.zero_()
        return results

    return replace(REFERENCE, run=run, adjoint=adjoint)


def eager(g: Tensor, x: Tensor, taps: Tensor, problem: Problem, need_x: bool, need_taps: bool) -> Gradients:
    """Both gradients, whatever is asked for."""
    return REFERENCE.adjoint(g, x, taps, problem, True, True)


def doubled_alone(g: Tensor, x: Tensor, taps: Tensor, problem: Problem, need_x: bool, need_taps: bool) -> Gradients:
    """Twice dx, where dx alone is asked for."""
    dx, dtaps = REFERENCE.adjoint(g, x, taps, problem, need_x, need_taps)
    return (2 * dx if dx is not None and not need_taps else dx), dtaps


WRONG_ENGINES: dict[str, tuple[Engine, int, str]] = {
    "origin": (solves_another(partial(retyped, LowOrigin)), 1, "reference: output of .*: relative error"),
    "origin-of-gradients": (solves_another(partial(retyped, LowOrigin), forward=False), 1, "dx of .*: relative error"),
    "not-causal": (solves_another(partial(retyped, LateOrigin)), 1, r"output of .*causal=\(True,\).*: relative error"),
    "half-spectrum": (output(half_spectrum), 1, r"output of .*causal=\(True,\).*: relative error"),
    "circular-as-zero": (solves_another(all_zero), 1, r"output of .*boundary=\('circular',\).*: relative error"),
    "zero-as-circular": (solves_another(all_circular), 1, r"output of .*boundary=\('zero',\).*: relative error"),
    "circular-as-zero-in-gradients": (
        solves_another(all_zero, forward=False),
        1,
        r"dx of .*boundary=\('circular',\).*: relative error",
    ),
    "mixed-sides": (
        solves_another(sides_of_first_axis),
        2,
        r"output of .*causal=\(True, False\), boundary=\('zero', 'circular'\).*: relative error",
    ),
    "swapped-axes": (solves_another(partial(retyped, SwappedAxes)), 2, "output of .*: relative error"),
    "swapped-axes-of-gradients": (
        solves_another(partial(retyped, SwappedAxes), forward=False),
        2,
        "dx of .*: relative error",
    ),
    "transposed-taps": (replace(REFERENCE, run=transposed), 2, "output of .*: relative error"),
    "dtaps-not-conjugate": (gradients(no_conjugate), 1, "dtaps of .*: relative error"),
    "dtaps-not-flipped": (gradients(no_flip), 1, "dtaps of .*: relative error"),
    "dtaps-of-one-sample": (gradients(first_sample), 1, "dtaps of .*: relative error"),
    "dx-not-transposed": (gradients(convolved), 1, "dx of .*: relative error"),
    "output-one-short": (
        output(lambda y, *_: y[..., 1:]),
        1,
        r"output of .* has shape \(2, 3, 0\), expected \(2, 3, 1",
    ),
    "output-rounded": (output(rounded), 1, "output of .*: relative error .* above 1e-06"),
    "output-float32": (
        output(lambda y, x, taps, problem: REFERENCE.run(x.float(), taps.float(), problem).to(y)),
        1,
        "output of .*torch.float64.*: relative error .* above 1e-13",
    ),
    "dtype-of-output": (output(lambda y, *_: y.double()), 1, "output has dtype torch.float64 for torch.float32"),
    "dtype-of-dx": (
        gradients(lambda right, *_: (None if right[0] is None else right[0].double(), right[1])),
        1,
        "dx has dtype torch.float64 for torch.float32 operands",
    ),
    "dtype-of-dtaps": (
        gradients(lambda right, *_: (right[0], None if right[1] is None else right[1].double())),
        1,
        "dtaps has dtype torch.float64 for torch.float32 operands",
    ),
    "dx-missing": (gradients(lambda right, *_: (None, right[1])), 1, "dx is missing for"),
    "dtaps-missing": (gradients(lambda right, *_: (right[0], None)), 1, "dtaps is missing for"),
    "x-spoiled": (spoiled("x"), 1, "reference changed an input of"),
    "taps-spoiled": (spoiled("taps"), 1, "reference changed an input of"),
    "grad-spoiled": (spoiled("grad"), 1, "reference changed an input of"),
    "eager": (replace(REFERENCE, adjoint=eager), 1, "reference computed gradients that nobody asked for"),
    "dx-alone": (replace(REFERENCE, adjoint=doubled_alone), 1, "dx, needed alone, of .*: relative error"),
    "refuses": (replace(REFERENCE, reject=lambda problem: "never"), 1, "reference refuses every problem"),
    "free": (replace(REFERENCE, work=lambda problem: (0.0, 0.0)), 1, "reference must state amounts of work"),
    "negative": (replace(REFERENCE, work=lambda problem: (2.0, -1.0)), 1, "reference must state amounts of work"),
    "work-unknown": (
        replace(REFERENCE, adjoint_work=lambda *_: (1.0, math.nan)),
        1,
        "reference must state amounts of work",
    ),
    "sums-unsaid": (replace(ENGINES["direct"], sums=False), 1, "direct multiplies every tap .*: say so, `sums=True`"),
}


@pytest.mark.parametrize("name", WRONG_ENGINES)
def test_check_engine_refuses(name: str) -> None:
    engine, dim, message = WRONG_ENGINES[name]
    with pytest.raises(AssertionError, match=message):
        check_engine(engine, dims=(dim,))


PROBLEMS: dict[str, Callable[[Problem], bool]] = {
    "1d": lambda problem: problem.dim == 1,
    "2d": lambda problem: problem.dim == 2,
    "3d": lambda problem: problem.dim == 3,
    "depthwise": lambda problem: problem.depthwise,
    "dense": lambda problem: not problem.depthwise,
    "float32": lambda problem: problem.dtype == torch.float32,
    "float64": lambda problem: problem.dtype == torch.float64,
    "causal": lambda problem: all(problem.causal),
    "zero": lambda problem: not any(problem.causal) and set(problem.boundary) == {"zero"},
    "circular": lambda problem: all(problem.circular),
    "mixed-2d": lambda problem: problem.dim == 2 and len(set(zip(problem.causal, problem.boundary, strict=True))) == 2,
    "mixed-3d": lambda problem: problem.dim == 3 and len(set(zip(problem.causal, problem.boundary, strict=True))) == 3,
    "odd-size": lambda problem: problem.size[0] % 2 == 1 and problem.size[0] > 1,
    "even-size": lambda problem: problem.size[0] % 2 == 0,
    "odd-kernel": lambda problem: problem.kernel_size[0] % 2 == 1 and problem.kernel_size[0] > 1,
    "even-kernel": lambda problem: problem.kernel_size[0] % 2 == 0,
    "one-tap": lambda problem: problem.tap_count == 1,
    "kernel-shorter": lambda problem: 1 < problem.kernel_size[0] < problem.size[0],
    "kernel-longer": lambda problem: problem.kernel_size[0] > problem.size[0],
    "longest-kernel": lambda problem: problem.kernel_size[0] == 2 * problem.size[0] - 1 > 1,
    "unequal-sizes": lambda problem: len(set(problem.size)) > 1,
    "unequal-kernels": lambda problem: max(problem.kernel_size) < min(problem.size) and len({*problem.kernel_size}) > 1,
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_check_engine_looks_at_every_kind_of_problem(name: str) -> None:
    def doubled(y: Tensor, x: Tensor, taps: Tensor, problem: Problem) -> Tensor:
        return 2 * y if PROBLEMS[name](problem) else y

    dims = {"1d": (1,), "3d": (3,), "mixed-3d": (3,)}.get(name, (2,))
    with pytest.raises(AssertionError, match=r"output of .*: relative error 1\.00e\+00"):
        check_engine(output(doubled), dims=dims)


def test_check_engine_passes_over_what_an_engine_refuses() -> None:
    def reject(problem: Problem) -> str | None:
        return "it cannot do dense taps" if not problem.depthwise else None

    def doubled(y: Tensor, x: Tensor, taps: Tensor, problem: Problem) -> Tensor:
        return y if problem.depthwise else 2 * y

    check_engine(replace(output(doubled), reject=reject), dims=(1,))


# Kernels


class RightKernel(SIREN):
    """A kernel that obeys the laws, small."""

    def __init__(self, dim: int, channels: int, **where: Any):
        self.draws = 0
        super().__init__(dim, channels, hidden=8, **where)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.draws += 1


class ChannelsFirst(RightKernel):
    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions).movedim(-1, 0)


class ListInForward(RightKernel):
    """Makes a tensor of a list at every call."""

    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions * torch.tensor([1.0] * self.dim, device=positions.device))


class AsksForANumber(RightKernel):
    """Has the host wait for the phases; a tensor without numbers has none to give."""

    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions) * (1.0 if self.phase.is_meta else 1.0 + 0.0 * self.phase.sum().item())


class TiedToTheGrid(RightKernel):
    """Says that it is smooth, and changes its sign from one lag of the reference grid to the next."""

    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions) * (torch.pi * max(self.reach[0], 1) * positions[..., :1]).cos() * 2**0.5


class Float32Only(RightKernel):
    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions.float())


class ParametersDecideTheDtype(RightKernel):
    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions.to(self.phase.dtype))


class Singular(RightKernel):
    """Infinite on the far half of the first axis."""

    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions) / (positions[..., :1] < 0.5)


class Centred(RightKernel):
    """Subtracts the mean over the points that it is asked for."""

    def forward(self, positions: Tensor) -> Tensor:
        values = super().forward(positions)
        return values - values.mean(-2, keepdim=True)


class Loud(RightKernel):
    """Drawn with twice the calibrated values: mean square 4."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.output_weight.mul_(2)


class LoudWhereCausal(RightKernel):
    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.output_weight.mul_(2 if all(self.causal) else 1)


class OnGrid(RightKernel):
    """The values on a grid from those at its points."""

    def on_grid(self, steps: tuple[int, ...], spacing: tuple[float, ...], dtype: torch.dtype) -> Tensor:
        return self(grid_positions(self, steps, spacing)).to(dtype)


class NearlyOnGrid(OnGrid):
    def on_grid(self, steps: tuple[int, ...], spacing: tuple[float, ...], dtype: torch.dtype) -> Tensor:
        return super().on_grid(steps, tuple(step + 1e-9 for step in spacing), dtype)


class OnGridChannelsFirst(OnGrid):
    def on_grid(self, steps: tuple[int, ...], spacing: tuple[float, ...], dtype: torch.dtype) -> Tensor:
        return super().on_grid(steps, spacing, dtype).movedim(-1, 0)


class OnGridDetached(OnGrid):
    """Without the derivative in one of its parameters."""

    def on_grid(self, steps: tuple[int, ...], spacing: tuple[float, ...], dtype: torch.dtype) -> Tensor:
        bias = self.output_bias.detach() - self.output_bias
        return super().on_grid(steps, spacing, dtype) + bias.to(dtype)


class OnGridInFloat64(OnGrid):
    def on_grid(self, steps: tuple[int, ...], spacing: tuple[float, ...], dtype: torch.dtype) -> Tensor:
        return super().on_grid(steps, spacing, torch.float64)


class OnGridRounded(OnGrid):
    """In float32 worse than that."""

    def on_grid(self, steps: tuple[int, ...], spacing: tuple[float, ...], dtype: torch.dtype) -> Tensor:
        values = super().on_grid(steps, spacing, dtype)
        return values.half().float() if dtype == torch.float32 else values


class WrongRecurrence(Modal):
    """Of the reference grid alone."""

    def recurrence(self, spacing: float = 1.0) -> Modes | None:
        return super().recurrence()


class DetachedRecurrence(Modal):
    def recurrence(self, spacing: float = 1.0) -> Modes | None:
        modes = super().recurrence(spacing)
        return None if modes is None else Modes(modes.poles.detach(), modes.residues)


class ModalWithGraph(Modal):
    def to_modal(self) -> Modes | None:
        return self.recurrence()


class NotModal(Modal):
    def to_modal(self) -> Modes | None:
        return None


class Detached(RightKernel):
    """No derivative in one of its parameters."""

    def forward(self, positions: Tensor) -> Tensor:
        bias = self.output_bias.detach() - self.output_bias
        return super().forward(positions) + bias.to(positions.dtype)


class PositionsDetached(RightKernel):
    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions.detach())


class Turning(RightKernel):
    """Turns its phases once around at every evaluation, which no value shows."""

    @torch.no_grad()
    def _turn(self) -> None:
        self.phase.add_(2 * math.pi)

    def forward(self, positions: Tensor) -> Tensor:
        self._turn()
        return super().forward(positions)


class CopiedAnew(RightKernel):
    """A copy draws its own parameters."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CopiedAnew:
        parameter = self.phase
        where = {"reach": self.reach, "causal": self.causal, "device": parameter.device, "dtype": parameter.dtype}
        return CopiedAnew(self.dim, self.channels, **where)


class HiddenState(RightKernel):
    """A drawn shift that is neither a parameter nor a buffer."""

    offset = 0.0

    def __init__(self, dim: int, channels: int, **where: Any):
        super().__init__(dim, channels, **where)
        self.offset = torch.rand(()).item()

    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions + self.offset)


class DrawnOnce(RightKernel):
    """A re-draw that does nothing."""

    def reset_parameters(self) -> None:
        if self.draws == 0:
            super().reset_parameters()


class ZeroWhenDrawnAgain(RightKernel):
    """Initialised by the constructor alone: what `reset_parameters` leaves of it is zero."""

    def reset_parameters(self) -> None:
        if self.draws == 0:
            super().reset_parameters()
        else:
            for parameter in self.parameters():
                nn.init.zeros_(parameter)


class DeviceIgnored(RightKernel):
    def __init__(self, dim: int, channels: int, **where: Any):
        super().__init__(dim, channels, **{**where, "device": "cpu"})


class BandlimitOfOneAxis(RightKernel):
    def bandlimit(self) -> tuple[float, ...] | None:
        return (super().bandlimit() or ())[:1]


class NegativeBandlimit(RightKernel):
    def bandlimit(self) -> tuple[float, ...] | None:
        return tuple(-limit for limit in super().bandlimit() or ())


class DoubleBandlimit(RightKernel):
    def bandlimit(self) -> tuple[float, ...] | None:
        return tuple(2 * limit for limit in super().bandlimit() or ())


class BandwidthsWithoutFilters(RightKernel):
    def bandwidths(self) -> Tensor:
        return super().bandwidths()[0]

    def bandlimit(self) -> None:
        return None


class NegativeBandwidths(RightKernel):
    def bandwidths(self) -> Tensor:
        return -super().bandwidths()

    def bandlimit(self) -> None:
        return None


class DetachedBandwidths(RightKernel):
    def bandwidths(self) -> Tensor:
        return super().bandwidths().detach()


class DetachedInitialBandwidths(Bumps):
    """Learned widths, whose every draw is the same."""

    def bandwidths(self) -> Tensor | None:
        widths = super().bandwidths()
        return None if widths is None else widths.detach()


class UnknownTag(RightKernel):
    def parameter_tags(self) -> dict[str, Tag]:
        return super().parameter_tags() | {"frequencies": Tag(lr_scale=0.1)}


WRONG_KERNELS: dict[str, tuple[KernelFactory, int, type[Exception], str]] = {
    "shape": (ChannelsFirst, 1, AssertionError, r"values must be \(\*points, channels\); got \(5, 3, 2\)"),
    "float32": (Float32Only, 1, AssertionError, "positions' dtype torch.float64; got torch.float32"),
    "float64": (ParametersDecideTheDtype, 1, AssertionError, "positions' dtype torch.float32; got torch.float64"),
    "finite": (Singular, 1, AssertionError, "values must be finite"),
    "pointwise": (Centred, 1, AssertionError, "a value must depend on its own position alone; together they differ by"),
    "calibration": (Loud, 1, AssertionError, r"must have unit mean square over its window; got 4\.00"),
    "calibration-causal": (LoudWhereCausal, 1, AssertionError, r"must have unit mean square .*; got 4\.00"),
    "derivative-parameter": (Detached, 1, GradcheckError, "Jacobian mismatch for output 0 with respect to input 6"),
    "derivative-position": (PositionsDetached, 1, GradcheckError, "mismatch for output 0 with respect to input 0"),
    "state": (Turning, 1, AssertionError, "evaluation must not change the state"),
    "grid": (NearlyOnGrid, 1, AssertionError, "on_grid: relative error .* above 1e-12"),
    "grid-shape": (OnGridChannelsFirst, 2, AssertionError, r"on_grid must be \(13, 9, 5\); got \(5, 13, 9\)"),
    "grid-derivative": (OnGridDetached, 1, AssertionError, "on_grid: derivatives differ"),
    "grid-dtype": (OnGridInFloat64, 1, AssertionError, "on_grid must have the dtype asked for"),
    "grid-float32": (OnGridRounded, 3, AssertionError, "on_grid: relative error .* above 1e-06"),
    "recurrence": (WrongRecurrence, 1, AssertionError, "the taps of recurrence: relative error"),
    "recurrence-derivative": (DetachedRecurrence, 1, AssertionError, "recurrence: derivatives differ"),
    "modal-graph": (ModalWithGraph, 1, AssertionError, "to_modal must have no graph"),
    "modal-none": (NotModal, 1, AssertionError, "to_modal and recurrence must both be there, or both None"),
    "deep-copy": (CopiedAnew, 1, AssertionError, "a deep copy must give the same values"),
    "state-dict": (HiddenState, 1, AssertionError, "a kernel with the same state must give the same values"),
    "reset": (DrawnOnce, 1, AssertionError, "reset_parameters must draw anew"),
    "device": (DeviceIgnored, 1, AssertionError, "`device` must reach every parameter"),
    "meta": (ZeroWhenDrawnAgain, 1, AssertionError, "a kernel from the meta device must be initialised"),
    "bandlimit-axes": (BandlimitOfOneAxis, 2, AssertionError, "bandlimit must be None or one per axis"),
    "bandlimit-sign": (NegativeBandlimit, 1, AssertionError, "bandlimit must be None or one per axis"),
    "bandlimit-sum": (DoubleBandlimit, 1, AssertionError, "bandlimit must be the sum of the bandwidths"),
    "bandwidths-shape": (
        BandwidthsWithoutFilters,
        1,
        AssertionError,
        r"bandwidths must be None or .* \(filters, dim\)",
    ),
    "bandwidths-sign": (NegativeBandwidths, 1, AssertionError, "bandwidths must be None or at least 0"),
    "bandwidths-derivative": (DetachedBandwidths, 1, AssertionError, "bandwidths must have a derivative"),
    "bandwidths-derivative-initial": (
        DetachedInitialBandwidths,
        1,
        AssertionError,
        "bandwidths must have a derivative",
    ),
    "from-the-host": (
        ListInForward,
        1,
        AssertionError,
        r"brings numbers from the host .*aten\.lift_fresh.*\. Multiply by Python numbers, or fill a tensor on the",
    ),
    "asks-the-device": (AsksForANumber, 1, AssertionError, r"asks .* for a number .*aten\._local_scalar_dense"),
    "resolution": (TiedToTheGrid, 1, AssertionError, r"half the spacing .* differs by .*Lower the frequencies"),
    "tags": (UnknownTag, 1, AssertionError, r"parameter_tags must name parameters; unknown: \['frequencies'\]"),
}


@pytest.mark.parametrize("name", WRONG_KERNELS)
def test_check_kernel_refuses(name: str) -> None:
    factory, dim, kind, message = WRONG_KERNELS[name]
    with pytest.raises(kind, match=message):
        check_kernel(factory, dims=(dim,))


@pytest.mark.parametrize("wrong", [1, 2, 3])
def test_check_kernel_looks_at_every_dimension(wrong: int) -> None:
    def factory(dim: int, channels: int, **where: Any) -> SIREN:
        return (Loud if dim == wrong else RightKernel)(dim, channels, **where)

    with pytest.raises(AssertionError, match=r"must have unit mean square over its window; got 4\.00"):
        check_kernel(factory)
    check_kernel(factory, dims=tuple({1, 2, 3} - {wrong}))


# Supports


class ExtraAxis(Gaussian):
    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions)[..., None]


class Float32Weights(Gaussian):
    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions).float()


class ParametersDecideTheWeights(Gaussian):
    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions).to(self.width_logit.dtype)


class Wave(Gaussian):
    """Weights down to -1."""

    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions) * torch.cos(math.pi * positions).prod(-1)


class Heavy(Gaussian):
    """Weights up to 2, on the border of the window."""

    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions) + 2 * (positions.abs() == 1).any(-1).to(positions.dtype)


class HalfWeight(Gaussian):
    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions) / 2


class FixedExtent(Gaussian):
    """The extent that is given for each threshold, on every axis."""

    extents: tuple[float, ...] = ()

    def extent(self, threshold: float) -> tuple[float, ...]:
        return (self.extents[(0.5, 0.1, 0.01).index(threshold)],) * self.dim


class ZeroExtent(FixedExtent):
    extents = (0.0, 0.6, 1.0)


class WideExtent(FixedExtent):
    extents = (1.0, 1.0, 1.5)


class ShrinkingExtent(FixedExtent):
    extents = (1.0, 0.9, 1.0)


class OneAxisExtent(Gaussian):
    def extent(self, threshold: float) -> tuple[float, ...]:
        return super().extent(threshold)[:1]


class SmallExtent(Gaussian):
    """The half width where the weight is at the threshold of a full width."""

    def extent(self, threshold: float) -> tuple[float, ...]:
        return tuple(far / 2 for far in super().extent(threshold))


class BandwidthOfOneAxis(Gaussian):
    def bandwidth(self) -> Tensor:
        return super().bandwidth()[:1]


class NegativeBandwidth(Gaussian):
    def bandwidth(self) -> Tensor:
        return -super().bandwidth()


class DetachedBandwidth(Gaussian):
    def bandwidth(self) -> Tensor:
        return super().bandwidth().detach()


class WidthDetached(Gaussian):
    @property
    def width(self) -> Tensor:
        return super().width.detach()


class WidenedByCopying(Gaussian):
    def __deepcopy__(self, memo: dict[int, Any]) -> Gaussian:
        return Gaussian(self.dim, reach=self.reach, causal=self.causal, width=0.5, dtype=self.width_logit.dtype)


class DeafGaussian(Gaussian):
    """Takes no parameters from a state dict, and does not say so."""

    def _load_from_state_dict(self, *args: Any) -> None:
        pass


class ResetsNothing(Gaussian):
    """Initialised once."""

    def reset_parameters(self) -> None:
        if not hasattr(self, "begun"):
            super().reset_parameters()
        self.begun = True


class CountsCalls(Gaussian):
    """Keeps a count of its evaluations in its state."""

    calls: Tensor

    def __init__(self, dim: int, **where: Any):
        super().__init__(dim, **where)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, positions: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(positions)


def always_on_cpu(dim: int, **where: Any) -> Gaussian:
    """Deaf to `device`."""
    return Gaussian(dim, **{**where, "device": "cpu"})


class FalselyOne(Gaussian):
    everywhere_one = True


class UnknownSupportTag(Gaussian):
    def parameter_tags(self) -> dict[str, Tag]:
        return {"sigma": Tag(decay=False)}


def half_where_causal(dim: int, **where: Any) -> Gaussian:
    """A window that is wrong on causal axes alone."""
    return (HalfWeight if all(where["causal"]) else Gaussian)(dim, **where)


WRONG_SUPPORTS: dict[str, tuple[SupportFactory, int, type[Exception], str]] = {
    "shape": (ExtraAxis, 1, AssertionError, r"weights must be \(\*points,\); got \(18, 1\)"),
    "float64": (ParametersDecideTheWeights, 1, AssertionError, "positions' dtype torch.float32; got torch.float64"),
    "float32": (Float32Weights, 1, AssertionError, "positions' dtype torch.float64; got torch.float32"),
    "negative": (partial(Wave, width=1.9), 1, AssertionError, r"weights must lie in \[0, 1\]; got -0\.87\d* to 1$"),
    "above-one": (partial(Heavy, width=0.1), 1, AssertionError, r"weights must lie in \[0, 1\]; got .* to 2$"),
    "everywhere-one": (FalselyOne, 2, AssertionError, "every weight must be 1, as promised; got "),
    "zero-lag": (HalfWeight, 1, AssertionError, "a new support must weigh the zero lag 1; got 0.5"),
    "zero-lag-causal": (half_where_causal, 1, AssertionError, "must weigh the zero lag 1; got 0.5"),
    "extent-zero": (ZeroExtent, 1, AssertionError, r"extent must be in \(0, 1\] per axis"),
    "extent-above-one": (WideExtent, 1, AssertionError, r"extent must be in \(0, 1\] per axis"),
    "extent-axes": (OneAxisExtent, 2, AssertionError, r"extent must be in \(0, 1\] per axis"),
    "extent-shrinks": (ShrinkingExtent, 1, AssertionError, "a lower threshold must reach farther"),
    "extent-small": (SmallExtent, 1, AssertionError, "weight 0.7.* outside the extent for threshold 0.5"),
    "bandwidth-axes": (BandwidthOfOneAxis, 2, AssertionError, r"bandwidth must be None or at least 0, \(dim,\)"),
    "bandwidth-sign": (NegativeBandwidth, 1, AssertionError, "bandwidth must be None or at least 0"),
    "bandwidth-derivative": (DetachedBandwidth, 1, AssertionError, "bandwidth must have a derivative"),
    "derivative": (WidthDetached, 1, GradcheckError, "Numerical gradient for function expected to be zero"),
    "deep-copy": (WidenedByCopying, 1, AssertionError, "a deep copy must give the same weights"),
    "state-dict": (DeafGaussian, 1, AssertionError, "a support with the same state must give the same weights"),
    "state": (CountsCalls, 1, AssertionError, "evaluation must not change the state"),
    "reset": (ResetsNothing, 1, AssertionError, "reset_parameters must set learned sizes back"),
    "device": (always_on_cpu, 1, AssertionError, "`device` must reach every parameter"),
    "tags": (UnknownSupportTag, 1, AssertionError, r"parameter_tags must name parameters; unknown: \['sigma'\]"),
}


@pytest.mark.parametrize("name", WRONG_SUPPORTS)
def test_check_support_refuses(name: str) -> None:
    factory, dim, kind, message = WRONG_SUPPORTS[name]
    with pytest.raises(kind, match=message):
        check_support(factory, dims=(dim,))


@pytest.mark.parametrize("wrong", [1, 2, 3])
def test_check_support_looks_at_every_dimension(wrong: int) -> None:
    def factory(dim: int, **where: Any) -> Gaussian:
        return (HalfWeight if dim == wrong else Gaussian)(dim, **where)

    with pytest.raises(AssertionError, match="must weigh the zero lag 1"):
        check_support(factory)
    check_support(factory, dims=tuple({1, 2, 3} - {wrong}))


# Layers


class RightLayer(Pointwise):
    """A layer that obeys the laws, with second derivatives of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).square()


class NoFirstDerivative(RightLayer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class WeightDetached(RightLayer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.square() * (self.weight.detach() - self.weight)[0, 0]


class SteepSquare(torch.autograd.Function):
    """x^2 with the derivative 3 x, which has a right derivative in turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x * grads[0]


class WrongFirstDerivative(Pointwise):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = SteepSquare.apply(super().forward(x))
        return result


class SquareOnce(torch.autograd.Function):
    """x^2 whose derivative counts as a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * grads[0]


class NoSecondDerivative(Pointwise):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = SquareOnce.apply(super().forward(x))
        return result


class Remembering(RightLayer):
    """Scales by the longest signal that it has seen."""

    longest = 1

    def forward(self, x: Tensor) -> Tensor:
        self.longest = max(self.longest, x.shape[-1])
        return super().forward(x) / self.longest


class CountingLayer(RightLayer):
    calls: Tensor

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class CopiedBadly(RightLayer):
    def __deepcopy__(self, memo: dict[int, Any]) -> CopiedBadly:
        return CopiedBadly(self.in_channels, self.out_channels, dtype=self.weight.dtype)


class KeepsAResult(RightLayer):
    """Keeps a tensor that is part of a graph, which torch does not copy."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.norm = self.weight.norm()


class PickledBadly(RightLayer):
    """Comes back from a pickle with the weights doubled; a copy is right."""

    def __deepcopy__(self, memo: dict[int, Any]) -> PickledBadly:
        twin = PickledBadly(self.in_channels, self.out_channels)
        twin.weight, twin.bias = copy.deepcopy(self.weight), copy.deepcopy(self.bias)
        return twin

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        with torch.no_grad():
            self.weight.mul_(2)


class KeepsALambda(RightLayer):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.activation = lambda x: x


class DeafLayer(RightLayer):
    """Takes no parameters from a state dict, and does not say so."""

    def _load_from_state_dict(self, *args: Any) -> None:
        pass


class Float32Result(RightLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y.float() if y.dtype == torch.bfloat16 else y


class Float32UnderAutocast(RightLayer):
    """In bfloat16 unless autocast asks for it: the parameters' dtype decides."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(self.weight.dtype)


class Cancelling(RightLayer):
    """Loses in low precision what it adds and subtracts."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 100 - 100


class Overflowing(RightLayer):
    """Divides by what is no longer there in a layer of bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        one = self.weight.new_ones(()) + 2**-10
        return super().forward(x) * ((one - 1) / (one - 1)).to(x.dtype)


WRONG_LAYERS: dict[str, tuple[type[nn.Module], type[Exception] | tuple[type[Exception], ...], str]] = {
    "first-derivative": (NoFirstDerivative, GradcheckError, "Jacobian mismatch for output 0 with respect to input 0"),
    "first-derivative-parameter": (WeightDetached, GradcheckError, "mismatch for output 0 with respect to input 1"),
    "first-derivative-alone": (
        WrongFirstDerivative,
        GradcheckError,
        "Jacobian mismatch for output 0 with respect to input 0",
    ),
    "second-derivative": (NoSecondDerivative, GradcheckError, "Jacobian mismatch for output 0 with respect to input"),
    "state": (Remembering, AssertionError, "the output must not depend on signals seen before"),
    "buffer": (CountingLayer, AssertionError, "forward must not change the buffer calls"),
    "deep-copy": (CopiedBadly, AssertionError, "a deep copy must compute the same"),
    "not-copyable": (KeepsAResult, RuntimeError, "created explicitly by the user .* support the deepcopy protocol"),
    "pickle": (PickledBadly, AssertionError, "an unpickled layer must compute the same"),
    "not-picklable": (KeepsALambda, (AttributeError, pickle.PicklingError), "Can't pickle local object .*KeepsALambda"),
    "state-dict": (DeafLayer, AssertionError, "a layer with the same state must compute the same"),
    "bfloat16": (Float32Result, AssertionError, "a bfloat16 layer must return bfloat16; got torch.float32"),
    "autocast": (Float32UnderAutocast, AssertionError, "under autocast bfloat16 must stay; got torch.float32"),
    "inexact": (Cancelling, AssertionError, r"bfloat16 output is off by \d"),
    "overflow": (Overflowing, AssertionError, r"bfloat16 output is off by \d"),
}


class Unchecked(nn.Module):
    """Twice the signal, whatever it is."""

    def forward(self, x: Any) -> Any:
        return 2 * x if isinstance(x, Tensor) else x


class Unnamed(Pointwise):
    """Says that something is wrong, and not what."""

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise ValueError("the signal is not one")
        return super().forward(x)


class MaskOfAnyKind(Pointwise):
    """Takes whatever comes as a mask, and looks at no number of it."""

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        return super().forward(x)


class MaskOfTorch(Pointwise):
    """Leaves it to the framework to complain of a mask."""

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        y = super().forward(x)
        return y if mask is None else y * torch.logical_and(mask, mask)[:, None]


POINTWISE = ("more axes", "no samples", "float64")


@pytest.mark.parametrize(
    ("make", "takes", "message"),
    [
        (lambda: Unchecked(), (), "none as `x` must raise ValueError or TypeError that names `x`; it was taken"),
        (lambda: Unnamed(2, 2), POINTWISE, "none as `x` must raise .*; its message is: the signal is not one"),
        (lambda: MaskOfAnyKind(2, 2), POINTWISE, "a list as `mask` must raise .*; it was taken"),
        (lambda: MaskOfTorch(2, 2), POINTWISE, "numbers as `mask` must raise|a list as `mask` must raise"),
        (lambda: Pointwise(2, 2), ("more axes", "no samples"), "float64 as `x` must raise .*; it was taken"),
    ],
    ids=["unchecked", "unnamed", "any-mask", "mask-of-torch", "another-precision"],
)
def test_check_bad_signals_refuses(make: Callable[[], nn.Module], takes: tuple[str, ...], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_bad_signals(make(), sample_input(), takes)


def test_what_a_layer_takes_has_to_be_taken() -> None:
    check_bad_signals(Pointwise(2, 2), sample_input(), POINTWISE)
    with pytest.raises(ValueError, match="`x` must be"):
        check_bad_signals(Pointwise(2, 2), sample_input(), (*POINTWISE, "more channels"))


def sample_input() -> Tensor:
    return torch.randn(2, 2, 5, dtype=torch.float64)


@pytest.mark.parametrize("name", WRONG_LAYERS)
def test_check_layer_refuses(name: str) -> None:
    make, kind, message = WRONG_LAYERS[name]
    with pytest.raises(kind, match=message):
        check_layer(make(2, 2, dtype=torch.float64), sample_input())


def test_one_derivative_does_not_vouch_for_the_other() -> None:
    x = sample_input().requires_grad_()
    torch.autograd.gradcheck(NoSecondDerivative(2, 2, dtype=torch.float64), x, fast_mode=True)
    torch.autograd.gradgradcheck(WrongFirstDerivative(2, 2, dtype=torch.float64), x, fast_mode=True)


def test_check_layer_refuses_batch_norm_that_is_training() -> None:
    layer = BatchNorm(2, dtype=torch.float64)
    with pytest.raises(AssertionError, match="forward must not change the buffer running_mean"):
        check_layer(layer.train(), sample_input())


def test_check_layer_leaves_the_layer_as_it_was() -> None:
    layer, x = RightLayer(2, 2, dtype=torch.float64), sample_input()
    before, kept = pickle.dumps(layer.state_dict()), x.clone()
    check_layer(layer, x)
    assert pickle.dumps(layer.state_dict()) == before
    assert torch.equal(x, kept)
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_the_right_ones_pass() -> None:
    check_engine(REFERENCE, dims=(1, 2))
    check_kernel(RightKernel)
    check_kernel(OnGrid)
    check_support(Gaussian)
    check_layer(RightLayer(2, 2, dtype=torch.float64), sample_input())
