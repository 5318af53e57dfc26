"""Every engine at sizes around what machines like and dislike, into memory full of NaN."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from omniconv import Problem, convolve
from omniconv.engines import ENGINES
from omniconv.testing import assert_close

SIZES = (1, 2, 3, 7, 64, 100, 127, 128, 1000, 1031)
MODES = {"causal": (True, "zero"), "zero": (False, "zero"), "circular": (False, "circular")}


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """The framework fills memory that it hands out with NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "reference"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", SIZES)
def test_values_and_gradients_in_poisoned_memory(n: int, mode: str, engine: str) -> None:
    causal, boundary = MODES[mode]
    for dtype in (torch.float32, torch.float64):
        for k in sorted({1, min(n, 6), n}):
            x, taps, grad = (torch.randn(shape, dtype=dtype) for shape in ((2, 2, n), (2, k), (2, 2, n)))
            if ENGINES[engine].reject(Problem.of(x, taps, causal=causal, boundary=boundary)):
                continue
            results = []
            for name, kind in ((engine, dtype), ("reference", torch.float64)):
                inputs = x.to(kind).requires_grad_(), taps.to(kind).requires_grad_()
                y = convolve(*inputs, causal=causal, boundary=boundary, engine=name)
                results.append((y.detach(), *torch.autograd.grad(y, inputs, grad.to(kind))))
            for what, made, right in zip(("y", "dx", "dtaps"), *results, strict=True):
                assert_close(made, right, f"{what} of {engine} for {n} samples, {k} taps, {dtype}")
