"""Laws of the predicted times: they grow with the work, and choose what is known to be faster."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch

from omniconv.engines import ENGINES, Problem, select_engine
from omniconv.engines._costs import adjoint_seconds, run_seconds
from omniconv.engines.direct import row_length
from omniconv.engines.fft import frame, levels

SIZES = {1: (96,), 2: (20, 24), 3: (8, 10, 12)}
KERNELS = {1: (5,), 2: (5, 3), 3: (3, 3, 3)}
NAMES = ("direct", "fft")


def cost(name: str, problem: Problem) -> float:
    """Predicted seconds, of the gradients too where the problem is of training."""
    seconds = run_seconds(ENGINES[name], problem)
    return seconds + adjoint_seconds(ENGINES[name], problem, True, True) if problem.training else seconds


@pytest.fixture(params=[False, True], ids=["forward", "training"])
def training(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def problem(
    dim: int,
    *,
    depthwise: bool = True,
    training: bool = False,
    batch: int = 2,
    channels: int = 16,
    size: tuple[int, ...] | None = None,
    kernel_size: tuple[int, ...] | None = None,
    causal: bool = False,
    boundary: str = "zero",
    dtype: torch.dtype = torch.float32,
) -> Problem:
    return Problem(
        batch=batch,
        in_channels=channels,
        out_channels=channels,
        depthwise=depthwise,
        size=size or SIZES[dim],
        kernel_size=kernel_size or KERNELS[dim],
        causal=(causal,) * dim,
        boundary=(boundary,) * dim,
        dtype=dtype,
        device="cpu",
        training=training,
    )


def grid(training: bool) -> list[Problem]:
    """Every mixing, number of axes, boundary and precision."""
    return [
        problem(dim, depthwise=depthwise, training=training, boundary=boundary, dtype=dtype)
        for dim, depthwise, boundary, dtype in product(
            (1, 2, 3), (True, False), ("zero", "circular"), (torch.float32, torch.float64, torch.bfloat16)
        )
    ]


@pytest.mark.parametrize("name", NAMES)
def test_times_are_positive_and_finite(name: str, training: bool) -> None:
    tiny = [
        replace(p, batch=1, in_channels=1, out_channels=1, size=(1,) * p.dim, kernel_size=(1,) * p.dim)
        for p in grid(training)
    ]
    for p in [*grid(training), *tiny]:
        assert 0 < cost(name, p) < math.inf


@pytest.mark.parametrize("name", NAMES)
def test_times_grow_with_batch_channels_and_size(name: str, training: bool) -> None:
    for p in grid(training):
        assert cost(name, replace(p, batch=2 * p.batch)) > cost(name, p)
        wider = replace(p, in_channels=2 * p.in_channels, out_channels=2 * p.out_channels)
        assert cost(name, wider) > cost(name, p)
        for axis in range(p.dim):
            size = tuple(n * (2 if i == axis else 1) for i, n in enumerate(p.size))
            assert cost(name, replace(p, size=size)) > cost(name, p)


def test_direct_time_grows_with_every_tap(training: bool) -> None:
    for dim, depthwise in product((1, 2, 3), (True, False)):
        taps = [(k, *KERNELS[dim][1:]) for k in range(1, 41)] + [(40, *(k + 1 for k in KERNELS[dim][1:]))] * (dim > 1)
        problems = [problem(dim, depthwise=depthwise, training=training, kernel_size=k) for k in taps]
        pairs = [(p, q) for p, q in pairwise(problems) if row_length(p) == row_length(q)]  # longer rows take less time
        assert len(pairs) >= len(problems) - 2
        assert all(cost("direct", shorter) < cost("direct", longer) for shorter, longer in pairs)


def test_fft_time_depends_on_the_kernel_through_the_frame(training: bool) -> None:
    for depthwise in (True, False):
        short, same, long = (
            problem(1, depthwise=depthwise, training=training, size=(96,), kernel_size=(k,), causal=True)
            for k in (32, 33, 96)
        )
        assert frame(short) == frame(same) == (128,)
        assert frame(long) == (192,)
        assert cost("fft", same) == pytest.approx(cost("fft", short), rel=0.05)
        assert cost("fft", same) < cost("fft", long)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_double_precision_cost_extra(name: str, training: bool) -> None:
    for p in grid(training):
        assert cost(name, replace(p, training=True)) >= cost(name, p)
        large = replace(p, batch=64)  # of small ones the calls take most of the time
        single, double = (cost(name, replace(large, dtype=dtype)) for dtype in (torch.float32, torch.float64))
        assert double > single
        assert cost(name, replace(large, dtype=torch.float16)) == single


@pytest.mark.parametrize("length", [1024, 8192, 65536])
def test_three_taps_on_a_long_signal_are_summed(length: int, training: bool) -> None:
    asked = problem(1, training=training, batch=4, channels=64, size=(length,), kernel_size=(3,), causal=True)
    assert select_engine(asked).name in ("direct", "shifts")


@pytest.mark.parametrize("depthwise", [True, False])
def test_a_kernel_as_long_as_its_signal_is_transformed(depthwise: bool, training: bool) -> None:
    asked = problem(
        1, depthwise=depthwise, training=training, batch=4, channels=64, size=(1024,), kernel_size=(1024,), causal=True
    )
    assert select_engine(asked).name == "fft"


@pytest.mark.parametrize("channels", [16, 32, 64])
def test_large_kernels_on_images_are_transformed(channels: int, training: bool) -> None:
    asked = problem(2, training=training, batch=4, channels=channels, size=(32, 32), kernel_size=(33, 33))
    assert select_engine(asked).name == "fft"


def test_the_choice_is_a_function_of_the_problem(training: bool) -> None:
    def choices() -> list[str]:
        select_engine.cache_clear()
        return [select_engine(p).name for p in grid(training)]

    assert choices() == choices()


@pytest.mark.parametrize(
    ("n", "expected"), [(1, 0), (2, 1), (64, 6), (96, 5 + 1.8 * math.log2(3)), (34, 1 + 5 * math.log2(17))]
)
def test_levels_weigh_prime_factors(n: int, expected: float) -> None:
    assert levels(n) == pytest.approx(expected)
