"""Clouds of growing numbers of points: on a lattice, at the points, and at the points without sparing memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniconv._errors import check_integer, check_number, require
from omniconv.bench.conv import DisagreementError
from omniconv.bench.measure import interleaved, peak_memory, provenance, repeated
from omniconv.bench.pages import Table, markdown, save, table, write
from omniconv.domains import Edges, within
from omniconv.models import GriddedNet
from omniconv.nn import PointConv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED = 0
COUNTS = (1024, 2048, 4096, 8192, 16384, 32768)
CELLS, REACH = 16, 2
"""Nodes per axis of the lattice, and on each side of a kernel on it."""
RADIUS = REACH + 0.5
"""In cells: half the side of a box of the same volume as a kernel on the lattice."""
PAIRS = 2_500_000
"""More than these are not summed pair by pair."""
TOLERANCE = 1e-4
"""Relative error between the two ways at the points beyond which nothing is reported."""
LATTICE, POINTS, AT_ONCE = WAYS = ("lattice", "points", "all at once")

ABOUT = """Points drawn uniformly in a cube, {width} channels, {blocks} blocks of a separable convolution, forward and
backward, one cloud. *lattice*: `GriddedNet(resolution={cells}, reach={reach}, head="dense")`, and back to the points.
*points*: `PointConv`, over all points in a box of the volume of a kernel on the lattice, 5 cells on a side: the number
of pairs grows with the square. *all at once*: the same layers and pairs without sparing memory, as a continuous point
convolution is usually written: one evaluation of the kernel's network for all pairs, whose activations are kept.
Finding the pairs is not timed, except on the lattice. Seconds are the shortest of {repeats} runs (fewer, where they
took longer than {seconds:g} s); MB are the framework's allocations at their peak, in another run. A dash: more than
{pairs:,} pairs. Where the two ways at the points differ by more than {tolerance:g} nothing is reported."""
HEAD = ("points", "neighbours", *(f"{way}, {unit}" for unit in ("s", "MB") for way in WAYS))


@dataclass
class Result:
    """One way at one number of points: seconds, and bytes at the peak."""

    way: str
    points: int
    pairs: int
    seconds: float
    nbytes: int


@dataclass
class Measured:
    """All there is to report, and how it was measured."""

    device: str
    width: int
    blocks: int
    repeats: int
    seconds: float
    results: list[Result] = field(default_factory=list)


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


def benchmark(
    counts: Sequence[int] = COUNTS,
    device: str = "cpu",
    *,
    width: int = 32,
    blocks: int = 4,
    repeats: int = 3,
    seconds: float = 5.0,
    progress: Callable[[Result], None] = lambda result: None,
) -> Measured:
    """Time and memory of every way at every number of points.

    `repeats`, `seconds`: how often, and for how long, a way is run at a number of points. `progress` is told each
    result. Raises `ValueError` for numbers that are not positive, `DisagreementError` where the two ways at the points
    differ.
    """
    if not counts:
        raise ValueError("`counts` must have a number of points at least; got none.")
    for count in counts:
        check_integer("counts", count)
    for name, value in (("width", width), ("blocks", blocks), ("repeats", repeats)):
        check_integer(name, value)
    check_number("seconds", seconds, low=0.0)
    measured = Measured(device, width, blocks, repeats, seconds)
    for count in counts:
        measure(count, measured, progress)
    return measured


def measure(count: int, measured: Measured, progress: Callable[[Result], None]) -> None:
    """Add every way at a number of points."""
    device, width, blocks = measured.device, measured.width, measured.blocks
    torch.manual_seed(SEED)
    x, places = torch.randn(1, width, count), (CELLS - 1) * torch.rand(1, count, 3)
    x, places = x.to(device), places.to(device)
    edges = within(places, places, RADIUS, norm="largest")
    gridded = GriddedNet(width, width, CELLS, width=width, head="dense", blocks=blocks, reach=REACH).to(device)
    inside = 2 * places / (CELLS - 1) - 1
    runs = {LATTICE: step(gridded, lambda: gridded(x, inside).mean(-1))}
    if len(edges) <= PAIRS:
        native, plain = (Native(kind, width, blocks).to(device) for kind in (PointConv, AllAtOnce))
        plain.load_state_dict(native.state_dict())
        check_agreement(native, plain, x, places, edges)
        runs[POINTS] = step(native, lambda: native(x, places, edges))
        runs[AT_ONCE] = step(plain, lambda: plain(x, places, edges))
    actions = [repeated(run, 1, device) for run in runs.values()]
    # The first call takes what is needed once. On a CPU the others take longer than that, some of them far too long.
    interleaved(actions if device == "cuda" else actions[:1], repeats=1, seconds=measured.seconds)
    times = interleaved(actions, repeats=measured.repeats, seconds=measured.seconds)
    for (way, run), taken in zip(runs.items(), times, strict=True):
        _, nbytes = peak_memory(run, device)
        measured.results.append(Result(way, count, len(edges), min(taken), nbytes))
        progress(measured.results[-1])


@torch.no_grad()
def check_agreement(native: Native, plain: Native, x: Tensor, places: Tensor, edges: Edges) -> None:
    """Raise `DisagreementError` unless the two ways at the points have one result."""
    expected = plain(x, places, edges).double()
    error = ((native(x, places, edges).double() - expected).norm() / expected.norm()).item()
    if not error <= TOLERANCE:
        raise DisagreementError(
            f"PointConv differs from the sum over all pairs by {error:.1e} at {x.shape[-1]:,} points; {TOLERANCE:g} "
            "may be"
        )


def step(model: nn.Module, call: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward and backward."""

    def run() -> None:
        model.zero_grad()
        call().square().sum().backward()

    return run


