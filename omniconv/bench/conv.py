"""The benchmark of convolutions: time, memory and error of every contestant, case by case."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from omniconv.bench.cases import Case
from omniconv.bench.contestants import Contestant, action, inputs, reference
from omniconv.bench.measure import copy_bandwidth, interleaved, peak_memory, repeated, wait_until_quiet
from omniconv.bench.predict import chosen_engines, predicted_seconds
from omniconv.engines import ENGINES
from omniconv.engines._float32 import without_tf32

SEED = 0

ROWS = 4.0
"""How many times the error of the whole a single row may have."""
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-3, torch.float16: 3e-3}
"""Largest relative error, in the Euclidean norm against float64, of our engines for signals of each dtype."""
SLACK = 10
"""How many times larger the error of a peer may be: beyond, it computes something else, and is left out."""

PEERS = ("F.conv", "torch.fft")
"""What everybody has."""
CLOSE, SLOWER = 1.10, 1.05
"""Times the best of our engines that a choice may take; times the better peer from which a cell is listed."""

SWEEPS = 5
"""Times that the whole grid is measured, so that no spell of other work decides a cell."""
QUICK_SWEEPS = 2
"""The same where only a look is wanted."""
FURTHER, SURE = 40, 4.0
"""Most visits after the sweeps of a cell that is `in_doubt`; standard errors from a bar at which it is not."""
ROUNDS, SECONDS = 10, 0.04
"""Most rounds of a cell in a sweep, and the time of its own after which a contestant sits out the rest of them."""
ROUND_SECONDS = 1e-3
"""A round repeats a contestant until it lasts about so long."""
HOPELESS = 20
"""A contestant that takes so many times as long as the fastest, twice, takes no part in the rounds."""


class DisagreementError(ArithmeticError):
    """An engine of this library differs from float64 by more than the tolerance: there is nothing to report."""


@dataclass
class Cell:
    """A case with what was measured.

    `chosen`: the engines behind "auto", one name where all passes have the same. `predicted`: seconds by engine and of
    "auto", from the device's rates. `errors`: relative error by contestant, and by result ("y", "dx", "dtaps").
    `memory`: bytes beyond the inputs at the peak. `rounds`: seconds per call by contestant, a mapping per round.
    `once`: seconds of the shortest call of what takes no part in rounds. `left_out`: why a contestant is missing.
    """

    case: Case
    chosen: str
    predicted: dict[str, float] = field(default_factory=dict)
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)
    once: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The contestants that were timed."""
        return [name for name in self.errors if name in self.once or any(name in row for row in self.rounds)]

    @property
    def engines(self) -> list[str]:
        """Those that are engines of ours, by their names."""
        return [name for name in self.names if name in ENGINES]

    @property
    def peers(self) -> list[str]:
        """Those that are not ours."""
        return [name for name in self.names if name != "auto" and name not in ENGINES]

    def times(self, name: str) -> list[float]:
        """Seconds per call, round by round."""
        return [row[name] for row in self.rounds if name in row] or [self.once[name]]

    def seconds(self, name: str) -> float:
        """Median over the rounds."""
        return statistics.median(self.times(name))

    def spread(self, name: str) -> float:
        """Half the distance of the quartiles, of the extremes where there are few rounds, over the median."""
        times = self.times(name)
        quartiles = statistics.quantiles(times, n=4) if len(times) > 3 else (min(times), max(times))
        return (quartiles[-1] - quartiles[0]) / 2 / statistics.median(times)

    def ratio(self, name: str, other: str) -> float:
        """Time of one contestant over that of another: the median of their ratios in rounds that have both.

        Two medians would carry the scatter of both; the rounds of a spell of other work slow both alike.
        """
        pairs = [row[name] / row[other] for row in self.rounds if name in row and other in row]
        return statistics.median(pairs) if pairs else self.seconds(name) / self.seconds(other)

    def standard_error(self, name: str, other: str) -> float:
        """Of the logarithm of `ratio`, from the quartiles of the rounds that have both; 0 without."""
        ratios = [math.log(row[name] / row[other]) for row in self.rounds if name in row and other in row]
        if len(ratios) < 4:
            return math.inf if ratios else 0.0
        first, _, last = statistics.quantiles(ratios, n=4)
        return 1.2533 * (last - first) / 1.349 / math.sqrt(len(ratios))  # of a median, of numbers of that spread

    def fastest(self, names: Sequence[str]) -> str:
        """The one of the names with the shortest median; the names must have been timed."""
        return min(names, key=self.seconds)


@dataclass
class Measured:
    """A benchmark: its cells, cases that the time did not suffice for, sweeps, bandwidth of a copy in bytes a second.

    `wrong`: what `DisagreementError` said, where it did not end the benchmark. `further`: visits after the sweeps, of
    cells that were `in_doubt`.
    """

    device: str
    bandwidth: float
    cells: list[Cell] = field(default_factory=list)
    missing: list[Case] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    sweeps: int = 0
    further: int = 0

    def floor(self, case: Case) -> float:
        """Seconds in which a copy moves the fewest bytes that the case has to move."""
        return case.traffic / self.bandwidth


