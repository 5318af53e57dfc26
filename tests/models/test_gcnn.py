"""Networks on groups: exact symmetries, the dial, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from omniconv.groups import GL2, O2, SO2, SO3, Count, Cyclic, Dihedral, Group, Product, Scaling
from omniconv.models import GCNN
from omniconv.testing import assert_close, assert_equivariant
from tests.cases import FACTORIZATIONS

F64 = torch.float64


def gcnn(group: Group, samples: Count, size: Any = (9, 8), **options: Any) -> GCNN:
    """A small network in evaluation mode, with statistics of its own."""
    arguments = {"widths": (3, 4), "reach": 2 if group.dim == 2 else 1, "dtype": F64, **options}
    model = GCNN(2, 5, size, group=group, samples=samples, **arguments)
    model(torch.randn(4, 2, *size, dtype=arguments["dtype"]))
    return model.eval()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("body", ["residual", "plain"])
@pytest.mark.parametrize("factorization", FACTORIZATIONS)
def test_a_network_is_invariant(factorization: str, body: str, dtype: torch.dtype) -> None:
    model = gcnn(SO2(), 8, factorization=factorization, body=body, dtype=dtype)
    assert_equivariant(model, torch.randn(2, 2, 9, 8, dtype=dtype), SO2(), SO2().grid(8))


@pytest.mark.parametrize(
    ("group", "samples"),
    [
        (O2(), 8),
        (Cyclic(4), None),
        (Dihedral(4), None),
        (Product((SO2(), Scaling(2, high=2.0))), (4, 2)),
        (GL2(), (4, 1, 2)),
    ],
)
@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_networks_on_other_groups_are_invariant(group: Group, samples: Count, reduce: str) -> None:
    model = gcnn(group, samples, reduce=reduce, attention=True)
    assert_equivariant(model, torch.randn(2, 2, 9, 8, dtype=F64), group, group.grid(samples))


def test_networks_on_volumes_are_invariant() -> None:
    model = gcnn(SO3(), 12, (5, 6, 4), widths=(2,))
    assert_equivariant(model, torch.randn(1, 2, 5, 6, 4, dtype=F64), SO3(), SO3().grid(12))


def test_a_partial_network_is_no_longer_invariant() -> None:
    model = gcnn(SO2(), 8, partial=True)
    x = torch.randn(1, 2, 9, 9, dtype=F64)
    with torch.no_grad():
        assert_close(model(x.rot90(1, (2, 3))), model(x), tolerance=1e-12)
        for block in model.blocks:
            block.get_parameter("conv_2.partial.width").fill_(0.3)
        change = (model(x.rot90(1, (2, 3))) - model(x)).norm() / model(x).norm()
    assert change > 1e-3


@pytest.mark.parametrize("options", [{}, {"partial": True}, {"relaxed": 2}, {"attention": True}, {"body": "plain"}])
def test_every_parameter_learns(options: dict[str, Any]) -> None:
    model = GCNN(1, 3, 9, group=O2(), samples=8, widths=(8, 8), reach=2, **options)
    model(torch.randn(4, 1, 9, 9)).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A convolution's bias is taken away by the norm behind it, up to rounding, and scaling hides from it as well.
    assert not [name for name in still if not name.endswith("bias")], still


def test_a_saved_network_is_the_same(tmp_path: Path) -> None:
    model = gcnn(Product((SO2(), Scaling(2, high=3.0))), (4, 2), partial=True, relaxed=1)
    model.save_pretrained(tmp_path)
    again = GCNN.from_pretrained(tmp_path)
    x = torch.randn(1, 2, 9, 8, dtype=F64)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert again.lift.group == model.lift.group


def test_training_draws_and_evaluation_does_not() -> None:
    model = GCNN(1, 3, 9, group=SO2(), samples=4, widths=(3,), reach=2)
    x = torch.randn(4, 1, 9, 9)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    assert list(model.state_dict()) == list(model.train().state_dict())


def test_compiled_and_exported_networks_compute_the_same() -> None:
    torch._dynamo.reset()
    model = gcnn(SO2(), 4, partial=True, attention=True, dtype=torch.float32, widths=(3,))
    x = torch.randn(1, 2, 9, 8)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), model(x))
        exported = torch.export.export(model, (x,))
        torch.testing.assert_close(exported.module()(x), model(x))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mask": torch.ones(1, 9, 9, dtype=torch.bool)}, "`mask` is not for GCNN"),
        ({"spacing": 0.5}, "`spacing` is not for GCNN"),
        ({"times": torch.zeros(1, 9)}, "`times` is not for GCNN"),
    ],
)
def test_what_it_cannot_take_is_named(options: dict[str, Any], named: str) -> None:
    model = GCNN(1, 3, 9, group=SO2(), samples=4, widths=(3,), reach=2)
    with pytest.raises(ValueError, match=named):
        model(torch.zeros(1, 1, 9, 9), **options)
    with pytest.raises(ValueError, match="one resolution"):
        model.at_resolution(2.0)(torch.zeros(1, 1, 18, 18))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"group": "SO2"}, "`group`"),
        ({"group": SO2()}, "`samples`"),
        ({"group": Cyclic(4), "body": "deep"}, "`body`"),
        ({"group": Cyclic(4), "widths": (4, 8), "blocks": (1,)}, "`blocks` and `widths`"),
        ({"group": Cyclic(4), "factorization": "all"}, "`factorization`"),
        ({"group": Cyclic(4), "attention": 1}, "`attention`"),
        ({"group": SO3(), "samples": 12}, "`group` must act on the 2 axes"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=named):
        GCNN(1, 3, (9, 9), **options)
