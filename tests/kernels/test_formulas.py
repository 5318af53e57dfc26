"""Each kernel against its formula, its frequencies in Nyquist units, and its published form."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from omniconv.kernels import MLP, SIREN, Bumps, Fourier, FourierNet, Free, Gabor, Kernel, Multiscale, Table


def test_table_holds_its_taps_on_the_lattice_and_interpolates_between() -> None:
    kernel = Table(1, 2, reach=3, dtype=torch.float64)
    lattice = torch.arange(-3, 4, dtype=torch.float64)[:, None] / 3
    torch.testing.assert_close(kernel(lattice), kernel.taps)
    torch.testing.assert_close(kernel(lattice[1:] - 1 / 6), (kernel.taps[1:] + kernel.taps[:-1]) / 2)


def test_table_is_bilinear_in_two_dimensions() -> None:
    kernel = Table(2, 1, reach=(1, 2), causal=(True, False), dtype=torch.float64)
    assert kernel.taps.shape == (2, 5, 1)
    p, q = 0.25, 0.6  # row 0.25, column 2 + 1.2
    t = kernel.taps[..., 0]
    expected = (1 - p) * (0.8 * t[0, 3] + 0.2 * t[0, 4]) + p * (0.8 * t[1, 3] + 0.2 * t[1, 4])
    torch.testing.assert_close(kernel(torch.tensor([[p, q]], dtype=torch.float64))[0, 0], expected)


@pytest.mark.parametrize("reach", [6, 7, 8])
@pytest.mark.parametrize("causal", [False, True])
def test_dilated_table_has_zeros_between_its_taps(reach: int, causal: bool) -> None:
    kernel = Table(1, 2, reach=reach, causal=causal, dilation=3, dtype=torch.float64)
    assert kernel.taps.shape == (3 if causal else 5, 2)  # at (-6, -3,) 0, 3, 6
    first = 0 if causal else -reach
    for lag in range(first, reach + 1):
        expected = kernel.taps[(lag - (0 if causal else -6)) // 3] if lag % 3 == 0 else torch.zeros(2)
        assert torch.equal(kernel(torch.tensor([[lag / reach]], dtype=torch.float64))[0], expected.double())


def test_dilated_table_is_multilinear_between_lags() -> None:
    kernel = Table(2, 1, reach=(4, 3), dilation=(2, 3), dtype=torch.float64)
    assert kernel.taps.shape == (5, 3, 1)
    p, q = (2 + 0.25) / 4, -(3 - 0.5) / 3  # a quarter of a sample from lag 2, half a sample from lag -3
    value = kernel(torch.tensor([[p, q]], dtype=torch.float64))
    torch.testing.assert_close(value[0], 0.75 * 0.5 * kernel.taps[3, 0])


def multiscale_lags(size: int, count: int) -> tuple[list[int], list[int]]:
    """Lags and scales of the first taps on one side, from the formula."""
    lags, scales = list(range(size)), [0] * size
    for s in range(1, 20):
        lags += [2 ** (s - 1) * (size + i) for i in range(size)]
        scales += [s] * size
    return lags[:count], scales[:count]


# Sub-kernels of 4: taps at 0 1 2 3 | 4 5 6 7 | 8 10 12 14 | 16 20 24 28 | 32 40 48 56 | 64; of 1: at 0 | 1 | 2 | 4 ...
@pytest.mark.parametrize(("reach", "size", "taps"), [(64, 4, 21), (60, 4, 21), (56, 4, 20), (9, 4, 10), (100, 1, 9)])
def test_causal_multiscale_formula(reach: int, size: int, taps: int) -> None:
    kernel = Multiscale(1, 2, reach=reach, causal=True, size=size, alpha=0.6, dtype=torch.float64)
    assert kernel.taps.shape == (taps, 2)
    lags, scale = multiscale_lags(size, taps)
    t = np.linspace(0, reach, 977)  # any resolution
    heights = kernel.taps.detach().numpy() * 0.6 ** np.array(scale)[:, None]
    expected = np.stack([np.interp(t, lags, heights[:, channel]) for channel in range(2)], axis=1)
    torch.testing.assert_close(kernel(torch.from_numpy(t)[:, None] / reach), torch.from_numpy(expected))


def test_multiscale_has_taps_of_its_own_on_either_side() -> None:
    kernel = Multiscale(1, 1, reach=25, size=4, alpha=0.5, dtype=torch.float64)
    lags, scale = multiscale_lags(4, 16)  # to 28
    both = [-lag for lag in lags[:0:-1]] + lags
    heights = kernel.taps.detach().numpy()[:, 0] * 0.5 ** np.array(scale[:0:-1] + scale)
    assert kernel.taps.shape == (2 * 16 - 1, 1)
    t = np.linspace(-25, 25, 977)
    expected = torch.from_numpy(np.interp(t, both, heights))
    torch.testing.assert_close(kernel(torch.from_numpy(t)[:, None] / 25)[:, 0], expected)


def test_multiscale_on_two_axes_is_multilinear_and_multiplies_the_decays() -> None:
    kernel = Multiscale(2, 1, reach=(9, 3), causal=(True, False), size=2, alpha=0.5, dtype=torch.float64)
    rows, row_scale = multiscale_lags(2, 8)  # 0 1 | 2 3 | 4 6 | 8 12
    columns, column_scale = multiscale_lags(2, 4)
    columns, column_scale = [-lag for lag in columns[:0:-1]] + columns, column_scale[:0:-1] + column_scale
    p, q = np.random.default_rng(0).uniform((0, -1), 1, (50, 2)).T

    def tents(t: np.ndarray, lags: list[int], scale: list[int]) -> np.ndarray:
        return np.stack([0.5**s * np.interp(t, lags, np.eye(len(lags))[n]) for n, s in enumerate(scale)], axis=1)

    along = tents(p * 9, rows, row_scale), tents(q * 3, columns, column_scale)
    expected = np.einsum("pi,pj,ij->p", *along, kernel.taps.detach().numpy()[..., 0])
    positions = torch.from_numpy(np.stack([p, q], axis=1))
    torch.testing.assert_close(kernel(positions)[:, 0], torch.from_numpy(expected))


def test_multiscale_is_a_table_where_the_reach_is_short() -> None:
    short = Multiscale(1, 1, reach=3, size=32, dtype=torch.float64)
    table = Table(1, 1, reach=3, dtype=torch.float64)
    table.load_state_dict(short.state_dict())
    p = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None]
    torch.testing.assert_close(short(p), table(p))
    assert Multiscale(1, 1, reach=0)(torch.zeros(1, 1)).abs().item() == pytest.approx(1.0)


def test_free_formula() -> None:
    kernel = Free(1, 2, reach=6, causal=True, squash=0.3, smoothing=3, dtype=torch.float64)
    w = kernel.taps.detach()
    average = torch.stack([w[max(0, i - 1) : i + 2].mean(0) for i in range(7)])  # two lags at the ends
    h = torch.sign(average) * torch.clamp(average.abs() - 0.3, min=0)
    assert bool((h == 0).any())
    t = np.linspace(0, 6, 101)  # any resolution
    expected = np.stack([np.interp(t, np.arange(7), h[:, channel].numpy()) for channel in range(2)], axis=1)
    torch.testing.assert_close(kernel(torch.from_numpy(t)[:, None] / 6), torch.from_numpy(expected))


def test_free_smooths_along_every_axis() -> None:
    kernel = Free(2, 1, reach=(3, 2), squash=0.0, smoothing=5, dtype=torch.float64)
    w = kernel.taps.detach()
    for row, column in [(0, 0), (3, 2), (6, 1)]:
        near = w[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        position = torch.tensor([[(row - 3) / 3, (column - 2) / 2]], dtype=torch.float64)
        torch.testing.assert_close(kernel(position)[0, 0], near.mean())


def test_free_with_neither_squash_nor_smoothing_is_a_table() -> None:
    free, table = Free(2, 3, reach=(3, 2), squash=0.0), Table(2, 3, reach=(3, 2))
    table.load_state_dict(free.state_dict())
    positions = 2 * torch.rand(50, 2) - 1
    assert torch.equal(free(positions), table(positions))


@pytest.mark.parametrize("squash", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("smoothing", [1, 7])
def test_free_begins_with_unit_mean_square(squash: float, smoothing: int) -> None:
    kernel = Free(1, 4, reach=5000, squash=squash, smoothing=smoothing)
    assert kernel.heights().square().mean().item() == pytest.approx(1.0, abs=1e-4)


def test_free_drops_values_in_training_alone() -> None:
    kernel = Free(1, 4, reach=5000, causal=True, squash=0.0, dropout=0.3)
    lattice = torch.arange(5001)[:, None] / 5000
    kernel.eval()
    whole = kernel(lattice)
    assert torch.equal(whole, kernel.taps)
    kernel.train()
    dropped = kernel(lattice)
    kept = dropped != 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.01)
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.7)
    assert not torch.equal(kernel(lattice), dropped)


def test_siren_formula() -> None:
    kernel = SIREN(2, 3, reach=5, hidden=4, depth=4, dtype=torch.float64)
    p = torch.rand(6, 2, dtype=torch.float64)
    z = torch.sin(p @ kernel.frequency.T + kernel.phase)
    for layer in range(2):
        z = torch.sin(z @ kernel.hidden_weight[layer].T + kernel.hidden_bias[layer])
    torch.testing.assert_close(kernel(p), z @ kernel.output_weight.T + kernel.output_bias)


def test_gabor_formula() -> None:
    kernel = Gabor(2, 3, reach=5, hidden=4, depth=2, dtype=torch.float64)
    p = torch.rand(6, 2, dtype=torch.float64)

    def g(layer: int) -> torch.Tensor:
        squares = (kernel.inverse_width[layer] * (p[:, None] - kernel.centre[layer])).square().sum(-1)
        return torch.exp(-squares / 2) * torch.sin(p @ kernel.frequency[layer].T + kernel.phase[layer])

    z = g(0)
    for layer in (1, 2):
        z = g(layer) * (z @ kernel.hidden_weight[layer - 1].T + kernel.hidden_bias[layer - 1])
    torch.testing.assert_close(kernel(p), z @ kernel.output_weight.T + kernel.output_bias)


def test_isotropic_gabor_formula() -> None:
    kernel = Gabor(2, 3, reach=5, hidden=4, depth=1, isotropic=True, dtype=torch.float64)
    assert kernel.inverse_width.shape == (2, 4, 1)
    p = torch.rand(6, 2, dtype=torch.float64)

    def g(layer: int) -> torch.Tensor:
        squares = (p[:, None] - kernel.centre[layer]).square().sum(-1)  # the Euclidean norm alone
        window = torch.exp(-(kernel.inverse_width[layer][:, 0] ** 2) * squares / 2)
        return window * torch.sin(p @ kernel.frequency[layer].T + kernel.phase[layer])

    z = g(1) * (g(0) @ kernel.hidden_weight[0].T + kernel.hidden_bias[0])
    torch.testing.assert_close(kernel(p), z @ kernel.output_weight.T + kernel.output_bias)


def test_isotropic_gabor_keeps_to_the_bandwidth_on_every_axis() -> None:
    kernel = Gabor(2, 1, reach=(8, 50), hidden=64, isotropic=True, bandwidth=0.5)
    limit = kernel.bandlimit()
    assert limit is not None
    assert max(limit) <= 0.5 * (1 + 1e-6)
    width = kernel.frequency.detach().abs() + 2 * kernel.inverse_width.detach()  # the same width on both axes
    assert limit == pytest.approx((width.amax(1).sum(0) / (math.pi * torch.tensor([8.0, 50.0]))).tolist())
    # The published one: Gamma(6 / (depth + 1), 1) in every filter, and w ~ U(-1, 1) 2 pi omega_0 gamma / dim.
    published = Gabor(2, 1, reach=8, hidden=2000, isotropic=True, omega_0=3.0)
    torch.testing.assert_close(published.inverse_width.mean((1, 2)), torch.full((4,), 1.5), rtol=0.1, atol=0.0)
    ratio = (published.frequency / (2 * math.pi * 3.0 / 2 * published.inverse_width)).abs()
    assert ratio.max().item() == pytest.approx(1.0, rel=2e-3)


def test_fourier_net_formula() -> None:
    kernel = FourierNet(2, 3, reach=5, hidden=4, depth=2, dtype=torch.float64)
    p = torch.rand(6, 2, dtype=torch.float64)

    def g(layer: int) -> torch.Tensor:
        return torch.sin(p @ kernel.frequency[layer].T + kernel.phase[layer])

    z = g(1) * (g(0) @ kernel.hidden_weight[0].T + kernel.hidden_bias[0])
    z = g(2) * (z @ kernel.hidden_weight[1].T + kernel.hidden_bias[1])
    torch.testing.assert_close(kernel(p), z @ kernel.output_weight.T + kernel.output_bias)


@pytest.mark.parametrize("bandwidth", [0.25, 1.0])
def test_fourier_net_frequencies_add_up_to_the_bandwidth(bandwidth: float) -> None:
    kernel = FourierNet(2, 1, reach=(8, 50), hidden=2000, depth=2, bandwidth=bandwidth)
    highest = kernel.frequency.detach().abs().amax(1) / (math.pi * torch.tensor([8.0, 50.0]))
    torch.testing.assert_close(highest, torch.full((3, 2), bandwidth / 3), rtol=5e-3, atol=0.0)
    assert kernel.bandlimit() == pytest.approx(highest.sum(0).tolist())
    assert kernel.hidden_weight.var().item() == pytest.approx(2 / 2000, rel=1e-2)


@pytest.mark.parametrize("causal", [False, True])
def test_fourier_net_omega_0_is_converted_to_the_published_frequencies(causal: bool) -> None:
    kernel = FourierNet(2, 1, reach=20, causal=causal, hidden=2000, omega_0=3.0)
    published = 2 * math.pi * 3.0 / 2  # per unit of a position in [-1, 1]; a causal window of ours has half that length
    assert kernel.frequency.abs().max().item() == pytest.approx(2 * published if causal else published, rel=5e-3)


@pytest.mark.parametrize(
    ("activation", "f"),
    [
        ("relu", lambda x: x * (x > 0)),
        ("leaky_relu", lambda x: torch.where(x > 0, x, x / 100)),
        ("swish", lambda x: x / (1 + torch.exp(-x))),
    ],
)
def test_mlp_formula(activation: str, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
    kernel = MLP(2, 3, reach=5, hidden=4, depth=4, activation=activation, dtype=torch.float64)
    p = torch.rand(6, 2, dtype=torch.float64)
    z = f(p @ kernel.weight.T + kernel.bias)
    for weight, bias in zip(kernel.hidden_weight, kernel.hidden_bias, strict=True):
        z = f(z @ weight.T + bias)
    torch.testing.assert_close(kernel(p), z @ kernel.output_weight.T + kernel.output_bias)
    assert len(kernel.hidden_weight) == 2


@pytest.mark.parametrize("causal", [False, True])
def test_mlp_knees_begin_evenly_over_the_window(causal: bool) -> None:
    kernel = MLP(1, 3, reach=20, causal=causal, hidden=8, depth=3, dtype=torch.float64)
    shares = torch.arange(8, dtype=torch.float64) / 8

    def window(share: torch.Tensor) -> torch.Tensor:
        return share if causal else 2 * share - 1

    # Layer 1 of 2 at (i + 1/4) / 8 of the window, layer 2 at (i + 3/4) / 8.
    first = (-kernel.bias / kernel.weight[:, 0]).sort().values
    torch.testing.assert_close(first, window(shares + 0.25 / 8))
    points = window(shares + 0.75 / 8)[:, None]
    z = torch.relu(points @ kernel.weight.T + kernel.bias)
    zero = (z @ kernel.hidden_weight[0].T + kernel.hidden_bias[0]).abs() < 1e-12
    assert bool(zero.any(0).all())  # every unit has one of the points,
    assert bool(zero.any(1).all())  # and every point one of the units


def test_mlp_knees_fill_the_window_of_every_axis() -> None:
    kernel = MLP(2, 3, reach=8, causal=(True, False), hidden=64)
    knees = kernel._knees(0)
    share = (torch.arange(64, dtype=torch.float64) + 0.25) / 64
    torch.testing.assert_close(knees[:, 0].sort().values, share)
    torch.testing.assert_close(knees[:, 1].sort().values, 2 * share - 1)
    assert abs(torch.corrcoef(knees.T)[0, 1].item()) < 0.5  # orders of their own, not a diagonal


def test_fourier_formula() -> None:
    kernel = Fourier(2, 3, reach=5, hidden=6, depth=4, dtype=torch.float64)
    p = torch.rand(6, 2, dtype=torch.float64)
    assert kernel.frequency.shape == (3, 2)
    angles = p @ kernel.frequency.T
    z = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
    for weight, bias in zip(kernel.hidden_weight, kernel.hidden_bias, strict=True):
        z = torch.relu(z @ weight.T + bias)
    torch.testing.assert_close(kernel(p), z @ kernel.output_weight.T + kernel.output_bias)


@pytest.mark.parametrize("bandwidth", [0.1, 1.0])
def test_fourier_frequencies_are_normal_in_nyquist_units(bandwidth: float) -> None:
    kernel = Fourier(2, 1, reach=(8, 50), hidden=8000, depth=2, bandwidth=bandwidth)
    share = kernel.frequency.detach() / (math.pi * torch.tensor([8.0, 50.0]))
    torch.testing.assert_close(share.std(0), torch.full((2,), bandwidth), rtol=0.1, atol=0.0)
    torch.testing.assert_close(share.pow(4).mean(0), torch.full((2,), 3 * bandwidth**4), rtol=0.3, atol=0.0)
    assert kernel.bandlimit() == pytest.approx(share.abs().amax(0).tolist())


@pytest.mark.parametrize("causal", [False, True])
def test_fourier_omega_0_is_converted_to_the_published_frequencies(causal: bool) -> None:
    kernel = Fourier(1, 1, reach=20, causal=causal, hidden=8000, depth=2, omega_0=3.0)
    published = 2 * math.pi * 3.0  # per unit of a position in [-1, 1]; a causal window of ours has half that length
    assert kernel.frequency.std().item() == pytest.approx(2 * published if causal else published, rel=0.1)


def test_fourier_is_smooth_on_the_grid_by_default() -> None:
    kernel = Fourier(1, 200, reach=500, hidden=2000, depth=2, dtype=torch.float64)
    now, later = (
        kernel(torch.linspace(-1, 1, 1001, dtype=torch.float64)[s, None]) for s in (slice(-1), slice(1, None))
    )
    assert ((now * later).mean() / now.square().mean()).item() == pytest.approx(
        math.exp(-((0.1 * math.pi) ** 2) / 2), abs=0.01
    )


@pytest.mark.parametrize("bandwidth", [0.25, 1.0])
def test_siren_frequencies_are_in_nyquist_units(bandwidth: float) -> None:
    kernel = SIREN(2, 1, reach=(8, 50), hidden=2000, depth=4, bandwidth=bandwidth)
    # Nyquist: half a cycle per sample, pi * reach radians per unit of position.
    highest = kernel.frequency.detach().abs().amax(0) / (math.pi * torch.tensor([8.0, 50.0]))
    assert bool((highest <= bandwidth).all())
    assert bool((highest > 0.99 * bandwidth).all())
    assert kernel.bandlimit() == pytest.approx((3 * highest).tolist())  # three layers of sines


@pytest.mark.parametrize(("reach", "bandwidth"), [(4, 1.0), (50, 0.5), (400, 0.2), (400, 3.0)])
def test_gabor_frequencies_and_windows_add_up_to_at_most_the_bandwidth(reach: int, bandwidth: float) -> None:
    kernel = Gabor(1, 1, reach=reach, hidden=64, bandwidth=bandwidth)
    nyquist = math.pi * reach
    width = kernel.frequency.detach().abs() + 2 * kernel.inverse_width.detach().abs()
    limit = kernel.bandlimit()
    assert limit is not None
    assert limit[0] == pytest.approx(width.amax(1).sum().item() / nyquist)
    assert 0.5 * bandwidth < limit[0] <= bandwidth * (1 + 1e-6)
    windows = 2 * kernel.inverse_width.detach().amax(1).sum().item() / nyquist
    assert windows <= bandwidth / 2 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("make", "filters"),
    [
        (Gabor, lambda k: k.frequency.abs() + 2 * k.inverse_width.abs()),
        (partial(Gabor, isotropic=True), lambda k: k.frequency.abs() + 2 * k.inverse_width.abs()),
        (FourierNet, lambda k: k.frequency.abs()),
        (partial(SIREN, depth=4), lambda k: 3 * k.frequency.abs()[None]),  # three layers of sines
        (partial(Fourier, depth=3), lambda k: 2 * k.frequency.abs()[None]),  # two layers before the output
    ],
)
def test_bandwidths_are_the_highest_of_each_filter(
    make: Callable[..., Kernel], filters: Callable[[Kernel], torch.Tensor]
) -> None:
    kernel = make(2, 3, reach=(5, 0), dtype=torch.float64)
    nyquist = torch.tensor([5 * math.pi, math.pi], dtype=torch.float64)
    expected = filters(kernel).amax(1) / nyquist
    torch.testing.assert_close(kernel.bandwidths(), expected)
    assert kernel.bandlimit() == pytest.approx(expected.sum(0).tolist())
    assert Table(1, 1, reach=3).bandwidths() is None


@pytest.mark.parametrize(
    ("make", "share"),
    [
        (partial(Gabor, bandwidth=0.3), 1e-3),
        (partial(SIREN, depth=2), 1e-2),
        (partial(SIREN, depth=3), 1e-2),
        (partial(SIREN, depth=4, bandwidth=0.15), 1e-2),
        (partial(FourierNet, bandwidth=0.5), 1e-6),
        (partial(Fourier, depth=2), 1e-2),
        (partial(Fourier, depth=3), 1e-2),
        (partial(Fourier, depth=4, bandwidth=0.2), 1e-2),
        (Bumps, 1e-2),
        (partial(Bumps, normalize="posterior"), 1e-2),
    ],
)
def test_spectra_lie_below_the_band_limit(make: Callable[..., Kernel], share: float) -> None:
    beyond = []
    for seed in range(4):
        torch.manual_seed(seed)
        kernel = make(1, 16, reach=64, dtype=torch.float64)
        positions = torch.linspace(-4, 4, 4097, dtype=torch.float64)[:-1, None]
        window = torch.hann_window(4096, dtype=torch.float64)[:, None]
        power = torch.fft.rfft(kernel(positions) * window, dim=0).abs() ** 2
        # 4096 samples on 8 units, 64 reference samples a unit: bin k is k / 8 cycles per unit, Nyquist is 32.
        limit = kernel.bandlimit()
        assert limit is not None
        beyond.append((power[int(8 * 32 * limit[0]) + 2 :].sum() / power.sum()).item())
    assert sum(beyond) / len(beyond) < share


@pytest.mark.parametrize("causal", [False, True])
def test_omega_0_is_converted_to_the_published_frequencies(causal: bool) -> None:
    # The published positions run over [-1, 1], with omega_0 / dim as the highest frequency; a causal window of ours
    # has half that length.
    kernel = SIREN(1, 1, reach=20, causal=causal, hidden=4000, omega_0=30.0)
    assert kernel.frequency.abs().max().item() == pytest.approx(60.0 if causal else 30.0, rel=5e-3)
    gabor = Gabor(1, 1, reach=20, causal=causal, hidden=500, omega_0=3.0)
    ratio = (gabor.frequency / (2 * math.pi * 3.0 * gabor.inverse_width)).abs()
    assert ratio.max().item() == pytest.approx(1.0, rel=2e-2)
    # Mean of Gamma(6 / (l + 1), 1), doubled on the causal window.
    mean = gabor.inverse_width.mean((1, 2)) / (2 if causal else 1)
    torch.testing.assert_close(mean, torch.tensor([6.0, 3.0, 2.0, 1.5]), rtol=0.2, atol=0.0)


def test_initialisation_takes_effect() -> None:
    # The hidden weights of a SIREN have the published bound sqrt(6 / hidden), omega_0 folded in; the framework's own
    # linear layers would have 1 / sqrt(hidden).
    weight = SIREN(1, 1, reach=8, hidden=400).hidden_weight
    assert weight.abs().max().item() == pytest.approx(math.sqrt(6 / 400), rel=1e-3)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=2e-2)
    gabor = Gabor(1, 1, reach=8, hidden=400)
    assert gabor.hidden_weight.std().item() == pytest.approx(math.sqrt(1 / 400), rel=2e-2)
    assert bool((gabor.hidden_bias == 1).all())


@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_gabor_centres_lie_within_the_spread(spread: float) -> None:
    kernel = Gabor(2, 1, reach=8, causal=(True, False), hidden=500, spread=spread)
    past, both = kernel.centre.detach().unbind(-1)
    assert past.min().item() >= 0
    assert both.min().item() == pytest.approx(-spread, rel=2e-2)
    assert max(past.max().item(), both.max().item()) <= spread


@pytest.mark.parametrize("reach", [7, 50, 3000])
@pytest.mark.parametrize("spacing", [1.0, 0.5])
def test_table_gives_back_its_taps_in_float32(reach: int, spacing: float) -> None:
    kernel = Table(1, 2, reach=reach)
    lags = torch.arange(-reach / spacing, reach / spacing + 1, dtype=torch.float64) * spacing
    values = kernel((lags / reach)[:, None].float())
    assert torch.equal(values[:: round(1 / spacing)], kernel.taps)


@pytest.mark.parametrize("make", [SIREN, Gabor, Table, MLP, Fourier, FourierNet, Free, Multiscale, Bumps])
def test_half_precision_casts_leave_kernels_as_they_are(make: Callable[..., Kernel]) -> None:
    kernel = make(1, 4, reach=4096, causal=True)
    positions = torch.rand(100, 1)
    values = kernel(positions)
    for cast in (kernel.half, kernel.bfloat16, lambda: kernel.to(torch.bfloat16)):
        cast()
        assert {parameter.dtype for parameter in kernel.parameters()} == {torch.float32}
        assert torch.equal(kernel(positions), values)
    assert next(make(1, 4, reach=8, dtype=torch.float16).parameters()).dtype == torch.float32
    assert next(kernel.double().parameters()).dtype == torch.float64


def test_large_phases_are_exact_in_float32() -> None:
    torch.manual_seed(1)
    kernel = SIREN(1, 8, reach=1000, bandwidth=1.0)
    positions = torch.linspace(-1, 1, 501)[:, None]
    exact = kernel.double()(positions.double())
    single = kernel.float()(positions)
    assert ((single - exact).norm() / exact.norm()).item() < 1e-3


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SIREN(1, 4, reach=-1), ValueError, "`reach` must be at least 0; got -1"),
        (lambda: SIREN(1, 0, reach=4), ValueError, "`channels` must be at least 1; got 0"),
        (lambda: SIREN(1, 4, reach=4, depth=1), ValueError, "`depth` must be at least 2; got 1"),
        (lambda: SIREN(1, 4, reach=4, bandwidth=0.5, omega_0=30.0), ValueError, "`bandwidth` and `omega_0` exclude"),
        (lambda: SIREN(2, 4, reach=4)(torch.zeros(5, 1)), ValueError, r"`positions` must be \(\*points, 2\)"),
        (lambda: Table(1, 4, reach=4)(torch.zeros(5, 1).long()), TypeError, "`positions` must hold floating-point"),
        (
            lambda: MLP(1, 4, reach=4, activation="sine"),
            ValueError,
            "`activation` must be one of 'relu', 'leaky_relu', ",
        ),
        (lambda: MLP(1, 4, reach=4, depth=1), ValueError, "`depth` must be at least 2; got 1"),
        (lambda: Fourier(1, 4, reach=4, hidden=5), ValueError, "`hidden` must be even, .*; got 5"),
        (lambda: Fourier(1, 4, reach=4, bandwidth=0.5, omega_0=30.0), ValueError, "`bandwidth` and `omega_0` exclude"),
        (lambda: SIREN(1, 4, reach=4, bandwidth=0.0), ValueError, "`bandwidth` must be finite and above 0"),
        (lambda: Gabor(1, 4, reach=4, hidden=2.0), TypeError, "`hidden` must be an integer; got float 2.0"),  # type: ignore[arg-type]
        (lambda: Gabor(1, 4, reach=4, spread=1.5), ValueError, "`spread` must be finite and above 0 and at most 1"),
        (lambda: Gabor(1, 4, reach=4, isotropic=1), TypeError, "`isotropic` must be True or False"),  # type: ignore[arg-type]
        (lambda: FourierNet(1, 4, reach=4, depth=0), ValueError, "`depth` must be at least 1; got 0"),
        (lambda: Free(1, 4, reach=4, squash=-0.1), ValueError, "`squash` must be finite and at least 0; got -0.1"),
        (lambda: Free(1, 4, reach=4, smoothing=4), ValueError, "`smoothing` must be odd, .*; got 4"),
        (lambda: Free(1, 4, reach=4, dropout=1.0), ValueError, "`dropout` must be below 1; got 1.0"),
        (lambda: Multiscale(1, 4, reach=4, size=0), ValueError, "`size` must be at least 1; got 0"),
        (lambda: Multiscale(1, 4, reach=4, alpha=1.5), ValueError, "`alpha` must be finite and above 0 and at most 1"),
        (lambda: Gabor(2, 4, reach=(4, 4, 4)), ValueError, "`reach` must be one value or 2 values"),
        (lambda: Table(1, 4, reach=4, dilation=0), ValueError, "`dilation` must be at least 1; got 0"),
        (lambda: Table(1, 4, reach=4, causal=1), TypeError, "`causal` must be True or False"),  # type: ignore[arg-type]
    ],
)
def test_bad_kernels_are_named(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]