def benchmark(
    cases: Sequence[Case],
    device: str,
    *,
    entered: Sequence[Contestant],
    sweeps: int = SWEEPS,
    further: int = 0,
    minutes: float = 10.0,
    patient: bool = False,
    progress: Callable[[int, int, Cell | None], None] = lambda done, total, cell: None,
) -> Measured:
    """Time the cases: every contestant in turn, case by case, several sweeps over all of them.

    The first sweep also measures errors and memory. `entered`: see `entrants`. `further`: times at most that a cell is
    visited again after the sweeps while it is `in_doubt`. `minutes`: after which nothing new is begun. `patient`:
    whether a case in which an engine of ours is wrong is noted and skipped, and an error that ends the run is noted
    beside what there is: after an illegal access a graphics processor does nothing more. `progress`: called after every
    visit of a case, with the visits done and planned, and the cell unless it was skipped.
    Raises `DisagreementError`, unless `patient`, with the contestant, the case and the error.
    """
    stop = time.monotonic() + 60 * minutes
    measured = Measured(device, copy_bandwidth(device))
    try:
        measure(measured, cases, entered, sweeps, stop, patient=patient, progress=progress)
        decide(measured, entered, further, stop, progress=progress)
    except RuntimeError as error:
        if not patient:
            raise
        measured.wrong.append(f"the run ended with {type(error).__name__}: {error}")
    return measured


def measure(
    measured: Measured,
    cases: Sequence[Case],
    entered: Sequence[Contestant],
    sweeps: int,
    stop: float,
    *,
    patient: bool,
    progress: Callable[[int, int, Cell | None], None],
) -> None:
    """The sweeps of `benchmark`, noted as they go."""
    device = measured.device
    done, total, order = 0, sweeps * len(cases), random.Random(SEED)
    with without_tf32():  # all sums in one precision
        for case in cases:
            if time.monotonic() > stop:
                measured.missing.append(case)
                continue
            cell = first_visit(measured, case, entered, stop, order, patient=patient)
            done += 1
            progress(done, total, cell)
        measured.sweeps = 1
        for _ in range(1, sweeps):
            for cell in measured.cells:
                if time.monotonic() > stop:
                    return
                if device == "cpu":
                    wait_until_quiet(stop)
                visit(cell, entered, device, order)
                done += 1
                progress(done, total, cell)
            measured.sweeps += 1


def decide(
    measured: Measured,
    entered: Sequence[Contestant],
    further: int,
    stop: float,
    *,
    progress: Callable[[int, int, Cell | None], None],
) -> None:
    """Visit the cells that are `in_doubt` again, in turns, so many times at most."""
    order, done = random.Random(SEED), measured.sweeps * len(measured.cells)
    with without_tf32():
        for _ in range(further):
            left = [cell for cell in measured.cells if in_doubt(cell)]
            for waiting, cell in zip(range(len(left), 0, -1), left, strict=True):
                if time.monotonic() > stop:
                    return
                if measured.device == "cpu":
                    wait_until_quiet(stop)
                visit(cell, entered, measured.device, order)
                measured.further += 1
                progress(done + measured.further, done + measured.further + waiting - 1, cell)


def in_doubt(cell: Cell) -> bool:
    """Whether the rounds leave open on which side of a bar "auto" is, beside the better peer or the best engine."""
    bars = (([name for name in cell.peers if name in PEERS], SLOWER), (cell.engines, CLOSE))
    beside = [(cell.fastest(names), bar) for names, bar in bars if names]
    return any(
        abs(math.log(cell.ratio("auto", other) / bar)) < SURE * cell.standard_error("auto", other)
        for other, bar in beside
    )


def first_visit(
    measured: Measured,
    case: Case,
    entered: Sequence[Contestant],
    stop: float,
    order: random.Random,
    *,
    patient: bool,
) -> Cell | None:
    """A cell with errors, memory and the first times; None where an engine of ours is wrong and that is only noted."""
    try:
        cell = open_cell(case, entered, measured.device)
    except DisagreementError as error:
        if not patient:
            raise
        measured.wrong.append(str(error))
        return None
    if measured.device == "cpu":  # what other processors do does not slow a graphics processor
        wait_until_quiet(stop)
    visit(cell, entered, measured.device, order)
    measured.cells.append(cell)
    return cell


def open_cell(case: Case, entered: Sequence[Contestant], device: str) -> Cell:
    """The cell of a case with errors and memory of the contestants that can do it; raises `DisagreementError`."""
    problem = case.problem(device)
    cell = Cell(case, ", ".join(once_if_alike(chosen_engines(problem))), predicted_seconds(problem))
    operands = inputs(case, device, SEED)
    expected = reference(case, operands)
    for contestant in entered:
        reason = contestant.reject(case, device)
        if reason is None:
            reason = admit(cell, contestant, operands, expected, device)
        if reason is not None:
            cell.left_out[contestant.name] = reason
    return cell


