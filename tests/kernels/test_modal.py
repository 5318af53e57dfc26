"""The kernel of diagonal state spaces against the recurrence it comes from, and that recurrence against convolution."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from omniconv.kernels import SIREN, Modal, Modes
from omniconv.nn import Conv
from omniconv.testing import assert_close

INITS = ["lin", "inv", "legs", "real"]
RULES = ["zoh", "bilinear"]
F64 = torch.float64


def state_space(kernel: Modal, axis: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Transition, input and output of the discretised system, `rank channels modes`, from the parameters."""
    dt = np.exp(kernel.log_dt.detach().numpy()[:, axis])[..., None]
    A = -np.exp(kernel.log_decay.detach().numpy()[:, axis]).astype(complex)
    C = kernel.coefficient.detach().numpy()[:, side]
    if kernel.frequency is None:
        C = C[..., 0] + 0j
    else:
        A = A + 1j * kernel.frequency.detach().numpy()[:, axis]
        C = C[..., 0] + 1j * C[..., 1]
    if kernel.discretization == "zoh":
        return np.exp(dt * A), (np.exp(dt * A) - 1) / A, C
    return (1 + dt * A / 2) / (1 - dt * A / 2), dt / (1 - dt * A / 2), C


def at(kernel: Modal, axis: int, side: int, lags: np.ndarray) -> np.ndarray:
    """The kernel of one side at lags in samples, `lags rank channels`."""
    transition, entry, output = state_space(kernel, axis, side)
    powers = transition ** np.abs(lags)[:, None, None, None]
    return 2 * (output * entry * powers).sum(-1).real


def impulse_response(kernel: Modal, length: int) -> np.ndarray:
    """The state space run step by step on an impulse, `length channels`."""
    transition, entry, output = state_space(kernel, 0, 0)
    state, taps = np.zeros_like(transition), []
    for t in range(length):
        state = transition * state + entry * (1.0 if t == 0 else 0.0)
        taps.append(2 * (output * state).sum((0, 2)).real)
    return np.stack(taps)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("reach", "rank"), [(40, 1), (17, 2)])
