"""The filter of Hyena against its formula, and its band limit against its spectrum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from omniconv.kernels import HyenaFilter

F64 = torch.float64


def harmonics(p: np.ndarray, highest: float, bands: int) -> np.ndarray:
    """Features of positions on one axis: the position, and real and imaginary part of every band."""
    f = np.linspace(1e-4, highest, bands)
    waves = np.exp(2j * math.pi * f * p[:, None])
    return np.concatenate([p[:, None], waves.real, waves.imag], axis=1)


def network(kernel: HyenaFilter, z: np.ndarray) -> np.ndarray:
    """The sine network on features."""
    w = kernel.frequency.detach().numpy()
    weights = [kernel.weight, *kernel.hidden_weight]
    for A, a in zip(weights, [kernel.bias, *kernel.hidden_bias], strict=True):
        z = np.sin(w * (z @ A.detach().numpy().T + a.detach().numpy()))
    return z @ kernel.output_weight.detach().numpy().T


@pytest.mark.parametrize("depth", [2, 4])
def test_formula(depth: int) -> None:
    kernel = HyenaFilter(1, 5, reach=40, causal=True, bands=4, hidden=7, depth=depth, shift=0.2, dtype=F64)
    with torch.no_grad():
        kernel.frequency.uniform_(0.5, 2.0)  # one per unit, the same in every layer
    p = np.random.default_rng(0).uniform(0, 1, 30)
    # After 1.5 reaches the first channel has fallen to 1/100, after 0.3 the last; the rates between are even.
    rates = np.linspace(math.log(100) / 1.5, math.log(100) / 0.3, 5)
    window = np.exp(-rates * p[:, None]) + 0.2
    expected = torch.from_numpy(network(kernel, harmonics(p, 3.0, 4)) * window)
    torch.testing.assert_close(kernel(torch.from_numpy(p)[:, None]), expected)


def test_formula_on_two_axes() -> None:
    kernel = HyenaFilter(2, 3, reach=(40, 5), causal=(True, False), bands=4, hidden=6, fast=0.2, slow=2.0, dtype=F64)
    p = np.random.default_rng(0).uniform((0, -1), 1, (30, 2))
    # Three periods per reach are above the Nyquist frequency of a reach of five samples, two and a half periods.
    z = np.concatenate([harmonics(p[:, 0], 3.0, 4), harmonics(p[:, 1], 2.5, 4)], axis=1)
    rates = np.linspace(math.log(100) / 2.0, math.log(100) / 0.2, 3)
    window = np.exp(-rates * np.abs(p).sum(1, keepdims=True))
    torch.testing.assert_close(kernel(torch.from_numpy(p)), torch.from_numpy(network(kernel, z) * window))


def test_a_single_channel_has_the_slow_window() -> None:
    kernel = HyenaFilter(1, 1, reach=10, slow=0.7, dtype=F64)
    p = torch.tensor([[-0.7], [0.0], [0.35]], dtype=F64)
    torch.testing.assert_close(kernel.window(p)[:, 0], torch.tensor([0.01, 1.0, 0.1], dtype=F64))


def test_initial_distribution_is_that_of_linear_layers() -> None:
    kernel = HyenaFilter(1, 300, reach=100, hidden=100, frequency=14.0)
    assert torch.equal(kernel.frequency, torch.full((100,), 14.0))
    for values, inputs in [(kernel.weight, 33), (kernel.bias, 33), (kernel.hidden_weight[1], 100)]:
        bound = inputs**-0.5
        assert 0.95 * bound < values.abs().max() <= bound
        assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)


@pytest.mark.parametrize(("depth", "frequency"), [(2, 1.0), (2, 14.0), (3, 10.0), (4, 1.0), (4, 5.0)])
def test_bandlimit_holds_the_energy_of_the_network(depth: int, frequency: float) -> None:
    reach, oversampling, above = 1023, 8, []
    p = (torch.arange(reach * oversampling, dtype=F64) / (reach * oversampling))[:, None]
    taper = torch.sin(math.pi * p).square()
    for _ in range(4):
        kernel = HyenaFilter(1, 16, reach=reach, causal=True, depth=depth, frequency=frequency, dtype=F64)
        with torch.no_grad():
            energy = torch.fft.rfft(taper * kernel(p) / kernel.window(p), dim=0).abs().square().sum(1)
        nyquist = reach / 2  # periods per unit of position
        limit = kernel.bandwidths().sum().item()
        above.append((energy[math.ceil(limit * nyquist) :].sum() / energy.sum()).item())
        assert limit < 2
    assert sum(above) / len(above) < 0.01


def test_bandlimit_formula_on_two_axes() -> None:
    kernel = HyenaFilter(2, 1, reach=(30, 50), bands=3, hidden=5, depth=3, dtype=F64)
    w = kernel.frequency.detach().numpy()
    A, B = kernel.weight.detach().numpy(), kernel.hidden_weight[0].detach().numpy()
    f = 2 * math.pi * np.linspace(1e-4, 2.0, 3)
    for axis, reach in enumerate((30, 50)):
        one, cosine, sine = (A[:, 7 * axis], A[:, 7 * axis + 1 : 7 * axis + 4], A[:, 7 * axis + 4 : 7 * axis + 7])
        first = w**2 * (one**2 + ((cosine**2 + sine**2) * f**2).sum(1) / 2)
        slope = np.sqrt((w**2 * (B**2 @ first) / 2).max())
        assert kernel.bandwidths()[0, axis].item() == pytest.approx((f[-1] + 2.5 * slope) / (math.pi * reach))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": 0}, "`bands` must be at least 1; got 0"),
        ({"hidden": 0}, "`hidden` must be at least 1; got 0"),
        ({"depth": 1}, "`depth` must be at least 2; got 1"),
        ({"frequency": 0.0}, "`frequency` must be finite and above 0; got 0.0"),
        ({"fast": -1.0}, "`fast` must be finite and above 0; got -1.0"),
        ({"slow": math.inf}, "`slow` must be finite and above 0; got inf"),
        ({"shift": -0.1}, "`shift` must be finite and at least 0; got -0.1"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HyenaFilter(1, 2, reach=4, **options)
