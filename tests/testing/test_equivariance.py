"""`assert_equivariant` accepts what keeps a symmetry, and refuses what breaks it in one place."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv.groups import SO2, Cyclic, Dihedral, Group, Scaling, Trivial
from omniconv.nn import Conv2d, GroupConv, GroupProject, LiftingConv
from omniconv.testing import EQUIVARIANCE, assert_equivariant

F64 = torch.float64
P4, P4M = Cyclic(4), Dihedral(4)


def image(group: Group | None = None) -> Tensor:
    """An image with two channels, on the group if there is one."""
    axes = () if group is None else (len(group.grid()),)
    return torch.randn(2, 2, *axes, 4, 6, dtype=F64)


def turned(weight: Tensor) -> Tensor:
    """The mean of a filter in four poses."""
    return torch.stack([torch.rot90(weight, turns, (-2, -1)) for turns in range(4)]).mean(0)


CHIRAL = turned(torch.randn(2, 2, 5, 5, dtype=F64, generator=torch.Generator().manual_seed(0)))
"""Filters that quarter turns leave as they are, and mirrors do not."""
MIRRORED = (CHIRAL + CHIRAL.flip(-1)) / 2


def filtered(weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: F.conv2d(x, weight, padding=2)


def lifted(x: Tensor) -> Tensor:
    """By hand, the same filter in four poses."""
    weight = torch.linspace(-1, 1, 100, dtype=x.dtype).reshape(2, 2, 5, 5).sin()
    return torch.stack([F.conv2d(x, torch.rot90(weight, t, (-2, -1)), padding=2) for t in range(4)], 2)


RIGHT: dict[str, tuple[Callable[[Tensor], Tensor], Group, Tensor]] = {
    "relu": (torch.relu, P4M, image()),
    "relu-on-the-group": (torch.relu, P4M, image(P4M)),
    "filter": (filtered(MIRRORED), P4M, image()),
    "chiral-filter": (filtered(CHIRAL), P4, image()),
    "lifting": (lifted, P4, image()),
    "projection": (GroupProject(), P4M, image(P4M)),
    "features": (lambda x: x.square().mean((-2, -1)), P4M, image()),
    "features-of-the-group": (lambda x: x.square().mean((-3, -2, -1)), P4, image(P4)),
    "shift-by-channel": (lambda x: x.roll(1, 1), P4M, image(P4M)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_keeps_the_symmetry_passes(name: str) -> None:
    layer, group, x = RIGHT[name]
    assert_equivariant(layer, x, group, group.grid())


def times_ramp(x: Tensor) -> Tensor:
    return x * torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)


def biased(x: Tensor) -> Tensor:
    """A value that depends on the element of the group."""
    return x + torch.arange(x.shape[2], dtype=x.dtype).reshape(-1, 1, 1)


def slightly_wrong(x: Tensor) -> Tensor:
    """Right but for one sample by a billionth."""
    y = x.clone()
    y[..., 0, 0] *= 1 + 1e-9
    return y


WRONG: dict[str, tuple[Callable[[Tensor], Tensor], Group, Tensor]] = {
    "ramp": (times_ramp, P4, image()),
    "ramp-on-the-group": (times_ramp, P4, image(P4)),
    "shift": (lambda x: x.roll(1, -1), P4, image()),
    "mirror": (lambda x: x.flip(-1), P4, image()),
    "filter": (filtered(torch.randn(2, 2, 5, 5, dtype=F64)), P4, image()),
    "chiral-filter": (filtered(CHIRAL), P4M, image()),
    "even-filter": (lambda x: F.conv2d(F.pad(x, (0, 1, 0, 1)), turned(torch.ones(2, 2, 2, 2).double())), P4, image()),
    "poses-the-other-way": (lambda x: lifted(x)[:, :, [0, 3, 2, 1]], P4, image()),
    "two-poses-exchanged": (lambda x: lifted(x)[:, :, [1, 0, 2, 3]], P4, image()),
    "filters-not-turned": (lambda x: filtered(CHIRAL)(x)[:, :, None] * biased(lifted(x)), P4, image()),
    "group-axis-reversed": (lambda x: x.flip(2), P4, image(P4)),
    "group-axis-weighed": (biased, P4, image(P4)),
    "one-pose": (lambda x: x[:, :, 0], P4, image(P4)),
    "axes-of-the-group-alone": (lambda x: x[:, :, :1].expand_as(x), P4, image(P4)),
    "features": (lambda x: times_ramp(x).mean((-2, -1)), P4, image()),
    "features-of-one-pose": (lambda x: x[:, :, 0].square().mean((-2, -1)), P4, image(P4)),
    "not-a-number": (lambda x: x / 0 * 0, P4, image()),
    "by-a-billionth": (slightly_wrong, P4, image()),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_breaks_the_symmetry_fails(name: str) -> None:
    layer, group, x = WRONG[name]
    with pytest.raises(AssertionError, match=r"moved by \[\[.*\]\]: relative error (\d\.\de[-+]\d\d|nan) above 1e-12"):
        assert_equivariant(layer, x, group, group.grid())


def test_the_message_names_the_first_element_that_fails() -> None:
    """A filter that quarter turns leave as it is fails where mirrors begin."""
    with pytest.raises(AssertionError, match=re.escape("moved by [[1.0, 0.0], [0.0, -1.0]]: relative error")):
        assert_equivariant(filtered(CHIRAL), image(), P4M, P4M.grid())
    half_turn = (CHIRAL + torch.ones(5, 1, dtype=F64)).clone()  # looks the same upside down
    with pytest.raises(AssertionError, match=r"moved by \[\[-?0\.0, -1\.0\], \[1\.0, -?0\.0\]\]: relative error"):
        assert_equivariant(filtered(half_turn * torch.tensor([1.0, 2, 3, 2, 1]).double()), image(), P4, P4.grid())


def test_a_size_that_does_not_turn_with_the_signal_fails() -> None:
    with pytest.raises(AssertionError, match=r"the output of moved signals has shape \(2, 2, 6, 3\)"):
        assert_equivariant(lambda x: x[..., :-1], image(), P4, P4.grid())


def test_groups_without_symmetries_of_the_grid_are_refused() -> None:
    for group, count in ((Scaling(2), 3), (Trivial(2), 1), (SO2(), 1)):
        with pytest.raises(AssertionError, match=r"no sample of .* but the identity maps the grid to itself"):
            assert_equivariant(torch.relu, image(), group, group.grid(count))


def test_only_samples_that_map_the_grid_to_itself_are_asked_for() -> None:
    """A filter with four poses: an eighth of a turn is none of its symmetries."""
    assert_equivariant(filtered(CHIRAL), image(), SO2(), SO2().grid(8))


@pytest.mark.parametrize("dtype", EQUIVARIANCE)
def test_the_line_is_drawn_at_the_tolerance(dtype: torch.dtype) -> None:
    limit = EQUIVARIANCE[dtype]
    x = torch.ones(1, 1, 4, 4, dtype=dtype)

    def off_by(error: float) -> Callable[[Tensor], Tensor]:
        """Of 16 ones the first is more: a turn moves it, and the difference is sqrt(2) of it over 4."""
        more = torch.zeros(4, 4, dtype=dtype)
        more[0, 0] = error * 4 / 2**0.5
        return lambda x: x + more

    assert_equivariant(off_by(0.5 * limit), x, P4, P4.grid())
    with pytest.raises(AssertionError, match=f"above {limit:.0e}"):
        assert_equivariant(off_by(2 * limit), x, P4, P4.grid())
    assert_equivariant(off_by(2 * limit), x, P4, P4.grid(), tolerance=3 * limit)
    with pytest.raises(AssertionError, match=r"relative error 2\.0e-03 above 1e-03"):
        assert_equivariant(off_by(2e-3), x, P4, P4.grid(), tolerance=1e-3)


def test_layers_and_chains() -> None:
    lifting = LiftingConv(2, 3, (4, 6), SO2(), 8, reach=2, dtype=F64)
    conv = GroupConv(3, 2, (4, 6), SO2(), 8, reach=2, dtype=F64)
    chain = nn.Sequential(lifting, nn.ReLU(), conv, GroupProject())
    assert_equivariant(chain, image(), SO2(), lifting.samples)
    with pytest.raises(AssertionError, match="relative error"):
        assert_equivariant(nn.Sequential(lifting, Wrong(), conv, GroupProject()), image(), SO2(), lifting.samples)
    with pytest.raises(AssertionError, match="relative error"):
        assert_equivariant(Conv2d(2, 2, (4, 6), dtype=F64), image(), SO2(), lifting.samples)


class Wrong(nn.Module):
    """Two elements of the group exchanged."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, [1, 0, *range(2, x.shape[2])]]


