"""What the commands print."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from omniconv._errors import require


def is_first_process() -> bool:
    """Whether this is the process that prints and writes; under torchrun there are several."""
    return int(os.environ.get("RANK", "0")) == 0


def console() -> Any:
    """Rich's console on standard output; silent in all processes but the first."""
    return require("rich.console", extra="cli", purpose="the command omniconv").Console(quiet=not is_first_process())


def facts(title: str, rows: Mapping[str, Any]) -> Any:
    """A table of names and values."""
    table: Any = require("rich.table", extra="cli", purpose="the command omniconv").Table(
        title=title, show_header=False, title_justify="left"
    )
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
    return table


def lines(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """A table of rows under headings: the first column to the left, the others to the right."""
    table: Any = require("rich.table", extra="cli", purpose="the command omniconv").Table(title=title)
    for i, heading in enumerate(head):
        table.add_column(heading, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    return table


def check_folder(option: str, folder: Path) -> None:
    """Raise `OSError` that names the option unless files can be written in a folder, which may be new.

    For what takes long: to learn at its end that nothing can be kept is too late.
    """
    if reason := why_not(folder):
        raise OSError(f"`{option}` must be a folder to write in, or a new one; got {folder}: {reason}. Give another.")


def check_file(option: str, path: Path) -> None:
    """Raise as `check_folder` does, for a file."""
    if reason := "it is a folder" if path.is_dir() else why_not(path.parent):
        raise OSError(
            f"`{option}` must be a file in a folder to write in, or in a new one; got {path}: {reason}. Give another."
        )


def why_not(folder: Path) -> str:
    """Why nothing can be written in a folder; empty where it can, and in all processes but the first.

    By trying, because permissions do not tell; what was made for it is removed.
    """
    if not is_first_process():
        return ""
    made: list[Path] = []
    try:
        for missing in reversed([at for at in (folder, *folder.parents) if not at.exists()]):
            missing.mkdir(exist_ok=True)
            made.append(missing)
        with TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for new in reversed(made):
            with suppress(OSError):  # another process may have written there meanwhile
                new.rmdir()
