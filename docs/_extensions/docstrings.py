"""The library's docstrings are plain text with code in single backticks; this makes them reStructuredText."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

SPECIAL = re.compile(r"[\\*|]|_(?=\W|$)")
"""What means something in reStructuredText and nothing in the docstrings."""

ARGUMENT = re.compile(r"`\w+`(, `\w+`)*:")
"""How a line starts that says what arguments are."""


def escaped(line: str) -> str:
    """A line with everything outside of backticks taken literally."""
    parts = line.split("`")
    return "`".join(SPECIAL.sub(r"\\\g<0>", part) if i % 2 == 0 else part for i, part in enumerate(parts))


def plain(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText: text escaped, arguments as a list, examples as they are, headings in bold."""
    made: list[str] = []
    example = item = False
    for line in lines:
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if made and re.fullmatch(r"-{3,}", line.strip()):
            made[-1] = f"**{made[-1]}**"
            made.append("")
        elif example:
            made.append(line)
        elif ARGUMENT.match(line):
            made += ["- " + escaped(line)] if item or not made or not made[-1] else ["", "- " + escaped(line)]
            item = True
        else:
            item = item and bool(line.strip())
            made.append("  " * item + escaped(line))
    return made


def convert(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replace the lines of a docstring in place, as Sphinx wants it."""
    lines[:] = plain(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("autodoc-process-docstring", convert)
    return {"parallel_read_safe": True}