def test_on_the_grid_the_kernel_is_the_impulse_response_of_the_state_space(
    init: str, rule: str, reach: int, rank: int
) -> None:
    kernel = Modal(
        1, 3, reach=reach, causal=True, modes=6, rank=rank, init=init, discretization=rule, bandwidth=0.7, dtype=F64
    )
    lattice = torch.arange(reach + 1, dtype=F64)[:, None] / reach
    expected = torch.from_numpy(impulse_response(kernel, reach + 1))
    torch.testing.assert_close(kernel(lattice), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rule", RULES)
def test_between_the_samples_it_is_the_same_exponentials(rule: str) -> None:
    kernel = Modal(1, 2, reach=20, causal=True, modes=5, discretization=rule, dtype=F64)
    t = np.random.default_rng(0).uniform(0, 20, 30)
    expected = torch.from_numpy(at(kernel, 0, 0, t).sum(1))
    torch.testing.assert_close(kernel(torch.from_numpy(t)[:, None] / 20), expected)


def test_either_side_has_coefficients_of_its_own_and_the_zero_lag_their_mean() -> None:
    kernel = Modal(1, 2, reach=9, modes=4, dtype=F64)
    t = np.array([-9.0, -4.25, -1e-9, 0.0, 1e-9, 0.5, 9.0])
    right, left = at(kernel, 0, 0, t).sum(1), at(kernel, 0, 1, t).sum(1)
    expected = np.where(t[:, None] > 0, right, np.where(t[:, None] < 0, left, (right + left) / 2))
    assert np.abs(right - left).min() > 1e-6
    torch.testing.assert_close(kernel(torch.from_numpy(t)[:, None] / 9), torch.from_numpy(expected))


@pytest.mark.parametrize("rank", [1, 3])
def test_several_axes_multiply(rank: int) -> None:
    kernel = Modal(
        3, 2, reach=(8, 5, 3), causal=(False, True, False), modes=4, rank=rank, init="inv", bandwidth=1.0, dtype=F64
    )
    assert kernel.coefficient.shape == (rank, 5, 2, 4, 2)
    p = np.random.default_rng(0).uniform((-1, 0, -1), 1, (40, 3))

    def side(axis: int, first: int) -> np.ndarray:
        t = p[:, axis] * (8, 5, 3)[axis]
        return np.where(t[:, None, None] > 0, at(kernel, axis, first, t), at(kernel, axis, first + 1, t))

    expected = (side(0, 0) * at(kernel, 1, 2, p[:, 1] * 5) * side(2, 3)).sum(1)
    torch.testing.assert_close(kernel(torch.from_numpy(p)), torch.from_numpy(expected))


def published(init: str, modes: int) -> np.ndarray:
    """A of the published initialisations."""
    n, N = np.arange(modes), 2 * modes
    if init == "lin":
        return -0.5 + 1j * math.pi * n
    if init == "inv":
        return -0.5 + 1j * N / math.pi * (N / (2 * n + 1) - 1)
    if init == "real":
        return -(n + 1.0) + 0j
    # HiPPO-LegS: A_nk = -sqrt((2n+1)(2k+1)) for n > k, -(n+1) for n = k, 0 for n < k; plus P P^T, P_n = sqrt(n + 1/2).
    hippo = np.zeros((N, N))
    for row in range(N):
        for column in range(row):
            hippo[row, column] = -math.sqrt((2 * row + 1) * (2 * column + 1))
        hippo[row, row] = -(row + 1)
    P = np.sqrt(np.arange(N) + 0.5)
    values = np.linalg.eig(hippo + np.outer(P, P))[0]
    return np.array(sorted((v for v in values if v.imag > 0), key=lambda v: v.imag))


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("modes", [1, 7, 16])
def test_initial_values(init: str, modes: int) -> None:
    kernel = Modal(2, 3, reach=50, modes=modes, init=init, dt=(0.001, 0.1), dtype=F64)
    A = torch.from_numpy(published(init, modes)).expand(1, 2, 3, modes)
    torch.testing.assert_close(-kernel.log_decay.exp(), A.real)
    if init == "real":
        assert kernel.frequency is None
        assert kernel.coefficient.shape == (1, 4, 3, modes, 1)
    else:
        assert kernel.frequency is not None
        torch.testing.assert_close(kernel.frequency, A.imag, rtol=1e-9, atol=1e-9)


# Per unit of the reach from 1 to 100, and never above 0.1 per sample.
@pytest.mark.parametrize(
    ("reach", "options", "low", "high"),
    [
        (1000, {}, 1 / 1000, 100 / 1000),
        (16000, {}, 1 / 16000, 100 / 16000),
        (50, {}, 1 / 50, 5 / 50),
        (4, {}, 1 / 4, 1 / 4),
        (0, {}, 1.0, 1.0),
        (200, {"steps": (0.5, 40.0)}, 0.5 / 200, 40 / 200),
        (200, {"dt": (1e-4, 1e-2)}, 1e-4, 1e-2),
    ],
)
def test_steps_are_log_uniform_in_their_range(reach: int, options: dict[str, Any], low: float, high: float) -> None:
    log_dt = Modal(1, 4000, reach=reach, modes=1, dtype=F64, **options).log_dt
    assert math.log(low) - 1e-12 <= log_dt.min() <= log_dt.max() <= math.log(high) + 1e-12
    assert log_dt.mean().item() == pytest.approx(math.log(low * high) / 2, abs=0.1)
    assert log_dt.std().item() == pytest.approx(math.log(high / low) / 12**0.5, abs=0.1)


@pytest.mark.parametrize("init", ["lin", "inv", "legs"])
@pytest.mark.parametrize("bandwidth", [0.25, 1.0])
def test_frequencies_beyond_the_bandwidth_are_reflected(init: str, bandwidth: float) -> None:
    kernel = Modal(1, 50, reach=100, causal=True, modes=16, init=init, bandwidth=bandwidth, dtype=F64)
    assert kernel.frequency is not None
    dt = kernel.log_dt.exp()[..., None]
    angle, original = (dt * kernel.frequency).detach(), (dt * torch.from_numpy(published(init, 16).imag)).detach()
    top = bandwidth * math.pi
    assert angle.min() >= 0
    assert angle.max() <= top * (1 + 1e-12)
    torch.testing.assert_close(torch.cos(angle / bandwidth), torch.cos(original / bandwidth), rtol=0, atol=1e-10)
    below = original <= top
    assert 0.1 < below.double().mean() < 1
    torch.testing.assert_close(angle[below], original[below])


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rank", [1, 2])
def test_the_modal_form_is_exact(init: str, rule: str, rank: int) -> None:
    kernel = Modal(1, 3, reach=30, causal=True, modes=4, rank=rank, init=init, discretization=rule, dtype=F64)
    modes = kernel.to_modal()
    assert modes is not None
    assert modes.poles.shape == modes.residues.shape == (3, 4 * rank)
    taps = kernel(torch.arange(31, dtype=F64)[:, None] / 30).T
    torch.testing.assert_close(modes.taps(31), taps)
    x = np.random.default_rng(0).normal(size=(2, 3, 31))
    state, outputs = None, []
    for t in range(31):
        y, state = modes.step(torch.from_numpy(x[..., t]), state)
        outputs.append(y)
    h = taps.detach().numpy()
    expected = np.stack([[np.convolve(row, h[c])[:31] for c, row in enumerate(rows)] for rows in x])
    torch.testing.assert_close(torch.stack(outputs, dim=-1), torch.from_numpy(expected))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_pole_of_zero_is_a_tap_at_the_zero_lag(dtype: torch.dtype) -> None:
    modes = Modes(
        torch.tensor([[0.0, 0.5], [0.0, 0.0]], dtype=dtype), torch.tensor([[3.0, 2.0], [1.0, 1j]], dtype=dtype)
    )
    expected = torch.tensor([[5.0, 1.0, 0.5, 0.25], [1.0, 0.0, 0.0, 0.0]], dtype=modes.poles.real.dtype)
    torch.testing.assert_close(modes.taps(4), expected)
    torch.testing.assert_close(modes.taps(1), expected[:, :1])


def test_bad_samples_and_states_are_named() -> None:
    """`step` of 3 channels and 4 modes, after one step of a batch of 2."""
    modes = Modal(1, 3, reach=30, causal=True, modes=4).to_modal()
    assert modes is not None
    u = torch.randn(2, 3)
    _, state = modes.step(u)
    with pytest.raises(TypeError, match=r"`u` must hold floating-point numbers; got a int64 tensor of shape \(2, 3\)"):
        modes.step(torch.ones(2, 3, dtype=torch.long), state)
    with pytest.raises(TypeError, match=r"`u` must be a torch\.Tensor; got float 1\.0"):
        modes.step(1.0, state)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`u` must be \(\*batch, 3\), a sample per channel; got .*\(2, 1\)"):
        modes.step(u[:, :1], state)
    for wrong in (state[0], state[:1], state[..., :1], state[:, :, None]):
        with pytest.raises(
            ValueError, match=r"`state` must be what the last step returned, .* \(2, 3, 4\); got a comp"
        ):
            modes.step(u, wrong)
    with pytest.raises(TypeError, match="`state` must be a tensor, what the last step returned; got int 0"):
        modes.step(u, 0)  # type: ignore[arg-type]


def test_the_modal_form_is_in_double_precision_and_has_no_graph() -> None:
    kernel = Modal(1, 3, reach=30, causal=True)
    modes = kernel.to_modal()
    assert modes is not None
    assert modes.poles.dtype == modes.residues.dtype == torch.complex128
    assert not modes.poles.requires_grad
    assert not modes.residues.requires_grad
    torch.testing.assert_close(modes.taps(31), kernel.double()(torch.arange(31, dtype=F64)[:, None] / 30).T)


def test_kernels_without_a_recurrence_say_so() -> None:
    for kernel in (SIREN(1, 2, reach=4, causal=True), Modal(1, 2, reach=4), Modal(2, 2, reach=4, causal=True)):
        assert kernel.to_modal() is None


@pytest.mark.parametrize("init", ["lin", "real"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_stable_and_finite_whatever_the_parameters(init: str, rule: str, dtype: torch.dtype) -> None:
    kernel = Modal(1, 200, reach=16384, causal=True, init=init, discretization=rule, modes=8, dtype=dtype)
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter.normal_(std=8.0)
        # The bilinear transition is zero where dt A = -2: one of these is that to the last bit.
        near = math.log(2.0) + torch.arange(-4, 5, dtype=F64) * torch.finfo(dtype).eps / 2
        kernel.log_dt[0, 0, :9], kernel.log_decay[0, 0, :9] = near.to(dtype), 0.0
        if kernel.frequency is not None:
            kernel.frequency[0, 0, :9] = 0.0
        kernel.log_decay[0, 0, 10], kernel.log_decay[0, 0, 11] = 200.0, -200.0
    modes = kernel.to_modal()
    assert modes is not None
    poles = modes.poles
    assert poles.abs().max() < 1
    assert poles.abs().min() > 0
    positions = torch.tensor([[0.0], [1 / 16384], [0.01], [1.0]], dtype=dtype, requires_grad=True)
    values = kernel(positions)
    gradients = torch.autograd.grad(values.sum(), [positions, *kernel.parameters()])
    assert values.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("decay", "bound"), [(None, 1e-4), (-30.0, 1e-3)])
def test_float32_suffices_at_a_long_reach(init: str, rule: str, decay: float | None, bound: float) -> None:
    kernel = Modal(1, 4, reach=16384, causal=True, init=init, discretization=rule, bandwidth=1.0)
    positions = torch.arange(0, 16385, 5)[:, None] / 16384  # exact in float32
    with torch.no_grad():
        if decay is not None:
            kernel.log_decay.fill_(decay)
        rounded, exact = kernel(positions), kernel.double()(positions.double())
    assert (rounded - exact).norm() < bound * exact.norm()


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("decay", [None, -30.0])
def test_on_a_grid_float32_is_exact_at_a_long_reach(init: str, decay: float | None) -> None:
    """Where `forward` has lost two digits, since phases grow with the lag."""
    kernel = Modal(1, 3, reach=16384, causal=True, init=init, modes=8, bandwidth=1.0)
    with torch.no_grad():
        if decay is not None:
            kernel.log_decay.fill_(decay)
        rounded = kernel.on_grid((16384,), (1.0,), torch.float32)
        exact = kernel.double()(torch.arange(0, 16385, dtype=F64)[:, None] / 16384)
    assert_close(rounded, exact)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7, 8, 15, 16, 17, 1030])
