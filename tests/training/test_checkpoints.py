from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv._errors import CheckpointError
from omniconv.training import checkpoints, read_checkpoint, read_latest, write_checkpoint
from omniconv.training.checkpoints import list_checkpoints, remove_old

FILES = ["tensors.safetensors", "state.json", "SHA256SUMS"]
STATE: dict[str, Any] = {"step": 7, "loss": 1 / 3, "name": "größe", "nested": {"list": [1, None, "a"]}}
TENSORS: dict[str, Tensor] = {
    "model/weight": torch.arange(6.0).reshape(2, 3) / 7,
    "optimizer/step": torch.tensor(5.0),
    "model/count": torch.tensor(3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
}


def written(folder: Path, step: int = 7) -> Path:
    return write_checkpoint(folder, step, {**STATE, "step": step}, TENSORS)


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert path == tmp_path / "step-000000007"
    assert sorted(file.name for file in path.iterdir()) == sorted(FILES)
    found = read_checkpoint(path)
    assert found.state == STATE
    assert found.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_tensors_that_share_or_skip_memory_come_back_too(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"transposed": base.t(), "column": base[:, 1], "grown": base.clone().requires_grad_()}
    found = read_checkpoint(write_checkpoint(tmp_path, 1, {}, tensors)).tensors
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_step_that_comes_by_again_replaces_its_checkpoint(tmp_path: Path) -> None:
    written(tmp_path)
    write_checkpoint(tmp_path, 7, {"again": True}, {})
    assert read_latest(tmp_path).state == {"again": True}
    assert len(list_checkpoints(tmp_path)) == 1


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_off_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path)
    whole = (path / name).read_bytes()
    for end in sorted({round(len(whole) * percent / 100) for percent in range(0, 100, 2)} | {len(whole) - 1}):
        (path / name).write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match=f"the checkpoint {path} is damaged"):
            read_checkpoint(path)
    (path / name).write_bytes(whole)
    assert read_checkpoint(path).state == STATE


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_one_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    path, draws = written(tmp_path), random.Random(name)
    whole = (path / name).read_bytes()
    for position in [*draws.sample(range(len(whole)), 62), len(whole) - 1]:
        changed = bytearray(whole)
        changed[position] ^= 1 << draws.randrange(8)
        (path / name).write_bytes(changed)
        with pytest.raises(CheckpointError, match=f"the checkpoint {path} is damaged"):
            read_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=f"the checkpoint {path} is damaged.*{name}"):
        read_checkpoint(path)


def test_right_sums_of_what_is_no_checkpoint_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    for contents in (
        {FILES[0]: b"no tensors", FILES[1]: b"{}"},
        {FILES[0]: (path / FILES[0]).read_bytes(), FILES[1]: b"{"},
    ):
        for name, data in {**contents, "SHA256SUMS": checkpoints.sums_of(contents)}.items():
            (path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=f"the checkpoint {path} is damaged"):
            read_checkpoint(path)


def test_the_newest_sound_checkpoint_is_used_and_damaged_ones_are_told_of(tmp_path: Path) -> None:
    paths = [written(tmp_path, step) for step in (9, 10, 100)]
    assert read_latest(tmp_path).state["step"] == 100
    for path in paths[1:]:
        (path / "state.json").write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged") as told:
        assert read_latest(tmp_path).state["step"] == 9
    assert [str(path) in str(warning.message) for path, warning in zip(paths[:0:-1], told, strict=True)] == [True, True]


def test_without_a_sound_checkpoint_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"there is no sound checkpoint in {tmp_path}"):
        read_latest(tmp_path)
    path = written(tmp_path)
    (path / "SHA256SUMS").unlink()
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(CheckpointError, match=f"there is no sound checkpoint in {tmp_path}. the checkpoint {path} is"),
    ):
        read_latest(tmp_path)


def nothing_but(folder: Path, *steps: int) -> bool:
    """Whether those checkpoints are sound and nothing else lies in the folder."""
    names = sorted(path.name for path in folder.iterdir())
    return names == [f"step-{step:09d}" for step in steps] and all(
        read_checkpoint(folder / name).state["step"] == step for name, step in zip(names, steps, strict=True)
    )


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_disk_that_fills_up_leaves_the_checkpoints_that_there_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    written(tmp_path, 1)
    flush, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == failing + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        CheckpointError, match=f"could not write the checkpoint {tmp_path}/step-000000002: No space left"
    ):
        written(tmp_path, 2)
    assert nothing_but(tmp_path, 1)


@pytest.mark.parametrize("name", FILES)
def test_a_device_without_space_is_told_of(tmp_path: Path, name: str) -> None:
    # The system itself says that there is no space: the file of that name is the device that is always full.
    written(tmp_path, 1)
    temporary = tmp_path / f".step-000000002.{os.getpid()}.tmp"
    temporary.mkdir()
    (temporary / name).symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="No space left on device"):
        written(tmp_path, 2)
    assert nothing_but(tmp_path, 1)


