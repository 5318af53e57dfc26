"""The laws of groups."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from omniconv.groups import Group
from omniconv.testing._tolerances import expect

EXACT = 1e-12
"""Largest error in float64, relative to numbers of about 1."""


def check_group(group: Group, *, count: int = 24, seed: int = 0) -> None:
    """Raise `AssertionError` unless the group obeys the contract of `Group`.

    On elements drawn from its Haar measure, in float64 to 1e-12: composition is associative, with an identity and
    inverses; matrices and the action on points are homomorphisms; `exp` and `log` undo one another; the determinant is
    that of the matrix; the distance is symmetric and does not change when both elements are moved; the density is that
    of a measure which left translations keep, and `at` draws from it, by the Jacobian of each; features have no cut and
    lie in [-1, 1]; `magnification` bounds what is sampled; derivatives are finite, at the identity too; batch axes
    broadcast, float32 gives what float64 gives; bad shapes are named; copies are equal.

    >>> from omniconv.groups import SO2
    >>> check_group(SO2())
    """
    generator = torch.Generator().manual_seed(seed)
    g, h, k = (group.draw(count, generator=generator).elements for _ in range(3))
    points = torch.randn(count, group.dim, generator=generator, dtype=torch.float64)
    check_algebra(group, g, h, k)
    check_action(group, g, h, points)
    check_chart(group, g)
    check_distance(group, g, h, k)
    check_haar_density(group, g, h)
    check_draws(group, torch.rand(count, group.coordinates, generator=generator, dtype=torch.float64))
    check_features(group, g, h)
    check_magnification(group, torch.cat([g, h, k]))
    check_derivatives(group, g)
    check_value(group)
    check_shapes(group, g, h, points)


def same(group: Group, g: Tensor, h: Tensor, what: str) -> None:
    """Raise unless the elements are the same: their charts may be cut between them."""
    distance = group.distance(g, h)
    expect(bool((distance < 10 * EXACT).all()), f"{what}: elements differ by {distance.max().item():.1e}")
    near(group.matrix(g), group.matrix(h), what)


def near(actual: Tensor, expected: Tensor, what: str) -> None:
    """Raise unless the numbers agree."""
    error = float(((actual - expected).abs() / (1 + expected.abs())).max()) if actual.numel() else 0.0
    expect(error <= EXACT, f"{what}: error {error:.1e} above {EXACT:.0e}")


def check_algebra(group: Group, g: Tensor, h: Tensor, k: Tensor) -> None:
    """The axioms."""
    identity = group.identity()
    expect(identity.shape == (group.numbers,), f"the identity must have shape ({group.numbers},)")
    same(group, group.compose(group.compose(g, h), k), group.compose(g, group.compose(h, k)), "associativity")
    same(group, group.compose(g, identity), g, "identity on the right")
    same(group, group.compose(identity, g), g, "identity on the left")
    same(group, group.compose(g, group.inverse(g)), identity.expand_as(g), "inverse on the right")
    same(group, group.compose(group.inverse(g), g), identity.expand_as(g), "inverse on the left")


def check_action(group: Group, g: Tensor, h: Tensor, points: Tensor) -> None:
    """Homomorphisms."""
    near(group.matrix(group.compose(g, h)), group.matrix(g) @ group.matrix(h), "matrix of a product")
    near(group.act(group.compose(g, h), points), group.act(g, group.act(h, points)), "action of a product")
    near(group.act(group.identity(), points), points, "action of the identity")
    near(group.determinant(g), torch.linalg.det(group.matrix(g)).abs(), "determinant")
    near(
        group.determinant(group.compose(g, h)), group.determinant(g) * group.determinant(h), "determinant of a product"
    )


def check_chart(group: Group, g: Tensor) -> None:
    """`exp` and `log`."""
    a = group.log(g)
    expect(a.shape == (len(g), group.coordinates), f"coordinates must have shape (count, {group.coordinates})")
    same(group, group.exp(a), g, "exp of log")
    near(group.log(group.exp(a)), a, "log of exp")
    near(group.log(group.identity()), torch.zeros(group.coordinates, dtype=torch.float64), "log of the identity")
    tiny = 1e-6 * a * torch.tensor(group.continuous)
    error = (group.log(group.exp(tiny)) - tiny).abs()
    expect(bool((error < 1e-15).all()), "log of exp near the identity must lose nothing but the last digits")


def check_distance(group: Group, g: Tensor, h: Tensor, k: Tensor) -> None:
    """Zero for the same, symmetric, unmoved by left translations."""
    near(group.distance(g, g), torch.zeros(len(g), dtype=torch.float64), "distance to itself")
    near(group.distance(g, h), group.distance(h, g), "symmetry of the distance")
    near(group.distance(group.compose(k, g), group.compose(k, h)), group.distance(g, h), "distance of moved elements")


def check_haar_density(group: Group, g: Tensor, h: Tensor) -> None:
    """density(kg) |d log(kg) / d log(g)| = density(g) for each k."""
    continuous = torch.tensor(group.continuous, dtype=torch.bool)
    near(group.density(group.log(group.identity())), torch.ones((), dtype=torch.float64), "density at the identity")
    if not bool(continuous.any()):
        near(group.density(group.log(g)), torch.ones(len(g), dtype=torch.float64), "density of a finite group")
        return
    for element, coordinates in zip(h, group.log(g), strict=True):

        def moved(part: Tensor, element: Tensor = element, coordinates: Tensor = coordinates) -> Tensor:
            a = coordinates.clone()
            a[continuous] = part
            return group.log(group.compose(element, group.exp(a)))[continuous]

        jacobian = torch.autograd.functional.jacobian(moved, coordinates[continuous])
        image = group.log(group.compose(element, group.exp(coordinates)))
        near(
            group.density(image) * torch.linalg.det(jacobian).abs(),
            group.density(coordinates),
            "Haar density under a left translation",
        )


def check_draws(group: Group, uniform: Tensor) -> None:
    """density(at(u)) |d log at(u) / du| is the same for each u."""
    continuous = torch.tensor(group.continuous, dtype=torch.bool)
    if not bool(continuous.any()):
        return
    volumes = []
    for numbers in 0.01 + 0.98 * uniform:

        def drawn(part: Tensor, numbers: Tensor = numbers) -> Tensor:
            u = numbers.clone()
            u[continuous] = part
            return group.log(group.at(u))[continuous]

        jacobian = torch.autograd.functional.jacobian(drawn, numbers[continuous])
        volumes.append(group.density(group.log(group.at(numbers))) * torch.linalg.det(jacobian).abs())
    found = torch.stack(volumes)
    near(found / found.mean(), torch.ones_like(found), "density of what uniform numbers stand for")


def check_derivatives(group: Group, g: Tensor) -> None:
    """Finite for elements and at the identity."""
    for start in (group.log(g), torch.zeros(2, group.coordinates, dtype=torch.float64)):
        a = start.clone().requires_grad_()
        h = group.exp(a)
        relative = group.relative(h, h.detach())
        results = (h, group.log(h), group.matrix(h), group.describe(relative), group.density(a), group.distance(h, h))
        for result in results:
            if result.requires_grad and a.numel():
                (slope,) = torch.autograd.grad(result.sum(), a, retain_graph=True, allow_unused=True)
                expect(slope is None or bool(slope.isfinite().all()), "derivatives must be finite")


def check_value(group: Group) -> None:
    """A copy is equal, and has the same hash."""
    again = copy.deepcopy(group)
    expect(again == group and hash(again) == hash(group), "groups with the same parameters must be equal")


def check_features(group: Group, g: Tensor, h: Tensor) -> None:
    """Within [-1, 1] for relative elements, and without a cut: elements that are near have features that are."""
    relative = group.compose(group.inverse(g), h)
    features = group.describe(relative)
    expect(features.shape == (len(g), group.features), f"features must have shape (count, {group.features})")
    expect(bool((features.abs() <= 1 + EXACT).all()), "features of relative elements must lie in [-1, 1]")
    steps = 1e-7 * torch.diag(torch.tensor(group.continuous, dtype=torch.float64))
    cuts = torch.pi * torch.diag(torch.tensor(group.continuous, dtype=torch.float64))
    for start in (relative[:, None], group.identity(), group.exp(cuts)[:, None]):
        apart = group.describe(group.compose(start, group.exp(steps))) - group.describe(
            group.compose(start, group.exp(-steps))
        )
        expect(bool((apart.abs() < 1e-5).all()), "features must be continuous")


def check_magnification(group: Group, g: Tensor) -> None:
    """An upper bound of what is sampled, and not a careless one."""
    lengthened = torch.linalg.matrix_norm(group.matrix(g), ord=2).max().item()
    expect(lengthened <= group.magnification * (1 + EXACT), "`magnification` must bound what is sampled")
    expect(group.magnification < 1.5 * lengthened, "`magnification` must be near what is sampled")


def check_shapes(group: Group, g: Tensor, h: Tensor, points: Tensor) -> None:
    """Broadcasting, dtypes, and names of what does not fit."""
    every = group.compose(g[:, None], h[None])
    expect(every.shape == (len(g), len(h), group.numbers), "batch axes of `compose` must broadcast")
    same(group, every[1, 2], group.compose(g[1], h[2]), "composition in a batch")
    expect(group.act(g[:, None], points[None]).shape == (len(g), len(points), group.dim), "`act` must broadcast")
    pairs = (
        (group.compose(g.float(), h.float()), group.compose(g, h)),
        (group.matrix(g.float()), group.matrix(g)),
        (group.exp(group.log(g).float()), g),
        (group.act(g.float(), points.float()), group.act(g, points)),
        (group.density(group.log(g).float()), group.density(group.log(g))),
        (group.describe(g.float()), group.describe(g)),
    )
    for single, double in pairs:
        expect(single.dtype == torch.float32, f"float32 elements must give float32; got {single.dtype}")
        expect(torch.allclose(single.double(), double, atol=1e-5, rtol=1e-5), "float32 must give what float64 gives")
    try:
        group.inverse(torch.zeros(3, group.numbers + 1))
    except ValueError as error:
        expect("`g`" in str(error), "an error must name the argument")
    else:
        raise AssertionError("elements of another size must be refused")
