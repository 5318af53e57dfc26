"""One convolution computes what the branches do."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from omniconv import SIREN, Conv, Full, Gabor, Gaussian
from omniconv.export import fold
from omniconv.kernels import Table
from omniconv.nn import BatchNorm, Branched

F64 = torch.float64
small = partial(Gabor, hidden=4, depth=1)

SIZES = [(9,), (10,), (7, 6), (4, 5, 3)]


def trained(layer: Branched) -> Branched:
    """In evaluation mode, with statistics, scales, shifts and biases that are not those of the beginning."""
    for module in layer.modules():
        if isinstance(module, BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            for values in (module.running_mean, module.weight.data, module.bias.data):
                nn.init.normal_(values)
            nn.init.uniform_(module.running_var, 0.2, 3.0)
        elif isinstance(module, Conv) and module.bias is not None:
            nn.init.normal_(module.bias)
    return layer.eval()


def relative_error(y: torch.Tensor, expected: torch.Tensor) -> float:
    return ((y - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mixing", ["dense", "depthwise"])
@pytest.mark.parametrize("kind", ["zero", "causal", "circular", "mixed"])
@pytest.mark.parametrize("norm", [True, False])
def test_folded_equals_branched(size: tuple[int, ...], mixing: str, kind: str, norm: bool) -> None:
    dim = len(size)
    causal = tuple(kind == "causal" or (kind == "mixed" and axis == 0) for axis in range(dim))
    around = [kind == "circular" or (kind == "mixed" and axis == 1) for axis in range(dim)]
    boundary = ["circular" if circle else "zero" for circle in around]
    conv = Conv(2, 2, size, kernel=small, mixing=mixing, causal=causal, boundary=boundary, dtype=F64)
    even = tuple(4 if past else 3 for past in causal)
    layer = trained(Branched(conv, [(3, 1), (even, 2), (1, 1)], norm=norm))
    folded = fold(layer)
    for shape in (size, tuple(n + 3 for n in size)):
        x = torch.randn(2, 2, *shape, dtype=F64)
        assert relative_error(folded(x), layer(x)) < 1e-12


def test_the_taps_are_added_at_their_lags() -> None:
    """A window of 3 taps on one side, a branch of reach 4: 9 taps, from the formula."""
    conv = Conv(1, 1, 30, kernel=Table, support=Full, reach=3, dtype=F64)
    layer: Any = trained(Branched(conv, [(3, 4)]))
    first, second = layer.convs
    scale = [norm.weight.item() / (norm.running_var.item() + norm.eps) ** 0.5 for norm in layer.norms]
    expected = torch.zeros(9, dtype=F64)
    for lag in range(-3, 4):
        expected[lag + 4] += scale[0] * first.gain * first.kernel.taps[lag + 3, 0]
    for lag in (-4, 0, 4):
        expected[lag + 4] += scale[1] * second.gain * second.kernel.taps[lag // 4 + 1, 0]
    folded: Any = fold(layer)
    assert folded.reach == (4,)
    assert folded.gain.item() == 1.0
    torch.testing.assert_close(folded.kernel.taps[:, 0], expected)
    shifts = [norm.bias.item() - norm.running_mean.item() * s for norm, s in zip(layer.norms, scale, strict=True)]
    assert second.bias is None
    assert folded.bias.item() == pytest.approx(scale[0] * first.bias.item() + sum(shifts))


@pytest.mark.parametrize(("width", "reach"), [(0.05, 2), (0.3, 8)])
def test_it_reaches_as_far_as_the_farthest_window(width: float, reach: int) -> None:
    """A support that crops the kernel to 4 lags or fewer, or to 20 of 30; a branch of reach 2."""
    conv = Conv(1, 1, 60, kernel=SIREN, support=partial(Gaussian, width=width), reach=10, dtype=F64)
    layer = trained(Branched(conv, [(5, 1)]))
    folded = fold(layer)
    assert folded.reach == (max(2, conv.window[0]),)
    assert (folded.reach[0] < 10) == (width == 0.05)
    assert reach <= folded.reach[0]
    x = torch.randn(1, 1, 60, dtype=F64)
    assert relative_error(folded(x), layer(x)) < 1e-12


def test_masked_signals_have_the_same_outputs_where_they_were_observed() -> None:
    layer = trained(Branched(Conv(2, 2, 9, kernel=small, dtype=F64), [(3, 2)]))
    x, mask = torch.randn(2, 2, 9, dtype=F64), torch.arange(9) < torch.tensor([[6], [9]])
    expected = layer(x, mask=mask)
    y = fold(layer)(torch.where(mask[:, None], x, 0.0))
    torch.testing.assert_close(y.movedim(1, -1)[mask], expected.movedim(1, -1)[mask])


def test_folding_changes_nothing_else() -> None:
    layer = trained(Branched(Conv(2, 3, 9, kernel=small, engine="fft", dtype=F64), [(3, 2)]))
    state, generator = copy.deepcopy(layer.state_dict()), torch.get_rng_state()
    folded = fold(layer)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())
    assert (folded.engine, folded.training, folded.gain.dtype) == ("fft", False, F64)
    assert all(parameter.requires_grad for parameter in folded.parameters())
    x = torch.randn(1, 2, 9, dtype=F64)
    loaded = copy.deepcopy(folded)
    loaded.load_state_dict(folded.state_dict())
    assert torch.equal(loaded(x), folded(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision(dtype: torch.dtype) -> None:
    layer = trained(Branched(Conv(2, 2, 64, kernel=small, mixing="depthwise"), [(5, 1), (3, 3)])).to(dtype)
    x = torch.randn(2, 2, 64).to(dtype)
    y, folded = layer(x), fold(layer)
    assert folded(x).dtype == dtype
    assert folded.kernel.taps.dtype == torch.float32
    assert relative_error(folded(x).double(), y.double()) < (1e-6 if dtype == torch.float32 else 2e-2)


def test_bad_folds_are_named() -> None:
    layer = Branched(Conv(2, 2, 8), [(3, 1)])
    with pytest.raises(ValueError, match=r"`branched` must be in evaluation mode: .* Call `branched.eval\(\)` first"):
        fold(layer)
    with pytest.raises(TypeError, match=r"`branched` must be an omniconv.nn.Branched; got Conv"):
        fold(Conv(2, 2, 8))  # type: ignore[arg-type]
