"""Networks of wavelets, and self-attention networks on groups."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omniconv.groups import O2, SO2
from omniconv.models import GroupSelfAttentionNet, Network, WaveletNet
from omniconv.nn import admissibility
from omniconv.testing import assert_close, assert_equivariant

F64 = torch.float64


def packet(width: float, n: int = 513) -> torch.Tensor:
    """A wave packet of that width."""
    t = (torch.arange(n, dtype=F64) - n // 2) / width
    return (torch.cos(2.0 * t) * torch.exp(-(t**2) / 2))[None, None]


def test_dilating_a_series_moves_the_scales_of_the_lift() -> None:
    model = WaveletNet(1, 3, 513, scales=5, width=4, lift_reach=6, dtype=F64)
    narrow, wide = model.lift(packet(6.0)), model.lift(packet(12.0))
    error = (wide[:, :, 1:, ::2] - narrow[:, :, :-1, 128:385]).norm() / narrow[:, :, :-1].norm()
    assert error < 1e-2


def test_wavelets_have_no_mean_once_the_penalty_is_zero() -> None:
    model = WaveletNet(1, 3, 128, scales=3, width=4, blocks=1, lift_reach=4)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    before = admissibility(model).item()
    for _ in range(100):
        optimizer.zero_grad()
        admissibility(model).backward()
        optimizer.step()
    assert admissibility(model).item() < 1e-3 * before
    sums = model.lift.flattened(model.lift.inputs, model.lift.samples)[0][0].sum(-1)
    assert sums.abs().max() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("group", [SO2(), O2()])
def test_self_attention_networks_are_invariant(group: SO2 | O2, dtype: torch.dtype) -> None:
    model = GroupSelfAttentionNet(1, 3, (8, 7), group=group, samples=8, widths=(4, 6), heads=2, dtype=dtype)
    model(torch.randn(4, 1, 8, 7, dtype=dtype))
    assert_equivariant(model.eval(), torch.randn(2, 1, 8, 7, dtype=dtype), group, group.grid(8))


@pytest.mark.parametrize("kind", ["wavelet", "attention"])
def test_saved_compiled_and_exported(kind: str, tmp_path: Path) -> None:
    torch._dynamo.reset()
    model: Network
    if kind == "wavelet":
        model, x = WaveletNet(1, 3, 64, scales=3, width=4, blocks=1, lift_reach=4), torch.randn(1, 1, 64)
    else:
        model = GroupSelfAttentionNet(1, 3, 8, group=SO2(), samples=4, widths=(4,), heads=2)
        x = torch.randn(1, 1, 8, 8)
    model.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        assert_close(type(model).from_pretrained(tmp_path)(x), model(x))
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x))
        torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))
    with pytest.raises(ValueError, match="`spacing` is not for"):
        model(x, spacing=0.5)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`scales`"):
        WaveletNet(1, 3, 64, scales=0)
    with pytest.raises(ValueError, match="`group` must act on the 2 axes"):
        WaveletNet(1, 3, (8, 8))
    with pytest.raises(ValueError, match="`blocks` and `widths`"):
        GroupSelfAttentionNet(1, 3, 8, group=SO2(), samples=4, widths=(4,), blocks=(1, 1))
