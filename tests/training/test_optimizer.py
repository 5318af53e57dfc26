from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from omniconv import CCNN, SIREN, Gabor, Gaussian
from omniconv._tags import Tag, Tagged
from omniconv.kernels import KernelFactory
from omniconv.training import build_optimizer, warmup_cosine


class Asking(Tagged, nn.Module):
    """A module whose parameters ask for all that they can."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = nn.Parameter(torch.ones(2, 2))
        self.kept = nn.Parameter(torch.ones(2, 2))
        self.shrunk = nn.Parameter(torch.ones(3))
        self.usual = nn.Linear(2, 2)

    def parameter_tags(self) -> dict[str, Tag]:
        return {"slow": Tag(lr_scale=0.1), "kept": Tag(decay=False), "shrunk": Tag(lr_scale=2.0)}


def settings(model: nn.Module, *, lr: float = 0.01, weight_decay: float = 0.5) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter, by name; raises if one is there twice."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[float, float]] = {}
    for group in build_optimizer(model, lr=lr, weight_decay=weight_decay).param_groups:
        for parameter in group["params"]:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    return found


def test_parameters_get_what_their_tags_ask_for_and_others_by_their_axes() -> None:
    model = nn.Sequential(Asking(), nn.Conv1d(2, 2, 3))
    assert settings(model, lr=0.25, weight_decay=0.5) == {
        "0.slow": (0.025, 0.5),
        "0.kept": (0.25, 0.0),
        "0.shrunk": (0.5, 0.5),
        "0.usual.weight": (0.25, 0.5),
        "0.usual.bias": (0.25, 0.0),
        "1.weight": (0.25, 0.5),
        "1.bias": (0.25, 0.0),
    }


def test_a_group_per_kind_of_training() -> None:
    groups = build_optimizer(nn.Sequential(Asking(), nn.Linear(2, 2)), lr=1.0, weight_decay=0.5).param_groups
    kinds = [(group["lr"], group["weight_decay"]) for group in groups]
    assert sorted(kinds) == [(0.1, 0.5), (1.0, 0.0), (1.0, 0.5), (2.0, 0.5)]


def test_one_step_is_that_of_adamw_with_these_rates() -> None:
    # The first step of AdamW is theta <- theta (1 - lr decay) - lr sign(gradient), up to its epsilon.
    model = Asking()
    optimizer = build_optimizer(model, lr=0.01, weight_decay=0.5)
    model.slow.grad, model.kept.grad, model.shrunk.grad = torch.ones(2, 2), -torch.ones(2, 2), torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(model.slow.detach(), torch.full((2, 2), 1 - 0.001 * 0.5 - 0.001))
    torch.testing.assert_close(model.kept.detach(), torch.full((2, 2), 1 + 0.01))
    torch.testing.assert_close(model.shrunk.detach(), torch.full((3,), 1 - 0.02 * 0.5 - 0.02))


def test_frozen_parameters_are_left_out() -> None:
    model = Asking()
    model.slow.requires_grad_(False)
    model.usual.bias.requires_grad_(False)
    assert set(settings(model)) == {"kept", "shrunk", "usual.weight"}


def test_a_shared_parameter_is_trained_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert settings(model) == {"0.weight": (0.01, 0.5), "0.bias": (0.01, 0.0), "1.bias": (0.01, 0.0)}


@pytest.mark.parametrize("kernel", [Gabor, SIREN])
@pytest.mark.parametrize("mixing", ["separable", "dense"])
def test_a_network_trains_every_parameter_once_and_decays_matrices_of_channels_alone(
    kernel: KernelFactory, mixing: str
) -> None:
    support = partial(Gaussian, learn_mean=True)
    model = CCNN(2, 3, (6, 6), blocks=2, width=4, kernel=kernel, support=support, mixing=mixing)
    found = settings(model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert {lr for lr, _ in found.values()} == {0.01}
    of_kernels = {name for name in found if ".kernel." in name or ".support." in name}
    assert {name.rpartition(".")[2] for name in of_kernels} >= {
        "frequency",
        "output_weight",
        "width_logit",
        "mean_logit",
    }
    decayed = {name for name, (_, decay) in found.items() if decay == 0.5}
    linear = {"blocks.0.linear.weight", "blocks.1.linear.weight", "head.readout.weight"}
    mixers = {"stem.mixer.weight", "blocks.0.conv.mixer.weight", "blocks.1.conv.mixer.weight"}
    assert decayed == (linear | mixers if mixing == "separable" else linear)
    assert not decayed & of_kernels
    assert {found[name][1] for name in set(found) - decayed} == {0.0}


@pytest.mark.parametrize(
    ("lr", "kind", "message"),
    [
        (0.0, ValueError, "`lr` must be finite and above 0; got 0.0"),
        (-1.0, ValueError, "`lr` must be finite and above 0; got -1.0"),
        (math.nan, ValueError, "`lr` must be finite and above 0; got nan"),
        ("0.1", TypeError, "`lr` must be a number; got str '0.1'"),
    ],
)
def test_a_learning_rate_out_of_range_is_refused(lr: float, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        build_optimizer(nn.Linear(2, 2), lr=lr)


def rates(steps: int, warmup: int, extra: int = 0, lr: float = 1.0) -> list[float]:
    """The learning rate at each step, and after the last."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=lr)
    schedule = warmup_cosine(optimizer, steps=steps, warmup=warmup)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps + extra):
        optimizer.step()
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (8, 0), (10, 1), (10, 4), (5, 4)])
def test_the_rate_grows_in_a_line_and_falls_by_half_a_cosine(steps: int, warmup: int) -> None:
    growing = [(step + 1) / (warmup + 1) for step in range(warmup)]
    falling = [0.5 * (1 + math.cos(math.pi * s / (steps - warmup))) for s in range(steps - warmup + 1)]
    found = rates(steps, warmup, lr=0.3)
    assert found == pytest.approx([0.3 * factor for factor in growing + falling], abs=1e-15)
    assert found[warmup] == 0.3
    assert max(found) == 0.3
    assert found[-1] == pytest.approx(0.0, abs=1e-15)
    assert min(found[:-1]) > 0


