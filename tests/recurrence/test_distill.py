"""Fitting recurrences to taps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from torch import Tensor

from omniconv import Conv1d, Full, Gaussian
from omniconv.kernels import SIREN, HyenaFilter, Modal
from omniconv.recurrence import certify, distill, hankel_singular_values
from omniconv.recurrence.poles import METHODS, one_of_each_pair
from omniconv.recurrence.polish import levenberg_marquardt
from omniconv.recurrence.residues import fit_residues, responses
from omniconv.testing import assert_close
from tests.recurrence.systems import system, taps_of


def trained_like(name: str, length: int) -> Tensor:
    """Eight smooth kernels of networks, which fade out."""
    torch.manual_seed(0)
    at = (torch.arange(length, dtype=torch.float64) / (length - 1))[:, None]
    if name == "hyena":
        return HyenaFilter(1, 8, reach=length - 1, causal=True).double()(at).detach().T.contiguous()
    values = SIREN(1, 8, reach=length - 1, causal=True, bandwidth=0.05).double()(at).detach()
    return (values * torch.exp(-(at**2) / 2 / 0.2**2)).T.contiguous()


@pytest.mark.parametrize("method", ["esprit", "balanced"])
@pytest.mark.parametrize(("pairs", "reals", "length"), [(1, 0, 16), (2, 1, 65), (4, 0, 300), (8, 2, 1100)])
def test_a_random_stable_system_is_recovered(pairs: int, reals: int, length: int, method: str) -> None:
    poles, residues = system(3, pairs, reals, radius=0.95)
    taps = taps_of(poles, residues, torch.randn(3).double(), length)
    found, report = distill(taps, order=2 * pairs + reals, method=method, horizon=length)
    assert (found.taps(length) - taps).norm() < 1e-8 * taps.norm()
    assert report.certificate.relative.max() < 1e-8
    assert report.order == 2 * pairs + reals


@pytest.mark.parametrize(("method", "bar"), [("prony", 1e-4), ("interpolation", 1e-2)])
def test_the_other_methods_come_near(method: str, bar: float) -> None:
    taps = taps_of(*system(2, 1, radius=0.9), torch.ones(2).double(), 80)
    found, _ = distill(taps, order=2, method=method, steps=500)
    assert (found.taps(80) - taps).norm() < bar * taps.norm()


@pytest.mark.parametrize("name", ["hyena", "siren"])
@pytest.mark.parametrize("order", [8, 16, 32, 64])
def test_within_twice_the_hankel_bound(name: str, order: int) -> None:
    taps = trained_like(name, 257)
    recurrence, report = distill(taps, order=order, horizon=257, hankel=True)
    found = report.certificate
    assert torch.equal(found.hankel, hankel_singular_values(taps)[:, order])
    assert (found.l2 < 2 * found.hankel).all()
    everywhere = certify(taps, recurrence)  # behind the taps too, where no recurrence of this order does better:
    assert (everywhere.peak > found.hankel).all()
    assert (everywhere.l1 > found.hankel).all()


@pytest.mark.parametrize("name", ["hyena", "siren"])
@pytest.mark.parametrize("order", [8, 16, 32])
def test_within_twice_the_hankel_bound_behind_the_taps_too(name: str, order: int) -> None:
    """A fit to the taps alone may ring on for long behind them."""
    taps = trained_like(name, 257)
    taps = taps / (1 + torch.exp((torch.arange(257) - 200) / 12.0))  # falls silent within its reach
    _, report = distill(taps, order=order, hankel=True)
    assert (report.certificate.l2 < 2 * report.certificate.hankel).all()


def test_the_polish_lowers_the_error() -> None:
    response = trained_like("siren", 200)[:, 1:]
    poles, there = one_of_each_pair(METHODS["esprit"](response, 8), 0.9999)
    residues = fit_residues(response, poles, there)
    before = (response - responses(poles, residues, 199)).square().sum(1)
    poles, residues = levenberg_marquardt(response, poles, residues, there, steps=10, radius=0.9999)
    after = (response - responses(poles, residues, 199)).square().sum(1)
    assert (after <= before).all()
    assert after.sum() < 0.95 * before.sum()
    assert (poles.abs() <= 0.9999 + 1e-12).all()


def test_the_polish_finds_a_system_from_nearby() -> None:
    poles, residues = system(2, 2, 1, radius=0.9)
    response = taps_of(poles, residues, torch.ones(2).double(), 101)[:, 1:]
    there = torch.ones(2, 3, dtype=torch.bool)
    near = poles * torch.where(poles.imag == 0, 0.98, torch.polar(torch.tensor(0.98), torch.tensor(0.02)))
    found = levenberg_marquardt(response, near, residues * 1.1, there, steps=40, radius=0.9999)
    assert (response - responses(*found, 100)).norm() < 1e-8 * response.norm()


def test_what_an_order_stores() -> None:
    """A real pole takes a complex number, as a pair does, and all channels as many as the one with the most."""
    pairs = taps_of(*system(1, 2, 0, radius=0.9), torch.ones(1).double(), 80)
    lags = torch.arange(80, dtype=torch.float64)
    reals = torch.stack([0.9**lags, 0.6**lags, (-0.7) ** lags, 0.2**lags]).sum(0)[None]
    for taps, modes in ((pairs, 2), (reals, 4), (torch.cat([pairs, reals]), 4)):
        found, report = distill(taps, order=4)
        assert (report.order, found.modes, found.init_state(1).shape[-1]) == (4, modes, modes)


def test_the_smallest_order_within_the_tolerance() -> None:
    taps = trained_like("hyena", 257)
    found, report = distill(taps, tol=1e-2, horizon=257)
    assert report.certificate.relative.max() <= 1e-2
    _, smaller = distill(taps, order=report.order // 2, horizon=257)
    assert smaller.certificate.relative.max() > 1e-2
    assert found.poles.abs().max() < 1


def test_noise_has_no_recurrence() -> None:
    with pytest.raises(
        ValueError, match=r"`tol` \(=0.01\) is not met by any order up to 16: .* keep this kernel as taps"
    ):
        distill(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)), tol=0.01)


def test_poles_stay_inside_for_growing_taps() -> None:
    taps = 1.05 ** torch.arange(64.0)[None]
    found, _ = distill(taps, order=4, refine=20)
    assert found.poles.abs().max() <= 1 - 1 / (20 * 64)


def test_silent_channels_stay_silent() -> None:
    taps = trained_like("siren", 64)
    taps[3] = 0
    found, report = distill(taps, order=8)
    assert (found.taps(100)[3] == 0).all()
    assert report.certificate.relative[3] == 0


@pytest.mark.parametrize("method", [*METHODS, "interpolation"])
@pytest.mark.parametrize("horizon", [None, 64])
def test_channels_with_nothing_to_predict_from_leave_the_others_alone(method: str, horizon: int | None) -> None:
    """Silent ones have the recurrence of zeros, an impulse at the end is not reached: no worse than silence."""
    taps = torch.zeros(5, 64, dtype=torch.float64)
    taps[1, 0], taps[2, 63], taps[3, 30] = 2.0, 1.0, 1.0
    taps[4] = 0.9 ** torch.arange(64)
    found, report = distill(taps, order=2, method=method, horizon=horizon, steps=20)
    assert (found.taps(200)[0] == 0).all()
    assert_close(found.taps(200)[1], torch.nn.functional.pad(taps[1], (0, 136)))
    alone = distill(taps[4:], order=2, method=method, horizon=horizon, steps=20)[0]
    if method != "interpolation":  # whose start is drawn for all channels together
        assert (report.certificate.relative[2:4] < 1 + 1e-9).all()
        assert (found.taps(64)[4:] - alone.taps(64)).abs().max() < 1e-8


@pytest.mark.parametrize("order", [1, 2, 8, 31])
@pytest.mark.parametrize("first", [1e-200, 1e-170, 1e-20, 1e-10])
def test_prediction_from_next_to_nothing(order: int, first: float) -> None:
    taps = torch.full((1, 64), first, dtype=torch.float64)
    taps[0, -1] = 1.0
    found, report = distill(taps, order=order, method="prony", horizon=64)
    assert found.taps(64).isfinite().all()
    assert report.certificate.relative.max() < 1 + 1e-9


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("method", [*METHODS, "interpolation"])
def test_whatever_the_mode_of_gradients(method: str, mode: Callable[[], AbstractContextManager[None]]) -> None:
    taps = trained_like("siren", 64)[:2]
    expected = distill(taps, order=4, method=method, steps=20)[0].taps(64)
    with mode():
        found = distill(taps * 1.0, order=4, method=method, steps=20)[0].taps(64)
    assert torch.equal(found, expected)


def test_the_same_taps_give_the_same_recurrence() -> None:
    taps = trained_like("hyena", 1200)
    first, second = (distill(taps, order=8)[0] for _ in range(2))
    assert torch.equal(first.poles, second.poles)
    assert torch.equal(first.residues, second.residues)


def test_the_report_is_a_table() -> None:
    told = str(distill(trained_like("siren", 64), order=8)[1])
    assert "order 8, esprit, 8 channels, largest pole 0." in told
    assert "relative l2" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 40}, r"`order` \(=40\) must be at most 31, half of the lags"),
        ({"order": 4, "tol": 0.1}, r"`order` and `tol` exclude each other; got 4 and 0.1"),
        ({"order": 0}, r"`order` must be at least 1; got 0"),
        ({"tol": 0.0}, r"`tol` must be finite and above 0"),
        ({"method": "pade"}, r"`method` must be one of 'esprit', 'balanced', 'prony', 'interpolation'; got 'pade'"),
        ({"refine": -1}, r"`refine` must be at least 0"),
        ({"order": 1, "method": "interpolation"}, r"`order` must be at least 2 for method=.interpolation"),
        ({"horizon": 0}, r"`horizon` must be at least 1"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distill(torch.ones(1, 64), **options)  # type: ignore[arg-type]


def test_too_few_taps() -> None:
    with pytest.raises(ValueError, match="`taps` must have 4 lags at least; got 3"):
        distill(torch.ones(1, 3))


def test_layers_are_taken_by_their_taps() -> None:
    torch.manual_seed(0)
    layer = Conv1d(2, 3, size=64, causal=True, support=partial(Gaussian, width=0.2))
    found, report = distill(layer, order=8)
    assert found.channels == 6
    assert_close(distill(layer.taps().flatten(0, 1).detach(), order=8)[0].taps(64), found.taps(64))
    assert report.method == "esprit"


@pytest.mark.parametrize("mixing", ["depthwise", "dense"])
def test_modal_layers_are_converted_exactly(mixing: str) -> None:
    torch.manual_seed(0)
    layer = Conv1d(3, 3, size=64, causal=True, kernel=partial(Modal, modes=4), support=Full, mixing=mixing).double()
    found, report = distill(layer, horizon=64)
    assert_close(found.taps(64), layer.taps().detach().reshape(-1, 64))
    assert (report.order, report.method) == (8, "exact")
    assert report.certificate.relative.max() < 1e-12
    assert distill(layer, order=4)[1].method == "esprit"


def test_other_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="`taps`: the layer is not causal on one axis"):
        distill(Conv1d(1, 1, size=16))
    with pytest.raises(TypeError, match=r"`taps` must be a tensor or a Conv; got Linear. .*recurrence.stream\(model\)"):
        distill(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["balanced", "prony", "interpolation"])
def test_the_method_that_is_asked_for_finds_the_poles(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a fit is exact on the taps."""

    def refused(response: torch.Tensor, order: int) -> torch.Tensor:
        raise AssertionError("not this one")

    monkeypatch.setitem(METHODS, "esprit", refused)
    taps = taps_of(*system(1, 1, radius=0.9), torch.ones(1).double(), 80)
    assert distill(taps, order=2, method=method, steps=5)[1].method == method


def test_the_table_has_what_was_computed() -> None:
    taps = taps_of(*system(2, 3), torch.ones(2).double(), 64)
    assert "Hankel" not in str(distill(taps, order=4)[1])
    told = str(distill(taps, order=4, hankel=True)[1])
    assert "Hankel" in told
    assert "nan" not in told
