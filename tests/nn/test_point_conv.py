"""Convolution on points: `Conv` on a lattice, a sum by hand anywhere, an integral where there are many."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omniconv import Conv, Full, Gaussian
from omniconv.domains import Cloud, clouds, within
from omniconv.kernels import SIREN
from omniconv.nn import PointConv
from omniconv.nn import _over_edges as over_edges
from omniconv.testing import check_layer

F64 = torch.float64
SIZES = {1: (9,), 2: (6, 5), 3: (4, 3, 5)}


def lattice(size: tuple[int, ...]) -> Tensor:
    axes = [torch.arange(n, dtype=F64) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


@pytest.mark.parametrize("mixing", ["dense", "depthwise", "separable"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_on_a_lattice_it_is_conv(dim: int, causal: bool, mixing: str) -> None:
    """Also on one that was moved, and in any order of the points."""
    options: dict[str, Any] = {"mixing": mixing, "causal": causal, "reach": 2, "dtype": F64}
    size = SIZES[dim]
    conv, layer = Conv(3, 3, size, **options), PointConv(3, 3, size, **options)
    layer.load_state_dict(conv.state_dict())
    layer.refresh()
    x, points = torch.randn(2, 3, *size, dtype=F64), lattice(size)
    order = torch.randperm(len(points))
    expected = conv(x).flatten(2)[..., order]
    for shift in (0.0, 1e4 + 0.3):
        positions = (points[order] + shift).expand(2, -1, -1)
        torch.testing.assert_close(layer(x.flatten(2)[..., order], positions), expected, rtol=1e-10, atol=1e-10)
    single = layer.float()(x.flatten(2)[..., order].float(), points[order].expand(2, -1, -1).float())
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mixing", ["dense", "depthwise"])
def test_it_is_the_sum_over_what_is_near(mixing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = PointConv(2, 2, (8, 8), reach=(2, 3), mixing=mixing, dtype=F64, support=partial(Gaussian, width=0.4))
    x, points = torch.randn(1, 2, 15, dtype=F64), 7 * torch.rand(1, 15, 2, dtype=F64)
    at, measure = 7 * torch.rand(1, 4, 2, dtype=F64), torch.rand(1, 15, dtype=F64)
    expected = torch.zeros(1, 2, 4, dtype=F64)
    for i in range(4):
        for j in range(15):
            lag = at[0, i] - points[0, j]
            if bool((lag.abs() <= torch.tensor(layer.window)).all()):
                value = layer.values(lag[None])[..., 0]
                sample = measure[0, j] * x[0, :, j]
                expected[0, :, i] += value @ sample if mixing == "dense" else value * sample
    assert layer.bias is not None
    expected += layer.bias[:, None]
    y = layer(x, points, output_positions=at, measure=measure)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(over_edges, "NUMBERS", 200)  # a few pairs at a time
    in_parts = layer(x, points, output_positions=at, measure=measure)
    torch.testing.assert_close(in_parts, expected, rtol=1e-12, atol=1e-12)


def test_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """With respect to positions too, whole and in parts."""
    parts: dict[str, Any] = {"kernel": partial(SIREN, hidden=4), "support": partial(Gaussian, width=0.5)}
    layer = PointConv(2, 3, 6, reach=2, dtype=F64, **parts)
    x = torch.randn(1, 2, 5, dtype=F64, requires_grad=True)
    points = torch.tensor([[0.1, 1.4, 2.2, 3.9, 4.6]], dtype=F64)[..., None].requires_grad_()
    assert torch.autograd.gradcheck(lambda x, p: layer(x, p), (x, points))
    assert torch.autograd.gradgradcheck(lambda x, p: layer(x, p), (x, points), fast_mode=True)
    whole = torch.autograd.grad(layer(x, points).square().sum(), [x, points, *layer.parameters()])
    monkeypatch.setattr(over_edges, "NUMBERS", 150)
    pieces = torch.autograd.grad(layer(x, points).square().sum(), [x, points, *layer.parameters()])
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("mixing", ["dense", "depthwise"])
def test_of_a_pair_nothing_is_kept_for_the_gradient(mixing: str, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all pairs together no more than the signal and the parameters take, in several parts or in one."""
    layer = PointConv(8, 8, (16, 16, 16), reach=4, mixing=mixing, kernel=partial(SIREN, hidden=16))
    x, points = torch.randn(1, 8, 600, requires_grad=True), 15 * torch.rand(1, 600, 3)
    edges, kept = Cloud(points).edges_within(layer.window, layer.causal), {}
    monkeypatch.setattr(over_edges, "FEW", 2**16)
    monkeypatch.setattr(
        over_edges, "NUMBERS", max(layer.kernel.channels, over_edges.HIDDEN) * len(edges) // pieces + 64
    )

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x, points, edges=edges)
    own = sum(tensor.nbytes for tensor in layer.parameters()) + 4 * x.nbytes
    assert len(edges) > 20_000
    assert sum(kept.values()) < own + 0.5 * len(edges)
    y.sum().backward()
    assert x.grad is not None


