from __future__ import annotations

import math
import socket
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.data import Digits, View, load_digits
from omniconv.data.digits import resampled

datasets: Any = pytest.importorskip("sklearn.datasets")

SAMPLES = 1797
VIEWS = {
    "sequence": ((64,), True),
    "image": ((8, 8), False),
    "volume": ((8, 8, 17), False),
    "points": ((8, 8), False),
}


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


@pytest.fixture(scope="module")
def grey() -> tuple[Tensor, Tensor]:
    """What scikit-learn carries: grey values (n, 64), 0 to 16, and labels."""
    values, labels = datasets.load_digits(return_X_y=True)
    return torch.from_numpy(values), torch.from_numpy(labels)


def view_of(digits: Digits, name: str) -> View:
    (found,) = (view for view in digits.views if view.name == name)
    return found


def levels(view: View, highest: float) -> tuple[Tensor, Tensor, float, float]:
    """A view before it was centred and scaled, (train, test), with the mean and deviation that were used.

    Before that, the smallest value was 0 and the largest `highest`: two equations for the mean and the deviation.
    """
    low, high = view.train.min().item(), view.train.max().item()
    std = highest / (high - low)
    mean = -low * std
    return view.train * std + mean, view.test * std + mean, mean, std


def rows(values: Tensor) -> Counter[tuple[int, ...]]:
    """How often each row of whole numbers occurs."""
    return Counter(map(tuple, values.round().int().tolist()))


def test_the_views_and_their_shapes(digits: Digits) -> None:
    assert {view.name: (view.size, view.causal) for view in digits.views} == VIEWS
    for view in digits.views:
        if view.train_positions is None:
            assert view.train.shape == (1437, 1, *view.size)
            assert view.test.shape == (360, 1, *view.size)
        assert view.train.dtype == view.test.dtype == torch.float32
    for labels, count in ((digits.train_labels, 1437), (digits.test_labels, 360)):
        assert labels.shape == (count,)
        assert labels.dtype == torch.long


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_split_holds_out_the_same_share_of_every_digit(share: float, grey: tuple[Tensor, Tensor]) -> None:
    split = load_digits(test_share=share)
    assert len(split.test_labels) == math.ceil(share * SAMPLES)
    assert len(split.train_labels) + len(split.test_labels) == SAMPLES
    whole, held_out = grey[1].bincount(minlength=10), split.test_labels.bincount(minlength=10)
    assert torch.equal(split.train_labels.bincount(minlength=10), whole - held_out)
    assert (held_out - share * whole).abs().max() < 1


def test_every_digit_is_in_one_part_with_its_label(digits: Digits, grey: tuple[Tensor, Tensor]) -> None:
    train, test, _, _ = levels(view_of(digits, "sequence"), 16)
    pairs = [
        torch.cat([values.flatten(1), labels[:, None]], dim=1)
        for values, labels in ((train, digits.train_labels), (test, digits.test_labels))
    ]
    assert rows(torch.cat(pairs)) == rows(torch.cat([grey[0], grey[1][:, None]], dim=1))


def test_the_seed_decides_the_split(digits: Digits) -> None:
    again, other = load_digits(seed=0), load_digits(seed=1)
    assert torch.equal(again.train_labels, digits.train_labels)
    assert torch.equal(again.test_labels, digits.test_labels)
    for view, twin, stranger in zip(digits.views, again.views, other.views, strict=True):
        assert torch.equal(view.train, twin.train)
        assert torch.equal(view.test, twin.test)
        assert not torch.equal(view.test, stranger.test)
    assert not torch.equal(other.test_labels, digits.test_labels)


def test_nothing_comes_over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert len(load_digits().train_labels) == 1437


