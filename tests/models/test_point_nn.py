"""Point-NN: its formula, what it does not depend on, and shapes that it tells apart."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv import cite
from omniconv.domains import farthest
from omniconv.models import PointNN
from omniconv.models import point_nn as module
from omniconv.testing import assert_close

F64 = torch.float64
F = torch.nn.functional


def small(**options: Any) -> PointNN:
    return PointNN(**{"width": 12, "stages": 2, "neighbours": 5, **options})


def cloud(count: int, batch: int = 2, dim: int = 3) -> Tensor:
    random = torch.Generator().manual_seed(count)
    return 2 * torch.rand(batch, count, dim, dtype=F64, generator=random) - 1


def shapes(each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points on spheres, on cubes and on lines through the origin."""
    random = torch.Generator().manual_seed(seed)
    spheres = F.normalize(torch.randn(each, 48, 3, generator=random), dim=-1)
    cubes = 2 * torch.rand(each, 48, 3, generator=random) - 1
    face = torch.randint(0, 3, (each, 48, 1), generator=random)
    cubes = cubes.scatter(2, face, cubes.gather(2, face).sign())
    lines = F.normalize(torch.randn(each, 1, 3, generator=random), dim=-1)
    lines = (2 * torch.rand(each, 48, 1, generator=random) - 1) * lines
    return torch.cat([spheres, cubes, lines]), torch.tensor([3, 7, -1]).repeat_interleave(each)


def waves(point: Tensor, width: int) -> Tensor:
    """By axis, then frequency: sin and cos."""
    count = width // (2 * len(point))
    phases = [100 * float(p) / 1000 ** (d / count) for p in point for d in range(count)]
    return torch.tensor([f(phase) for phase in phases for f in (math.sin, math.cos)], dtype=F64)


