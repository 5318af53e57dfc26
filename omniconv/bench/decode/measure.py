"""The benchmark: every contestant at every workload, after the checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from omniconv._errors import check_choice, check_number, require
from omniconv.bench.conv import SEED, DisagreementError
from omniconv.bench.decode.checks import disagreements
from omniconv.bench.decode.models import CONTESTANTS, Decoder
from omniconv.bench.decode.results import Curve, Measured, Point, Result
from omniconv.bench.decode.sizes import SIZES, Sizes
from omniconv.bench.decode.timing import median_ms, points, recorded, release
from omniconv.bench.measure import copy_bandwidth, peak_memory

T = TypeVar("T")


@dataclass(frozen=True)
class Terms:
    """On which everything is measured."""

    seconds: float
    """Of timing, for every batch."""
    stop: float
    """Time, on `time.monotonic`, after which no further measurement begins."""
    bandwidth: float
    """Bytes per second that a copy moves."""


def benchmark(
    sizes: Sizes,
    device: str,
    *,
    contestants: Sequence[str] = tuple(CONTESTANTS),
    seconds: float = 0.4,
    minutes: float = 8.5,
    progress: Callable[[str], None] = lambda line: None,
    finished: Callable[[Measured], None] = lambda measured: None,
) -> Measured:
    """Time autoregressive decoding by models of random weights: steps, prompts, and the memory they take.

    `sizes`: one of `SIZES`, or others. `device`: "cpu" or "cuda". `contestants`: names out of `CONTESTANTS`. `seconds`:
    of timing, for every batch. `minutes`: after which no further measurement begins; what is left is named as skipped.
    `progress`: told every check and every workload that was measured, in a line. `finished`: given what there is so far
    after every contestant, so that a run that is cut off leaves a report.

    Before anything is timed, the fused steps are compared with the plain ones, and the steps of every model with its
    pass over the whole sequence. Raises `DisagreementError` with a line for everything that is wrong; `ValueError` for
    an argument that cannot be; `ImportError` without Triton on a graphics processor.
    """
    stop = time.monotonic() + 60 * check_number("minutes", minutes, low=0.0, closed=True)
    check_number("seconds", seconds, low=0.0)
    for name in contestants:
        check_choice("contestants", name, tuple(CONTESTANTS))
    check_device(device, sizes)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(SEED)
        if wrong := disagreements(device, progress):
            raise DisagreementError("\n".join(wrong))
        terms = Terms(seconds, stop, copy_bandwidth(device, sizes.copied))
        measured = Measured(sizes, device, terms.bandwidth)
        for name in contestants:
            run(name, measured, terms, progress)
            release(device)
            finished(measured)
    return measured


def check_device(device: str, sizes: Sizes) -> None:
    """Raise `ValueError` unless the device can be expected to run models of these sizes."""
    if check_choice("device", device, ("cpu", "cuda")) == "cuda":
        require("triton", extra="gpu", purpose="decoding on a graphics processor")
    elif sizes == SIZES["full"]:
        raise ValueError(
            '`sizes` must be small on a CPU: the models of SIZES["full"] are for a graphics processor. Use '
            'SIZES["small"], or device="cuda".'
        )


def run(name: str, measured: Measured, terms: Terms, progress: Callable[[str], None]) -> None:
    """Measure one contestant."""
    sizes = measured.sizes
    decoder = CONTESTANTS[name](sizes, measured.device)
    steps: list[Point] = []
    for workload in sizes.workloads:
        late = time.monotonic() > terms.stop
        if late or (result := with_room(partial(at_workload, name, decoder, workload, steps, terms), decoder)) is None:
            measured.skipped.append(f"{name} at {workload[0]} + {workload[1]}")
            continue
        measured.results.append(result)
        progress(line(result, terms.stop - time.monotonic()))
        if not any(mixer.grows for mixer in decoder.mixers):
            steps = result.points
    measured.curves.append(curve(name, decoder))


def with_room(measure: Callable[[], T | None], decoder: Decoder) -> T | None:
    """What is measured, or None where memory does not suffice."""
    try:
        return measure()
    except torch.OutOfMemoryError:
        return None
    finally:
        release(decoder.device)


def line(result: Result, left: float) -> str:
    """One result in a line, with the seconds that are left."""
    return (
        f"{result.contestant}, {result.prompt} + {result.generate}: {result.rate:,.0f} tokens/s at {result.best}, "
        f"{result.best_point.milliseconds:.2f} ms, {result.share:.0%} of a copy; "
        f"a prompt takes {result.prefill:.2f} ms ({left:.0f} s left)"
    )


def at_workload(
    name: str, decoder: Decoder, workload: tuple[int, int], steps: list[Point], terms: Terms
) -> Result | None:
    """All of one contestant at one workload, with the steps there are, or with new ones; None if not one fits."""
    prompt, generate = workload
    backend = choose_backend(decoder, workload, terms)
    if not steps:
        steps = points(partial(point, decoder, workload, terms.seconds), decoder.sizes.largest, terms.stop)
    if not steps:
        return None
    best = max(steps, key=lambda one: one.rate)
    prefill = prefill_ms(decoder, workload, terms.seconds)
    of_one = sum(memory.nbytes for state in decoder.init_state(1, sum(workload)) for memory in state)
    seconds = best.batch * prefill / 1e3 + generate * best.milliseconds / 1e3
    share = memory_share(decoder, workload, best.batch, terms)
    return Result(
        name, prompt, generate, decoder.weights, steps, best.batch, best.rate, of_one, share, prefill,
        best.batch * generate / seconds, backend,
    )  # fmt: skip


def middle(workload: tuple[int, int]) -> int:
    """Tokens at the step that is timed: the mean of all steps, for a time that grows by as much at every one.

    >>> middle((512, 256))
    640
    """
    return workload[0] + max(1, workload[1] // 2)


@torch.no_grad()
def point(decoder: Decoder, workload: tuple[int, int], seconds: float, batch: int) -> Point | None:
    """The step in the middle of the generation; None where memory does not suffice."""

    def measure() -> Point:
        ids, states = decoder.random_ids(batch), decoder.init_state(batch, sum(workload))

        def step() -> None:
            ids.copy_(decoder.step(ids, states, middle(workload)).argmax(-1))

        return Point(batch, median_ms(recorded(step, decoder.device), decoder.device, seconds))

    return with_room(measure, decoder)


@torch.no_grad()
def memory_share(decoder: Decoder, workload: tuple[int, int], batch: int, terms: Terms) -> float:
    """Bytes per second that the parts of a step over the memory move, as a share of the bandwidth of a copy."""
    states, reach = decoder.init_state(batch, sum(workload)), middle(workload)
    alone = [mixer.alone(state, reach) for mixer, state in zip(decoder.mixers, states, strict=True)]
    try:
        together = recorded(lambda: [action() for action in alone], decoder.device)
        taken = median_ms(together, decoder.device, terms.seconds) / 1e3
    finally:
        release(decoder.device)
    moved = sum(mixer.moved(state, reach) for mixer, state in zip(decoder.mixers, states, strict=True))
    return moved / taken / terms.bandwidth


@torch.no_grad()
def choose_backend(decoder: Decoder, workload: tuple[int, int], terms: Terms) -> str | None:
    """Let mixers that have a choice run by what is fastest at this length; its name, or None if nothing ran."""
    choosing = [mixer for mixer in decoder.mixers if mixer.backends]
    if not choosing:
        return None
    taken = {}
    for backend in choosing[0].backends:
        for mixer in choosing:
            mixer.backend = backend
        try:
            share = memory_share(decoder, workload, min(16, decoder.sizes.largest), terms)
        except RuntimeError:  # a backend that cannot run it
            continue
        taken[backend] = 1 / share
    fastest = min(taken, key=lambda backend: taken[backend], default=None)
    for mixer in choosing:
        mixer.backend = fastest
    return None if fastest is None else fastest.name


@torch.no_grad()
def prefill_ms(decoder: Decoder, workload: tuple[int, int], seconds: float) -> float:
    """Milliseconds for one prompt, of as many as are read at a time."""
    prompt, _ = workload
    batch = max(1, min(decoder.sizes.largest, decoder.sizes.prefilled // prompt))
    ids, states = decoder.random_ids(batch, prompt), decoder.init_state(batch, sum(workload))
    taps = [mixer.taps(prompt) for mixer in decoder.mixers]
    try:
        return median_ms(partial(decoder.prefill, ids, states, taps), decoder.device, seconds, repeats=5) / batch
    finally:
        release(decoder.device)


@torch.no_grad()
def curve(name: str, decoder: Decoder) -> Curve:
    """Peaks of memory of a step behind the first prompt and more and more tokens, weights included; as far as there is
    room.
    """
    sizes, found = decoder.sizes, Curve(name, decoder.sizes.remembered)
    weights = sum(parameter.nbytes for parameter in decoder.parameters())
    for generated in sizes.remembered:
        reach = sizes.workloads[0][0] + generated + 1

        def step(reach: int = reach) -> None:
            decoder.step(decoder.random_ids(sizes.remembering), decoder.init_state(sizes.remembering, reach), reach)

        def peak(step: Callable[[], None] = step) -> int:
            step()
            return peak_memory(step, decoder.device)[1]

        if (most := with_room(peak, decoder)) is None:
            break
        found.gigabytes.append((weights + most) / 1e9)
    return found
