"""A convolution beside small and dilated ones."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import omniconv as oc
from omniconv import Conv, Conv1d, Full, Gabor, Table
from omniconv.export import fold
from omniconv.kernels import Modal
from omniconv.nn import BatchNorm, Branched, Pointwise
from omniconv.testing import assert_close

F64 = torch.float64
small = partial(Gabor, hidden=4, depth=1)


def depthwise(layer: Any, x: torch.Tensor, dilation: int) -> torch.Tensor:
    """torch's convolution with the taps of a branch: it correlates, so the taps are reversed."""
    taps = layer.kernel.taps * layer.gain
    weight = taps.movedim(-1, 0)[:, None].flip(2, 3)
    padding = tuple(dilation * (k // 2) for k in weight.shape[2:])
    return F.conv2d(x, weight, layer.bias, padding=padding, dilation=dilation, groups=len(weight))


@pytest.mark.parametrize("size", [(9, 12), (8, 7)])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_branches_are_dilated_convolutions_that_are_normalised_and_summed(
    size: tuple[int, int], norm: bool, training: bool
) -> None:
    conv = Conv(3, 3, size, kernel=small, mixing="depthwise", dtype=F64)
    layer = Branched(conv, [(5, 1), ((3, 1), 3)], norm=norm).train(training)
    x = torch.randn(4, 3, *size, dtype=F64)
    _, dense, dilated = layer.convs
    assert isinstance(dense, Conv)
    assert isinstance(dilated, Conv)
    assert (dense.reach, dilated.reach) == ((2, 2), (3, 0))
    terms = [conv(x), depthwise(dense, x, 1), depthwise(dilated, x, 3)]
    if norm and training:
        terms = [F.batch_norm(y, None, None, training=True) for y in terms]
    if norm and not training:
        terms = [y / (1 + 1e-5) ** 0.5 for y in terms]
    assert_close(layer(x), terms[0] + terms[1] + terms[2])
    assert (dense.bias is None) == norm  # the norm has one


def test_causal_branches_see_the_past_alone() -> None:
    conv = Conv(2, 2, 20, kernel=small, causal=True, engine="direct", dtype=F64)  # sums: what is zero is exactly so
    layer = Branched(conv, [(4, 3), (2, 1)], norm=False)
    branch = layer.convs[1]
    assert isinstance(branch, Conv)
    assert branch.reach == (9,)
    assert branch.kernel.taps.shape == (4, 4)
    lags = branch.taps().abs().sum((0, 1)).nonzero()[:, 0].tolist()
    assert lags == [0, 3, 6, 9]
    x = torch.randn(1, 2, 20, dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[..., 11].sum(), x)
    assert not gradient[..., 12:].any()
    assert gradient[..., :12].all()


def test_branches_follow_the_convolution() -> None:
    conv = Conv(2, 3, (6, 5), kernel=small, boundary=("circular", "zero"), engine="direct", dtype=F64)
    for branch in Branched(conv, [(3, (1, 2))]).convs:
        assert isinstance(branch, Conv)
        assert (branch.in_channels, branch.out_channels, branch.mixing) == (2, 3, "dense")
        assert (branch.grid, branch.engine, branch.gain.dtype) == (conv.grid, "direct", F64)


def test_what_was_not_observed_counts_for_nothing() -> None:
    """In training mode: the outputs and the statistics are those of the shorter signals."""
    torch.manual_seed(0)
    layer: Any = Branched(Conv(2, 2, 12, kernel=small, causal=True, dtype=F64), [(3, 2)])
    x = torch.randn(3, 2, 12, dtype=F64)
    mask = torch.arange(12) < torch.tensor([[8], [8], [8]])
    short = layer(x[..., :8])
    means = [norm.running_mean.clone() for norm in layer.norms]
    for norm in layer.norms:
        norm.reset_running_stats()
    spoiled = torch.where(mask[:, None], x, torch.nan)
    assert_close(layer(spoiled, mask=mask)[..., :8], short)
    for norm, mean in zip(layer.norms, means, strict=True):
        assert_close(norm.running_mean, mean)


def test_a_finer_grid_reaches_every_branch() -> None:
    layer = Branched(Conv1d(1, 1, 16, kernel=small, causal=True, dtype=F64), [(3, 2)], norm=False)
    x = torch.randn(2, 1, 31, dtype=F64)
    expected = sum(conv(x, 0.5) for conv in layer.convs)
    assert isinstance(expected, torch.Tensor)
    assert_close(layer(x, spacing=0.5), expected)
    assert not torch.allclose(layer(x), expected)


def test_reset_draws_everything_anew_and_forgets_the_statistics() -> None:
    layer = Branched(Conv(2, 2, 8, kernel=Table, reach=2), [(3, 1)])
    before = {name: value.clone() for name, value in layer.named_parameters() if "kernel" in name}
    layer(5 + torch.randn(4, 2, 8))
    layer.reset_parameters()
    after = dict(layer.named_parameters())
    assert all(not torch.equal(value, after[name]) for name, value in before.items())
    for norm in layer.norms:
        assert isinstance(norm, BatchNorm)
        assert norm.running_mean is not None
        assert not norm.running_mean.any()


def test_the_rule_is_cited() -> None:
    assert "ding2024unireplknet" in oc.cite(Branched(Conv(1, 1, 8), [(3, 1)]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Branched(Pointwise(2, 2), [(3, 1)]), TypeError, "`conv` must be a Conv, .*; got Pointwise"),  # type: ignore[arg-type]
        (lambda: Branched(Conv(2, 2, 8, mixing="separable"), [(3, 1)]), ValueError, "Put a Pointwise after a depthw"),
        (
            lambda: Branched(Conv(2, 2, 8), [3]),  # type: ignore[list-item]
            TypeError,
            r"`branches\[0\]` must be a pair \(kernel size, dilation\); got int 3",
        ),
        (
            lambda: Branched(Conv(2, 2, 8), [(4, 1)]),
            ValueError,
            r"`branches\[0\]` .* odd kernel size .*; got 4 on axis 0. Use 3 or 5",
        ),
        (
            lambda: Branched(Conv(2, 2, (8, 8), causal=(True, False)), [((4, 2), 1)]),
            ValueError,
            "got 2 on axis 1. Use 1 or 3",
        ),
        (lambda: Branched(Conv(2, 2, 8), 5), TypeError, r"`branches` must be a list of pairs .*; got int 5"),  # type: ignore[arg-type]
        (
            lambda: Branched(Conv(2, 2, 8), [(3, 1), (3, 0)]),
            ValueError,
            r"`dilation of branches\[1\]` must be at least 1; got 0",
        ),
        (
            lambda: Branched(Conv(2, 2, 8), [(0, 1)]),
            ValueError,
            r"`kernel size of branches\[0\]` must be at least 1; got 0",
        ),
        (
            lambda: Branched(Conv(2, 2, 8), [((3, 3), 1)]),
            ValueError,
            r"`kernel size of branches\[0\]` must be one value or 1",
        ),
        (lambda: Branched(Conv(2, 2, 8), [(3, 1)], norm=1), TypeError, "`norm` must be True or False"),  # type: ignore[arg-type]
        (lambda: Branched(Conv(2, 2, 8), [(3, 1)])([1.0]), TypeError, r"`x` must be a torch.Tensor; got list \[1.0\]"),
        (
            lambda: Branched(Conv(2, 2, 8), [(3, 1)])(torch.zeros(2, 8)),
            ValueError,
            r"`x` must have 3 axes, \(batch, channels, \*size\); got a float32 tensor of shape \(2, 8\)",
        ),
        (
            lambda: Branched(Conv(2, 2, 8), [(3, 1)])(torch.zeros(1, 2, 8), mask=torch.ones(1, 9).bool()),
            ValueError,
            r"`mask` must be \(batch, \*size\), here \(1, 8\)",
        ),
    ],
)
def test_bad_branches_are_named(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


def test_table_branches_have_unit_gain_like_any_convolution() -> None:
    layer = Branched(Conv(1, 1, 400, kernel=Table, reach=2), [(5, 7)], norm=False)
    y = layer.convs[1](torch.randn(200, 1, 400))
    assert y.var().item() == pytest.approx(1.0, rel=0.05)


def test_branches_beside_a_recurrence_have_an_engine_of_their_own() -> None:
    conv = Conv1d(
        3, 3, 16, kernel=Modal, support=Full, mixing="depthwise", causal=True, engine="recurrent", dtype=torch.float64
    )
    pair = Branched(conv, [(3, 1)])
    x = torch.randn(2, 3, 16, dtype=torch.float64)
    assert [branch.engine for branch in pair.convs] == ["recurrent", "auto"]
    assert_close(fold(pair.eval())(x), pair(x))
