"""Whatever befalls samples, or the processes that read them: it is tried again, named, and not waited for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import omniconv
from omniconv._errors import SampleError
from omniconv.data import ArraySamples, TimedSamples
from omniconv.training import Recipe, Run, fit, outputs_of, train
from omniconv.training.architecture import Architecture
from omniconv.training.batches import Batch, BatchPlan, StepSampler
from omniconv.training.loading import loader
from tests.training.makers import LENGTH, TASK, differing, network, waves, weights, without_times

BATCHES = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
ROOT = Path(omniconv.__file__).parents[1]


class Hostile(ArraySamples):
    """Signals filled with their index; reading number 5 goes wrong, the first `times` times, counted in a file."""

    def __init__(self, folder: Path, wrong: str, times: int = 10**6, count: int = 10):
        signals = np.arange(float(count), dtype=np.float32)[:, None, None].repeat(LENGTH, 2)
        super().__init__(signals, np.array(TASK.classes)[np.arange(count) % 2], [f"file-{i}" for i in range(count)])
        self.log, self.wrong, self.until = folder / "tries", wrong, times

    @property
    def tries(self) -> int:
        """How often number 5 was read."""
        return len(self.log.read_text()) if self.log.exists() else 0

    def __getitem__(self, index: int) -> NDArray[Any]:
        if index == 5:
            with self.log.open("a") as file:
                file.write(".")
            if self.tries <= self.until:
                self.go_wrong()
        return super().__getitem__(index)

    def go_wrong(self) -> None:
        match self.wrong:
            case "disk":
                raise OSError(5, "disk read error")
            case "content":
                raise ZeroDivisionError("no such page")
            case "die":
                os._exit(9)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(1e6)


def read(samples: ArraySamples, workers: int, **limits: Any) -> list[list[float]]:
    """The signals of every batch, each by its first number."""
    with closing(loader(samples, BATCHES, workers, **limits)) as batches:
        return [batch.signals[:, 0, 0].tolist() for batch in batches]


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 8])
def test_batches_come_in_the_order_of_the_sampler_whoever_reads_them(workers: int) -> None:
    plan = BatchPlan(np.random.default_rng(20).integers(4, 40, (20, 1)), 6, 0)
    samples = ArraySamples([np.full((1, *size), index, np.float32) for index, size in enumerate(plan.sizes)])
    sampler = StepSampler(plan, 2, 7)
    batches: list[Batch] = list(loader(samples, sampler, workers))
    assert [batch.indices.tolist() for batch in batches] == list(sampler)
    for batch, alone in zip(batches, loader(samples, sampler, 0), strict=True):
        assert torch.equal(batch.signals.amax((1, 2)).long(), batch.indices)
        assert torch.equal(batch.signals, alone.signals)
        assert torch.equal(batch.options["mask"], alone.options["mask"])
        assert batch.options.keys() == alone.options.keys()


def test_what_workers_read_can_be_changed_in_place() -> None:
    with closing(loader(waves(4), [[0, 1], [2, 3]], 1)) as batches, warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in batches:
            batch.signals.mul_(2.0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("wrong", "told", "cause", "tries"),
    [("disk", "disk read error", OSError, 3), ("content", "no such page", ZeroDivisionError, 1)],
)
def test_a_sample_that_cannot_be_read_is_named_with_its_cause(
    tmp_path: Path, workers: int, wrong: str, told: str, cause: type[Exception], tries: int
) -> None:
    samples = Hostile(tmp_path, wrong)
    with pytest.raises(
        SampleError, match=rf"sample 'file-5' \(index 5\) cannot be read: {cause.__name__}: .*{told}"
    ) as found:
        read(samples, workers, retries=2)
    assert type(found.value.__cause__) is cause
    assert isinstance(found.value, (OSError, ValueError))
    assert samples.tries == tries


@pytest.mark.parametrize("workers", [0, 1])
def test_where_the_reading_failed_is_told(tmp_path: Path, workers: int) -> None:
    with pytest.raises(SampleError) as found:
        read(Hostile(tmp_path, "content"), workers)
    cause = found.value.__cause__
    assert cause is not None
    notes = "".join(getattr(cause, "__notes__", []))
    assert cause.__traceback__ is not None or "go_wrong" in notes
    assert workers == 0 or "go_wrong" in notes


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("times", [1, 2])
def test_a_disk_that_fails_for_a_while_changes_nothing(tmp_path: Path, workers: int, times: int) -> None:
    samples = Hostile(tmp_path, "disk", times)
    assert read(samples, workers, retries=2) == BATCHES
    assert samples.tries == times + 1


class Odd(Exception):  # noqa: N818
    """An error that cannot be made from its arguments, so not sent either."""

    def __init__(self, first: str, second: str):
        super().__init__(first + second)


class Unsendable(ArraySamples):
    def __getitem__(self, index: int) -> NDArray[Any]:
        raise Odd("not ", "sendable")


def test_an_error_that_cannot_be_sent_is_told() -> None:
    with pytest.raises(SampleError, match=r"sample '0' \(index 0\) cannot be read: Odd: not sendable"):
        read(Unsendable(np.zeros((10, 1, 4))), 1)


class OfOtherChannels(ArraySamples):
    def __getitem__(self, index: int) -> NDArray[Any]:
        return np.zeros((1 + index % 2, 4), np.float32)


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_that_make_no_batch_are_named(workers: int) -> None:
    with pytest.raises(SampleError, match=r"samples '0' \(index 0\), '1' \(index 1\) make no batch: ValueError"):
        read(OfOtherChannels(np.zeros((10, 1, 4))), workers)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [("die", "ended with exit code 9"), ("killed", "ended with exit code -9"), ("hang", "gave no answer for 0.5 s")],
)
def test_a_worker_that_dies_or_hangs_is_started_anew(tmp_path: Path, workers: int, wrong: str, told: str) -> None:
    samples = Hostile(tmp_path, wrong, times=2)
    with pytest.warns(RuntimeWarning, match=rf"a worker {told} while it read sample 'file-5' \(index 5\)") as warned:
        assert read(samples, workers, timeout=0.5, retries=2) == BATCHES
    assert len(warned) == 2
    assert samples.tries == 3


@pytest.mark.filterwarnings("ignore:a worker:RuntimeWarning")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("wrong", "told"), [("die", "ended with exit code 9"), ("hang", "gave no answer for 0.3 s")])
def test_a_worker_that_keeps_dying_or_hanging_is_given_up_in_time(
    tmp_path: Path, workers: int, wrong: str, told: str
) -> None:
    samples = Hostile(tmp_path, wrong)
    began = time.monotonic()
    with pytest.raises(SampleError, match=rf"sample 'file-5' \(index 5\).*{told}.*3 times.*'file-4' .*, 'file-5'"):
        read(samples, workers, timeout=0.3, retries=2)
    assert time.monotonic() - began < 20
    assert samples.tries == 3


def children() -> list[int]:
    """The processes that this one has started and not seen end."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_workers_end_with_the_loader(taken: int) -> None:
    before = children()
    batches = loader(waves(10), BATCHES, 2)
    list(islice(batches, taken))
    batches.close()
    assert children() == before


