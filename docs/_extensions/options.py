"""The directive `options`: the fields of a dataclass as a table of names, defaults and what the source says of them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import MISSING, fields
from importlib import import_module
from typing import Any

from docutils import nodes  # type: ignore[import-untyped]
from docutils.parsers.rst import Directive  # type: ignore[import-untyped]
from sphinx.application import Sphinx


def described(kind: type[Any]) -> list[tuple[str, str, str]]:
    """Name, default and description of every field; the description is the string below the field."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    told: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            told[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return [
        (field.name, "required" if field.default is MISSING else repr(field.default), told[field.name])
        for field in fields(kind)
    ]


class Options(Directive):
    """`options` with the module and the dataclass as its argument, such as `omniconv.training:Recipe`.

    The flag `command` spells names as options of a command.
    """

    required_arguments = 1
    option_spec = {"command": lambda argument: True}  # noqa: RUF012, docutils wants a dict

    def run(self) -> list[nodes.Node]:
        """The table."""
        module, _, name = self.arguments[0].partition(":")
        head = ("option" if "command" in self.options else "name", "default", "what it is")
        rows = described(getattr(import_module(module), name))
        group = nodes.tgroup(cols=3)
        group += [nodes.colspec(colwidth=width) for width in (20, 15, 65)]
        group += nodes.thead("", row(*(nodes.paragraph(text=word) for word in head)))
        body = nodes.tbody()
        for field, default, text in rows:
            spelled = f"--{field.replace('_', '-')}" if "command" in self.options else field
            shown = nodes.paragraph(text=default) if default == "required" else literal(default)
            body += row(literal(spelled), shown, nodes.paragraph(text=text))
        group += body
        return [nodes.table("", group)]


def literal(text: str) -> nodes.paragraph:
    """Code in a cell."""
    return nodes.paragraph("", "", nodes.literal(text=text))


def row(*cells: nodes.Node) -> nodes.row:
    """A row of a table."""
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("options", Options)
    return {"parallel_read_safe": True}
