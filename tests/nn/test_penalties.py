"""Penalties on kernels against their formulas, with finite gradients everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omniconv import SIREN, Conv, Conv1d, Conv2d, Full, Gabor, Gaussian, Table, cite
from omniconv.kernels import Bumps, FourierNet, KernelFactory
from omniconv.nn import (
    Pointwise,
    admissibility,
    aliasing,
    all_pass,
    kernel_norm,
    narrowness,
    refresh,
    regrowth,
    relaxation,
    synchronize,
)
from omniconv.supports import Decay
from tests.cases import KERNELS

F64 = torch.float64
PENALTIES: dict[str, Callable[[nn.Module], Tensor]] = {
    "kernel_norm": kernel_norm,
    "all_pass": all_pass,
    "aliasing": partial(aliasing, nyquist=0.1),
    "aliasing-per-kernel": partial(aliasing, nyquist=0.1, per="kernel"),
}


def with_taps(taps: Tensor, mixing: str = "depthwise") -> Conv:
    """A layer with exactly these taps, `channels *size` or `out in *size`, the first of them at the zero lag."""
    size, channels = taps.shape[2 if mixing == "dense" else 1 :], taps.shape[: 2 if mixing == "dense" else 1]
    layer = Conv(channels[-1], channels[0], size, kernel=Table, support=Full, mixing=mixing, causal=True, dtype=F64)
    with torch.no_grad():
        layer.kernel.get_parameter("taps").copy_(taps.flatten(0, len(channels) - 1).movedim(0, -1))
        layer.gain.fill_(1.0)
    torch.testing.assert_close(layer.taps(), taps.to(F64))
    return layer


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_is_the_sum_over_convolutions(name: str) -> None:
    first, second = Conv1d(1, 4, 16, kernel=Gabor, dtype=F64), Conv1d(4, 2, 16, mixing="separable", dtype=F64)
    penalty = PENALTIES[name]
    both = penalty(nn.Sequential(first, nn.GELU(), Pointwise(4, 4), second))
    assert both.item() == pytest.approx(penalty(first).item() + penalty(second).item())
    assert min(penalty(first).item(), penalty(second).item()) > 0
    assert both.shape == ()
    assert both.dtype == F64
    assert penalty(nn.Sequential(Pointwise(2, 2))).item() == 0


@pytest.mark.parametrize("mixing", ["dense", "depthwise", "separable"])
@pytest.mark.parametrize("name", PENALTIES)
def test_derivatives_agree_with_differences(name: str, mixing: str) -> None:
    layer = Conv2d(2, 2, (3, 4), kernel=partial(Gabor, hidden=3, depth=1), mixing=mixing, dtype=F64)
    names = [name for name, _ in layer.named_parameters()]

    class Penalty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self) -> Tensor:
            return PENALTIES[name](self.layer)

    def evaluate(*values: Tensor) -> Tensor:
        state = {f"layer.{name}": value for name, value in zip(names, values, strict=True)}
        result: Tensor = torch.func.functional_call(Penalty(), state, ())
        return result

    torch.autograd.gradcheck(evaluate, [p.detach().clone().requires_grad_() for p in layer.parameters()])


@pytest.mark.parametrize("mixing", ["dense", "depthwise"])
@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_are_finite_where_everything_is_zero(name: str, mixing: str) -> None:
    layer = Conv1d(2, 2, 8, kernel=Gabor, mixing=mixing)
    with torch.no_grad():
        for parameter in layer.kernel.parameters():
            parameter.zero_()
    PENALTIES[name](layer).backward()
    assert layer.kernel.get_parameter("output_weight").abs().max().item() == 0
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in layer.parameters())


def test_the_kernel_norm_is_the_sum_of_squares() -> None:
    assert kernel_norm(with_taps(torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 0.0]]))).item() == 1 + 4 + 0.25 + 9


# All pass


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (3, 4), (2, 3, 2)])
def test_a_shifted_impulse_passes_all_frequencies(shape: tuple[int, ...]) -> None:
    for position in (0, math.prod(shape) - 1, math.prod(shape) // 2):
        taps = torch.zeros(2, math.prod(shape))
        taps[0, position], taps[1, 0] = 1.0, -1.0  # and its sign does not matter
        assert all_pass(with_taps(taps.reshape(2, *shape))).item() == pytest.approx(0.0, abs=1e-28)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.5, 0.5), (0.6, -0.8), (0.3, 2.0)])
@pytest.mark.parametrize("mixing", ["dense", "depthwise"])
def test_two_taps(a: float, b: float, mixing: str) -> None:
    # |a + b e^{-iw}|^2 - 1 = (a^2 + b^2 - 1) + 2 a b cos w, whose square is (a^2 + b^2 - 1)^2 + 2 a^2 b^2 on average
    expected = (a**2 + b**2 - 1) ** 2 + 2 * a**2 * b**2
    for lag in (1, 2, 5):
        taps = torch.zeros(1, lag + 1, dtype=F64)
        taps[0, 0], taps[0, lag] = a, b
        layer = with_taps(taps if mixing == "depthwise" else taps[None], mixing)
        assert all_pass(layer).item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(6,), (3, 4)])
def test_the_mean_over_frequencies_is_the_distance_of_the_autocorrelation_from_an_impulse(
    shape: tuple[int, ...],
) -> None:
    """By Parseval; and so it is exact, however many frequencies there are, and a mean over the channels."""
    taps = torch.randn(3, *shape, dtype=F64)
    total = 0.0
    for channel in taps:
        padded = nn.functional.pad(channel, [n for size in reversed(shape) for n in (size - 1, size - 1)])
        correlation = torch.stack(
            [
                (padded[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))] * channel).sum()
                for start in torch.cartesian_prod(*[torch.arange(2 * n - 1) for n in shape])
                .reshape(-1, len(shape))
                .tolist()
            ]
        )
        correlation[len(correlation) // 2] -= 1  # the zero lag
        total += correlation.square().sum().item()
    assert all_pass(with_taps(taps)).item() == pytest.approx(total / 3)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (3, 5), (5, 3), (1, 4)])
def test_an_orthogonal_matrix_passes_all_frequencies(rows: int, columns: int) -> None:
    matrix = torch.linalg.qr(torch.randn(5, 5, dtype=F64))[0][:rows, :columns]
    if max(rows, columns) < 5:
        matrix = torch.linalg.qr(torch.randn(max(rows, columns), max(rows, columns), dtype=F64))[0][:rows, :columns]
    taps = torch.zeros(rows, columns, 4, dtype=F64)
    taps[..., 2] = matrix
    assert all_pass(with_taps(taps, "dense")).item() == pytest.approx(0.0, abs=1e-28)
    # 2 U has the Gram matrix 4: |4 - 1|^2 = 9 for each row or column
    assert all_pass(with_taps(2 * taps, "dense")).item() == pytest.approx(9.0)


def test_a_dense_layer_at_every_frequency() -> None:
    """|K K^H - 1|^2 / 2 for two outputs, frequency by frequency, on more frequencies than the exact mean needs."""
    taps = torch.randn(2, 3, 5, dtype=F64)
    total = 0.0
    for w in (torch.arange(40) * 2 * math.pi / 40).tolist():
        transfer = (taps * torch.exp(-1j * w * torch.arange(5))).sum(-1)
        total += (transfer @ transfer.mH - torch.eye(2)).abs().square().sum().item() / 2 / 40
    assert all_pass(with_taps(taps, "dense")).item() == pytest.approx(total)
    assert all_pass(with_taps(taps.transpose(0, 1), "dense")).item() == pytest.approx(total)  # its columns


def test_a_separable_layer_counts_before_the_channels_are_mixed() -> None:
    layer = Conv1d(2, 5, 8, mixing="separable", dtype=F64)
    before = all_pass(layer)
    depthwise = with_taps(layer.taps().detach().clone())  # the same lags, from 0 on: a shift does not matter
    assert before.item() == pytest.approx(all_pass(depthwise).item())
    assert layer.mixer is not None
    with torch.no_grad():
        layer.mixer.weight.mul_(3.0)
    assert all_pass(layer).item() == before.item()


def test_many_frequencies_are_sampled() -> None:
    layer = with_taps(torch.randn(2, 2, 300, dtype=F64) / 20, "dense")
    exact = all_pass(layer, frequencies=1000).item()
    torch.manual_seed(0)
    draws = torch.tensor([all_pass(layer, frequencies=20).item() for _ in range(400)])
    assert draws.std().item() > 0
    assert abs(draws.mean().item() - exact) < 4 * draws.std().item() / 400**0.5
    assert all_pass(layer).item() == exact  # as many as are needed


@pytest.mark.parametrize("dim", [1, 2])
def test_new_layers_of_every_length_are_about_as_far_from_all_pass(dim: int) -> None:
    torch.manual_seed(0)
    found = [
        all_pass(Conv(16, 16, (n,) * dim, kernel=Table, support=Full, mixing=mixing)).item()
        for n in (8, 33 if dim == 2 else 400)
        for mixing in ("depthwise", "separable")
    ]
    assert max(found) < 3 * min(found), found


def test_training_on_it_makes_a_layer_keep_energy() -> None:
    torch.manual_seed(0)
    taps = 0.2 * torch.randn(2, 12, dtype=F64)
    taps[:, 3] += 0.7
    layer = with_taps(taps)
    x = torch.zeros(1, 2, 64, dtype=F64)
    x[..., :40] = torch.randn(2, 40, dtype=F64)
    assert abs((layer(x).norm() / x.norm()).item() - 1) > 0.05
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        all_pass(layer).backward()
        optimizer.step()
    assert (layer(x).norm() / x.norm()).item() == pytest.approx(1.0, abs=1e-3)


# Aliasing


def gabor_layer(dim: int) -> tuple[Conv, Tensor, Tensor]:
    """A layer of Gabor filters, their frequencies and the support's, from the formulas, in Nyquist units."""
    reach = torch.tensor([10.0, 4.0][:dim], dtype=F64)
    layer = Conv(
        1,
        2,
        (8, 8)[:dim],
        kernel=partial(Gabor, hidden=5, depth=2),
        support=partial(Gaussian, width=0.3),
        reach=(10, 4)[:dim],
        dtype=F64,
    )
    w, gamma = layer.kernel.get_parameter("frequency"), layer.kernel.get_parameter("inverse_width")
    filters = ((w.abs() + 2 * gamma.abs()) / (math.pi * reach)).amax((1, 2))  # over units and axes
    window = (2 / (0.3 * math.pi * reach)).amax()
    return layer, filters.detach(), window


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("supports", [True, False])
@pytest.mark.parametrize("nyquist", [0.3, 1.0])
def test_aliasing_per_filter(dim: int, supports: bool, nyquist: float) -> None:
    layer, filters, window = gabor_layer(dim)
    expected = sum(max(f + window.item() * supports / 3 - nyquist / 3, 0.0) ** 2 for f in filters.tolist())
    assert expected > 0 or nyquist == 1.0
    assert aliasing(layer, nyquist=nyquist, supports=supports).item() == pytest.approx(expected)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("supports", [True, False])
