from __future__ import annotations

import subprocess
import sys
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from omniconv import CCNN, SIREN, Conv1d, Conv2d, Conv3d, Full, Gabor, Gaussian, Table, plots
from omniconv.groups import Cyclic
from omniconv.models import GCNN

pytest.importorskip("matplotlib")

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    Array = np.ndarray[Any, np.dtype[np.float64]]

MIXINGS = {"dense": (3, 2), "depthwise": (4, 4), "separable": (4, 3)}


def taps_of(layer: nn.Module) -> Array:
    """Taps as `kernels *size`."""
    assert isinstance(layer, (Conv1d, Conv2d, Conv3d))
    taps = layer.taps().detach().double()
    return (taps.flatten(0, 1) if layer.mixing == "dense" else taps).numpy()


def lags_of(layer: Conv1d | Conv2d | Conv3d, axis: int = 0) -> list[int]:
    """The lags of an axis in samples."""
    far = layer.window[axis]
    return list(range(0 if layer.causal[axis] else -far, far + 1))


def data(line: Line2D) -> tuple[Array, Array]:
    """Coordinates of a line."""
    x, y = line.get_data()
    return np.asarray(x, dtype=float), np.asarray(y, dtype=float)


def pixels(axes: Axes, down: list[int], right: list[int]) -> Array:
    """What the image in `axes` shows at lags."""
    values = axes.images[0].get_array()
    assert values is not None
    left_edge, right_edge, bottom, top = axes.images[0].get_extent()
    height, width = values.shape
    rows = [int((lag - top) / (bottom - top) * height) for lag in down]
    columns = [int((lag - left_edge) / (right_edge - left_edge) * width) for lag in right]
    return np.asarray(values[np.ix_(rows, columns)])


@pytest.mark.parametrize("kernel", [Gabor, SIREN, Table])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mixing", MIXINGS)
def test_curves_pass_through_the_taps(mixing: str, causal: bool, kernel: Any) -> None:
    layer = Conv1d(
        *MIXINGS[mixing], 32, kernel=kernel, support=partial(Gaussian, width=0.15), mixing=mixing, causal=causal
    )
    (axes,) = plots.kernel(layer, channels=3).axes
    curves = [line for line in axes.lines if str(line.get_label()).startswith(("out", "channel"))]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(curves) == len(dots) == 3
    for curve, dot, taps in zip(curves, dots, taps_of(layer), strict=False):
        lags, values = data(curve)
        assert len(lags) > 4 * len(taps)
        at = np.searchsorted(lags, lags_of(layer))
        np.testing.assert_array_equal(lags[at], lags_of(layer))
        np.testing.assert_allclose(values[at], taps, atol=1e-6)
        np.testing.assert_array_equal(data(dot), (lags_of(layer), taps))


def test_curves_between_the_taps_are_the_kernel() -> None:
    layer = Conv1d(2, 2, 16, mixing="depthwise", support=Full)
    (axes,) = plots.kernel(layer).axes
    lags, values = data(axes.lines[1])
    positions = torch.from_numpy(lags / 8).float()[:, None]
    expected = (layer.kernel(positions)[:, 0] * layer.gain).detach().numpy()
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize(("causal", "edges", "within"), [(False, [-7, 7], "2.26"), (True, [14], "4.38")])
def test_the_extent_is_marked_and_the_kernel_ends_there(causal: bool, edges: list[int], within: str) -> None:
    # A Gaussian of width 0.12 is 0.01 at 0.36 reaches, the next power of 2^(1/4) is 0.42: 6.7 of 16 or 13.03 of 31.
    layer = Conv1d(1, 1, 32, support=partial(Gaussian, width=0.12), causal=causal)
    figure = plots.kernel(layer)
    (axes,) = figure.axes
    assert f"above ½ within {within}, extent {edges[-1]}, reach {layer.reach[0]} " in figure.subfigs[0].get_suptitle()
    assert sorted(data(line)[0][0] for line in axes.lines if line.get_linestyle() == "--") == edges
    lags, values = data(axes.lines[1])
    assert edges[-1] < lags[-1] <= layer.reach[0]
    np.testing.assert_array_equal(np.isnan(values), np.abs(lags) > edges[-1])


