"""`omniconv export`: a trained network for runtimes that know nothing of torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from omniconv import __version__
from omniconv.cli._output import console, facts
from omniconv.cli.models import Model
from omniconv.export import to_onnx
from omniconv.models import Network, read_config


@dataclass(frozen=True)
class Export:
    """Write a trained network as an ONNX file, once onnxruntime agrees with it at four sizes of signals."""

    model: Model
    """Folder of a run or of a saved network."""

    out: Path
    """The file, named .onnx. Its metadata hold the task with its classes, and what is known of the data, as JSON."""

    def run(self) -> None:
        """Write the file and print what it takes and gives."""
        if self.out.suffix != ".onnx":
            raise ValueError(f"`--out` must be a file named .onnx; got {self.out}.")
        if not self.out.absolute().parent.is_dir():
            raise ValueError(f"`--out` must be in a folder that exists; there is no {self.out.absolute().parent}.")
        config, network = read_config(self.model), Network.from_pretrained(self.model).eval()
        words: dict[str, str] = {
            name: json.dumps(config[name]) for name in ("class", "task", "about") if name in config
        }
        try:
            with console().status("tracing, writing, comparing with onnxruntime"):
                to_onnx(network, self.out, metadata={"omniconv": __version__, **words})
        except ArithmeticError as error:
            raise ValueError(str(error)) from error
        taken = "ids (batch, *size)" if network.embedding is not None else f"(batch, {network.in_channels}, *size)"
        rows = {
            "input x": f"{taken}, {network.grid.dim} axes of any size",
            "output y": f"{network.out_features} numbers",
            "size": f"{self.out.stat().st_size:,} bytes",
        }
        console().print(facts(str(self.out), rows))
