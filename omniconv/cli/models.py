"""`omniconv info` and `omniconv cite`: what a saved network is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from omniconv._references import cite
from omniconv.cli._output import console, facts
from omniconv.models import Network, read_config
from omniconv.nn import Conv
from omniconv.training.card import shown

Model = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]


@dataclass(frozen=True)
class Info:
    """Print what a saved network is: sizes, task, data, training, and how far its kernels reach."""

    model: Model
    """Folder of a run or of a saved network."""

    def run(self) -> None:
        """Print the tables."""
        config, network = read_config(self.model), Network.from_pretrained(self.model)
        about, task = config.get("about", {}), config.get("task", {})
        first, arguments = convolutions(network)[0], network.arguments
        rows: dict[str, Any] = {
            "parameters": f"{sum(parameter.numel() for parameter in network.parameters()):,}",
            "signals": f"{network.in_channels} channel(s), reference grid {network.grid.size}",
            "blocks": f"{arguments['blocks']} of width {arguments.get('width') or arguments['widths']}",
            "causal": first.causal,
            "kernel": type(first.kernel).__name__,
            "support": type(first.support).__name__,
            "reach_per_layer": ", ".join(str(conv.window) for conv in convolutions(network)),
            "task": shown(task),
            **{name: shown(value) for name, value in about.items() if value is not None},
        }
        console().print(facts(f"{self.model}: {config['class']}", rows))


def convolutions(network: Network) -> list[Conv]:
    """The convolutions of the network from the first to the last."""
    return [module for module in network.modules() if isinstance(module, Conv)]


@dataclass(frozen=True)
class Cite:
    """Print BibTeX of everything that a saved network uses."""

    model: Model
    """Folder of a run or of a saved network."""

    def run(self) -> None:
        """Print the entries."""
        print(cite(Network.from_pretrained(self.model)))
