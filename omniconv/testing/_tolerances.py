"""The tolerances of the library, in one place and the same everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Relative error in the Euclidean norm that a result of each precision may have."""

TENSOR_CORES = {torch.float32: 1e-5, torch.bfloat16: 3e-3, torch.float16: 2e-3}
"""The same for an engine that multiplies on tensor cores: float32 as three products of tf32, half precision as it is.
Its gradient of the taps of a signal in half precision, though in float32, has the error of float16.
"""


def assert_close(actual: Tensor, expected: Tensor, what: str = "result", tolerance: float | None = None) -> None:
    """Raise `AssertionError` unless |actual - expected| <= tolerance |expected|, in the Euclidean norm.

    `tolerance`: None takes that of the dtype of `actual`. `expected` may have a higher precision, and should.

    >>> assert_close(torch.tensor([1.0]), torch.tensor([1.0 + 1e-9], dtype=torch.float64))
    """
    limit = TOLERANCE[actual.dtype.to_real()] if tolerance is None else tolerance
    expect(actual.shape == expected.shape, f"{what} has shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
    exact = torch.complex128 if actual.is_complex() or expected.is_complex() else torch.float64
    error, size = (actual.to(exact) - expected.to(exact)).norm().item(), expected.to(exact).norm().item()
    expect(
        error <= limit * max(size, torch.finfo(torch.float64).tiny),
        f"{what}: relative error {error / (size or 1):.2e} above {limit:.0e}",
    )


def expect(condition: bool, message: str) -> None:
    """Raise `AssertionError` with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)