def test_a_process_that_may_write_no_more_keeps_its_checkpoint(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; import torch\n"
        "from omniconv._errors import CheckpointError\n"
        "from omniconv.training.checkpoints import write_checkpoint\n"
        "folder = Path(sys.argv[1]); write_checkpoint(folder, 1, {'step': 1}, {})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write_checkpoint(folder, 2, {'step': 2}, {'weight': torch.zeros(10_000)})\n"
        "except CheckpointError as error: print(error)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert f"could not write the checkpoint {tmp_path}/step-000000002: File too large." in done.stdout
    assert nothing_but(tmp_path, 1)


def test_a_file_in_place_of_the_folder_is_told_of_and_kept(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(CheckpointError, match=f"could not write the checkpoint {tmp_path}/checkpoints/step-000000007"):
        written(tmp_path / "checkpoints")
    assert (tmp_path / "checkpoints").read_text() == "mine"


def test_a_folder_that_may_not_be_written_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, 1)

    def refused(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused)
        with pytest.raises(CheckpointError, match=r"Permission denied.*fix the permissions, then resume"):
            written(tmp_path, 2)
    assert nothing_but(tmp_path, 1)


def test_everything_is_on_the_disk_before_the_checkpoint_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    flush, rename = os.fsync, Path.rename

    def noted_flush(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.partition("-000")[0])
        flush(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        assert not list_checkpoints(tmp_path), "there is a checkpoint before it is whole"
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_flush)
    monkeypatch.setattr(Path, "rename", noted_rename)
    written(tmp_path)
    assert events == [*FILES, ".step", "rename", tmp_path.name, tmp_path.parent.name]


def test_what_unfinished_writes_left_is_no_checkpoint_and_is_removed(tmp_path: Path) -> None:
    written(tmp_path, 1)
    shutil.copytree(tmp_path / "step-000000001", tmp_path / ".step-000000002.99.tmp")
    (tmp_path / "step-3").mkdir()
    (tmp_path / "step-000000004").write_text("a file")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000000001"]
    assert read_latest(tmp_path).state["step"] == 1
    remove_old(tmp_path, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000001", "step-000000004", "step-3"]


@pytest.mark.parametrize("keep", [1, 2, 4, 9])
def test_the_last_ones_are_kept(tmp_path: Path, keep: int) -> None:
    steps = [2, 30, 400, 5000, 60000]
    for step in steps:
        written(tmp_path, step)
    remove_old(tmp_path, keep)
    assert nothing_but(tmp_path, *steps[-keep:])


def test_a_folder_that_is_not_there_has_no_checkpoints(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "none") == []


def test_the_sums_are_those_of_the_usual_program(tmp_path: Path) -> None:
    path = written(tmp_path)
    program = shutil.which("sha256sum")
    if program is None:  # then by its format: digits, two spaces, name
        lines = (path / "SHA256SUMS").read_text().splitlines()
        assert [line[64:] for line in lines] == ["  tensors.safetensors", "  state.json"]
        return
    done = subprocess.run([program, "--check", "--strict", "SHA256SUMS"], cwd=path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["tensors.safetensors: OK", "state.json: OK"])
    (path / "state.json").write_text("{}")
    done = subprocess.run([program, "--check", "SHA256SUMS"], cwd=path, capture_output=True, text=True)
    assert done.returncode == 1


def test_folders_may_be_strings(tmp_path: Path) -> None:
    path = write_checkpoint(str(tmp_path), 7, STATE, TENSORS)
    assert path == tmp_path / "step-000000007"
    assert read_checkpoint(str(path)).state == read_latest(str(tmp_path)).state == STATE


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda folder: write_checkpoint(folder, -1, {}, {}), ValueError, "`step` must be at least 0; got -1"),
        (
            lambda folder: write_checkpoint(folder, 10**9, {}, {}),
            ValueError,
            "`step` must be below 1,000,000,000; got 1",
        ),
        (lambda folder: write_checkpoint(folder, 1.0, {}, {}), TypeError, "`step` must be an integer; got float 1.0"),  # type: ignore[arg-type]
        (lambda folder: write_checkpoint(None, 1, {}, {}), TypeError, "`folder` must be a path; got NoneType None"),  # type: ignore[arg-type]
        (lambda folder: read_checkpoint(3), TypeError, "`path` must be a path; got int 3"),  # type: ignore[arg-type]
        (lambda folder: read_latest(None), TypeError, "`folder` must be a path; got NoneType None"),  # type: ignore[arg-type]
    ],
)
def test_what_names_no_checkpoint_is_refused(
    tmp_path: Path, call: Callable[[Any], Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []
