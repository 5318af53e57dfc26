"""Times convolutions beside peers, and writes conv.md, conv.json and conv.png.

    python benchmarks/conv.py --out docs/results

The benchmark itself is `omniconv.bench`; `omniconv bench conv` is the same with a table on the terminal.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omniconv.bench import Cell, DisagreementError, benchmark, entrants, grid, headlines, summarise, write_report
from omniconv.bench.conv import FURTHER, QUICK_SWEEPS, SWEEPS


def show(done: int, total: int, cell: Cell | None) -> None:
    """A line now and then."""
    if done % 20 == 0 or done == total:
        print(f"{done} of {total} visits", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of conv.md, conv.json and conv.png")
    parser.add_argument("--quick", action="store_true", help="a few small convolutions")
    parser.add_argument("--minutes", type=float, default=10.0, help="after which nothing new is begun")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too, which builds for long")
    options = parser.parse_args()
    try:
        measured = benchmark(
            grid("cpu", quick=options.quick),
            "cpu",
            entered=entrants(compiled=options.compiled),
            sweeps=QUICK_SWEEPS if options.quick else SWEEPS,
            further=0 if options.quick else FURTHER,
            minutes=options.minutes,
            progress=show,
        )
    except DisagreementError as error:
        sys.exit(f"nothing is reported: {error}")
    for name, value in headlines(summarise(measured)).items():
        print(f"{name}: {value}")
    write_report(measured, options.out, "conv")


if __name__ == "__main__":
    main()
