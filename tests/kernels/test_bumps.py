"""Sums of bumps against direct evaluations of what is published: DCLS, SMPConv and the posterior mean on anchors."""

from __future__ import annotations

import math
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv import Conv1d, Conv2d, Full
from omniconv.kernels import Bumps, Conditional, Table

F64 = torch.float64


def lattice(reach: tuple[int, ...], causal: bool = False) -> list[tuple[int, ...]]:
    """All reference lags in samples."""
    return list(product(*(range(0 if causal else -far, far + 1) for far in reach)))


def values_on(kernel: Bumps, lags: list[tuple[int, ...]]) -> np.ndarray:
    """Kernel values at lags in samples, `lags channels`."""
    return kernel(torch.tensor(lags, dtype=F64) / torch.tensor(kernel.reach, dtype=F64)).detach().numpy()


def places(kernel: Bumps) -> np.ndarray:
    """Places in samples, `groups bumps dim`, as they are stored."""
    return kernel.position.detach().numpy() * np.array(kernel.reach)


def spread_widths(kernel: Bumps) -> np.ndarray:
    """Give the bumps widths of their own, and return them."""
    assert kernel.width_logit is not None
    torch.nn.init.normal_(kernel.width_logit)
    return kernel.width().detach().numpy()


DIMS = pytest.mark.parametrize("reach", [(8,), (7,), (5, 5), (4, 6)], ids=str)


@DIMS
def test_dcls_bilinear(reach: tuple[int, ...]) -> None:
    """K[x] = sum_k w_k prod_d max(0, 1 - |x_d - P_kd|)."""
    dim = len(reach)
    kernel = Bumps(
        dim, 3, reach=reach, bumps=5, shape="triangle", learn_width=False, spread=0.5, shared=False, dtype=F64
    )
    w, P, lags = kernel.weight.detach().numpy(), places(kernel), lattice(reach)
    expected = np.zeros((len(lags), 3))
    for n, x in enumerate(lags):
        for c in range(3):
            for k in range(5):
                expected[n, c] += w[c, k] * math.prod(max(0.0, 1 - abs(x[d] - P[c, k, d])) for d in range(dim))
    np.testing.assert_allclose(values_on(kernel, lags), expected, atol=1e-12)
    assert np.abs(expected).max() > 0.1


