"""Times clouds of growing numbers of points, and writes points.md, points.json and points.png.

    python benchmarks/points.py --out docs/results

The benchmark itself is `omniconv.bench.points`; `omniconv bench points` is the same with tables on the terminal.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from omniconv.bench import DisagreementError, points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of points.md, points.json and points.png")
    parser.add_argument(
        "--points", type=lambda text: [int(word) for word in text.split(",")], default=points.COUNTS,
    )  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    how = {"width": options.width, "blocks": options.blocks, "repeats": options.repeats, "seconds": options.seconds}
    try:
        measured = points.benchmark(options.points, options.device, progress=print, **how)
    except DisagreementError as error:
        sys.exit(f"nothing is reported: {error}")
    print(points.ratios(measured))
    points.write_report(measured, options.out)


if __name__ == "__main__":
    main()
