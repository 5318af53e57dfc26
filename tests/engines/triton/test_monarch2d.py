"""Convolutions of images by DFT matrices against the definition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from omniconv.engines import Problem
from omniconv.engines._shorten import shorten, shortened
from omniconv.engines.monarch2d import MONARCH2D, adjoint_work, fits, work
from omniconv.engines.reference import REFERENCE
from omniconv.testing import TENSOR_CORES, assert_close

pytest.importorskip("triton")
# Of the interpreter, where a loop's bound is an argument.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GATED = MONARCH2D.gated
CENTRED = ((False, False), ("zero", "zero"))
CAUSAL = ((True, True), ("zero", "zero"))
CIRCULAR = ((False, False), ("circular", "circular"))
CASES = [
    ((1, 1), (1, 1), *CENTRED),
    ((2, 3), (3, 4), *CENTRED),
    ((7, 16), (4, 5), *CENTRED),
    ((16, 7), (31, 13), *CENTRED),
    ((31, 33), (8, 65), *CENTRED),
    ((1, 64), (1, 9), *CENTRED),
    ((64, 3), (3, 5), *CENTRED),
    ((16, 31), (16, 12), *CAUSAL),
    ((33, 2), (33, 1), *CAUSAL),
    ((31, 2), (31, 2), *CIRCULAR),
    ((16, 32), (5, 32), *CIRCULAR),
    ((7, 33), (7, 4), (True, False), ("zero", "circular")),
    ((3, 31), (3, 31), (False, True), ("circular", "zero")),
    ((31, 16), (60, 9), (False, True), ("zero", "zero")),
]
DTYPES = list(TENSOR_CORES)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: every element must be written."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(
    size: tuple[int, int],
    kernel_size: tuple[int, int],
    causal: tuple[bool, bool],
    boundary: tuple[str, str],
    dtype: torch.dtype,
    batch: int = 3,
    channels: int = 2,
) -> tuple[Tensor, Tensor, Tensor, Problem]:
    """Signal, cotangent and taps, as an engine meets them, and their problem."""
    x, grad = torch.randn(2, batch, channels, *size, device=DEVICE).to(dtype)
    taps = torch.randn(channels, *kernel_size, device=DEVICE)
    problem = Problem.of(x, taps, causal=causal, boundary=boundary, training=True)
    return x, grad, shorten(taps, problem), shortened(problem)


def convolved(x: Tensor, taps: Tensor, problem: Problem) -> Tensor:
    return REFERENCE.run(x.double(), taps.double(), problem)


def check(x: Tensor, grad: Tensor, taps: Tensor, problem: Problem) -> None:
    """Values and both gradients are right, have the dtypes they should, and the taps' does not depend on dx."""
    tolerance = TENSOR_CORES[problem.dtype]
    y = MONARCH2D.run(x, MONARCH2D.prepare(taps, problem), problem)
    dx, dtaps = MONARCH2D.adjoint(grad, x, taps, problem, True, True)
    right = REFERENCE.adjoint(grad.double(), x.double(), taps.double(), problem, True, True)
    assert dx is not None
    assert dtaps is not None
    assert right[0] is not None
    assert right[1] is not None
    assert (y.dtype, dx.dtype, dtaps.dtype) == (problem.dtype, problem.dtype, torch.float32)
    assert_close(y, convolved(x, taps, problem), "output", tolerance)
    assert_close(dx, right[0], "dx", tolerance)
    assert_close(dtaps, right[1], "dtaps", min(tolerance, TENSOR_CORES[torch.float16]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("size", "kernel_size", "causal", "boundary"), CASES, ids=str)
def test_is_the_convolution(
    size: tuple[int, int],
    kernel_size: tuple[int, int],
    causal: tuple[bool, bool],
    boundary: tuple[str, str],
    dtype: torch.dtype,
) -> None:
    check(*draw(size, kernel_size, causal, boundary, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_square_images(dtype: torch.dtype) -> None:
    check(*draw((64, 64), (4, 15), *CENTRED, dtype, batch=1, channels=1))
    check(*draw((32, 32), (33, 13), *CENTRED, dtype, batch=2, channels=1))


def test_kernels_of_twice_the_image() -> None:
    check(*draw((32, 32), (63, 62), *CENTRED, torch.bfloat16, batch=3, channels=1))


def test_large_images_by_passes() -> None:
    x, grad, taps, problem = draw((100, 70), (9, 8), *CENTRED, torch.bfloat16, batch=2, channels=1)
    assert not fits(problem)
    check(x, grad, taps, problem)


@pytest.mark.parametrize(
    ("size", "kernel_size", "causal", "boundary", "dtype"),
    [
        ((65, 3), (12, 4), *CENTRED, torch.float32),
        ((2, 67), (2, 67), *CIRCULAR, torch.bfloat16),
        ((70, 2), (70, 2), (True, False), ("zero", "circular"), torch.float16),
        ((34, 2), (67, 1), *CENTRED, torch.float32),
    ],
    ids=str,
)
def test_passes_in_slices(
    size: tuple[int, int],
    kernel_size: tuple[int, int],
    causal: tuple[bool, bool],
    boundary: tuple[str, str],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from omniconv.engines.triton import monarch2d_passes

    # Room for two images or so: the batch of three is cut, and the channels.
    monkeypatch.setattr(monarch2d_passes, "WORKSPACE", 2**17)
    check(*draw(size, kernel_size, causal, boundary, dtype))


@pytest.mark.parametrize("batch", [1, 2, 5, 9])
def test_batches_of_any_size(batch: int) -> None:
    check(*draw((5, 7), (3, 4), *CENTRED, torch.bfloat16, batch=batch))


def test_programs_that_sum_over_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from omniconv.engines.triton import monarch2d

    # Few programs: each goes through several groups of images.
    for programs in (1, 5):
        monkeypatch.setattr(monarch2d, "PROGRAMS", programs)
        check(*draw((17, 20), (3, 4), *CENTRED, torch.float32, batch=9))


@pytest.mark.parametrize("size", [(9, 17), (65, 1)], ids=str)
def test_strided_signals(size: tuple[int, int]) -> None:
    x, grad, taps, problem = draw(size, (3, 2), *CENTRED, torch.float32, batch=2)
    apart = torch.randn(*x.shape[:3], 2 * x.shape[3], device=DEVICE)[..., ::2].copy_(x)
    channels_last = grad.to(memory_format=torch.channels_last)
    assert not apart.is_contiguous()
    assert not channels_last.is_contiguous()
    check(apart, channels_last, taps, problem)
    one = x[:1].expand(2, -1, -1, -1)
    check(one, grad.transpose(2, 3).contiguous().transpose(2, 3), taps, problem)


@pytest.mark.parametrize("axis", [0, 2, 3])
@pytest.mark.parametrize("size", [(9, 9), (9, 65)], ids=str)
def test_samples_may_lie_further_apart_than_32_bits_count(size: tuple[int, int], axis: int) -> None:
    x, grad, taps, problem = draw(size, (3, 2), *CENTRED, torch.bfloat16, batch=2, channels=1)
    assert fits(problem) == (size == (9, 9))
    stride = list(x.stride())
    stride[axis] = -(-(2**31) // (x.shape[axis] - 1))
    torch.use_deterministic_algorithms(False)  # memory between the samples is not touched
    room = torch.empty((x.shape[axis] - 1) * stride[axis] + x.numel(), dtype=x.dtype, device=DEVICE)
    torch.use_deterministic_algorithms(True)
    far = room.as_strided(x.shape, stride).copy_(x)
    spectrum = MONARCH2D.prepare(taps, problem)
    assert torch.equal(MONARCH2D.run(far, spectrum, problem), MONARCH2D.run(x, spectrum, problem))
    for one, other in ((grad, far), (far, grad)):
        found = MONARCH2D.adjoint(one, other, taps, problem, False, True)[1]
        near = [x if signal is far else signal for signal in (one, other)]
        expected = MONARCH2D.adjoint(near[0], near[1], taps, problem, False, True)[1]
        assert found is not None
        assert expected is not None
        assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [(9, 17), (65, 1)], ids=str)
@pytest.mark.parametrize("which", [(True, False), (False, True), (True, True), (False, False)], ids=str)
def test_gates(size: tuple[int, int], which: tuple[bool, bool]) -> None:
    x, grad, taps, problem = draw(size, (4, 3), *CENTRED, torch.bfloat16)
    # One gate too large for float16, one whose images are not contiguous.
    before = grad * 1e6 if which[0] else None
    after = (grad + 1).to(memory_format=torch.channels_last) if which[1] else None
    assert GATED is not None
    y = GATED(x, MONARCH2D.prepare(taps, problem), problem, before, after)
    right = convolved(x if before is None else x.double() * before.double(), taps, problem)
    assert_close(y, right if after is None else right * after.double(), "output", TENSOR_CORES[torch.bfloat16])


def test_gates_of_part_of_a_tensor() -> None:
    x, grad, taps, problem = draw((9, 17), (4, 3), *CENTRED, torch.float32)
    before, after = torch.cat([grad, x, grad + 1], 1)[:, 1:5].chunk(2, 1)
    assert GATED is not None
    y = GATED(x, MONARCH2D.prepare(taps, problem), problem, before, after)
    right = convolved(x.double() * before.double(), taps, problem) * after.double()
    assert_close(y, right, "output", TENSOR_CORES[torch.float32])


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(17, 9), (2, 65)], ids=str)
def test_any_scale(size: tuple[int, int], dtype: torch.dtype, scale: float) -> None:
    x, grad, taps, problem = draw(size, (5, 5), *CENTRED, dtype, batch=2, channels=1)
    check(x * scale, grad, taps, problem)
    check(x, grad * scale, taps * scale, problem)


@pytest.mark.parametrize("size", [(17, 9), (65, 1)], ids=str)
def test_every_image_and_channel_has_its_scale(size: tuple[int, int]) -> None:
    x, _, taps, problem = draw(size, (5, 5), *CENTRED, torch.bfloat16, batch=4)
    x *= torch.tensor([1e-8, 1.0, 1e6, 0.0], device=DEVICE)[:, None, None, None]
    taps *= torch.tensor([1e-6, 1e6], device=DEVICE)[:, None, None]
    y = MONARCH2D.run(x, MONARCH2D.prepare(taps, problem), problem)
    right = convolved(x, taps, problem)
    for image in range(3):
        for channel in range(2):
            what = f"image {image}, channel {channel}"
            assert_close(y[image, channel], right[image, channel], what, TENSOR_CORES[torch.bfloat16])
    assert not y[3].any()


@pytest.mark.parametrize("size", [(17, 9), (65, 1)], ids=str)
def test_zeros(size: tuple[int, int]) -> None:
    x, grad, taps, problem = draw(size, (3, 3), *CENTRED, torch.float16)
    nothing = torch.zeros_like(taps)
    assert not MONARCH2D.run(x, MONARCH2D.prepare(nothing, problem), problem).any()
    dx, dtaps = MONARCH2D.adjoint(torch.zeros_like(grad), x, taps, problem, True, True)
    assert dx is not None
    assert dtaps is not None
    assert not dx.any()
    assert not dtaps.any()


@pytest.mark.parametrize("size", [(5, 5), (65, 1)], ids=str)
def test_images_do_not_meet(size: tuple[int, int]) -> None:
    x, _, taps, problem = draw(size, (3, 3), *CENTRED, torch.float32)
    spectrum = MONARCH2D.prepare(taps, problem)
    right = MONARCH2D.run(x, spectrum, problem)
    x[1, 0, 0, 0] = float("nan")
    y = MONARCH2D.run(x, spectrum, problem)
    assert y[1, 0].isnan().any()
    assert torch.equal(y[[0, 2]], right[[0, 2]])
    assert torch.equal(y[1, 1], right[1, 1])


@pytest.mark.parametrize("size", [(9, 6), (65, 1)], ids=str)
def test_one_gradient_alone(size: tuple[int, int]) -> None:
    x, grad, taps, problem = draw(size, (3, 3), *CENTRED, torch.float16)
    dx, dtaps = MONARCH2D.adjoint(grad, x, taps, problem, True, True)
    assert dx is not None
    assert dtaps is not None
    only, none = MONARCH2D.adjoint(grad, x, taps, problem, True, False)
    assert none is None
    assert only is not None
    assert torch.equal(only, dx)
    none, only = MONARCH2D.adjoint(grad, x, taps, problem, False, True)
    assert none is None
    assert only is not None
    assert torch.equal(only, dtaps)
    assert MONARCH2D.adjoint(grad, x, taps, problem, False, False) == (None, None)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = draw((9, 6), (3, 3), *CENTRED, torch.float32)[3]
    line = Problem.of(torch.zeros(1, 1, 8, device=DEVICE), torch.zeros(1, 3, device=DEVICE))
    assert MONARCH2D.reject(problem) is None
    refused = {
        "the device is xpu; it needs a CUDA device": replace(problem, device="xpu"),
        "the signal has 1 axis; it needs images, of two": line,
        "the taps mix channels; it needs a kernel of its own for every channel": replace(problem, depthwise=False),
        "the signal is of torch.float64; it needs float32, float16 or bfloat16": replace(problem, dtype=torch.float64),
        "the images are of (9, 513) samples; it needs at most 512 per axis": replace(problem, size=(9, 513)),
    }
    for reason, unable in refused.items():
        assert MONARCH2D.reject(unable) == reason
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert MONARCH2D.reject(replace(problem, device="cpu")) == "the device is cpu; it needs a CUDA device"


def test_work() -> None:
    problem = draw((32, 32), (63, 63), *CENTRED, torch.bfloat16, batch=8, channels=768)[3]
    assert work(replace(problem, device="cpu")) is None
    assert adjoint_work(replace(problem, device="cpu"), True, True) is None
    amounts = work(replace(problem, device="cuda"))
    assert amounts is not None
    launches, moved, flops = amounts
    images = 8 * 768
    transform = 4 * 32 * 32 * 32 + 8 * 32 * 32 * 64
    taps = 4 * 63 * 63 * 32 + 8 * 63 * 32 * 64
    assert launches == 2
    assert flops == 2 * images * transform + 768 * taps
    assert moved == 2 * images * 32 * 32 * 2 + 768 * (4 * 63 * 63 + 4 * 32 * 64 * 2)
    large = work(replace(problem, device="cuda", size=(256, 256)))
    assert large is not None
    assert all(more > less for more, less in zip(large, amounts, strict=True))
    both = adjoint_work(replace(problem, device="cuda"), True, True)
    assert both == tuple(2 * amount for amount in amounts)
