"""`omniconv info` and `omniconv cite`: what a saved network is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from omniconv._references import cite
from omniconv.cli._output import console, facts
from omniconv.models import CCNN, read_config
from omniconv.training.card import shown

Model = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]


@dataclass(frozen=True)
class Info:
    """Print what a saved network is: sizes, task, data, training, and how far its kernels reach."""

    model: Model
    """Folder of a run or of a saved network."""

    def run(self) -> None:
        """Print the tables."""
        config, network = read_config(self.model), CCNN.from_pretrained(self.model)
        about, task = config.get("about", {}), config.get("task", {})
        rows: dict[str, Any] = {
            "parameters": f"{sum(parameter.numel() for parameter in network.parameters()):,}",
            "signals": f"{network.in_channels} channel(s), reference grid {network.stem.grid.size}",
            "blocks": f"{len(network.blocks)} of width {network.arguments['width']}",
            "causal": network.stem.causal,
            "kernel": type(network.stem.kernel).__name__,
            "support": type(network.stem.support).__name__,
            "reach_per_layer": ", ".join(str(conv.window) for conv in convolutions(network)),
            "task": shown(task),
            **{name: shown(value) for name, value in about.items() if value is not None},
        }
        console().print(facts(f"{self.model}: {config['class']}", rows))


def convolutions(network: CCNN) -> list[Any]:
    """The convolutions of the network from the first to the last."""
    return [network.stem, *(block.conv for block in network.blocks)]


@dataclass(frozen=True)
class Cite:
    """Print BibTeX of everything that a saved network uses."""

    model: Model
    """Folder of a run or of a saved network."""

    def run(self) -> None:
        """Print the entries."""
        print(cite(CCNN.from_pretrained(self.model)))
