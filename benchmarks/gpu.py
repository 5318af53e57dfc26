"""On a graphics processor: checks every engine against float64, then times the CUDA grid, and prints as it goes.

    python benchmarks/gpu.py --out results

It ends within eight minutes. `--rehearse` runs the same code on a CPU with tiny cases. An engine that fails its check
is not timed by its name, and where the automatic choice is wrong the case is skipped: then the figures lie in
`conv_cuda_refused.json` alone, nothing is reported, and the exit code is 1. So it is after an illegal access, with the
figures until then.

The engines' own tests, on a machine that has torch, triton, numpy, pytest and hypothesis, but no plugins of pytest:

    PYTHONPATH=. python3 -m pytest -o addopts=--import-mode=importlib -W "ignore:Unknown config" tests/engines/triton
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import torch

from omniconv.bench import (
    Case,
    Cell,
    Contestant,
    DisagreementError,
    Measured,
    benchmark,
    cells,
    entrants,
    grid,
    headlines,
    summarise,
    write_report,
)
from omniconv.bench.conv import FURTHER, QUICK_SWEEPS, SWEEPS, as_data, open_cell
from omniconv.bench.pages import write
from omniconv.engines._float32 import without_tf32

BASIC = ("auto", "direct", "fft")
"""Contestants that hold no code of their own for a graphics processor."""
BF16, FP16 = torch.bfloat16, torch.float16

CHECKS = [
    *cells("check", 2, 16, (64,), (3, 64), causal=True),
    *cells("check", 3, 5, (1000,), (17, 1000), causal=True, dtype=BF16),
    *cells("check", 2, 16, (1024,), (64, 1024), causal=True, dtype=FP16),
    *cells("check", 2, 3, (777,), (33, 776)),
    *cells("check", 2, 16, (4096,), (4096,), causal=True, dtype=BF16),
    *cells("check", 1, 4, (20000,), (300, 20000), causal=True),
    *cells("check", 2, 16, (512,), (64, 512), boundary="circular"),
    *cells("check", 2, 5, (32, 32), (3, 7, 33)),
    *cells("check", 2, 16, (29, 31), (15,), dtype=BF16),
    *cells("check", 1, 3, (64, 64), (65,), dtype=FP16),
    *cells("check", 2, 8, (16, 16), (16,), boundary="circular"),
    *cells("check", 1, 4, (12, 12, 12), (5,)),
    *cells("check", 2, 8, (256,), (31,), out=16, causal=True, dtype=BF16),
]
REHEARSAL = [*cells("check", 2, 3, (20,), (3, 20), causal=True), *cells("check", 1, 2, (6, 5), (3,))]
REHEARSAL += [*cells("check", 1, 2, (4, 4, 4), (3,)), *cells("check", 1, 2, (9,), (3,), out=3, causal=True)]


def check(cases: list[Case], entered: list[Contestant], device: str) -> set[str]:
    """Print the largest error of every engine on every case that it can do; the names of those that fail."""
    failed = set()
    for case in cases:
        for contestant in entered:
            if not contestant.ours or not checked(contestant.name, case) or contestant.reject(case, device) is not None:
                continue
            start = time.perf_counter()
            try:
                (errors,) = open_cell(case, [contestant], device).errors.values()
                text = " ".join(f"{name} {error:.1e}" for name, error in errors.items())
            except DisagreementError as error:
                failed.add(contestant.name)
                text = f"WRONG: {error}"
            print(f"check {contestant.name}: {case.name}: {text} ({time.perf_counter() - start:.1f} s)", flush=True)
    return failed


def checked(name: str, case: Case) -> bool:
    """Whether that is looked at: code for graphics processors, and the choice where there is little of that."""
    return name not in BASIC or (name == "auto" and (case.out is not None or len(case.size) == 3))


def line(cases: int, done: int, total: int, cell: Cell | None) -> None:
    """In the first of the sweeps over so many cases, the times of a cell."""
    if done > cases:
        return
    if cell is None:
        print(f"{done}/{cases} skipped: an engine of ours is wrong", flush=True)
    else:
        times = " ".join(f"{name} {1e3 * cell.seconds(name):.3f}" for name in cell.names)
        print(f"{done}/{cases} {cell.case.name}: {cell.chosen}: {times} ms", flush=True)


def show(measured: Measured) -> None:
    """Print the summary."""
    for name, value in headlines(summarise(measured)).items():
        print(f"{name}: {value}")
    for row in summarise(measured)["long"]:
        speeds = " ".join(f"{name} x{times:.2f}" for name, times in row["times_as_fast"].items())
        print(f"{row['case']}: {row['chosen']} {row['ms']:.3f} ms, {row['times_copy']:.1f} copies; {speeds}")


def report(measured: Measured, out: Path) -> None:
    """Print the summary and write the report, or what there is without one."""
    if measured.cells:
        show(measured)
    if measured.wrong:
        found = {"wrong": measured.wrong, "cells": [as_data(measured, cell) for cell in measured.cells]}
        write(out, "conv_cuda_refused", "\n".join(["# Refused", *measured.wrong]) + "\n", found)
        sys.exit("\n".join(["nothing is reported:", *measured.wrong]))
    write_report(measured, out, "conv_cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of conv_cuda.md, .json and .png")
    parser.add_argument("--minutes", type=float, default=7.0, help="for everything but the writing")
    parser.add_argument("--rehearse", action="store_true", help="tiny cases on a CPU")
    options = parser.parse_args()
    try:
        measured = run(options)
    except RuntimeError as error:  # such as an illegal access, after which the device does nothing more
        wrong = [f"the run ended with {type(error).__name__}: {error}"]
        measured = Measured("cpu" if options.rehearse else "cuda", bandwidth=0.0, wrong=wrong)
    report(measured, options.out)


def run(options: argparse.Namespace) -> Measured:
    """The checks, and then the grid."""
    stop = time.monotonic() + 60 * options.minutes
    device = "cpu" if options.rehearse else "cuda"
    entered = entrants()
    with without_tf32():
        failed = check(REHEARSAL if options.rehearse else CHECKS, entered, device)
    cases = grid(device, quick=options.rehearse)
    measured = benchmark(
        cases,
        device,
        entered=[contestant for contestant in entered if contestant.name not in failed - {"auto"}],
        sweeps=QUICK_SWEEPS if options.rehearse else SWEEPS,
        further=0 if options.rehearse else FURTHER,
        minutes=(stop - time.monotonic()) / 60,
        patient=True,
        progress=partial(line, len(cases)),
    )
    measured.wrong += [f"{name} fails its check" for name in sorted(failed)]
    return measured


if __name__ == "__main__":
    main()
