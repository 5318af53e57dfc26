"""Folders of images, audio files, volumes or clouds, a sub-folder for each class; files are read when asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from omniconv._errors import check_choice, require
from omniconv.data.arrays import SPLITS, load_npy
from omniconv.data.cloud_files import decode_cloud, inspect_cloud
from omniconv.data.header import Header, RefusedFileError
from omniconv.data.samples import Array, Samples

SPLIT_FOLDERS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
"""The split that a folder of that name holds."""

SIDE_SUFFIXES = (".txt", ".md", ".json", ".csv")
SIDE_NAMES = ("thumbs.db", "desktop.ini", "__macosx")
"""Other files and folders that are left aside, besides hidden ones."""

ORIENTED = (b"XML:com.adobe.xmp", b"Raw profile type exif")
"""How the texts in a PNG start that can say which side is up."""

PACKAGES = {".nii": "nibabel", ".gz": "nibabel", ".ply": "plyfile", ".off": "trimesh", ".xyz": "pandas"}
"""What reads a file, where it is not the package of its kind, by its ending."""

RIFF_STREAMED = (0, 0xFFFFFFFF)
"""Sizes in the header of a .wav file that was written before its length was known."""


class UnreadableFileError(ValueError):
    """A file that is damaged: what `corrupt="skip"` leaves out."""


@dataclass(frozen=True)
class Kind:
    """A kind of signals: how its files end, how one is inspected, and how one is decoded with so many channels.

    `package`: what decodes it. `mixed`: whether files of different channels are brought to the most of them. `space`:
    axes of the space that points are in, whose positions are the first channels; 0 for signals on a grid.
    """

    suffixes: tuple[str, ...]
    package: str
    inspect: Callable[[Path], Header]
    decode: Callable[[Path, int], Array]
    mixed: bool = False
    space: int = 0


class FileSamples(Samples):
    """Signals in files, each read when it is asked for."""

    def __init__(
        self,
        files: Sequence[Path],
        kind: Kind,
        headers: Sequence[Header],
        channels: int,
        targets: Array | None,
        names: Sequence[str],
    ):
        super().__init__(channels, np.array([header.size for header in headers]), targets, names)
        self.files, self.decode, self.rate, self.space = list(files), kind.decode, headers[0].rate, kind.space
        self.vectors = headers[0].vectors

    def __getitem__(self, index: int) -> Array:
        dtype = np.float64 if self.space else np.float32
        signal = decoded(self.files[index], self.decode, self.channels, dtype)
        if signal.shape != (self.channels, *self.sizes[index]):
            raise ValueError(
                f"{self.files[index]} has changed since its folder was read: its signal was "
                f"{(self.channels, *self.sizes[index].tolist())} and is {signal.shape}. Read the folder again."
            )
        return signal


def read_folder(path: Path, split: str = "train", corrupt: str = "raise") -> FileSamples:
    """The images, audio files, volumes or clouds in a folder; only their headers are read until they are asked for; of
    clouds, for their number of points, the files.

    The targets are the names of the sub-folders, one for each class; a folder without sub-folders has no targets. With
    sub-folders `train` and `test`, and perhaps `valid` or `val`, these are the splits, and hold the classes. Samples
    come sorted by class, then by name. Hidden files, .txt, .md, .json and .csv are left aside, and empty sub-folders.

    Images: (channels, height, width), turned upright as EXIF says; integers from 0 to 1. Grey images have one channel;
    if any image, of any split, has colours, all are red, green, blue; if any is transparent, alpha is the fourth.
    Audio: (channels, steps), -1 to 1; all files must have one sampling rate, the `rate` of the samples, and one number
    of channels. Volumes: .npy of (depth, height, width) or (channels, depth, height, width), .nii and .nii.gz of
    (x, y, z) or (x, y, z, channels), in the order of the file; values as they are.
    Clouds: the positions are the first three channels, (channels, points). The points of .xyz, a line of numbers each,
    and of .ply, with all properties of their vertices, normals (nx, ny, nz) first; of surfaces, .off and .ply with
    faces, 1,024 points drawn evenly by area, always the same, with the normals of their faces, and nothing else that
    the file may say of its corners.

    `corrupt`: "raise", or "skip" to decode all files at once, leave damaged ones out, and warn with their names.
    Raises `ValueError` for damaged files, other or mixed types, and files whose content would be lost in part: films,
    and colours of 16 bits.
    """
    check_choice("split", split, folder_splits(path))
    entries = find_files(path, split)
    others = [file for other in folder_splits(path) if other != split for file, _ in find_files(path, other)]
    kind = one_kind(path, [*(file for file, _ in entries), *others])
    kept = inspect_all(path, entries, kind, corrupt)
    files, labels, headers = zip(*kept, strict=True)
    channels = common_channels(files, headers, mixed=kind.mixed)
    if kind.mixed:
        channels = max(channels, most_channels(others, kind, corrupt))
    names = [str(file.relative_to(path)) for file in files]
    return FileSamples(files, kind, headers, channels, None if labels[0] is None else np.array(labels), names)


def inspect_all(
    path: Path, entries: Sequence[tuple[Path, str | None]], kind: Kind, corrupt: str
) -> list[tuple[Path, str | None, Header]]:
    """The files with their classes and headers; damaged ones raise, or are left out with a warning."""
    kept, damaged = [], []
    for file, label in entries:
        try:
            kept.append((file, label, inspected(file, kind, decode=corrupt == "skip")))
        except UnreadableFileError as error:
            if corrupt == "raise":
                raise
            damaged.append(str(error))
    if not kept:
        raise ValueError(f"{path}: all {len(damaged)} files are damaged. {damaged[0]}")
    if damaged:
        warnings.warn(f"left out as damaged ({len(damaged)}): {' '.join(damaged)}", stacklevel=5)
    return kept


def most_channels(files: Sequence[Path], kind: Kind, corrupt: str) -> int:
    """The most channels of files in the other splits: a model that learns from one split is to take them all."""
    channels = 1
    for file in files:
        try:
            channels = max(channels, inspected(file, kind, decode=False).channels)
        except UnreadableFileError:
            if corrupt == "raise":
                raise
    return channels


def folder_splits(path: Path) -> tuple[str, ...]:
    """The splits that a folder has as sub-folders, or "train" alone where the folder is one split."""
    found = split_folders(path)
    return tuple(split for split in SPLITS if split in found) or ("train",)


def split_folders(path: Path) -> dict[str, Path]:
    """The sub-folders that hold the splits; none where the folder is one split itself."""
    folders = [entry for entry in visible(path) if entry.is_dir()]
    found = [entry for entry in folders if entry.name.lower() in SPLIT_FOLDERS]
    parts = {SPLIT_FOLDERS[entry.name.lower()]: entry for entry in found}
    others = [entry.name for entry in folders if entry not in found]
    if others and "train" not in parts:
        return {}  # a class may be called "test"
    if others and parts:
        raise ValueError(f"{path} holds the folder train and others that are no split: {', '.join(others[:5])}.")
    if len(parts) < len(found):
        raise ValueError(f"{path} holds several folders for one split: {', '.join(entry.name for entry in found)}.")
    return parts


def find_files(path: Path, split: str) -> list[tuple[Path, str | None]]:
    """The files of a split with their classes, sorted by class, then by name."""
    parts = split_folders(path)
    if parts:
        reject_files(path, "a folder with splits")
    root = parts.get(split, path)
    folders = [entry for entry in visible(root) if entry.is_dir()]
    entries: list[tuple[Path, str | None]] = [(file, None) for file in ([] if folders else signal_files(root))]
    if folders:
        reject_files(root, "a folder with classes")
    for folder in folders:
        deeper = [entry.name for entry in visible(folder) if entry.is_dir()]
        if deeper:
            raise ValueError(f"{folder} is a class, and must hold files, not the folder {deeper[0]}.")
        entries += [(file, folder.name) for file in signal_files(folder)]
    if not entries:
        raise ValueError(f"empty folder {root}: there is no image, audio file, volume or cloud in it.")
    return entries


def visible(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name, without hidden ones and side files."""
    return [
        entry
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if not entry.name.startswith(".")
        and entry.name.lower() not in SIDE_NAMES
        and not (entry.suffix.lower() in SIDE_SUFFIXES and entry.is_file())
    ]


