"""The directive `presets`: the published networks as a table."""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes  # type: ignore[import-untyped]
from docutils.parsers.rst import Directive  # type: ignore[import-untyped]
from options import literal, row
from sphinx.application import Sphinx

from omniconv.models import Preset
from omniconv.models.presets import PRESETS

HEAD = ("name", "task", "size", "parameters", "omega_0", "lr", "epochs", "batch", "dropout")


def cells(known: Preset) -> list[Any]:
    """What the table says of a preset."""
    size = " x ".join(map(str, known.arguments["size"]))
    count = sum(parameter.numel() for parameter in known.build(device="meta").parameters())
    omega_0 = known.arguments["kernel"].keywords["omega_0"]
    numbers = (size, f"{count:,}", f"{omega_0:.5g}", known.lr, known.epochs, known.batch_size)
    texts = (known.task, *map(str, numbers), str(known.arguments["dropout"]))
    return [literal(known.name), *(nodes.paragraph(text=text) for text in texts)]


class Presets(Directive):
    """`presets`, without arguments."""

    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """The table."""
        group = nodes.tgroup(cols=len(HEAD))
        group += [nodes.colspec(colwidth=width) for width in (24, 28, 9, 10, 8, 6, 6, 6, 6)]
        group += nodes.thead("", row(*(nodes.paragraph(text=word) for word in HEAD)))
        group += nodes.tbody("", *(row(*cells(known)) for known in PRESETS.values()))
        return [nodes.table("", group)]


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("presets", Presets)
    return {"parallel_read_safe": True}
