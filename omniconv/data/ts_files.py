"""Time series in `.ts` files, the text format of the time series machine learning archives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from omniconv.data.samples import Array, ArraySamples, Samples

KNOWN = "problemname timestamps missing univariate dimension dimensions equallength serieslength classlabel targetlabel"
SWITCHES = ("timestamps", "missing", "univariate", "equallength")
PARTS = ("train", "test")


@dataclass
class Header:
    """What the lines with @ say. `labels`: the classes, or None where the targets are no classes.

    `regression`: whether the targets are numbers. None for what is not said.
    """

    tags: set[str] = field(default_factory=set)
    labels: list[str] | None = None
    regression: bool = False
    univariate: bool | None = None
    channels: int | None = None
    equal: bool | None = None
    length: int | None = None


def read_ts(path: Path) -> Samples:
    """The series of one `.ts` file, each float32 `channels length`; NaN where the file says `?`.

    After a header, each line is one series: its channels apart by `:`, the values of a channel by `,`, and at the end
    the class (`@classLabel true a b c`, text) or the number (`@targetLabel true`, float64). Lines that start with # or
    % are comments. Series may differ in length, unless the header says `@equalLength true`.
    Raises `ValueError`, with the number of the line, for what contradicts the header or this description, and for
    series with time stamps.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "steps.ts"
    >>> _ = path.write_text("@timeStamps false\\n@classLabel true up down\\n@data\\n1,2,3:up\\n2,?:down\\n")
    >>> samples = read_ts(path)
    >>> samples[1].tolist(), samples.targets.tolist()
    ([[2.0, nan]], ['up', 'down'])
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}.") from error
    numbered = content(lines)
    header = read_header(path, numbered)
    signals: list[Array] = []
    targets: list[str] = []
    for number, line in numbered:
        try:
            values, label = split_line(line, header)
            signals.append(check_series(values, header, signals))
            targets.append(label)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if not signals:
        raise ValueError(f"{path} holds no series: nothing follows @data.")
    if header.regression:
        return ArraySamples(signals, np.array(targets, dtype=np.float64))
    return ArraySamples(signals, None if header.labels is None else np.array(targets))


def ts_parts(path: Path) -> dict[str, Path]:
    """The files of the splits: of a file `X_TRAIN.ts` or `X_TEST.ts` and its partner, or of such a pair in a folder.

    A file with another name is all "train". Raises `ValueError` for a folder with several pairs, unless one is called
    as the folder is.
    """
    if path.is_file():
        stem, part = stem_and_part(path)
        partners = (other for other in sorted(path.parent.iterdir()) if other.suffix.lower() == ".ts")
        pair = {stem_and_part(other)[1]: other for other in partners if part and stem_and_part(other)[0] == stem}
        return {name: pair[name] for name in PARTS if name in pair} or {"train": path}
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".ts" and not file.name.startswith("."))
    stems = sorted({stem_and_part(file)[0] for file in files})
    chosen = path.name if path.name in stems else stems[0]
    if len(stems) > 1 and chosen != path.name:
        raise ValueError(f"{path} holds the .ts files of several sets: {', '.join(stems)}. Give the file of one.")
    return ts_parts(next(file for file in files if stem_and_part(file)[0] == chosen))


def stem_and_part(path: Path) -> tuple[str, str]:
    """The name of the set and of the part of a file: "X" and "train" for X_TRAIN.ts, "X" and "" for X.ts."""
    match = re.fullmatch(r"(.+)_(train|test)", path.stem, flags=re.IGNORECASE)
    return (match[1], match[2].lower()) if match else (path.stem, "")


