"""Kernels that depend on numbers of a sample: the formula, the scale of the shifts, and what is refused."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch

from omniconv.kernels import MLP, SIREN, Conditional, Free, Gabor, Kernel, KernelFactory, Table
from tests.cases import KERNELS

F64 = torch.float64


def test_formula() -> None:
    kernel = Conditional(2, 3, reach=5, conditions=2, kernel=Table, hidden=4, depth=3, dtype=F64)
    with torch.no_grad():
        for bias in kernel.hidden_bias:
            bias.normal_()
    p, z = 2 * torch.rand(6, 2, dtype=F64) - 1, torch.rand(5, 2, dtype=F64)
    v = torch.cat([torch.cos(math.pi * z / 2), torch.sin(math.pi * z / 2)], dim=1)
    for weight, bias in zip(kernel.hidden_weight, kernel.hidden_bias, strict=True):
        x = v @ weight.T + bias
        v = torch.where(x > 0, x, x / 100)
    theta = kernel.kernel.get_parameter("taps").detach()
    twin, expected = Table(2, 3, reach=5, dtype=F64), []
    for shift in v @ kernel.output_weight.T:
        twin.load_state_dict({"taps": theta + shift.reshape(theta.shape)})
        expected.append(twin(p))
    assert kernel(p, z).shape == (5, 6, 3)
    torch.testing.assert_close(kernel(p, z), torch.stack(expected))


@pytest.mark.parametrize("name", [name for name in KERNELS if not name.startswith("conditional")])
def test_every_kernel_takes_a_condition(name: str) -> None:
    """The values of a sample are those of the wrapped kernel with the shifted parameters."""
    kernel = Conditional(2, 2, reach=3, kernel=KERNELS[name], hidden=4, strength=0.5, dtype=F64).eval()
    p, z = 2 * torch.rand(2, 3, 2, dtype=F64) - 1, torch.rand(2, 1, dtype=F64)
    shift = kernel.shifts(z)[1]
    values = kernel(p, z)
    assert torch.equal(kernel(p), kernel.kernel(p))
    with torch.no_grad():
        for theta in kernel.kernel.parameters():
            theta.add_(shift[: theta.numel()].reshape(theta.shape))
            shift = shift[theta.numel() :]
    assert len(shift) == 0
    torch.testing.assert_close(values[1], kernel.kernel(p))


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("conditions", [1, 5])
@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_shifts_begin_in_proportion_to_each_tensor(depth: int, conditions: int, strength: float) -> None:
    shapes = partial(SIREN, hidden=32, depth=3)
    squares: dict[str, list[float]] = {}
    for _ in range(8):
        kernel = Conditional(
            1, 8, reach=1000, conditions=conditions, kernel=shapes, hidden=256, depth=depth, strength=strength
        )
        rest = kernel.shifts(torch.rand(16, conditions))
        for name, theta in kernel.kernel.named_parameters():
            shift, rest = rest[:, : theta.numel()], rest[:, theta.numel() :]
            if "bias" in name:
                assert not shift.any()  # as the biases themselves, which begin at zero
            else:
                squares.setdefault(name, []).append((shift.square().mean() / theta.square().mean()).item())
    assert set(squares) == {"frequency", "phase", "hidden_weight", "output_weight"}
    for name, ratios in squares.items():
        assert math.sqrt(sum(ratios) / len(ratios)) == pytest.approx(strength, rel=0.2), name


def test_shifts_are_as_large_at_every_number() -> None:
    """The encoding has the norm sqrt(conditions) throughout; the published failure is a shift proportional to z."""
    kernel = Conditional(1, 8, reach=100, hidden=2048)
    norms = kernel.shifts(torch.tensor([[0.0], [1e-3], [0.3], [0.7], [1.0]])).norm(dim=1)
    assert (norms.max() / norms.min()).item() < 1.2


def test_hidden_layers_have_the_fan_out_initialisation() -> None:
    first, second = Conditional(1, 1, reach=4, conditions=100, hidden=50, depth=3).hidden_weight
    assert first.shape == (50, 200)
    gain = math.sqrt(2 / (1 + 0.01**2))
    assert first.std().item() == pytest.approx(gain / math.sqrt(50), rel=0.05)
    assert second.std().item() == pytest.approx(gain / math.sqrt(50), rel=0.05)


@pytest.mark.parametrize("make", [SIREN, partial(MLP, activation="swish", weight_norm=True), Gabor])
def test_derivatives(make: KernelFactory) -> None:
    kernel = Conditional(1, 2, reach=3, kernel=make, hidden=3, strength=0.5, dtype=F64)
    names = [name for name, _ in kernel.named_parameters()]
    points = (2 * torch.rand(3, 1, dtype=F64) - 1).requires_grad_()
    condition = (0.8 * torch.rand(2, 1, dtype=F64) + 0.1).requires_grad_()

    def evaluate(points: torch.Tensor, condition: torch.Tensor, *values: torch.Tensor) -> Any:
        return torch.func.functional_call(kernel, dict(zip(names, values, strict=True)), (points, condition))

    copies = [parameter.detach().clone().requires_grad_() for parameter in kernel.parameters()]
    torch.autograd.gradcheck(evaluate, (points, condition, *copies), fast_mode=True)
    torch.autograd.gradgradcheck(evaluate, (points, condition, *copies), fast_mode=True)


def test_compiled_equals_eager() -> None:
    torch._dynamo.reset()
    kernel = Conditional(1, 4, reach=16, conditions=2)
    p, z = torch.rand(9, 1), torch.rand(3, 2)
    compiled = torch.compile(kernel, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(p, z), kernel(p, z))


def test_samples_drop_values_of_their_own() -> None:
    kernel = Conditional(1, 4, reach=50, kernel=partial(Free, dropout=0.5)).train()
    values = kernel(torch.rand(50, 1), torch.full((2, 1), 0.3))
    assert not torch.equal(values[0], values[1])
    kernel.eval()
    values = kernel(torch.rand(50, 1), torch.full((2, 1), 0.3))
    assert torch.equal(values[0], values[1])


def test_half_precision_leaves_the_kernel_as_it_is() -> None:
    kernel = Conditional(1, 4, reach=50)
    p, z = torch.rand(9, 1), torch.rand(3, 1)
    values = kernel(p, z)
    kernel.bfloat16()
    assert torch.equal(kernel(p, z), values)
    assert kernel(p, z.to(torch.bfloat16)).dtype == torch.float32


def test_an_empty_batch_has_no_values() -> None:
    assert Conditional(2, 3, reach=4)(torch.rand(5, 6, 2), torch.rand(0, 1)).shape == (0, 5, 6, 3)


def test_plain_kernels_take_no_condition() -> None:
    assert Kernel.conditions == SIREN(1, 1, reach=4).conditions == 0
    assert Conditional(1, 1, reach=4, conditions=3).conditions == 3
    assert Conditional(1, 1, reach=4).bandlimit() is not None
    assert Conditional(1, 1, reach=4, kernel=Table).bandlimit() is None


class Fixed(Table):
    """A kernel with nothing to learn."""

    def __init__(self, dim: int, channels: int, **where: Any):
        super().__init__(dim, channels, **where)
        del self.taps

    def reset_parameters(self) -> None:
        """Nothing is learned."""


def evaluate(condition: Any) -> Any:
    return Conditional(1, 4, reach=4, conditions=2)(torch.zeros(3, 1), condition)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conditional(1, 4, reach=4, conditions=0), ValueError, "`conditions` must be at least 1; got 0"),
        (lambda: Conditional(1, 4, reach=4, depth=1), ValueError, "`depth` must be at least 2; got 1"),
        (lambda: Conditional(1, 4, reach=4, strength=0.0), ValueError, "`strength` must be finite and above 0"),
        (lambda: Conditional(1, 4, reach=4, kernel=Fixed), ValueError, "`kernel` must have parameters to shift; Fixed"),
        (
            lambda: Conditional(1, 4, reach=4, kernel=SIREN(1, 4, reach=4)),
            TypeError,
            "`kernel` must be a Kernel class or functools.partial of one",
        ),
        (lambda: Conditional(1, 4, reach=4, kernel=torch.nn.Linear), TypeError, "Kernel class; got the class Linear"),  # type: ignore[arg-type]
        (
            lambda: Conditional(1, 4, reach=4, kernel=lambda dim, channels, **where: SIREN(dim, 1, **where)),
            ValueError,
            "`kernel` must have the `channels` it is called with, 4; SIREN has 1",
        ),
        (lambda: evaluate(torch.rand(3, 1)), ValueError, r"`condition` must be \(batch, 2\), .* shape \(3, 1\)"),
        (lambda: evaluate(torch.rand(2)), ValueError, r"`condition` must be \(batch, 2\), .* shape \(2,\)"),
        (lambda: evaluate(torch.ones(3, 2).long()), TypeError, "`condition` must hold floating-point numbers"),
        (lambda: evaluate(0.5), TypeError, "`condition` must be a torch.Tensor; got float 0.5"),
        (
            lambda: evaluate(torch.tensor([[0.5, 1.5]])),
            ValueError,
            r"`condition` must lie in \[0, 1\]; got 0.5 to 1.5. Scale the numbers",
        ),
        (lambda: evaluate(torch.tensor([[-0.1, 0.5]])), ValueError, r"must lie in \[0, 1\]; got -0.1 to 0.5"),
        (lambda: evaluate(torch.tensor([[float("nan"), 0.5]])), ValueError, r"must lie in \[0, 1\]; got nan"),
    ],
)
def test_bad_conditions_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
