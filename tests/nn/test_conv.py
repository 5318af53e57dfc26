"""The convolution layer: one integral at every resolution, calibrated, causal, cropped to its support."""

from __future__ import annotations

import warnings
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import omniconv as oc
from omniconv import SIREN, Conv, Conv1d, Conv2d, Conv3d, Full, Gabor, Gaussian, Kernel, Table
from omniconv.kernels import KernelFactory
from omniconv.nn import refresh
from omniconv.supports import SupportFactory
from omniconv.testing import assert_close

SUPPORTS: list[SupportFactory] = [Full, Gaussian, partial(Gaussian, width=0.1)]


def band_limited(n: int, seed: int, highest: int = 12) -> Tensor:
    """Random waves of up to `highest` periods on [0, 1] that vanish at both ends, on n samples, ends included."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 1, n, dtype=torch.float64)
    frequency = torch.arange(1, highest + 1, dtype=torch.float64)[:, None] * 0.93
    amplitude = torch.randn(4, highest, 1, generator=generator, dtype=torch.float64)
    phase = 6.3 * torch.rand(4, highest, 1, generator=generator, dtype=torch.float64)
    waves = (amplitude * torch.cos(2 * torch.pi * frequency * t + phase)).sum(1)
    return (waves * torch.sin(torch.pi * t) ** 2)[None]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("support", SUPPORTS, ids=["full", "wide", "narrow"])
@pytest.mark.parametrize("kernel", [Gabor, SIREN])
@pytest.mark.parametrize("mixing", ["dense", "separable"])
def test_the_same_integral_at_every_resolution(
    kernel: KernelFactory, support: SupportFactory, mixing: str, causal: bool
) -> None:
    """64, 127 and 253 samples of one span, the same weights: within 1 % at the common points."""
    for seed in range(3):
        torch.manual_seed(seed)
        layer = Conv1d(4, 4, 64, kernel=kernel, support=support, mixing=mixing, causal=causal, dtype=torch.float64)
        reference = layer(band_limited(64, seed))
        for n, step in ((127, 2), (253, 4)):
            y = layer(band_limited(n, seed), spacing=1 / step)[..., ::step]
            assert ((y - reference).norm() / reference.norm()).item() < 0.01


def test_resolution_on_a_circle_and_per_axis() -> None:
    """Periodic images of 16 x 12, twice as fine along one axis and four times along the other."""
    layer = Conv2d(1, 2, (16, 12), kernel=partial(Gabor, bandwidth=0.5), boundary="circular", dtype=torch.float64)

    def image(rows: int, columns: int) -> Tensor:
        u = torch.arange(rows, dtype=torch.float64)[:, None] / rows
        v = torch.arange(columns, dtype=torch.float64) / columns
        return torch.cos(2 * torch.pi * (3 * u + v))[None, None] + torch.sin(2 * torch.pi * (u - 2 * v))

    reference = layer(image(16, 12))
    fine = layer(image(32, 48), spacing=(0.5, 0.25))[..., ::2, ::4]
    assert ((fine - reference).norm() / reference.norm()).item() < 0.01


def test_a_coarser_grid_computes_the_same_integral_of_slow_signals() -> None:
    torch.manual_seed(0)
    smooth = partial(Gabor, bandwidth=0.1)
    layer = Conv1d(4, 4, 253, kernel=smooth, support=Gaussian, dtype=torch.float64)
    reference = layer(band_limited(253, 0))
    coarse = layer(band_limited(127, 0), spacing=2.0)
    assert ((coarse - reference[..., ::2]).norm() / coarse.norm()).item() < 0.01


def test_without_saying_so_more_samples_are_a_longer_signal() -> None:
    layer = Conv1d(1, 1, 32, causal=True)
    x = torch.randn(1, 1, 80)
    y = layer(x)
    x[..., 40:] = torch.randn(40)
    torch.testing.assert_close(layer(x)[..., :40], y[..., :40])
    assert layer.taps().shape[-1] <= 32


CALIBRATED: list[tuple[int, int, int]] = [
    (1, 16, 256), (1, 17, 256), (1, 256, 64), (1, 16384, 4), (2, 16, 48), (2, 33, 24), (3, 8, 24), (3, 11, 12)
]  # fmt: skip


@pytest.mark.parametrize("kernel", [Gabor, SIREN, Table])
@pytest.mark.parametrize(("dim", "n", "batch"), CALIBRATED)
def test_new_layers_keep_the_variance_of_white_noise(dim: int, n: int, batch: int, kernel: KernelFactory) -> None:
    """Within 20 %, for every length, dimension, width of the support, mixing and direction."""
    widths: list[float | None] = [0.05, 0.3, 1.0, None]
    for width, mixing, causal in product(widths, ("dense", "depthwise", "separable"), (False, True)):
        if width is not None and width * (n // 2) <= 0.25:
            continue  # narrower than a support can be on so small a grid
        support: SupportFactory = Full if width is None else partial(Gaussian, width=width)
        layer = Conv(8, 8, (n,) * dim, kernel=kernel, support=support, mixing=mixing, causal=causal)
        with torch.no_grad():
            variance = layer(torch.randn(batch, 8, *(n,) * dim)).var().item()
        assert 0.8 < variance < 1.2, f"{variance:.2f} for width {width}, {mixing}, causal={causal}"


@pytest.mark.parametrize(("n", "reach"), [(2, None), (16, None), (16, 16), (16, 40)])
def test_new_layers_keep_the_variance_around_a_circle(n: int, reach: int | None) -> None:
    """Taps that coincide a period apart add up before their energy counts."""
    for seed in range(4):
        torch.manual_seed(seed)
        layer = Conv1d(8, 64, n, boundary="circular", support=Full, reach=reach)
        with torch.no_grad():
            assert 0.8 < layer(torch.randn(2000, 8, n)).var().item() < 1.2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", [SIREN, Gabor])
def test_half_precision_at_any_length(kernel: KernelFactory, dtype: torch.dtype) -> None:
    layer = Conv1d(1, 4, 8192, kernel=kernel, support=partial(Gaussian, width=0.05), causal=True).eval()
    x = torch.randn(1, 1, 8192)
    with torch.no_grad():
        exact = layer(x)
        low = layer.to(dtype).eval()(x.to(dtype))
    assert low.dtype == dtype
    assert ((low.float() - exact).norm() / exact.norm()).item() < 0.01


@pytest.mark.parametrize("mixing", ["dense", "separable"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_returns_the_dtype_of_the_input(dtype: torch.dtype, mixing: str) -> None:
    layer = Conv1d(2, 3, 16, mixing=mixing)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(1, 2, 16, dtype=dtype)).dtype == dtype


def test_a_layer_on_the_meta_device_tells_its_shapes() -> None:
    layer = Conv2d(2, 3, (8, 8), device="meta")
    assert layer(torch.empty(5, 2, 8, 8, device="meta")).shape == (5, 3, 8, 8)
    with torch.device("meta"):
        assert Conv1d(1, 1, 8, kernel=Gabor, device="cpu")(torch.zeros(1, 1, 8, device="cpu")).shape == (1, 1, 8)


def test_numbers_of_numpy_are_numbers() -> None:
    size, factor = np.array([8, 6]), np.float32(0.5)
    channels, width, causal = mistyped(np.int64(2)), mistyped(np.float32(0.3)), mistyped(np.bool_(True))
    layer = Conv2d(channels, 3, mistyped(size), support=partial(Gaussian, width=width), causal=causal)
    assert (layer.grid.size, layer.causal) == ((8, 6), (True, True))
    assert layer(torch.zeros(1, 2, 8, 6), spacing=mistyped(factor)).shape == (1, 3, 8, 6)


def test_a_support_that_diverged_says_so() -> None:
    layer = Conv1d(1, 1, 16)
    with torch.no_grad():
        layer.support.get_parameter("width_logit").fill_(float("nan"))
    with pytest.raises(ValueError, match=r"extent of Gaussian must be in \(0, 1\].*training has diverged"):
        layer.eval()


@pytest.mark.parametrize("length", [16, 17])
def test_a_causal_layer_does_not_see_the_future(length: int) -> None:
    layer = Conv1d(2, 3, length, causal=True, mixing="separable", dtype=torch.float64)
    x = torch.randn(1, 2, length, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer, x)[0, :, :, 0]  # out, time, in, time
    future = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
    assert jacobian.transpose(1, 2)[:, :, future].abs().max().item() <= 1e-14
    assert jacobian.transpose(1, 2)[:, :, ~future].abs().min().item() > 0


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_table_layer_is_the_frameworks_convolution_with_reversed_taps(dim: int) -> None:
    ours = Conv(2, 3, (6, 5, 4)[:dim], kernel=Table, support=Full, reach=1, dtype=torch.float64)
    theirs = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1](2, 3, 3, padding=1, dtype=torch.float64)
    with torch.no_grad():
        assert theirs.bias is not None
        theirs.weight.copy_(ours.taps().flip(tuple(range(-dim, 0))))
        ours.bias.copy_(theirs.bias)  # type: ignore[union-attr]
    x = torch.randn(2, 2, *(6, 5, 4)[:dim], dtype=torch.float64)
    assert_close(ours(x), theirs(x))


def test_taps_are_kernel_times_support_times_gain_at_the_lags() -> None:
    layer = Conv2d(2, 3, (9, 7), support=partial(Gaussian, width=0.4), causal=(True, False), dtype=torch.float64)
    assert (layer.reach, layer.window) == ((8, 3), (8, 3))
    taps = layer.taps()
    assert taps.shape == (3, 2, 9, 7)
    for i, j in ((0, 3), (8, 0), (2, 5)):
        position = torch.tensor([i / 8, (j - 3) / 3], dtype=torch.float64)
        expected = layer.kernel(position) * layer.support(position[None]) * layer.gain
        torch.testing.assert_close(taps[..., i, j], expected.reshape(3, 2))


def test_mixings_are_what_they_say() -> None:
    x = torch.randn(2, 3, 10, dtype=torch.float64)
    separable = Conv1d(3, 5, 10, mixing="separable", dtype=torch.float64)
    assert separable.mixer is not None
    filtered = oc.convolve(x, separable.taps())
    assert_close(separable(x), torch.einsum("oc,bct->bot", separable.mixer.weight, filtered))
    assert Conv1d(3, 5, 10).taps().shape[:2] == (5, 3)
    assert Conv1d(3, 3, 10, mixing="depthwise").taps().shape[:1] == (3,)


def test_parts_have_biases_unless_told_otherwise() -> None:
    with_bias, without = (Conv1d(3, 5, 8, mixing="separable", bias=bias) for bias in (True, False))
    extra = sum(p.numel() for p in with_bias.parameters()) - sum(p.numel() for p in without.parameters())
    assert extra == 3 + 5


def test_signals_without_a_batch_axis() -> None:
    layer = Conv2d(2, 3, (6, 5), mixing="separable")
    x = torch.randn(2, 6, 5)
    torch.testing.assert_close(layer(x), layer(x[None])[0])


def test_halving_the_support_halves_the_taps() -> None:
    def taps(width: float, n: int = 1025) -> int:
        return Conv1d(1, 1, n, support=partial(Gaussian, width=width), causal=True).taps().shape[-1]

    for width in (0.2, 0.1, 0.05):
        assert taps(width / 2) == pytest.approx(taps(width) / 2, abs=1.5)
    image = Conv2d(1, 1, 128, support=partial(Gaussian, width=(0.1, 0.05)))
    assert image.window[1] == pytest.approx(image.window[0] / 2, abs=1)


def test_cropping_changes_the_output_by_less_than_the_threshold() -> None:
    cropped = Conv1d(2, 2, 256, support=partial(Gaussian, width=0.1), dtype=torch.float64)
    x = torch.randn(1, 2, 256, dtype=torch.float64)
    y = cropped(x)
    cropped.window = cropped.reach
    assert cropped.taps().shape[-1] == 257
    assert ((cropped(x) - y).norm() / y.norm()).item() < 0.01


def test_the_extent_follows_what_is_learned_at_the_documented_moments() -> None:
    layer = Conv1d(1, 1, 512, support=partial(Gaussian, width=0.05))
    narrow = layer.window
    wide = Conv1d(1, 1, 512, support=partial(Gaussian, width=0.2)).support.state_dict()
    layer.support.load_state_dict(wide)
    assert layer.window == narrow  # loaded behind the layer's back
    for moment in (layer.eval, layer.train, layer.refresh, lambda: refresh(nn.Sequential(layer))):
        layer.window = narrow
        moment()
        assert layer.window[0] > 2 * narrow[0]
    other = Conv1d(1, 1, 512, support=partial(Gaussian, width=0.05))
    other.load_state_dict(layer.state_dict())
    assert other.window == layer.window


def test_learned_extents_take_few_values() -> None:
    layer = Conv1d(1, 1, 1024)
    windows = set()
    for logit in torch.linspace(-4, 4, 200):
        with torch.no_grad():
            layer.support.width_logit.fill_(logit)  # type: ignore[operator]
        layer.refresh()
        windows.add(layer.window)
    assert len(windows) <= 45  # four per octave over eleven octaves at most


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_factory_keywords_reach_every_tensor(dtype: torch.dtype) -> None:
    layer = Conv1d(2, 3, 16, mixing="separable", dtype=dtype)
    assert layer.mixer is not None
    assert layer.mixer.weight.dtype == dtype
    # A kernel in half precision would be another kernel.
    precise = torch.promote_types(dtype, torch.float32)
    parts = (*layer.kernel.parameters(), *layer.support.parameters())
    assert {tensor.dtype for tensor in parts} == {precise}
    assert layer(torch.randn(1, 2, 16, dtype=dtype)).dtype == dtype


def test_meta_device_then_memory_then_initialisation() -> None:
    layer = Conv2d(2, 2, 8, device="meta")
    assert all(tensor.is_meta for tensor in layer.state_dict().values())
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert 0.6 < layer(torch.randn(64, 2, 8, 8)).var().item() < 1.5
    with torch.device("meta"):
        assert Conv1d(1, 1, 8, kernel=Table).gain.is_meta


def test_same_seed_same_layer() -> None:
    layers = []
    for _ in range(2):
        torch.manual_seed(3)
        layers.append(Conv1d(2, 2, 20))
    for a, b in zip(layers[0].state_dict().values(), layers[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_coarse_grid_warns_of_frequencies_that_it_cannot_carry() -> None:
    layer = Conv1d(1, 1, 64, kernel=partial(SIREN, bandwidth=0.9, hidden=200, depth=2))
    with pytest.warns(UserWarning, match="frequencies up to 0.9. of the reference Nyquist .* spacing 2 carries 0.50"):
        layer(torch.randn(1, 1, 32), spacing=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.randn(1, 1, 128), spacing=0.5)
        Conv1d(1, 1, 64, kernel=partial(SIREN, bandwidth=0.25))(torch.randn(1, 1, 32), spacing=2.0)


def test_repr_tells_what_a_layer_is() -> None:
    text = repr(Conv1d(2, 3, 16, causal=True, mixing="separable"))
    for part in ("2, 3, size=(16,)", "mixing='separable'", "causal=(True,)", "SIREN", "Gaussian", "width=(0.3,)"):
        assert part in text


def mistyped(value: Any) -> Any:
    """A value of a wrong type, past the type checker."""
    return value


def wrong_reach(dim: int, channels: int, **where: Any) -> Table:
    """A factory that does not hand on the reach."""
    return Table(dim, channels, reach=3)


def wrong_channels(dim: int, channels: int, **where: Any) -> SIREN:
    """A factory with a mind of its own."""
    return SIREN(dim, 3, **where)


class WrongShape(SIREN):
    """A kernel with a channel too many."""

    def forward(self, positions: Tensor) -> Tensor:
        return F.pad(super().forward(positions), (0, 1))


class Silent(Table):
    """A kernel that is zero."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.taps)


