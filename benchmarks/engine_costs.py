"""Times the direct and the FFT engine side by side, fits the constants of `omniconv/engines/_costs.py`, and reports how
well the automatic choice does.

    python benchmarks/engine_costs.py --out docs/results

Every fourth problem is left out of the fit. To install new constants, replace `DIRECT` and `FFT` in that file by the
printed block and run again: the report judges the constants that the package has.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import interleaved, markdown, provenance, table, wait_until_quiet, write
from numpy.typing import NDArray
from torch import Tensor

from omniconv import convolve
from omniconv.engines import ENGINES, Problem, _costs, select_engine
from omniconv.engines._shorten import shortened
from omniconv.engines.fft import frame

SEED = 0
NAMES = ("direct", "fft")
TOLERANCE = 1e-5
"""Largest relative difference between the engines' results in float32."""
SWEEPS, ENOUGH, MINUTES = 8, 3, 5.0
"""Times that the whole list is measured, so that no spell of other work decides a cell; the fewest that will do; and
when to stop."""
REPEATS, SECONDS = 20, 0.05
"""Most repeats of one engine per sweep, and the time after which it is not repeated."""

Array = NDArray[np.float64]
Constants = dict[str, dict[tuple[bool, int], tuple[_costs.Rates, _costs.Rates]]]


def problems(
    batch: int,
    channels: int,
    size: tuple[int, ...],
    kernels: Sequence[int | tuple[int, ...]],
    *,
    out: int | None = None,
    causal: bool = False,
    boundary: str = "zero",
    dtype: torch.dtype = torch.float32,
) -> list[Problem]:
    """A problem per kernel size; an int is the size on every axis, `out` None is depthwise."""
    dim = len(size)
    return [
        Problem(
            batch=batch,
            in_channels=channels,
            out_channels=channels if out is None else out,
            depthwise=out is None,
            size=size,
            kernel_size=(kernel,) * dim if isinstance(kernel, int) else kernel,
            causal=(causal,) * dim,
            boundary=(boundary,) * dim,
            dtype=dtype,
            device="cpu",
            training=False,
        )
        for kernel in kernels
    ]


