"""Clouds: what their points stand for, which are near, and whether their lags repeat."""

from __future__ import annotations

import pytest
import torch

from omniconv import Conv
from omniconv.domains import Cloud, Edges, centred, within
from omniconv.domains.clouds import unique_rows

F64 = torch.float64


def lattice_points(side: int = 9) -> torch.Tensor:
    axis = torch.arange(side, dtype=F64)
    return torch.cartesian_prod(axis, axis)[None]


def test_points_share_one_volume_unless_they_say_what_they_stand_for() -> None:
    positions, mask = torch.zeros(2, 3, 2), torch.tensor([[True] * 3, [True, False, False]])
    assert Cloud(positions, mask).volumes(6.0).tolist() == [[2, 2, 2], [6, 0, 0]]
    measure = torch.tensor([[1.0, 2.0, 3.0], [4.0, torch.nan, 5.0]])
    assert Cloud(positions, mask, measure).volumes(6.0).tolist() == [[1, 2, 3], [4, 0, 0]]
    assert Cloud(positions, torch.zeros(2, 3, dtype=torch.bool)).volumes(6.0).tolist() == [[0] * 3] * 2
    assert Cloud(positions.half()).volumes(6.0).dtype == torch.float32


def test_pairs_are_kept_for_the_next_layer() -> None:
    cloud = Cloud(7 * torch.rand(1, 20, 2, dtype=F64))
    near = cloud.edges_within((2, 2), (False, False))
    assert cloud.edges_within((2, 2), (False, False)) is near
    assert len(cloud.edges_within((1, 2), (False, False))) < len(near)
    past = cloud.edges_within((2, 2), (True, False))
    lags = cloud.positions[0, past.target] - cloud.positions[0, past.source]
    assert (lags[:, 0] >= 0).all()
    assert (lags[:, 1] < 0).any()
    given = Cloud(cloud.positions, edges=past)
    assert given.edges_within((5, 5), (False, False)) is past
    with pytest.raises(ValueError, match=r"`edges` must be of \(batch, outputs, points\) \(1, 3, 20\)"):
        given.edges_within((5, 5), (False, False), torch.rand(1, 3, 2, dtype=F64))


def test_given_pairs_are_of_the_past_and_of_points_that_are_there() -> None:
    """As those that a layer finds itself, whoever found them; a layer gives the same with either."""
    positions, mask = 7 * torch.rand(2, 20, 2, dtype=F64), torch.rand(2, 20) < 0.7
    everything = within(positions, positions, 2.0, norm="largest")
    for causal in ((False, False), (True, False), (True, True)):
        known, own = Cloud(positions, mask, edges=everything), Cloud(positions, mask)
        given, found = (cloud.edges_within((2, 2), causal) for cloud in (known, own))
        assert torch.equal(given.batch, found.batch)
        assert torch.equal(given.source, found.source)
        assert torch.equal(given.target, found.target)
        assert known.edges_within((2, 2), causal) is given
    there = Cloud(positions, mask, edges=everything).edges_within((2, 2), (True, True), positions)
    assert mask[there.batch, there.source].all()
    assert not mask[there.batch, there.target].all()
    layer, x = Conv(1, 2, (8, 8), reach=2, causal=True, dtype=F64), torch.randn(2, 1, 20, dtype=F64)
    wide = within(positions, positions, tuple(far + 2.0**-20 for far in layer.window), norm="largest")
    known = Cloud(positions.masked_fill(~mask[..., None], torch.nan), mask, edges=wide)
    y, wanted = (
        layer(x, positions=cloud).masked_fill(~mask[:, None], 0.0) for cloud in (known, Cloud(positions, mask))
    )
    torch.testing.assert_close(y, wanted)


def test_a_cloud_that_is_changed_in_place_is_another() -> None:
    positions, mask = lattice_points(), torch.ones(1, 81, dtype=torch.bool)
    cloud, layer, x = Cloud(positions, mask), Conv(1, 2, (9, 9), reach=3, dtype=F64), torch.randn(1, 1, 81, dtype=F64)
    for change in (lambda: None, lambda: positions.mul_(0.5), lambda: mask[:, 60:].fill_(False)):
        change()
        near, fresh = cloud.edges_within((3, 3), (False, False)), Cloud(positions, mask)
        assert torch.equal(near.source, fresh.edges_within((3, 3), (False, False)).source)
        torch.testing.assert_close(layer(x, positions=cloud), layer(x, positions=fresh))
    with torch.inference_mode():
        positions = lattice_points()
        cloud = Cloud(positions)
        before = len(cloud.edges_within((3, 3), (False, False)))
        positions.mul_(0.5)
    assert len(cloud.edges_within((3, 3), (False, False))) > before


