"""PointNet++: balls against all distances, its formula, the symmetries it has, and clouds of any number of points."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omniconv import cite
from omniconv.domains import farthest
from omniconv.models import Network, PointNet2
from omniconv.models.pointnet2 import ball
from omniconv.testing import assert_close, check_layer

F64 = torch.float64
F = torch.nn.functional


def cloud(count: int, dim: int = 3, channels: int = 2, batch: int = 2) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(count)
    features = torch.randn(batch, channels, count, dtype=F64, generator=random)
    return features, 2 * torch.rand(batch, count, dim, dtype=F64, generator=random) - 1


def small(**options: Any) -> Any:
    """In evaluation mode, with statistics and biases that are none of 0 and 1."""
    shape: dict[str, Any] = {
        "centres": (6, 3),
        "radii": (0.8, 1.4),
        "neighbours": (4, 5),
        "widths": ((5, 6), (7,), (8,)),
    }
    net = PointNet2(2, 3, **{**shape, "hidden": (7, 5), "dtype": F64, **options})
    random = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.bias, -0.5)):
                assert values is not None
                values.data.copy_(torch.rand(values.shape, generator=random, dtype=F64) + low)
    net.standardize.set([1.0, -1.0], [2.0, 0.5])
    return net.eval()


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("radius", [0.05, 0.7, 9.0])
def test_balls_hold_the_nearest_within_the_radius(radius: float, count: int) -> None:
    _, points = cloud(12)
    index, _ = farthest(points, 5)
    centres = points.gather(1, index[..., None].expand(-1, -1, 3))
    edges = ball(centres, points, radius, count)
    expected = []
    for row in range(2):
        for i, centre in enumerate(centres[row]):
            far = sorted((float((centre - point).norm()), j) for j, point in enumerate(points[row]))
            expected += sorted((row, i, j) for distance, j in far[:count] if distance <= radius)
    assert list(zip(edges.batch.tolist(), edges.target.tolist(), edges.source.tolist(), strict=True)) == expected
    assert edges.counts().min() >= 1


def applied(layers: Any, x: Tensor) -> Tensor:
    """Every layer by its formula, of one point."""
    for linear, norm in zip(layers.maps, layers.norms, strict=True):
        y = (linear.weight @ x - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        x = (y * norm.weight + norm.bias).clamp(min=0)
    return x


def test_it_is_what_is_written() -> None:
    net, (x, points) = small(), cloud(9)
    for row in range(2):
        places = points[row]
        features = torch.stack([(x[row, 0] - 1) / 2, (x[row, 1] + 1) / 0.5], 1)
        for stage, count, radius, most in zip(net.stages, net.centres, net.radii, net.neighbours, strict=False):
            centres = places[farthest(places[None], count)[0][0]]
            gathered = []
            for centre in centres:
                far = (places - centre).norm(dim=1)
                near = [j for j in far.argsort()[:most].tolist() if far[j] <= radius]
                each = [applied(stage, torch.cat([places[j] - centre, features[j]])) for j in near]
                gathered.append(torch.stack(each).amax(0))
            places, features = centres, torch.stack(gathered)
        each = [applied(net.stages[-1], torch.cat(both)) for both in zip(places, features, strict=True)]
        hidden = applied(net.hidden, torch.stack(each).amax(0))
        expected = net.head.readout.weight @ hidden + net.head.readout.bias
        torch.testing.assert_close(net(x, points)[row], expected, rtol=1e-11, atol=1e-11)


def test_number_of_parameters() -> None:
    """About 1.5 million, as published."""
    first = 6 * 64 + 64 * 64 + 64 * 128 + 2 * (64 + 64 + 128)
    second = (3 + 128) * 128 + 128 * 128 + 128 * 256 + 2 * (128 + 128 + 256)
    last = (3 + 256) * 256 + 256 * 512 + 512 * 1024 + 2 * (256 + 512 + 1024)
    behind = 1024 * 512 + 512 * 256 + 2 * (512 + 256) + 256 * 40 + 40
    assert sum(p.numel() for p in PointNet2(3, 40).parameters()) == first + second + last + behind


def test_the_order_of_points_and_their_company_change_nothing() -> None:
    net, (x, points), order = small(), cloud(15), torch.randperm(15)
    y = net(x, points)
    torch.testing.assert_close(net(x[..., order], points[:, order]), y, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(net(x[1:], points[1:]), y[1:], rtol=1e-11, atol=1e-11)


def test_where_the_cloud_is_changes_the_last_stage_alone() -> None:
    net, (x, points) = small(), cloud(15)
    seen: list[Tensor] = []
    handle = net.stages[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    y, moved = net(x, points), net(x, points + 0.3)
    handle.remove()
    torch.testing.assert_close(seen[1][:, :3], seen[0][:, :3] + 0.3, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(seen[1][:, 3:], seen[0][:, 3:], rtol=1e-11, atol=1e-11)
    assert (moved - y).abs().max() > 1e-4


@pytest.mark.parametrize("fill", [1e3, torch.nan, torch.inf])
def test_clouds_of_any_number_are_what_they_are_alone(fill: float) -> None:
    """Of fewer points than are kept, too, and of none."""
    net, counts = small(), (11, 5, 2, 1, 0)
    x, points = torch.full((5, 2, 11), fill, dtype=F64), torch.full((5, 11, 3), fill, dtype=F64)
    mask = torch.arange(11)[None] < torch.tensor(counts)[:, None]
    clouds = [cloud(count, batch=1) for count in counts]
    for row, (features, positions) in enumerate(clouds):
        x[row, :, : counts[row]], points[row, : counts[row]] = features[0], positions[0]
    y = net(x, points, mask)
    assert y.isfinite().all()
    for row, (features, positions) in enumerate(clouds):
        torch.testing.assert_close(y[row : row + 1], net(features, positions), rtol=1e-11, atol=1e-11)


def test_more_centres_than_points_are_as_many_as_there_are() -> None:
    few, (x, points) = small(centres=(5, 5)), cloud(5)
    many = small(centres=(9, 12))
    many.load_state_dict(few.state_dict())
    torch.testing.assert_close(many(x, points), few(x, points), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(many(x, points - 3.0), few(x, points - 3.0), rtol=1e-11, atol=1e-11)


def test_what_lies_behind_the_mask_changes_no_training_either() -> None:
    """Statistics of batch norm and gradients are those of the points that are there."""
    mask = torch.tensor([[True] * 5 + [False] * 2, [True] * 3 + [False] * 4])
    same, found = small(dropout=0.0).train(), []
    for fill in (0.0, torch.nan):
        net, (x, points) = copy.deepcopy(same), cloud(7)
        x, points = x.masked_fill(~mask[:, None], fill), points.masked_fill(~mask[..., None], fill)
        net(x, points, mask).square().sum().backward()
        found.append([p.grad for p in net.parameters()] + list(net.buffers()))
    for clean, dirty in zip(*found, strict=True):
        torch.testing.assert_close(dirty, clean)


def test_gradients_reach_all_parameters_the_features_and_the_positions() -> None:
    net = small(dropout=0.0).train()
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


def test_it_is_a_layer_like_any_other() -> None:
    check_layer(AtPlaces(small(dim=2)), torch.randn(2, 2, 7, dtype=F64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_dtypes(dtype: torch.dtype) -> None:
    """Positions of one precision, so that the same points are chosen."""
    exact, (x, points) = small(), cloud(9)
    net = PointNet2(**exact.arguments, dtype=dtype).eval()
    net.load_state_dict(exact.state_dict())
    y = net(x.to(dtype), points)
    assert y.dtype == dtype
    assert_close(y, exact(x, points), tolerance=20 * torch.finfo(dtype).eps)
    assert net(x.to(dtype), points.to(dtype)).dtype == dtype
    if dtype != F64:
        assert net.float()(x.to(dtype), points.to(dtype)).dtype == dtype


def test_a_saved_network_comes_back(tmp_path: Path) -> None:
    net, (x, points) = small(dim=2, dropout=0.2, input_dropout=0.1), cloud(9, 2)
    net.save_pretrained(tmp_path)
    again = Network.from_pretrained(tmp_path)
    assert isinstance(again, PointNet2)
    assert torch.equal(again(x, points), net(x, points))
    assert again.arguments == net.arguments
    assert "qi2017pointnet2," in cite(net)


def test_it_learns_what_only_neighbours_tell() -> None:
    """Pairs of points that are close, or spread evenly: each point by itself says nothing."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % 2
    points = 2 * torch.rand(32, 16, 2, generator=random) - 1
    points[labels == 1, 8:] = points[labels == 1, :8] + 0.02 * torch.randn(16, 8, 2, generator=random)
    shape: Any = {"centres": (8,), "radii": (0.3,), "neighbours": (4,), "widths": ((8, 8), (16,)), "hidden": (8,)}
    net = PointNet2(1, 2, dim=2, dropout=0.0, **shape)
    optimizer = torch.optim.AdamW(net.parameters(), 0.02)
    for _ in range(80):  # running statistics lag behind
        optimizer.zero_grad()
        F.cross_entropy(net(torch.ones(32, 1, 16), points), labels).backward()
        optimizer.step()
    net.eval()
    assert (net(torch.ones(32, 1, 16), points).argmax(1) == labels).float().mean() > 0.9