def reject_files(folder: Path, what: str) -> None:
    """Raise `ValueError` if there are files where only folders belong."""
    files = [entry.name for entry in visible(folder) if entry.is_file()]
    if files:
        raise ValueError(f"{folder} is {what}, and must not hold files besides: {', '.join(files[:5])}.")


def signal_files(folder: Path) -> list[Path]:
    """The files of a folder that hold signals, sorted by name; `ValueError` for files of other types."""
    files = visible(folder)
    for file in files:
        if kind_of(file) is None:
            known = ", ".join(suffix for kind in KINDS.values() for suffix in kind.suffixes)
            raise ValueError(f"{file} is no signal. Understood are {known}; remove other files.")
    return files


def kind_of(file: Path) -> str | None:
    """The kind of signal in a file, by its ending."""
    return next((name for name, kind in KINDS.items() if file.name.lower().endswith(kind.suffixes)), None)


def one_kind(path: Path, files: Sequence[Path]) -> Kind:
    """The kind of all files, `ValueError` if they are of several."""
    first: dict[str | None, Path] = {}
    for file in files:
        first.setdefault(kind_of(file), file)
    if len(first) > 1:
        raise ValueError(
            f"{path} mixes kinds of signals: {', '.join(f'{kind} {file.name}' for kind, file in first.items())}. "
            "Put each kind in a folder of its own."
        )
    kind = KINDS[next(iter(filter(None, first)))]
    needed = sorted({PACKAGES.get("".join(file.suffixes[-1:]).lower(), kind.package) for file in files})
    for package in needed:
        require(package, extra="data", purpose=f"reading {files[0].suffix} files")
    return kind


