"""PointNet: its formula, the symmetries it has, and clouds of any number of points."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omniconv import cite
from omniconv.models import Network, PointNet
from omniconv.testing import assert_close, check_layer

F64 = torch.float64


def cloud(count: int, dim: int = 3, channels: int = 2, batch: int = 2) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(count)
    features = torch.randn(batch, channels, count, dtype=F64, generator=random)
    return features, 2 * torch.rand(batch, count, dim, dtype=F64, generator=random) - 1


def shaken(model: nn.Module) -> Any:
    """In evaluation mode, with statistics and biases that are none of 0 and 1."""
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.bias, -0.5)):
                assert values is not None
                values.data.copy_(torch.rand(values.shape, generator=random, dtype=F64) + low)
    return model.eval()


def small(head: str = "pool", **options: Any) -> Any:
    shape: dict[str, Any] = {"widths": (6, 5, 8), "hidden": (7,), "head": head, "dtype": F64}
    net = shaken(PointNet(2, 3, **{**shape, **options}))
    net.standardize.set([1.0, -1.0], [2.0, 0.5])
    return net


def applied(layers: Any, x: Tensor) -> Tensor:
    """Every layer by its formula, of columns."""
    for linear, norm in zip(layers.maps, layers.norms, strict=True):
        y = (linear.weight @ x - norm.running_mean[:, None]) / (norm.running_var[:, None] + norm.eps).sqrt()
        x = (y * norm.weight[:, None] + norm.bias[:, None]).clamp(min=0)
    return x


@pytest.mark.parametrize("widths", [(6,), (6, 5), (6, 5, 8)])
@pytest.mark.parametrize("head", ["pool", "dense"])
def test_it_is_what_is_written(head: str, widths: tuple[int, ...]) -> None:
    net, (x, points) = small(head, widths=widths), cloud(7)
    for row in range(2):
        own = torch.stack([(x[row, 0] - 1) / 2, (x[row, 1] + 1) / 0.5])
        local = applied(net.points, torch.cat([points[row].T, own]))
        assert len(local) == widths[:2][-1]
        whole = applied(net.shared, local).amax(1, keepdim=True)
        seen = whole if head == "pool" else torch.cat([local, whole.expand(-1, 7)])
        readout = net.head.readout
        expected = readout.weight @ applied(net.hidden, seen) + readout.bias[:, None]
        expected = expected[:, 0] if head == "pool" else expected
        torch.testing.assert_close(net(x, points)[row], expected, rtol=1e-11, atol=1e-11)


def test_number_of_parameters() -> None:
    """Maps without a bias, two for every channel of a norm, and the linear map at the end."""
    maps = 6 * 64 + 64 * 64 + 64 * 128 + 128 * 1024 + 1024 * 512 + 512 * 256
    norms = 2 * (64 + 64 + 128 + 1024 + 512 + 256)
    net = PointNet(3, 40)
    assert sum(p.numel() for p in net.parameters()) == maps + norms + 256 * 40 + 40
    dense = PointNet(3, 40, head="dense")
    assert sum(p.numel() for p in dense.parameters()) == maps + norms + 256 * 40 + 40 + 64 * 512


@pytest.mark.parametrize("head", ["pool", "dense"])
def test_the_order_of_points_and_their_company_change_nothing(head: str) -> None:
    net, (x, points), order = small(head), cloud(9), torch.randperm(9)
    y, shuffled = net(x, points), net(x[..., order], points[:, order])
    torch.testing.assert_close(shuffled, y if head == "pool" else y[..., order], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(net(x[1:], points[1:]), y[1:], rtol=1e-11, atol=1e-11)


def test_points_that_come_twice_count_once_and_places_count() -> None:
    net, (x, points) = small(), cloud(6)
    twice = net(torch.cat([x, x], -1), torch.cat([points, points], 1))
    torch.testing.assert_close(twice, net(x, points), rtol=1e-11, atol=1e-11)
    assert (net(x, points + 0.1) - net(x, points)).abs().min() > 1e-4


@pytest.mark.parametrize("head", ["pool", "dense"])
@pytest.mark.parametrize("fill", [1e3, torch.nan, torch.inf])
def test_clouds_of_any_number_are_what_they_are_alone(head: str, fill: float) -> None:
    net, counts = small(head), (8, 3, 1, 0)
    x, points = torch.full((4, 2, 8), fill, dtype=F64), torch.full((4, 8, 3), fill, dtype=F64)
    mask = torch.arange(8)[None] < torch.tensor(counts)[:, None]
    clouds = [cloud(count, batch=1) for count in counts]
    for row, (features, positions) in enumerate(clouds):
        x[row, :, : counts[row]], points[row, : counts[row]] = features[0], positions[0]
    y = net(x, points, mask)
    assert y.isfinite().all()
    for row, (features, positions) in enumerate(clouds):
        alone, mine = net(features, positions), y[row : row + 1]
        mine = mine if head == "pool" else mine[..., : counts[row]]
        torch.testing.assert_close(mine, alone, rtol=1e-11, atol=1e-11)
        assert head == "pool" or not y[row, :, counts[row] :].any()


@pytest.mark.parametrize("head", ["pool", "dense"])
def test_what_lies_behind_the_mask_changes_no_training_either(head: str) -> None:
    """Statistics of batch norm and gradients are those of the points that are there."""
    mask = torch.tensor([[True] * 5 + [False] * 2, [True] * 3 + [False] * 4])
    same, found = small(head, dropout=0.0).train(), []
    for fill in (0.0, torch.nan):
        net, (x, points) = copy.deepcopy(same), cloud(7)
        x, points = x.masked_fill(~mask[:, None], fill), points.masked_fill(~mask[..., None], fill)
        net(x, points, mask).square().sum().backward()
        found.append([p.grad for p in net.parameters()] + list(net.buffers()))
    for clean, dirty in zip(*found, strict=True):
        torch.testing.assert_close(dirty, clean)


@pytest.mark.parametrize("head", ["pool", "dense"])
def test_gradients_reach_all_parameters_the_features_and_the_positions(head: str) -> None:
    net = PointNet(2, 3, widths=(6, 5, 8), hidden=(7,), head=head, dropout=0.0, dtype=F64)
    x, points = (value.requires_grad_() for value in cloud(9, batch=4))
    net(x, points).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    for value in (x, points):
        assert value.grad is not None
        assert value.grad.abs().max() > 0


class AtPlaces(nn.Module):
    """A network at positions of its own, however many."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        count = torch.arange(x.shape[-1], dtype=F64, device=x.device)
        positions = torch.stack([1.3 * count % 2 - 1, 0.7 * count % 2 - 1], -1)
        return self.net(x, positions.expand(len(x), -1, -1))


