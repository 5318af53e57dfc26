from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from omniconv.data import has_split, read


def test_a_missing_path() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"There is no file or folder 'nowhere/a\.csv'. Understood are NumPy files"
    ):
        read("nowhere/a.csv")
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        has_split("nowhere", "test")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    with pytest.raises(ValueError, match=r"empty folder .*: there is no file in it. Understood are"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.abc", r"a\.abc is not understood. Understood are NumPy files \(\.npz, \.npy\), tables .*sklearn:digits"),
        ("a", "a is not understood"),
        ("a.png", r"a\.png is a single signal. Give the folder that it is in"),
        ("a.nii.gz", "is a single signal"),
        ("a.pkl", "may be a pickle, which can run any code and is never loaded. Save it as .npz"),
        ("a.pt", "may be a pickle"),
    ],
)
def test_files_that_are_not_understood(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    for action in (lambda path: read(path), lambda path: has_split(path, "test")):
        with pytest.raises(ValueError, match=message):
            action(tmp_path / name)


def test_wrong_choices(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'valid', 'test'; got 'all'"):
        read(tmp_path, split="all")
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'valid', 'test'; got 'all'"):
        has_split(tmp_path, "all")
    with pytest.raises(ValueError, match="`corrupt` must be one of 'raise', 'skip'; got 'ignore'"):
        read(tmp_path, corrupt="ignore")


def test_the_ending_may_be_in_capitals(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    (tmp_path / "a.npy").rename(tmp_path / "A.NPY")
    (tmp_path / "B.CSV").write_text("a,b\n1,1\n")
    assert read(tmp_path / "A.NPY")[1].tolist() == [[1, 1, 1]]
    assert read(tmp_path / "B.CSV")[0].tolist() == [[1, 1]]


def test_text_and_paths_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("a.npy", Path("a.npy"), "~/a.npy", str(tmp_path / "a.npy")):
        assert len(read(path)) == 2


@pytest.mark.parametrize(
    ("name", "package", "purpose"),
    [
        ("a.csv", "pandas", "reading CSV files needs the package 'pandas'"),
        ("a.parquet", "pyarrow", "reading Parquet files needs the package 'pyarrow'"),
        ("images/a.png", "PIL", r"reading \.png files needs the package 'PIL'"),
        ("sounds/a.wav", "soundfile", r"reading \.wav files needs the package 'soundfile'"),
        ("volumes/a.nii", "nibabel", r"reading \.nii files needs the package 'nibabel'"),
    ],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, purpose: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{purpose}. Install it with: pip install 'omniconv\[data\]'"):
        read(path if path.parent == tmp_path else path.parent, corrupt="skip")