@pytest.mark.parametrize("causal", [False, True])
def test_grids_of_any_size(steps: int, causal: bool) -> None:
    kernel = Modal(1, 2, reach=9, causal=causal, modes=3, rank=2, dtype=F64)
    positions = torch.arange(0 if causal else -steps, steps + 1, dtype=F64)[:, None] * (0.3 / 9)
    assert_close(kernel.on_grid((steps,), (0.3,), F64), kernel(positions), tolerance=1e-12)


def test_reference_positions_hold_the_zero_lag() -> None:
    """There a kernel of two sides has the mean of them: next to it, it would be calibrated for another one."""
    for reach in range(1, 30):
        positions = Modal(1, 1, reach=reach, modes=1).reference_positions()
        assert positions[reach] == 0
        assert torch.equal(positions, -positions.flip(0))


def test_a_layer_takes_its_taps_from_the_grid() -> None:
    """At a reach where `forward` would hold a hundred million exponentials."""
    layer = Conv(4, 4, 2**20, kernel=partial(Modal, modes=8), mixing="depthwise", causal=True)
    taps = layer.taps()
    some = torch.tensor([0, 1, 1023, 1024, 1025, 2**20 - 1])
    assert_close(taps[:, some], copy.deepcopy(layer).double().values(some.double()[:, None]))
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(taps.sum(), [*layer.kernel.parameters()]))