def inspected(file: Path, kind: Kind, *, decode: bool) -> Header:
    """The header of a file; `decode`: read the whole file too, so that damage shows."""
    header = guarded(file, partial(kind.inspect, file))
    if min(header.size) < 1:
        raise UnreadableFileError(f"{file} cannot be read (it is empty, of size {header.size}).")
    if decode:
        decoded(file, kind.decode, header.channels)
    return header


def decoded(file: Path, decode: Callable[[Path, int], Array], channels: int, dtype: type = np.float32) -> Array:
    """The signal in a file."""
    # A copy, for a slice of a memory map could not be written to.
    return guarded(file, lambda: np.array(decode(file, channels), dtype=dtype, order="C"))


def guarded(file: Path, action: Callable[[], Any]) -> Any:
    """What an action on a file gives; `UnreadableFileError` with the name of the file for whatever it stumbles on."""
    try:
        return action()
    except (RefusedFileError, ImportError, MemoryError):
        raise
    # On damaged files decoders raise errors of any type: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".replace(f"{file}", file.name)
        raise UnreadableFileError(f"{file} cannot be read ({reason}).") from error


def common_channels(files: Sequence[Path], headers: Sequence[Header], *, mixed: bool) -> int:
    """The channels of all files; with `mixed` the most of any. Raises `ValueError` where files do not go together."""
    counts = [header.channels for header in headers]
    vectors = [header.vectors for header in headers]
    for what, values, needed, remedy in (
        ("numbers of channels", counts, not mixed, "Convert them to one number of channels."),
        ("sampling rates", [header.rate for header in headers], True, "Resample them to one rate."),
        ("numbers of axes", [len(header.size) for header in headers], True, "Put each kind in a folder of its own."),
        ("numbers of features that are vectors, such as normals,", vectors, True, "Write all of them with as many."),
    ):
        other = next((i for i, value in enumerate(values) if value != values[0]), None)
        if needed and other is not None:
            raise ValueError(
                f"The {what} of the files differ: {files[0]} has {values[0]}, {files[other]} has {values[other]}. "
                f"{remedy}"
            )
    return max(counts)


def inspect_image(file: Path) -> Header:
    """Size and channels of an image, upright: 1 grey, 3 colours, 4 with alpha."""
    pillow: Any = require("PIL.Image", extra="data", purpose="reading images")
    with pillow.open(file) as image:
        refuse_loss(file, image)
        # For TIFF the size that Pillow gives is that of the upright image, in some versions.
        width, height = (image.tag_v2[256], image.tag_v2[257]) if image.format == "TIFF" else image.size
        # Of a PNG, Pillow decodes all pixels before it says what EXIF is in it.
        turned = image.format != "PNG" or may_be_turned(file)
        if turned and image.getexif().get(0x0112, 1) >= 5:  # orientations 5 to 8 lie on their side
            width, height = height, width
        return Header(image_channels(image), (height, width))


def may_be_turned(file: Path) -> bool:
    """Whether a PNG has a chunk that can hold an orientation."""
    with file.open("rb") as stream:
        stream.seek(8)
        while head := stream.read(8):
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            start = stream.read(min(length, len(b"Raw profile type exif")))
            if kind == b"eXIf" or start.startswith(ORIENTED):
                return True
            stream.seek(length - len(start) + 4, 1)
    return False


def image_channels(image: Any) -> int:
    """1 for grey images, 3 for colours, 4 where pixels may be transparent."""
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        return 4
    return 1 if image.mode in ("1", "L", "F") or image.mode.startswith("I") else 3