DEPTHWISE = [
    *problems(2, 4, (16,), (3, 16), causal=True),
    *problems(2, 4, (64,), (3, 17, 64), causal=True),
    *problems(64, 30, (64,), (3, 9, 17, 33, 64), causal=True),
    *problems(32, 32, (256,), (3, 7, 17, 33, 65, 129, 256)),
    *problems(4, 10, (784,), (3, 9, 31, 101, 301, 784), causal=True),
    *problems(1, 64, (1024,), (3, 15, 31, 63, 127, 255, 511, 1024), causal=True),
    *problems(8, 64, (1024,), (1, 3, 7, 15, 31, 63, 127, 255, 511, 1024), causal=True),
    *problems(8, 16, (1000,), (3, 15, 63, 251, 1000), boundary="circular"),
    *problems(8, 16, (1009,), (3, 15, 63, 251), boundary="circular"),
    *problems(2, 32, (8192,), (3, 9, 17, 33, 65, 129, 257, 513)),
    *problems(1, 8, (65536,), (3, 15, 31, 63, 127), causal=True),
    *problems(1, 8, (8, 8), (3, 7)),
    *problems(1, 8, (16, 16), (3, 7, 11, 17)),
    *problems(16, 16, (28, 28), (3, 5, 7, 9, 11, 13, 17, 29)),
    *problems(4, 32, (32, 32), (1, 3, 5, 7, 9, 11, 13, 15, 17, 21, 27, 33)),
    *problems(1, 64, (32, 32), (3, 7, 11, 15, 21, 33)),
    *problems(8, 16, (32, 32), (3, 7, 13, 31), boundary="circular"),
    *problems(4, 16, (31, 31), (3, 7, 13, 31), boundary="circular"),
    *problems(4, 16, (32, 48), ((3, 31), (31, 3), (1, 49), (33, 1), (7, 15))),
    *problems(4, 32, (64, 64), (3, 5, 7, 9, 13, 17, 25, 33)),
    *problems(2, 3, (96, 96), (3, 7, 11, 21, 41)),
    *problems(2, 4, (4, 4, 4), (3,)),
    *problems(4, 8, (8, 12, 16), (3, 5, 7)),
    *problems(2, 16, (16, 16, 16), (1, 3, 5, 7, 9, 11)),
    *problems(1, 8, (32, 32, 32), (3, 5, 7)),
]
DENSE = [
    *problems(2, 4, (32,), (3, 32), out=4, causal=True),
    *problems(16, 128, (128,), (3, 9, 15, 31, 63), out=128, causal=True),
    *problems(8, 64, (256,), (1, 3, 7, 15, 31, 63, 127), out=64, causal=True),
    *problems(4, 10, (256,), (3, 7, 15, 31, 63, 127, 255), out=10),
    *problems(1, 1, (1024,), (3, 15, 63, 255, 1024), out=32, causal=True),
    *problems(8, 3, (1024,), (3, 15, 63, 255), out=32, causal=True),
    *problems(8, 32, (1024,), (1, 3, 7, 15, 31, 45, 63, 95), out=32, causal=True),
    *problems(2, 16, (4096,), (3, 15, 31, 63, 127, 255), out=16, boundary="circular"),
    *problems(2, 4, (8, 8), (3, 7), out=4),
    *problems(1, 64, (16, 16), (1, 3, 5, 7, 9, 13, 17), out=64),
    *problems(4, 10, (28, 28), (3, 5, 7, 9, 11, 13, 17, 29), out=10),
    *problems(8, 1, (28, 28), (3, 5, 9, 13, 21), out=16),
    *problems(8, 3, (32, 32), (3, 5, 7, 9, 13, 17, 33), out=32),
    *problems(8, 32, (32, 32), (1, 3, 5, 7, 9, 11, 13, 17), out=32),
    *problems(2, 16, (64, 64), (3, 7, 9, 13, 15, 17, 21), out=16),
    *problems(2, 4, (4, 4, 4), (3,), out=4),
    *problems(4, 8, (8, 8, 8), (3, 5, 7, 9), out=8),
    *problems(2, 16, (12, 12, 12), (1, 3, 5, 7, 9), out=16),
    *problems(1, 1, (24, 24, 24), (3, 5, 7, 9), out=16),
]
DOUBLE = [
    *problems(4, 16, (512,), (3, 15, 63), causal=True, dtype=torch.float64),
    *problems(4, 16, (24, 24), (3, 7, 13), dtype=torch.float64),
    *problems(2, 8, (12, 12, 12), (3, 5), dtype=torch.float64),
    *problems(4, 16, (512,), (3, 15, 63), out=16, causal=True, dtype=torch.float64),
    *problems(4, 16, (24, 24), (3, 7, 13), out=16, dtype=torch.float64),
    *problems(2, 8, (12, 12, 12), (3, 5), out=8, dtype=torch.float64),
]


@dataclass
class Cell:
    """A problem, and the shortest time of each engine."""

    problem: Problem
    held_out: bool
    seconds: dict[str, float]

    @property
    def chosen(self) -> str:
        return select_engine(self.problem).name

    @property
    def loss(self) -> float:
        """Time of the choice over the time of the better engine."""
        return self.seconds[self.chosen] / min(self.seconds.values())

    def predicted(self, engine: str) -> float:
        return ENGINES[engine].cost(shortened(self.problem))


