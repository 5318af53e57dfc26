"""Options of the coordinate networks, each against its formula: weight normalisation, damped sines, first layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch

import omniconv as oc
from omniconv.kernels import MLP, SIREN, ChebyshevSeries, FourierSeries, Kernel
from omniconv.kernels._kernel import set_length
from omniconv.kernels.mlp import damped_sine

NETWORKS = [
    partial(SIREN, depth=2),
    partial(SIREN, depth=4),
    partial(MLP, depth=2),
    partial(MLP, depth=4, activation="swish"),
]


def twins(make: Callable[..., SIREN | MLP]) -> tuple[SIREN | MLP, SIREN | MLP]:
    """The plain network and the normalised one, of the same draws."""
    networks = []
    for weight_norm in (False, True):
        torch.manual_seed(3)
        networks.append(make(2, 3, reach=5, hidden=6, weight_norm=weight_norm, dtype=torch.float64))
    return networks[0], networks[1]


@pytest.mark.parametrize("make", NETWORKS)
def test_weight_norm_begins_as_the_plain_network(make: Callable[..., SIREN | MLP]) -> None:
    plain, normalised = twins(make)
    state = normalised.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    p = 2 * torch.rand(20, 2, dtype=torch.float64) - 1
    assert torch.equal(normalised(p), plain(p))
    assert normalised.bandlimit() == plain.bandlimit()


@pytest.mark.parametrize("make", NETWORKS)
def test_weight_norm_adds_a_length_per_row(make: Callable[..., SIREN | MLP]) -> None:
    plain, normalised = twins(make)
    count, more = (sum(p.numel() for p in network.parameters()) for network in (plain, normalised))
    assert more - count == 6 + 6 * (plain.depth - 2) + 3  # hidden + hidden (depth - 2) + channels


def rows(weight: torch.Tensor, length: torch.Tensor | None) -> torch.Tensor:
    """g v / |v|."""
    assert length is not None
    return length[..., None] * weight / weight.square().sum(-1, keepdim=True).sqrt()


def moved(make: Callable[..., SIREN | MLP]) -> SIREN | MLP:
    """A normalised network as it might be after some training."""
    network = make(2, 3, reach=5, hidden=6, weight_norm=True, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def test_siren_with_weight_norm_formula() -> None:
    k = moved(partial(SIREN, depth=4))
    assert isinstance(k, SIREN)
    assert k.hidden_length is not None
    p = torch.rand(20, 2, dtype=torch.float64)
    frequency = rows(k.frequency, k.frequency_length)
    z = torch.sin(p @ frequency.T + k.phase)
    for layer in range(2):
        z = torch.sin(z @ rows(k.hidden_weight[layer], k.hidden_length[layer]).T + k.hidden_bias[layer])
    torch.testing.assert_close(k(p), z @ rows(k.output_weight, k.output_length).T + k.output_bias)
    assert k.bandlimit() == pytest.approx((3 * frequency.abs().amax(0) / (5 * math.pi)).tolist())


def test_mlp_with_weight_norm_formula() -> None:
    k = moved(partial(MLP, depth=4))
    assert isinstance(k, MLP)
    p = torch.rand(20, 2, dtype=torch.float64)
    z = torch.relu(p @ rows(k.weight, k.length).T + k.bias)
    for weight, length, bias in zip(k.hidden_weight, k.hidden_length, k.hidden_bias, strict=True):
        z = torch.relu(z @ rows(weight, length).T + bias)
    torch.testing.assert_close(k(p), z @ rows(k.output_weight, k.output_length).T + k.output_bias)


@pytest.mark.parametrize("make", NETWORKS)
def test_weight_norm_turns_weights_and_lengthens_rows(make: Callable[..., SIREN | MLP]) -> None:
    """The gradient in v is orthogonal to v; in g it is that of the plain weight along the row."""
    plain, normalised = twins(make)
    p = 2 * torch.rand(20, 2, dtype=torch.float64) - 1
    for network in (plain, normalised):
        network(p).square().sum().backward()
    known = dict(plain.named_parameters())
    for name, v in normalised.named_parameters():
        if name in known and v.ndim > 1 and v.numel():
            assert v.grad is not None
            along = (v.grad * v).sum(-1)
            assert bool((along.abs() <= 1e-12 * v.grad.norm() * v.norm()).all()), name
            assert v.grad.norm() > 0
    weight, direction = known["output_weight"], dict(normalised.named_parameters())["output_weight"].detach()
    length = dict(normalised.named_parameters())["output_length"]
    assert weight.grad is not None
    torch.testing.assert_close(length.grad, (weight.grad * direction).sum(-1) / direction.norm(dim=-1))


def test_weight_norm_of_a_row_that_is_drawn_as_zeros_is_finite() -> None:
    network = SIREN(2, 3, reach=5, weight_norm=True)
    with torch.no_grad():
        network.output_weight[1].zero_()
    set_length(network.output_length, network.output_weight)
    values = network(torch.rand(4, 2))
    values.sum().backward()
    assert bool((values[:, 1] == network.output_bias[1]).all())
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("make", [SIREN, MLP])
def test_weight_norm_must_be_true_or_false(make: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="`weight_norm` must be True or False; got int 1"):
        make(1, 4, reach=4, weight_norm=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_damped_sine_has_finite_derivatives_everywhere(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).tiny
    points = [0.0, tiny, -tiny, 1e-30, 1e-9, -1e-3, 0.5, -2.0, 30.0, -700.0]
    x = torch.tensor(points, dtype=dtype, requires_grad=True)
    f = damped_sine(x)
    (slope,) = torch.autograd.grad(f.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    at, root = x.detach().double(), x.detach().double().abs().sqrt()
    away = at[1:].abs()
    expected = {
        "value": (f, torch.sin(at) * root),
        "slope": (slope[1:], (torch.cos(at) * root)[1:] + torch.sin(away) / (2 * root[1:])),
        "curvature": (
            curvature[1:],
            (torch.cos(away) - torch.sin(away) / away / 4 - torch.sin(away) * away) / root[1:] * at[1:].sign(),
        ),
    }
    for name, (actual, right) in expected.items():
        error = ((actual.double() - right) / right.abs().clamp(min=tiny)).abs().max().item()
        assert error < 1e3 * torch.finfo(dtype).eps, name
    assert slope[0].item() == 0  # 3/2 sqrt|x| for small x
    assert curvature[0].item() == 0  # infinite with opposite signs on either side


def test_spder_formula() -> None:
    k = MLP(2, 3, reach=5, hidden=4, depth=4, activation="spder", dtype=torch.float64)
    p = 2 * torch.rand(6, 2, dtype=torch.float64) - 1

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x) * x.abs().sqrt()

    z = f(p @ k.weight.T + k.bias)
    for weight, bias in zip(k.hidden_weight, k.hidden_bias, strict=True):
        z = f(z @ weight.T + bias)
    torch.testing.assert_close(k(p), z @ k.output_weight.T + k.output_bias)


@pytest.mark.parametrize("reach", [8, 2000])
@pytest.mark.parametrize("weight_norm", [False, True])
def test_spder_begins_with_arguments_of_unit_mean_square(reach: int, weight_norm: bool) -> None:
    k = MLP(1, 3, reach=reach, hidden=32, depth=5, activation="spder", weight_norm=weight_norm, dtype=torch.float64)
    p = k.reference_positions()
    z = damped_sine(p @ k.weight.T + k.bias)
    for weight, bias in zip(k.hidden_weight, k.hidden_bias, strict=True):
        x = z @ weight.T + bias
        assert x.square().mean().item() == pytest.approx(1.0)
        z = damped_sine(x)


@pytest.mark.parametrize(("make", "bandwidth"), [(partial(MLP, activation="spder"), 0.25), (MLP, 0.6)])
def test_mlp_bandwidth_is_in_nyquist_units(make: Callable[..., MLP], bandwidth: float) -> None:
    k = make(2, 1, reach=(8, 50), hidden=2000, bandwidth=None if bandwidth == 0.25 else bandwidth)
    highest = k.weight.detach().abs().amax(0) / (math.pi * torch.tensor([8.0, 50.0]))
    torch.testing.assert_close(highest, torch.full((2,), bandwidth), rtol=5e-3, atol=0.0)
    # The knees stay where they are: unit i has the argument zero at a point of the window.
    single = make(1, 1, reach=50, hidden=8, depth=2, bandwidth=0.3, dtype=torch.float64)
    knees = (-single.bias / single.weight[:, 0]).sort().values
    torch.testing.assert_close(knees, 2 * (torch.arange(8, dtype=torch.float64) + 0.5) / 8 - 1)


def test_fourier_series_formula() -> None:
    k = FourierSeries(2, 3, reach=(20, 9), causal=(True, False), harmonics=4, bandwidth=0.35, dtype=torch.float64)
    assert k.orders == (4, 3)  # 0.35 * 20 = 7 and 0.35 * 9 = 3.15
    assert k.coefficients.shape == (3, 1 + 2 * 4 + 2 * 3)
    p = torch.rand(6, 2, dtype=torch.float64)
    c = k.coefficients.detach()
    expected = c[:, 0].expand(6, 3).clone()
    for axis, (start, orders) in enumerate([(1, 4), (9, 3)]):
        for n in range(1, orders + 1):
            a, b = c[:, start + 2 * (n - 1)], c[:, start + 2 * (n - 1) + 1]
            angle = math.pi * n * p[:, axis, None]
            expected += a * torch.cos(angle) + b * torch.sin(angle)
    torch.testing.assert_close(k(p), expected)
    assert k.bandlimit() == pytest.approx((4 / 20, 3 / 9))


def test_chebyshev_series_formula() -> None:
    k = ChebyshevSeries(2, 3, reach=(20, 9), causal=(True, False), degree=12, bandwidth=0.25, dtype=torch.float64)
    # Nyquist is pi reach: 0.25 pi 20 / 2 = 7.85 on the causal axis, 0.25 pi 9 = 7.07 on the other.
    assert k.orders == (7, 7)
    p = torch.rand(6, 2, dtype=torch.float64)
    u = torch.tanh(torch.stack([2 * p[:, 0] - 1, p[:, 1]], dim=1))
    c = k.coefficients.detach()
    expected = c[:, 0].expand(6, 3).clone()
    for axis in range(2):
        for n in range(1, 8):
            expected += c[:, 7 * axis + n] * torch.cos(n * torch.acos(u[:, axis, None]))
    torch.testing.assert_close(k(p), expected)
    assert k.bandlimit() == pytest.approx((2 * 7 / (math.pi * 20), 7 / (math.pi * 9)))


def test_series_of_a_short_reach_keep_one_order() -> None:
    assert FourierSeries(1, 1, reach=2).orders == (1,)
    assert ChebyshevSeries(1, 1, reach=0).orders == (1,)
    assert FourierSeries(1, 1, reach=1000).orders == (32,)


def test_fkan_formula() -> None:
    k = MLP(2, 3, reach=20, hidden=4, depth=3, first=partial(FourierSeries, harmonics=2), dtype=torch.float64)
    p = 2 * torch.rand(6, 2, dtype=torch.float64) - 1
    assert k.first is not None
    z = k.first(p)  # no activation of its own: it is one
    assert z.shape == (6, 4)
    z = torch.relu(z @ k.hidden_weight[0].T + k.hidden_bias[0])
    torch.testing.assert_close(k(p), z @ k.output_weight.T + k.output_bias)
    names = {name for name, _ in k.named_parameters()}
    assert names == {"first.coefficients", "hidden_weight.0", "hidden_bias.0", "output_weight", "output_bias"}


@pytest.mark.parametrize(
    ("make", "share"),
    [
        (partial(FourierSeries, harmonics=8), 1e-6),
        (ChebyshevSeries, 1e-2),
        (partial(MLP, depth=2, first=FourierSeries), 1e-6),
        (partial(MLP, depth=3, first=FourierSeries), 1e-2),
        (partial(MLP, depth=4, first=partial(FourierSeries, harmonics=4)), 1e-2),
        (partial(MLP, depth=3, first=ChebyshevSeries), 1e-2),
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


def test_options_bring_their_papers() -> None:
    def keys(kernel: Kernel) -> str:
        return oc.cite(kernel)

    assert "shah2023spder" in keys(MLP(1, 1, reach=4, activation="spder"))
    assert "salimans2016weight" in keys(SIREN(1, 1, reach=4, weight_norm=True))
    assert "mehrabian2024fkan" in keys(MLP(1, 1, reach=4, first=FourierSeries))
    plain = keys(MLP(1, 1, reach=4)) + keys(SIREN(1, 1, reach=4))
    assert not any(word in plain for word in ("spder", "salimans", "fkan"))


def test_a_kernel_that_is_zero_stays_finite_and_a_layer_names_it() -> None:
    """One unit that no position activates: nothing can be scaled to unit mean square."""
    silent = 0
    for seed in range(20):
        torch.manual_seed(seed)
        kernel = MLP(1, 2, reach=16, hidden=1)
        assert all(bool(parameter.isfinite().all()) for parameter in kernel.parameters())
        if not kernel(kernel.reference_positions().float()).any():
            silent += 1
            torch.manual_seed(seed)
            with pytest.raises(ValueError, match="must make taps of finite, positive energy; MLP and Full made"):
                oc.Conv1d(1, 2, 33, kernel=partial(MLP, hidden=1), support=oc.Full)
    assert silent > 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MLP(1, 4, reach=4, bandwidth=0.0), ValueError, "`bandwidth` must be finite and above 0; got 0.0"),
        (
            lambda: MLP(1, 4, reach=4, bandwidth=0.5, first=FourierSeries),
            ValueError,
            "`bandwidth` and `first` exclude each other; got 0.5. Give it to `first`",
        ),
        (
            lambda: MLP(1, 4, reach=4, first="fourier"),  # type: ignore[arg-type]
            TypeError,
            "`first` must be a Kernel class or functools.partial of one, .*; got str 'fourier'",
        ),
        (
            lambda: MLP(1, 4, reach=4, first=lambda *sizes, **where: torch.nn.Linear(1, 1)),  # type: ignore[arg-type]
            TypeError,
            "`first` must be a callable that returns an omniconv Kernel; it returned Linear",
        ),
        (
            lambda: MLP(1, 4, reach=4, first=torch.nn.Linear),  # type: ignore[arg-type]
            TypeError,
            "`first` must be a Kernel class; got the class Linear",
        ),
        (
            lambda: MLP(1, 4, reach=4, first=lambda dim, channels, **where: FourierSeries(dim, 3, **where)),
            ValueError,
            "`first` must have the `channels` it is called with, 32; FourierSeries has 3. Hand it on",
        ),
        (
            lambda: MLP(1, 4, reach=4, first=lambda dim, channels, **where: FourierSeries(dim, channels, reach=5)),
            ValueError,
            r"`first` must have the `reach` it is called with, \(4,\); FourierSeries has \(5,\)",
        ),
        (
            lambda: MLP(1, 4, reach=4, causal=True, first=lambda *sizes, **where: FourierSeries(*sizes, reach=4)),
            ValueError,
            r"`first` must have the `causal` it is called with, \(True,\); FourierSeries has \(False,\)",
        ),
        (lambda: FourierSeries(1, 4, reach=4, harmonics=0), ValueError, "`harmonics` must be at least 1; got 0"),
        (lambda: ChebyshevSeries(1, 4, reach=4, degree=0), ValueError, "`degree` must be at least 1; got 0"),
        (lambda: ChebyshevSeries(1, 4, reach=4, bandwidth=-1.0), ValueError, "`bandwidth` must be finite and above 0"),
    ],
)
def test_bad_options_are_named(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]
