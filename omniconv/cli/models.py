"""`omniconv info` and `omniconv cite`: what a saved network is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from omniconv._references import cite
from omniconv.cli._output import console, facts
from omniconv.kernels import Kernel
from omniconv.models import Network, read_config
from omniconv.nn import Conv, GroupConv, GroupSelfAttention, LiftingConv, LiftingSelfAttention
from omniconv.supports import Support
from omniconv.training.card import shown

LAYERS = (Conv, LiftingConv, GroupConv, LiftingSelfAttention, GroupSelfAttention)

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
        rows: dict[str, Any] = {
            "parameters": f"{sum(parameter.numel() for parameter in network.parameters()):,}",
            **body_of(network),
            **kernels_of(layers_of(network)),
            **({"task": shown(task)} if task else {}),
            **{name: shown(value) for name, value in about.items() if value is not None},
        }
        console().print(facts(f"{self.model}: {config['class']}", rows))


def body_of(network: Network) -> dict[str, str]:
    """What the network takes, and its size, by what its class has of these."""
    arguments, taken = network.arguments, f"{network.in_channels} channel(s)"
    on_grid = "size" in arguments or "resolution" in arguments
    where = f"reference grid {network.grid.size}" if on_grid else f"points on {network.grid.dim} axes"
    blocks, width = arguments.get("blocks"), arguments.get("width") or arguments.get("widths")
    rows = {"signals": f"{taken}, {where}"}
    if blocks is not None:
        rows["blocks"] = str(blocks) if width is None else f"{blocks} of width {width}"
    elif width is not None:
        rows["widths"] = str(width)
    return rows


def layers_of(network: Network) -> dict[str, Any]:
    """The layers with kernels by name, from the first to the last, without those that are parts of others."""
    found: dict[str, Any] = {}
    for name, module in network.named_modules():
        if isinstance(module, LAYERS) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def kernels_of(layers: dict[str, Any]) -> dict[str, str]:
    """What the first layer is made of, and how far each reaches; nothing for a network without kernels."""
    if not layers:
        return {}
    first = next(iter(layers.values()))
    rows = (
        {"causal": str(first.causal)}
        if isinstance(first, Conv)
        else {"group": f"{first.group}, {len(first.samples)} samples"}
    )
    for name, kind in (("kernel", Kernel), ("support", Support)):
        part = next((module for module in first.modules() if isinstance(module, kind)), None)
        if part is not None:
            rows[name] = type(part).__name__
    return {**rows, "reach_per_layer": ", ".join(str(layer.window) for layer in layers.values())}


@dataclass(frozen=True)
class Cite:
    """Print BibTeX of everything that a saved network uses."""

    model: Model
    """Folder of a run or of a saved network."""

    def run(self) -> None:
        """Print the entries."""
        print(cite(Network.from_pretrained(self.model)))