def test_outputs_may_be_other_elements() -> None:
    layer = GroupConv(2, 2, (4, 6), SO2(), 4, reach=2, dtype=F64)
    outputs = SO2().grid(8)
    x = torch.randn(1, 2, 4, 4, 6, dtype=F64)
    assert_equivariant(lambda x: layer(x, outputs=outputs), x, SO2(), layer.samples, outputs=outputs)
    halves = SO2().grid(4, offset=torch.tensor([0.5], dtype=F64))
    assert_equivariant(lambda x: layer(x, outputs=halves), x, SO2(), layer.samples, outputs=halves)
    with pytest.raises(AssertionError, match="relative error"):
        assert_equivariant(
            lambda x: layer(x, outputs=outputs)[:, :, [1, 0, *range(2, 8)]], x, SO2(), layer.samples, outputs=outputs
        )


def test_a_dtype_without_a_tolerance_is_named() -> None:
    x = image().half()
    with pytest.raises(ValueError, match=r"`tolerance` must be given for torch\.float16; it is known for float64 and"):
        assert_equivariant(torch.relu, x, P4, P4.grid())
    assert_equivariant(torch.relu, x, P4, P4.grid(), tolerance=1e-3)
    with pytest.raises(TypeError, match="`x` must hold floating-point numbers"):
        assert_equivariant(torch.relu, x.long(), P4, P4.grid())