@pytest.mark.parametrize(("dim", "count"), [(1, 6), (2, 7), (3, 9)])
def test_it_is_what_is_written(dim: int, count: int) -> None:
    points = cloud(count, batch=1, dim=dim)
    places, x = points[0], torch.stack([waves(point, 12) for point in points[0]])
    for _ in range(2):
        chosen = farthest(places[None], (len(places) + 1) // 2)[0][0]
        near = [(places - places[c]).norm(dim=1).argsort()[:5] for c in chosen]
        offsets = torch.stack([places[j] - places[c] for c, j in zip(chosen, near, strict=True)])
        changes = torch.stack([x[j] - x[c] for c, j in zip(chosen, near, strict=True)])
        offsets = offsets / (offsets.std(correction=0) + 1e-5)
        changes = changes / (changes.std(correction=0) + 1e-5)
        rows = []
        for c, lags, differences in zip(chosen, offsets, changes, strict=True):
            e = torch.stack([waves(lag, 2 * x.shape[1]) for lag in lags])
            h = torch.cat([differences, x[c].expand_as(differences)], 1)
            arriving = (h + e) * e
            rows.append(F.gelu(arriving.amax(0) + arriving.mean(0)))
        places, x = places[chosen], torch.stack(rows)
    expected = x.amax(0) + x.mean(0)
    torch.testing.assert_close(small(dim=dim).features(points)[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("fill", [1e3, torch.nan, torch.inf])
def test_clouds_of_any_number_are_what_they_are_alone(fill: float) -> None:
    counts = (12, 7, 3, 1, 0)
    clouds = [cloud(count, batch=1) for count in counts]
    points = torch.full((5, 12, 3), fill, dtype=F64)
    mask = torch.arange(12)[None] < torch.tensor(counts)[:, None]
    for row, positions in enumerate(clouds):
        points[row, : counts[row]] = positions[0]
    vectors = small().features(points, mask)
    assert vectors.isfinite().all()
    assert not vectors[4].any()
    for row, positions in enumerate(clouds):
        torch.testing.assert_close(vectors[row : row + 1], small().features(positions), rtol=1e-11, atol=1e-11)


def test_order_company_and_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, order = cloud(13, batch=5), torch.randperm(13)
    vectors = small().features(points)
    torch.testing.assert_close(small().features(points[:, order]), vectors, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(small().features(points[3:4]), vectors[3:4], rtol=1e-11, atol=1e-11)
    monkeypatch.setattr(module, "CLOUDS", 3)
    monkeypatch.setattr(module, "NUMBERS", 2 * 7 * 5 * 24)
    seen: list[tuple[int, int]] = []
    parts = small().features(points, progress=lambda done, total: seen.append((done, total)))
    torch.testing.assert_close(parts, vectors, rtol=1e-11, atol=1e-11)
    assert seen == [(2, 5), (3, 5), (5, 5)]


def test_it_tells_shapes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PointNN(width=24, stages=2, neighbours=12).fit(*shapes(12, seed=0))
    points, labels = shapes(12, seed=1)
    assert (model.predict(points) == labels).float().mean() > 0.9
    shares = model(points).exp()
    torch.testing.assert_close(shares.sum(1), torch.ones(36))
    monkeypatch.setattr(module, "NUMBERS", 3 * 36)
    torch.testing.assert_close(model(points).exp(), shares, rtol=1e-4, atol=1e-5)


def test_classes_are_weighed_by_similarity() -> None:
    model = small().fit(*shapes(4, seed=0))
    points, _ = shapes(2, seed=1)
    vectors = F.normalize(model.features(points).double(), dim=1)
    weights = (-float(model.gamma) * (1 - vectors @ model.vectors.double().T)).exp()
    shares = torch.stack([weights[:, model.labels == i].sum(1) for i in range(3)], 1) / weights.sum(1, keepdim=True)
    torch.testing.assert_close(model(points).exp().double(), shares, rtol=1e-3, atol=1e-5)
    assert model.classes.tolist() == [-1, 3, 7]
    assert torch.equal(model.predict(points), model.classes[shares.argmax(1)])


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("numbers", [2**24, 100])
def test_gamma_is_that_of_leaving_one_known_cloud_out(
    noise: float, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUMBERS", numbers)
    random = torch.Generator().manual_seed(3)
    vectors = F.normalize(torch.randn(30, 4, generator=random, dtype=F64), dim=1)
    labels = (vectors[:, 0] + noise * torch.randn(30, generator=random) > 0.2).long()
    best = (-1, -math.inf, 0.0)
    for gamma in module.GAMMAS:
        right, sure = 0, 0.0
        for i in range(30):
            others = [j for j in range(30) if j != i]
            cosines = [float(vectors[i] @ vectors[j]) for j in others]
            nearest = max(cosines)
            mass = [0.0, 0.0]
            for j, cosine in zip(others, cosines, strict=True):
                mass[int(labels[j])] += math.exp(gamma * (cosine - nearest))
            share = mass[int(labels[i])] / sum(mass)
            right, sure = right + (share > 0.5), sure + math.log(max(share, torch.finfo(F64).tiny))
        if (right, sure) > best[:2]:
            best = (right, sure, gamma)
    assert module.best_gamma(vectors, labels) == best[2]
    assert module.GAMMAS[0] < best[2] < module.GAMMAS[-1]


def test_clouds_to_predict_change_nothing() -> None:
    model = small().fit(*shapes(4, seed=0))
    before = copy.deepcopy(model.state_dict())
    points, labels = shapes(4, seed=5)
    together = model(points)
    torch.testing.assert_close(torch.cat([model(point[None]) for point in points]), together, rtol=1e-3, atol=1e-3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not list(model.parameters())
    again = small().fit(points, labels).fit(*shapes(4, seed=0))  # nothing is left of what was known before
    assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())


def test_state_comes_back() -> None:
    points, labels = shapes(3, seed=0)
    model = small().fit(points, labels)
    again = small()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(points), model(points))
    assert torch.equal(copy.deepcopy(model).predict(points), model.predict(points))
    outer, other = torch.nn.ModuleList([model]), torch.nn.ModuleList([small()])
    other.load_state_dict(outer.state_dict())
    assert torch.equal(other[0](points), model(points))
    with pytest.raises(RuntimeError, match="Missing key"):
        small().load_state_dict({})
    assert "zhang2023parameter" in cite(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_dtypes(dtype: torch.dtype) -> None:
    points, labels = shapes(3, seed=0)
    points = points.bfloat16().half().to(dtype)  # the same places in every precision
    vectors = small().features(points)
    assert vectors.dtype == dtype
    tolerance = max(1e-4, torch.finfo(dtype).eps)
    assert_close(vectors, small().features(points.double()), tolerance=tolerance)
    model = small().fit(points, labels)
    assert model(points).dtype == dtype
    assert model.vectors.dtype == torch.promote_types(dtype, torch.float32)
    assert (model.half().predict(points) == labels).float().mean() > 0.9


def test_few_clouds() -> None:
    points, labels = shapes(1, seed=0)
    assert small().fit(points[:1], labels[:1]).predict(points).tolist() == [3, 3, 3]
    assert small().fit(points, labels).predict(points).tolist() == labels.tolist()
    assert small().features(points[:0]).shape == (0, 48)
    assert not small().features(torch.zeros(2, 0, 3)).any()
    same = small().features(torch.ones(1, 6, 3))
    assert same.isfinite().all()


def test_bad_input() -> None:
    points, labels = shapes(1, seed=0)
    options: Any
    for options, message in (
        ({"width": 13}, r"`width` must be a multiple of 2 `dim` \(=6\); got 13"),
        ({"dim": 0}, "`dim` must be at least 1"),
        ({"stages": 0}, "`stages` must be at least 1"),
        ({"neighbours": 0}, "`neighbours` must be at least 1"),
        ({"alpha": 0.0}, "`alpha` must be finite and above 0"),
        ({"beta": math.inf}, "`beta` must be finite and above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            small(**options)
    with pytest.raises(ValueError, match="the model knows no cloud yet"):
        small().predict(points)
    with pytest.raises(ValueError, match=r"`labels` must be \(3,\), one for every cloud"):
        small().fit(points, labels[:2])
    with pytest.raises(ValueError, match=r"`labels` must be .* of one cloud at least"):
        small().fit(points[:0], labels[:0])
    with pytest.raises(TypeError, match="`labels` must be a tensor of integers"):
        small().fit(points, labels.float())
    with pytest.raises(ValueError, match=r"`positions` must be \(batch, points, 3\)"):
        small().features(points[..., :2])
    with pytest.raises(ValueError, match=r"`positions` must be \(batch, points, dim\)"):
        small().features(points[0])
    with pytest.raises(TypeError, match="`positions` must hold floating-point numbers"):
        small().features(points.long())
    with pytest.raises(ValueError, match="`positions` must be finite where they are not masked"):
        small().features(points * torch.nan)
    with pytest.raises(ValueError, match=r"`mask` must be bool \(3, 48\)"):
        small().features(points, torch.ones(3, 48))
