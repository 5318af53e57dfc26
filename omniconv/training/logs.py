"""The record of a run: one row per step, as JSON lines and as a table."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TextIO

from omniconv._errors import check_path
from omniconv._files import write_whole


class Logs:
    """`log.jsonl` and `log.csv` in a folder: the same rows, one per step.

    `step`: rows after it, which a run that goes on computes again, are removed. A value that only some rows have, as
    those of validation, leaves its column of the table empty in the others.
    """

    def __init__(self, folder: Path, step: int = 0):
        self.folder = folder
        self.rows = [row for row in read_log(folder / "log.jsonl") if row["step"] <= step] if step else []
        write_whole(folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in self.rows).encode())
        self._lines: TextIO = (folder / "log.jsonl").open("a", encoding="utf-8")
        self.flush()

    def write(self, row: dict[str, float]) -> None:
        """Add a row."""
        self.rows.append(row)
        self._lines.write(json.dumps(row) + "\n")

    def flush(self) -> None:
        """Hand the lines to the system and write the table."""
        self._lines.flush()
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.folder / "log.csv", table.getvalue().encode())

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._lines.close()


def read_log(path: str | Path) -> list[dict[str, float]]:
    """The rows of a `log.jsonl`; a last line that a kill cut off is left out. Empty if there is no such file.

    Raises `ValueError` that names the file and the line for damage elsewhere.
    """
    path = check_path("path", path)
    rows: list[dict[str, float]] = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path} is damaged in line {number}: {error}.") from error
    return rows
