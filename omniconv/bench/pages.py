"""Results as files: a page of markdown, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Table: TypeAlias = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""A title, headings, and rows below them."""


def markdown(title: str, about: dict[str, Any], *parts: str) -> str:
    """A page: the title, where the numbers come from, and its parts."""
    origin = "Written by `{command}` on {date}: {processor}, {threads} threads, torch {torch}, seed {seed}."
    return "\n\n".join([f"# {title}", origin.format(**about), *parts]) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table: the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def chosen_columns(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int]) -> Table:
    """The table with these columns alone."""
    return title, [head[i] for i in columns], [[row[i] for i in columns] for row in rows]


def write(folder: Path, name: str, page: str, data: dict[str, Any]) -> None:
    """The page as `name.md`, and the data as `name.json` with a line for every item of its lists."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(page)
    values = [f"{json.dumps(key)}: {lined(value)}" for key, value in data.items()]
    (folder / f"{name}.json").write_text("{\n" + ",\n".join(values) + "\n}\n")


def lined(value: Any) -> str:
    """JSON; a list has a line for every item."""
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(f" {json.dumps(item)}" for item in value) + "\n]"


def save(path: Path, draw: Callable[[], Figure]) -> bool:
    """Draw and save a figure; False without matplotlib, for which `draw` raises `ImportError`."""
    try:
        figure = draw()
    except ImportError:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return True