def test_parameters_are_drawn_anew() -> None:
    net = small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.reset_parameters()
    for name in ("stages.0.maps.0.weight", "stages.2.maps.0.weight", "hidden.maps.0.weight", "head.readout.weight"):
        assert not torch.equal(net.state_dict()[name], before[name])
    assert (net.stages[0].norms[0].running_mean == 0).all()


def test_bad_input() -> None:
    x, points = torch.zeros(2, 2, 5), torch.zeros(2, 5, 3)
    options: Any
    for options, message in (
        ({"dim": 4}, "`dim` must be at most 3; got 4"),
        ({"centres": (8,)}, "`radii` must have 1 entries for the 1 stages of `centres`"),
        ({"neighbours": (8,)}, "`neighbours` must have 2 entries for the 2 stages of `centres`"),
        ({"widths": ((8,), (8,))}, "`widths` must have 3 entries for the 2 stages of `centres` and the last"),
        ({"centres": (8, 0)}, "`centres` must be at least 1; got 0"),
        ({"radii": (0.2, 0.0)}, "`radii` must be finite and above 0"),
        ({"widths": ((8,), (8,), (0,))}, "`widths` must be at least 1; got 0"),
        ({"dropout": 1.0}, "`dropout` must be a probability below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            PointNet2(2, 3, **options)
    with pytest.raises(TypeError, match="`radii` must be a sequence, an entry per stage; got float"):
        PointNet2(2, 3, radii=0.2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`widths` must be a sequence of integers, one per stage; got int"):
        PointNet2(2, 3, widths=(64, 64, 64))  # type: ignore[arg-type]
    net = small(dtype=torch.float32)
    with pytest.raises(ValueError, match=r"`x` must be \(batch, 2, points\)"):
        net(x[:, :1], points)
    with pytest.raises(ValueError, match=r"`x` must have the dtype of the network, torch\.float32"):
        net(x.double(), points)
    with pytest.raises(ValueError, match=r"`positions` must be \(batch, points, dim\), here \(2, 5, 3\)"):
        net(x, points[..., :2])
    with pytest.raises(ValueError, match="`positions` must be finite where they are not masked"):
        net(x, points * torch.nan)
    with pytest.raises(ValueError, match=r"`mask` must be bool \(2, 5\)"):
        net(x, points, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="`x` must hold at least 2 clouds in training"):
        net.train()(x[:1], points[:1])
