"""Signals in NumPy files: `.npy`, memory-mapped, and `.npz`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omniconv._errors import check_choice
from omniconv.data.clouds import CloudSamples
from omniconv.data.samples import Array, ArraySamples, Samples
from omniconv.data.timed import TimedSamples

SPLITS = ("train", "valid", "test")
SIGNALS = ("X", "x", "positions")
"""What the arrays of an `.npz` file are called that make a split of it."""

SIBLINGS = ("targets", "labels")
"""What the file with the targets of `<stem>.npy` is called: `<stem>_targets.npy` or `<stem>_labels.npy`."""


def read_npy(path: Path, target: str | None = None) -> Samples:
    """The signals of an `.npy` file, memory-mapped: what is not asked for is not read.

    The array is `n length` for one channel, or `n channels *size` with one to three axes. Integers stay as they are.
    The targets, (n,), are in the file `<stem>_<target>.npy` beside it; `target`: by default "targets" or "labels",
    and no targets where there is no such file.
    Raises `ValueError` for arrays of other shapes, of objects or of what is no number, and for damaged files.
    """
    siblings = {name: path.with_name(f"{path.stem}_{name}.npy") for name in ((target,) if target else SIBLINGS)}
    found = [sibling for sibling in siblings.values() if sibling.exists()]
    if target and not found:
        raise ValueError(f'target="{target}": there is no file {siblings[target]} with the targets of {path.name}.')
    if len(found) > 1:
        raise ValueError(f"{path}: both {found[0].name} and {found[1].name} may hold its targets. Choose with target=.")
    signals = with_channels(check_numbers(load_npy(path, mapped=True), str(path)), str(path))
    targets = check_targets(load_npy(found[0]), len(signals), str(found[0])) if found else None
    return ArraySamples(signals, targets)


def read_npz(path: Path, split: str = "train", target: str | None = None) -> Samples:
    """The signals of an `.npz` file: array `X` (or `x`), targets `y`, or those of a split, `X_train` and `y_train`.

    `X` is `n length` for one channel, or `n channels *size` with one to three axes. Signals of unequal length are
    joined end to end in one `X`, `channels total`, and their lengths are in `lengths`, (n,), which sum to `total`.
    `times`, if there, are the times at which series were sampled, `n length`, joined, `total`, or `length` for all; a
    split without times of its own takes those.
    `positions` make clouds of points of the signals, whose features are then in `X`, `n channels points`, and need not
    be: (n, points, dim), or joined, (total, dim) with `lengths`. Then `mask`, if there, bool, (n, points) or joined
    (total,), is False where a cloud is padded: such points are left out.
    `target`: name of the array with the targets, without its split; by default `y`, if there.
    Raises `ValueError` for missing or wrong arrays, arrays of objects, and damaged files.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "walks.npz"
    >>> np.savez(path, X=np.arange(10).reshape(2, 5), y=["a", "b"], lengths=[2, 3])
    >>> samples = read_npz(path)
    >>> samples[1].tolist(), samples.targets.tolist()
    ([[2.0, 3.0, 4.0], [7.0, 8.0, 9.0]], ['a', 'b'])
    """
    check_choice("split", split, npz_splits(path))
    there = array_names(path)
    suffix = f"_{split}" if {f"{name}_{split}" for name in SIGNALS} & set(there) else ""
    given = {name: name + suffix for name in (*SIGNALS, target or "y", "lengths", "times", "mask")}
    check_one_split(path, there, suffix)
    arrays = load_npz(path, [*given.values(), "times"])
    signals = [name for name in SIGNALS[:2] if given[name] in arrays]
    if len(signals) > 1 or not (signals or given["positions"] in arrays):
        raise ValueError(f"{path} must hold one array {given['X']}; it holds {', '.join(there) or 'nothing'}.")
    if target and given[target] not in arrays:
        raise ValueError(f'target="{target}": {path} holds no array {given[target]}, only {", ".join(there)}.')
    lengths = arrays.get(given["lengths"])
    targets = arrays.get(given[target or "y"])
    values: Any = None
    where = f"{path}, array {given[signals[0]] if signals else given['positions']}"
    if signals:
        values = check_numbers(arrays[given[signals[0]]], where)
        values = with_channels(values, where) if lengths is None else pieces(values, lengths, where)
    found = next((name for name in (given["times"], "times") if name in arrays), None)
    if given["positions"] in arrays:
        if found is not None:
            raise ValueError(
                f"{path} holds {given['positions']} and {found}: it is clouds of points or series, not both."
            )
        mask, where = arrays.get(given["mask"]), f"{path}, array {given['positions']}"
        return clouds(arrays[given["positions"]], values, lengths, targets, mask, where)
    assert values is not None
    if targets is not None:
        targets = check_targets(targets, len(values), f"{path}, array {given[target or 'y']}")
    samples = ArraySamples(values, targets)
    if found is None:
        return samples
    return with_times(samples, arrays[found], lengths is not None, f"{path}, array {found}")


def check_one_split(path: Path, names: list[str], suffix: str) -> None:
    """Raise where signals or positions of a split stand beside those of none: they may be meant for it, or not."""
    others = [name for name in SIGNALS if name in names]
    if suffix and others:
        raise ValueError(
            f"{path} holds {others[0]} beside arrays of splits, such as "
            f"{next(name for name in names if name.endswith(suffix))}. Call it {others[0]}{suffix}, or leave it out."
        )


def clouds(
    positions: Array, features: Any, lengths: Array | None, targets: Array | None, mask: Array | None, where: str
) -> CloudSamples:
    """Clouds of points with these features, if they have any; `lengths`: of those that are joined end to end."""
    places: Any = check_numbers(positions, where)
    if lengths is not None:
        if places.ndim != 2:
            raise ValueError(f"{where}: with lengths, positions are joined to (total, dim); got shape {places.shape}.")
        places = [place.T for place in pieces(places.T, lengths, where)]
    if mask is not None:
        places, features = without_padding(places, features, lengths, mask, where)
    if targets is not None:
        targets = check_targets(targets, len(places), f"{where}, its targets")
    try:
        return CloudSamples(places, features, targets)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def without_padding(places: Any, features: Any, lengths: Array | None, mask: Array, where: str) -> tuple[Any, Any]:
    """Positions and features of the points that a mask says are there."""
    count = sum(map(len, places))
    wanted = (count,) if lengths is not None else np.shape(places)[:2]
    if mask.dtype != np.bool_ or mask.shape != wanted:
        raise ValueError(
            f"{where}: its mask must be bool {wanted}, True where there is a point; got {mask.dtype} of shape "
            f"{mask.shape}. Convert it with mask.astype(bool)."
        )
    seen = np.split(mask, np.cumsum(lengths)[:-1]) if lengths is not None else mask
    known = None
    if features is not None:
        if [one.shape[-1] for one in features] != [len(one) for one in seen]:
            raise ValueError(f"{where}: its mask is of other points than the features in X.")
        known = [one[:, there] for one, there in zip(features, seen, strict=True)]
    return [place[there] for place, there in zip(places, seen, strict=True)], known


def npz_splits(path: Path) -> tuple[str, ...]:
    """The splits that an `.npz` file has: those with an array `X_<split>`, or "train" alone for an array `X`.

    Of clouds `positions` will do in place of `X`.
    """
    names = set(array_names(path))
    return tuple(split for split in SPLITS if {f"{name}_{split}" for name in SIGNALS} & names) or ("train",)


def array_names(path: Path) -> list[str]:
    """The names of the arrays in an `.npz` file; reads no array."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged, or no .npz file: {error}. Write it with np.savez.") from error


