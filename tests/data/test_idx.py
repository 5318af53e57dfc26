from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omniconv.data import has_split, load_cifar10, load_mnist, read

COUNTS = {"train": 5, "t10k": 3}


def idx(array: Any) -> bytes:
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


def pixels(prefix: str) -> Any:
    return np.random.default_rng(len(prefix)).integers(0, 256, (COUNTS[prefix], 4, 6))


@pytest.fixture(params=["plain", "packed", "dotted"])
def mnist(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    for prefix, count in COUNTS.items():
        for part, array in (("images-idx3", pixels(prefix)), ("labels-idx1", np.arange(count))):
            name = f"{prefix}-{part}-ubyte"
            if request.param == "packed":
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array), mtime=0))
            else:
                (tmp_path / (name.replace("-idx", ".idx") if request.param == "dotted" else name)).write_bytes(
                    idx(array)
                )
    return tmp_path


def test_images_and_labels(mnist: Path) -> None:
    for split, prefix in (("train", "train"), ("test", "t10k")):
        for samples in (load_mnist(mnist, split), read(mnist, split=split)):
            assert (len(samples), samples.channels, samples.sizes[0].tolist()) == (COUNTS[prefix], 1, [4, 6])
            assert samples.targets is not None
            assert samples.targets.dtype.kind == "i"
            assert samples.targets.tolist() == list(range(COUNTS[prefix]))
            assert samples[2].dtype == np.float32
            np.testing.assert_allclose(samples[2][0] * 255, pixels(prefix)[2], rtol=1e-6)
            assert samples[2].max() <= 1


def test_the_splits_that_are_there(mnist: Path) -> None:
    assert [has_split(mnist, split) for split in ("train", "valid", "test")] == [True, False, True]
    for file in mnist.glob("t10k*"):
        file.unlink()
    assert [has_split(mnist, split) for split in ("train", "test")] == [True, False]
    with pytest.raises(
        FileNotFoundError, match=r"must hold the file t10k-images-idx3-ubyte or t10k-images-idx3-ubyte\.gz"
    ):
        load_mnist(mnist, "test")
    with pytest.raises(ValueError, match=r'split="test": .* has no such part, only "train"'):
        read(mnist, split="test")


def test_missing_labels(mnist: Path) -> None:
    next(mnist.glob("train-labels*")).unlink()
    with pytest.raises(FileNotFoundError, match="must hold the file train-labels-idx1-ubyte or"):
        read(mnist)


def test_a_strange_split(mnist: Path) -> None:
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'test'; got 't10k'"):
        load_mnist(mnist, "t10k")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must start with the bytes 0 0 8 3, .* it starts with nothing"),
        (idx(np.zeros(5)), "must start with the bytes 0 0 8 3, .* it starts with 0 0 8 1"),
        (b"\x00\x00\x0d\x03" + bytes(12), ".* it starts with 0 0 13 3"),
        (idx(np.zeros((5, 4, 6)))[:-1], r"is cut off: \[5, 4, 6\] values need 136 bytes, it has 135"),
        (idx(np.zeros((5, 4, 6)))[:9], "is cut off"),
        (idx(np.zeros((5, 4, 6))) + b"0", "is too long: .* need 136 bytes, it has 137"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "is cut off"),
        (idx(np.zeros((4, 4, 6))), "holds 4 images, but .*train-labels-idx1-ubyte 5 labels"),
    ],
)
def test_wrong_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(5)))
    with pytest.raises(ValueError, match=f"train-images-idx3-ubyte {message}"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"no archive", gzip.compress(idx(np.zeros((5, 4, 6))), mtime=0)[:-9]])
def test_damaged_archives(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(5)))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        read(tmp_path)


def cifar(folder: Path) -> Any:
    """CIFAR-10 with three images in each file, and the bytes of all, `file image byte`."""
    records = np.random.default_rng(0).integers(0, 256, (6, 3, 3073)).astype(np.uint8)
    records[:, :, 0] = np.arange(18).reshape(6, 3) % 10
    for name, batch in zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], records, strict=True):
        (folder / f"{name}.bin").write_bytes(batch.tobytes())
    return records


def test_cifar10(tmp_path: Path) -> None:
    records = cifar(tmp_path)
    for split, rows in (("train", records[:5].reshape(-1, 3073)), ("test", records[5])):
        for samples in (load_cifar10(tmp_path, split), read(tmp_path, split=split)):
            assert (len(samples), samples.channels, samples.sizes[0].tolist()) == (len(rows), 3, [32, 32])
            assert samples.targets is not None
            assert samples.targets.tolist() == rows[:, 0].tolist()
            for index, row in enumerate(rows):
                np.testing.assert_allclose(samples[index].ravel() * 255, row[1:], rtol=1e-6)
            # The first 1,024 pixels are the red ones, row by row.
            assert round(samples[1][0, 1, 2].item() * 255) == rows[1, 1 + 32 + 2]
            assert round(samples[1][2, 0, 0].item() * 255) == rows[1, 1 + 2048]


def test_the_names_of_the_classes(tmp_path: Path) -> None:
    cifar(tmp_path)
    names = [f"class{i}" for i in range(10)]
    (tmp_path / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    targets = read(tmp_path, split="test").targets
    assert targets is not None
    assert targets.tolist() == ["class5", "class6", "class7"]
    (tmp_path / "batches.meta.txt").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"batches\.meta\.txt must hold the names of the ten classes; it holds 2"):
        read(tmp_path)


def test_a_missing_batch(tmp_path: Path) -> None:
    cifar(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold the file data_batch_3\.bin"):
        read(tmp_path)
    assert len(read(tmp_path, split="test")) == 3


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes(3074), b"\x0a" + bytes(3072)])
def test_a_damaged_batch(tmp_path: Path, content: bytes) -> None:
    cifar(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"test_batch\.bin is (cut off|damaged), or not of CIFAR-10"):
        read(tmp_path, split="test")


def test_the_pickles_of_cifar10_are_never_loaded(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "created"),))

    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (tmp_path / name).write_bytes(pickle.dumps(Attack()))
    for split in ("train", "test"):
        assert has_split(tmp_path, split)
        with pytest.raises(
            ValueError, match=r"pickles, which can run any code and are never loaded. Get the binary version"
        ):
            read(tmp_path, split=split)
    assert not (tmp_path / "created").exists()
