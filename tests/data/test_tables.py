from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omniconv.data import Samples, has_split, read

pandas: Any = pytest.importorskip("pandas")

FORMATS = ["csv", "tsv", "parquet", "pq"]


def save(frame: Any, path: Path, *, index: bool = False) -> Path:
    if path.suffix in (".parquet", ".pq"):
        frame.to_parquet(path, index=index)
    else:
        frame.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=index)
    return path


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.csv"
    path.write_text(text)
    return path


def targets(samples: Samples) -> list[Any]:
    assert samples.targets is not None
    return samples.targets.tolist()


def long_frame() -> tuple[Any, list[Any]]:
    """A table of three series of unequal length with two channels, and their signals."""
    generator = np.random.default_rng(0)
    signals = [generator.normal(size=(2, length)).astype(np.float32) for length in (4, 11, 1)]
    rows = [
        {"series": name, "time": step, "channel": channel, "value": value, "label": f"class {name}"}
        for name, signal in enumerate(signals, start=9)  # as text, 10 comes before 9
        for channel, line in enumerate(signal)
        for step, value in enumerate(line)
    ]
    return pandas.DataFrame(rows), signals


@pytest.mark.parametrize("ending", FORMATS)
def test_wide(tmp_path: Path, ending: str) -> None:
    values = np.random.default_rng(0).normal(size=(5, 13)).astype(np.float32)
    frame = pandas.DataFrame(values, columns=[f"t{i}" for i in range(13)])
    frame.insert(4, "label", list("abcab"))
    samples = read(save(frame, tmp_path / f"a.{ending}"))
    assert (samples.channels, samples.dim, len(samples)) == (1, 1, 5)
    assert targets(samples) == list("abcab")
    for index in range(5):
        np.testing.assert_array_equal(samples[index], values[index][None])


@pytest.mark.parametrize("name", ["target", "label", "class", "y", "Label"])
def test_names_of_the_target(tmp_path: Path, name: str) -> None:
    assert targets(read(write(tmp_path, f"a,{name},b\n1,5,2\n3,6,4\n"))) == [5, 6]
    assert read(write(tmp_path, "a,other,b\n1,5,2\n")).targets is None


def test_a_chosen_target(tmp_path: Path) -> None:
    path = write(tmp_path, "a,age,b\n1,1.5,2\n3,2.5,4\n")
    samples = read(path, target="age")
    assert targets(samples) == [1.5, 2.5]
    assert samples[1].tolist() == [[3, 4]]
    with pytest.raises(ValueError, match=r'a.csv: target="size": there is no such column, only a, age, b\.'):
        read(path, target="size")


def test_of_many_columns_the_nearest_and_those_of_words_come_first(tmp_path: Path) -> None:
    steps = ",".join(f"t{step}" for step in range(50))
    path = write(tmp_path, f"{steps},kind,tail\n{'1,' * 50}a,2\n{'1,' * 50}b,2\n")
    expected = ", ".join(f"t{step}" for step in range(18))
    with pytest.raises(ValueError, match=f"there is no such column, only tail, kind, {expected}, and 32 more"):
        read(path, target="tale")


@pytest.mark.parametrize(
    ("header", "names"), [("id", ["7", "8"]), ("series", ["7", "8"]), ("", ["7", "8"]), ("a", ["0", "1"])]
)
def test_names_of_the_series_are_no_time_step(tmp_path: Path, header: str, names: list[str]) -> None:
    samples = read(write(tmp_path, f"{header},t0,t1\n7,1,2\n8,3,4\n"))
    assert samples.names == names
    assert samples.sizes[0, 0] == (3 if header == "a" else 2)


def test_missing_values_stay(tmp_path: Path) -> None:
    samples = read(write(tmp_path, "a,b,c,y\n1,,3,0\n,,,1\n"))
    np.testing.assert_array_equal(samples[0], [[1, np.nan, 3]])
    np.testing.assert_array_equal(samples[1], [[np.nan] * 3])


def test_columns_that_may_be_missing_in_parquet(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"a": pandas.array([1, None], dtype="Int64"), "b": [True, False]})
    samples = read(save(frame, tmp_path / "a.parquet"))
    np.testing.assert_array_equal(np.stack([samples[0], samples[1]]), [[[1, 1]], [[np.nan, 0]]])


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_long(tmp_path: Path, ending: str, shuffled: bool) -> None:
    frame, signals = long_frame()
    frame = frame.sample(frac=1, random_state=0) if shuffled else frame
    samples = read(save(frame, tmp_path / f"a.{ending}"))
    assert samples.names == ["9", "10", "11"]
    assert samples.sizes.tolist() == [[4], [11], [1]]
    assert targets(samples) == ["class 9", "class 10", "class 11"]
    for index, signal in enumerate(signals):
        np.testing.assert_array_equal(samples[index], signal)


