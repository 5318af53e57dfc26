"""What `import omniconv` costs over `import torch`.

Fresh processes take turns; the medians of their times are compared. Writes import_time.json and .md into `--out`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from _report import called, interleaved, markdown, provenance, table, write

LIMIT = 0.3
"""Seconds over torch that importing the library may take."""


def load(module: str) -> None:
    """Import a module in a fresh process, which keeps its byte code, as an installed package has it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, env=kept)


def main() -> None:
    """Measure, print and write; exit code 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    start = time.perf_counter()
    load("torch, numpy, safetensors.torch, omniconv")  # fills the caches of the file system, and those of byte code
    print(f"{options.repeats} imports of each, about {2 * options.repeats * (time.perf_counter() - start):.0f} s")
    torch_times, our_times = interleaved(
        [lambda: load("torch"), lambda: load("omniconv")], repeats=options.repeats, seconds=600
    )
    torch_seconds, our_seconds = statistics.median(torch_times), statistics.median(our_times)
    extra = our_seconds - torch_seconds
    rows = [["import torch", f"{torch_seconds:.2f}"], ["import omniconv", f"{our_seconds:.2f}"]]
    page = table(["medians of fresh processes", "seconds"], [*rows, ["difference", f"{extra:.2f}"]])
    about = provenance(seed=0, command=called("import_time.py", options, parser))
    times = {"torch": torch_times, "omniconv": our_times}  # apart: `about` has a "torch" of its own, the version
    data = {"times": times, "extra": extra, "limit": LIMIT, **about}
    write(options.out, "import_time", markdown("Import time", about, page), data)
    print(page)
    sys.exit(extra > LIMIT)


if __name__ == "__main__":
    main()
