"""The embedding of tokens: its formula, its scale, what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from omniconv.nn import TokenEmbedding

F64 = torch.float64


@pytest.mark.parametrize("size", [(7,), (4, 5), (2, 3, 4)])
def test_every_id_has_its_vector(size: tuple[int, ...]) -> None:
    layer, ids = TokenEmbedding(5, 3, dtype=F64), torch.randint(5, (2, *size))
    expected = torch.einsum("b...t,tc->bc...", F.one_hot(ids, 5).double(), layer.vectors.weight)
    torch.testing.assert_close(layer(ids), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_ids_are_integers_of_any_kind(dtype: torch.dtype) -> None:
    layer = TokenEmbedding(256, 3)
    ids = torch.tensor([[0, 127, 3]], dtype=dtype)
    torch.testing.assert_close(layer(ids), layer.vectors.weight[[0, 127, 3]].T[None])


def test_channels_have_unit_variance() -> None:
    layer = TokenEmbedding(4000, 8, device="meta").to_empty(device="cpu")
    layer.reset_parameters()
    values = layer(torch.arange(4000)[None])
    torch.testing.assert_close(values.var(-1), torch.ones(1, 8), rtol=0.1, atol=0)
    assert values.mean().abs().item() < 0.03


def test_padding_is_zero_and_stays_so() -> None:
    layer = TokenEmbedding(5, 3, padding=2)
    values = layer(torch.tensor([[2, 4, 2]]))
    assert torch.equal(values[0, :, [0, 2]], torch.zeros(3, 2))
    values.add(1).square().sum().backward()
    assert layer.vectors.weight.grad is not None
    used = layer.vectors.weight.grad.abs().amax(1) > 0
    assert used.tolist() == [False, False, False, False, True]
    layer.reset_parameters()
    assert torch.equal(layer.vectors.weight[2], torch.zeros(3))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.tensor([[0, 5]]), ValueError, "`x` must hold ids from 0 to 4; got 0 to 5"),
        (torch.tensor([[-1, 3]]), ValueError, "`x` must hold ids from 0 to 4; got -1 to 3"),
        (torch.zeros(1, 2), TypeError, "`x` must be a tensor of integers, the ids of tokens; got a float32 tensor"),
        (torch.zeros(1, 2, dtype=torch.bool), TypeError, "got a bool tensor"),
        ([[0, 1]], TypeError, "got list"),
    ],
)
def test_what_are_no_ids_is_named(ids: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TokenEmbedding(5, 3)(ids)


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="`tokens` must be at least 1; got 0"):
        TokenEmbedding(0, 3)
    with pytest.raises(ValueError, match="`channels` must be at least 1; got 0"):
        TokenEmbedding(3, 0)
    with pytest.raises(ValueError, match=r"`padding` must be an id below `tokens` \(=3\); got 3"):
        TokenEmbedding(3, 3, padding=3)
    with pytest.raises(ValueError, match="`padding` must be at least 0; got -1"):
        TokenEmbedding(3, 3, padding=-1)