@pytest.mark.parametrize("rule", RULES)
def test_bandlimit_holds_nine_tenths_of_every_mode(rule: str) -> None:
    kernel = Modal(2, 3, reach=(40, 300), modes=5, discretization=rule, bandwidth=0.8, dtype=F64)
    for axis, limit in enumerate(kernel.bandlimit() or ()):
        logs = np.log(state_space(kernel, axis, 0)[0]).reshape(-1)
        tops = np.abs(logs.imag) - math.tan(0.45 * math.pi) * logs.real
        assert limit == pytest.approx(tops.max() / math.pi)
        for top, mode in zip(tops, logs, strict=True):
            # exp(-a t + i f t) has the energy density a / pi / (a^2 + (w - f)^2) over the frequencies w.
            a, f = -mode.real, mode.imag
            share = (math.atan((top - f) / a) - math.atan((-top - f) / a)) / math.pi
            assert share >= 0.9 - 1e-9


def test_rates_learn_slowly_and_do_not_decay() -> None:
    tags = Modal(1, 2, reach=4).parameter_tags()
    assert set(tags) == {"log_dt", "log_decay", "frequency"}
    assert all(tag.lr_scale == 0.1 and not tag.decay for tag in tags.values())
    assert set(Modal(1, 2, reach=4, init="real").parameter_tags()) == {"log_dt", "log_decay"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": 0}, "`modes` must be at least 1; got 0"),
        ({"rank": 0}, "`rank` must be at least 1; got 0"),
        ({"init": "diag"}, "`init` must be one of 'lin', 'inv', 'legs', 'real'; got 'diag'"),
        ({"discretization": "euler"}, "`discretization` must be one of 'zoh', 'bilinear'; got 'euler'"),
        ({"bandwidth": 0.0}, "`bandwidth` must be finite and above 0; got 0.0"),
        ({"steps": (1.0, 2.0), "dt": (0.1, 0.2)}, "`steps` and `dt` exclude each other"),
        ({"steps": 3.0}, "`steps` must be two numbers, the lowest and the highest; got float 3.0"),
        ({"dt": (0.1, 0.01)}, r"`dt` must have the lower number first; got \(0.1, 0.01\)"),
        ({"dt": (0.0, 0.1)}, "`dt` must be finite and above 0; got 0.0"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Modal(1, 2, reach=4, **options)


def test_modes_refuse_other_shapes_and_dtypes() -> None:
    poles = torch.full((2, 3), 0.5 + 0.1j)
    with pytest.raises(TypeError, match="`residues` must hold complex numbers; got a float32 tensor"):
        Modes(poles, poles.real)
    with pytest.raises(ValueError, match=r"`poles` and `residues` must both be \(channels, modes\)"):
        Modes(poles, poles[:1])
    with pytest.raises(ValueError, match=r"`poles` and `residues` must both be \(channels, modes\)"):
        Modes(poles[0], poles[0])
    with pytest.raises(ValueError, match=r"`u` must be \(\*batch, 2\), a sample per channel"):
        Modes(poles, poles).step(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="`length` must be at least 1; got 0"):
        Modes(poles, poles).taps(0)
