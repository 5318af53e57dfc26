from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omniconv.data import has_split, list_series, load_series, read
from omniconv.data.builtin import series_folder
from omniconv.data.ts_files import read_ts, ts_parts

HEADER = "@problemName Steps\n@timeStamps false\n@classLabel true Up Down\n@data\n"


def write(folder: Path, text: str, name: str = "Steps_TRAIN.ts") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_values_channels_and_labels(tmp_path: Path) -> None:
    text = (
        "# a comment\n% another\n\n@problemName Steps\n@TimeStamps FALSE\n@missing true\n@univariate false\n"
        "@dimensions 2\n@equalLength false\n@classLabel true Up Down\n@data\n"
        "1,-2.5e1,?:0.5, 6 ,7:Up\n# between\n\n3:nan:down\n"
    )
    samples = read_ts(write(tmp_path, text))
    assert (samples.channels, samples.sizes.tolist()) == (2, [[3], [1]])
    np.testing.assert_array_equal(samples[0], np.array([[1, -25, np.nan], [0.5, 6, 7]], dtype=np.float32))
    np.testing.assert_array_equal(samples[1], [[3], [np.nan]])
    assert samples.targets is not None
    assert samples.targets.tolist() == ["Up", "Down"]  # spelled as in the header


def test_labels_that_differ_in_case_alone(tmp_path: Path) -> None:
    text = "@classLabel true a A\n@data\n1:A\n2:a\n"
    targets = read_ts(write(tmp_path, text)).targets
    assert targets is not None
    assert targets.tolist() == ["A", "a"]


def test_numbers_as_targets(tmp_path: Path) -> None:
    targets = read_ts(write(tmp_path, "@targetLabel true\n@data\n1,2:0.1\n3,4:-2\n")).targets
    assert targets is not None
    assert targets.dtype == np.float64
    assert targets.tolist() == [0.1, -2]


def test_no_targets(tmp_path: Path) -> None:
    samples = read_ts(write(tmp_path, "\ufeff@classLabel false\n@data\n1,2:3,4\n"))
    assert (samples.channels, samples.targets) == (2, None)
    assert samples[0].tolist() == [[1, 2], [3, 4]]


