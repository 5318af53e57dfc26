"""Coarse grids without aliasing: a layer does to a coarse signal what it does to the interpolated one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from omniconv import CCNN, SIREN, Conv, Conv1d, Conv2d, Full, Gaussian, Table
from omniconv.kernels import KernelFactory
from omniconv.nn._lowpass import coarsened
from omniconv.supports import SupportFactory
from tests.cases import KERNELS

F64 = torch.float64


def interpolated(x: Tensor, axis: int, times: int) -> Tensor:
    """A periodic signal between its samples: x(t) in proportion to sum_i x[i] sinc(t - i) cos(pi (t - i) / 16)^2."""
    n = x.shape[axis]
    t, i = torch.arange(n * times, dtype=F64) / times, torch.arange(-4 * n, 5 * n, dtype=F64)
    u = t[:, None] - i
    weights = torch.where(u.abs() < 8, torch.sinc(u) * torch.cos(torch.pi * u / 16) ** 2, 0.0)
    weights = (weights / weights.sum(1, keepdim=True)).unflatten(1, (9, n)).sum(1)  # once around the circle
    return (x.movedim(axis, -1) @ weights.T).movedim(-1, axis)


@pytest.mark.parametrize(("spacing", "times"), [(2.0, 2), (1.5, 2), (3.0, 3), (2.4, 3), (1.0, 1), (0.5, 1)])
@pytest.mark.parametrize("n", [20, 33])
def test_coarse_signals_are_filtered_as_interpolated_ones(n: int, spacing: float, times: int) -> None:
    layer = Conv1d(2, 3, 40, kernel=partial(SIREN, bandwidth=1.0), boundary="circular", reach=11, dtype=F64)
    x = torch.randn(2, 2, n, dtype=F64)
    fine = layer(interpolated(x, -1, times), spacing=spacing / times)
    torch.testing.assert_close(layer(x, spacing=spacing, lowpass=True), fine[..., ::times])


def test_axes_are_filtered_one_by_one() -> None:
    layer = Conv2d(1, 2, (16, 12), kernel=Table, boundary="circular", reach=(5, 3), dtype=F64)
    x = torch.randn(1, 1, 8, 15, dtype=F64)
    fine = layer(interpolated(x, -2, 2), spacing=(1.0, 0.8))
    torch.testing.assert_close(layer(x, spacing=(2.0, 0.8), lowpass=True), fine[..., ::2, :])


def test_one_axis_may_be_causal_and_not_the_other() -> None:
    layer = Conv2d(1, 2, (16, 12), causal=(True, False), reach=(9, 4), support=Full, dtype=F64)
    assert layer.taps((2.0, 2.0), lowpass=True).shape[-2:] == (5 + 8 + 1, 2 * (2 + 8) + 1)
    x = torch.randn(1, 1, 20, 20, dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x, spacing=2.0, lowpass=True)[..., 7, :].sum(), x)
    assert gradient[..., 8:, :].abs().max().item() < 1e-13
    assert gradient[..., 7, :].abs().max().item() > 1e-3


def waves(n: int, step: float, highest: float) -> Tensor:
    """Waves of up to `highest` of the Nyquist frequency at step 1, which vanish at both ends of 256."""
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(n, dtype=F64) * step
    frequency = torch.rand(20, 1, generator=generator, dtype=F64) * highest * math.pi
    phase = 6.3 * torch.rand(20, 1, generator=generator, dtype=F64)
    return (torch.cos(frequency * t + phase).sum(0) * torch.sin(math.pi * t / 256) ** 2)[None, None]


@pytest.mark.parametrize("support", [Full, partial(Gaussian, width=0.2), partial(Gaussian, width=0.02)])
@pytest.mark.parametrize("name", KERNELS)
def test_the_same_integral_on_a_grid_of_half_the_samples(name: str, support: SupportFactory) -> None:
    """For signals of up to 0.8 of what the coarse grid carries, and every kernel, whatever its frequencies."""
    torch.manual_seed(0)
    layer = Conv1d(1, 8, 257, kernel=KERNELS[name], support=support, dtype=F64)
    reference = layer(waves(257, 1.0, 0.4))[..., ::2]
    coarse = layer(waves(129, 2.0, 0.4), spacing=2.0, lowpass=True)
    assert ((coarse - reference).norm() / reference.norm()).item() < 0.01


@pytest.mark.parametrize("kernel", [Table, partial(SIREN, bandwidth=1.0)])
def test_without_it_rough_kernels_are_other_ones(kernel: KernelFactory) -> None:
    """And a causal one, which cannot interpolate towards the future, is still nearly the same with it."""
    for causal, bound in ((False, 0.01), (True, 0.06)):
        torch.manual_seed(0)
        layer = Conv1d(1, 8, 257, kernel=kernel, support=partial(Gaussian, width=0.2), causal=causal, dtype=F64)
        layer.bandlimit = None  # the warning is tested elsewhere
        reference = layer(waves(257, 1.0, 0.4))[..., ::2]
        errors = [
            ((layer(waves(129, 2.0, 0.4), spacing=2.0, lowpass=lowpass) - reference).norm() / reference.norm()).item()
            for lowpass in (False, True)
        ]
        assert errors[0] > 0.3
        assert errors[1] < bound


def test_transfer_functions_agree_where_the_coarse_grid_carries_them() -> None:
    taps = torch.randn(1, 81, dtype=F64)
    coarse = coarsened(taps, (2,), (False,))
    for share in (0.0, 0.3, 0.8):  # of the coarse Nyquist frequency, pi / 2 a fine sample
        w = share * math.pi / 2
        fine_lags, coarse_lags = torch.arange(-40, 41), 2 * torch.arange(-28, 29)
        transfer = (taps * torch.exp(-1j * w * fine_lags)).sum()
        found = (coarse * torch.exp(-1j * w * coarse_lags)).sum()
        assert abs(found - transfer).item() < 0.01 * 81**0.5


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("times", [2, 3, 4])
@pytest.mark.parametrize("lags", [1, 5, 9, 31, 81, 82])
def test_coarse_taps_are_a_product_with_the_interpolation(lags: int, times: int, causal: bool) -> None:
    """sum_t k[t] W[t, i], with the whole matrix W in proportion to sinc(u) cos(pi u / 16)^2, u = t / times - i."""
    first = 0 if causal else -(lags // 2)
    far = math.ceil((lags - 1 + first) / times) + 8
    i = torch.arange(0 if causal else -far, far + 1, dtype=F64)
    u = (torch.arange(lags, dtype=F64)[:, None] + first) / times - i
    weights = torch.where(u.abs() < 8, torch.sinc(u) * torch.cos(torch.pi * u / 16) ** 2, 0.0)
    taps = torch.randn(2, 3, lags, dtype=F64)
    expected = taps @ (weights / weights.sum(1, keepdim=True))
    torch.testing.assert_close(coarsened(taps, (times,), (causal,)), expected, rtol=0.0, atol=1e-13)


def test_long_taps_cost_memory_in_proportion_to_their_number() -> None:
    sizes: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                sizes.append(result.numel())
            return result

    with Sizes():
        coarsened(torch.randn(2, 2001), (2,), (False,))
    assert max(sizes) < 20 * 2001


@pytest.mark.parametrize("causal", [False, True])
def test_the_sum_of_the_taps_stays(causal: bool) -> None:
    for size in (1, 9, 31):
        taps = torch.randn(3, size, dtype=F64)
        torch.testing.assert_close(coarsened(taps, (3,), (causal,)).sum(-1), taps.sum(-1))


@pytest.mark.parametrize("spacing", [None, 1.0, 0.5, 0.7])
def test_grids_that_are_fine_enough_change_nothing(spacing: float | None) -> None:
    layer = Conv1d(2, 2, 16)
    x = torch.randn(1, 2, 16)
    assert torch.equal(layer(x, spacing=spacing, lowpass=True), layer(x, spacing=spacing))


@pytest.mark.parametrize(("spacing", "whole"), [(1 + 2**-52, 1), (1 / (1 / 49), 49), (3 * (1 + 2**-52), 3)])
def test_a_spacing_that_is_rounded_up_makes_the_same_layer(spacing: float, whole: int) -> None:
    assert spacing > whole
    layer = Conv1d(1, 2, 200, kernel=partial(SIREN, bandwidth=1.0), dtype=F64)
    expected = layer.taps(float(whole), lowpass=True)
    torch.testing.assert_close(layer.taps(spacing, lowpass=True), expected, rtol=0.0, atol=1e-12)


def rough(size: tuple[int, ...], head: str) -> CCNN:
    """A network of kernels that a coarser grid cannot carry."""
    kernel = partial(SIREN, bandwidth=1.0)
    return CCNN(1, 3, size, blocks=2, width=6, kernel=kernel, head=head, dtype=F64).eval()


def test_a_coarse_view_of_a_network_warns_of_nothing_and_agrees() -> None:
    model = rough((257,), "dense")
    reference = model(waves(257, 1.0, 0.05))[..., ::2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        view = model.at_resolution(0.5, lowpass=True)
        y = view(waves(129, 2.0, 0.05))
    assert ((y - reference).norm() / reference.norm()).item() < 0.02
    with pytest.warns(UserWarning, match="ask for `lowpass=True`, or train with a smaller `bandwidth`"):
        plain = model.at_resolution(0.5)(waves(129, 2.0, 0.05))
    assert ((plain - reference).norm() / reference.norm()).item() > 0.1
    assert not model.lowpass
    assert not view.at_resolution(2.0).lowpass


def test_every_layer_of_a_view_is_filtered() -> None:
    model = rough((8, 8), "pool")
    asked: list[bool] = []
    for layer in model.modules():
        if isinstance(layer, Conv):
            layer.register_forward_pre_hook(lambda _, x, given: asked.append(given["lowpass"]), with_kwargs=True)
    model.at_resolution(0.5, lowpass=True)(torch.randn(1, 1, 4, 4, dtype=F64))
    model(torch.randn(1, 1, 8, 8, dtype=F64))
    assert asked == [True] * 3 + [False] * 3


def test_compiled_equals_eager_with_gradients() -> None:
    torch._dynamo.reset()
    layer = Conv2d(1, 2, (9, 8), mixing="separable", causal=(True, False))
    x = torch.randn(1, 1, 6, 5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, 2.0, lowpass=True), layer(x, 2.0, lowpass=True))
    expected = torch.autograd.grad(layer(x, 2.0, lowpass=True).square().sum(), list(layer.parameters()))
    gradients = torch.autograd.grad(compiled(x, 2.0, lowpass=True).square().sum(), list(layer.parameters()))
    for gradient, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv1d(1, 1, 8)(torch.ones(1, 1, 8), lowpass=1), TypeError, "`lowpass` must be True or False"),
        (
            lambda: Conv1d(1, 1, 8)(torch.ones(1, 1, 8), 0.0, lowpass=True),
            ValueError,
            "`spacing` must be finite and above 0",
        ),
        (lambda: CCNN(1, 2, 8, width=4).at_resolution(0.5, "yes"), TypeError, "`lowpass` must be True or False"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(make: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