def once_if_alike(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, or a single one where all are the same."""
    return names[:1] if len(set(names)) == 1 else names


def admit(
    cell: Cell,
    contestant: Contestant,
    operands: tuple[Tensor, Tensor, Tensor],
    expected: dict[str, Tensor],
    device: str,
) -> str | None:
    """Note errors and memory of a contestant, or return why it is left out; for ours raises `DisagreementError`."""
    try:
        run = action(contestant, cell.case, operands)
        run()  # what is made once, such as plans and tables, is not counted
        results, memory = peak_memory(run, device)
    except Exception as error:  # other people's code may fail in any way; ours may not
        if contestant.ours:
            raise DisagreementError(f"{contestant.name} fails on {cell.case.name}: {error}") from error
        return f"it fails: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    errors = {name: relative_error(results[name], expected[name]) for name in expected}
    name, worst = max(errors.items(), key=lambda item: item[1])
    limit = TOLERANCE[cell.case.dtype] * (1 if contestant.ours else SLACK)
    if worst > limit:
        message = (
            f"{contestant.name} differs from float64 by {worst:.1e} in {name} on {cell.case.name}; {limit:.0e} may be"
        )
        if contestant.ours:
            raise DisagreementError(message)
        return message
    cell.errors[contestant.name], cell.memory[contestant.name] = errors, memory
    return None


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """|actual - expected| / |expected| in the Euclidean norm; infinite for another shape, or if one is no number.

    Of everything together, or of the worst channel of the worst sample over `ROWS` where that is more: a wrong row
    hides in many.
    """
    if actual.shape != expected.shape:
        return math.inf
    difference, lead = actual.double() - expected, min(2, expected.ndim - 1)
    rows = float((difference.flatten(lead).norm(dim=-1) / expected.flatten(lead).norm(dim=-1)).max())
    error = max(float(difference.norm() / expected.norm()), rows / ROWS)
    return error if math.isfinite(error) else math.inf


def visit(cell: Cell, entered: Sequence[Contestant], device: str, order: random.Random) -> None:
    """Some more rounds of a cell, each in an `order` of its own: what comes first finds the caches of another."""
    operands = inputs(cell.case, device, SEED)
    racing = {
        contestant.name: action(contestant, cell.case, operands)
        for contestant in entered
        if contestant.name in cell.errors and contestant.name not in cell.once
    }
    warm = {name: warm_seconds(run, device) for name, run in racing.items()}
    if not cell.rounds:
        for name in hopeless(warm):  # a single call may have met other work
            warm[name] = min(warm[name], warm_seconds(racing[name], device))
        cell.once = {name: warm[name] for name in hopeless(warm)}
    loops = {name: math.ceil(ROUND_SECONDS / warm[name]) for name in racing if name not in cell.once}
    left = dict.fromkeys(loops, SECONDS)
    for _ in range(ROUNDS):
        names = [name for name in loops if left[name] > 0]
        if len(names) < 2:
            break
        order.shuffle(names)
        times = interleaved([repeated(racing[name], loops[name], device) for name in names], repeats=1, seconds=1.0)
        cell.rounds.append({name: taken / loops[name] for name, (taken,) in zip(names, times, strict=True)})
        for name, (taken,) in zip(names, times, strict=True):
            left[name] -= taken


def hopeless(seconds: dict[str, float]) -> list[str]:
    """Those that take more than `HOPELESS` times as long as the fastest."""
    return [name for name, time in seconds.items() if time > HOPELESS * min(seconds.values())]


def warm_seconds(run: Callable[[], object], device: str) -> float:
    """Seconds of one call: the shortest of several where that does not take long, since some meet other work.

    Too long a time here would make rounds of one call, which begins with the caches of another contestant.
    """
    (times,) = interleaved([repeated(run, 1, device)], repeats=20, seconds=0.01)
    return min(times)


def as_data(measured: Measured, cell: Cell) -> dict[str, Any]:
    """A cell for JSON; times in milliseconds."""
    case = cell.case
    return {
        "case": case.name,
        "family": case.family,
        "batch": case.batch,
        "channels": case.channels,
        "out": case.out,
        "size": case.size,
        "kernel": case.kernel,
        "causal": case.causal,
        "boundary": case.boundary,
        "dtype": str(case.dtype).removeprefix("torch."),
        "pass": "training" if case.training else "forward",
        "chosen": cell.chosen,
        "copy_ms": 1e3 * measured.floor(case),
        "contestants": {
            name: {
                "ms": 1e3 * cell.seconds(name),
                "predicted_ms": 1e3 * cell.predicted[name] if name in cell.predicted else None,
                "spread": cell.spread(name),
                "rounds": len(cell.times(name)),
                "times_copy": cell.seconds(name) / measured.floor(case),
                "peak_bytes": cell.memory[name],
                "errors": cell.errors[name],
            }
            for name in cell.names
        },
        "left_out": cell.left_out,
    }