def test_workers_end_with_a_process_that_leaves_its_loader_open() -> None:
    code = (
        "from tests.training.makers import waves; from omniconv.training.loading import loader\n"
        "held = loader(waves(10), [[0], [1], [2]], 2); next(held); import sys; sys.exit(3)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 3, done.stderr.decode()


def test_workers_leave_requests_to_stop_to_the_training() -> None:
    before = set(children())
    with closing(loader(waves(10), BATCHES, 2)) as batches:
        found = [next(batches), next(batches)]  # both have begun
        for worker in set(children()) - before:
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
                os.kill(worker, number)
        found += list(batches)
    assert [batch.indices.tolist() for batch in found] == BATCHES


def test_workers_draw_nothing_from_the_global_generators() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    list(loader(waves(10), BATCHES, 2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]  # noqa: NPY002


@pytest.mark.filterwarnings("ignore:a worker:RuntimeWarning")
@pytest.mark.parametrize(("workers", "wrong"), [(0, "disk"), (1, "disk"), (1, "die"), (2, "hang")])
def test_a_training_that_was_disturbed_ends_with_the_bits_of_one_that_was_not(
    tmp_path: Path, workers: int, wrong: str
) -> None:
    found = []
    for times in (0, 1):
        folder = tmp_path / str(times)
        folder.mkdir()
        model = network(dropout=0.2)
        recipe = Recipe(epochs=2, batch_size=3, accumulate=2, workers=workers)
        record = train(model, TASK, Hostile(folder, wrong, times), recipe=recipe, run=Run(read_timeout=0.5))
        found.append((weights(model), without_times(record)))
    assert differing(found[0][0], found[1][0]) == []
    assert found[0][1] == found[1][1]


@pytest.mark.filterwarnings("ignore:a worker:RuntimeWarning")
@pytest.mark.parametrize(("workers", "wrong"), [(0, "disk"), (1, "disk"), (1, "die"), (1, "hang")])
def test_a_training_names_the_sample_that_ends_it(tmp_path: Path, workers: int, wrong: str) -> None:
    samples = Hostile(tmp_path, wrong)
    before = children()
    with pytest.raises(SampleError, match=r"'file-5' \(index 5\)"):
        train(
            network(),
            TASK,
            samples,
            recipe=Recipe(epochs=1, batch_size=4, workers=workers),
            run=Run(read_timeout=0.3, read_retries=1),
        )
    assert samples.tries == 2
    assert children() == before


def test_fit_and_outputs_name_the_sample_too(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(SampleError, match=r"'file-5' \(index 5\)"):
        fit(Hostile(tmp_path / "a", "disk"), TASK, Architecture(blocks=1, width=4), Recipe(epochs=1))
    with pytest.raises(SampleError, match=r"'file-5' \(index 5\)"):
        outputs_of(network(), Hostile(tmp_path, "content"))


def test_a_series_without_values_is_named_once() -> None:
    signals = [np.ones((1, 3)), np.full((1, 3), np.nan)]
    samples = TimedSamples(ArraySamples(signals, names=["ebb", "tide"]), None)
    with pytest.raises(ValueError, match=r"sample 'tide' \(index 1\) cannot be read.*no observed value\. Remove it\."):
        list(loader(samples, [[0, 1]], 1))


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"read_timeout": 0}, ValueError, "`read_timeout` must be finite and above 0; got 0"),
        ({"read_timeout": "1"}, TypeError, "`read_timeout` must be a number; got str '1'"),
        ({"read_timeout": float("nan")}, ValueError, "`read_timeout` must be finite and above 0; got nan"),
        ({"read_retries": -1}, ValueError, "`read_retries` must be at least 0; got -1"),
        ({"read_retries": 1.5}, TypeError, "`read_retries` must be an integer; got float 1.5"),
    ],
)
def test_limits_that_are_none_are_refused(options: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        Run(**options)