def refuse_loss(file: Path, image: Any) -> None:
    """Raise for images of which a part would be lost."""
    # Photographs in the format MPO carry previews behind the picture.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise RefusedFileError(f"{file} holds {image.n_frames} images, such as a film. Save each in a file of its own.")
    deep, grey = any(";16" in str(tile[3]) for tile in image.tile), image.mode.startswith("I")
    if (deep and not grey) or (grey and "transparency" in image.info):
        raise RefusedFileError(
            f"{file} has 16 bits for each colour, of which half would be lost. Save it with 8 bits, or as grey images."
        )
    if image.mode == "I" and image.format != "PNG":
        raise RefusedFileError(
            f"{file} has integers of 32 bits, without a scale. Save it with 8 or 16 bits, or floats."
        )


def decode_image(file: Path, channels: int) -> Array:
    """The pixels of an image, `channels height width`; integers from 0 to 1."""
    pillow: Any = require("PIL.Image", extra="data", purpose="reading images")
    operations: Any = require("PIL.ImageOps", extra="data", purpose="reading images")
    with pillow.open(file) as opened:
        image = operations.exif_transpose(opened)
        own = image_channels(image)
        pixels = np.asarray(image.convert({3: "RGB", 4: "RGBA"}[own]) if own > 1 else image)
    # Pillow opens grey pixels of 16 bits in a mode of 16 bits, or in mode "I".
    depth = {"L": 255, "1": 1, "F": 1}.get(image.mode, 65535) if own == 1 else 255
    values = np.atleast_3d(pixels / np.float32(depth)).transpose(2, 0, 1)
    if own == 1 and channels > 1:
        values = values.repeat(3, axis=0)
    if channels == 4 and len(values) == 3:
        values = np.concatenate([values, np.ones_like(values[:1])])
    return values


def inspect_audio(file: Path) -> Header:
    """Channels, steps and sampling rate of an audio file."""
    soundfile: Any = require("soundfile", extra="data", purpose="reading audio files")
    with file.open("rb") as stream:
        start = stream.read(8)
    size = int.from_bytes(start[4:], "little")
    # The decoder takes a file that was cut off for a shorter one.
    if start[:4] == b"RIFF" and size not in RIFF_STREAMED and file.stat().st_size < size + 8:
        raise EOFError(f"cut off after {file.stat().st_size} of {size + 8} bytes")
    about = soundfile.info(str(file))
    return Header(about.channels, (about.frames,), about.samplerate)


def decode_audio(file: Path, channels: int) -> Array:
    """The samples of an audio file, `channels steps`."""
    soundfile: Any = require("soundfile", extra="data", purpose="reading audio files")
    expected = inspect_audio(file).size[0]
    values, _ = soundfile.read(str(file), dtype="float32", always_2d=True)
    if len(values) != expected:
        raise EOFError(f"cut off after {len(values)} of {expected} steps")
    return values.T


def inspect_volume(file: Path) -> Header:
    """Channels and size of a volume."""
    if file.suffix.lower() == ".npy":
        shape = volume_array(file).shape
        return Header(1 if len(shape) == 3 else shape[0], shape[-3:])
    nibabel: Any = require("nibabel", extra="data", purpose="reading .nii files")
    image = nibabel.load(file)
    shape = image.shape
    if image.get_data_dtype().kind not in "fiu":
        raise RefusedFileError(f"{file}: a volume must hold real numbers; got {image.get_data_dtype()}.")
    if len(shape) not in (3, 4):
        raise RefusedFileError(f"{file}: a volume must be (x, y, z) or (x, y, z, channels); got shape {shape}.")
    return Header(1 if len(shape) == 3 else shape[3], shape[:3])


def decode_volume(file: Path, channels: int) -> Array:
    """The values of a volume, `channels *size`."""
    if file.suffix.lower() == ".npy":
        values = volume_array(file)
        return values if values.ndim == 4 else values[None]
    nibabel: Any = require("nibabel", extra="data", purpose="reading .nii files")
    values = np.asarray(nibabel.load(file).dataobj)
    return np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None]


def volume_array(file: Path) -> Any:
    """The array of a volume in an `.npy` file, memory-mapped."""
    array = load_npy(file, mapped=True)
    if array.ndim not in (3, 4) or array.dtype.kind not in "fiub":
        raise RefusedFileError(
            f"{file}: a volume must be numbers of shape (depth, height, width) or (channels, depth, height, width); "
            f"got {array.dtype} of shape {array.shape}."
        )
    return array


KINDS = {
    "image": Kind(
        (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"), "PIL", inspect_image, decode_image, True
    ),
    "audio": Kind((".wav", ".flac", ".ogg", ".mp3"), "soundfile", inspect_audio, decode_audio),
    "volume": Kind((".npy", ".nii", ".nii.gz"), "numpy", inspect_volume, decode_volume),
    "cloud": Kind((".ply", ".off", ".xyz"), "numpy", inspect_cloud, decode_cloud, space=3),
}