def test_the_support_is_shaded_up_to_the_highest_curve() -> None:
    layer = Conv1d(1, 3, 32, support=partial(Gaussian, width=0.12))
    (axes,) = plots.kernel(layer).axes
    peak = max(
        np.nanmax(np.abs(data(line)[1]))
        for line in axes.lines
        if line.get_label() in {f"out {i}, in 0" for i in range(3)}
    )
    (outline,) = axes.collections[0].get_paths()
    lags, heights = np.asarray(outline.vertices, dtype=float).T
    expected = peak * np.exp(-0.5 * (lags / (16 * 0.12)) ** 2)
    np.testing.assert_allclose(np.abs(heights), expected, atol=1e-6 * peak)


def test_the_labels_name_the_pairs_of_channels() -> None:
    (axes,) = plots.kernel(Conv1d(2, 2, 8), channels=9).axes
    labels = ["out 0, in 0", "out 0, in 1", "out 1, in 0", "out 1, in 1", "support", "extent"]
    assert axes.get_legend_handles_labels()[1] == labels


@pytest.mark.parametrize("causal", [(False, False), (True, False)])
@pytest.mark.parametrize("mixing", MIXINGS)
def test_images_show_the_taps(mixing: str, causal: tuple[bool, bool]) -> None:
    layer = Conv2d(
        *MIXINGS[mixing], (10, 17), mixing=mixing, causal=causal, support=partial(Gaussian, width=(0.2, 0.1))
    )
    figure = plots.kernel(layer, channels=3)
    images = [axes for axes in figure.axes if axes.images]
    assert len(images) == 3
    shown = taps_of(layer)[:3]
    for axes, taps in zip(images, shown, strict=True):
        np.testing.assert_allclose(pixels(axes, lags_of(layer, 0), lags_of(layer, 1)), taps, atol=1e-6)
        low, high = axes.images[0].get_clim()
        assert low == -high
        assert high >= np.abs(shown).max() - 1e-6


def test_the_contour_is_where_the_support_is_a_half() -> None:
    layer = Conv2d(1, 1, (20, 33), support=partial(Gaussian, width=(0.2, 0.3)))
    axes = plots.kernel(layer).axes[0]
    vertices = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    assert len(vertices) > 20
    right, down = vertices.T
    exponent = (down / (10 * 0.2)) ** 2 + (right / (16 * 0.3)) ** 2
    np.testing.assert_allclose(np.exp(-exponent / 2), 0.5, atol=0.01)


def test_full_supports_have_no_contour() -> None:
    assert not plots.kernel(Conv2d(1, 1, 8, support=Full)).axes[0].collections


def test_images_are_blank_beyond_the_extent() -> None:
    layer = Conv2d(1, 1, 32, support=partial(Gaussian, width=(0.05, 0.1)))
    axes = plots.kernel(layer).axes[0]
    rows, columns = layer.window
    assert np.ma.getmaskarray(np.ma.masked_invalid(pixels(axes, [rows + 1], [0]))).all()
    assert np.isfinite(pixels(axes, [rows], [columns])).all()


def test_volumes_show_the_planes_through_the_zero_lag() -> None:
    layer = Conv3d(1, 2, (6, 7, 9), causal=(True, False, False))
    images = [axes for axes in plots.kernel(layer).axes if axes.images]
    assert len(images) == 2 * 3
    zero = [lags_of(layer, axis).index(0) for axis in range(3)]
    panels = iter(images)
    for taps in taps_of(layer):
        for plane in combinations(range(3), 2):
            (left_out,) = {0, 1, 2} - set(plane)
            axes = next(panels)
            assert f"lag 0 on axis {left_out}" in axes.get_title()
            expected = taps.take(zero[left_out], axis=left_out)
            np.testing.assert_allclose(
                pixels(axes, lags_of(layer, plane[0]), lags_of(layer, plane[1])), expected, atol=1e-6
            )


