"""Bounds on the error of outputs: never violated, and reached."""

from __future__ import annotations

import math

import pytest
import torch

from omniconv import convolve
from omniconv.recurrence import Certificate, Recurrence, certify, distill
from omniconv.testing import assert_close
from tests.recurrence.systems import system, taps_of


def pair_of_kernels(length: int = 48) -> tuple[torch.Tensor, Recurrence, Certificate]:
    taps = taps_of(*system(3, 4, radius=0.9), torch.ones(3).double(), length)
    recurrence, report = distill(taps, order=4)
    return taps, recurrence, report.certificate


def error_of(taps: torch.Tensor, recurrence: Recurrence, x: torch.Tensor) -> torch.Tensor:
    """The difference of outputs, by the definition of the convolution."""
    kernel = torch.nn.functional.pad(taps, (0, max(0, x.shape[-1] - taps.shape[1])))[:, : x.shape[-1]]
    difference = kernel - recurrence.taps(x.shape[-1])
    return torch.stack([(difference[:, : t + 1].flip(1) * x[0, :, : t + 1]).sum(1) for t in range(x.shape[-1])], 1)


def test_norms_over_a_long_time() -> None:
    taps, recurrence, found = pair_of_kernels()
    error = torch.nn.functional.pad(taps, (0, 20_000)) - recurrence.taps(20_048)
    for bound, exact in ((found.l1, error.abs().sum(1)), (found.l2, error.square().sum(1).sqrt())):
        assert (bound >= exact * (1 - 1e-12)).all()
        assert_close(bound, exact, tolerance=1e-3)
    spectrum = torch.fft.rfft(error, 2**18).abs().amax(1)
    assert (found.peak >= spectrum).all()
    assert (found.peak <= 1.2 * spectrum).all()
    assert found.horizon is None


@pytest.mark.parametrize("length", [20, 48, 300])
def test_adversarial_signals(length: int) -> None:
    """The signal that reaches the sum of |e|, that which reaches its norm, and the worst sine."""
    taps, recurrence, found = pair_of_kernels()
    e = (torch.nn.functional.pad(taps, (0, 252)) - recurrence.taps(300))[:, :length]
    worst = e.flip(1)
    reached = error_of(taps, recurrence, worst.sign()[None])[:, -1]
    assert (reached <= found.l1 * (1 + 1e-12)).all()
    assert_close(reached, e.abs().sum(1))
    reached = error_of(taps, recurrence, (worst / worst.norm(dim=1, keepdim=True))[None])[:, -1]
    assert (reached <= found.l2 * (1 + 1e-12)).all()
    for frequency in torch.linspace(0, math.pi, 7, dtype=torch.float64):
        wave = torch.cos(frequency * torch.arange(length, dtype=torch.float64)).expand(1, 3, -1)
        assert (error_of(taps, recurrence, wave).norm(dim=1) <= found.peak * wave[0].norm(dim=1)).all()


def test_slow_poles_behind_the_taps_count() -> None:
    """A sum that goes on for a million samples."""
    recurrence = Recurrence(
        torch.tensor([[1 - 1e-5]], dtype=torch.float64) + 0j, torch.tensor([[1e-3]]) + 0j, torch.zeros(1)
    )
    found = certify(torch.zeros(1, 8), recurrence)
    assert_close(found.l1, torch.tensor([100.0]).double(), tolerance=1e-6)
    assert_close(certify(torch.zeros(1, 8), recurrence, horizon=8).l1, torch.tensor([7e-3]).double(), tolerance=1e-3)


def test_a_million_samples_stay_within_the_bound() -> None:
    """Of the outputs that the library computes: for the signal that reaches it, for noise and for a step."""
    length, poles = 10**6, torch.tensor([[1 - 1e-5 + 0j, 0.9 + 0.3j]], dtype=torch.complex128)
    recurrence = Recurrence(poles, torch.tensor([[1e-3 + 0j, 0.5 - 0.2j]]), torch.ones(1))
    taps = recurrence.taps(1000) + 1e-3 * torch.randn(1, 1000, dtype=torch.float64)  # what comes later is missing
    found = certify(taps, recurrence, horizon=length)
    missing = torch.nn.functional.pad(taps, (0, length - 1000)) - recurrence.taps(length)
    signals = torch.stack([missing[0].flip(0).sign(), torch.rand(length).double() * 2 - 1, torch.ones(length).double()])
    error = convolve(signals[:, None], taps, causal=True) - recurrence.prefill(signals[:, None])[0]
    reached = error.abs().amax((1, 2))
    assert (reached <= found.l1 * (1 + 1e-9)).all()
    assert_close(reached[:1], found.l1, tolerance=1e-6)


def test_poles_on_the_unit_circle_have_no_bound() -> None:
    recurrence = Recurrence(torch.tensor([[1 + 0j]]), torch.tensor([[1 + 0j]]), torch.zeros(1))
    found = certify(torch.zeros(1, 8), recurrence)
    assert found.l1.item() == found.l2.item() == found.peak.item() == math.inf


def test_a_horizon_leaves_the_rest_out() -> None:
    taps, recurrence, _ = pair_of_kernels()
    found = certify(taps, recurrence, horizon=10)
    assert_close(found.l1, (taps - recurrence.taps(48))[:, :10].abs().sum(1))
    assert found.horizon == 10


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="`taps` must have the 3 channels of the recurrence"):
        certify(torch.zeros(2, 8), pair_of_kernels()[1])


def test_states_are_counted_from_none() -> None:
    taps, recurrence, _ = pair_of_kernels()
    assert (certify(taps, recurrence, states=0).hankel >= certify(taps, recurrence, states=1).hankel).all()
    with pytest.raises(ValueError, match="`states` must be at least 0; got -1"):
        certify(taps, recurrence, states=-1)
    with pytest.raises(TypeError, match=r"`states` must be an integer; got float 2\.0"):
        certify(taps, recurrence, states=2.0)  # type: ignore[arg-type]


def test_relative_errors_count_the_same_lags_above_and_below() -> None:
    taps = torch.cat([torch.ones(1, 16), 100 * torch.ones(1, 16)], 1)
    silent = Recurrence(torch.zeros(1, 1) + 0j, torch.zeros(1, 1) + 0j, torch.zeros(1))
    assert certify(taps, silent, horizon=16).relative.item() == 1.0


@pytest.mark.parametrize("scale", [1e-200, 1e160])
def test_tiny_and_huge_taps(scale: float) -> None:
    taps = scale * taps_of(*system(2, 2, radius=0.9), torch.ones(2).double(), 48)
    recurrence, report = distill(taps, order=2)
    plain = distill(taps / scale, order=2)[1].certificate
    assert_close(report.certificate.relative, plain.relative, tolerance=1e-6)
    assert recurrence.residues.abs().isfinite().all()


def test_channels_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    taps, recurrence, found = pair_of_kernels()
    monkeypatch.setattr("omniconv.recurrence.certificate.ELEMENTS", 1)
    again = certify(taps, recurrence)
    for name in ("l1", "l2", "peak", "size"):
        assert_close(getattr(again, name), getattr(found, name))
