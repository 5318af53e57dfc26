"""One function that reads any source of signals: it looks at what is there and takes the reader for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omniconv._errors import check_choice
from omniconv.data.arrays import SPLITS, npz_splits, read_npy, read_npz
from omniconv.data.builtin import load_series, read_digits, set_folder
from omniconv.data.folders import KINDS, folder_splits, read_folder
from omniconv.data.idx import cifar10_splits, load_cifar10, load_mnist, mnist_splits
from omniconv.data.samples import Samples
from omniconv.data.tables import PARQUET, SEPARATORS, read_table
from omniconv.data.ts_files import read_ts, ts_parts

UNDERSTOOD = (
    "NumPy files (.npz, .npy), tables (.csv, .tsv, .parquet, .pq), series (.ts), and folders of images "
    "(.png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff, .gif), of audio (.wav, .flac, .ogg, .mp3), of volumes (.npy, .nii, "
    ".nii.gz), of clouds of points (.ply, .off, .xyz), of MNIST (idx), of CIFAR-10 (binary) or of .ts files; and the "
    'names "aeon:GunPoint" and "sklearn:digits"'
)


@dataclass(frozen=True)
class Source:
    """Where signals come from: the splits that are there, and how one of them is read.

    `named`: whether it has columns or arrays with names, of which one holds the targets.
    """

    splits: tuple[str, ...]
    read: Callable[[str], Samples]
    named: bool = False


def read(path: str | Path, *, split: str = "train", target: str | None = None, corrupt: str = "raise") -> Samples:
    """The signals at a path, with their targets, whatever format they come in.

    `path`: a file .npz, .npy, .csv, .tsv, .parquet, .pq or .ts; a folder of images, audio files, volumes or clouds,
    with a sub-folder for each class, of .ts files, of MNIST or of CIFAR-10; "aeon:NAME" for a set in the package
    aeon; or "sklearn:digits". `split`: "train" or "test", or "valid" where there is one; a source without splits is all
    "train". `target`: name of the column or array with the targets, where there are names; the default is in the reader
    of the format. `corrupt`: what becomes of files in a folder that cannot be read: "raise", or "skip", which decodes
    all files at once, leaves those out and warns with their names. Single files that are damaged always raise.
    Nothing is downloaded, and pickles are never loaded.
    Raises `FileNotFoundError` where there is nothing, `ValueError` for what is not understood or damaged.

    >>> samples = read("aeon:GunPoint", split="test")
    >>> len(samples), samples[0].shape, samples.targets[:3].tolist()
    (150, (1, 150), ['1', '2', '2'])
    """
    check_choice("split", split, SPLITS)
    check_choice("corrupt", corrupt, ("raise", "skip"))
    source = find_source(path, target, corrupt)
    if target is not None and not source.named:
        raise ValueError(f'target="{target}": {path} has no columns or arrays with names. Leave `target` out.')
    if split not in source.splits:
        there = ", ".join(f'"{name}"' for name in source.splits)
        raise ValueError(f'split="{split}": {path} has no such part, only {there}.')
    return source.read(split)


def has_split(path: str | Path, split: str) -> bool:
    """Whether `read` finds a part of that name at the path; a source without splits has "train" alone.

    Raises like `read` for paths that are not there or not understood.

    >>> has_split("aeon:GunPoint", "test")
    True
    """
    check_choice("split", split, SPLITS)
    return split in find_source(path, None, "raise").splits


def find_source(path: str | Path, target: str | None, corrupt: str) -> Source:
    """What is at a path."""
    package, _, name = str(path).partition(":")
    if isinstance(path, str) and package == "aeon":
        set_folder(name)  # raises for unknown names
        return Source(("train", "test"), partial(load_series, name))
    if isinstance(path, str) and package == "sklearn":
        if name != "digits":
            raise ValueError(f'Of scikit-learn only "sklearn:digits" is understood; got {path!r}.')
        return Source(("train", "test"), read_digits)
    place = Path(path).expanduser()
    if not place.exists():
        raise FileNotFoundError(f"There is no file or folder {str(path)!r}. Understood are {UNDERSTOOD}.")
    return find_in_folder(place, corrupt) if place.is_dir() else find_in_file(place, target)


def find_in_file(path: Path, target: str | None) -> Source:
    """What is in a file."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return Source(npz_splits(path), lambda split: read_npz(path, split, target), named=True)
    if suffix == ".npy":
        return Source(("train",), lambda split: read_npy(path, target), named=True)
    if suffix in SEPARATORS or suffix in PARQUET:
        return Source(("train",), lambda split: read_table(path, target), named=True)
    if suffix == ".ts":
        return find_series(path)
    if any(path.name.lower().endswith(end) for kind in KINDS.values() for end in kind.suffixes):
        raise ValueError(f"{path} is a single signal. Give the folder that it is in.")
    if suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib"):
        raise ValueError(f"{path} may be a pickle, which can run any code and is never loaded. Save it as .npz.")
    raise ValueError(f"{path} is not understood. Understood are {UNDERSTOOD}.")


def find_in_folder(path: Path, corrupt: str) -> Source:
    """What is in a folder."""
    if not any(entry.is_file() for entry in path.rglob("*")):
        raise ValueError(f"empty folder {path}: there is no file in it. Understood are {UNDERSTOOD}.")
    if mnist_splits(path):
        return Source(mnist_splits(path), partial(load_mnist, path))
    if cifar10_splits(path):
        return Source(cifar10_splits(path), partial(load_cifar10, path))
    if any(entry.suffix.lower() == ".ts" for entry in path.iterdir()):
        return find_series(path)
    return Source(folder_splits(path), lambda split: read_folder(path, split, corrupt))


def find_series(path: Path) -> Source:
    """The `.ts` files of a file's set or of a folder."""
    parts = ts_parts(path)
    return Source(tuple(parts), lambda split: read_ts(parts[split]))
