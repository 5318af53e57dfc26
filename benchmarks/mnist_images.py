"""Trains on 10,000 MNIST images with one command, every option at its default, and reports test accuracy and time.

python benchmarks/mnist_images.py DATA --out docs/results

DATA: a folder with the four idx files of MNIST; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _report import markdown, provenance, table, write

from omniconv.models import CCNN

ABOUT = """One command: `{command}`. It draws 10,000 of the 60,000 training images, every digit with its share, trains
the network that it chooses for their size, and evaluates it on the 10,000 test images. Seconds are wall time of the
whole command, with reading, test and figures."""
HEAD = ("seed", "parameters", "epochs", "test accuracy", "test log loss", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the idx files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page and the JSON")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    rows, results = [], []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "mnist"
            command = ["omniconv", "fit", str(options.data), "--out", str(run), "--limit", "10000", "--seed", str(seed)]
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", *command], check=True)
            seconds = time.perf_counter() - began
            test = json.loads((run / "metrics.json").read_text())["test"]
            epochs = json.loads((run / "config.json").read_text())["about"]["epochs"]
            parameters = sum(parameter.numel() for parameter in CCNN.from_pretrained(run).parameters())
        results.append({"seed": seed, "parameters": parameters, "epochs": epochs, **test, "seconds": seconds})
        rows.append(
            [str(seed), f"{parameters:,}", str(epochs), f"{test['accuracy']:.4f}", f"{test['log_loss']:.4f}",
             f"{seconds:.0f}"]
        )  # fmt: skip
    called = f"python benchmarks/mnist_images.py DATA --out {options.out}"  # the folder differs from machine to machine
    about = provenance(seed=0) | {"command": called, "seed": ", ".join(row[0] for row in rows)}
    shown = shlex.join(["omniconv", "fit", "MNIST", "--limit", "10000", "--out", "RUN"])
    page = markdown("MNIST as images, 10,000 of them", about, ABOUT.format(command=shown), table(HEAD, rows))
    write(options.out, "mnist_images", page, {"about": about, "results": results})


if __name__ == "__main__":
    main()
