"""CCNN on clouds: it is the network of the grid where the points are a grid's, and knows no order of points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.domains import Cloud
from omniconv.groups import SO2
from omniconv.models import CCNN, Network

F64 = torch.float64


def small(size: Any = (5, 6), **options: Any) -> CCNN:
    torch.manual_seed(0)
    given: dict[str, Any] = {"blocks": 2, "width": 4, "reach": 2, "dtype": F64} | options
    return CCNN(2, 3, size, **given).eval()


def grid_points(*size: int) -> Tensor:
    return torch.cartesian_prod(*(torch.arange(n, dtype=F64) for n in size)).reshape(1, -1, len(size))


@pytest.mark.parametrize("size", [(7,), (5, 6), (3, 4, 5)])
@pytest.mark.parametrize("options", [{}, {"mixing": "dense"}, {"head": "dense"}, {"causal": True}])
def test_on_the_points_of_a_grid_it_is_the_network_of_the_grid(size: tuple[int, ...], options: Any) -> None:
    model, x = small(size, **options), torch.randn(2, 2, *size, dtype=F64)
    wanted = model(x)
    points = grid_points(*size).expand(2, -1, -1)
    found = model(x.flatten(2), positions=points)
    torch.testing.assert_close(found, wanted.flatten(2) if options.get("head") == "dense" else wanted)


def test_training_on_a_grid_is_the_same_too() -> None:
    on_grid, on_points, x = small().train(), small().train(), torch.randn(3, 2, 5, 6, dtype=F64)
    wanted = on_grid(x)
    found = on_points(x.flatten(2), positions=grid_points(5, 6).expand(3, -1, -1))
    torch.testing.assert_close(found, wanted)
    wanted.square().sum().backward()
    found.square().sum().backward()
    for one, other in zip(on_points.parameters(), on_grid.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-7, atol=1e-9)


def test_points_have_no_order_and_no_origin() -> None:
    model, x, points = small(), torch.randn(2, 2, 20, dtype=F64), 5 * torch.rand(2, 20, 2, dtype=F64)
    y, order = model(x, positions=points), torch.randperm(20)
    torch.testing.assert_close(model(x[..., order], positions=points[:, order]), y)
    torch.testing.assert_close(model(x, positions=points + torch.tensor([3.7, -80.1], dtype=F64)), y)


@pytest.mark.parametrize("head", ["pool", "dense"])
def test_clouds_of_unequal_numbers_are_what_they_are_alone(head: str) -> None:
    model, counts = small(head=head), (1, 12, 20)
    x, points = torch.randn(3, 2, 20, dtype=F64), 5 * torch.rand(3, 20, 2, dtype=F64)
    mask = torch.arange(20) < torch.tensor(counts)[:, None]
    x, points = x.masked_fill(~mask[:, None], torch.nan), points.masked_fill(~mask[..., None], torch.nan)
    together = model(x, positions=points, mask=mask)
    for row, count in enumerate(counts):
        alone = model(x[row : row + 1, :, :count], positions=points[row : row + 1, :count])[0]
        if head == "dense":
            torch.testing.assert_close(together[row, :, :count], alone)
            assert not together[row, :, count:].any()
        else:
            torch.testing.assert_close(together[row], alone)


def test_an_empty_cloud_has_outputs() -> None:
    model = small()
    mask = torch.tensor([[True] * 4, [False] * 4])
    y = model(torch.randn(2, 2, 4, dtype=F64), positions=torch.rand(2, 4, 2, dtype=F64), mask=mask)
    assert y.isfinite().all()
    assert model(torch.randn(2, 2, 0, dtype=F64), positions=torch.rand(2, 0, 2, dtype=F64)).isfinite().all()


def test_a_measure_behind_the_mask_may_be_anything() -> None:
    model, mask = small(), torch.tensor([[True] * 3 + [False]])
    x, points = torch.randn(1, 2, 4, dtype=F64), torch.rand(1, 4, 2, dtype=F64)
    measure = torch.tensor([[1.0, 2.0, 0.5, torch.nan]], dtype=F64)
    alone = model(x[..., :3], positions=Cloud(points[:, :3], None, measure[:, :3]))
    torch.testing.assert_close(model(x, positions=Cloud(points, mask, measure)), alone)


def test_the_unit_of_positions_is_that_of_the_span(tmp_path: Path) -> None:
    x, points = torch.randn(1, 2, 20, dtype=F64), torch.rand(1, 20, 2, dtype=F64)
    model, plain = small(span=(1.0, 0.5)), small()
    y = model(x, positions=points)
    torch.testing.assert_close(y, plain(x, positions=points * torch.tensor([5.0, 12.0], dtype=F64)))
    model.save_pretrained(tmp_path)
    again = Network.from_pretrained(tmp_path)
    assert again.span == (1.0, 0.5)
    torch.testing.assert_close(again.eval()(x, positions=points), y)


def test_points_may_say_how_much_they_stand_for() -> None:
    model, x, points = small(), torch.randn(1, 2, 12, dtype=F64), 5 * torch.rand(1, 12, 2, dtype=F64)
    # A point that comes twice, each time with half of its volume, is one point.
    measure = torch.rand(1, 12, dtype=F64)
    twice = Cloud(torch.cat([points, points[:, :1]], 1), None, torch.cat([measure, measure[:, :1] / 2], 1))
    assert twice.measure is not None
    twice.measure[0, 0] /= 2
    once = model(x, positions=Cloud(points, None, measure.clone()))
    torch.testing.assert_close(model(torch.cat([x, x[..., :1]], -1), positions=twice), once)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    model, x, points = small(dtype=torch.float32), torch.randn(1, 2, 12), 5 * torch.rand(1, 12, 2)
    y = model(x, positions=points)
    half = model.to(dtype)(x.to(dtype), positions=points)
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), y, rtol=0.1, atol=0.1)


def test_bad_input() -> None:
    model, x, points = small(), torch.zeros(1, 2, 5, dtype=F64), torch.zeros(1, 5, 2, dtype=F64)
    with pytest.raises(ValueError, match=r"`x` must be \(batch, 2, points\)"):
        model(x[:, :1], positions=points)
    with pytest.raises(ValueError, match=r"`positions` must be \(batch, points, dim\), here \(1, 5, 2\)"):
        model(x, positions=points[..., :1])
    with pytest.raises(TypeError, match=r"`positions` must be a torch\.Tensor"):
        model(x, positions=[[0.0, 0.0]])
    with pytest.raises(ValueError, match=r"`mask` must be bool \(1, 5\)"):
        model(x, positions=points, mask=torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="`mask` must be that of the `Cloud`"):
        model(x, positions=Cloud(points), mask=torch.ones(1, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="must be finite where they are not masked"):
        model(x, positions=points * torch.nan)
    for name, value in (("spacing", 0.5), ("times", points[..., 0]), ("condition", points[:, 0])):
        with pytest.raises(ValueError, match=f"`positions` and `{name}` exclude each other"):
            model(x, positions=points, **{name: value})
    with pytest.raises(ValueError, match="no view at another resolution"):
        model.at_resolution(2.0)(x, positions=points)
    with pytest.raises(ValueError, match="`positions` is not for networks on a group"):
        CCNN(2, 3, (8, 8), group=SO2(), samples=2, blocks=1, width=4)(x.float(), positions=points)
    with pytest.raises(ValueError, match=r"`positions` have no order.*LastHead reads.*head=\"pool\""):
        small(head="last")(x, positions=points)
    with pytest.raises(ValueError, match="`span` must be finite and above 0"):
        small(span=(1.0, -1.0))
