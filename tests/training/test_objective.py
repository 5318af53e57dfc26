from __future__ import annotations

import pytest
import torch

from omniconv.groups import SO2
from omniconv.models import GCNN
from omniconv.nn import aliasing, all_pass, kernel_norm
from omniconv.training import Recipe
from omniconv.training.objective import PENALTIES, Objective
from tests.training.makers import TASK, convolutions, network

X = torch.randn(4, 1, 20, generator=torch.Generator().manual_seed(0))
ENCODED = torch.tensor([0, 1, 1, 0])


def test_the_loss_is_the_sum_over_samples_of_the_cross_entropy() -> None:
    model = network().eval()
    losses, penalty = Objective(model, TASK, penalties={"kernel_norm": 0.0})(X, None, ENCODED)
    logs = model(X).log_softmax(1)
    torch.testing.assert_close(losses, -sum(logs[row, label] for row, label in enumerate(ENCODED.tolist())))
    assert penalty.item() == 0.0


@pytest.mark.parametrize("weight", [0.01, 2.0])
def test_the_penalty_is_the_sum_of_squares_of_the_taps_of_every_convolution(weight: float) -> None:
    model = network()
    _, penalty = Objective(model, TASK, penalties={"kernel_norm": weight})(X, None, ENCODED)
    squares = sum(conv.taps().square().sum().item() for conv in convolutions(model))
    assert len(convolutions(model)) == 2
    assert squares > 0
    assert penalty.item() == pytest.approx(weight * squares, rel=1e-5)


def test_the_penalties_are_weighted_and_added() -> None:
    model = network()
    for module in convolutions(model):
        with torch.no_grad():
            module.kernel.get_parameter("frequency").mul_(8.0)  # above the grid's
    parts = {"kernel_norm": kernel_norm, "all_pass": all_pass, "antialias": aliasing}
    alone = {name: penalty(model).item() for name, penalty in parts.items()}
    assert min(alone.values()) > 0
    for name, value in alone.items():
        _, penalty = Objective(model, TASK, penalties={name: 0.3})(X, None, ENCODED)
        assert penalty.item() == pytest.approx(0.3 * value)
    _, penalty = Objective(model, TASK, penalties={"kernel_norm": 0.2, "all_pass": 0.3, "antialias": 0.5})(
        X, None, ENCODED
    )
    expected = 0.2 * alone["kernel_norm"] + 0.3 * alone["all_pass"] + 0.5 * alone["antialias"]
    assert penalty.item() == pytest.approx(expected)


def test_the_penalty_has_a_gradient_for_kernels_and_supports() -> None:
    model = network()
    _, penalty = Objective(model, TASK, penalties={"kernel_norm": 1.0})(X, None, ENCODED)
    penalty.backward()
    moved = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert {"stem.support.width_logit", "blocks.0.conv.support.width_logit"} <= moved
    assert not {name for name in moved if name.startswith(("head", "norm", "stem_norm", "blocks.0.norm"))}


def test_without_targets_it_gives_the_outputs_of_the_network() -> None:
    model = network().eval()
    mask = torch.arange(20) < torch.tensor([[20], [7], [12], [20]])
    assert torch.equal(Objective(model, TASK, penalties={"kernel_norm": 1.0})(X), model(X))
    assert torch.equal(Objective(model, TASK, penalties={"kernel_norm": 1.0})(X, mask), model(X, mask=mask))


def test_what_lies_behind_a_mask_changes_neither_loss_nor_gradient() -> None:
    mask = torch.arange(20) < torch.tensor([[20], [7], [12], [20]])
    found = []
    for filling in (0.0, 1e3):
        model = network()
        losses, _ = Objective(model, TASK)(torch.where(mask[:, None], X, filling), mask, ENCODED)
        losses.backward()
        found.append((losses, [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(found[0], found[1])


def test_penalties_of_groups_are_weighted_and_added() -> None:
    model = GCNN(1, 2, (9, 9), group=SO2(), samples=4, widths=(2,), blocks=(1,), reach=1, partial=0.6, relaxed=1)
    names = ("admissibility", "narrowness", "relaxation")
    alone = {name: PENALTIES[name](model).item() for name in names}
    assert min(alone.values()) > 0
    given = {name: 0.3 * (i + 1) for i, name in enumerate(names)}
    _, penalty = Objective(model, TASK, penalties=given)(torch.randn(4, 1, 9, 9), None, ENCODED)
    assert penalty.item() == pytest.approx(sum(given[name] * alone[name] for name in names))


def test_a_penalty_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"`penalties` must be one of .*kernel_norm.*; got 'smoothness'"):
        Objective(network(), TASK, penalties={"smoothness": 1.0})


def test_a_recipe_has_a_factor_for_every_penalty() -> None:
    recipe = Recipe(narrowness=0.03, antialias=2)
    assert recipe.penalties == dict.fromkeys(PENALTIES, 0.0) | {"narrowness": 0.03, "antialias": 2.0}
    with pytest.raises(ValueError, match="`relaxation` must be finite and at least 0"):
        Recipe(relaxation=-1.0)
