from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from omniconv.data import has_split, list_series, load_digits, load_series, read

datasets: Any = pytest.importorskip("sklearn.datasets")
pytest.importorskip("aeon")

SETS = [  # name, training and test samples, channels, shortest and longest
    ("ACSF1", 100, 100, 1, 1460, 1460),
    ("ArrowHead", 36, 175, 1, 251, 251),
    ("BasicMotions", 40, 40, 6, 100, 100),
    ("CardanoSentiment", 74, 33, 2, 24, 24),
    ("Covid3Month", 140, 61, 1, 84, 84),
    ("GunPoint", 50, 150, 1, 150, 150),
    ("ItalyPowerDemand", 67, 1029, 1, 24, 24),
    ("JapaneseVowels", 270, 370, 12, 7, 29),
    ("OSULeaf", 200, 242, 1, 427, 427),
    ("PickupGestureWiimoteZ", 50, 50, 1, 29, 361),
    ("UnitTest", 20, 22, 1, 24, 24),
]


@pytest.mark.parametrize(("name", "train", "test", "channels", "shortest", "longest"), SETS)
def test_the_sets(name: str, train: int, test: int, channels: int, shortest: int, longest: int) -> None:
    parts = [load_series(name, "train"), load_series(name, "test")]
    assert [len(part) for part in parts] == [train, test]
    assert {part.channels for part in parts} == {channels}
    lengths = np.concatenate([part.sizes for part in parts])
    assert (lengths.min(), lengths.max()) == (shortest, longest)
    assert all(part.targets is not None for part in parts)
    assert parts[1][3].shape == (channels, *parts[1].sizes[3])


def test_the_list_holds_all_of_them() -> None:
    assert {name for name, *_ in SETS} <= set(list_series())
    assert list_series() == sorted(list_series())


@pytest.mark.parametrize("name", list_series())
def test_every_name_of_the_list_loads(name: str) -> None:
    for split in ("train", "test"):
        assert has_split(f"aeon:{name}", split)
        ours, same = load_series(name, split), read(f"aeon:{name}", split=split)
        np.testing.assert_array_equal(ours[0], same[0])
    assert not has_split(f"aeon:{name}", "valid")


@pytest.mark.parametrize("name", ["gunpoint", "GunPoin", "Gun Point"])
def test_an_unknown_name_gives_the_nearest(name: str) -> None:
    with pytest.raises(ValueError, match=f"must be one of ACSF1, .*; got '{name}'. Did you mean 'GunPoint'"):
        load_series(name)
    with pytest.raises(ValueError, match="Did you mean 'GunPoint'"):
        has_split(f"aeon:{name}", "test")


def test_a_strange_name_and_a_strange_split() -> None:
    with pytest.raises(ValueError, match=r"got '../../x'.$"):
        load_series("../../x")
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'test'; got 'all'"):
        load_series("GunPoint", "all")


def test_without_aeon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aeon", None)
    with pytest.raises(ImportError, match=r"data sets inside aeon needs the package 'aeon'.*omniconv\[aeon\]"):
        list_series()


def test_aeon_is_not_imported() -> None:
    code = "import sys; from omniconv.data import read; read('aeon:GunPoint'); assert 'aeon' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_digits_are_images_from_0_to_1() -> None:
    parts = [read("sklearn:digits", split=split) for split in ("train", "test")]
    grey, labels = datasets.load_digits(return_X_y=True)
    assert [len(part) for part in parts] == [1437, 360]
    rows = [int(name) for part in parts for name in part.names]
    assert sorted(rows) == list(range(1797))
    for part in parts:
        assert part.targets is not None
        for index in (0, 7, -1):
            row = int(part.names[index])
            assert part[index].shape == (1, 8, 8)
            np.testing.assert_array_equal(part[index].ravel() * 16, grey[row])
            assert part.targets[index] == labels[row]


def test_the_digits_are_split_as_in_load_digits() -> None:
    digits = load_digits()
    for split, expected in (("train", digits.train_labels), ("test", digits.test_labels)):
        targets = read("sklearn:digits", split=split).targets
        assert targets is not None
        assert targets.tolist() == expected.tolist()


def test_other_sets_of_scikit_learn() -> None:
    with pytest.raises(ValueError, match="Of scikit-learn only \"sklearn:digits\" is understood; got 'sklearn:iris'"):
        read("sklearn:iris")