def content(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The lines that say something, each with its number, counted from 1."""
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text and text[0] not in "#%":
            yield number, text


def read_header(path: Path, lines: Iterator[tuple[int, str]]) -> Header:
    """Read the lines up to `@data`."""
    header = Header()
    for number, line in lines:
        if line.lower() == "@data":
            break
        try:
            note(header, line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    else:
        raise ValueError(f"{path} has no line @data: it is no .ts file, or cut off.")
    if not header.tags & {"classlabel", "targetlabel"}:
        raise ValueError(
            f"{path} does not say what the last value of a line is. Add `@classLabel true` with the classes, "
            "`@targetLabel true` for numbers, or `@classLabel false` for no targets."
        )
    if header.labels is not None and header.regression:
        raise ValueError(f"{path} says @classLabel true and @targetLabel true; targets are classes or numbers.")
    return header


def note(header: Header, line: str) -> None:
    """Write one line with @ into the header."""
    tag, *words = line.split()
    name = tag.lower().removeprefix("@")
    if not tag.startswith("@") or name not in KNOWN.split():
        raise ValueError(
            f"expected @data or one of {', '.join('@' + tag for tag in KNOWN.split())}; got {line[:60]!r}."
        )
    header.tags.add(name)
    if name in SWITCHES:
        says = switch(tag, words)
        if name == "timestamps" and says:
            raise ValueError("series with time stamps are not read. Resample them to even steps without stamps.")
        header.univariate = says if name == "univariate" else header.univariate
        header.equal = says if name == "equallength" else header.equal
    elif name.startswith("dimension"):
        header.channels = count(tag, words)
    elif name == "serieslength":
        header.length = count(tag, words)
    elif name == "classlabel" and switch(tag, words[:1]):
        if len(words) == 1:
            raise ValueError("@classLabel true must be followed by the classes.")
        header.labels = words[1:]
    elif name == "targetlabel":
        header.regression = switch(tag, words)


def switch(tag: str, words: list[str]) -> bool:
    """Whether a tag says true."""
    if [word.lower() for word in words] not in (["true"], ["false"]):
        raise ValueError(f"{tag} must be followed by true or false; got {' '.join(words)!r}.")
    return words[0].lower() == "true"


def count(tag: str, words: list[str]) -> int:
    """The number that follows a tag."""
    if len(words) != 1 or not words[0].isdecimal() or int(words[0]) < 1:
        raise ValueError(f"{tag} must be followed by a positive integer; got {' '.join(words)!r}.")
    return int(words[0])


def split_line(line: str, header: Header) -> tuple[Array, str]:
    """One line as values, `channels length`, and its target, spelled as in the header; "" where there is none."""
    if line.startswith("@"):
        raise ValueError(f"{line.split()[0]} must stand before @data.")
    *channels, label = line.split(":") if header.labels is not None or header.regression else [*line.split(":"), ""]
    rows = [[number_of(value) for value in channel.split(",")] for channel in channels]
    lengths = [len(row) for row in rows]
    if not rows:
        raise ValueError("there must be a channel and a target, apart by `:`; found one of them.")
    if len(set(lengths)) > 1:
        raise ValueError(f"the channels of a series must have one length; they have {', '.join(map(str, lengths))}.")
    label = label.strip()
    if header.regression and not np.isfinite(number_of(label)):
        raise ValueError(f"the target must be a finite number; got {label!r}.")
    if header.labels is not None:
        spelled = [known for known in header.labels if known == label]
        spelled += [known for known in header.labels if known.lower() == label.lower()]
        if not spelled:
            raise ValueError(f"the class must be one of {', '.join(header.labels)}; got {label!r}.")
        label = spelled[0]
    return np.array(rows, dtype=np.float32), label


def number_of(text: str) -> float:
    """A value of the file; NaN for `?`."""
    try:
        return float("nan") if text.strip() == "?" else float(text)
    except ValueError as error:
        raise ValueError(f"values must be numbers or ?; got {text.strip()[:40]!r}.") from error


def check_series(values: Array, header: Header, before: list[Array]) -> Array:
    """Return the values, or raise `ValueError` if they contradict the header or the series before them."""
    channels, length = values.shape
    said = 1 if header.univariate else header.channels
    if said not in (None, channels):
        raise ValueError(f"the header says {said} channels; found {channels}.")
    if before and channels != len(before[0]):
        raise ValueError(f"the series before have {len(before[0])} channels; found {channels}.")
    if header.equal and header.length not in (None, length):
        raise ValueError(f"the header says series of length {header.length}; found {length}.")
    if header.equal and before and length != before[0].shape[1]:
        raise ValueError(f"the header says @equalLength true; found length {length} after {before[0].shape[1]}.")
    return values
