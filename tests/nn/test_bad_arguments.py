"""What layers are built with: everything that does not fit is refused, by the name of its argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import omniconv as oc
from omniconv.groups import SO2
from omniconv.kernels import SIREN, Table
from omniconv.nn import (
    BasicBlock,
    BatchNorm,
    Branched,
    ChannelNorm,
    Conv,
    DenseHead,
    GatedBlock,
    GatedConv,
    Gridify,
    GroupAttention,
    GroupBasicBlock,
    GroupConv,
    GroupConvBlock,
    GroupResidualBlock,
    GroupSelfAttention,
    GroupSelfAttentionBlock,
    LastHead,
    LayerNorm,
    LiftingConv,
    LiftingProduct,
    MultiHeadConv,
    NonStationaryConv,
    Partial,
    Pointwise,
    PoolHead,
    ResidualBlock,
    SharedMLP,
    Standardize,
    TokenEmbedding,
)
from omniconv.supports import Gaussian

small = partial(SIREN, hidden=4)

MADE: dict[str, Callable[..., Any]] = {
    "conv": partial(Conv, 2, 2, 5, kernel=small),
    "lifting-conv": partial(LiftingConv, 1, 2, 5, SO2(), 4, kernel=small),
    "lifting-product": partial(LiftingProduct, 1, 2, 5, SO2(), 4, kernel=small),
    "group-conv": partial(GroupConv, 2, 2, 5, SO2(), 4, kernel=small, reach=1),
    "non-stationary-conv": partial(NonStationaryConv, 2, 2, 5, SO2(), 4, reach=1),
    "group-self-attention": partial(GroupSelfAttention, 2, 4, 5, SO2(), 4, reach=1),
    "gated-conv": partial(GatedConv, 2, 5),
    "multi-head-conv": partial(MultiHeadConv, 2, 2, 5),
    "gridify": partial(Gridify, 2, 2, 3),
    "pointwise": partial(Pointwise, 2, 2),
    "shared-mlp": partial(SharedMLP, 2, (3,)),
    "pool": partial(PoolHead, 2, 2),
    "last": partial(LastHead, 2, 2),
    "dense": partial(DenseHead, 2, 2),
    "standardize": partial(Standardize, 2),
    "batch-norm": partial(BatchNorm, 2),
    "layer-norm": partial(LayerNorm, 2),
    "channel-norm": partial(ChannelNorm, 2),
    "token-embedding": partial(TokenEmbedding, 3, 2),
    "partial": partial(Partial, SO2(), 4),
    "ccnn": partial(oc.CCNN, 1, 2, 6, blocks=1, width=4),
    "hyena": partial(oc.models.Hyena, 1, 2, 6, blocks=1, width=4),
}


@pytest.mark.parametrize("name", MADE)
def test_dtype_and_device_are_named(name: str) -> None:
    make = MADE[name]
    for dtype in (torch.int64, torch.bool, torch.complex64, "float32", 32):
        with pytest.raises(TypeError, match=r"`dtype` must be a torch.dtype of floating-point numbers"):
            make(dtype=dtype)
    for device in (1.5, True, ["cpu"]):
        with pytest.raises(TypeError, match=r"`device` must be a torch.device, a string"):
            make(device=device)
    with pytest.raises(ValueError, match=r"`device` must be one that torch knows.*got 'foo'"):
        make(device="foo")
    with pytest.raises(ValueError, match=r"`device` must be one that this machine has; got 'cuda:99'"):
        make(device="cuda:99")
    make(device="cpu", dtype=torch.float64)
    make(device=torch.device("meta"), dtype=torch.bfloat16)


@pytest.mark.parametrize(
    "make", [partial(Table, 1, 1, reach=2), partial(SIREN, 1, 1, reach=2), partial(Gaussian, 1, reach=2)]
)
def test_the_dtype_of_a_kernel_or_support_alone_is_named(make: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"`dtype` must be a torch.dtype of floating-point numbers"):
        make(dtype=torch.int64)


@pytest.mark.parametrize("bias", ["no", 0, 1, None])
@pytest.mark.parametrize(
    "name", ["conv", "lifting-conv", "lifting-product", "group-conv", "non-stationary-conv", "pointwise"]
)
def test_a_bias_is_asked_for_by_true_or_false(name: str, bias: Any) -> None:
    with pytest.raises(TypeError, match="`bias` must be True or False"):
        MADE[name](bias=bias)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: BatchNorm(0), ValueError, "`num_features` must be at least 1; got 0"),
        (lambda: BatchNorm(2.0), TypeError, "`num_features` must be an integer"),  # type: ignore[arg-type]
        (lambda: BatchNorm(2, eps=math.nan), ValueError, "`eps` must be finite"),
        (lambda: BatchNorm(2, eps=-1.0), ValueError, "`eps` must be finite and at least 0"),
        (lambda: BatchNorm(2, momentum="a"), TypeError, "`momentum` must be a number; got str 'a'"),  # type: ignore[arg-type]
        (lambda: BatchNorm(2, momentum=1.5), ValueError, "`momentum` must be .* at most 1"),
        (lambda: BatchNorm(2, affine="yes"), TypeError, "`affine` must be True or False"),  # type: ignore[arg-type]
        (lambda: LayerNorm(0), ValueError, "`channels` must be at least 1; got 0"),
        (lambda: LayerNorm(-1), ValueError, "`channels` must be at least 1; got -1"),
        (lambda: LayerNorm("2"), TypeError, "`channels` must be an integer; got str '2'"),  # type: ignore[arg-type]
        (lambda: PoolHead(2, 0), ValueError, "`out_features` must be at least 1; got 0"),
        (lambda: LastHead(2, 0), ValueError, "`out_features` must be at least 1; got 0"),
        (lambda: Branched(conv(2, 2), []), ValueError, "`branches` must have one pair"),
        (lambda: Branched(conv(2, 2), "33"), TypeError, "`branches` must be a list of pairs"),  # type: ignore[arg-type]
        (lambda: DenseHead(0, 2), ValueError, "`channels` must be at least 1; got 0"),
    ],
)
def test_norms_and_heads_name_their_arguments(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def conv(taken: int, given: int) -> Conv:
    return Conv(taken, given, 5, kernel=small)


def on_group(taken: int, given: int, reach: int = 1) -> GroupConv:
    return GroupConv(taken, given, 5, SO2(), 4, kernel=small, reach=reach)


def attention(taken: int, given: int) -> GroupSelfAttention:
    return GroupSelfAttention(taken, given, 5, SO2(), 4, heads=1, reach=1)


norm, linear, maps = BatchNorm, Pointwise, partial(GroupAttention, size=5, group=SO2(), samples=4, reach=1)

BLOCKS: dict[str, tuple[type[nn.Module], Callable[[], list[Any]], tuple[str, ...]]] = {
    "residual": (ResidualBlock, lambda: [norm(2), conv(2, 2), linear(2, 2)], ("norm", "conv", "linear")),
    "basic": (
        BasicBlock,
        lambda: [conv(2, 3), norm(3), conv(3, 3), norm(3), linear(2, 3)],
        ("conv_1", "norm_1", "conv_2", "norm_2", "shortcut"),
    ),
    "gated": (GatedBlock, lambda: [GatedConv(2, 5)], ("mixer",)),
    "group-basic": (
        GroupBasicBlock,
        lambda: [on_group(2, 3), norm(3), on_group(3, 3), norm(3), on_group(2, 3, 0)],
        ("conv_1", "norm_1", "conv_2", "norm_2", "shortcut"),
    ),
    "group-conv": (GroupConvBlock, lambda: [on_group(2, 3), norm(3)], ("conv", "norm")),
    "group-residual": (
        GroupResidualBlock,
        lambda: [norm(2), on_group(2, 2), linear(2, 2)],
        ("norm", "conv", "linear"),
    ),
    "group-self-attention": (
        GroupSelfAttentionBlock,
        lambda: [norm(2), attention(2, 4), norm(4), linear(4, 2), linear(2, 4), linear(2, 4)],
        ("norm_1", "attention", "norm_2", "narrow", "widen", "shortcut"),
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_made_of_parts(name: str) -> None:
    kind, make, names = BLOCKS[name]
    kind(*make())
    for index, argument in enumerate(names):
        for bad in (3, "norm", [norm(2)], BatchNorm) + ((None,) if argument != "shortcut" else ()):
            parts = make()
            parts[index] = bad
            with pytest.raises(TypeError, match=f"`{argument}` must be a "):
                kind(*parts)
    for dropout in (1, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="`dropout` must be"):
            kind(*make(), dropout=dropout)
    with pytest.raises(TypeError, match="`dropout` must be a number"):
        kind(*make(), dropout="a")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualBlock(norm(3), conv(2, 2), linear(2, 2)), "`conv` must take the 3 channels of `norm`"),
        (lambda: ResidualBlock(norm(2), conv(2, 3), linear(2, 2)), "`linear` must take the 3 channels of `conv`"),
        (lambda: ResidualBlock(norm(2), conv(2, 2), linear(2, 3)), "`linear` must lead back to the 2 channels"),
        (lambda: BasicBlock(conv(2, 2), norm(3), conv(2, 2), norm(2)), "`norm_1` must take the 2 channels of `conv_1`"),
        (lambda: BasicBlock(conv(2, 2), norm(2), conv(3, 2), norm(2)), "`conv_2` must take the 2 channels of `norm_1`"),
        (
            lambda: BasicBlock(conv(2, 3), norm(3), conv(3, 3), norm(3), linear(1, 3)),
            "`shortcut` must take the 2 channels that `conv_1` takes; it takes 1",
        ),
        (lambda: GroupConvBlock(on_group(2, 3), norm(2)), "`norm` must take the 3 channels of `conv`"),
        (
            lambda: GroupConvBlock(on_group(2, 3), norm(3), attention=maps(3)),
            "`conv` must take the 3 channels of `attention`",
        ),
        (
            lambda: GroupBasicBlock(on_group(2, 2), norm(2), on_group(2, 2), norm(3)),
            "`norm_2` must take the 2 channels of `conv_2`",
        ),
        (
            lambda: GroupBasicBlock(on_group(2, 2), norm(2), on_group(2, 2), norm(2), attention_2=maps(3)),
            "`attention_2` must take the 2 channels of `norm_1`",
        ),
        (
            lambda: GroupBasicBlock(on_group(2, 3), norm(3), on_group(3, 3), norm(3), on_group(1, 3, 0)),
            "`shortcut` must take the 2 channels that `conv_1` takes; it takes 1",
        ),
        (
            lambda: GroupResidualBlock(norm(2), on_group(2, 2), linear(2, 3)),
            "`linear` must lead back to the 2 channels of `norm`",
        ),
        (
            lambda: GroupSelfAttentionBlock(norm(2), attention(2, 2), norm(2), linear(2, 1), linear(1, 3)),
            "`widen` must lead back to the 2 channels of `norm_2`",
        ),
        (
            lambda: GroupSelfAttentionBlock(norm(3), attention(2, 2), norm(2), linear(2, 1), linear(1, 2)),
            "`attention` must take the 3 channels of `norm_1`",
        ),
    ],
)
def test_the_channels_of_a_block_fit(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_batch_norm_takes_what_that_of_torch_takes() -> None:
    layer = BatchNorm(2, 0.0, None, False, False, "cpu", torch.float64)
    assert (layer.eps, layer.momentum, layer.affine, layer.running_mean) == (0.0, None, False, None)
