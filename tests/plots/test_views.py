"""The picture of one network on several views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from omniconv import CCNN, Conv, plots


def views() -> tuple[dict[str, torch.Tensor], dict[str, nn.Module]]:
    signals = {"wave": torch.randn(1, 9), "image": torch.randn(1, 5, 4), "volume": torch.rand(1, 4, 3, 5)}
    models: dict[str, nn.Module] = {
        name: CCNN(1, 2, tuple(signal.shape[1:]), blocks=1, width=4) for name, signal in signals.items()
    }
    return signals, models


def test_a_column_per_view_with_the_signal_above_a_kernel() -> None:
    signals, models = views()
    axes = plots.views(signals, models).axes
    assert len(axes) == 6
    assert [panel.get_title() for panel in axes if panel.get_title() in signals] == list(signals)
    (wave,) = axes[0].lines
    np.testing.assert_array_equal(wave.get_ydata(), signals["wave"][0].numpy())
    (image,) = (picture for panel in axes for picture in panel.images if panel.get_title() == "image")
    np.testing.assert_array_equal(np.asarray(image.get_array()), signals["image"][0].numpy())


def test_kernels_are_those_of_the_last_layer() -> None:
    signals, models = views()
    layer = next(layer for layer in reversed(list(models["wave"].modules())) if isinstance(layer, Conv))
    kernel = plots.views({"wave": signals["wave"]}, {"wave": models["wave"]}).axes[1]
    dots = next(line for line in kernel.lines if line.get_marker() == "o")
    np.testing.assert_allclose(np.asarray(dots.get_ydata(), dtype=float), layer.taps()[0].detach().numpy(), rtol=1e-6)


def test_bad_input_is_named() -> None:
    signals, models = views()
    with pytest.raises(ValueError, match="must have the same titles; got"):
        plots.views({"wave": signals["wave"]}, models)
    with pytest.raises(ValueError, match="'wave' has none"):
        plots.views({"wave": signals["wave"]}, {"wave": nn.Linear(1, 1)})