class WrongWeights(Full):
    """A support with an axis too many."""

    def forward(self, positions: Tensor) -> Tensor:
        return super().forward(positions)[..., None]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv1d(0, 1, 8), ValueError, "`in_channels` must be at least 1; got 0"),
        (lambda: Conv1d(1, mistyped(1.5), 8), TypeError, "`out_channels` must be an integer; got float 1.5"),
        (lambda: Conv1d(1, 1, 0), ValueError, "`size` must be at least 1; got 0"),
        (lambda: Conv2d(1, 1, (8, 8, 8)), ValueError, "`size` must be one value or 2 values"),
        (lambda: Conv(1, 1, (2, 2, 2, 2)), ValueError, "`size` must have one to three axes"),
        (lambda: Conv1d(1, 2, 8, mixing="depthwise"), ValueError, "as many output as input channels.*separable"),
        (
            lambda: Conv1d(1, 1, 8, mixing="sep"),
            ValueError,
            "`mixing` must be one of 'dense', 'depthwise', 'separable'",
        ),
        (lambda: Conv1d(1, 1, 8, reach=-1), ValueError, "`reach` must be at least 0; got -1"),
        (lambda: Conv1d(1, 1, 8, engine="cuda"), ValueError, "`engine` must be one of 'auto'"),
        (lambda: Conv1d(1, 1, 8, boundary="wrap"), ValueError, "`boundary` must be one of 'zero', 'circular'"),
        (lambda: Conv1d(1, 1, 8, causal=True, boundary="circular"), ValueError, "axis 0 has both"),
        (lambda: Conv1d(1, 1, 8, kernel=WrongShape), ValueError, r"shape \(points, 1\); two points gave .*\(2, 2\)"),
        (
            lambda: Conv1d(1, 1, 8, kernel=mistyped(lambda *a, **k: nn.Linear(1, 1))),
            TypeError,
            "`kernel` must be a callable",
        ),
        (lambda: Conv1d(1, 1, 8, support=WrongWeights), ValueError, r"weights of shape \(points,\)"),
        (
            lambda: Conv1d(1, 1, 8, support=mistyped(lambda *a, **k: 1)),
            TypeError,
            "`support` must be a callable .* returned int 1",
        ),
        (
            lambda: Conv1d(2, 1, 8)(torch.randn(1, 3, 8)),
            ValueError,
            r"`x` must be \(batch, 2, size_0\) or \(2, size_0\)",
        ),
        (lambda: Conv2d(2, 1, 8)(torch.randn(8, 8)), ValueError, r"size_0, size_1\) or .* got a float32 tensor"),
        (lambda: Conv1d(1, 1, 8)(torch.ones(1, 1, 8, dtype=torch.int)), TypeError, "`x` must hold floating-point numb"),
        (lambda: Conv1d(1, 1, 8)(torch.ones(1, 1, 8).double()), TypeError, "`x` must have the dtype of the layer"),
        (lambda: Conv1d(1, 1, 8)(torch.ones(1, 1, 8, device="meta")), ValueError, "on the device of the layer, cpu"),
        (
            lambda: Conv2d(1, 1, 8, kernel=mistyped(wrong_reach)),
            ValueError,
            "`kernel` must have the `re",
        ),
        (
            lambda: Conv1d(1, 1, 8, kernel=mistyped(wrong_channels)),
            ValueError,
            "`kernel` must have the `channels` it is called with, 1; SIREN has 3. Hand it on",
        ),
        (
            lambda: Conv1d(1, 1, 8, kernel=mistyped(wrong_reach)),
            ValueError,
            r"it is called with, \(4,\)",
        ),
        (
            lambda: Conv1d(1, 1, 8, kernel=mistyped("siren")),
            TypeError,
            "Kernel class .*got str 'siren'",
        ),
        (
            lambda: Conv1d(1, 1, 8, kernel=mistyped(SIREN(1, 1, reach=4))),
            TypeError,
            "must be a Kernel class",
        ),
        (
            lambda: Conv1d(1, 1, 8, kernel=mistyped(Gaussian)),
            TypeError,
            "got the class Gaussian",
        ),
        (
            lambda: Conv1d(1, 1, 8, kernel=mistyped(partial(Gaussian, width=0.5))),
            TypeError,
            "`kernel` must be a Kernel class; got the class Gaussian",
        ),
        (
            lambda: Conv1d(1, 1, 8, support=mistyped(lambda dim, **where: Full(2, reach=4))),
            ValueError,
            "`support` must have the `dim` it is called with, 1; Full has 2. Hand it on",
        ),
        (lambda: Conv1d(1, 1, 8, support=mistyped(SIREN)), TypeError, "got the class SIREN"),
        (lambda: Conv1d(1, 1, 8, kernel=Silent), ValueError, "must make taps of finite, positive energy; Silent"),
        (lambda: Conv1d(1, 1, 8)(torch.ones(1, 1, 8), spacing=float("nan")), ValueError, "`spacing` must be finite"),
        (
            lambda: Conv2d(1, 1, 8)(torch.ones(1, 1, 8, 8), spacing=(1.0,)),
            ValueError,
            "`spacing` must be one value or 2",
        ),
        (
            lambda: Conv1d(1, 1, 8)(torch.ones(1, 1, 8), spacing="fine"),
            TypeError,
            "`spacing` must be a number; got str",
        ),
    ],
)
def test_bad_input_is_named(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


def test_conv3d_and_rectangles() -> None:
    layer = Conv3d(1, 2, (4, 6, 5), mixing="separable")
    assert layer.reach == (2, 3, 2)
    assert layer(torch.randn(1, 1, 5, 6, 7)).shape == (1, 2, 5, 6, 7)
    assert isinstance(layer.kernel, Kernel)