@pytest.mark.parametrize("nyquist", [0.3, 1.0])
def test_aliasing_per_kernel(dim: int, supports: bool, nyquist: float) -> None:
    layer, filters, window = gabor_layer(dim)
    expected = max(sum(filters.tolist()) + window.item() * supports - nyquist, 0.0) ** 2
    assert expected > 0 or nyquist == 1.0
    found = aliasing(layer, per="kernel", nyquist=nyquist, supports=supports)
    assert found.item() == pytest.approx(expected)


def test_unknown_supports_add_no_frequency() -> None:
    torch.manual_seed(0)
    decaying = Conv1d(1, 1, 32, kernel=FourierNet, support=Decay, dtype=F64)
    assert decaying.support.bandwidth() is None
    assert aliasing(decaying, nyquist=0.2).item() == aliasing(decaying, nyquist=0.2, supports=False).item() > 0


@pytest.mark.parametrize("per", ["filter", "kernel"])
@pytest.mark.parametrize("kernel", [SIREN, Gabor, FourierNet])
def test_a_few_steps_bring_a_kernel_below_the_limit(kernel: Callable[..., Gabor], per: str) -> None:
    layer = Conv1d(1, 1, 64, kernel=partial(kernel, hidden=8, bandwidth=1.0), support=partial(Gaussian, width=0.5))
    before = aliasing(layer, per="kernel", nyquist=0.5).item()
    (nyquist,) = layer.kernel.nyquist()
    rate = nyquist**2 / (16 if per == "filter" else 64)  # a share of the excess at each step, over four filters
    optimizer = torch.optim.SGD(layer.kernel.parameters(), lr=rate)
    for _ in range(200):
        optimizer.zero_grad()
        aliasing(layer, per=per, nyquist=0.5).backward()
        optimizer.step()
    limit, window = layer.kernel.bandlimit(), layer.support.bandwidth()
    assert limit is not None
    assert window is not None
    assert before > 0.1**2
    assert limit[0] + window.item() < 0.5 + 0.01


