"""The symmetries of shapes whose poses are known."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from sklearn.metrics import roc_auc_score
from torch import Tensor

import omniconv as oc
from omniconv.groups import SO2, transform
from omniconv.models import PoseAutoencoder
from omniconv.symmetry import Cyclic, Family, Gaussian, Symmetries, Uniform, find_symmetries
from omniconv.symmetry.finding import disk, loss_of, standardize
from omniconv.symmetry.found import OWN, brought_down, most_alike

COUNT, SMALL, LARGE = 320, math.radians(30), math.radians(90)
QUICK: dict[str, Any] = {"neighbours": 5, "epochs": 1, "batch_size": 16}


def shapes(kinds: Tensor, angles: Tensor, size: int = 16) -> Tensor:
    """Images of two shapes, neither the same after any turn, each turned by its angle."""
    first, second = [(-0.5, 0.0, 1.0), (0.0, 0.0, 0.6), (0.35, 0.3, 0.8)], [(-0.4, 0.3, 1.0), (0.2, 0.3, 0.5)]
    spots = torch.tensor([first, [*second, (0.4, -0.2, 0.3)]])[kinds]
    c, s = angles.cos()[:, None], angles.sin()[:, None]
    row, column = c * spots[..., 0] - s * spots[..., 1], s * spots[..., 0] + c * spots[..., 1]
    axis = torch.linspace(-1, 1, size)
    far = (axis[:, None, None] - row[:, None, None]) ** 2 + (axis[None, :, None] - column[:, None, None]) ** 2
    return (spots[:, None, None, :, 2] * torch.exp(-18 * far)).sum(-1)[:, None]


def turned() -> tuple[Tensor, Tensor]:
    """Kinds, of which the one turns by up to 30 and the other by up to 90 degrees; and the angles."""
    kinds = torch.arange(COUNT) % 2
    drawn = 2 * torch.rand(COUNT, generator=torch.Generator().manual_seed(1)) - 1
    return kinds, drawn * torch.where(kinds == 0, SMALL, LARGE)


@pytest.fixture(scope="module")
def found() -> Symmetries:
    return find_symmetries(shapes(*turned()), neighbours=25, epochs=24, batch_size=40, centring=1.0)


def test_every_kind_has_its_level(found: Symmetries) -> None:
    kinds, _ = turned()
    assert isinstance(found.family, Uniform)
    levels = torch.rad2deg(found.levels[:, 0])
    assert abs(levels[kinds == 0].median().item() - 30) < 5
    assert abs(levels[kinds == 1].median().item() - 90) < 12


def test_poses_are_right_up_to_the_centre_of_a_kind(found: Symmetries) -> None:
    kinds, angles = turned()
    for kind in (0, 1):
        apart = torch.rad2deg(found.poses[:, 0] - angles)[kinds == kind]
        assert (apart - apart.median()).abs().quantile(0.9) < 2
        assert apart.median().abs() < 20  # where the training puts the centre of what is turned evenly


def test_what_is_turned_farther_is_foreign(found: Symmetries) -> None:
    kinds, angles = turned()
    far = shapes(kinds, angles.sign() * (torch.where(kinds == 0, SMALL, LARGE) + 0.4))
    near = shapes(kinds, 0.9 * angles)
    scores = torch.cat([found.compare(far).excess, found.compare(near).excess])
    assert roc_auc_score([1] * COUNT + [0] * COUNT, scores) > 0.95
    assert (found.compare(near).excess > 0).double().mean() < 0.1


def test_images_are_turned_back(found: Symmetries) -> None:
    kinds, angles = turned()
    x = shapes(kinds, angles)
    upright = found.standardize(x)
    for kind in (0, 1):
        assert upright[kinds == kind].std(0).mean() < 0.2 * x[kinds == kind].std(0).mean()
    again = found.standardize(transform(x, SO2(), torch.tensor([torch.pi / 2])))
    assert (again - upright).abs().mean() < 0.02 * upright.abs().max()


def test_larger_images_of_the_same_are_taken_too() -> None:
    kinds, angles = turned()
    found = find_symmetries(shapes(kinds[:40], angles[:40], size=32), resolution=16, **QUICK)
    assert found.model.size == (16, 16)
    large, small = shapes(kinds, angles, size=32), shapes(kinds, angles, size=16)
    assert (found.encode(large)[1] - found.encode(small)[1]).abs().median() < 0.1
    assert found.standardize(large).shape == large.shape
    odd = shapes(kinds[:3], angles[:3], size=15)  # a sample less is no other shape
    assert found.encode(odd)[0].shape == found.encode(small[:3])[0].shape
    with pytest.raises(ValueError, match=r"proportions in which symmetries were found, those of \(16, 16\)"):
        found.encode(torch.zeros(1, 1, 16, 12))


def test_a_file_brings_all_of_it_back(found: Symmetries, tmp_path: Path) -> None:
    found.save(tmp_path)
    again, x = Symmetries.load(tmp_path), shapes(*turned())[:7]
    assert str(again) == str(found)
    assert torch.equal(again.compare(x).excess, found.compare(x).excess)
    assert torch.equal(again.standardize(x), found.standardize(x))
    (tmp_path / "symmetries.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"symmetries\.safetensors is not a sound safetensors file"):
        Symmetries.load(tmp_path)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config.json"):
        Symmetries.load(tmp_path)
    oc.CCNN(1, 2, (4, 4), blocks=1, width=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tells of no symmetries"):
        Symmetries.load(tmp_path)


class Still(Family):
    """Angles that are all zero."""

    numbers = ("nothing",)

    def _estimate(self, angles: Tensor) -> Tensor:
        return torch.zeros_like(angles[..., :1])

    def _density(self, angles: Tensor, level: Tensor) -> Tensor:
        return torch.zeros_like(angles)

    def _excess(self, angle: Tensor, level: Tensor) -> Tensor:
        return angle.abs()

    def tell(self, level: Tensor) -> str:
        return "still"


def test_a_family_of_ones_own_is_given_again(tmp_path: Path) -> None:
    found = find_symmetries(shapes(*turned())[:40], family=Still(), **QUICK)
    assert (found.levels == 0).all()
    assert "still" in str(found)
    found.save(tmp_path)
    with pytest.raises(ValueError, match=r"'Still' that is not the library's own. Give it: load\(folder, family=...\)"):
        Symmetries.load(tmp_path)
    assert str(Symmetries.load(tmp_path, family=Still())) == str(found)


def test_a_family_that_does_not_fit_its_file_is_named(found: Symmetries, tmp_path: Path) -> None:
    found.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["symmetries"]["family"] = {"class": "Cyclic", "most": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not fit Cyclic: `most`"):
        Symmetries.load(tmp_path)


def test_the_same_seed_finds_the_same_and_no_generator_moves() -> None:
    x = shapes(*turned())[:40]
    torch.manual_seed(5)
    first = find_symmetries(x, **QUICK)
    drawn = torch.rand(1)
    torch.manual_seed(6)
    second = find_symmetries(x, **QUICK)
    assert torch.equal(first.poses, second.poses)
    assert torch.equal(first.codes, second.codes)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    assert not torch.equal(find_symmetries(x, seed=1, **QUICK).poses, first.poses)


def test_progress_is_told_and_a_family_may_be_given() -> None:
    seen: list[tuple[int, int]] = []
    x = shapes(*turned())[:40].double()
    found = find_symmetries(
        x, family=Gaussian(), progress=lambda done, total, loss: seen.append((done, total)), **QUICK
    )
    assert seen == [(1, 2), (2, 2)]
    assert found.family == Gaussian()
    assert list(found.evidence) == [kind.__name__ for kind in OWN]
    assert found.standardize(x).dtype == torch.float64


def test_a_figure_shows_it(found: Symmetries, tmp_path: Path) -> None:
    figure = found.figure(shapes(*turned()))
    assert [axes.get_xlabel() for axes in figure.axes] == ["pose in degrees", "half width in degrees", ""]
    heights: Any = figure.axes[0].patches
    assert sum(patch.get_height() for patch in heights) == COUNT


def test_neighbours_are_those_of_the_largest_cosine() -> None:
    codes = torch.nn.functional.normalize(torch.randn(2500, 3, dtype=torch.float64), dim=1)
    expected = (codes @ codes.T).fill_diagonal_(-2).topk(4, dim=1).indices
    assert torch.equal(most_alike(codes, codes, 4, own=True), expected)
    assert torch.equal(most_alike(codes[:5], codes, 1, own=False)[:, 0], torch.arange(5))


def test_signals_of_the_data_set_are_found_again(found: Symmetries) -> None:
    codes, poses = found.encode(shapes(*turned()))
    torch.testing.assert_close(codes, found.codes)
    torch.testing.assert_close(poses, found.poses)
    assert found.compare(shapes(*turned())[:0]).excess.shape == (0,)
    assert found.standardize(shapes(*turned())[:0]).shape == (0, 1, 16, 16)


def test_what_all_signals_have_in_common_changes_nothing() -> None:
    x = shapes(*turned())[:40]
    plain, lifted = find_symmetries(x, **QUICK), find_symmetries(4 * x + 3, **QUICK)
    assert (plain.poses - lifted.poses).abs().max() < 0.02


def test_the_loss_counts_in_the_unit_of_the_signals() -> None:
    x, losses = shapes(*turned())[:20], []
    for factor in (1.0, 100.0):
        torch.manual_seed(0)
        model = PoseAutoencoder(1, (16, 16), samples=8, width=4)
        standardize(model, factor * x)
        losses.append(loss_of(model, factor * x, disk(x), centring=0.5).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_disk_is_what_stays_in_an_image_that_turns() -> None:
    seen = disk(torch.zeros(1, 1, 5, 7))
    assert seen.sum() == 13  # of radius 2
    assert seen[2].tolist() == [0, 1, 1, 1, 1, 1, 0]


def test_fine_stripes_are_smoothed_when_brought_down() -> None:
    stripes = (torch.arange(27) % 3 == 1).float().expand(1, 1, 27, 27)
    small = brought_down(stripes, 9)
    assert small.shape == (1, 1, 9, 9)
    assert (small - 1 / 3).abs().max() < 0.2
    assert brought_down(torch.zeros(1, 1, 60, 30), 20).shape == (1, 1, 20, 10)


def test_signals_that_are_there_many_times_have_levels() -> None:
    x = shapes(*turned())[:8].repeat(8, 1, 1, 1)
    found = find_symmetries(x, **QUICK)
    assert found.levels.isfinite().all()
    assert all(math.isfinite(value) for value in found.evidence.values())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_mode_of_the_caller_does_not_matter(mode: Any) -> None:
    x = shapes(*turned())[:40]
    with mode():
        quiet = find_symmetries(x + 0, **QUICK)
    assert torch.equal(quiet.poses, find_symmetries(x, **QUICK).poses)


def test_a_given_family_stands_for_the_librarys() -> None:
    found = find_symmetries(shapes(*turned())[:40], family=Cyclic(most=3), **QUICK)
    assert found.family == Cyclic(most=3)
    assert list(found.evidence) == [kind.__name__ for kind in OWN]


def damaged_tensors(change: Callable[[dict[str, Tensor]], object], folder: Path) -> None:
    """Other tensors in the file, with their checksum in the configuration."""
    tensors = load_file(folder / "symmetries.safetensors")
    change(tensors)
    data = save(tensors)
    (folder / "symmetries.safetensors").write_bytes(data)
    config = json.loads((folder / "config.json").read_text())
    config["symmetries"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


def test_files_of_another_run_are_refused(found: Symmetries, tmp_path: Path) -> None:
    found.save(tmp_path)
    tensors = load_file(tmp_path / "symmetries.safetensors")
    (tmp_path / "symmetries.safetensors").write_bytes(save(tensors | {"poses": -tensors["poses"]}))
    with pytest.raises(ValueError, match="does not have the checksum"):
        Symmetries.load(tmp_path)
    damaged_tensors(lambda tensors: tensors.update(levels=tensors["levels"].repeat(1, 2)), tmp_path)
    with pytest.raises(ValueError, match="of another shape"):
        Symmetries.load(tmp_path)
    damaged_tensors(lambda tensors: tensors.pop("levels"), tmp_path)
    with pytest.raises(ValueError, match=r"missing \['levels'\]"):
        Symmetries.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("neighbours", "a", "config.json is damaged: `neighbours` must be an integer"),
        ("evidence", ["a"], "config.json is damaged"),
        ("family", {"class": ["a"]}, r"\['a'\].* that is not the library's own"),
        ("family", None, "that is not the library's own"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(
    found: Symmetries, tmp_path: Path, name: str, value: Any, message: str
) -> None:
    found.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["symmetries"][name] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        Symmetries.load(tmp_path)


def test_another_family_than_that_of_the_file_is_refused(found: Symmetries, tmp_path: Path) -> None:
    found.save(tmp_path)
    assert Symmetries.load(tmp_path, family=Uniform()).family == Uniform()
    with pytest.raises(ValueError, match="`family` must be the Uniform of which"):
        Symmetries.load(tmp_path, family=Gaussian())


def test_nan_does_not_pass_for_an_upright_image(found: Symmetries) -> None:
    for call in (found.encode, found.compare, found.standardize):
        with pytest.raises(ValueError, match="`x` must be finite"):
            call(torch.full((2, 1, 16, 16), math.nan))


def test_a_channel_that_shows_nothing_does_no_harm() -> None:
    x = shapes(*turned())[:40]
    found = find_symmetries(torch.cat([x, torch.full_like(x, 3.0)], 1), **QUICK)
    assert found.poses.isfinite().all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: find_symmetries(x[:, 0]), ValueError, "`x` must be images"),
        (lambda x: find_symmetries(x.long()), TypeError, "`x` must hold floating-point numbers"),
        (lambda x: find_symmetries(x), ValueError, "`x` must hold at least 47 signals, 2 more than `neighbours`"),
        (lambda x: find_symmetries(x * math.nan, **QUICK), ValueError, "`x` must be finite"),
        (lambda x: find_symmetries(x * 0 + 1, **QUICK), ValueError, "must not be the same everywhere"),
        (lambda x: find_symmetries(x, neighbours=1), ValueError, "`neighbours` must be at least 2"),
        (lambda x: find_symmetries(x, **(QUICK | {"batch_size": 1})), ValueError, "`batch_size` must be at least 2"),
        (lambda x: find_symmetries(x, **(QUICK | {"epochs": 0})), ValueError, "`epochs` must be at least 1"),
        (lambda x: find_symmetries(x, lr=0.0, **QUICK), ValueError, "`lr` must be"),
        (
            lambda x: find_symmetries(x, lr=1e30, **(QUICK | {"epochs": 9})),
            oc._errors.NonFiniteError,
            "the loss became",
        ),
        (lambda x: find_symmetries(x, centring=-1.0, **QUICK), ValueError, "`centring` must be"),
        (lambda x: find_symmetries(x, resolution=3, **QUICK), ValueError, "`resolution` must be at least 4"),
        (lambda x: find_symmetries(x, **(QUICK | {"family": "uniform"})), TypeError, "`family` must be a Family"),
        (lambda x: find_symmetries(x, seed=-1, **QUICK), ValueError, "`seed` must be at least 0"),
        (lambda x: find_symmetries(x, seed=2**63, **QUICK), ValueError, "`seed` must be at most"),
        (
            lambda x: find_symmetries(x, lr=1e30, **(QUICK | {"batch_size": 40})),
            oc._errors.NonFiniteError,
            "the last step",
        ),
        (lambda x: find_symmetries(x, device="foo", **QUICK), ValueError, "`device` must be one that torch knows"),
        (lambda x: find_symmetries(x, **(QUICK | {"progress": 3})), TypeError, "`progress` must be a function"),
        (lambda x: find_symmetries(x[..., :3], **QUICK), ValueError, "at least 4 samples a side"),
        (lambda x: find_symmetries(x[..., :4], resolution=8, **QUICK), ValueError, "at the `resolution` of 8 too"),
    ],
)
def test_what_is_wrong_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(shapes(*turned())[:40])