@DIMS
@pytest.mark.parametrize("shape", ["triangle", "gaussian"])
def test_dcls_triangle_and_gaussian(reach: tuple[int, ...], shape: str) -> None:
    """K[x] = sum_k w_k f(x - P_k) / sum_x f(x - P_k), with f the product of max(0, sigma - |u_d|), or the Gaussian."""
    dim = len(reach)
    kernel = Bumps(dim, 3, reach=reach, bumps=5, shape=shape, normalize="sum", spread=0.5, shared=False, dtype=F64)
    sigma, w, P, lags = spread_widths(kernel), kernel.weight.detach().numpy(), places(kernel), lattice(reach)
    assert sigma.std() > 0.1
    expected = np.zeros((len(lags), 3))
    for c in range(3):
        for k in range(5):
            f = np.zeros(len(lags))
            for n, x in enumerate(lags):
                u = [abs(x[d] - P[c, k, d]) for d in range(dim)]
                if shape == "triangle":
                    f[n] = math.prod(max(0.0, sigma[c, k] - a) for a in u)
                else:
                    f[n] = math.exp(-sum(a**2 for a in u) / (2 * sigma[c, k] ** 2))
            expected[:, c] += w[c, k] * f / f.sum()
    np.testing.assert_allclose(values_on(kernel, lags), expected, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("reach", [(30,), (6, 6)], ids=str)
@pytest.mark.parametrize("averaged", [True, False])
def test_smpconv(reach: tuple[int, ...], causal: bool, averaged: bool) -> None:
    """K(x) = sum_i w_i max(0, 1 - |x - p_i|_1 / r_i) / (number of active i + 1e-6), x in [-1, 1] over the window."""
    dim, far = len(reach), reach[0]
    unit = far / 2 if causal else far  # samples per published unit
    radius = 2.5 / unit
    kernel = Bumps(
        dim, 2, reach=reach, causal=causal, bumps=12, shape="cone", normalize="count" if averaged else "none",
        width=radius * unit, spread=0.5, shared=not averaged, dtype=F64,
    )  # fmt: skip
    assert kernel.width().detach().numpy() == pytest.approx(radius * unit)
    r, w, q = spread_widths(kernel) / unit, kernel.weight.detach().numpy(), kernel.position.detach().numpy()
    p = 2 * q - 1 if causal else q
    lags = lattice(reach, causal)
    expected, counts = np.zeros((len(lags), 2)), set()
    for n, lag in enumerate(lags):
        x = [(2 * t / far - 1) if causal else t / far for t in lag]
        for c in range(2):
            group, total, active = (c if averaged else 0), 0.0, 0
            for i in range(12):
                height = max(0.0, 1 - sum(abs(x[d] - p[group, i, d]) for d in range(dim)) / r[group, i])
                total, active = total + w[c, i] * height, active + (height > 0)
            expected[n, c] = total / (active + 1e-6) if averaged else total
            counts.add(active)
    assert len(counts) > 2
    np.testing.assert_allclose(values_on(kernel, lags), expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("reach", [(9,), (4, 5), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("shared", [True, False])
def test_posterior_mean_on_anchors(reach: tuple[int, ...], shared: bool) -> None:
    """k(p) = K(p, Z) (K(Z, Z) + noise^2 I)^-1 v, with K(a, b) = exp(-|a - b|^2 / (2 r^2)) in samples."""
    dim, n = len(reach), 7
    kernel = Bumps(dim, 3, reach=reach, bumps=n, normalize="posterior", shared=shared, noise=0.1, dtype=F64)
    r = spread_widths(kernel)
    assert r.shape == ((1, 1) if shared else (3, 1))
    torch.nn.init.uniform_(kernel.position, -1, 1)
    points, lags = np.random.default_rng(0).uniform(-1, 1, (20, dim)), np.array(reach)
    expected = np.zeros((20, 3))
    for c in range(3):
        group = 0 if shared else c
        Z, v = places(kernel)[group], kernel.weight.detach().numpy()[c]

        def covariance(a: np.ndarray, b: np.ndarray, width: float = r[group, 0]) -> float:
            return math.exp(-((a - b) ** 2).sum() / (2 * width**2))

        K = np.array([[covariance(Z[i], Z[j]) + 0.1**2 * (i == j) for j in range(n)] for i in range(n)])
        across = np.array([[covariance(p * lags, Z[i]) for i in range(n)] for p in points])
        expected[:, c] = across @ np.linalg.inv(K) @ v
    np.testing.assert_allclose(kernel(torch.from_numpy(points)).detach().numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_posterior_passes_through_its_values(dim: int, causal: bool) -> None:
    kernel = Bumps(
        dim, 3, reach=6, causal=causal, bumps=20, normalize="posterior", noise=1e-6, dtype=F64
    )  # fmt: skip
    torch.testing.assert_close(kernel(kernel.centre()[0]), kernel.weight.T, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(("bumps", "noise"), [(128, 0.01), (501, 0.001)])
def test_the_posterior_is_exact_in_float32(bumps: int, noise: float) -> None:
    """Wide bumps, far from where training begins: the weights are thousands of times the values."""
    torch.manual_seed(0)
    kernel = Bumps(1, 4, reach=500, bumps=bumps, normalize="posterior", noise=noise)
    with torch.no_grad():
        assert kernel.width_logit is not None
        kernel.width_logit.fill_(2.0)
        assert kernel.width().item() > 20 * kernel.initial_width
        positions = torch.linspace(-1, 1, 1001)[:, None]
        rounded, exact = kernel(positions), kernel.double()(positions.double())
    assert rounded.dtype == torch.float32
    assert ((rounded - exact).norm() / exact.norm()).item() < 1e-5


def test_the_posterior_shifts_with_a_condition() -> None:
    """Sample by sample, as with a kernel whose parameters are set to the shifted ones."""
    kernel = Conditional(1, 2, reach=6, kernel=partial(Bumps, bumps=5, normalize="posterior", noise=0.1), dtype=F64)
    z, p = torch.rand(3, 1, dtype=F64), 2 * torch.rand(7, 1, dtype=F64) - 1
    values = kernel(p, z)
    for sample, shifts in zip(values, kernel.shifts(z), strict=True):
        vector = torch.nn.utils.parameters_to_vector(kernel.kernel.parameters()) + shifts
        shifted = Bumps(1, 2, reach=6, bumps=5, normalize="posterior", noise=0.1, dtype=F64)
        torch.nn.utils.vector_to_parameters(vector, shifted.parameters())
        torch.testing.assert_close(sample, shifted(p))


def test_posterior_with_a_bump_per_lag_begins_as_published() -> None:
    """Anchors on the grid and a width of one sample."""
    kernel = Bumps(1, 1, reach=20, bumps=41, normalize="posterior", dtype=F64)
    assert kernel.width().item() == pytest.approx(1.0)
    steps = kernel.centre()[0, :, 0].diff() * 20
    torch.testing.assert_close(steps, torch.full((40,), 40 / 41, dtype=F64))
    assert Bumps(2, 1, reach=(20, 3), bumps=41 * 7, normalize="posterior").width().item() == pytest.approx(1.0)


@pytest.mark.parametrize(("dim", "count"), [(2, 50), (2, 64), (3, 77)])
def test_even_places_fill_the_window(dim: int, count: int) -> None:
    causal = (True, *[False] * (dim - 1))
    kernel = Bumps(dim, 1, reach=8, causal=causal, bumps=count, normalize="posterior", dtype=F64)
    unit = (kernel.centre()[0] + torch.tensor([0.0] + [1.0] * (dim - 1))) / torch.tensor([1.0] + [2.0] * (dim - 1))
    assert 0 <= unit.min().item() < unit.max().item() <= 1
    apart = torch.cdist(unit, unit) + 9 * torch.eye(count, dtype=F64)
    distance = count ** (-1 / dim)  # of a square lattice
    assert 0.5 * distance < apart.amin().item()
    corners = torch.rand(2000, dim, dtype=F64)
    assert torch.cdist(corners, unit).amin(1).max().item() < 1.6 * distance


def test_integer_places_are_a_dilated_convolution() -> None:
    """Three taps at lags -4, 0, 4 for `torch.nn.functional.conv1d` with dilation 4, which correlates."""
    kernel = partial(Bumps, bumps=3, shape="triangle", learn_width=False, shared=False)
    layer = Conv1d(2, 2, 21, kernel=kernel, support=Full, reach=6, mixing="depthwise", bias=False, dtype=F64)
    bumps = layer.kernel
    assert isinstance(bumps, Bumps)
    with torch.no_grad():
        bumps.position.copy_(torch.tensor([-4.0, 0.0, 4.0], dtype=F64)[:, None] / 6)
        layer.gain.fill_(1.0)
    x = torch.randn(3, 2, 21, dtype=F64)
    expected = F.conv1d(x, bumps.weight[:, None].flip(-1), padding=4, dilation=4, groups=2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-13, atol=1e-13)


def test_integer_places_are_a_table_in_two_dimensions() -> None:
    reach = (3, 5)
    bumps = Bumps(2, 2, reach=reach, bumps=4, shape="triangle", learn_width=False, dtype=F64)
    table = Table(2, 2, reach=reach, dtype=F64)
    spots = [(-3, 5), (0, 0), (2, -1), (1, 4)]
    with torch.no_grad():
        bumps.position.copy_(torch.tensor(spots, dtype=F64) / torch.tensor(reach, dtype=F64))
        table.taps.zero_()
        for i, (row, column) in enumerate(spots):
            table.taps[3 + row, 5 + column] = bumps.weight[:, i]
    lags = torch.tensor(lattice(reach), dtype=F64) / torch.tensor(reach, dtype=F64)
    torch.testing.assert_close(bumps(lags), table(lags), rtol=0.0, atol=1e-13)
    between = 2 * torch.rand(50, 2, dtype=F64) - 1
    torch.testing.assert_close(bumps(between), table(between), rtol=0.0, atol=1e-13)


def test_bumps_are_round_in_samples() -> None:
    """On axes of reach 4 and 12 a step of one sample changes a Gaussian by the same factor."""
    kernel = Bumps(2, 1, reach=(4, 12), bumps=1, width=1.5, dtype=F64)
    with torch.no_grad():
        kernel.position.zero_()
    at = kernel(torch.tensor([[0.0, 0.0], [1 / 4, 0.0], [0.0, 1 / 12], [1 / 4, 1 / 12]], dtype=F64))[:, 0]
    factor = math.exp(-1 / (2 * 1.5**2))
    torch.testing.assert_close(at / at[0], torch.tensor([1.0, factor, factor, factor**2], dtype=F64))


def test_places_are_mirrored_at_the_ends_of_the_window() -> None:
    kernel = Bumps(2, 1, reach=8, causal=(True, False), bumps=6, dtype=F64)
    past = torch.tensor([0.3, -0.25, 1.25, 2.5, 1.0, 0.0], dtype=F64)
    both = torch.tensor([-0.3, 1.25, -1.5, 3.25, 1.0, -1.0], dtype=F64)
    with torch.no_grad():
        kernel.position.copy_(torch.stack([past, both], dim=-1))
    centre = kernel.centre()
    torch.testing.assert_close(centre[0, :, 0], torch.tensor([0.3, 0.25, 0.75, 0.5, 1.0, 0.0], dtype=F64))
    torch.testing.assert_close(centre[0, :, 1], torch.tensor([-0.3, 0.75, -0.5, -0.75, 1.0, -1.0], dtype=F64))
    (slope,) = torch.autograd.grad(centre.sum(), kernel.position)
    assert slope[0, :, 0].tolist() == [1, -1, -1, 1, 1, 1]
    assert slope[0, :, 1].tolist() == [1, -1, -1, 1, 1, 1]


@pytest.mark.parametrize(("shape", "narrowest"), [("triangle", 0.75), ("gaussian", 0.27), ("cone", None)])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_widths_keep_their_bounds_and_no_bump_is_lost(shape: str, narrowest: float | None, dim: int) -> None:
    kernel = Bumps(dim, 1, reach=6, bumps=200, shape=shape, dtype=F64)
    low = (2 * dim + 1) / 4 if narrowest is None else narrowest
    assert kernel.width_logit is not None
    with torch.no_grad():
        kernel.width_logit.copy_(torch.linspace(-30, 30, 200, dtype=F64))
        assert kernel.width().min().item() == pytest.approx(low)
        assert kernel.width().max().item() == pytest.approx(6.0)
        kernel.width_logit.fill_(-30.0)
        kernel.position[0, 0] = 0.5 / 6  # as far from every lag as can be
        kernel.position[0, 1:].uniform_(-2.0, 2.0)
    lags = torch.tensor(lattice((6,) * dim), dtype=F64) / 6
    kernel(lags).square().sum().backward()
    assert kernel.position.grad is not None
    assert bool((kernel.position.grad[0, 1:].abs().amax(-1) > 0).all())
    centre, width, _ = kernel._parts(lags)
    offsets = (lags * 6)[:, None, :] - centre
    heights = kernel._bumps([offsets[..., d] for d in range(dim)], width)
    assert heights.amax(0).min().item() > 0.003  # a Gaussian of width 0.27 half a sample away, on three axes


@pytest.mark.parametrize(
    ("dim", "reach", "causal"), [(1, 16000, True), (1, 6001, False), (2, 90, False), (3, 20, False)]
)
@pytest.mark.parametrize("shared", [True, False])
def test_a_few_narrow_bumps_are_calibrated_on_all_lags(dim: int, reach: int, causal: bool, shared: bool) -> None:
    kernel = Bumps(dim, 2, reach=reach, causal=causal, bumps=4, shape="triangle", shared=shared, dtype=F64)
    values = torch.from_numpy(values_on(kernel, lattice((reach,) * dim, causal)))
    assert values.square().mean().item() == pytest.approx(1.0)


@pytest.mark.parametrize("spread", [None, 0.02, 0.3])
def test_places_begin_around_the_zero_lag(spread: float | None) -> None:
    kernel = Bumps(2, 1, reach=8, causal=(True, False), bumps=20000, spread=spread)
    expected = 0.1 if spread is None else spread
    past, both = kernel.position.detach()[0].unbind(-1)
    assert past.min().item() >= 0
    for axis in (past, both):  # folded, or not: the second moment is the same
        assert axis.square().mean().sqrt().item() == pytest.approx(expected, rel=0.03)
    assert abs(both.mean().item()) < 0.03 * expected * 2


def test_bandlimit_is_that_of_the_narrowest_gaussian() -> None:
    kernel = Bumps(2, 3, reach=(8, 20), bumps=5, shared=False, dtype=F64)
    narrowest = spread_widths(kernel).min()
    # A Gaussian of width r has the spectrum exp(-r^2 omega^2 / 2); Nyquist is pi radians per sample.
    assert kernel.bandlimit() == pytest.approx((2 / narrowest / math.pi,) * 2)
    assert Bumps(1, 1, reach=8, learn_width=False, width=2.0).bandlimit() == pytest.approx((1 / math.pi,))
    assert Bumps(1, 1, reach=8, shape="cone").bandlimit() is None
    # Any values at 10 places on 41 lags, 4.1 apart, and one standard deviation more.
    dense = Bumps(1, 1, reach=20, bumps=10, normalize="posterior", width=5.0)
    assert dense.bandlimit() == pytest.approx((1 / 4.1 + 1 / 5.0 / math.pi,))
    sparse = Bumps(1, 1, reach=20, bumps=10, normalize="posterior", width=1.0)
    assert sparse.bandlimit() == pytest.approx((2 / math.pi,))


@pytest.mark.parametrize(("normalize", "free"), [("none", 0.0), ("posterior", 10 / 41)])
def test_the_bandwidth_has_the_derivative_of_the_narrowest_width(normalize: str, free: float) -> None:
    """b = (1 / r + max(1 / r, pi h)) / pi, with h bumps per lag: db = -dr / (pi r^2), twice that if 1 / r > pi h."""
    for width in (0.8, 3.0):
        kernel = Bumps(1, 1, reach=20, bumps=10, normalize=normalize, width=width, dtype=F64)
        assert kernel.width_logit is not None
        with torch.no_grad():
            kernel.width_logit[..., 0] -= 0.1
        r = kernel.width().amin()
        (slope,) = torch.autograd.grad(r, kernel.width_logit)
        terms = 2 if 1 / r.item() > math.pi * free else 1
        assert terms == (2 if normalize == "none" or width == 0.8 else 1)
        widths = kernel.bandwidths()
        assert widths is not None
        (found,) = torch.autograd.grad(widths.sum(), kernel.width_logit)
        torch.testing.assert_close(found, -terms * slope / (math.pi * r.item() ** 2))
        assert found.abs().max().item() > 0.01


def test_tags_and_parameters() -> None:
    kernel = Bumps(2, 6, reach=8, bumps=5, shape="triangle", learn_width=False)
    assert {name: tuple(p.shape) for name, p in kernel.named_parameters()} == {"position": (1, 5, 2), "weight": (6, 5)}
    assert not kernel.parameter_tags()["position"].decay
    own = Bumps(2, 6, reach=8, bumps=5, shared=False)
    assert {name: tuple(p.shape) for name, p in own.named_parameters()} == {
        "position": (6, 5, 2),
        "width_logit": (6, 5),
        "weight": (6, 5),
    }
    tag = own.parameter_tags()["width_logit"]
    assert (tag.lr_scale, tag.decay) == (0.1, False)
    assert "weight" not in own.parameter_tags()


def test_shared_places_cost_no_memory_per_channel() -> None:
    """The largest tensor that is kept for the gradient is `points bumps`, whatever the channels and axes."""
    kernel, points = Bumps(3, 50, reach=4, bumps=8), 100
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kernel(2 * torch.rand(points, 3) - 1)
    assert max(kept) <= points * 8


def test_places_move_to_where_the_target_is() -> None:
    """One triangle, two samples off, finds a tap of another kernel by gradient descent."""
    layer = Conv2d(1, 1, 12, kernel=partial(Bumps, bumps=1, width=3.0), support=Full, reach=5, bias=False, dtype=F64)
    bumps = layer.kernel
    assert isinstance(bumps, Bumps)
    with torch.no_grad():
        bumps.position.copy_(torch.tensor([[[0.4, -0.2]]], dtype=F64))
        bumps.weight.fill_(1.0)
    goal = layer.taps().detach()
    with torch.no_grad():
        bumps.position.zero_()
    optimizer = torch.optim.Adam([bumps.position], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (layer.taps() - goal).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(bumps.centre()[0, 0], torch.tensor([0.4, -0.2], dtype=F64), rtol=0.0, atol=1e-2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Bumps(1, 4, reach=4, bumps=0), ValueError, "`bumps` must be at least 1; got 0"),
        (lambda: Bumps(1, 4, reach=4, shape="square"), ValueError, "`shape` must be one of .*'cone'; got 'square'"),
        (lambda: Bumps(1, 4, reach=4, normalize="max"), ValueError, "`normalize` must be one of 'none', .*; got 'max'"),
        (
            lambda: Bumps(1, 4, reach=4, normalize="count"),
            ValueError,
            "`normalize` 'count' goes with the shape 'triangle' or 'cone'; got `shape` 'gaussian'",
        ),
        (lambda: Bumps(1, 4, reach=4, shape="cone", normalize="sum"), ValueError, "'sum' goes with the shape 'tri"),
        (lambda: Bumps(1, 4, reach=4, shape="cone", normalize="posterior"), ValueError, "goes with the shape 'gauss"),
        (lambda: Bumps(1, 4, reach=4, width=0.2), ValueError, "`width` must be above 0.27 samples.*; got 0.2"),
        (lambda: Bumps(2, 4, reach=4, shape="cone", width=1.25), ValueError, "`width` must be above 1.25 samples"),
        (lambda: Bumps(1, 4, reach=4, width=math.inf), ValueError, "`width` must be finite and above 0"),
        (lambda: Bumps(1, 4, reach=4, spread=0.0), ValueError, "`spread` must be finite and above 0"),
        (lambda: Bumps(1, 4, reach=4, noise=0.0), ValueError, "`noise` must be finite and at least 1e-06"),
        (lambda: Bumps(1, 4, reach=4, shared=1), TypeError, "`shared` must be True or False"),  # type: ignore[arg-type]
        (lambda: Bumps(1, 4, reach=4, learn_width=1), TypeError, "`learn_width` must be"),  # type: ignore[arg-type]
        (lambda: Bumps(2, 4, reach=4)(torch.zeros(5, 1)), ValueError, r"`positions` must be \(\*points, 2\)"),
    ],
)
def test_bad_bumps_are_named(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]
