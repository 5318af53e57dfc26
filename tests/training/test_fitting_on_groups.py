"""Networks on a group by its name: how they are built, what they refuse, and that training leaves them symmetric."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from omniconv import CCNN
from omniconv.data import ArraySamples, CloudSamples, Samples, TimedSamples
from omniconv.groups import SO2
from omniconv.models import GCNN, WaveletNet
from omniconv.nn import GroupConv, LiftingConv
from omniconv.supports import Gaussian
from omniconv.symmetry import equivariance_report
from omniconv.training import Architecture, Classification, Interrupted, Predictor, Recipe, Run, choose, fit, train
from omniconv.training.groups import GROUPS, narrowed

Array = NDArray[Any]
DIGITS = Classification(tuple(range(10)))
SMALL: dict[str, Any] = {"blocks": 1, "width": 8}
RECIPE = Recipe(epochs=3, batch_size=32)


def digits(count: int = 160) -> ArraySamples:
    """Upright digits, 8 x 8."""
    images, labels = load_digits(return_X_y=True)
    return ArraySamples(images[:count].reshape(-1, 1, 8, 8), labels[:count])


def turned(samples: ArraySamples, quarters: int = 1) -> ArraySamples:
    """The same images, turned by quarters."""
    return ArraySamples(np.rot90(np.asarray(samples.signals), quarters, (2, 3)).copy(), samples.targets)


def images(*sizes: tuple[int, ...]) -> ArraySamples:
    """Noise of these sizes, of two classes in turn."""
    random = np.random.default_rng(0)
    return ArraySamples([random.standard_normal((1, *size)) for size in sizes], np.arange(len(sizes)) % 2)


@pytest.fixture(scope="module")
def fitted() -> Predictor:
    """A network on four turns, trained on upright digits."""
    return fit(digits(), DIGITS, Architecture(**SMALL, group="SO2", group_samples=4), RECIPE)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_probabilities_of_digits_do_not_change_when_they_are_turned(fitted: Predictor, quarters: int) -> None:
    upright = digits()
    shares = fitted.probabilities(upright)
    assert np.abs(shares - fitted.probabilities(turned(upright, quarters))).max() <= 1e-5
    assert fitted.about["final_loss"] < math.log(10)  # it did learn
    assert np.ptp(shares, axis=0).max() > 0.1


def test_without_a_group_they_do() -> None:
    plain = fit(digits(), DIGITS, Architecture(**SMALL), RECIPE)
    assert np.abs(plain.probabilities(digits()) - plain.probabilities(turned(digits()))).max() > 0.1
    assert "symmetry" not in plain.about


def test_what_is_told_of_the_symmetry_is_measured_on_training_samples(fitted: Predictor, tmp_path: Path) -> None:
    samples = digits()
    x = torch.from_numpy(np.stack([samples[index] for index in (0, 53, 106, 159)]))
    report = equivariance_report(fitted.model, x, SO2(), count=16)
    assert fitted.about["symmetry"] == {
        "group": "SO2",
        "elements": 4,
        "moves": 16,
        "mean_error": pytest.approx(report.errors.mean().item(), rel=1e-4),
        "largest_error": pytest.approx(report.errors.max().item(), rel=1e-4),
    }
    fitted.save(tmp_path)
    assert "| symmetry | group SO2, elements 4, moves 16, mean error " in (tmp_path / "README.md").read_text()


def test_a_saved_network_on_a_group_predicts_what_it_predicted(fitted: Predictor, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = Predictor.load(tmp_path, device="cpu")
    assert loaded.about == fitted.about
    assert torch.equal(loaded.outputs(digits()), fitted.outputs(digits()))


def test_a_training_that_was_stopped_ends_with_the_same_weights(tmp_path: Path) -> None:
    architecture = Architecture(**SMALL, group="SO2", group_samples=4)
    recipe = Recipe(epochs=1, batch_size=32)
    whole = fit(digits(), DIGITS, architecture, recipe)
    with pytest.raises(Interrupted):
        fit(digits(), DIGITS, architecture, recipe, run=Run(folder=tmp_path, time_limit=0.0))
    parts = fit(digits(), DIGITS, architecture, recipe, run=Run(folder=tmp_path, resume=True))
    expected, found = whole.model.state_dict(), parts.model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_every_group_is_exact_for_quarter_turns_with_its_own_number_of_elements(name: str) -> None:
    axes = GROUPS[name].axes
    architecture = Architecture(blocks=1, width=2, group=name)
    model = architecture.build(1, 3, (6,) * axes).double().eval()
    assert isinstance(model, CCNN)
    assert model.arguments["samples"] == architecture.elements == GROUPS[name].samples
    x = torch.randn(2, 1, *(6,) * axes, dtype=torch.float64)
    y = model(x)
    moved = [x.rot90(1, (i, j)) for i in range(2, 2 + axes) for j in range(i + 1, 2 + axes)]
    for turn in moved:
        torch.testing.assert_close(model(turn), y, rtol=1e-10, atol=1e-10)
    mirrored = (model(x.flip(2)) - y).abs().max().item()
    assert (mirrored < 1e-10) == (name == "O2")


def test_supports_begin_as_wide_as_without_a_group_on_the_longest_axis() -> None:
    model = Architecture(blocks=1, width=4, group="SO2", group_samples=4).build(2, 3, (100, 16))
    layers = [module for module in model.modules() if isinstance(module, (LiftingConv, GroupConv))]
    assert len(layers) == 2
    for layer in layers:
        assert layer.reach == 50
        assert isinstance(layer.support, Gaussian)
        torch.testing.assert_close(layer.support.width.detach(), torch.full((2,), 1.35 * 50**0.25 / 50))


@pytest.mark.parametrize(
    ("width", "elements", "expected"), [(48, 8, 17), (32, 8, 11), (96, 16, 24), (32, 24, 8), (48, 1, 48), (4, 8, 4)]
)
def test_the_width_falls_with_the_root_of_the_elements_to_eight_at_least(
    width: int, elements: int, expected: int
) -> None:
    assert narrowed(width, elements) == expected


def test_what_is_chosen_for_a_group_differs_in_width_and_bandwidth_alone() -> None:
    plain, recipe = choose(digits(), "standard")
    on_group, same = choose(digits(), "standard", group="SO2", group_samples=4)
    assert on_group == Architecture(blocks=plain.blocks, width=24, bandwidth=0.5, group="SO2", group_samples=4)
    assert same == recipe
    assert choose(digits(), group="O2")[0].width == 12  # of 16 elements


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "SO4"}, "`group` must be one of 'SO2', 'O2', 'SO3'; got 'SO4'"),
        ({"group_samples": 4}, "`group_samples` counts elements of a `group`, and there is none; got 4. Give a group"),
        ({"group": "SO2", "group_samples": 1}, "`group_samples` must be at least 2; got 1"),
        ({"group": "O2", "group_samples": 5}, "`group_samples` must be a multiple of 2 for O2, half of whose .* got 5"),
        ({"group": "SO2", "causal": True}, "`causal` and `group` exclude each other: .* Leave one of them out"),
        ({"group": "SO2", "head": "last"}, '`head` "last" and `group` exclude each other: .* Use head="pool"'),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(**options)


POINTS = CloudSamples(np.zeros((4, 9, 2)), np.zeros((4, 1, 9)), np.arange(4) % 2)
SERIES = ArraySamples(np.zeros((4, 1, 9)), np.arange(4) % 2)
AXES = "`group` must act on the axes of the signals; '{}' acts on {}, and these have {}. {}"


@pytest.mark.parametrize(
    ("samples", "group", "message"),
    [
        (SERIES, "SO2", AXES.format("SO2", 2, 1, "Leave it out")),
        (digits(4), "SO3", AXES.format("SO3", 3, 2, "Give 'SO2' or 'O2', or leave it out")),
        (ArraySamples(np.zeros((4, 1, 3, 3, 3))), "O2", AXES.format("O2", 2, 3, "Give 'SO3', or leave it out")),
        (POINTS, "SO2", "`group` is for signals on a grid; got 'SO2' for clouds of points. Leave it out"),
        (TimedSamples(SERIES), "SO2", "`group` is for signals on a grid; got 'SO2' for series with times. Leave"),
        (
            images((8, 8), (8, 9)),
            "SO2",
            "`samples` must all have one size for a network on a group, which takes no mask; got 8 to 8 x 8 to 9. "
            "Bring them to one size, or train without `group`",
        ),
    ],
)
def test_samples_that_a_group_does_not_suit_are_refused_before_they_are_read(
    samples: Samples, group: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(samples), "__getitem__", lambda self, index: pytest.fail("a sample was read"))
    with pytest.raises(ValueError, match=message):
        choose(samples, group=group)
    with pytest.raises(ValueError, match=message):
        fit(samples, Classification((0, 1)), Architecture(group=group), Recipe())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (8,)}, AXES.format("SO2", 2, 1, "Leave it out")),
        ({"size": (1, 1), "space": 2}, "`group` is for signals on a grid; got 'SO2' for clouds of points"),
        ({"size": (9,), "span": 3.0}, "`group` is for signals on a grid; got 'SO2' for series with times"),
    ],
)
def test_a_network_that_a_group_does_not_suit_is_not_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(group="SO2").build(1, 2, **options)


@pytest.mark.parametrize(
    "model", [GCNN(1, 2, 8, group=SO2(), samples=2, widths=(2,)), CCNN(1, 2, (8, 8), blocks=1, group=SO2(), samples=2)]
)
def test_a_network_on_a_group_of_ones_own_is_not_trained_on_unequal_sizes(model: Any) -> None:
    with pytest.raises(ValueError, match="`samples` must all have one size for a network on a group"):
        train(model, Classification((0, 1)), images((8, 8), (8, 9)), recipe=RECIPE)


def test_networks_know_whether_they_take_masks() -> None:
    assert CCNN(1, 2, 9, blocks=1, width=2).takes_masks
    assert not WaveletNet(1, 2, 32, scales=2, width=2).takes_masks


def test_signals_of_unequal_sizes_are_predicted_as_each_is_alone(fitted: Predictor) -> None:
    samples = images((8, 8), (9, 12), (12, 9), (8, 8), (6, 18), (9, 12))  # four sizes, three of them of one volume
    together = fitted.outputs(samples, batch_size=3)
    alone = torch.cat([fitted.outputs(samples.subset([index])) for index in range(len(samples))])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


def test_samples_held_out_may_have_sizes_of_their_own() -> None:
    held_out = images((8, 8), (9, 7), (7, 9))
    predictor = fit(
        images(*[(8, 8)] * 8), Classification((0, 1)), Architecture(**SMALL, group="SO2", group_samples=4),
        Recipe(epochs=1, batch_size=4), validation=held_out,
    )  # fmt: skip
    assert predictor.outputs(held_out).shape == (3, 2)
