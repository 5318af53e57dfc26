"""FlexNet: the published numbers of parameters, the published formula, the papers."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import omniconv as oc
from omniconv import SIREN, FlexNet, Gaussian
from omniconv.nn import BatchNorm

F64 = torch.float64
PUBLISHED = [(3, (1, 1, 1), 24, 277_090), (5, (1, 2, 2), 22, 454_046), (7, (2, 3, 2), 24, 671_650)]


def convolution(channels: int, width: int) -> int:
    """A kernel network of 32 units on two axes, a mean and a width per axis, bias, batch norm."""
    network = 4 * 32 * (3 * 2 + 1) + 3 * (32 * 32 + 32) + (32 + 1) * channels * width
    return network + 2 * 2 + width + 2 * width


@pytest.mark.parametrize(("depth", "blocks", "width", "published"), PUBLISHED)
def test_the_published_number_of_parameters(depth: int, blocks: tuple[int, ...], width: int, published: int) -> None:
    widths = [width, *(round(width * (1 + stage / 2)) for stage, count in enumerate(blocks) for _ in range(count))]
    pairs = list(pairwise(widths))
    body = sum(convolution(a, b) + convolution(b, b) + (a * b + b if a != b else 0) for a, b in pairs)
    assert convolution(3, width) + body + widths[-1] * 10 + 10 == published
    model = oc.create_model(f"flexnet_{depth}", in_channels=3, out_features=10, size=(32, 32), device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == published


def test_the_published_supports_learn_their_mean_on_axes_that_are_not_causal() -> None:
    def supports(**options: Any) -> list[Gaussian]:
        model = oc.create_model("flexnet_3", in_channels=1, out_features=2, size=(32, 32), **options)
        return [layer for layer in model.modules() if isinstance(layer, Gaussian)]

    assert len(supports()) == 7
    assert all(window.mean_logit is not None for window in supports())
    assert all(window.mean_logit is None for window in supports(causal=True))
    for window in supports():
        torch.testing.assert_close(window.width, torch.full((2,), 0.075))


def normalised(norm: Any, y: Tensor) -> Tensor:
    """Batch norm of a batch, from its formula."""
    centred = y - y.mean((0, 2, 3), keepdim=True)
    scale = norm.weight[:, None, None] / (centred.square().mean((0, 2, 3), keepdim=True) + norm.eps).sqrt()
    return centred * scale + norm.bias[:, None, None]


def test_the_formula() -> None:
    model: Any = FlexNet(2, 3, (5, 4), blocks=(1, 1), widths=(3, 4), kernel=partial(SIREN, hidden=4), dtype=F64)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, BatchNorm):
                module.weight.uniform_(0.5, 2.0)
                module.bias.normal_()
    x = torch.randn(3, 2, 5, 4, dtype=F64)
    y = F.relu(normalised(model.stem_norm, model.stem(x)))
    for block in model.blocks:
        z = F.relu(normalised(block.norm_1, block.conv_1(y)))
        z = normalised(block.norm_2, block.conv_2(z))
        skip = y
        if block.shortcut is not None:
            skip = torch.einsum("oc,bchw->bohw", block.shortcut.weight, y) + block.shortcut.bias[:, None, None]
        y = F.relu(skip + z)
    expected = y.mean((2, 3)) @ model.head.readout.weight.T + model.head.readout.bias
    torch.testing.assert_close(model(x), expected)
    assert [block.shortcut is None for block in model.blocks] == [True, False]


def test_dropout_is_between_the_convolutions_of_a_block() -> None:
    model: Any = FlexNet(2, 3, 8, blocks=(1,), widths=(16,), kernel=partial(SIREN, hidden=4), dropout=0.5)
    assert sum(isinstance(module, nn.Dropout) and module.p == 0.5 for module in model.modules()) == 1
    seen: list[Tensor] = []
    model.blocks[0].conv_2.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    model(torch.randn(64, 2, 8))
    model.blocks[0].dropout.eval()
    model(torch.randn(64, 2, 8))
    dropped, kept = ((values == 0).double().mean().item() for values in seen)
    assert 0.4 < kept < 0.6  # ReLU of a normalised signal
    assert 0.7 < dropped < 0.8


def test_the_papers() -> None:
    text = oc.cite(oc.create_model("flexnet_3", in_channels=1, out_features=2, size=(8, 8)))
    for key in ("omniconv", "romero2022flexconv", "he2016resnet", "fathony2021multiplicative"):
        assert text.count(f"@misc{{{key},") == 1
    assert text.count("@misc") == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"blocks": 2}, TypeError, "`blocks` must be a sequence of integers, one per stage; got int 2"),
        ({"widths": ()}, TypeError, r"`widths` must be a sequence of integers, one per stage; got tuple \(\)"),
        ({"widths": "24"}, TypeError, "`widths` must be a sequence of integers"),
        ({"widths": (24, 0, 1)}, ValueError, "`widths` must be at least 1; got 0"),
        ({"blocks": (1, 1)}, ValueError, r"`blocks` and `widths` must name the same stages; got \(1, 1\) and \(24, 36"),
    ],
)
def test_bad_stages_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FlexNet(1, 2, 8, **options)
