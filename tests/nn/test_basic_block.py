"""The block of two convolutions: its formula, its masks, what it refuses."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv import SIREN, Conv
from omniconv.nn import BasicBlock, BatchNorm, LayerNorm, Pointwise

F64 = torch.float64
small = partial(SIREN, hidden=4)


def block(channels: int, width: int, *, rectify: bool = False, layer: bool = False, dropout: float = 0.0) -> BasicBlock:
    norm = LayerNorm if layer else BatchNorm
    made = BasicBlock(
        Conv(channels, width, 7, kernel=small, dtype=F64),
        norm(width, dtype=F64),
        Conv(width, width, 7, kernel=small, dtype=F64),
        norm(width, dtype=F64),
        Pointwise(channels, width, dtype=F64) if channels != width else None,
        dropout=dropout,
        rectify=rectify,
    )
    with torch.no_grad():
        for name, value in made.state_dict().items():
            if "norm" in name and value.is_floating_point():
                value.uniform_(0.5, 1.5)
    return made.eval()


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_the_formula(channels: int, rectify: bool) -> None:
    """The norms and the convolutions have tests of their own; here it is their order."""
    part, x = block(channels, 4, rectify=rectify, dropout=0.5), torch.randn(2, channels, 7, dtype=F64)
    branch = part.norm_2(part.conv_2(F.relu(part.norm_1(part.conv_1(x)))))
    skip = x
    if part.shortcut is not None and part.shortcut.bias is not None:
        skip = torch.einsum("oc,bcn->bon", part.shortcut.weight, x) + part.shortcut.bias[:, None]
    torch.testing.assert_close(part(x), F.relu(skip + (F.relu(branch) if rectify else branch)))


def test_both_convolutions_are_told_the_spacing() -> None:
    part, x = block(4, 4), torch.randn(2, 4, 13, dtype=F64)
    branch = part.norm_2(part.conv_2(F.relu(part.norm_1(part.conv_1(x, 0.5))), 0.5))
    torch.testing.assert_close(part(x, 0.5), F.relu(x + branch))


@pytest.mark.parametrize("rectify", [False, True])
def test_dropout_follows_the_rectified_values(rectify: bool) -> None:
    part = block(4, 4, rectify=rectify, dropout=0.25)
    part.dropout.train()
    seen: list[Tensor] = []
    part.dropout.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    part(torch.randn(2, 4, 7, dtype=F64))
    assert len(seen) == (2 if rectify else 1)
    assert all(values.min().item() == 0.0 for values in seen)


@pytest.mark.parametrize("spacing", [None, 0.5])
@pytest.mark.parametrize("layer", [False, True])
@pytest.mark.parametrize("garbage", [1e3, math.nan, math.inf])
def test_a_padded_signal_has_the_outputs_it_has_alone(garbage: float, layer: bool, spacing: float | None) -> None:
    for rectify, channels in ((False, 3), (True, 4)):
        part = block(channels, 4, rectify=rectify, layer=layer)
        x = torch.full((2, channels, 7), garbage, dtype=F64, requires_grad=False)
        x[0], x[1, :, :4] = torch.randn(channels, 7), torch.randn(channels, 4)
        mask = torch.arange(7) < torch.tensor([[7], [4]])
        x.requires_grad_()
        y = part(x, spacing, mask)
        for row, n in enumerate((7, 4)):
            alone = part(x[row : row + 1, :, :n], spacing)
            torch.testing.assert_close(y[row : row + 1, :, :n], alone, rtol=1e-10, atol=1e-10)
        (gradient,) = torch.autograd.grad(y[mask[:, None].expand_as(y)].sum(), x)
        assert torch.equal(gradient[1, :, 4:], torch.zeros(channels, 3, dtype=F64))


def test_new_parameters_are_drawn_in_every_part() -> None:
    part = block(3, 4)
    before = {name: value.clone() for name, value in part.state_dict().items()}
    part.reset_parameters()
    drawn = [name for name, value in part.state_dict().items() if not torch.equal(value, before[name])]
    for name in ("conv_1.kernel", "conv_2.kernel", "norm_1.weight", "norm_2.running_mean", "shortcut.weight"):
        assert any(key.startswith(name) for key in drawn), name


def test_what_does_not_fit_is_named() -> None:
    convs, norm = [Conv(a, 4, 7, kernel=small) for a in (3, 4)], BatchNorm(4)
    with pytest.raises(
        ValueError, match=r"the channels of `conv_2`, 4; it leads to 3\. Give shortcut=Pointwise\(3, 4\)"
    ):
        BasicBlock(convs[0], norm, convs[1], norm)
    with pytest.raises(ValueError, match="it leads to 5"):
        BasicBlock(convs[0], norm, convs[1], norm, Pointwise(3, 5))
    with pytest.raises(TypeError, match="`rectify` must be True or False; got int 1"):
        BasicBlock(convs[1], norm, convs[1], norm, rectify=1)  # type: ignore[arg-type]
