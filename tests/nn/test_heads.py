"""Heads: what is read out, and from where."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omniconv.nn import DenseHead, LastHead, PoolHead
from omniconv.nn.heads import Head

F64 = torch.float64
HEADS: dict[str, type[Head]] = {"pool": PoolHead, "last": LastHead, "dense": DenseHead}


def linear(head: Head, x: Tensor) -> Tensor:
    """W x + b for channels (..., channels)."""
    assert head.readout.bias is not None
    return x @ head.readout.weight.T + head.readout.bias


def with_bias(name: str) -> Head:
    """A head whose bias is not zero."""
    head = HEADS[name](3, 2, dtype=F64)
    assert head.readout.bias is not None
    with torch.no_grad():
        head.readout.bias.normal_()
    return head


@pytest.mark.parametrize("size", [(7,), (4, 5), (2, 3, 4)])
def test_heads_read_the_mean_the_last_and_every_position(size: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *size, dtype=F64)
    pool, last, dense = with_bias("pool"), with_bias("last"), with_bias("dense")
    torch.testing.assert_close(pool(x), linear(pool, x.flatten(2).mean(2)))
    torch.testing.assert_close(last(x), linear(last, x.flatten(2)[..., -1]))
    torch.testing.assert_close(dense(x), linear(dense, x.movedim(1, -1)).movedim(-1, 1))


def test_the_last_of_an_image_is_the_corner_of_what_was_observed() -> None:
    head, x = with_bias("last"), torch.randn(3, 3, 5, 4, dtype=F64)
    mask = torch.zeros(3, 5, 4, dtype=torch.bool)
    corners = [(4, 3), (2, 1), (0, 0)]
    for row, (i, j) in enumerate(corners):
        mask[row, : i + 1, : j + 1] = True
    expected = torch.stack([linear(head, x[row, :, i, j]) for row, (i, j) in enumerate(corners)])
    torch.testing.assert_close(head(x, mask), expected)


def test_the_last_of_a_ragged_image_is_in_its_last_row() -> None:
    head, x = with_bias("last"), torch.randn(1, 3, 3, 4, dtype=F64)
    mask = torch.tensor([[[True, True, True, True], [True, True, False, False], [False, False, False, False]]])
    torch.testing.assert_close(head(x, mask), linear(head, x[:, :, 1, 1]))