def operands(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, taps and cotangent."""
    pair = (problem.out_channels,) if problem.depthwise else (problem.out_channels, problem.in_channels)
    shapes = (
        (problem.batch, problem.in_channels, *problem.size),
        (*pair, *problem.kernel_size),
        (problem.batch, problem.out_channels, *problem.size),
    )
    generator = torch.Generator().manual_seed(SEED)
    x, taps, cotangent = (torch.randn(shape, generator=generator, dtype=problem.dtype) for shape in shapes)
    return x, taps, cotangent


def actions(problem: Problem) -> list[Callable[[], tuple[Tensor, ...]]]:
    """Both engines' forward pass, then both engines' forward pass with both gradients."""
    x, taps, cotangent = operands(problem)
    inputs = (x.clone().requires_grad_(), taps.clone().requires_grad_())

    def forward(engine: str) -> tuple[Tensor, ...]:
        return (convolve(x, taps, causal=problem.causal, boundary=problem.boundary, engine=engine),)

    def training(engine: str) -> tuple[Tensor, ...]:
        y = convolve(*inputs, causal=problem.causal, boundary=problem.boundary, engine=engine)
        return torch.autograd.grad(y, inputs, cotangent)

    return [
        *(lambda engine=engine: forward(engine) for engine in NAMES),
        *(lambda engine=engine: training(engine) for engine in NAMES),
    ]


def disagreement(problem: Problem) -> float:
    """Largest relative difference between the engines, of the convolution and of both gradients."""
    direct, fft, direct_gradients, fft_gradients = (action() for action in actions(problem))
    pairs = zip(direct + direct_gradients, fft + fft_gradients, strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def measure(grid: Sequence[Problem], sweeps: int) -> list[Cell]:
    """Cells of every problem, without and with gradients."""
    stop = time.monotonic() + 60 * MINUTES
    shortest = [[math.inf] * 4 for _ in grid]
    for sweep in range(sweeps):
        for i, problem in enumerate(grid):
            if time.monotonic() > stop:
                if sweep < min(sweeps, ENOUGH):
                    sys.exit(f"the machine is too busy: {sweep} sweeps of at least {ENOUGH} in {MINUTES:g} minutes")
                break
            wait_until_quiet(stop)
            times = interleaved(actions(problem), repeats=REPEATS, seconds=SECONDS)
            shortest[i] = [min(best, *taken) for best, taken in zip(shortest[i], times, strict=True)]
        left = stop - time.monotonic()
        print(f"sweep {sweep + 1} of {sweeps}, {left / 60:.1f} minutes left", flush=True)
        if left < 0:
            break
    return [
        Cell(replace(problem, training=training), i % 4 == 3, dict(zip(NAMES, times[2 * training :], strict=False)))
        for i, (problem, times) in enumerate(zip(grid, shortest, strict=True))
        for training in (False, True)
    ]


def fit(work: Array, known: Array, seconds: Array) -> Array:
    """Rates r >= 0 that minimise sum_i (log(known_i + sum_j work_ij r_j) - log seconds_i)^2.

    Damped Gauss-Newton steps in log r.
    """
    used = work.any(axis=0)
    log_rates = np.log(seconds.mean() / used.sum() / work[:, used].mean(axis=0))
    damping, previous = 1e-2, math.inf
    for _ in range(500):
        parts = work[:, used] * np.exp(log_rates)
        total = known + parts.sum(axis=1)
        residual = np.log(total / seconds)
        if (error := float(residual @ residual)) < previous:
            accepted, previous, damping = log_rates, error, damping / 3
            slope = parts / total[:, None]
            normal, gradient = slope.T @ slope, slope.T @ residual
        else:
            damping *= 3
        step = np.linalg.solve(normal + (damping * normal.trace() + 1e-12) * np.eye(len(normal)), -gradient)
        log_rates = np.maximum(accepted + step.clip(-2, 2), -60)
    rates = np.zeros(work.shape[1])
    rates[used] = np.exp(accepted)
    # What is a thousandth of the time nowhere is nothing.
    return np.where((work * rates > 1e-3 * seconds[:, None]).any(axis=0), rates, 0.0)


def fit_pass(cells: Sequence[Cell], engine: str, forward: _costs.Rates | None) -> _costs.Rates:
    """Rates of an engine, from cells of one mixing and one number of axes: of the gradients if those of the forward
    pass are given, else of the forward pass.
    """

    def known(cell: Cell) -> float:
        return 0.0 if forward is None else forward.seconds(work(cell.problem, engine)[0], cell.problem.dtype)

    cells = [cell for cell in cells if cell.problem.training == (forward is not None)]
    single = [cell for cell in cells if cell.problem.dtype == torch.float32]
    rates = fit(
        np.array([(1, *work(cell.problem, engine)[cell.problem.training]) for cell in single], dtype=np.float64),
        np.array([known(cell) for cell in single]),
        np.array([cell.seconds[engine] for cell in single]),
    )
    call, *units = (float(f"{rate:.3g}") for rate in rates)
    fitted = _costs.Rates(call, tuple(units), 1.0)
    slower = [
        # Timings of small problems scatter by about a tenth of what is subtracted.
        max(cell.seconds[engine] - known(cell) - call, 0.1 * cell.seconds[engine])
        / (fitted.seconds(work(cell.problem, engine)[cell.problem.training], torch.float32) - call + 1e-9)
        for cell in cells
        if cell.problem.dtype == torch.float64
    ]
    return replace(fitted, double=float(f"{np.exp(np.mean(np.log(slower))):.3g}") if slower else 1.0)


def work(problem: Problem, engine: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Units of work of the forward pass, and of the gradients."""
    problem = shortened(problem)
    if engine == "direct":
        return _costs.direct_forward(problem), _costs.direct_backward(problem)
    return _costs.fft_forward(problem, frame(problem)), _costs.fft_backward(problem, frame(problem))


def groups(cells: Sequence[Cell]) -> Iterator[tuple[tuple[bool, int], list[Cell]]]:
    """Cells by mixing and number of axes, depthwise first."""
    for depthwise in (True, False):
        for dim in (1, 2, 3):
            yield (depthwise, dim), [c for c in cells if (c.problem.depthwise, c.problem.dim) == (depthwise, dim)]


def constants(cells: Sequence[Cell]) -> Constants:
    """Rates of the forward pass and of the gradients, by engine, mixing and number of axes."""
    kept = [cell for cell in cells if not cell.held_out]
    return {
        name: {
            key: ((forward := fit_pass(group, name, None)), fit_pass(group, name, forward))
            for key, group in groups(kept)
        }
        for name in NAMES
    }


def as_python(fitted: Constants) -> str:
    """The constants as `_costs.py` has them."""
    lines = []
    for name, rates in fitted.items():
        lines.append(f"{name.upper()} = {{")
        lines.extend(
            f"    {key}: ({as_call(forward)}, {as_call(backward)})," for key, (forward, backward) in rates.items()
        )
        lines.append("}")
    return "\n".join(lines)


def as_call(rates: _costs.Rates) -> str:
    """`Rates(...)`."""
    return f"Rates({rates.call}, {rates.units}, {rates.double})"


def report(cells: Sequence[Cell], fitted: Constants | None, out: Path) -> None:
    """Print the summary; write the page and the data."""
    about = provenance(SEED)
    summary = table(
        ("problems", "cells", "within 10 %", "worst", "mean", "error, direct", "error, FFT"), summaries(cells)
    )
    parts = [ABOUT, summary, table(HEAD, [row(cell) for cell in cells])]
    if fitted is not None:
        parts += [f"Constants fitted to these times:\n\n```python\n{as_python(fitted)}\n```"]
        print(as_python(fitted))
    print(summary)
    data = {
        "about": about,
        "share within 10 %": share(cells),
        "worst": max(cell.loss for cell in cells),
        "fitted": None if fitted is None else as_python(fitted).splitlines(),
        "cells": [as_data(cell) for cell in cells],
    }
    write(out, "engine_costs", markdown("The choice of an engine", about, *parts), data)


ABOUT = """Milliseconds, the shortest of several runs of both engines in turns: of the forward pass, or (training) of
the forward pass and both gradients. "Loss" is the time of the engine that `select_engine` chooses over the time of the
better one. In the summary, "error" is the typical factor between predicted and measured time. The constants were fitted
without the cells that are held out."""
HEAD = ("batch x channels, size, kernel", "pass", "direct", "predicted", "FFT", "predicted", "chosen", "loss")


def summaries(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """A line per kind of problem, and for all."""
    named = [
        (
            f"{'depthwise' if depthwise else 'dense'}, {dim} {'axis' if dim == 1 else 'axes'}, {name}",
            [c for c in group if c.problem.training == (name == "training") and c.problem.dtype == torch.float32],
        )
        for (depthwise, dim), group in groups(cells)
        for name in ("forward", "training")
    ]
    named += [
        ("float64", [c for c in cells if c.problem.dtype == torch.float64]),
        ("held out", [c for c in cells if c.held_out]),
        ("**all**", list(cells)),
    ]
    return [summarise(name, group) for name, group in named if group]


def summarise(name: str, cells: Sequence[Cell]) -> tuple[str, ...]:
    """Name, number, share within 10 %, worst and mean loss, and the typical error of each prediction."""
    errors = [
        math.exp(math.sqrt(np.mean([math.log(c.predicted(engine) / c.seconds[engine]) ** 2 for c in cells])))
        for engine in NAMES
    ]
    mean = math.exp(np.mean([math.log(c.loss) for c in cells]))
    worst = max(c.loss for c in cells)
    return name, str(len(cells)), f"{share(cells):.1%}", *(f"{x:.2f}" for x in (worst, mean, *errors))


def share(cells: Sequence[Cell]) -> float:
    """Share of the cells whose choice takes at most 1.1 times as long as the better engine."""
    return sum(cell.loss <= 1.1 for cell in cells) / len(cells)


def row(cell: Cell) -> tuple[str, ...]:
    """A cell in words and milliseconds."""
    p = cell.problem
    channels = f"{p.in_channels}" if p.depthwise else f"{p.in_channels} to {p.out_channels}"
    size, kernel = ("x".join(map(str, lengths)) for lengths in (p.size, p.kernel_size))
    kind = [*(["causal"] if any(p.causal) else []), *(["circular"] if any(p.circular) else [])]
    kind += ["float64"] if p.dtype == torch.float64 else []
    times = [1e3 * t for name in NAMES for t in (cell.seconds[name], cell.predicted(name))]
    return (
        " ".join([f"{p.batch} x {channels}, {size}, {kernel}", *kind]),
        "training" if p.training else "forward",
        *(f"{t:.3g}" if t < 100 else f"{t:.0f}" for t in times),
        cell.chosen,
        f"{cell.loss:.2f}",
    )


def as_data(cell: Cell) -> dict[str, Any]:
    """A cell for the JSON file."""
    return {
        **{key: str(value) if key == "dtype" else value for key, value in asdict(cell.problem).items()},
        "held_out": cell.held_out,
        **{f"{name}_seconds": cell.seconds[name] for name in NAMES},
        **{f"{name}_predicted": cell.predicted(name) for name in NAMES},
        "chosen": cell.chosen,
        "loss": cell.loss,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of engine_costs.md and engine_costs.json")
    parser.add_argument("--quick", action="store_true", help="every sixth problem, measured once; constants are kept")
    arguments = parser.parse_args()
    grid = [*DEPTHWISE, *DENSE, *DOUBLE][:: 6 if arguments.quick else 1]
    wrong = [(difference, p) for p in grid if (difference := disagreement(p)) > TOLERANCE and p.dtype == torch.float32]
    if wrong:
        sys.exit("\n".join(f"the engines differ by {difference:.1e} on {problem}" for difference, problem in wrong))
    cells = measure(grid, 1 if arguments.quick else SWEEPS)
    report(cells, None if arguments.quick else constants(cells), arguments.out)


if __name__ == "__main__":
    main()