def test_lags_of_many_pairs_are_not_held_where_they_do_not_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at first is as long as a sample of the pairs."""
    seen: list[int] = []
    rounded = clouds.rounded_lags

    def counted(near: Tensor, far: Tensor, target: Tensor, source: Tensor) -> Tensor:
        seen.append(len(target))
        return rounded(near, far, target, source)

    monkeypatch.setattr(clouds, "rounded_lags", counted)
    cloud = Cloud(15 * torch.rand(1, 600, 3))
    edges = cloud.edges_within((4, 4, 4), (False,) * 3)
    assert cloud.repeated_lags(edges) is None
    assert len(edges) > 2 * max(seen)


def test_clouds_of_any_number_are_what_they_are_alone() -> None:
    layer = PointConv(2, 3, (8, 8, 8), reach=3, dtype=F64)
    clouds = [(torch.randn(1, 2, n, dtype=F64), 7 * torch.rand(1, n, 3, dtype=F64)) for n in (9, 4, 1)]
    x, points = torch.full((3, 2, 9), torch.nan, dtype=F64), torch.full((3, 9, 3), torch.inf, dtype=F64)
    mask = torch.zeros(3, 9, dtype=torch.bool)
    for row, (features, positions) in enumerate(clouds):
        n = features.shape[-1]
        x[row, :, :n], points[row, :n], mask[row, :n] = features[0], positions[0], True
    y = layer(x, points, mask=mask)
    for row, (features, positions) in enumerate(clouds):
        n = features.shape[-1]
        torch.testing.assert_close(y[row : row + 1, :, :n], layer(features, positions), rtol=1e-12, atol=1e-12)
        assert not y[row, :, n:].any()


@torch.no_grad()
def test_more_points_come_nearer_to_the_integral() -> None:
    """A smooth signal at random positions, against a fine lattice."""
    torch.manual_seed(0)
    parts: dict[str, Any] = {"kernel": partial(SIREN, bandwidth=0.1), "support": partial(Gaussian, width=0.3)}
    layer = PointConv(1, 4, 20, reach=6, dtype=F64, **parts)

    def signal(p: Tensor) -> Tensor:
        return torch.sin(0.5 * p).transpose(1, 2)

    at = torch.linspace(7, 12, 6, dtype=F64)[None, :, None]
    fine = (torch.arange(20_000, dtype=F64)[None, :, None] + 0.5) / 1000 - 0.5
    exact = layer(signal(fine), fine, output_positions=at)
    errors = []
    for count in (50, 800, 12_800):
        found = [20 * torch.rand(1, count, 1, dtype=F64) - 0.5 for _ in range(8)]
        errors.append(sum(float((layer(signal(p), p, output_positions=at) - exact).norm()) for p in found) / 8)
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]


def test_given_edges_are_used() -> None:
    layer = PointConv(1, 2, (8, 8), reach=2, dtype=F64)
    x, points = torch.randn(1, 1, 12, dtype=F64), 7 * torch.rand(1, 12, 2, dtype=F64)
    near = within(points, points, 1.0, norm="largest")
    y = layer(x, points, edges=near)
    assert not torch.allclose(y, layer(x, points))
    narrow = Cloud(points).edges_within(layer.window, layer.causal)
    torch.testing.assert_close(layer(x, points, edges=narrow), layer(x, points))


def test_half_precision_and_nothing() -> None:
    layer = PointConv(2, 3, (8, 8), reach=2, support=Full)
    x, points = torch.randn(1, 2, 12), 7 * torch.rand(1, 12, 2)
    for dtype in (torch.bfloat16, torch.float16):
        y = layer(x.to(dtype), points)
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), layer(x, points), rtol=0.05, atol=0.05)
    assert layer(torch.zeros(2, 2, 0), torch.zeros(2, 0, 2)).shape == (2, 3, 0)
    assert layer(torch.zeros(0, 2, 4), torch.zeros(0, 4, 2)).shape == (0, 3, 4)


class AtPlaces(nn.Module):
    """The layer at positions of its own, however many."""

    def __init__(self, layer: PointConv):
        super().__init__()
        self.layer = layer

    def reset_parameters(self) -> None:
        self.layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        count = torch.arange(x.shape[-1], dtype=F64, device=x.device)
        positions = torch.stack([1.3 * count % 3.3, 0.7 * count % 3.1], -1)
        return self.layer(x, positions.expand(len(x), -1, -1))


def test_it_is_a_layer_like_any_other() -> None:
    layer = PointConv(2, 3, (4, 4), reach=2, kernel=partial(SIREN, hidden=3), mixing="separable", dtype=F64)
    check_layer(AtPlaces(layer), torch.randn(2, 2, 4, dtype=F64))


def test_bad_input() -> None:
    layer, x, points = PointConv(2, 3, (8, 8), reach=2), torch.zeros(1, 2, 5), torch.zeros(1, 5, 2)
    with pytest.raises(ValueError, match=r"`x` must be \(batch, 2, points\)"):
        layer(x[0], points)
    with pytest.raises(ValueError, match=r"`positions` must be \(batch, points, dim\), here \(1, 5, 2\)"):
        layer(x, torch.zeros(1, 5, 3))
    with pytest.raises(ValueError, match=r"`positions` must be \(batch, points, dim\), here \(1, 5, 2\)"):
        layer(x, points[:, :4])
    with pytest.raises(ValueError, match=r"`output_positions` must be \(1, outputs, 2\)"):
        layer(x, points, output_positions=torch.zeros(1, 3, 1))
    with pytest.raises(ValueError, match="must be finite where they are not masked"):
        layer(x, points * torch.nan)
    with pytest.raises(ValueError, match=r"`mask` must be bool \(1, 5\)"):
        layer(x, points, mask=torch.ones(1, 5))
    with pytest.raises(ValueError, match=r"`measure` must be \(1, 5\)"):
        layer(x, points, measure=torch.ones(5))
    with pytest.raises(ValueError, match="`edges` must be of"):
        layer(x, points, edges=within(points[:, :4], points, 1.0))
    with pytest.raises(ValueError, match='`positions` need boundary="zero"'):
        PointConv(2, 3, 8, boundary="circular")(x, points[..., :1])


def test_what_conv_is_not_given_together() -> None:
    layer, x, points = Conv(2, 3, 8, reach=2), torch.zeros(1, 2, 5), torch.zeros(1, 5, 1)
    for name, value in (("spacing", 0.5), ("lowpass", True), ("times", points[..., 0]), ("condition", points[:, 0])):
        with pytest.raises(ValueError, match=f"`positions` and `{name}` exclude each other"):
            layer(x, positions=points, **{name: value})
    with pytest.raises(ValueError, match="`output_positions` needs `positions`"):
        layer(x, output_positions=points)
