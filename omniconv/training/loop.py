"""The training loop."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omniconv._errors import (
    CheckpointError,
    Interrupted,
    NonFiniteError,
    StepMemoryError,
    check_choice,
    check_instance,
    check_integer,
    check_number,
    check_path,
)
from omniconv.data import Samples
from omniconv.models import Network
from omniconv.nn import refresh, synchronize
from omniconv.training.average import Average
from omniconv.training.batches import Batch, BatchPlan, StepSampler
from omniconv.training.checkpoints import (
    Checkpoint,
    list_checkpoints,
    read_latest,
    remove_after,
    remove_old,
    write_checkpoint,
)
from omniconv.training.diagnosis import first_bad_gradient, first_bad_part
from omniconv.training.evaluation import AS_SAMPLES, outputs_of
from omniconv.training.groups import check_one_size
from omniconv.training.interrupts import Interrupts
from omniconv.training.loading import RETRIES, TIMEOUT, loader
from omniconv.training.logs import Logs
from omniconv.training.memory import ran_out, smaller_step
from omniconv.training.objective import Objective
from omniconv.training.optimizer import build_optimizer, warmup_cosine
from omniconv.training.parts import Best, Parts
from omniconv.training.processes import make_accelerator
from omniconv.training.progress import progress_for
from omniconv.training.recipe import Recipe
from omniconv.training.tasks import Task, check_network_of

Report = Callable[[int, int, float], None]
Record = list[dict[str, float]]


@dataclass(frozen=True)
class Run:
    """Where and how a training runs: nothing here changes its result.

    `folder`: for checkpoints/, log.jsonl and log.csv; None writes nothing. `resume`: go on from the last sound
    checkpoint there, from the beginning if there is none. `every`: steps between checkpoints; None: about
    `seconds` between them. `keep`: how many of the last are kept. `time_limit`: seconds after which to stop with a
    checkpoint. `trackers`: of accelerate, such as "tensorboard" and "wandb". `device`: "auto" or "cpu". `progress`:
    whether to show it. `read_timeout`: seconds after which a process that reads (`workers` of the recipe) and gives no
    batch is started anew; without such processes nothing ends a read that hangs. `read_retries`: how often that is
    done for a batch, or if the process dies, and how often a sample is read again whose reading raises `OSError`.
    """

    folder: Path | None = None
    resume: bool = False
    every: int | None = None
    seconds: float = 120.0
    keep: int = 2
    time_limit: float | None = None
    trackers: tuple[str, ...] = ()
    device: str = "auto"
    progress: bool = False
    read_timeout: float = TIMEOUT
    read_retries: int = RETRIES

    def __post_init__(self) -> None:
        if self.folder is not None:
            object.__setattr__(self, "folder", check_path("folder", self.folder))
        elif self.resume or self.every is not None or self.trackers:
            raise ValueError("`resume`, `every` and `trackers` need a `folder` to read from or write to.")
        if self.every is not None:
            check_integer("every", self.every)
        check_integer("keep", self.keep)
        check_number("seconds", self.seconds, low=0.0)
        check_choice("device", self.device, ("auto", "cpu"))
        if self.time_limit is not None:
            check_number("time_limit", self.time_limit, low=0.0, closed=True)
        check_number("read_timeout", self.read_timeout, low=0.0)
        check_integer("read_retries", self.read_retries, minimum=0)


def train(
    model: nn.Module,
    task: Task,
    samples: Samples,
    *,
    recipe: Recipe | None = None,
    validation: Samples | None = None,
    run: Run | None = None,
    report: Report | None = None,
) -> Record:
    """Train `model` in place for `task`; returns the record, a row per step, with those of the run that is resumed.

    `samples`: with targets. `recipe`: every option that the result depends on. `validation`: samples with targets that
    are evaluated after every epoch; the model keeps the weights of the best epoch. `run`: where and how. `report`:
    called as `report(step, steps, loss)` after every step.

    With one seed on one machine the result is bit-identical, however often the run was killed and resumed. The global
    random state is left as it was. Processes, devices and FSDP are those of `torchrun` and accelerate's configuration;
    P processes with batches of B compute what one does with batches of P * B, but for drop-out and augmentation: each
    draws its own.

    Raises `ValueError` or `TypeError` for what does not fit, such as a network with other outputs than the task needs,
    `SampleError` that names one that cannot be read, `NonFiniteError` for a loss or gradient that is not finite (the
    batch is kept in the run's folder), `StepMemoryError` that says which smaller step to take if memory runs out,
    `Interrupted` after a checkpoint on SIGTERM, SIGUSR1, SIGINT or the time limit, `CheckpointError` if one can be
    neither written nor read.
    """
    recipe, run = Recipe() if recipe is None else recipe, Run() if run is None else run
    check_instance("model", model, nn.Module)
    check_instance("task", task, Task, remedy="Infer one from targets with infer_task.")
    check_instance("samples", samples, Samples, remedy=AS_SAMPLES)
    check_instance("recipe", recipe, Recipe)
    check_instance("run", run, Run, remedy="Write Run(folder=...).")
    if validation is not None:
        check_instance("validation", validation, Samples, remedy=AS_SAMPLES)
    return Loop(model, task, samples, validation, recipe, run, report).complete()


def check_network(model: nn.Module, task: Task, samples: Samples, smallest: int) -> None:
    """Raise unless the network takes such samples, in batches of as few as that, and gives what the task needs."""
    if not isinstance(model, Network):
        return
    check_network_of(model, task)
    if samples.space and not model.takes_positions:
        raise ValueError(f"`samples` must be signals on a grid, or series, for {type(model).__name__}; got clouds.")
    if not model.takes_masks:
        check_one_size(samples)
    if smallest < model.least_batch:
        raise ValueError(
            f"`batch_size` must leave {model.least_batch} samples for every process and part, as "
            f"{type(model).__name__} needs; got batches of {smallest}. Raise it, or lower `accumulate`."
        )


class Loop:
    """One training: its parts, and where it stands: `step` of `steps`."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        samples: Samples,
        validation: Samples | None,
        recipe: Recipe,
        run: Run,
        report: Report | None,
    ):
        self.model, self.task, self.samples, self.validation = model, task, samples, validation
        self.recipe, self.run, self.report = recipe, run, report
        self.encoded = encode(task, samples, "samples")
        self.held_out = None if validation is None else encode(task, validation, "validation")
        if recipe.patience and validation is None:
            raise ValueError(f"`patience` (={recipe.patience}) needs `validation` samples to judge by.")
        self.accelerator = make_accelerator(recipe.precision, run.device, run.trackers, run.folder)
        self.processes, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.plan = BatchPlan(samples.sizes, recipe.batch_size * self.processes, recipe.seed)
        self.steps = recipe.epochs * self.plan.batches
        smallest, needed = len(samples) // self.plan.batches, self.processes * recipe.accumulate
        if smallest < needed:
            raise ValueError(
                f"a batch of {smallest} of the {len(samples)} samples is less than one per process and part "
                f"({needed}). Lower `accumulate` or use fewer processes."
            )
        check_network(model, task, samples, smallest // needed)
        self.identity = self._identity()
        checkpoint = self._checkpoint_to_resume()
        self.parts = self._make_parts()
        self.step, self.score = 0, ""
        self.counts: dict[int, list[int]] = {}
        if checkpoint is not None:
            self.parts.restore(checkpoint)
            self.step = int(checkpoint.state["step"])
        self.logs = self._open_logs()
        self.record: Record = [] if self.logs is None else self.logs.rows

    def _make_parts(self) -> Parts:
        """Objective, optimiser, schedule and average, on their devices, for all processes."""
        recipe = self.recipe
        synchronize(self.model)
        if recipe.compile:
            self.model.compile()
        optimizer = build_optimizer(self.model, lr=recipe.lr, weight_decay=recipe.weight_decay)
        minimised = Objective(self.model, self.task, penalties=recipe.penalties)
        objective, prepared = self.accelerator.prepare(minimised, optimizer)
        self.optimizer = prepared  # knows about scaled gradients
        warmup = min(math.ceil(recipe.warmup * self.steps), self.steps - 1)
        schedule = warmup_cosine(prepared.optimizer, steps=self.steps, warmup=warmup)
        average = Average(objective, recipe.average)
        return Parts(objective, prepared.optimizer, schedule, average, self.accelerator.scaler)

    def complete(self) -> Record:
        """Take every step that is left, then leave the weights to keep in the model."""
        with ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts(self.run.time_limit, signals=self.run.folder is not None))
            stack.callback(self._close)
            stack.enter_context(torch.random.fork_rng(self._devices()))
            progress = stack.enter_context(progress_for(self.run.progress and self.rank == 0))
            self.model.train()
            batches = stack.enter_context(closing(self._batches()))
            saved = time.monotonic()
            while self.step < self.steps and not self._waited_enough():
                began = time.monotonic()
                row = self._take_affordable_step(batches)
                if self.step % self.plan.batches == 0:
                    row |= self._validate()
                self._log({**row, "seconds": round(time.monotonic() - began, 6)})
                progress.update(self.step, self.steps, int(row["samples"]), row["loss"], self.score)
                if self.report is not None:
                    self.report(self.step, self.steps, row["loss"])
                reason = self._reason_to_stop(interrupts)
                if self.step < self.steps and (reason or self._due(saved)):
                    self._save()
                    saved = time.monotonic()
                    if reason:
                        self.accelerator.wait_for_everyone()  # the first may still be writing
                        raise Interrupted(self._stopped(reason))
            self._save()
            self.parts.keep_best()
        return self.record

    def _take_affordable_step(self, batches: Iterator[Batch]) -> dict[str, float]:
        """`_take_step`; raises `StepMemoryError` that says which smaller step to take, if memory does not suffice."""
        try:
            return self._take_step(batches)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            epoch, position = divmod(self.step, self.plan.batches)
            chosen = self.plan.epoch(epoch)[position][self.rank :: self.processes]
            advice = smaller_step(
                math.ceil(len(chosen) / self.recipe.accumulate),
                tuple(int(length) for length in self.samples.sizes[chosen].max(0)),
                batch_size=self.recipe.batch_size,
                accumulate=self.recipe.accumulate,
                fewest=len(self.samples) // self.plan.batches // self.processes,
            )
            raise StepMemoryError(f"step {self.step + 1} needs more memory than there is: {advice}") from error

    def _take_step(self, batches: Iterator[Batch]) -> dict[str, float]:
        """One step of the optimiser; its row of the record."""
        epoch, position = divmod(self.step, self.plan.batches)
        if epoch not in self.counts:
            self.counts = {epoch: self.plan.counts(epoch)}
        total = self.counts[epoch][position]
        loss = torch.zeros((), dtype=torch.float64)
        for part in range(self.recipe.accumulate):
            self._seed(part)
            drawn = next(batches)
            batch = self._changed(drawn)
            finite = bool(loss.isfinite())
            loss += self._add_gradient(batch, total, last=part == self.recipe.accumulate - 1)
            if finite:
                suspect = part, drawn  # the first part that spoils the loss, else the last
        mean = self._sum_over_processes(loss).item()
        if not math.isfinite(mean):
            part, drawn = suspect
            self._seed(part)  # the same changes and drop-out again
            batch = self._changed(drawn)
            here = not bool(loss.isfinite())
            where = first_bad_part(self.model, batch, self.samples.names) if here else "the batch of another process"
            raise NonFiniteError(self._explained(f"the loss is {mean}", where, batch))
        lr = float(self.parts.schedule.get_last_lr()[0])
        self._descend(batch)
        return {"step": self.step, "epoch": epoch, "loss": mean, "lr": lr, "samples": total}

    def _changed(self, batch: Batch) -> Batch:
        """The batch as this step sees it, on the device."""
        changed = batch if self.recipe.augmentation is None else self.recipe.augmentation(batch)
        return changed.to(self.accelerator.device)

    def _add_gradient(self, batch: Batch, total: int, *, last: bool) -> Tensor:
        """Add the gradient of one part of a batch of `total` samples; returns this process's share of the loss."""
        objective, accelerator = self.parts.objective, self.accelerator
        encoded = self.encoded[batch.indices].to(accelerator.device)
        alone: AbstractContextManager[Any] = nullcontext() if last else accelerator.no_sync(objective)
        with alone:
            with accelerator.autocast():
                losses, penalty = objective(batch.signals, batch.mask, encoded, batch.times, batch.positions)
            penalty = penalty / self.recipe.accumulate
            # gradients are averaged over processes: the sum over all samples becomes the mean over all samples
            accelerator.backward(losses * (self.processes / total) + penalty)
        return (losses.detach() / total + penalty.detach() / self.processes).cpu().double()

    def _descend(self, batch: Batch) -> None:
        """Move the weights along the gradient."""
        norm = self.accelerator.clip_grad_norm_(self.parts.objective.parameters(), self.recipe.clip)
        scaler = self.accelerator.scaler  # skips steps whose gradients overflow, and scales less then
        finite = norm is None or math.isfinite(float(norm))
        if not finite and (scaler is None or scaler.get_scale() < 1):
            raise NonFiniteError(self._explained("the gradient is not finite", first_bad_gradient(self.model), batch))
        self.optimizer.step()
        self.parts.schedule.step()
        self.optimizer.zero_grad()
        self.step += 1
        if not self.optimizer.step_was_skipped:
            self.parts.average.update(self.step)
        refresh(self.model)

    def _validate(self) -> dict[str, float]:
        """Figures of the validation samples; the best weights are kept."""
        if self.validation is None or self.held_out is None:
            return {}
        epoch = self.step // self.plan.batches
        with self.parts.average.applied():
            refresh(self.model)
            outputs = outputs_of(
                self.model,
                self.validation,
                batch_size=self.recipe.batch_size,
                forward=self.parts.objective,
                read_retries=self.run.read_retries,
            )
            figures = self.task.metrics(outputs, np.asarray(self.validation.targets))
            loss = self.task.losses(outputs, self.held_out.to(outputs.device)).mean().item()
            score, loss = self._of_the_first(figures[self.task.metric], loss)
            if self.parts.best.beaten_by(score, loss):
                self.parts.best = Best(score, loss, epoch, self.parts.weights())
        refresh(self.model)
        self.score = f"{self.task.metric} {score:.4f}"
        return {f"validation_{name}": value for name, value in {"loss": loss, **figures}.items()}

    def _waited_enough(self) -> bool:
        best = self.parts.best
        waiting = self.step // self.plan.batches - best.epoch
        return bool(self.recipe.patience) and best.score is not None and waiting >= self.recipe.patience

    # ---- random states, batches, processes

    def _seed(self, part: int) -> None:
        """Random numbers are a function of the step: a run that goes on draws what it would have drawn."""
        words = np.random.SeedSequence([self.recipe.seed, self.step, part, self.rank]).generate_state(1, np.uint64)
        torch.default_generator.manual_seed(int(words[0] >> 1))
        if self._devices():
            torch.cuda.manual_seed(int(words[0] >> 1))

    def _devices(self) -> list[int]:
        device = self.accelerator.device
        return [device.index or 0] if device.type == "cuda" else []

    def _batches(self) -> Generator[Batch]:
        sampler = StepSampler(self.plan, self.step, self.steps, self.rank, self.processes, parts=self.recipe.accumulate)
        timeout, retries = self.run.read_timeout, self.run.read_retries
        return loader(self.samples, sampler, self.recipe.workers, timeout=timeout, retries=retries)

    def _sum_over_processes(self, value: Tensor) -> Tensor:
        if self.processes == 1:
            return value
        return self.accelerator.reduce(value.to(self.accelerator.device), reduction="sum").cpu()

    def _of_the_first(self, *values: float) -> list[float]:
        """The values of the first process: others may differ in the last bit, and all have to decide alike."""
        mine = torch.tensor(values, dtype=torch.float64)
        return self._sum_over_processes(mine if self.rank == 0 else torch.zeros_like(mine)).tolist()

    def _any_process(self, here: bool) -> bool:
        return here if self.processes == 1 else bool(self._sum_over_processes(torch.tensor(float(here))).item())

    def _reason_to_stop(self, interrupts: Interrupts) -> str:
        """Why to stop, agreed by all processes: a signal may reach only one of them."""
        reason = interrupts.reason
        asked = self._any_process(bool(reason))  # every process has to ask, whatever it knows itself
        return reason or ("another process was asked to stop" if asked else "")

    # ---- records and checkpoints

    def _open_logs(self) -> Logs | None:
        if self.run.folder is None or self.rank != 0:
            return None
        self.run.folder.mkdir(parents=True, exist_ok=True)
        if self.run.trackers:
            self.accelerator.init_trackers("omniconv", config=asdict(self.recipe))
        return Logs(self.run.folder, self.step)

    def _log(self, row: dict[str, float]) -> None:
        if self.logs is None:
            self.record.append(row)
        else:
            self.logs.write(row)  # the record is its rows
        if self.run.trackers:
            self.accelerator.log({name: value for name, value in row.items() if name != "step"}, step=self.step)

    def _close(self) -> None:
        if self.logs is not None:
            self.logs.close()
        for tracker in self.accelerator.trackers:  # the processes stay connected: they may train again
            tracker.finish()

    def _checkpoint_to_resume(self) -> Checkpoint | None:
        if self.run.folder is None or not list_checkpoints(self.run.folder / "checkpoints"):
            return None
        folder = self.run.folder / "checkpoints"
        if not self.run.resume:
            raise ValueError(
                f"{self.run.folder} holds a run already. Resume it (`resume=True`), or give another folder."
            )
        checkpoint = read_latest(folder)
        check_same_run(checkpoint.state["identity"], self.identity)
        self.accelerator.wait_for_everyone()  # all have read it
        if self.rank == 0:
            remove_after(folder, int(checkpoint.state["step"]))
        return checkpoint

    def _identity(self) -> dict[str, Any]:
        """What has to be the same for a run to go on; of processes and batches only their product."""
        recipe = {key: value for key, value in asdict(self.recipe).items() if key not in ("batch_size", "workers")}
        held_out = None
        if self.validation is not None and self.held_out is not None:
            held_out = fingerprint(self.validation, self.held_out)
        return {
            **recipe,
            "batch_of_all_processes": self.plan.batch_size,
            "task": self.task.described(),
            "network": checksum(str([(name, tuple(value.shape)) for name, value in self.model.state_dict().items()])),
            "samples": fingerprint(self.samples, self.encoded),
            "validation": held_out,
        }

    def _due(self, saved: float) -> bool:
        if self.run.folder is None:
            return False
        if self.run.every is not None:
            return self.step % self.run.every == 0
        return self._any_process(time.monotonic() - saved >= self.run.seconds)

    def _save(self) -> None:
        if self.run.folder is None:
            return
        state, tensors = self.parts.saved()
        if self.logs is not None:  # the first process
            self.logs.flush()
            folder = self.run.folder / "checkpoints"
            write_checkpoint(folder, self.step, {"step": self.step, "identity": self.identity, **state}, tensors)
            remove_old(folder, self.run.keep)

    # ---- when something is wrong

    def _explained(self, what: str, where: str, batch: Batch) -> str:
        """What happened, where it begins, and where the batch is kept."""
        told = f"{what} at step {self.step + 1}; it begins with {where}."
        if self.run.folder is None:
            return f"{told} The batch holds the samples {batch.indices.tolist()}. Look at these, or lower `lr`."
        tensors = {"signals": batch.signals, "indices": batch.indices}
        tensors |= batch.options
        state = {"step": self.step + 1, "process": self.rank, "told": told}
        try:
            kept = write_checkpoint(self.run.folder / f"nonfinite-{self.rank}", self.step + 1, state, tensors)
        except CheckpointError as error:
            return f"{told} The batch, samples {batch.indices.tolist()}, could not be kept: {error}"
        return f"{told} The batch is kept in {kept}; earlier checkpoints are sound. Look at the batch, or lower `lr`."

    def _stopped(self, reason: str) -> str:
        kept = ""
        if (folder := self.run.folder) is not None:
            how = f"omniconv resume {shlex.quote(str(folder))}, or in Python `resume=True`"
            kept = f" A checkpoint is in {folder}; resume to go on: {how}."
        return f"{reason} after step {self.step} of {self.steps}.{kept}"


def encode(task: Task, samples: Samples, name: str) -> Tensor:
    """The targets of `samples` as a tensor; raises `ValueError` if there are none."""
    if samples.targets is None:
        raise ValueError(f"`{name}` must have targets to learn from; got samples without.")
    return task.encode(samples.targets)


def fingerprint(samples: Samples, encoded: Tensor) -> str:
    """A checksum of sizes and targets; signals are not read for it."""
    return checksum(f"{checksum(samples.sizes.tobytes())} {checksum(encoded.numpy().tobytes())}")


def checksum(data: str | bytes) -> str:
    """SHA-256, abbreviated."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


def check_same_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `ValueError` that names what differs, unless a checkpoint belongs to this run."""
    changed = [key for key in now if json.loads(json.dumps(now[key])) != before.get(key)]
    if changed:
        listed = ", ".join(f"{key}: {before.get(key)!r} before, {now[key]!r} now" for key in changed)
        raise ValueError(f"the checkpoint belongs to another run ({listed}). Resume with what it began with.")