def write_report(measured: Measured, out: Path, command: str | None = None) -> None:
    """Write `points.md`, `points.json` and, where matplotlib is installed, `points.png` into the folder; of a graphics
    processor `points_cuda.md` and so on.

    `command`: how the benchmark was called; None takes it from the interpreter.
    """
    name = "points_cuda" if measured.device == "cuda" else "points"
    about = provenance(SEED, measured.device, command)
    how = {key: value for key, value in asdict(measured).items() if key != "results"}
    told = ABOUT.format(**how, cells=CELLS, reach=REACH, pairs=PAIRS, tolerance=TOLERANCE)
    parts = [told, table(HEAD, rows(measured)), ratios(measured)]
    if save(out / f"{name}.png", lambda: draw(measured)):
        parts.append(f"![time and memory]({name}.png)")
    data = {"about": about | how, "results": [asdict(one) for one in measured.results]}
    write(out, name, markdown("Points, and their number", about, *(part for part in parts if part)), data)


def tables(measured: Measured) -> list[Table]:
    """What a terminal has room for: all."""
    return [("Forward and backward", HEAD, rows(measured))]


def rows(measured: Measured) -> list[list[str]]:
    """A line for each number of points."""
    lines = []
    for count in dict.fromkeys(result.points for result in measured.results):
        found = {result.way: result for result in measured.results if result.points == count}
        seconds = [f"{found[way].seconds:.3g}" if way in found else "-" for way in WAYS]
        memory = [f"{found[way].nbytes / 1e6:,.0f}" if way in found else "-" for way in WAYS]
        lines.append([f"{count:,}", f"{found[LATTICE].pairs / count:.0f}", *seconds, *memory])
    return lines


def ratios(measured: Measured) -> str:
    """In words, at the largest number of points that all ways reached; nothing if there is none."""
    shared = max((result.points for result in measured.results if result.way == AT_ONCE), default=None)
    if shared is None:
        return ""
    found = {result.way: result for result in measured.results if result.points == shared}
    lattice, points, plain = (found[way] for way in WAYS)
    told = (
        compared(plain.seconds / lattice.seconds, "time"),
        compared(plain.nbytes / lattice.nbytes, "memory"),
        compared(plain.nbytes / points.nbytes, "memory"),
        compared(plain.seconds / points.seconds, "time"),
    )
    return (
        f"At {shared:,} points the lattice takes {told[0]} and {told[1]} than all pairs at once; `PointConv` takes "
        f"{told[2]} and {told[3]} than these."
    )


def compared(ratio: float, what: str) -> str:
    """How much less than the other, or more: `ratio` is that of the other."""
    return f"{factor(ratio)} times less {what}" if ratio >= 1 else f"{factor(1 / ratio)} times more {what}"


def factor(value: float) -> str:
    """Two digits."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def draw(measured: Measured) -> Figure:
    """Seconds and megabytes over the number of points, on logarithmic axes."""
    matplotlib: Any = require("matplotlib.figure", extra="plots", purpose="figures")
    figure: Figure = matplotlib.Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    for way in WAYS:
        line = [result for result in measured.results if result.way == way]
        counts = [result.points for result in line]
        panels[0].plot(counts, [result.seconds for result in line], ".-", label=way)
        panels[1].plot(counts, [result.nbytes / 1e6 for result in line], ".-", label=way)
    for panel, quantity in zip(panels, ("seconds", "megabytes"), strict=True):
        panel.set(xscale="log", yscale="log", xlabel="points", ylabel=quantity)
        panel.grid(alpha=0.3)
    panels[0].legend()
    return figure
