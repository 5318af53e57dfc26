"""What the commands print."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