@pytest.mark.parametrize("head", ["pool", "dense"])
def test_it_is_a_layer_like_any_other(head: str) -> None:
    torch.manual_seed(1)  # with 0 the outputs nearly cancel, and bfloat16 is far off
    check_layer(AtPlaces(small(head, dim=2)), torch.randn(2, 2, 5, dtype=F64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_dtypes(dtype: torch.dtype) -> None:
    """Of the features; a network in float32 takes half precision too."""
    exact, (x, points) = small(), cloud(9)
    net = PointNet(**exact.arguments, dtype=dtype).eval()
    net.load_state_dict(exact.state_dict())
    y = net(x.to(dtype), points.to(dtype))
    assert y.dtype == dtype
    assert_close(y, exact(x, points), tolerance=20 * torch.finfo(dtype).eps)
    if dtype != F64:
        assert net.float()(x.to(dtype), points.to(dtype)).dtype == dtype


@pytest.mark.parametrize("head", ["pool", "dense"])
def test_a_saved_network_comes_back(head: str, tmp_path: Path) -> None:
    net, (x, points) = small(head, dim=2, dropout=0.2, input_dropout=0.1), cloud(5, 2)
    net.save_pretrained(tmp_path)
    again = Network.from_pretrained(tmp_path)
    assert isinstance(again, PointNet)
    assert torch.equal(again(x, points), net(x, points))
    assert {**again.arguments} == net.arguments
    assert "qi2017pointnet," in cite(net)


def test_compiled_and_exported() -> None:
    torch._dynamo.reset()
    net, (x, points) = small(), cloud(5)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    with torch.no_grad():
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x, points, mask), net(x, points, mask))
        exported = torch.export.export(net, (x, points, mask)).module()
        torch.testing.assert_close(exported(x, points, mask), net(x, points, mask))


def test_parameters_are_drawn_anew() -> None:
    net = small("dense")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.reset_parameters()
    assert not torch.equal(net.hidden.maps[0].weight, before["hidden.maps.0.weight"])
    assert not torch.equal(net.head.readout.weight, before["head.readout.weight"])
    assert (net.points.norms[0].running_mean == 0).all()
    assert (net.standardize.mean == 0).all()


def test_bad_input() -> None:
    x, points = torch.zeros(2, 2, 5), torch.zeros(2, 5, 3)
    net = PointNet(2, 3, widths=(4,), hidden=(4,))
    options: Any
    for options, message in (
        ({"head": "last"}, "`head` must be one of 'pool', 'dense'; got 'last'"),
        ({"dim": 0}, "`dim` must be at least 1; got 0"),
        ({"dim": 4}, "`dim` must be at most 3; got 4"),
        ({"widths": (4, 0)}, "`widths` must be at least 1; got 0"),
        ({"dropout": 1.0}, "`dropout` must be a probability below 1"),
        ({"input_dropout": -0.1}, "`input_dropout` must be finite and at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            PointNet(2, 3, **options)
    with pytest.raises(TypeError, match="`hidden` must be a sequence of integers"):
        PointNet(2, 3, hidden=())
    with pytest.raises(ValueError, match="`in_channels` must be at least 1"):
        PointNet(0, 3)
    with pytest.raises(
        ValueError, match=r"`x` must be \(batch, 2, points\); got a float32 tensor of shape \(2, 1, 5\)"
    ):
        net(x[:, :1], points)
    with pytest.raises(ValueError, match=r"`x` must have the dtype of the network, torch\.float32"):
        net(x.double(), points)
    with pytest.raises(
        ValueError, match=r"`positions` must be \(batch, points, dim\), here \(2, 5, 3\); got \(2, 4, 3"
    ):
        net(x, points[:, :4])
    with pytest.raises(ValueError, match=r"`positions` must be \(batch, points, dim\)"):
        net(x, points[0])
    with pytest.raises(TypeError, match="`positions` must hold floating-point numbers"):
        net(x, points.long())
    with pytest.raises(ValueError, match="`positions` must be finite where they are not masked"):
        net(x, points * torch.nan)
    with pytest.raises(ValueError, match=r"`mask` must be bool \(2, 5\); got a float32 tensor"):
        net(x, points, torch.ones(2, 5))
    with pytest.raises(ValueError, match="`x` must hold at least 2 clouds in training"):
        net(x[:1], points[:1])
