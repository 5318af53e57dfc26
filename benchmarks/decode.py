"""Autoregressive decoding by models of 1.3 billion parameters: Transformers, Hyena with a cache, Hyena distilled.

    python benchmarks/decode.py --out docs/results

The benchmark itself is `omniconv.bench.decode`. The weights are random: time does not depend on them. It ends within
ten minutes on one H200; `--sizes small` runs the same code with tiny models, on a CPU if there is nothing else. Where
the fused step and the plain one disagree, or a model's steps and its pass over the whole sequence, it exits with 1 and
reports nothing.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from omniconv.bench import DisagreementError
from omniconv.bench.decode import CONTESTANTS, SIZES, benchmark, write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of decode.md, .json and .png")
    parser.add_argument("--sizes", choices=tuple(SIZES), default="full")
    parser.add_argument("--contestants", default=";".join(CONTESTANTS), help="some, with semicolons in between")
    parser.add_argument("--seconds", type=float, default=0.4, help="of timing, for every batch")
    parser.add_argument("--minutes", type=float, default=8.5, help="after which no further measurement begins")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.sizes == "full" and device == "cpu":
        parser.error("the models are for a graphics processor; --sizes small runs on a CPU")
    try:
        benchmark(
            SIZES[options.sizes],
            device,
            contestants=options.contestants.split(";"),
            seconds=options.seconds,
            minutes=options.minutes,
            progress=partial(print, flush=True),
            finished=partial(write_report, out=options.out),
        )
    except DisagreementError as error:
        sys.exit(f"nothing is reported:\n{error}")


if __name__ == "__main__":
    main()
