"""What the benchmarks share: timing side by side, the machine's name, tables and files."""

from __future__ import annotations

import argparse

from omniconv.bench.measure import idle_share as idle_share
from omniconv.bench.measure import interleaved as interleaved
from omniconv.bench.measure import processor as processor
from omniconv.bench.measure import provenance as provenance
from omniconv.bench.measure import wait_until_quiet as wait_until_quiet
from omniconv.bench.pages import markdown as markdown
from omniconv.bench.pages import table as table
from omniconv.bench.pages import write as write


def called(script: str, options: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """The command with the options that are not at their defaults; the folder of the data differs between machines."""
    given = [
        f"--{name} {','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in vars(options).items()
        if name not in ("data", "out", "models") and value != parser.get_default(name)
    ]
    data = "DATA " if hasattr(options, "data") else ""
    return " ".join([f"python benchmarks/{script} {data}--out {options.out}", *given])
