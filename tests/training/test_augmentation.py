"""Clouds that are changed in training stay the clouds that they were."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omniconv.training import CloudAugmentation, Recipe, augmentation
from omniconv.training.batches import Batch


def clouds(count: int = 64, points: int = 30, dim: int = 3, channels: int = 4) -> Batch:
    torch.manual_seed(0)
    mask = torch.arange(points) < torch.randint(points // 6, points + 1, (count, 1)).clamp(min=1)
    signals, positions = torch.randn(count, channels, points), torch.randn(count, points, dim)
    return Batch(signals, mask, torch.arange(count), positions=positions)


def changed(batch: Batch, **options: Any) -> Batch:
    return CloudAugmentation(**options)(batch)


def places(batch: Batch) -> Tensor:
    assert batch.positions is not None
    return batch.positions


def test_nothing_asked_nothing_changed() -> None:
    batch = clouds()
    after = changed(batch)
    assert torch.equal(places(after), places(batch))
    assert torch.equal(after.signals, batch.signals)
    assert after.mask is batch.mask
    on_grid = Batch(torch.randn(2, 1, 8), None, torch.arange(2))
    assert changed(on_grid, turn=180.0) is on_grid


@pytest.mark.parametrize("options", [{"turn": 40.0}, {"flip": True}, {"turn": 180.0, "quarters": True, "flip": True}])
def test_turns_and_mirrors_keep_distances_and_what_is_up(options: Any) -> None:
    batch = clouds()
    after = changed(batch, vectors=1, **options)
    assert not torch.allclose(places(after), places(batch))
    gaps = [(place[:, None] - place[:, :, None]).norm(dim=-1) for place in (places(after), places(batch))]
    torch.testing.assert_close(gaps[0], gaps[1])
    torch.testing.assert_close(places(after)[..., 2], places(batch)[..., 2])
    # A vector turns with its cloud: its products with the positions stay.
    products = [(some.signals[:, :3].transpose(1, 2) * places(some)).sum(-1) for some in (batch, after)]
    torch.testing.assert_close(products[1], products[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(after.signals[:, 3:], batch.signals[:, 3:])


def test_angles_are_within_the_bounds_and_different() -> None:
    batch = clouds(count=500)
    after = changed(batch, turn=30.0)
    first, second = places(batch)[:, 0, :2], places(after)[:, 0, :2]
    cross = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    angles = torch.rad2deg(torch.atan2(cross, (first * second).sum(-1)))
    assert angles.abs().max() <= 30.01
    assert angles.min() < -25
    assert angles.max() > 25
    assert abs(angles.mean()) < 3


def test_quarters_are_equally_likely_and_unsigned_vectors_have_no_sign() -> None:
    batch = clouds(count=2000, points=2)
    after = changed(batch, turn=180.0, quarters=True, vectors=1, unsigned=True)
    first, second = places(batch)[:, 0, :2], places(after)[:, 0, :2]
    same, opposite = (torch.isclose(second, sign * first, atol=1e-5).all(-1) for sign in (1, -1))
    assert abs(same.double().mean() - 0.25) < 0.04
    assert abs(opposite.double().mean() - 0.25) < 0.04
    assert (after.signals[:, :3] >= 0).all()
    swapped = batch.signals[:, [1, 0, 2]].abs()
    wanted = torch.where((same | opposite)[:, None, None], batch.signals[:, :3].abs(), swapped)
    torch.testing.assert_close(after.signals[:, :3], wanted, rtol=1e-4, atol=1e-4)


def test_zoom_and_jitter() -> None:
    batch = clouds()
    shares = places(changed(batch, zoom=0.2)) / places(batch)
    torch.testing.assert_close(shares, shares[:, :1, :1].expand_as(shares), rtol=1e-4, atol=1e-5)
    assert shares.min() >= 0.8
    assert shares.max() <= 1.2
    assert shares[:, 0, 0].std() > 0.05
    moved = places(changed(batch._replace(positions=100 * places(batch)), jitter=0.01)) - 100 * places(batch)
    assert batch.mask is not None
    largest = 100 * max(float(place[seen].abs().max()) for place, seen in zip(places(batch), batch.mask, strict=True))
    assert 0.003 * largest < moved.std() < 0.011 * largest


def test_points_are_left_out_but_never_all(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = clouds()
    kept = [changed(batch._replace(mask=None), thin=0.5).signals.shape[2] for _ in range(200)]
    assert min(kept) in (15, 16)
    assert max(kept) == 30
    assert abs(sum(kept) / 200 - 22.75) < 1
    whole = augmentation.chosen_points
    monkeypatch.setattr(augmentation, "chosen_points", lambda seen, share: whole(seen, 0.5))
    after = changed(batch, thin=0.5)
    assert batch.mask is not None
    assert after.mask is not None
    assert after.mask.sum(1).tolist() == [-(-int(count) // 2) for count in batch.mask.sum(1)]
    for row in range(len(after.signals)):
        count = int(after.mask[row].sum())
        equal = (places(after)[row, :count, None] == places(batch)[row]).all(-1)
        assert equal.sum(1).eq(1).all(), "points of this cloud"
        origin = equal.int().argmax(1)
        assert len(origin.unique()) == count, "each once"
        assert batch.mask[row][origin].all()
        assert torch.equal(after.signals[row, :, :count], batch.signals[row][:, origin])
    equal_counts = changed(batch._replace(mask=None), thin=0.9)
    assert equal_counts.mask is None
    assert equal_counts.signals.shape[2] == 15
    assert changed(clouds(points=1), thin=0.9).signals.shape[2] == 1
    again = changed(batch._replace(mask=None), thin=0.9)
    assert not torch.equal(places(equal_counts), places(again))


@pytest.mark.parametrize(("turn", "angles"), [(90.0, {-90, 0, 90}), (130.0, {-90, 0, 90}), (180.0, {-90, 0, 90, 180})])
def test_quarters_are_within_the_bound(turn: float, angles: set[int]) -> None:
    batch = clouds(count=3000, points=1, dim=2)
    first, second = places(batch)[:, 0], places(changed(batch, turn=turn, quarters=True))[:, 0]
    cross = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    found = torch.rad2deg(torch.atan2(cross, (first * second).sum(-1))).round().int()
    found = torch.where(found == -180, 180, found)
    counts = {int(angle): int((found == angle).sum()) for angle in found.unique()}
    assert set(counts) == angles
    assert all(abs(count / 3000 - 1 / len(angles)) < 0.04 for count in counts.values())


def test_what_is_behind_the_mask_stays_there() -> None:
    batch = clouds()
    assert batch.mask is not None
    hidden = batch._replace(positions=places(batch).masked_fill(~batch.mask[..., None], torch.nan))
    options: dict[str, Any] = {"turn": 90.0, "flip": True, "zoom": 0.2, "jitter": 0.1}
    torch.manual_seed(3)
    plain = changed(batch._replace(positions=places(batch).masked_fill(~batch.mask[..., None], 0.0)), **options)
    torch.manual_seed(3)
    after = changed(hidden, **options)
    seen = batch.mask[..., None].expand_as(places(after))
    assert torch.equal(places(after)[seen], places(plain)[seen])
    nothing = changed(batch._replace(mask=torch.zeros_like(batch.mask)), **options)
    assert places(nothing).isfinite().all()


def test_flat_clouds() -> None:
    batch = clouds(dim=2)
    after = changed(batch, turn=90.0, flip=True)
    torch.testing.assert_close(places(after).norm(dim=-1), places(batch).norm(dim=-1))
    line = clouds(dim=1)
    torch.testing.assert_close(places(changed(line, turn=90.0, flip=True)).abs(), places(line).abs())


def test_bad_input() -> None:
    wrong: dict[str, Any] = {"turn": 190.0, "zoom": 1.0, "thin": -0.1, "jitter": -1.0, "vectors": -1}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            CloudAugmentation(**{name: value})
    with pytest.raises(ValueError, match=r"`vectors` \(=2\) need 6 features in 3 axes; the clouds have 4"):
        changed(clouds(), vectors=2)
    with pytest.raises(ValueError, match="`turn` must be at least 90 for `quarters`"):
        CloudAugmentation(turn=45.0, quarters=True)
    json.dumps(asdict(CloudAugmentation(turn=np.float32(90), zoom=np.float64(0.1), vectors=np.int64(1))))  # type: ignore
    with pytest.raises(TypeError, match="`augmentation` must be a CloudAugmentation"):
        Recipe(augmentation=0.5)  # type: ignore[arg-type]