@pytest.mark.parametrize(("series", "time"), [("id", "step"), ("case_id", "timepoint"), ("Series", "TIME")])
def test_columns_as_channels(tmp_path: Path, series: str, time: str) -> None:
    text = f"{time},x,{series},y,z\n2,1,b,2,3\n1,4,b,5,6\n1,7,a,8,\n"
    samples = read(write(tmp_path, text))  # y stands beside x and z: a coordinate, no target
    assert (samples.names, samples.targets, samples.channels) == (["a", "b"], None, 3)
    np.testing.assert_array_equal(samples[0], [[7], [8], [np.nan]])
    np.testing.assert_array_equal(samples[1], [[4, 1], [5, 2], [6, 3]])


@pytest.mark.parametrize("dates", [["2024-01-09", "2024-01-10", "2023-12-31"], ["9", "10", "-1"], ["0.5", "1e1", "-3"]])
def test_times_are_sorted_as_numbers_or_dates(tmp_path: Path, dates: list[str]) -> None:
    rows = "".join(f"a,{date},{value}\n" for date, value in zip(dates, [2, 3, 1], strict=True))
    assert read(write(tmp_path, "series,time,value\n" + rows))[0].tolist() == [[1, 2, 3]]


def test_an_index_of_series_and_times(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"series": ["b", "b", "a"], "time": [1, 0, 0], "value": [1.0, 2.0, 3.0]})
    samples = read(save(frame.set_index(["series", "time"]), tmp_path / "a.parquet", index=True))
    assert [samples[0].tolist(), samples[1].tolist()] == [[[3]], [[2, 1]]]


def test_an_index_that_was_written_along(tmp_path: Path) -> None:
    frame, signals = long_frame()
    samples = read(save(frame, tmp_path / "a.csv", index=True))
    assert samples.channels == 2
    np.testing.assert_array_equal(samples[1], signals[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a table that pandas can read: No columns"),
        ("a,b\n", "holds no rows"),
        ("a,b\n1,2,3\n4,5,6\n", "Length of header or names does not match length of data"),
        ('a,b\n1,"2\n', "is not a table that pandas can read"),
        ("0.5,-1.5,2.5\n1,2,3\n", r"first line must hold the names of the columns; it starts \['0.5', '-1.5', '2.5'\]"),
        ("a,b,y\n1,x,0\n", r"column 'b' must hold numbers; got .* such as \['x'\]"),
        ("y\n0\n", "there must be columns with the values of the series"),
        ("a,label,class\n1,2,3\n", "the columns label, class could all be the targets. Choose with target="),
        ("a,y\n1,0\n2,\n", "column 'y': the target of row 2 is missing"),
        ("id,series,time,value\na,a,0,1\n", "the columns id, series could all be the series"),
        ("series,time,value\na,0,1\na,0,2\n", "series a, time 0 is there more than once"),
        ("series,time,dim,value\na,0,p,1\na,0,p,2\n", "series a, time 0, dim p is there more than once"),
        (
            "series,time,channel,value\na,0,p,1\na,0,q,1\nb,0,p,1\nb,1,q,1\n",
            "same time steps; series b, time 0 has 1 of 2 channels",
        ),
        ("series,time,channel,value,more\na,0,p,1,1\n", r"in the one column 'value'; found \['value', 'more'\]"),
        ("series,time,channel,v\na,0,p,1\n", r"in the one column 'value'; found \['v'\]"),
        ("series,time,value,label\na,0,1,x\na,1,1,z\nb,0,1,z\n", "'label' must be the same .* series a has 2 values"),
        ("series,time,value,label\na,0,1,x\na,1,1,\n", "'label' must be the same in all rows of a series; series a"),
        ("series,time,value,label\nb,0,1,x\na,1,1,\n", "column 'label': the target of series a is missing"),
        ("series,time,value\na,0,x\n", "column 'value' must hold numbers"),
        ("series,time,value\na,0,1\na,,1\n", "column 'time' has missing entries, the first in row 2"),
        ("series,time,value\n,0,1\n", "column 'series' has missing entries, the first in row 1"),
        ("series,time,value\na,noon,1\n", "column 'time' must hold numbers or dates of ISO 8601"),
        ("series,time,label\na,0,1\n", "there must be a column with values besides those of series and time"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, text))


def test_a_separator_after_the_last_value(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a,b\n1,2,\n3,4,\n"))[1].tolist() == [[3, 4]]


def test_a_header_of_rising_times_is_one(tmp_path: Path) -> None:
    assert read(write(tmp_path, "0.0,0.5,1.5\n1,2,3\n"))[0].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_files_that_are_no_tables(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe\x00PAR1" * 9)
    with pytest.raises(ValueError, match=f"{name} is not a table that pandas can read"):
        read(tmp_path / name)


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    path = save(long_frame()[0], tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="is not a table that pandas can read"):
        read(path)


def test_targets_of_other_types(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"a": [1.0], "y": pandas.to_datetime(["2024-01-01"])})
    with pytest.raises(ValueError, match="column 'y': targets must be numbers or text; got datetime64"):
        read(save(frame, tmp_path / "a.parquet"))
    frame["y"] = pandas.Categorical(["red"])
    assert targets(read(save(frame, tmp_path / "a.parquet"))) == ["red"]


def test_a_table_is_for_training(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,2\n")
    assert has_split(path, "train")
    with pytest.raises(ValueError, match=r'split="test": .* has no such part, only "train"'):
        read(path, split="test")