def test_lags_repeat_on_a_lattice_and_nowhere_else() -> None:
    points = lattice_points()
    cloud = Cloud(torch.cat([points, points + 0.3]))
    edges = cloud.edges_within((3, 3), (False, False))
    found = cloud.repeated_lags(edges)
    assert found is not None
    lags, which = found
    assert len(lags) == 49
    exact = cloud.positions[edges.batch, edges.target] - cloud.positions[edges.batch, edges.source]
    torch.testing.assert_close(lags[which], exact, rtol=0, atol=1e-9)
    assert cloud.repeated_lags(edges) is found
    anywhere = Cloud(9 * torch.rand(2, 200, 2, dtype=F64))
    assert anywhere.repeated_lags(anywhere.edges_within((3, 3), (False, False))) is None


def test_positions_that_want_a_gradient_have_lags_of_their_own() -> None:
    cloud = Cloud(lattice_points().requires_grad_())
    edges = cloud.edges_within((3, 3), (False, False))
    assert 2 * len(edges) > 4096
    few = Edges(edges.batch.repeat(2), edges.source.repeat(2), edges.target.repeat(2), edges.shape)
    assert cloud.repeated_lags(few) is None
    with torch.no_grad():
        assert cloud.repeated_lags(few) is not None


def test_unique_rows() -> None:
    rows = torch.tensor([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0], [1.0, -2.0]])
    unique, which = unique_rows(rows)
    assert unique.tolist() == [[0, 5], [1, -2], [1, 2]]
    assert torch.equal(unique[which], rows)
    assert unique_rows(rows[:0])[0].shape == (0, 2)


def test_other_units() -> None:
    cloud = Cloud(torch.rand(1, 5, 2), measure=torch.rand(1, 5)).scaled((2.0, 4.0))
    assert cloud.measure is not None
    twice = Cloud(cloud.positions / torch.tensor([2.0, 4.0])).scaled((2.0, 4.0))
    torch.testing.assert_close(twice.positions, cloud.positions)
    assert len(within(cloud.positions, cloud.positions, (8, 8))) == len(cloud.edges_within((8, 8), (False, False)))


def test_bad_clouds() -> None:
    with pytest.raises(TypeError, match=r"`positions` must be a torch\.Tensor"):
        Cloud([[0.0]])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`positions` must be \(batch, points, dim\)"):
        Cloud(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"`measure` must be \(1, 3\)"):
        Cloud(torch.zeros(1, 3, 2), measure=torch.ones(3))


def test_lags_are_those_of_the_outputs_that_are_asked_for() -> None:
    """Known pairs serve any outputs; what was found for some says nothing of others."""
    points = lattice_points().expand(3, -1, -1)
    edges = within(points, points, 3.0)
    cloud = Cloud(points, edges=edges)
    for outputs in (None, points + 0.5, points - 0.25, None):
        found = cloud.repeated_lags(edges, outputs)
        assert found is not None
        exact = (points if outputs is None else outputs)[edges.batch, edges.target] - points[edges.batch, edges.source]
        torch.testing.assert_close(found[0][found[1]], exact, rtol=0, atol=1e-9)
    assert len(cloud._lags) == 1


def test_what_was_found_without_gradients_does_not_spoil_training() -> None:
    layer, cloud = Conv(1, 2, (9, 9), reach=3, dtype=F64), Cloud(lattice_points())
    x = torch.randn(1, 1, 81, dtype=F64)
    with torch.inference_mode():
        y = layer(x, positions=cloud)
    again = layer(x, positions=cloud)
    torch.testing.assert_close(again, y)
    again.sum().backward()


def test_measures_are_volumes() -> None:
    mask = torch.tensor([[True, False]])
    cloud = Cloud(torch.zeros(1, 2, 2), mask, torch.tensor([[2.0, torch.nan]]))
    assert cloud.measure is not None
    assert cloud.measure.tolist() == [[2.0, 0.0]]
    for wrong in (-1.0, torch.nan, torch.inf):
        with pytest.raises(ValueError, match="`measure` must be finite and at least 0"):
            Cloud(torch.zeros(1, 2, 2), measure=torch.tensor([[1.0, wrong]]))
    with pytest.raises(TypeError, match=r"`edges` must be `omniconv\.domains\.Edges`"):
        Cloud(torch.zeros(1, 2, 2), edges="all")  # type: ignore[arg-type]


def test_centred_in_half_precision_and_of_what_is_nowhere() -> None:
    points = (100 * torch.rand(1, 5000, 3) + 100).half()
    assert centred(points).isfinite().all()
    assert centred(points).abs().max() <= 1
    with pytest.raises(ValueError, match="`positions` must be finite where they are not masked"):
        centred(points * torch.nan)
    with pytest.raises(ValueError, match=r"`positions` must be \(batch, points, dim\)"):
        centred(torch.zeros(2, 3, 0))
