"""Options of the coordinate networks: weight normalisation, against the plain networks and the formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch

from omniconv.kernels import MLP, SIREN
from omniconv.kernels._kernel import set_length

NETWORKS = [
    partial(SIREN, depth=2),
    partial(SIREN, depth=4),
    partial(MLP, depth=2),
    partial(MLP, depth=4, activation="swish"),
]


def twins(make: Callable[..., SIREN | MLP]) -> tuple[SIREN | MLP, SIREN | MLP]:
    """The plain network and the normalised one, of the same draws."""
    networks = []
    for weight_norm in (False, True):
        torch.manual_seed(3)
        networks.append(make(2, 3, reach=5, hidden=6, weight_norm=weight_norm, dtype=torch.float64))
    return networks[0], networks[1]


@pytest.mark.parametrize("make", NETWORKS)
def test_weight_norm_begins_as_the_plain_network(make: Callable[..., SIREN | MLP]) -> None:
    plain, normalised = twins(make)
    state = normalised.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    p = 2 * torch.rand(20, 2, dtype=torch.float64) - 1
    assert torch.equal(normalised(p), plain(p))
    assert normalised.bandlimit() == plain.bandlimit()


@pytest.mark.parametrize("make", NETWORKS)
def test_weight_norm_adds_a_length_per_row(make: Callable[..., SIREN | MLP]) -> None:
    plain, normalised = twins(make)
    count, more = (sum(p.numel() for p in network.parameters()) for network in (plain, normalised))
    assert more - count == 6 + 6 * (plain.depth - 2) + 3  # hidden + hidden (depth - 2) + channels


def rows(weight: torch.Tensor, length: torch.Tensor | None) -> torch.Tensor:
    """g v / |v|."""
    assert length is not None
    return length[..., None] * weight / weight.square().sum(-1, keepdim=True).sqrt()


def moved(make: Callable[..., SIREN | MLP]) -> SIREN | MLP:
    """A normalised network as it might be after some training."""
    network = make(2, 3, reach=5, hidden=6, weight_norm=True, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def test_siren_with_weight_norm_formula() -> None:
    k = moved(partial(SIREN, depth=4))
    assert isinstance(k, SIREN)
    assert k.hidden_length is not None
    p = torch.rand(20, 2, dtype=torch.float64)
    frequency = rows(k.frequency, k.frequency_length)
    z = torch.sin(p @ frequency.T + k.phase)
    for layer in range(2):
        z = torch.sin(z @ rows(k.hidden_weight[layer], k.hidden_length[layer]).T + k.hidden_bias[layer])
    torch.testing.assert_close(k(p), z @ rows(k.output_weight, k.output_length).T + k.output_bias)
    assert k.bandlimit() == pytest.approx((3 * frequency.abs().amax(0) / (5 * math.pi)).tolist())


def test_mlp_with_weight_norm_formula() -> None:
    k = moved(partial(MLP, depth=4))
    assert isinstance(k, MLP)
    p = torch.rand(20, 2, dtype=torch.float64)
    z = torch.relu(p @ rows(k.weight, k.length).T + k.bias)
    for weight, length, bias in zip(k.hidden_weight, k.hidden_length, k.hidden_bias, strict=True):
        z = torch.relu(z @ rows(weight, length).T + bias)
    torch.testing.assert_close(k(p), z @ rows(k.output_weight, k.output_length).T + k.output_bias)


@pytest.mark.parametrize("make", NETWORKS)
def test_weight_norm_turns_weights_and_lengthens_rows(make: Callable[..., SIREN | MLP]) -> None:
    """The gradient in v is orthogonal to v; in g it is that of the plain weight along the row."""
    plain, normalised = twins(make)
    p = 2 * torch.rand(20, 2, dtype=torch.float64) - 1
    for network in (plain, normalised):
        network(p).square().sum().backward()
    known = dict(plain.named_parameters())
    for name, v in normalised.named_parameters():
        if name in known and v.ndim > 1 and v.numel():
            assert v.grad is not None
            along = (v.grad * v).sum(-1)
            assert bool((along.abs() <= 1e-12 * v.grad.norm() * v.norm()).all()), name
            assert v.grad.norm() > 0
    weight, direction = known["output_weight"], dict(normalised.named_parameters())["output_weight"].detach()
    length = dict(normalised.named_parameters())["output_length"]
    assert weight.grad is not None
    torch.testing.assert_close(length.grad, (weight.grad * direction).sum(-1) / direction.norm(dim=-1))


def test_weight_norm_of_a_row_that_is_drawn_as_zeros_is_finite() -> None:
    network = SIREN(2, 3, reach=5, weight_norm=True)
    with torch.no_grad():
        network.output_weight[1].zero_()
    set_length(network.output_length, network.output_weight)
    values = network(torch.rand(4, 2))
    values.sum().backward()
    assert bool((values[:, 1] == network.output_bias[1]).all())
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("make", [SIREN, MLP])
def test_weight_norm_must_be_true_or_false(make: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="`weight_norm` must be True or False; got int 1"):
        make(1, 4, reach=4, weight_norm=1)
