"""Images in the files of MNIST (idx) and of CIFAR-10 (binary)."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from omniconv._errors import check_choice
from omniconv.data.samples import Array, ArraySamples, Samples

SPLITS = ("train", "test")
PREFIXES = {"train": "train", "test": "t10k"}
CIFAR_BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
CIFAR_RECORD = 1 + 3 * 32 * 32
"""Bytes of an image: its label, then its red, green and blue pixels."""


class PixelSamples(ArraySamples):
    """Pixels of 8 bits in memory, given as numbers from 0 to 1."""

    def __getitem__(self, index: int) -> Array:
        return super().__getitem__(index) / np.float32(255)


def load_mnist(folder: str | Path, split: str = "train") -> Samples:
    """MNIST, or a set in the same files such as Fashion-MNIST: grey images (1, height, width), pixels from 0 to 1.

    `folder`: with the files `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte`, each as it is or with `.gz`. `split`: "train" or "test". The targets are integers.
    Raises `FileNotFoundError` for a missing file, `ValueError` for one that is damaged. Nothing is downloaded.
    """
    check_choice("split", split, SPLITS)
    images_file = idx_file(Path(folder), split, "images")
    labels_file = idx_file(Path(folder), split, "labels")
    images, labels = read_idx(images_file, axes=3), read_idx(labels_file, axes=1)
    if len(images) != len(labels):
        raise ValueError(f"{images_file} holds {len(images)} images, but {labels_file} {len(labels)} labels.")
    return PixelSamples(images[:, None], labels.astype(np.int64))


def mnist_splits(folder: Path) -> tuple[str, ...]:
    """The splits of MNIST that a folder holds files of; none if it is no such folder."""
    return tuple(split for split in SPLITS if any(idx_files(folder, split, part) for part in ("images", "labels")))


def idx_files(folder: Path, split: str, part: str) -> list[Path]:
    """Where the images or labels of a split are; unpacked files come first."""
    axes = 3 if part == "images" else 1
    names = [f"{PREFIXES[split]}-{part}{dash}idx{axes}-ubyte{packed}" for packed in ("", ".gz") for dash in "-."]
    return [folder / name for name in names if (folder / name).is_file()]


def idx_file(folder: Path, split: str, part: str) -> Path:
    """The file with the images or labels of a split, or `FileNotFoundError`."""
    files = idx_files(folder, split, part)
    if not files:
        name = f"{PREFIXES[split]}-{part}-idx{3 if part == 'images' else 1}-ubyte"
        raise FileNotFoundError(f"{folder} must hold the file {name} or {name}.gz.")
    return files[0]


def read_idx(path: Path, axes: int) -> Array:
    """The bytes of an idx file, with that many axes; `.gz` is unpacked.

    The file is two zero bytes, the type of the values (8: one byte), the number of axes, the length of every axis as
    four bytes, highest first, and the values. Raises `ValueError` for what is not so, or too short or long.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if content[:4] != bytes([0, 0, 8, axes]):
        raise ValueError(
            f"{path} must start with the bytes 0 0 8 {axes}, an idx file of bytes with {axes} axes; "
            f"it starts with {' '.join(map(str, content[:4])) or 'nothing'}."
        )
    start = 4 + 4 * axes
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        state = "cut off" if len(content) < expected else "too long"
        raise ValueError(f"{path} is {state}: {shape} values need {expected} bytes, it has {len(content)}.")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def load_cifar10(folder: str | Path, split: str = "train") -> Samples:
    """CIFAR-10 in its binary version: images (3, 32, 32), red, green, blue, from 0 to 1.

    `folder`: with the files `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`. `split`: "train" or "test".
    The targets are the names of the classes where the folder holds `batches.meta.txt`, integers otherwise.
    Raises `FileNotFoundError` for a missing file, `ValueError` for one that is damaged, and for the version of CIFAR-10
    for Python: its files are pickles, which can run any code and are never loaded. Nothing is downloaded.
    """
    check_choice("split", split, SPLITS)
    for batch in CIFAR_BATCHES[split]:
        file = Path(folder) / f"{batch}.bin"
        if not file.is_file() and file.with_suffix("").is_file():
            raise ValueError(
                f"{file.with_suffix('')} belongs to the version of CIFAR-10 for Python. Its files are pickles, which "
                "can run any code and are never loaded. Get the binary version, cifar-10-binary.tar.gz."
            )
        if not file.is_file():
            raise FileNotFoundError(f"{folder} must hold the file {file.name} of CIFAR-10.")
    records = np.concatenate([read_records(Path(folder) / f"{batch}.bin") for batch in CIFAR_BATCHES[split]])
    labels = records[:, 0].astype(np.int64)
    names = class_names(Path(folder) / "batches.meta.txt")
    return PixelSamples(records[:, 1:].reshape(-1, 3, 32, 32), labels if names is None else names[labels])


def cifar10_splits(folder: Path) -> tuple[str, ...]:
    """The splits of CIFAR-10 that a folder holds files of, in any version; none if it is no such folder."""
    return tuple(
        split
        for split, batches in CIFAR_BATCHES.items()
        if any((folder / f"{batch}{end}").is_file() for batch in batches for end in ("", ".bin"))
    )


def read_records(path: Path) -> Array:
    """The images of one file of CIFAR-10, a row of bytes each, the label first."""
    size = path.stat().st_size
    if size == 0 or size % CIFAR_RECORD:
        raise ValueError(f"{path} is cut off, or not of CIFAR-10: {size} bytes are not images of {CIFAR_RECORD} bytes.")
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"{path} is damaged, or not of CIFAR-10: labels must be 0 to 9; got {records[:, 0].max()}.")
    return records


def class_names(path: Path) -> Array | None:
    """The names of the ten classes, from a file with one on each line; None without that file."""
    if not path.is_file():
        return None
    names = path.read_text(encoding="utf-8").split()
    if len(names) != 10:
        raise ValueError(f"{path} must hold the names of the ten classes; it holds {len(names)}.")
    return np.array(names)
