"""CKCNN and FlexTCN: the published numbers of parameters, the published formula, the papers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import omniconv as oc
from omniconv import CKCNN, SIREN, Gaussian
from omniconv.nn import BasicBlock, LastHead

F64 = torch.float64


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("width", "published"), [(30, 98_286), (100, 1_030_546)])
def test_the_published_number_of_parameters(width: int, published: int) -> None:
    kernel = partial(SIREN, omega_0=31.09, weight_norm=True)
    assert parameters(CKCNN(1, 10, 784, width=width, kernel=kernel, device="meta")) == published
    # Of weight normalisation: a length per row of each kernel network's three layers, 32 + 32 + in * out.
    lengths = 4 * (32 + 32) + width + 3 * width**2
    assert parameters(CKCNN(1, 10, 784, width=width, device="meta")) == published - lengths


@pytest.mark.parametrize(("blocks", "published"), [(2, 105_548), (4, 239_436), (6, 373_324)])
def test_flextcn_has_all_but_the_means_of_the_published_supports(blocks: int, published: int) -> None:
    """Published, rounded: 105.5k, 239k, 373k. By hand, h = 30, Gabor networks of 32 units and 4 filters:"""
    convolutions = 2 * blocks
    networks = convolutions * (4 * 4 * 32 + 3 * (32 * 32 + 32)) + 33 * (30 + 30 * 30 * (convolutions - 1))
    supports, biases, norms = 2 * convolutions, 30 * convolutions, 60 * convolutions  # a mean and a width
    shortcut, head = 30 + 30, 30 * 10 + 10
    assert networks + supports + biases + norms + shortcut + head == published
    model = oc.create_model(f"flextcn_{blocks}", in_channels=1, out_features=10, size=784, device="meta")
    assert parameters(model) == published - convolutions


def test_flextcn_has_batch_norm_gabor_kernels_and_the_published_supports() -> None:
    model = oc.create_model("flextcn_4", in_channels=1, out_features=10, size=784)
    assert isinstance(model, CKCNN)
    assert model.arguments["norm"] == "batch"
    assert len(model.blocks) == 4
    for layer in model.modules():
        if isinstance(layer, Gaussian):  # 0.075 on positions in [-1, 1] is 0.0375 of the causal window
            torch.testing.assert_close(layer.width, torch.tensor([0.0375]))
        if isinstance(layer, oc.Gabor):  # centres within 5/3 widths, frequencies up to 12.8 inverse widths
            assert 0 <= layer.centre.min().item() < layer.centre.max().item() <= 0.0625
            assert (layer.frequency / layer.inverse_width).abs().max().item() == pytest.approx(12.8, abs=0.4)


def by_hand(model: CKCNN, x: Tensor) -> Tensor:
    """The published network without dropout, from the layers' own convolutions."""
    for block in model.blocks:
        assert isinstance(block, BasicBlock)
        y = x
        for conv, norm in ((block.conv_1, block.norm_1), (block.conv_2, block.norm_2)):
            y = conv(y)
            centred = y - y.mean((1, 2), keepdim=True)
            y = centred / (centred.square().mean((1, 2), keepdim=True) + norm.eps).sqrt()
            y = F.relu(y * norm.weight[:, None] + norm.bias[:, None])
        if block.shortcut is not None and block.shortcut.bias is not None:
            x = torch.einsum("oc,bcn->bon", block.shortcut.weight, x) + block.shortcut.bias[:, None]
        x = F.relu(x + y)
    assert model.head.readout.bias is not None
    return x[..., -1] @ model.head.readout.weight.T + model.head.readout.bias


@pytest.mark.parametrize("channels", [2, 4])
def test_the_formula(channels: int) -> None:
    model = CKCNN(channels, 3, 9, width=4, kernel=partial(SIREN, hidden=4), dropout=0.3, dtype=F64).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(3, channels, 9, dtype=F64)
    torch.testing.assert_close(model(x), by_hand(model, x))
    assert [block.shortcut is None for block in model.blocks] == [channels == 4, True]


def test_the_defaults_are_causal_and_read_the_last_position() -> None:
    model = CKCNN(1, 10, 20, width=40)
    assert isinstance(model.head, LastHead)
    assert all(layer.causal == (True,) for layer in model.modules() if isinstance(layer, oc.Conv))
    for _ in range(2):  # the head is normal with standard deviation 0.01; 400 numbers
        assert 0.008 < model.head.readout.weight.std().item() < 0.012
        model.reset_parameters()


def test_the_papers() -> None:
    keys = ("omniconv", "romero2022ckconv", "bai2018tcn", "he2016resnet", "sitzmann2020siren")
    text = oc.cite(CKCNN(1, 2, 8, width=4))
    assert [text.count(f"@misc{{{key},") for key in keys] == [1] * 5
    assert text.count("@misc") == 5
    text = oc.cite(oc.create_model("flextcn_2", in_channels=1, out_features=2, size=16))
    assert all(f"@misc{{{key}," in text for key in ("romero2022flexconv", "fathony2021multiplicative"))
    assert "sitzmann" not in text


def test_bad_norms_are_named() -> None:
    with pytest.raises(ValueError, match="`norm` must be one of 'layer', 'batch'; got 'group'"):
        CKCNN(1, 2, 8, norm="group")
