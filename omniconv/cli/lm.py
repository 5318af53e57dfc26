"""`omniconv lm`: language models from a text to a recurrence that writes."""

from __future__ import annotations

import codecs
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from omniconv._errors import check_integer, check_number, require
from omniconv.cli._config import write_options
from omniconv.cli._output import console, facts, is_first_process, lines
from omniconv.data import Windows, read_tokens
from omniconv.models import Hyena, MultiHyena, Network, Stepper, read_config
from omniconv.models.generate import Generates
from omniconv.models.hyena import GatedNetwork
from omniconv.recurrence import Decoder, Stream
from omniconv.training import Attempt, Recipe, Run, distill_language, train_language
from omniconv.training.checkpoints import list_checkpoints
from omniconv.training.interrupts import raising_interrupts
from omniconv.training.predictor import chosen_device

OPTIONS = "lm.toml"
"""File of the options of a training, in the folder of the run."""

DISTILLED = "distilled"
"""Folder of the stream in that of the run."""

HEAD = ("runs as", "states", "batch", "tokens/s", "ms per step", "bytes per text", "prefill, tokens/s")
"""Of the table of speeds."""

Folder = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class Train:
    """Train a language model on a text, byte by byte, or on the ids that any tokenizer made of one."""

    text: Folder
    """A file of any kind, whose bytes are the tokens (.gz and .xz are unpacked), or .npy with ids."""

    out: Path
    """Folder for the run."""

    network: Literal["hyena", "multi_hyena"] = "hyena"
    """What to train."""

    blocks: int = 2
    """Residual blocks."""

    width: int = 128
    """Channels."""

    head_width: int = 2
    """Of MultiHyena: channels that share a filter."""

    length: int = 256
    """Tokens that a window has, and that kernels reach back."""

    dropout: float = 0.1
    """Share of values that drop-out removes."""

    held_out: float = 0.1
    """Share of the text, its end, that chooses the best epoch."""

    epochs: int = 5
    """Passes over the text."""

    batch_size: int = 16
    """Windows per step and process."""

    lr: float = 0.005
    """Highest learning rate."""

    weight_decay: float = 0.1
    """Decoupled weight decay."""

    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""

    compile: bool = False
    """Whether torch.compile compiles the network."""

    seed: int = 0
    """Of the weights, the order of the windows and drop-out."""

    device: Literal["auto", "cpu"] = "auto"
    """Where to train; auto takes an accelerator if there is one."""

    time_limit: float | None = None
    """Seconds after which to stop with a checkpoint and exit code 75."""

    def run(self) -> None:
        """Refuse to overwrite a run, then train."""
        if list_checkpoints(self.out / "checkpoints") or (self.out / "config.json").exists():
            raise ValueError(
                f"{self.out} holds a run already. Go on with `omniconv resume {self.out}`, or give another --out."
            )
        self.train(resume=False)

    def train(self, *, resume: bool) -> None:
        """Read, train, write."""
        ids, tokens = read_tokens(self.text)
        training, validation = parted(ids, self.length, self.held_out)
        network = self.build(tokens)
        out = console()
        rows = {
            "tokens": f"{len(ids):,} of {tokens} kinds",
            "windows": f"{len(training):,} to train, {len(validation):,} held out",
            "network": f"{type(network).__name__}, {sum(p.numel() for p in network.parameters()):,} parameters",
        }
        out.print(facts(f"Training on {self.text}", rows))
        if is_first_process() and not resume:
            self.out.mkdir(parents=True, exist_ok=True)
            write_options(self.out / OPTIONS, self)
        recipe = Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            precision=self.precision,
            compile=self.compile,
            seed=self.seed,
        )
        run = Run(self.out, resume=resume, time_limit=self.time_limit, device=self.device, progress=True)
        with raising_interrupts():
            record = train_language(network, training, recipe=recipe, validation=validation, run=run)
        if is_first_process():
            about = {"text": str(self.text), "held_out": self.held_out, "bytes": self.text.suffix != ".npy"}
            network.cpu().save_pretrained(self.out, extra={"about": about})
            best = min(row["validation_loss"] for row in record if "validation_loss" in row)
            out.print(
                facts("On the held-out text", {"nats per token": best, "bits per token": best / float(np.log(2))})
            )
            out.print(f"The network is in [bold]{self.out}/[/]. Try next:")
            out.print(f"  omniconv lm distill {self.out} {self.text}", soft_wrap=True)

    def build(self, tokens: int) -> GatedNetwork:
        """The network, newly drawn."""
        torch.manual_seed(self.seed)
        width, size = check_integer("--width", self.width), check_integer("--length", self.length)
        shared: dict[str, Any] = {"blocks": self.blocks, "tokens": tokens, "tied": True, "head": "dense"}
        shared |= {"dropout": self.dropout}
        if self.network == "hyena":
            return Hyena(width, tokens, size, width=width, **shared)
        if width % check_integer("--head-width", self.head_width):
            raise ValueError(f"`--head-width` must divide the width (={width}); got {self.head_width}.")
        return MultiHyena(width, tokens, size, n_filters=width // self.head_width, head_width=self.head_width, **shared)


@dataclass(frozen=True)
class Distill:
    """Turn a trained language model into a recurrence of constant memory, as small as the text allows.

    The held-out end of the text goes through it token by token, at growing orders, until it says what the network says.
    """

    model: Folder
    """Folder of a run."""

    text: Folder
    """The text to judge by; of that of the training only the end, which was held out."""

    change: float = 0.005
    """Nats per token that the loss may change by."""

    top_1: float = 0.98
    """Share of tokens for which the likeliest must be the same."""

    windows: int = 64
    """Windows of the text to judge by."""

    certificate: bool = False
    """Also print what every convolution became."""

    device: str = "cpu"
    """Where to compute: auto, cpu, cuda .."""

    def run(self) -> None:
        """Read, distil, tell, write."""
        network = loaded(self.model, chosen_device(self.device))
        ids, _ = read_tokens(self.text)
        about = about_of(self.model)
        length = network.grid.size[0]
        held_out = parted(ids, length, float(about["held_out"]))[1]
        first = Windows(held_out.ids[: check_integer("--windows", self.windows) * length + 1], length)
        out = console()
        attempts = Attempts()
        made, _ = distill_language(network, first, change=self.change, top_1=self.top_1, report=attempts.add)
        out.print(attempts.table())
        if self.certificate:
            out.print(str(made.certificate), highlight=False)
        made.save_pretrained(self.model / DISTILLED)
        found = "The recurrence" if made.recurrences else "No order is small enough: the exact stream"
        out.print(f"{found} is in [bold]{self.model / DISTILLED}/[/]. Try next:")
        out.print(f"  omniconv lm generate {self.model} --prompt 'Once upon'", soft_wrap=True)


@dataclass
class Attempts:
    """What was tried, for people."""

    found: list[Attempt] = field(default_factory=list)

    def add(self, attempt: Attempt) -> None:
        """One more; told on standard error at once, because each takes its time."""
        self.found.append(attempt)
        runs_as = "exact" if attempt.order is None else f"order {attempt.order}"
        sys.stderr.write(f"{runs_as}: loss {attempt.agreement.difference:+.4f}, same {attempt.agreement.top_1:.4f}\n")

    def table(self) -> Any:
        """All of them."""
        table: Any = require("rich.table", extra="cli", purpose="the command omniconv").Table(
            title="Through the recurrence, token by token", title_justify="left"
        )
        for name in ("order", "bytes per text", "nats per token", "change", "same likeliest"):
            table.add_column(name, justify="right")
        for one in self.found:
            same = one.agreement
            table.add_row(
                "exact" if one.order is None else str(one.order),
                f"{one.nbytes:,}",
                f"{same.other:.4f}",
                f"{same.difference:+.4f}",
                f"{same.top_1:.4f}",
            )
        return table


@dataclass(frozen=True)
class Generate:
    """Continue a prompt, printed as it comes; through the recurrence where the model was distilled."""

    model: Folder
    """Folder of a run."""

    prompt: str | None = None
    """Text to go on from, a new line if it is left out; a model of ids needs one: ids, separated by blanks."""

    max_new_tokens: int = 256
    """After which to stop."""

    temperature: float = 0.8
    """0 takes the likeliest token."""

    top_k: int | None = None
    """Only that many, the likeliest."""

    top_p: float | None = None
    """Only the fewest that have that probability together."""

    min_p: float | None = None
    """Only those at least that many times as probable as the likeliest."""

    repetition_penalty: float = 1.0
    """Above 1 tokens that occurred are less likely."""

    stop: str | None = None
    """A word that ends the text behind it; of a model of ids one id, or several in that order, separated by blanks."""

    exact: bool = False
    """Remember all that kernels reach, also where the model was distilled."""

    seed: int | None = None
    """Of the draws."""

    device: str = "cpu"
    """Where to compute: auto, cpu, cuda .."""

    def run(self) -> None:
        """Read, write."""
        device = chosen_device(self.device)
        model = writer(self.model, device, exact=self.exact)
        tokens = None if about_of(self.model)["bytes"] else model.stepper().network.out_features
        prompt = self.prompt
        if prompt is None:
            if tokens is not None:
                raise ValueError(
                    "`--prompt` must be given for this model: ids, separated by blanks, such as --prompt '0 1'."
                )
            prompt = "\n"
        ids = encoded(prompt, tokens, "--prompt")
        stop = [] if self.stop is None else encoded(self.stop, tokens, "--stop")
        model.generate(
            torch.tensor([ids], device=device),
            self.max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            callback=Printed(prompt, stop, of_bytes=tokens is None),
        )
        sys.stdout.write("\n")


class Printed:
    """Prints tokens as they come, bytes as the characters of UTF-8 that they make; true behind those of `stop`.

    The prompt comes before the first token, when no option can be wrong any more.
    """

    def __init__(self, prompt: str, stop: Sequence[int], *, of_bytes: bool):
        self.ahead, self.stop, self.last = prompt, list(stop), deque[int](maxlen=len(stop))
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace") if of_bytes else None

    def __call__(self, token: Tensor) -> bool:
        number = int(token[0])
        text = f" {number}" if self.decoder is None else self.decoder.decode(bytes([number]))
        sys.stdout.write(self.ahead + text)
        sys.stdout.flush()
        self.ahead = ""
        self.last.append(number)
        return bool(self.stop) and list(self.last) == self.stop


def encoded(text: str, tokens: int | None, option: str) -> list[int]:
    """Tokens of an option: ids of so many `tokens`, or bytes for None; or raise."""
    try:
        ids = list(text.encode()) if tokens is None else [int(word) for word in text.split()]
    except ValueError:
        raise ValueError(f"`{option}` must be ids, separated by blanks, for this model; got {text!r}.") from None
    if not ids:
        raise ValueError(f"`{option}` must hold one token at least; got {text!r}.")
    if tokens is not None and not all(0 <= one < tokens for one in ids):
        raise ValueError(f"`{option}` must hold ids from 0 to {tokens - 1}; got {min(ids)} to {max(ids)}.")
    return ids


@dataclass(frozen=True)
class Bench:
    """Measure how fast a language model writes, and how much it remembers, exactly and through its recurrence."""

    model: Folder
    """Folder of a run."""

    batch_sizes: tuple[int, ...] = (1, 16, 64)
    """Texts that are written at the same time."""

    context: int = 1024
    """Tokens before."""

    seconds: float = 2.0
    """Per line of the table."""

    device: str = "cpu"
    """Where to compute: auto, cpu, cuda .."""

    def run(self) -> None:
        """Read, time, print."""
        check_number("--seconds", self.seconds, low=0.0)
        check_integer("--context", self.context)
        batches = [check_integer("--batch-sizes", batch) for batch in self.batch_sizes]
        device, rows, said = chosen_device(self.device), list[list[str]](), ""
        try:
            said = self.measure(device, batches, rows)
        finally:  # what was measured is not lost to what comes later
            if rows:
                console().print(lines(f"Behind {self.context} tokens", HEAD, rows))
        if said:
            console().print(said, soft_wrap=True, highlight=False, markup=False)

    def measure(self, device: torch.device, batches: Sequence[int], rows: list[list[str]]) -> str:
        """Add the lines of the table; returns what is to be said of lines that are missing."""
        exact = writer(self.model, device, exact=True).stepper()
        for batch in batches:
            rows.append(["exact", "", *self.timed(exact, batch, exact.init_state(1).nbytes)])
        if not (self.model / DISTILLED).exists():
            return ""
        streamed = Stream.from_pretrained(self.model / DISTILLED, device=device)
        for batch in batches:
            rows.append([DISTILLED, states_of(streamed), *self.timed(streamed, batch, streamed.init_state(1).nbytes)])
        for batch in batches:
            try:
                decoder = Decoder(streamed, batch)
            except (TypeError, ValueError) as error:  # it does not take every stream
                return f"No line for a step in place: {error}"
            rows.append([way_of(decoder), states_of(streamed), *self.timed(decoder, batch, decoder.nbytes // batch)])
        return ""

    def timed(self, stepper: Stepper, batch: int, nbytes: int) -> list[str]:
        """A line of the table; `nbytes`: what is remembered of a text."""
        network = stepper.network
        device = next(network.parameters()).device
        prompt = torch.randint(network.out_features, (batch, self.context), device=device)
        stepper.prefill(prompt, last=True)  # the first call makes what later ones keep
        began = waited(device)
        _, state = stepper.prefill(prompt, last=True)
        ahead = waited(device) - began
        took, ends = list[float](), time.perf_counter() + self.seconds
        while time.perf_counter() < ends or len(took) < 3:
            began = time.perf_counter()
            _, state = stepper.step(prompt[:, 0], state)
            took.append(waited(device) - began)
        step = statistics.median(took)
        speed = [f"{batch / step:,.0f}", f"{1e3 * step:.2f}", f"{nbytes:,}"]
        return [str(batch), *speed, f"{prompt.numel() / ahead:,.0f}"]


def waited(device: torch.device) -> float:
    """The time when the device is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def states_of(streamed: Stream) -> str:
    """Numbers of state per channel of its largest recurrence, if it has one, as in the certificate."""
    states = [layer.states for layer in streamed.certificate.layers if layer.name in streamed.recurrences]
    return str(max(states)) if states else "exact"


def way_of(decoder: Decoder) -> str:
    """How a decoder steps: its kernels run on graphics processors alone, elsewhere it is plain PyTorch."""
    return "fused" if all(block.fused for block in decoder.blocks) else "in place"


Command = Annotated[
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Distill, tyro.conf.subcommand("distill")]
    | Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[Bench, tyro.conf.subcommand("bench")],
    tyro.conf.OmitArgPrefixes,
]


@dataclass(frozen=True)
class LanguageModel:
    """Train a language model on a text, distil it into a recurrence, and let it write."""

    command: Command
    """What to do."""

    def run(self) -> None:
        """Do it."""
        self.command.run()


def parted(ids: Any, length: int, held_out: float) -> tuple[Windows, Windows]:
    """Windows of the text, and of its end, a share that is held out."""
    check_number("held_out", held_out, low=0.0, high=1.0)
    cut = len(ids) - round(held_out * len(ids))
    return Windows(ids[:cut], length), Windows(ids[cut:], length)


def about_of(folder: Path) -> dict[str, Any]:
    """What the training wrote about itself."""
    about = read_config(folder).get("about")
    if not isinstance(about, dict) or not {"bytes", "held_out"} <= about.keys():
        raise ValueError(f"{folder} is no run of `omniconv lm train`.")
    return about


def loaded(folder: Path, device: torch.device) -> GatedNetwork:
    """The trained network, or raise."""
    about_of(folder)
    model = Network.from_pretrained(folder, device=device)
    if not isinstance(model, GatedNetwork):
        raise ValueError(f"{folder} holds a {type(model).__name__}, which does not write.")
    return model


def writer(folder: Path, device: torch.device, *, exact: bool) -> Generates:
    """What writes: the recurrence where there is one, unless the network itself is asked for."""
    if exact or not (folder / DISTILLED).exists():
        model = loaded(folder, device)
        return Stepper(model, model.causal_part())
    return Stream.from_pretrained(folder / DISTILLED, device=device)
