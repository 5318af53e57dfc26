"""Norms of signals and parameters that are not of one precision."""

from __future__ import annotations

import pytest
import torch

from omniconv import CCNN
from omniconv.nn import BatchNorm, ChannelNorm, LayerNorm
from omniconv.testing import assert_close

HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("make", [BatchNorm, LayerNorm, ChannelNorm])
@pytest.mark.parametrize("dtype", HALF)
def test_a_float32_signal_goes_through_a_norm_of_half_precision(
    dtype: torch.dtype, make: type[BatchNorm], masked: bool, training: bool
) -> None:
    """As it goes through the convolutions of a network that was cast."""
    norm = make(3).to(dtype).train(training)
    x, mask = torch.randn(4, 3, 9), torch.ones(4, 9, dtype=torch.bool)
    y = norm(x, mask if masked else None)
    assert y.dtype == torch.float32
    assert_close(y, make(3).train(training)(x), tolerance=1e-2)


@pytest.mark.parametrize("dtype", HALF)
def test_a_network_of_half_precision_takes_float32(dtype: torch.dtype) -> None:
    model, x = CCNN(1, 2, 8, blocks=1, width=4).eval(), torch.randn(3, 1, 8)
    exact = model(x)
    y = model.to(dtype)(x)
    assert y.dtype == torch.float32
    assert_close(y, exact, tolerance=0.05)


@pytest.mark.parametrize("make", [BatchNorm, LayerNorm])
def test_a_float64_norm_takes_half_precision(make: type[BatchNorm]) -> None:
    x = torch.randn(4, 3, 9).bfloat16()
    assert_close(make(3, dtype=torch.float64)(x).float(), make(3)(x.float()), tolerance=1e-2)


def test_one_value_has_no_variance() -> None:
    for x in (torch.zeros(1, 3), torch.zeros(1, 3, 1, 1)):
        with pytest.raises(ValueError, match=r"`x` must have more than one value per channel in training.*`eval\(\)`"):
            BatchNorm(3)(x)
        assert BatchNorm(3).eval()(x).shape == x.shape