def test_no_global_random_number_is_drawn() -> None:
    before = torch.random.get_rng_state()
    load_digits(seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_image_is_the_sequence_row_by_row(digits: Digits) -> None:
    sequence, image = view_of(digits, "sequence"), view_of(digits, "image")
    assert torch.equal(image.train, sequence.train.reshape(-1, 1, 8, 8))
    assert torch.equal(image.test, sequence.test.reshape(-1, 1, 8, 8))


def test_a_column_of_the_volume_is_filled_to_the_grey_value(digits: Digits) -> None:
    image, volume = levels(view_of(digits, "image"), 16)[:2], levels(view_of(digits, "volume"), 1)[:2]
    for greys, filled in zip(image, volume, strict=True):
        binary = filled.round()
        assert set(binary.unique().tolist()) == {0.0, 1.0}
        torch.testing.assert_close(filled, binary, rtol=0, atol=1e-5)
        assert torch.equal(binary.sum(-1), greys.round() + 1)  # heights 0 to the grey value
        assert bool((binary.diff(dim=-1) <= 0).all()), "filled from the bottom, without gaps"


def test_the_points_are_the_pixels_that_are_not_white(digits: Digits) -> None:
    image, view = view_of(digits, "image"), view_of(digits, "points")
    white = image.train.min()
    for labels, images, clouds in (
        (digits.train_labels, image.train, view.samples(digits.train_labels)),
        (digits.test_labels, image.test, view.samples(digits.test_labels)),
    ):
        assert clouds.space == 2
        assert clouds.targets is not None
        assert clouds.targets.tolist() == labels.tolist()
        for index in range(0, len(labels), 37):
            row, column, grey = torch.from_numpy(clouds[index])
            again = torch.full((8, 8), white.item())
            again[row.long(), column.long()] = grey.float()
            assert torch.equal(again, images[index, 0])
            assert bool((grey > white).all())


def test_the_samples_of_a_view_are_its_signals(digits: Digits) -> None:
    view = view_of(digits, "volume")
    samples = view.samples(digits.test_labels)
    assert torch.equal(torch.from_numpy(samples[5]), view.test[5])
    with pytest.raises(ValueError, match="`labels` must be those of one part, 1437 or 360; got 7"):
        view.samples(digits.test_labels[:7])


@pytest.mark.parametrize(("name", "highest"), [("sequence", 16.0), ("image", 16.0), ("volume", 1.0)])
def test_the_training_part_alone_is_centred_and_scaled(digits: Digits, name: str, highest: float) -> None:
    view = view_of(digits, name)
    train, test, mean, std = levels(view, highest)
    assert mean == pytest.approx(train.double().mean().item(), abs=1e-4)
    assert std == pytest.approx(train.double().std().item(), abs=1e-4)
    assert view.train.double().mean().item() == pytest.approx(0.0, abs=1e-5)
    assert view.train.double().std().item() == pytest.approx(1.0, abs=1e-5)
    # With its own mean and deviation the other part would hold other values than these.
    torch.testing.assert_close(test, test.round(), rtol=0, atol=1e-4)
    assert abs(view.test.double().mean().item()) > 1e-4
    assert abs(view.test.double().std().item() - 1) > 1e-4


def test_the_image_alone_comes_at_other_resolutions(digits: Digits) -> None:
    assert {view.name: set(view.resampled) for view in digits.views} == {
        "sequence": set(),
        "image": {0.5, 2.0},
        "volume": set(),
        "points": set(),
    }
    image = view_of(digits, "image")
    assert image.resampled[0.5].shape == (360, 1, 4, 4)
    assert image.resampled[2.0].shape == (360, 1, 16, 16)
    for factor, signals in image.resampled.items():
        assert torch.equal(signals, resampled(image.test, factor))


def test_a_coarser_pixel_is_the_mean_of_four() -> None:
    images = torch.randn(3, 1, 8, 6, dtype=torch.float64)
    mean = (images[..., ::2, ::2] + images[..., 1::2, ::2] + images[..., ::2, 1::2] + images[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(resampled(images, 0.5), mean)


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0, 3.0])
def test_the_mean_of_an_image_survives(factor: float) -> None:
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    other = resampled(images, factor)
    assert other.shape == (3, 1, 8 * factor, 8 * factor)
    torch.testing.assert_close(other.mean((1, 2, 3)), images.mean((1, 2, 3)))


def test_finer_pixels_lie_on_the_line_between_the_centres_of_two() -> None:
    # The centres of pixels are at 1/2, 3/2, ...; of pixels half as wide at 1/4, 3/4, ...; there is nothing beyond 1/2.
    centres = torch.arange(8, dtype=torch.float64) + 0.5
    images = (3 * centres[:, None] - 2 * centres).expand(1, 1, 8, 8)
    finer = ((torch.arange(16, dtype=torch.float64) + 0.5) / 2).clamp(0.5, 7.5)
    torch.testing.assert_close(resampled(images, 2.0)[0, 0], 3 * finer[:, None] - 2 * finer)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"test_share": 0}, ValueError, "`test_share` must be finite and above 0; got 0"),
        ({"test_share": 1.0}, ValueError, "`test_share` must be a share below 1; got 1.0"),
        ({"test_share": "half"}, TypeError, "`test_share` must be a number; got str 'half'"),
        ({"test_share": 0.001}, ValueError, r"`test_share` must leave a digit of every class .*; got 0.001"),
        ({"test_share": 0.999}, ValueError, r"`test_share` must leave a digit of every class .*; got 0.999"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0; got -1"),
        ({"seed": 1.5}, TypeError, "`seed` must be an integer; got float 1.5"),
    ],
)
def test_splits_that_cannot_be_are_refused(options: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        load_digits(**options)
