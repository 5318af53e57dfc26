"""Clouds of growing numbers of points: on a lattice, at the points, and at the points without sparing memory.

python benchmarks/points.py --out docs/results
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from _report import called, interleaved, markdown, provenance, table, write
from torch import Tensor, nn

from omniconv.bench.measure import peak_memory
from omniconv.domains import Edges, within
from omniconv.models import GriddedNet
from omniconv.nn import PointConv

CELLS, REACH = 16, 2
"""Nodes per axis of the lattice, and on each side of a kernel on it."""

RADIUS = REACH + 0.5
"""In cells: half the side of a box of the same volume as a kernel on the lattice."""

ABOUT = """Points drawn uniformly in a cube, {width} channels, {blocks} blocks of a separable convolution, forward and
backward, one cloud. *lattice*: `GriddedNet(resolution={cells}, reach={reach}, head="dense")`, and back to the points.
*points*: `PointConv`, over all points in a box of the volume of a kernel on the lattice, 5 cells on a side: the number
of pairs grows with the square. *all at once*: the same layers and pairs without sparing memory, as a continuous point
convolution is usually written: one evaluation of the kernel's network for all pairs, whose activations are kept.
Finding the pairs is not timed, except on the lattice. Seconds are the shortest of {repeats} runs (one, where that took
longer than {seconds:g} s); MB are the framework's allocations at their peak, in another run. A dash: more than
{limit:,} pairs."""
HEAD = (
    "points",
    "neighbours",
    "lattice, s",
    "points, s",
    "all at once, s",
    "lattice, MB",
    "points, MB",
    "all at once, MB",
)
LIMITS = {"points": 2_500_000, "all at once": 2_500_000}


@dataclass
class Result:
    """One way at one number of points."""

    way: str
    points: int
    pairs: int
    seconds: float
    nbytes: int


class AllAtOnce(PointConv):
    """The sum over all pairs together."""

    def forward(self, x: Tensor, positions: Tensor, *, edges: Edges) -> Tensor:  # type: ignore[override]
        lags = positions[0].double()[edges.target] - positions[0].double()[edges.source]
        products = self.values(lags).T * x[0].T[edges.source] * (CELLS**3 / x.shape[-1])
        y = torch.zeros_like(x[0].T).index_add(0, edges.target, products).T[None]
        assert self.mixer is not None
        assert self.bias is not None
        return self.mixer(y + self.bias[:, None])


class Native(nn.Module):
    """Residual blocks of convolutions at the points, and the mean over them."""

    def __init__(self, kind: type[PointConv], width: int, blocks: int):
        super().__init__()
        size = (CELLS,) * 3
        convs = (kind(width, width, size, reach=REACH, mixing="separable") for _ in range(blocks))
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor, positions: Tensor, edges: Edges) -> Tensor:
        for conv in self.convs:
            x = x + F.gelu(conv(x, positions, edges=edges))
        return x.mean(-1)


def step(model: nn.Module, call: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward and backward."""

    def run() -> None:
        model.zero_grad()
        call().square().sum().backward()

    return run


def measured(count: int, options: argparse.Namespace) -> list[Result]:
    """Every way at a number of points."""
    torch.manual_seed(0)
    x, places = torch.randn(1, options.width, count), (CELLS - 1) * torch.rand(1, count, 3)
    edges = within(places, places, RADIUS, norm="largest")
    width, shape = options.width, {"blocks": options.blocks, "reach": REACH}
    gridded = GriddedNet(width, width, CELLS, width=width, head="dense", **shape)
    native, plain = (Native(kind, options.width, options.blocks) for kind in (PointConv, AllAtOnce))
    plain.load_state_dict(native.state_dict())
    inside = 2 * places / (CELLS - 1) - 1
    ways = {"lattice": step(gridded, lambda: gridded(x, inside).mean(-1))}
    if len(edges) <= LIMITS["points"]:
        ways["points"] = step(native, lambda: native(x, places, edges))
    if len(edges) <= LIMITS["all at once"]:
        ways["all at once"] = step(plain, lambda: plain(x, places, edges))
        with torch.no_grad():
            torch.testing.assert_close(native(x, places, edges), plain(x, places, edges), rtol=1e-3, atol=1e-4)
    times = interleaved(list(ways.values()), repeats=options.repeats, seconds=options.seconds)
    results = []
    for (way, run), taken in zip(ways.items(), times, strict=True):
        _, nbytes = peak_memory(run, "cpu")
        results.append(Result(way, count, len(edges), min(taken), nbytes))
        print(results[-1], flush=True)
    return results


def row(count: int, results: list[Result]) -> list[str]:
    """The line of a number of points."""
    found = {result.way: result for result in results if result.points == count}
    ways = ("lattice", "points", "all at once")
    seconds = [f"{found[way].seconds:.2f}" if way in found else "-" for way in ways]
    memory = [f"{found[way].nbytes / 1e6:,.0f}" if way in found else "-" for way in ways]
    return [f"{count:,}", f"{found['lattice'].pairs / count:.0f}", *seconds, *memory]


def told(results: list[Result]) -> str:
    """The ratios at the largest number of points that all ways reached."""
    shared = max(result.points for result in results if result.way == "all at once")
    found = {result.way: result for result in results if result.points == shared}
    lattice, points, plain = found["lattice"], found["points"], found["all at once"]
    time, memory = plain.seconds / lattice.seconds, plain.nbytes / lattice.nbytes
    return (
        f"At {shared:,} points the lattice takes {time:.0f} times less time and {memory:.0f} times less memory than "
        f"all pairs at once; `PointConv` takes {plain.nbytes / points.nbytes:.1f} times less memory than these, and "
        f"{points.seconds / plain.seconds:.2f} times the time."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the page and the JSON")
    parser.add_argument(
        "--points", type=lambda text: [int(word) for word in text.split(",")],
        default=[1024, 2048, 4096, 8192, 16384, 32768],
    )  # fmt: skip
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = [result for count in options.points for result in measured(count, options)]
    about = provenance(0) | {"command": called("points.py", options, parser)}
    text = ABOUT.format(**vars(options), cells=CELLS, reach=REACH, limit=LIMITS["points"])
    rows = table(HEAD, [row(count, results) for count in options.points])
    page = markdown("Points, and their number", about, text, rows, told(results))
    write(options.out, "points", page, {"about": about, "results": [asdict(one) for one in results]})


if __name__ == "__main__":
    main()