def test_a_round_trip(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    signals = [generator.normal(size=(3, length)).astype(np.float32) for length in (5, 1, 9)]
    lines = [":".join(",".join(map(repr, row.tolist())) for row in signal) + ":Up\n" for signal in signals]
    samples = read_ts(write(tmp_path, HEADER + "".join(lines)))
    for index, signal in enumerate(signals):
        np.testing.assert_array_equal(samples[index], signal)


def series_files() -> list[str]:
    pytest.importorskip("aeon")
    return sorted(str(path.relative_to(series_folder())) for path in series_folder().glob("*/*.ts"))


@pytest.mark.parametrize("name", ["GunPoint", "BasicMotions", "JapaneseVowels", "Covid3Month", "CardanoSentiment"])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.filterwarnings("ignore")
def test_aeon_reads_the_same(name: str, split: str) -> None:
    datasets: Any = pytest.importorskip("aeon.datasets")
    signals, targets = datasets.load_from_ts_file(str(series_folder() / name / f"{name}_{split.upper()}.ts"))
    samples = load_series(name, split)
    assert len(samples) == len(signals)
    for index, signal in enumerate(signals):
        np.testing.assert_array_equal(samples[index], signal.astype(np.float32))
    assert samples.targets is not None
    if samples.targets.dtype.kind == "f":
        np.testing.assert_array_equal(samples.targets, targets)
    else:
        assert [label.lower() for label in samples.targets] == targets.tolist()  # aeon makes all text small


def test_every_file_of_aeon_is_read_or_has_time_stamps() -> None:
    for name in series_files():
        path = series_folder() / name
        if "TimeStamps" in name:
            with pytest.raises(ValueError, match=r"line \d+: series with time stamps are not read"):
                read_ts(path)
        else:
            lines = [line for line in path.read_text().splitlines() if line and line[0] not in "@%#"]
            assert len(read_ts(path)) == len(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no line @data: it is no .ts file, or cut off"),
        ("@problemName a\n", "has no line @data"),
        (HEADER, "holds no series: nothing follows @data"),
        ("@problemName a\n@data\n1:2\n", "does not say what the last value of a line is"),
        ("@classLabel true a\n@targetLabel true\n@data\n1:a\n", "says @classLabel true and @targetLabel true"),
        ("@timeStamps true\n", "line 1: series with time stamps are not read"),
        ("@missing perhaps\n", "line 1: @missing must be followed by true or false; got 'perhaps'"),
        ("@missing\n", "@missing must be followed by true or false; got ''"),
        ("@seriesLength 0\n", "@seriesLength must be followed by a positive integer; got '0'"),
        ("@dimensions two\n", "@dimensions must be followed by a positive integer; got 'two'"),
        ("@classLabel true\n", "@classLabel true must be followed by the classes"),
        ("@color red\n", "line 1: expected @data or one of @problemname.*; got '@color red'"),
        ("1,2,3:a\n", "line 1: expected @data or one of .*; got '1,2,3:a'"),
        (HEADER + "1,2:Up\n1,b:Up\n", r"Steps_TRAIN\.ts, line 6: values must be numbers or \?; got 'b'"),
        (HEADER + "1,,2:Up\n", "line 5: values must be numbers .* got ''"),
        (HEADER + "1,2:Left\n", "line 5: the class must be one of Up, Down; got 'Left'"),
        (HEADER + "1,2\n", "line 5: there must be a channel and a target"),
        (HEADER + "1,2:3:Up\n", "line 5: the channels of a series must have one length; they have 2, 1"),
        (HEADER + "1,2:Up\n1,2:1,2:Up\n", "line 6: the series before have 1 channels; found 2"),
        (HEADER + "@missing true\n", "line 5: @missing must stand before @data"),
        ("@univariate true\n" + HEADER + "1:2:Up\n", "line 6: the header says 1 channels; found 2"),
        ("@dimension 3\n" + HEADER + "1:2:Up\n", "line 6: the header says 3 channels; found 2"),
        ("@equalLength true\n@seriesLength 3\n" + HEADER + "1,2:Up\n", "says series of length 3; found 2"),
        ("@equalLength true\n" + HEADER + "1,2:Up\n1:Up\n", "@equalLength true; found length 1 after 2"),
        ("@targetLabel true\n@data\n1:nan\n", "line 3: the target must be a finite number; got 'nan'"),
        ("@targetLabel true\n@data\n1:x\n", "line 3: values must be numbers"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_bytes(b"@data\n\xff\xfe")
    with pytest.raises(ValueError, match=r"a\.ts is not text in UTF-8"):
        read(tmp_path / "a.ts")


@pytest.mark.parametrize("given", ["Steps_TRAIN.ts", "Steps_TEST.ts", "."])
def test_pairs(tmp_path: Path, given: str) -> None:
    write(tmp_path, HEADER + "1:Up\n2:Up\n")
    write(tmp_path, HEADER + "3:Down\n", "Steps_TEST.ts")
    path = tmp_path / given
    assert [has_split(path, split) for split in ("train", "test", "valid")] == [True, True, False]
    assert read(path)[1].tolist() == [[2]]
    assert read(path, split="test")[0].tolist() == [[3]]


def test_a_file_without_partner(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "1:Up\n", "Steps.ts")
    write(tmp_path, HEADER + "1:Up\n", "Other_TEST.ts")
    assert (has_split(path, "train"), has_split(path, "test")) == (True, False)
    assert (has_split(tmp_path / "Other_TEST.ts", "train"), has_split(tmp_path / "Other_TEST.ts", "test")) == (
        False,
        True,
    )
    with pytest.raises(ValueError, match=r'split="train": .* has no such part, only "test"'):
        read(tmp_path / "Other_TEST.ts")


def test_a_folder_of_several_sets(tmp_path: Path) -> None:
    folder = tmp_path / "Steps"
    folder.mkdir()
    for name in ("Other_TRAIN.ts", "Steps_TRAIN.ts"):
        write(folder, HEADER + "1:Up\n", name)
    assert ts_parts(folder) == {"train": folder / "Steps_TRAIN.ts"}
    with pytest.raises(ValueError, match=r"holds the \.ts files of several sets: Other, Steps"):
        read(folder.rename(tmp_path / "sets"))


def test_a_target_cannot_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'target="age": .* has no columns or arrays with names'):
        read(write(tmp_path, HEADER + "1:Up\n"), target="age")


def test_the_list_names_sets_of_classes_and_of_numbers() -> None:
    pytest.importorskip("aeon")
    assert {"GunPoint", "Covid3Month"} <= set(list_series())
