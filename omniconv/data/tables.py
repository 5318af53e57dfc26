"""Time series in tables: CSV and Parquet files, one row per series (wide) or one row per time step (long)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from omniconv._errors import require
from omniconv.data.samples import Array, ArraySamples, Samples

SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pq")
TARGET = ("target", "label", "class", "y")
SERIES = ("series", "id", "case_id")
TIME = ("time", "step", "timepoint")
CHANNEL = ("channel", "dim", "dimension")
VALUE = ("value",)

SHOWN = 20
"""So many columns are listed where one is not there."""


def read_table(path: Path, target: str | None = None) -> Samples:
    """The series in a table: a file .csv or .tsv with a line of names, or .parquet or .pq. It is read as a whole.

    `target`: name of the column with the targets; by default `target`, `label`, `class` or `y` if there (`y` only
    without a column `x` or `z`, for then it is a coordinate). Upper and lower case are one in the names that follow.

    Wide: every row is a series of one channel, and its numeric columns are the time steps, in order. A column `series`,
    `id` or `case_id`, or a first one without name, holds the names of the series.

    Long, with the columns `series` (or `id`, `case_id`) and `time` (or `step`, `timepoint`): every row is a time step
    of a series. Either a column `channel` (or `dim`, `dimension`) says whose value is in `value`, or all other columns
    are channels. Rows may come in any order: series, times and channels are sorted, times as numbers or as dates of ISO
    8601. Steps are taken as evenly spaced. Series may differ in length; the target is the same in all rows of a series.

    Missing values are NaN; nothing is dropped or filled.
    Raises `ValueError` for values that are no numbers, a time step that is there twice or not in all channels, missing
    or changing targets, ambiguous columns, and files that pandas cannot read.
    """
    frame = load_frame(path)
    columns = [str(name) for name in frame.columns]
    frame.columns = columns
    if len(frame) == 0:
        raise ValueError(f"{path} holds no rows.")
    try:
        check_target(frame, target)
        label = target_column(columns, target)
        series = find_column(columns, SERIES, label)
        time = find_column(columns, TIME, label)
        if series is not None and time is not None:
            return read_long(frame, series, time, label)
        return read_wide(frame, series, label)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_frame(path: Path) -> Any:
    """The table in a file, as a pandas frame."""
    kind = "Parquet" if path.suffix.lower() in PARQUET else "CSV"
    pandas: Any = require("pandas", extra="data", purpose=f"reading {kind} files")
    if kind == "Parquet":
        require("pyarrow", extra="data", purpose="reading Parquet files")
    try:
        if kind == "Parquet":
            frame = pandas.read_parquet(path)
            return frame if frame.index.names == [None] else frame.reset_index()
        with warnings.catch_warnings():
            # Rows with more values than there are names would lose the last ones, or the first as an index.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            # The default parser of floats may be off in the last digit.
            options = {"float_precision": "round_trip", "low_memory": False, "index_col": False}
            frame = pandas.read_csv(path, sep=SEPARATORS[path.suffix.lower()], **options)
    except (ValueError, OSError, pandas.errors.ParserWarning) as error:
        raise ValueError(f"{path} is not a table that pandas can read: {error}") from error
    check_names(path, [str(name) for name in frame.columns])
    return frame


def check_names(path: Path, columns: Sequence[str]) -> None:
    """Raise `ValueError` if the first line holds values in the place of names.

    Names that are rising numbers may be the times of the steps, and whole numbers may count them.
    """
    fractions = [float(name) for name in columns if is_fraction(name)]
    if 2 * len(fractions) > len(columns) and any(b <= a for a, b in pairwise(fractions)):
        raise ValueError(f"{path}: the first line must hold the names of the columns; it starts {columns[:3]}.")


def is_fraction(name: str) -> bool:
    """Whether a name reads as a number that is not whole."""
    try:
        return not float(name).is_integer()
    except ValueError:
        return False


def find_column(columns: Sequence[str], names: Sequence[str], label: str | None) -> str | None:
    """The column with one of those names, besides that of the targets; None without one, `ValueError` for several."""
    found = [column for column in columns if column.lower() in names and column != label]
    if len(found) > 1:
        raise ValueError(f"the columns {', '.join(found)} could all be the {names[0]}. Rename or remove others.")
    return found[0] if found else None


def check_target(frame: Any, target: str | None) -> None:
    """Raise `ValueError` for a column that is not there: that with the nearest name first, then those of words."""
    pandas: Any = require("pandas", extra="data", purpose="reading tables")
    if target is None or target in frame.columns:
        return
    names = list(frame.columns)
    near = get_close_matches(target, names, n=1)
    words = [name for name in names if not pandas.api.types.is_numeric_dtype(frame[name])]
    listed = list(dict.fromkeys([*near, *words, *names]))
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    raise ValueError(
        f'target="{target}": there is no such column, only {", ".join(listed[:SHOWN])}{"," if more else ""}{more}.'
    )


def target_column(columns: Sequence[str], target: str | None) -> str | None:
    """The column with the targets, None without one."""
    if target is not None:
        return target
    coordinates = any(column.lower() in ("x", "z") for column in columns)
    names = TARGET[:3] if coordinates else TARGET
    found = [column for column in columns if column.lower() in names]
    if len(found) > 1:
        raise ValueError(f"the columns {', '.join(found)} could all be the targets. Choose with target=.")
    return found[0] if found else None


def read_wide(frame: Any, series: str | None, label: str | None) -> Samples:
    """Series of one channel, a row each."""
    first = frame.columns[0]
    if series is None and (first == "" or first.startswith("Unnamed: 0")):
        series = first  # the index of a frame, which pandas writes unless told not to
    values = [column for column in frame.columns if column not in (series, label)]
    if not values:
        raise ValueError("there must be columns with the values of the series, one for every time step.")
    names = None if series is None else [str(name) for name in frame[series]]
    targets = None if label is None else target_values(frame[label], label, range(1, len(frame) + 1), "row")
    return ArraySamples(numbers(frame, values)[:, None], targets, names)


def read_long(frame: Any, series: str, time: str, label: str | None) -> Samples:
    """Series of which every row is one time step, or one value of it."""
    channel = find_column(frame.columns, CHANNEL, label)
    for column in (series, time, channel):
        if column is not None and frame[column].isna().any():
            raise ValueError(
                f"column {column!r} has missing entries, the first in row {first_row(frame[column].isna())}."
            )
    values = value_columns(frame, (series, time, channel, label))
    if channel is not None and values != [column for column in values if column.lower() in VALUE]:
        raise ValueError(f"with a column {channel!r}, the values must be in the one column 'value'; found {values}.")
    keys = [series, time] if channel is None else [series, time, channel]
    # The sorted frame takes the times as numbers or dates: as text, 10 would come before 9.
    frame = frame.assign(**{time: times(frame[time], time)}).sort_values(keys, kind="stable", ignore_index=True)
    check_steps(frame, keys)
    channels = len(values) if channel is None else frame[channel].nunique()
    rows = numbers(frame, values).reshape(-1, channels)
    owners = frame[series].to_numpy()[:: 1 if channel is None else channels]
    starts = np.flatnonzero(owners[1:] != owners[:-1]) + 1
    signals = [np.ascontiguousarray(part.T) for part in np.split(rows, starts)]
    names = [str(name) for name in owners[np.concatenate([[0], starts])]]
    return ArraySamples(signals, None if label is None else series_targets(frame, series, label), names)


def value_columns(frame: Any, taken: Sequence[str | None]) -> list[str]:
    """The columns that are left for values; at least one. An index that pandas wrote along is none."""
    values = [name for name in frame.columns if name not in taken and not name.startswith("Unnamed: 0")]
    if not values:
        raise ValueError("there must be a column with values besides those of series and time.")
    return values


def check_steps(frame: Any, keys: list[str]) -> None:
    """Raise `ValueError` unless every time step is there once, and in all channels if there is a column for them."""
    twice = frame.duplicated(keys)
    if twice.any():
        row = frame[keys][twice].iloc[0]
        raise ValueError(f"{', '.join(f'{key} {row[key]}' for key in keys)} is there more than once.")
    if len(keys) == 3:
        series, time, channel = keys
        there = frame.groupby([series, time], sort=False).size()
        if (there != frame[channel].nunique()).any():
            name, step = there.index[there != frame[channel].nunique()][0]
            raise ValueError(
                f"all channels of a series must have the same time steps; series {name}, {time} {step} has "
                f"{there[(name, step)]} of {frame[channel].nunique()} channels."
            )


def times(column: Any, name: str) -> Any:
    """A column of times, as numbers or dates, which can be sorted."""
    pandas: Any = require("pandas", extra="data", purpose="reading tables")
    if pandas.api.types.is_numeric_dtype(column) or column.dtype.kind in "mM":
        return column
    try:
        return pandas.to_datetime(column, format="ISO8601", utc=True)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"column {name!r} must hold numbers or dates of ISO 8601, such as 2024-12-31: {error}"
        ) from error


def numbers(frame: Any, columns: list[str]) -> Array:
    """Those columns as float32, `rows columns`; what is missing is NaN."""
    pandas: Any = require("pandas", extra="data", purpose="reading tables")
    for column in columns:
        if not pandas.api.types.is_numeric_dtype(frame[column]) or frame[column].dtype.kind == "c":
            example = frame[column].dropna().astype(str).head(1).tolist()
            raise ValueError(
                f"column {column!r} must hold numbers; got {frame[column].dtype}, such as {example}. "
                "Name the column with the targets with target=, and remove others."
            )
    return np.stack([frame[column].to_numpy(dtype=np.float32, na_value=np.nan) for column in columns], axis=1)


def series_targets(frame: Any, series: str, label: str) -> Array:
    """The target of every series of a frame that is sorted by series."""
    groups = frame.groupby(series, sort=False)[label]
    counts = groups.nunique(dropna=False)
    if (counts > 1).any():
        raise ValueError(
            f"column {label!r} must be the same in all rows of a series; series {counts.index[counts > 1][0]} has "
            f"{counts[counts > 1].iloc[0]} values. Name the column with the targets with target=."
        )
    targets = frame.drop_duplicates(series)[[series, label]]
    return target_values(targets[label], label, targets[series], "series")


def target_values(column: Any, name: str, owners: Any, kind: str) -> Array:
    """A column of targets as numbers or text; `owners`: whose they are, for messages."""
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"column {name!r}: the target of {kind} {list(owners)[missing.argmax()]} is missing. "
            "Empty cells and words such as NA or None count as missing."
        )
    values = column.to_numpy()
    if values.dtype.kind not in "iufb":
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"column {name!r}: targets must be numbers or text; got {column.dtype}.")
        values = values.astype(str)
    return values


def first_row(mask: Any) -> int:
    """The number of the first row that is marked, counted from 1."""
    return int(mask.to_numpy().argmax()) + 1
