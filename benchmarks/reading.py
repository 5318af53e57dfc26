"""How fast batches are read: by this process, by omniconv's workers and by torch's, from files and from memory.

python benchmarks/reading.py --out docs/results
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from _report import markdown, provenance, table, write
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from omniconv.data import ArraySamples, Samples, read
from omniconv.training.batches import Batch
from omniconv.training.loading import RETRIES, Reader, loader

SEED, BATCH = 0, 32
WORKERS = (0, 1, 2)
SIDE = 224
"""Pixels of an image, each way."""

ABOUT = """Samples per second of an epoch in batches of {batch}, the start of the workers included; the median of
{rounds} rounds in which all ways take turns. *step*: what a training step takes of the same processors, here as a pause
that leaves them idle (the network is on another device) of that many milliseconds per batch: what is read meanwhile
costs no time. "torch" is `torch.utils.data.DataLoader` with the same function that reads a batch. Ours hands large
batches over by memory without a name, of which nothing is left when a worker dies, and asks a worker for one batch
ahead; torch's default is two."""
HEAD = ("samples", "step", "workers", "omniconv", "torch", "times as fast")


class Asked(Dataset[Batch]):
    """Whole batches, by their places in a list."""

    def __init__(self, reader: Reader, wanted: list[list[int]]):
        self.reader, self.wanted = reader, wanted

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, index: int) -> Batch:
        return self.reader.read(self.wanted[index])


@dataclass
class Row:
    """Samples per second with so many workers and a step of so many milliseconds."""

    samples: str
    step_ms: float
    workers: int
    omniconv: float
    torch: float


def folder_of_images(folder: Path, count: int) -> Samples:
    """JPEG files of smooth noise, in folders by class."""
    random = np.random.default_rng(SEED)
    for index in range(count):
        small = Image.fromarray(random.integers(0, 256, (28, 28, 3), dtype=np.uint8))
        place = folder / "ab"[index % 2]
        place.mkdir(exist_ok=True)
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place / f"{index}.jpg", quality=90)
    return read(folder)


def series(count: int) -> Samples:
    """Series of 4,096 numbers in memory: nothing to read, all to send."""
    random = np.random.default_rng(SEED)
    return ArraySamples(random.standard_normal((count, 1, 4096), dtype=np.float32), np.arange(count) % 2)


def ours(reader: Reader, wanted: list[list[int]], workers: int) -> Iterator[Batch]:
    """The batches by `training.loading.loader`."""
    with closing(loader(reader.samples, wanted, workers)) as batches:
        yield from batches


def torchs(reader: Reader, wanted: list[list[int]], workers: int) -> Iterator[Batch]:
    """The batches by torch's loader."""
    yield from DataLoader(Asked(reader, wanted), batch_size=None, num_workers=workers)


def seconds(batches: Iterable[Batch], step: float, count: int) -> float:
    """What an epoch takes; raises unless all samples came."""
    start, met = time.perf_counter(), 0
    for batch in batches:
        met += len(batch.signals)
        if step:
            time.sleep(step)
    taken = time.perf_counter() - start
    if met != count:
        raise ArithmeticError(f"{met} of {count} samples came")
    return taken


def measured(name: str, samples: Samples, step_ms: float, workers: int, rounds: int) -> Row:
    """Both ways in turns."""
    reader, count = Reader(samples, RETRIES), len(samples)
    wanted = [part.tolist() for part in np.array_split(np.arange(count), -(-count // BATCH))]
    ways: list[Callable[[Reader, list[list[int]], int], Iterator[Batch]]] = [ours, torchs]
    taken = [[seconds(way(reader, wanted, workers), step_ms / 1e3, count) for way in ways] for _ in range(rounds)]
    first, second = (count / statistics.median(times) for times in zip(*taken, strict=True))
    return Row(name, step_ms, workers, first, second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of reading.md and .json")
    parser.add_argument("--count", type=int, default=1024, help="samples of either kind")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            f"JPEG files, {SIDE} x {SIDE}": folder_of_images(Path(folder), options.count),
            "series of 4,096 in memory": series(options.count),
        }
        for name, samples in kinds.items():
            for step_ms in (0.0, 50.0):
                for workers in WORKERS:
                    rows.append(measured(name, samples, step_ms, workers, options.rounds))
                    print(rows[-1], flush=True)
    lines = [
        [
            *(r.samples, f"{r.step_ms:g} ms", str(r.workers)),
            *(f"{r.omniconv:,.0f}", f"{r.torch:,.0f}", f"{r.omniconv / r.torch:.2f}"),
        ]
        for r in rows
    ]
    about = provenance(SEED)
    text = ABOUT.format(batch=BATCH, rounds=options.rounds)
    page = markdown("Reading batches", about, text, table(HEAD, lines))
    write(options.out, "reading", page, {"about": about, "rows": [asdict(r) for r in rows]})


if __name__ == "__main__":
    main()