def test_halfway_down_the_rate_is_half() -> None:
    assert rates(steps=12, warmup=2)[7] == pytest.approx(0.5)


def test_every_group_keeps_its_share_of_the_rate() -> None:
    optimizer = build_optimizer(Asking(), lr=0.2)
    schedule = warmup_cosine(optimizer, steps=6, warmup=2)
    initial = [group["initial_lr"] for group in optimizer.param_groups]
    assert sorted(set(initial)) == pytest.approx([0.02, 0.2, 0.4])
    for factor in (1 / 3, 2 / 3, 1.0, 0.5 * (1 + math.cos(math.pi / 4))):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([factor * lr for lr in initial])
        optimizer.step()
        schedule.step()


def test_a_resumed_schedule_continues_exactly() -> None:
    def fresh() -> tuple[Tensor, torch.optim.Optimizer]:
        parameter = nn.Parameter(torch.zeros(()))
        return parameter, torch.optim.SGD([parameter], lr=1.0)

    (_, first), (_, second) = fresh(), fresh()
    schedule = warmup_cosine(first, steps=9, warmup=2)
    for _ in range(4):
        first.step()
        schedule.step()
    resumed = warmup_cosine(second, steps=9, warmup=2)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    second.step()
    resumed.step()
    assert second.param_groups[0]["lr"] == rates(steps=9, warmup=2)[5]


@pytest.mark.parametrize(
    ("steps", "warmup", "message"),
    [
        (0, 0, "`steps` must be at least 1; got 0"),
        (5, -1, "`warmup` must be at least 0; got -1"),
        (5, 5, r"`warmup` \(=5\) must be below `steps` \(=5\)"),
        (5, 7, r"`warmup` \(=7\) must be below `steps` \(=5\)"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(steps: int, warmup: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warmup_cosine(torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0), steps=steps, warmup=warmup)
