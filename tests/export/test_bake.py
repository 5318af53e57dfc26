"""Networks as plain convolutions: the same function, and nothing but `torch.nn.ConvNd`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from omniconv.export import bake
from omniconv.export.bake import BakedConv
from omniconv.groups import SO2, SO3, Cyclic, Group, Scaling
from omniconv.kernels import Conditional
from omniconv.models import CCNN, GCNN, Hyena
from omniconv.nn import Conv, GroupConv, LiftingConv
from omniconv.nn._group_layer import GroupLayer
from omniconv.nn.lifting_conv import LIFTINGS
from omniconv.recurrence import stream
from omniconv.testing import assert_close
from tests.cases import FACTORIZATIONS

F64 = torch.float64


@pytest.mark.parametrize("boundary", ["zero", "circular"])
@pytest.mark.parametrize("factorization", FACTORIZATIONS)
@pytest.mark.parametrize(("group", "size"), [(SO2(), (8, 7)), (Scaling(1, high=4.0), (16,)), (SO3(), (5, 5, 5))])
def test_a_baked_layer_computes_the_same(
    group: Group, size: tuple[int, ...], factorization: str, boundary: str
) -> None:
    count = 12 if group.dim == 3 else 4
    layer = GroupConv(
        *(2, 3, size, group, count), reach=1, factorization=factorization, boundary=boundary, dtype=F64
    ).eval()
    nn.init.normal_(layer.get_parameter("bias"))
    plain = bake(layer)
    for longer in (0, 3):
        x = torch.randn(2, 2, count, *(n + longer for n in size), dtype=F64)
        assert_close(plain(x), layer(x), tolerance=1e-12)


@pytest.mark.parametrize("mixing", LIFTINGS)
def test_a_baked_lifting_computes_the_same(mixing: str) -> None:
    layer = LiftingConv(2, 3, (8, 7), SO2(), 5, reach=2, mixing=mixing, dtype=F64).eval()
    x = torch.randn(2, 2, 8, 7, dtype=F64)
    assert_close(bake(layer)(x), layer(x), tolerance=1e-12)


@pytest.mark.parametrize("options", [{}, {"partial": True}, {"attention": True}, {"body": "plain"}])
def test_a_baked_network_computes_the_same(options: dict[str, Any]) -> None:
    model = GCNN(1, 3, 9, group=SO2(), samples=4, widths=(3, 4), reach=2, dtype=F64, **options)
    x = torch.randn(4, 1, 9, 9, dtype=F64)
    model(x)
    for name, parameter in model.named_parameters():
        if name.endswith("partial.width"):
            nn.init.constant_(parameter, 0.4)
    model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = bake(model)
    assert_close(plain(x), model(x), tolerance=1e-12)
    assert not [module for module in plain.modules() if isinstance(module, GroupLayer)]
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_baked_network_is_exported_and_holds_no_kernel_network() -> None:
    model = GCNN(1, 3, 9, group=Cyclic(4), widths=(3,), reach=2).eval()
    plain, x = bake(model), torch.randn(1, 1, 9, 9)
    exported = torch.export.export(plain, (x,))
    torch.testing.assert_close(exported.module()(x), model(x))
    assert not [node for node in exported.graph.nodes if ".sin." in str(node.target)]


def test_any_model_is_baked_with_an_input() -> None:
    model = nn.Sequential(LiftingConv(1, 2, 9, Cyclic(4), reach=2), nn.ReLU(), GroupConv(2, 2, 9, Cyclic(4), reach=1))
    x = torch.randn(1, 1, 9, 9)
    plain = bake(model.eval(), x)
    assert isinstance(plain, nn.Sequential)
    torch.testing.assert_close(plain(x), model(x))
    assert isinstance(plain[0], BakedConv)
    with pytest.raises(ValueError, match="`x` must be given"):
        bake(model)


def test_relaxed_layers_stay_with_a_warning() -> None:
    model = GCNN(1, 3, 9, group=Cyclic(4), widths=(3,), reach=2, relaxed=2).eval()
    x = torch.randn(1, 1, 9, 9)
    with pytest.warns(UserWarning, match="is relaxed, no convolution"):
        plain = bake(model)
    torch.testing.assert_close(plain(x), model(x))


@pytest.mark.parametrize("size", [3, 2, 1, 11])
@pytest.mark.parametrize("factorization", ["none", "separable"])
def test_circular_signals_shorter_than_the_window_go_around(factorization: str, size: int) -> None:
    options: dict[str, Any] = {"reach": 3, "boundary": "circular", "dtype": F64}
    layer = GroupConv(2, 3, (9, 9), SO2(), 4, factorization=factorization, **options).eval()
    lifting = LiftingConv(2, 3, (9, 9), SO2(), 4, **options).eval()
    x = torch.randn(2, 2, 4, size, size + 1, dtype=F64)
    assert_close(bake(layer)(x), layer(x), tolerance=1e-12)
    assert_close(bake(lifting)(x[:, :, 0]), lifting(x[:, :, 0]), tolerance=1e-12)


def test_a_circular_layer_is_exported_for_any_size() -> None:
    layer = LiftingConv(1, 2, 9, Cyclic(4), reach=3, boundary="circular").eval()
    rows = torch.export.Dim("rows", min=2, max=64)
    exported = torch.export.export(bake(layer), (torch.randn(1, 1, 8, 8),), dynamic_shapes=({2: rows},))
    for n in (2, 20):
        x = torch.randn(1, 1, n, 8)
        torch.testing.assert_close(exported.module()(x), layer(x))


def test_other_elements_than_those_that_were_baked_are_refused() -> None:
    lift = LiftingConv(1, 2, 9, SO2(), 4, reach=2).eval()
    conv = GroupConv(2, 2, 9, SO2(), 4, reach=1).eval()
    moved = SO2().grid(4, offset=torch.tensor([0.5]))
    x = torch.randn(1, 1, 9, 9)
    lifted, plain = bake(lift), bake(conv)
    assert torch.equal(plain(lifted(x, SO2().grid(4)), SO2().grid(4), lift.draw()), plain(lifted(x)))
    for other in (moved, SO2().grid(8)):
        with pytest.raises(ValueError, match="`outputs` must be the elements for which this layer was baked, 4 of"):
            lifted(x, other)
        with pytest.raises(ValueError, match="`outputs` must be the elements"):
            plain(lift(x), None, other)
        with pytest.raises(ValueError, match="`inputs` must be the elements"):
            plain(lift(x), other)


def test_a_baked_network_is_not_saved_as_one(tmp_path: Path) -> None:
    model = GCNN(1, 2, 9, group=Cyclic(4), widths=(3,), reach=2).eval()
    whole = nn.Sequential(model).eval()
    for plain in (bake(model), bake(whole, torch.zeros(1, 1, 9, 9))[0]):  # type: ignore[index]
        with pytest.raises(ValueError, match="this GCNN cannot be saved as a network: its convolutions are baked"):
            plain.save_pretrained(tmp_path / "baked")  # type: ignore[operator]
    assert not (tmp_path / "baked").exists()
    model.save_pretrained(tmp_path / "model")
    assert_close(bake(GCNN.from_pretrained(tmp_path / "model"))(torch.ones(1, 1, 9, 9)), model(torch.ones(1, 1, 9, 9)))


def test_a_layer_that_is_used_twice_is_baked_at_both_places() -> None:
    conv, x = GroupConv(2, 2, 9, Cyclic(4), reach=1, dtype=F64), torch.randn(1, 1, 9, 9, dtype=F64)
    model = nn.Sequential(LiftingConv(1, 2, 9, Cyclic(4), reach=2, dtype=F64), conv, nn.ReLU(), nn.Sequential(conv))
    plain = bake(model.eval(), x)
    assert not [module for module in plain.modules() if isinstance(module, GroupLayer)]
    assert plain[1] is plain[3][0]  # type: ignore[index]
    assert_close(plain(x), model(x), tolerance=1e-12)


def test_a_layer_that_is_used_at_two_elements_is_named() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift, self.conv = LiftingConv(1, 2, 9, SO2(), 4, reach=2), GroupConv(2, 2, 9, SO2(), 4, reach=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            moved = SO2().grid(4, offset=torch.tensor([0.5]))
            return self.conv(self.conv(self.lift(x), outputs=moved), moved)

    with pytest.raises(ValueError, match="calls conv at others the second time"):
        bake(Twice().eval(), torch.zeros(1, 1, 9, 9))


def test_what_cannot_be_baked_is_named() -> None:
    with pytest.raises(TypeError, match="`model` must be"):
        bake("model")  # type: ignore[arg-type]
    layer = LiftingConv(1, 2, 9, Cyclic(4), reach=2)
    with pytest.raises(ValueError, match="evaluation mode"):
        bake(layer)
    with pytest.raises(ValueError, match="same boundary"):
        bake(LiftingConv(1, 2, 9, Scaling(2), 2, reach=2, boundary=("zero", "circular")).eval())
    with pytest.raises(ValueError, match="`spacing`"):
        bake(layer.eval())(torch.zeros(1, 1, 9, 9), spacing=0.5)


@pytest.mark.parametrize("boundary", ["zero", "circular"])
@pytest.mark.parametrize("mixing", ["depthwise", "separable", "dense"])
@pytest.mark.parametrize("size", [(9,), (6, 7), (4, 5, 3)])
def test_a_baked_convolution_computes_the_same(size: tuple[int, ...], mixing: str, boundary: str) -> None:
    """At its own spacing, for signals of any size; the axes differ in direction and boundary where they may."""
    causal = (boundary == "zero", *[False] * (len(size) - 1))
    edges = (boundary, *["zero"] * (len(size) - 1))
    layer = Conv(3, 3, size, mixing=mixing, causal=causal, boundary=edges, dtype=F64).eval()
    nn.init.normal_(layer.get_parameter("bias"))
    plain = bake(layer)
    assert not [module for module in plain.modules() if isinstance(module, Conv)]
    for longer in (0, 3, -2):
        x = torch.randn(2, 3, *(n + longer for n in size), dtype=F64)
        assert_close(plain(x), layer(x), tolerance=1e-12)


@pytest.mark.parametrize(("spacing", "lowpass"), [(0.5, False), (2.0, True)])
def test_a_view_is_baked_at_its_resolution(spacing: float, lowpass: bool) -> None:
    model = CCNN(2, 3, 16, blocks=2, width=4, dtype=F64).eval().at_resolution(spacing, lowpass=lowpass)
    plain, x = bake(model), torch.randn(2, 2, 21, dtype=F64)
    assert_close(plain(x), model(x), tolerance=1e-12)
    assert not [module for module in plain.modules() if isinstance(module, Conv)]
    with pytest.raises(ValueError, match="`spacing` must be that for which this layer was baked"):
        plain(x, spacing=1.0)


def test_networks_of_tokens_are_baked() -> None:
    model = Hyena(4, 7, 12, blocks=1, width=4, tokens=7, tied=True, head="dense", dtype=F64).eval()
    ids = torch.randint(7, (2, 20))
    assert_close(bake(model)(ids), model(ids), tolerance=1e-12)


def test_what_baked_convolutions_cannot_do_is_said() -> None:
    model = CCNN(1, 2, 8, blocks=1, width=4, causal=True).eval()
    plain, x = bake(model), torch.randn(1, 1, 8)
    with pytest.raises(ValueError, match="`times` is not for baked layers"):
        plain(x, times=torch.arange(8.0)[None])
    with pytest.raises(ValueError, match="stem is baked, and has no kernel to stream"):
        stream(plain)  # type: ignore[arg-type]
    conditional = Conv(1, 1, 8, kernel=partial(Conditional, conditions=2)).eval()

    class Conditioned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conditional

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.conv(x, condition=torch.ones(1, 2))
            return y

    with pytest.raises(ValueError, match="it gives conv `condition`"):
        bake(Conditioned().eval(), x)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Conv(1, 1, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.conv(self.conv(x), 0.5)
            return y

    with pytest.raises(ValueError, match="at one spacing"):
        bake(Twice().eval(), x)
