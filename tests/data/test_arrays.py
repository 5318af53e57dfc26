from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omniconv.data import ArraySamples, has_split, read
from omniconv.data.arrays import read_npy, read_npz

SHAPES = [(4, 7), (4, 2, 7), (4, 3, 5, 6), (4, 1, 2, 3, 5)]


class Attack:
    """Its pickle creates a file where it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def hostile(path: Path) -> Any:
    array = np.empty(1, dtype=object)
    array[0] = Attack(path)
    return array


def values(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_round_trip(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    signals = values(shape)
    if name == "a.npy":
        np.save(tmp_path / name, signals)
        np.save(tmp_path / "a_targets.npy", np.arange(4))
    else:
        np.savez(tmp_path / name, x=signals, y=np.arange(4))
    samples = read(tmp_path / name)
    expected = signals[:, None] if len(shape) == 2 else signals
    assert len(samples) == 4
    assert samples.channels == expected.shape[1]
    assert samples.targets is not None
    assert samples.targets.tolist() == [0, 1, 2, 3]
    for index in range(4):
        np.testing.assert_array_equal(samples[index], expected[index])


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float64", "bool", ">f4"])
def test_numbers_of_any_type_stay_as_they_are(tmp_path: Path, dtype: str) -> None:
    signals = np.array([[0, 1, 255], [1, 0, 3]]).astype(dtype)
    np.save(tmp_path / "a.npy", signals)
    np.testing.assert_array_equal(read(tmp_path / "a.npy")[0][0], signals[0].astype(np.float32))


def test_a_large_file_is_mapped_and_not_read(tmp_path: Path) -> None:
    size = 64 << 20
    held = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.float32, shape=(1024, size // 4096))
    held[1000, :3] = [1, 2, 3]
    held.flush()
    del held
    tracemalloc.start()
    samples = read(tmp_path / "a.npy")
    signal = samples[1000]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(samples, ArraySamples)
    assert isinstance(samples.signals, np.memmap)
    assert signal[0, :4].tolist() == [1, 2, 3, 0]
    assert peak < 2 << 20


def test_targets_beside_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values((2, 3)))
    assert read(tmp_path / "a.npy").targets is None
    np.save(tmp_path / "a_labels.npy", np.array(["b", "c"]))
    found = read(tmp_path / "a.npy").targets
    assert found is not None
    assert found.tolist() == ["b", "c"]
    np.save(tmp_path / "a_age.npy", np.array([[1.5], [2.5]]))
    aged = read(tmp_path / "a.npy", target="age").targets
    assert aged is not None
    assert aged.tolist() == [1.5, 2.5]
    with pytest.raises(ValueError, match=r'target="size": there is no file .*a_size\.npy'):
        read(tmp_path / "a.npy", target="size")
    np.save(tmp_path / "a_targets.npy", np.arange(2))
    with pytest.raises(ValueError, match=r"both a_targets\.npy and a_labels\.npy may hold its targets"):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize("letter", ["X", "x"])
def test_splits(tmp_path: Path, letter: str) -> None:
    path = tmp_path / "a.npz"
    arrays = {f"{letter}_train": values((3, 4)), "y_train": np.arange(3), f"{letter}_test": values((2, 4))}
    np.savez(path, **arrays)
    assert [has_split(path, split) for split in ("train", "valid", "test")] == [True, False, True]
    assert len(read(path)) == 3
    test = read(path, split="test")
    np.testing.assert_array_equal(test[1], arrays[f"{letter}_test"][1:2])
    assert test.targets is None
    with pytest.raises(ValueError, match=r'split="valid": .* has no such part, only "train", "test"'):
        read(path, split="valid")
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'test'; got 'valid'"):
        read_npz(path, "valid")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_without_splits_everything_is_for_training(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "a.npy", values((2, 3)))
    np.savez(tmp_path / "a.npz", X=values((2, 3)))
    assert has_split(tmp_path / name, "train")
    assert not has_split(tmp_path / name, "test")
    with pytest.raises(ValueError, match=r'split="test": .* has no such part, only "train"'):
        read(tmp_path / name, split="test")


def test_the_target_of_an_archive_has_a_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=values((2, 3)), y=[0, 1], age=[1.5, 2.5])
    samples = read(tmp_path / "a.npz", target="age")
    assert samples.targets is not None
    assert samples.targets.tolist() == [1.5, 2.5]
    with pytest.raises(ValueError, match=r'target="size": .* holds no array size, only X, y, age'):
        read(tmp_path / "a.npz", target="size")


def test_signals_of_unequal_length(tmp_path: Path) -> None:
    signals = [values((2, length)) for length in (3, 1, 5)]
    np.savez(tmp_path / "a.npz", X=np.concatenate(signals, axis=1), lengths=[3, 1, 5], y=[0, 1, 2])
    samples = read(tmp_path / "a.npz")
    assert samples.sizes.tolist() == [[3], [1], [5]]
    assert not samples.equal
    for index, signal in enumerate(signals):
        np.testing.assert_array_equal(samples[index], signal)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"Z": np.zeros((2, 3))}, "must hold one array X; it holds Z"),
        ({"X": np.zeros((2, 3)), "x": np.zeros((2, 3))}, "must hold one array X; it holds X, x"),
        ({"X": np.zeros(3)}, r"array X: signals must be \(n, length\), .* got shape \(3,\)"),
        ({"X": np.zeros((1,) * 6)}, r"got shape \(1, 1, 1, 1, 1, 1\)"),
        ({"X": np.array([["a"]])}, "array X: signals must be real numbers; got an array of <U1"),
        ({"X": np.zeros((2, 3), complex)}, "signals must be real numbers; got an array of complex128"),
        ({"X": np.zeros((2, 3)), "y": np.zeros(3)}, r"array y: there must be one target per signal, 2; got .*\(3,\)"),
        ({"X": np.zeros((2, 3)), "y": np.zeros(2, complex)}, "targets must be numbers or text; got complex128"),
        ({"X": np.zeros((2, 3)), "lengths": [1, 1]}, "at least 1 and sum to the 3 steps; they sum to 2"),
        ({"X": np.zeros((2, 3)), "lengths": [0, 3]}, "at least 1 and sum to the 3 steps"),
        ({"X": np.zeros((2, 3)), "lengths": [1.5, 1.5]}, r"joined to \(channels, total\)"),
        ({"X": np.zeros((2, 1, 3)), "lengths": [1, 2]}, r"joined to \(channels, total\); got shape \(2, 1, 3\)"),
    ],
)
def test_wrong_arrays(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("shape", [(), (3,), (1,) * 6])
def test_wrong_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(ValueError, match="signals must be"):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize("where", ["signals", "targets", "lengths"])
def test_objects_in_an_archive_are_never_loaded(tmp_path: Path, where: str) -> None:
    trap, path = tmp_path / "created", tmp_path / "a.npz"
    arrays: dict[str, Any] = {"X": np.zeros((1, 3)), "y": np.zeros(1)}
    arrays[{"signals": "X", "targets": "y", "lengths": "lengths"}[where]] = hostile(trap)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"holds Python objects.* never loaded. Save arrays of numbers"):
        read(path)
    assert not trap.exists()
    with np.load(path, allow_pickle=True) as archive:  # the trap works
        for name in archive.files:
            archive[name]
    assert trap.exists()


@pytest.mark.parametrize("name", ["a.npy", "a_targets.npy"])
def test_an_array_of_objects_is_never_loaded(tmp_path: Path, name: str) -> None:
    trap = tmp_path / "created"
    np.save(tmp_path / "a.npy", np.zeros((1, 3)))
    np.save(tmp_path / name, hostile(trap))
    with pytest.raises(ValueError, match=rf"{name} holds Python objects.* never loaded"):
        read(tmp_path / "a.npy")
    assert not trap.exists()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pkl", "a.pt"])
def test_a_bare_pickle_is_never_loaded(tmp_path: Path, name: str) -> None:
    trap = tmp_path / "created"
    (tmp_path / name).write_bytes(pickle.dumps(Attack(trap)))
    with pytest.raises(ValueError, match=r"is damaged, or no|may be a pickle, which can run any code"):
        read(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("keep", [0, 3, 20, 100, 300])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_truncated_files(tmp_path: Path, name: str, keep: int) -> None:
    np.save(tmp_path / "a.npy", values((20, 30)))
    np.savez(tmp_path / "a.npz", X=values((20, 30)))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{name} is damaged, or no"):
        read(path)


def test_a_flipped_byte_in_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=values((20, 30)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="array X is damaged"):
        read(path)


def test_a_file_in_the_archive_that_is_no_array(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("X", "text")
    with pytest.raises(ValueError, match="array X: signals must be real numbers"):
        read(tmp_path / "a.npz")


def test_the_readers_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values((2, 3)))
    np.savez(tmp_path / "a.npz", X=values((2, 3)))
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy")[1], read_npz(tmp_path / "a.npz")[1])