def load_npz(path: Path, names: list[str]) -> Mapping[str, Array]:
    """Those of the named arrays that an `.npz` file holds."""
    arrays = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in names:
            if name in archive.files:
                try:
                    arrays[name] = np.asarray(archive[name])
                except (ValueError, EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
                    raise refusal(f"{path}, array {name}", error) from error
    return arrays


def load_npy(path: Path, *, mapped: bool = False) -> Any:
    """The array of an `.npy` file, or a read-only memory map of it."""
    try:
        with path.open("rb") as file:
            # np.load takes other files for archives or pickles, and then speaks of those.
            if file.read(6) != b"\x93NUMPY":
                raise ValueError("it does not start like an .npy file")
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise refusal(str(path), error) from error


def refusal(where: str, error: Exception) -> ValueError:
    """What to tell about a file that NumPy did not load."""
    if "object" in str(error).lower():
        return ValueError(
            f"{where} holds Python objects. They are stored as pickles, which can run any code and are never loaded. "
            "Save arrays of numbers; for signals of unequal length np.savez(path, X=np.concatenate(signals, axis=-1), "
            "lengths=[signal.shape[-1] for signal in signals])."
        )
    return ValueError(f"{where} is damaged, or no NumPy file: {error}.")


def check_numbers(array: Array, where: str) -> Array:
    """Return `array`, or raise `ValueError` unless it holds real numbers."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{where}: signals must be real numbers; got an array of {array.dtype}.")
    return array


def with_channels(array: Array, where: str) -> Array:
    """An array as `n channels *size`: one channel is put into `n length`."""
    if not 2 <= array.ndim <= 5:
        raise ValueError(
            f"{where}: signals must be (n, length), (n, channels, length), (n, channels, height, width) or "
            f"(n, channels, depth, height, width); got shape {array.shape}."
        )
    return array[:, None] if array.ndim == 2 else array


def pieces(joined: Array, lengths: Array, where: str) -> list[Array]:
    """Signals of those lengths, which `joined`, `channels total`, holds end to end."""
    if joined.ndim != 2 or lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: with an array lengths of n integers, the signals are joined to (channels, total); "
            f"got shape {joined.shape} and lengths {lengths.dtype} of shape {lengths.shape}."
        )
    if lengths.min(initial=1) < 1 or lengths.sum() != joined.shape[1]:
        raise ValueError(
            f"{where}: lengths must be at least 1 and sum to the {joined.shape[1]} steps; they sum to {lengths.sum()}."
        )
    return np.split(joined, np.cumsum(lengths)[:-1], axis=1)


def with_times(samples: Samples, times: Array, joined: bool, where: str) -> Samples:
    """Series with their times; `joined`: whether these are end to end, as the series are."""
    total = int(samples.sizes.sum())
    if joined and times.shape != (total,):
        raise ValueError(
            f"{where}: times of signals that are joined must be joined too, ({total},); got shape {times.shape}."
        )
    try:
        return TimedSamples(samples, np.split(times, np.cumsum(samples.sizes[:-1])) if joined else times)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def check_targets(targets: Array, count: int, where: str) -> Array:
    """Return `targets`, or raise `ValueError` unless there is one label or number per signal."""
    if targets.shape == (count, 1):
        targets = targets[:, 0]
    if targets.shape != (count,):
        raise ValueError(f"{where}: there must be one target per signal, {count}; got shape {targets.shape}.")
    if targets.dtype.kind not in "fiubU":
        raise ValueError(f"{where}: targets must be numbers or text; got {targets.dtype}.")
    return targets
