"""CCNN with a group in place of translations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import omniconv as oc
from omniconv.groups import O2, SO2, SO3, Cyclic, Dihedral, Scaling, transform
from omniconv.testing import assert_close, assert_equivariant

F64 = torch.float64


def ccnn(**options: Any) -> oc.CCNN:
    """A small network in evaluation mode, with statistics of its own."""
    arguments = {"blocks": 1, "width": 4, "group": SO2(), "samples": 8, "dtype": F64, **options}
    model = oc.CCNN(1, 3, arguments.pop("size", (8, 7)), **arguments)
    model(torch.randn(4, 1, *model.grid.size, dtype=arguments["dtype"]))
    return model.eval()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("mixing", ["separable", "dense"])
def test_outputs_do_not_change_when_images_turn(mixing: str, dtype: torch.dtype) -> None:
    for group in (SO2(), O2()):
        model = ccnn(mixing=mixing, group=group, dtype=dtype)
        assert_equivariant(model, torch.randn(2, 1, 8, 7, dtype=dtype), group, group.grid(8))


def test_dense_outputs_turn_with_the_image() -> None:
    model, x = ccnn(head="dense"), torch.randn(2, 1, 8, 7, dtype=F64)
    turn = torch.tensor([torch.pi / 2], dtype=F64)
    assert_close(model(transform(x, SO2(), turn)), transform(model(x), SO2(), turn), tolerance=1e-12)


def test_groups_that_leave_the_axes_alone_take_a_boundary_for_each() -> None:
    edges = {"boundary": ("zero", "circular"), "reach": 1}
    assert ccnn(group=Scaling(2), samples=2, **edges)(torch.randn(1, 1, 8, 7, dtype=F64)).shape == (1, 3)
    model = ccnn(group=Cyclic(2), samples=2, **edges)  # half turns
    assert_equivariant(model, torch.randn(2, 1, 8, 7, dtype=F64), Cyclic(2), Cyclic(2).grid())


def test_volumes_and_series() -> None:
    assert ccnn(size=(5, 5, 5), group=SO3(), samples=12, reach=1)(torch.randn(1, 1, 5, 5, 5, dtype=F64)).shape == (1, 3)
    assert ccnn(size=(16,), group=Scaling(1, high=4.0), samples=3)(torch.randn(1, 1, 16, dtype=F64)).shape == (1, 3)


def test_it_keeps_its_function_at_a_finer_resolution() -> None:
    model = ccnn(size=(33, 33), samples=4, reach=6)

    def bump(n: int) -> torch.Tensor:
        t = torch.linspace(-1, 1, n, dtype=F64)
        return torch.exp(-4 * ((t[:, None] - 0.1) ** 2 + 2 * (t[None] + 0.2) ** 2))[None, None]

    coarse, fine = model(bump(33)), model.at_resolution(2.0)(bump(65))
    assert ((fine - coarse).norm() / coarse.norm()).item() < 0.05


def test_a_saved_network_is_the_same(tmp_path: Path) -> None:
    model, x = ccnn(), torch.randn(1, 1, 8, 7, dtype=F64)
    model.save_pretrained(tmp_path)
    assert torch.equal(oc.CCNN.from_pretrained(tmp_path)(x), model(x))


def test_compiled_and_exported() -> None:
    torch._dynamo.reset()
    model, x = ccnn(dtype=torch.float32), torch.randn(1, 1, 8, 7)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x))
        torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"causal": True}, "`causal`"),
        ({"head": "last"}, "`head`"),
        ({"samples": None}, "`samples`"),
        ({"group": None}, "`samples` are those of a `group`, and there is none; got 8"),
        (
            {"boundary": ("zero", "circular")},
            "`boundary` must be the same on axes that the group turns into one another",
        ),
        ({"boundary": ("zero", "circular"), "group": Dihedral(4), "samples": None}, "`boundary` must be the same on"),
        (
            {"boundary": ("zero", "zero", "circular"), "group": SO3(), "samples": 12, "size": (5, 5, 5)},
            r"does so with axes 0 and 2; got \('zero', 'zero', 'circular'\)",
        ),
        ({"group": SO3(), "samples": 12}, "`group` must act on"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ccnn(**options)
    with pytest.raises(ValueError, match="`mask` is not for networks on a group"):
        ccnn()(torch.zeros(1, 1, 8, 7, dtype=F64), mask=torch.ones(1, 8, 7, dtype=torch.bool))
