"""Times group convolutions beside the plain convolution, and writes groups.md, groups.json and groups.png.

    python benchmarks/groups.py --out docs/results

The benchmark itself is `omniconv.bench.groups`; `omniconv bench groups` is the same with tables on the terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from omniconv.bench import groups
from omniconv.bench.pages import table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of groups.md, groups.json and groups.png")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--minutes", type=float, default=3.0, help="after which no round begins; three are finished")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measured = groups.benchmark(
        options.device,
        batch=options.batch,
        channels=options.channels,
        rounds=options.rounds,
        minutes=options.minutes,
    )
    print(table(groups.HEAD, groups.rows(measured)))
    print(table(groups.BARS_HEAD, groups.bar_rows(measured)))
    groups.write_report(measured, options.out)


if __name__ == "__main__":
    main()
