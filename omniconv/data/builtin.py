"""Data sets that come inside installed packages: series of aeon, digits of scikit-learn. Nothing is downloaded."""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from omniconv._errors import check_choice, require
from omniconv.data.samples import ArraySamples, Samples
from omniconv.data.ts_files import read_ts

SPLITS = ("train", "test")


def load_series(name: str, split: str = "train") -> Samples:
    """A set of time series from inside the package aeon, as it comes in its `.ts` files.

    `name`: one of `list_series()`. For classification, with labels as text: GunPoint, BasicMotions (6 channels),
    JapaneseVowels (12 channels, lengths 7 to 29), and others; for regression: Covid3Month, CardanoSentiment.
    `split`: "train" or "test". Raises `ImportError` without aeon, `ValueError` for other names.

    >>> samples = load_series("JapaneseVowels")
    >>> len(samples), samples.channels, int(samples.sizes.min()), int(samples.sizes.max())
    (270, 12, 7, 26)
    """
    check_choice("split", split, SPLITS)
    return read_ts(file_of(set_folder(name), split))


def set_folder(name: str) -> Path:
    """The folder of the set with that name; `ValueError`, with the nearest name, without one."""
    names = list_series()
    if name not in names:
        lower = {known.lower(): known for known in names}
        near = difflib.get_close_matches(str(name).lower(), lower, n=1)
        hint = f" Did you mean {lower[near[0]]!r}?" if near else ""
        raise ValueError(f"`name` must be one of {', '.join(names)}; got {name!r}.{hint}")
    return series_folder() / name


def list_series() -> list[str]:
    """The names that `load_series` knows: the sets inside aeon with a training and a test part, in order.

    Raises `ImportError` without aeon.

    >>> "GunPoint" in list_series()
    True
    """
    folders = sorted(series_folder().iterdir())
    return [folder.name for folder in folders if all(file_of(folder, split).is_file() for split in SPLITS)]


def file_of(folder: Path, split: str) -> Path:
    """The file of a split of the set that a folder is called after."""
    return folder / f"{folder.name}_{split.upper()}.ts"


def series_folder() -> Path:
    """Where aeon keeps its sets."""
    found = find_spec("aeon")
    if found is None or not found.submodule_search_locations:
        require("aeon", extra="aeon", purpose="reading the data sets inside aeon")
        raise ImportError("The module aeon is not the package with that name: it has no data sets.")
    # Only looked up: to import aeon compiles for seconds, and its files are all that is needed.
    return Path(found.submodule_search_locations[0]) / "datasets" / "data"


def read_digits(split: str = "train") -> Samples:
    """The 1,797 digits of scikit-learn as images, (1, 8, 8), from 0 to 1, with the digits as targets.

    `split`: "train", 80 % of every digit drawn with seed 0, or "test", the others.

    >>> read_digits("test")[0].shape
    (1, 8, 8)
    """
    check_choice("split", split, SPLITS)
    datasets: Any = require("sklearn.datasets", extra="estimators", purpose="the digits data set")
    selection: Any = require("sklearn.model_selection", extra="estimators", purpose="the digits data set")
    grey, labels = datasets.load_digits(return_X_y=True)
    rows = np.arange(len(labels))
    parts = selection.train_test_split(rows, test_size=0.2, random_state=0, stratify=labels)
    chosen = parts[SPLITS.index(split)]
    images = (grey[chosen] / 16).reshape(-1, 1, 8, 8).astype(np.float32)
    return ArraySamples(images, labels[chosen], [str(row) for row in chosen])
