"""Gates before and after the convolution, and a skip past it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from omniconv import convolve
from omniconv.engines import ENGINES, Engine, Problem
from omniconv.engines._plan import forget_plans
from omniconv.testing import assert_close


def operands(channels: int = 3, n: int = 9, k: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Signal, taps, both gates, skip, in float64, with gradients."""
    shapes = ((2, channels, n), (channels, k), (2, channels, n), (2, channels, n), (channels,))
    x, taps, pre, post, skip = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return x, taps, pre, post, skip


@pytest.fixture(params=[False, True], ids=["separate", "fused"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An engine without a pass for gates, and one with it."""
    direct = ENGINES["direct"]

    def gated(x: Tensor, prepared: Tensor, problem: Problem, pre: Tensor | None, post: Tensor | None) -> Tensor:
        y = direct.run(x if pre is None else pre * x, prepared, problem)
        return y if post is None else y * post

    fused = Engine(
        "fused", direct.run, direct.adjoint, direct.reject, direct.work, direct.adjoint_work, direct.prepare, gated
    )
    monkeypatch.setitem(ENGINES, "fused", fused)
    forget_plans()
    yield "fused" if request.param else "direct"
    monkeypatch.undo()
    forget_plans()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("gates", ["none", "pre", "post", "both"])
def test_gates_and_skip_multiply_and_add(gates: str, causal: bool, engine: str) -> None:
    x, taps, pre, post, skip = operands()
    used_pre, used_post = pre if gates in ("pre", "both") else None, post if gates in ("post", "both") else None
    y = convolve(x, taps, causal=causal, engine=engine, pre_gate=used_pre, post_gate=used_post, skip=skip)
    u = x if used_pre is None else used_pre * x
    expected = convolve(u, taps, causal=causal, engine="reference") + skip[:, None] * u
    expected = expected if used_post is None else used_post * expected
    assert_close(y, expected)
    inputs = [tensor for tensor in (x, taps, used_pre, used_post, skip) if tensor is not None]
    grad = torch.randn_like(y)
    pairs = zip(torch.autograd.grad(y, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True)
    for made, right in pairs:
        assert_close(made, right)


def test_derivatives_of_second_order(engine: str) -> None:
    x, taps, pre, post, _ = operands(channels=2, n=4, k=3)

    def run(x: Tensor, taps: Tensor, pre: Tensor, post: Tensor) -> Tensor:
        return convolve(x, taps, engine=engine, pre_gate=pre, post_gate=post)

    torch.autograd.gradcheck(run, (x, taps, pre, post))
    torch.autograd.gradgradcheck(run, (x, taps, pre, post))


def test_the_operator_keeps_the_rules_of_the_framework() -> None:
    x, taps, pre, post, _ = operands()
    torch.library.opcheck(torch.ops.omniconv.gated_convolve.default, (x, taps, pre, post, [True], [False], "direct"))
    torch.library.opcheck(torch.ops.omniconv.gated_convolve.default, (x, taps, None, post, [True], [False], "direct"))


def test_the_skip_is_the_tap_at_lag_zero_on_every_axis() -> None:
    x, taps, skip = torch.randn(1, 2, 5, 6, 4), torch.randn(2, 3, 4, 2), torch.randn(2)
    causal = (True, False, False)
    expected = convolve(x, taps, causal=causal) + skip.reshape(-1, 1, 1, 1) * x
    assert_close(convolve(x, taps, causal=causal, skip=skip), expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pre_gate": torch.ones(1, 2, 3)}, ValueError, r"`pre_gate` must have the shape \(1, 2, 4\)"),
        ({"post_gate": torch.ones(1, 2, 4).double()}, ValueError, r"`post_gate` must have .* dtype torch.float32"),
        ({"post_gate": 2.0}, TypeError, "`post_gate` must be a torch.Tensor; got float 2.0"),
        ({"skip": torch.ones(3)}, ValueError, "`skip` must have one number for each of 2 channels"),
        ({"skip": [1.0]}, TypeError, "`skip` must be a torch.Tensor"),
    ],
)
def test_bad_gates_are_named(options: dict[str, Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        convolve(torch.ones(1, 2, 4), torch.ones(2, 3), **options)  # type: ignore[arg-type]


def test_a_skip_needs_a_kernel_per_channel() -> None:
    with pytest.raises(ValueError, match="`skip` needs a kernel per channel"):
        convolve(torch.ones(1, 2, 4), torch.ones(2, 2, 3), skip=torch.ones(2))