@pytest.mark.parametrize("per", ["filter", "kernel"])
def test_kernels_below_the_limit_are_left_alone(per: str) -> None:
    layer = Conv1d(1, 1, 64, kernel=partial(FourierNet, bandwidth=0.4), support=partial(Gaussian, width=0.5))
    penalty = aliasing(layer, per=per)
    penalty.backward()
    assert penalty.item() == 0
    assert not any(bool(p.grad.any()) for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize("kernel", [*KERNELS.values(), partial(Bumps, learn_width=False)], ids=[*KERNELS, "fixed"])
def test_every_kernel_that_knows_its_frequencies_is_on_the_device_of_its_layer(kernel: KernelFactory) -> None:
    layer = Conv1d(1, 1, 8, kernel=kernel, device="meta")
    if layer.kernel.bandwidths() is not None:
        for per in ("filter", "kernel"):
            assert aliasing(layer, per=per).device == layer.gain.device


def test_kernels_that_know_nothing_are_refused_unless_another_one_knows() -> None:
    unknown, known = Conv1d(1, 1, 8, kernel=Table), Conv1d(1, 1, 8, kernel=Gabor)
    with pytest.raises(ValueError, match=r"`model` must have .* knows its bandwidths; Table does not\. Use"):
        aliasing(unknown)
    assert aliasing(nn.Sequential(unknown, known), nyquist=0.1) == aliasing(known, nyquist=0.1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda layer: aliasing(layer, per="layer"),
            ValueError,
            "`per` must be one of 'filter', 'kernel'; got 'layer'",
        ),
        (lambda layer: aliasing(layer, nyquist=0.0), ValueError, "`nyquist` must be finite and above 0; got 0.0"),
        (lambda layer: aliasing(layer, supports=1), TypeError, "`supports` must be True or False; got int 1"),  # type: ignore[arg-type]
        (lambda layer: all_pass(layer, frequencies=0), ValueError, "`frequencies` must be at least 1; got 0"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[Conv], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(Conv1d(1, 1, 8))


@pytest.mark.parametrize("model", [None, "a", [Conv1d(1, 1, 8)], Conv1d], ids=["none", "text", "list", "class"])
@pytest.mark.parametrize(
    "function",
    [
        *(admissibility, aliasing, all_pass, cite, kernel_norm, narrowness, refresh, regrowth, relaxation),
        synchronize,
    ],
)
def test_what_is_no_model_is_named(function: Callable[[Any], Any], model: Any) -> None:
    with pytest.raises(TypeError, match=r"`model` must be a torch.nn.Module; got"):
        function(model)
