"""Block-Toeplitz products against the definition, in Triton's interpreter where there is no graphics processor."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from omniconv import Problem
from omniconv.engines.reference import REFERENCE
from omniconv.engines.toeplitz import TOEPLITZ
from omniconv.testing import assert_close

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")  # its own
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RELATIVE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 3e-3}
MODES = {"causal": (True, "zero"), "centred": (False, "zero"), "circular": (False, "circular")}
SIZES = (1, 2, 3, 7, 64, 100, 127, 128, 1000, 1031)


def lengths(n: int, mode: str) -> list[int]:
    """Kernel sizes, odd and even, shorter than the signal, as long and longer, as far as a signal can feel."""
    longest = 2 * n - 1 if mode == "centred" else n
    return sorted({k for k in (1, 4, 33, n // 2 + 1, n, n + n // 3, 2 * n - 1) if 1 <= k <= longest})


def operands(n: int, k: int, dtype: torch.dtype, batch: int = 3, channels: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """A signal, taps and a cotangent."""
    x, grad = torch.randn(2, batch, channels, n, device=DEVICE).to(dtype)
    return x, torch.randn(channels, k, device=DEVICE), grad


def check(x: Tensor, taps: Tensor, grad: Tensor, mode: str) -> None:
    """Values and both gradients against the definition in float64."""
    causal, boundary = MODES[mode]
    problem = Problem.of(x, taps, causal=causal, boundary=boundary, training=True)
    assert TOEPLITZ.reject(problem) is None
    exact = (grad.double(), x.double(), taps.double())
    y = TOEPLITZ.run(x, TOEPLITZ.prepare(taps, problem), problem)
    dx, dtaps = TOEPLITZ.adjoint(grad, x, taps, problem, True, True)
    assert dx is not None
    assert dtaps is not None
    assert (y.dtype, dx.dtype, dtaps.dtype) == (x.dtype, x.dtype, torch.float32)
    expected_dx, expected_dtaps = REFERENCE.adjoint(*exact, problem, True, True)
    assert_close(y, REFERENCE.run(*exact[1:], problem), f"y at {x.shape[-1]}, {taps.shape[-1]}", RELATIVE[x.dtype])
    assert expected_dx is not None
    assert expected_dtaps is not None
    assert_close(dx, expected_dx, f"dx at {x.shape[-1]}, {taps.shape[-1]}", RELATIVE[x.dtype])
    assert_close(dtaps, expected_dtaps, f"dtaps at {x.shape[-1]}, {taps.shape[-1]}", RELATIVE[torch.float32])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_values_and_gradients_equal_the_definition(mode: str, n: int) -> None:
    for k in lengths(n, mode):
        check(*operands(n, k, torch.float32), mode)