@pytest.mark.parametrize(
    ("size", "panels", "sizes"),
    [
        # A Gaussian of the initial width 0.3 is 1/2 at sqrt(2 ln 2) 0.3 = 0.353 reaches.
        ((32,), [1, 1, 1], "support above ½ within 5.65, extent 16, reach 16 (samples)"),
        ((8, 8), [1 + 1, 4 + 1, 4 + 1], "support above ½ within 1.41, extent 4, reach 4 (samples)"),
        (
            (4, 5, 6),
            [3 + 1, 3 + 1, 3 + 1],
            "support above ½ within 0.706 by 0.706 by 1.06, extent 2 by 2 by 3, reach 2 by 2 by 3 (samples)",
        ),
    ],
    ids=["sequence", "image", "volume"],
)
def test_a_model_has_a_row_per_convolution(size: tuple[int, ...], panels: list[int], sizes: str) -> None:
    figure = plots.kernels(CCNN(1, 10, size, blocks=2, width=6))
    assert [len(part.axes) for part in figure.subfigs] == panels  # on images one of them is the colour bar
    titles = [part.get_suptitle() for part in figure.subfigs]
    assert titles == [f"{name}\n{sizes}" for name in ("stem", "blocks.0.conv", "blocks.1.conv")]


def test_a_convolution_is_a_model_and_axes_may_differ() -> None:
    (part,) = plots.kernels(Conv1d(1, 1, 8)).subfigs
    assert part.get_suptitle().startswith("Conv1d\n")
    mixed = nn.ModuleList([Conv1d(1, 1, 8), nn.Linear(2, 2), Conv2d(1, 1, 8, support=Full), Conv3d(1, 1, 4)])
    titles = [part.get_suptitle() for part in plots.kernels(mixed).subfigs]
    assert [title[0] for title in titles] == ["0", "2", "3"]
    assert "everywhere" in titles[1]


@pytest.mark.parametrize("layer", [Conv1d(1, 1, 1), Conv2d(1, 1, (1, 5)), Conv3d(1, 1, (1, 1, 4), causal=True)])
def test_axes_of_one_sample_can_be_drawn(layer: Conv1d | Conv2d | Conv3d) -> None:
    figure = plots.kernel(layer)
    figure.canvas.draw()
    if layer.dim > 1:
        expected = taps_of(layer)[0].reshape(-1, len(lags_of(layer, -1)))
        np.testing.assert_allclose(pixels(figure.axes[layer.dim - 2], [0], lags_of(layer, -1)), expected, atol=1e-6)


def test_half_precision_layers_are_drawn_from_their_float32_taps() -> None:
    layer = Conv1d(1, 1, 16, dtype=torch.bfloat16)
    lags, values = data(plots.kernel(layer).axes[0].lines[1])
    at = np.searchsorted(lags, lags_of(layer))
    np.testing.assert_allclose(values[at], taps_of(layer)[0], atol=1e-6)


def test_plotting_changes_nothing_in_the_model() -> None:
    model = CCNN(1, 2, 16, blocks=1, width=4).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plots.kernels(model)
    assert model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_matplotlib_is_loaded_late_and_pyplot_never() -> None:
    code = (
        "import sys; from omniconv import Conv1d, plots; early = 'matplotlib' in sys.modules; "
        "plots.kernel(Conv1d(1, 1, 8)); sys.exit(early or 'matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'omniconv\[plots\]'"):
        plots.kernel(Conv1d(1, 1, 8))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TypeError, match=r"`layer` must be an omniconv convolution; got an object of type Conv1d"):
        plots.kernel(nn.Conv1d(1, 1, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`channels` must be at least 1; got 0"):
        plots.kernel(Conv1d(1, 1, 8), channels=0)
    with pytest.raises(TypeError, match=r"`channels` must be an integer"):
        plots.kernel(Conv1d(1, 1, 8), channels=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'`layer` is on the device "meta"'):
        plots.kernel(Conv1d(1, 1, 8, device="meta"))
    with pytest.raises(ValueError, match=r'`model` is on the device "meta"'):
        plots.kernels(nn.Sequential(Conv1d(1, 1, 8, device="meta")))
    with pytest.raises(ValueError, match=r"`model` contains no omniconv convolution; it is of type Sequential"):
        plots.kernels(nn.Sequential(nn.Conv1d(1, 1, 3)))
    with pytest.raises(ValueError, match=r"all convolutions of this GCNN are on a group.*one bright pixel"):
        plots.kernels(GCNN(1, 2, 6, group=Cyclic(4), widths=(3,), reach=1))
    with pytest.raises(TypeError, match=r"`model` must be a torch.nn.Module; got an object of type str"):
        plots.kernels("model")  # type: ignore[arg-type]
