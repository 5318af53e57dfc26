"""An autoencoder with an invariant code and a pose."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import omniconv as oc
from omniconv.models import PoseAutoencoder
from omniconv.testing import assert_close

F64 = torch.float64


def made(**options: Any) -> PoseAutoencoder:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"samples": 8, "width": 6, "code": 4, "hidden": 12, "dtype": F64}
    return PoseAutoencoder(2, 9, **(sizes | options))


def turn_between(first: Tensor, second: Tensor) -> Tensor:
    """The angle from the first poses to the second, in quarter turns, in [0, 4)."""
    return torch.remainder((second - first) * 2 / torch.pi, 4)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_code_stays_and_the_pose_turns_with_the_image(size: int, turns: int) -> None:
    torch.manual_seed(1)
    model = PoseAutoencoder(2, size, samples=8, width=6, code=4, hidden=12, dtype=F64).eval()
    x = torch.randn(5, 2, size, size, dtype=F64)
    posed, turned = model(x), model(torch.rot90(x, turns, (-2, -1)))
    assert_close(turned.code, posed.code)
    assert_close(turned.canonical, posed.canonical)
    apart = torch.remainder(turn_between(posed.pose, turned.pose) - turns + 2, 4) - 2
    assert apart.abs().max() < 1e-9
    assert_close(turned.reconstruction, torch.rot90(posed.reconstruction, turns, (-2, -1)))


def test_the_same_with_reflections_would_be_another_group() -> None:
    """A mirrored image is another one: its code differs."""
    model = made().eval()
    x = torch.randn(3, 2, 9, 9, dtype=F64)
    assert (model(x.flip(-1)).code - model(x).code).abs().max() > 1e-3


def test_any_angle_is_nearly_exact_with_many_samples() -> None:
    torch.manual_seed(0)
    model = PoseAutoencoder(1, 33, samples=32, width=8, code=4, hidden=12).eval()
    axis = torch.linspace(-1, 1, 33)
    row, column = axis[:, None], axis
    x = (torch.exp(-20 * ((row - 0.3) ** 2 + column**2)) + torch.exp(-30 * (row**2 + (column + 0.4) ** 2)))[None, None]
    angle = torch.tensor([[0.3]])
    posed, turned = model(x), model(oc.groups.transform(x, oc.groups.SO2(), angle))
    assert (turned.pose - posed.pose - 0.3).abs().item() < 0.1
    assert (turned.code - posed.code).norm() < 0.03 * posed.code.norm()


def test_the_canonical_image_is_in_the_unit_of_the_signals() -> None:
    model = made().eval()
    x = torch.randn(3, 2, 9, 9, dtype=F64)
    before = model(x)
    model.standardize.set([5.0, -3.0], [2.0, 4.0])
    scale, shift = torch.tensor([2.0, 4.0], dtype=F64), torch.tensor([5.0, -3.0], dtype=F64)
    after = model(x * scale[:, None, None] + shift[:, None, None])
    assert_close(after.code, before.code)
    for name in ("canonical", "reconstruction"):  # what enters where an image is turned is the mean, not 0
        assert_close(getattr(after, name), getattr(before, name) * scale[:, None, None] + shift[:, None, None])


def test_no_direction_is_no_turn_and_has_slopes() -> None:
    model = made().eval()
    flat = torch.zeros(2, 2, 9, 9, dtype=F64, requires_grad=True)
    posed = model(flat)
    assert torch.equal(posed.pose, torch.zeros(2, 1, dtype=F64))
    posed.reconstruction.square().sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_derivatives_are_right() -> None:
    model = made().eval()
    x = torch.randn(2, 2, 9, 9, dtype=F64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: model(x).code, (x,), fast_mode=True)
    torch.autograd.gradcheck(lambda x: model(x).pose, (x,), fast_mode=True)
    torch.autograd.gradcheck(lambda x: model(x).reconstruction, (x,), fast_mode=True)
    model(x).reconstruction.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_copies_and_files_compute_the_same(tmp_path: Path) -> None:
    model, x = made().eval(), torch.randn(2, 2, 9, 9, dtype=F64)
    model.standardize.set([1.0, 2.0], [3.0, 4.0])
    model.save_pretrained(tmp_path)
    for other in (copy.deepcopy(model), PoseAutoencoder.from_pretrained(tmp_path)):
        for ours, theirs in zip(model(x), other(x), strict=True):
            assert torch.equal(ours, theirs)


def test_reset_draws_everything_anew() -> None:
    """Whatever was there before."""
    model = made()
    model.standardize.set([1.0, 2.0], [3.0, 4.0])
    model(torch.randn(4, 2, 9, 9, dtype=F64))  # running statistics
    states = []
    for value in (7.0, -3.0):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        torch.manual_seed(0)
        model.reset_parameters()
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    fresh = made().state_dict()
    assert torch.equal(states[0]["standardize.std"], fresh["standardize.std"])
    assert states[0]["encoder.0.weight"].std() == pytest.approx(fresh["encoder.0.weight"].std().item(), rel=0.3)


def test_the_code_is_of_the_mean_and_the_maximum_over_the_group() -> None:
    model, seen = made().eval(), list[Tensor]()
    model.encoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.norms[-1].register_forward_hook(lambda *_: seen.append(_[2].relu()))
    model(torch.randn(3, 2, 9, 9, dtype=F64))
    features, invariant = seen
    assert_close(invariant, torch.cat([features.mean(2), features.amax(2)], 1))


def test_what_cannot_turn_with_the_image_is_not_seen() -> None:
    torch.manual_seed(0)
    model = PoseAutoencoder(1, (8, 16), samples=8, width=6, code=4, hidden=12, dtype=F64).eval()
    x = torch.randn(2, 1, 8, 16, dtype=F64)
    other = x.clone()
    other[..., :4] = other[..., 12:] = 0.0
    assert_close(model(other).code, model(x).code)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_signals_in_half_precision_are_taken(dtype: torch.dtype) -> None:
    model = made(dtype=torch.float32).eval()
    x = torch.randn(2, 2, 9, 9)
    posed, exact = model(x.to(dtype)), model(x)
    assert (posed.code - exact.code).norm() < 0.05 * exact.code.norm()


def test_it_says_where_it_is_from() -> None:
    assert "Urbano" in oc.cite(made())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"samples": 2}, ValueError, "`samples` must be at least 3"),
        ({"width": 0}, ValueError, "`out_channels` must be at least 1"),
        ({"depth": -1}, ValueError, "`depth` must be at least 0"),
        ({"code": 0}, ValueError, "`code` must be at least 1"),
        ({"hidden": 1.5}, TypeError, "`hidden` must be an integer"),
        ({"dtype": torch.int64}, TypeError, "`dtype` must be"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made(**options)


def test_signals_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have 2 channels|must be \(batch, 2"):
        made().eval()(torch.zeros(1, 3, 9, 9, dtype=F64))
    with pytest.raises(ValueError, match=r"`x` must be \(batch, 2, \*\(9, 9\)\)"):
        made().eval()(torch.zeros(1, 2, 10, 9, dtype=F64))
