"""`omniconv stream`: the predictions of a causal network, as the samples come."""

from __future__ import annotations

import io
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from omniconv._errors import check_integer, require
from omniconv.cli.predict import Model
from omniconv.recurrence import stream
from omniconv.training import Classification, Predictor

Chunk = NDArray[np.float64]
"""Samples by channels."""

FRAMES = 1024
"""Samples of sound that are read at a time."""


@dataclass(frozen=True)
class Stream:
    """Print what a causal network predicts for the samples so far, as they come from standard input or a file.

    Samples are lines of numbers, one for every channel, separated by commas or blanks; or sound, WAV on standard input
    and whatever soundfile reads in a file. A row is printed for every sample, or every so many: the number of samples
    so far, the prediction, and the probability of every class. Memory does not grow with the stream.
    """

    model: Model
    """Folder of a run or of a saved network, trained with --causal."""

    source: Annotated[Path | None, tyro.conf.Positional] = None
    """File to read; standard input if it is left out."""

    tol: float | None = None
    """Relative error that a kernel may have, to take less memory and time; exact if it is left out."""

    every: int = 1
    """Samples from row to row; the last sample always has one."""

    certificate: bool = False
    """Also print, on standard error, what every convolution became and how far outputs can be off."""

    device: str = "auto"
    """Where to compute."""

    def run(self) -> None:
        """Read, step, print."""
        check_integer("every", self.every)
        predictor = Predictor.load(self.model, device=self.device)
        classes = predictor.task.classes if isinstance(predictor.task, Classification) else ()
        print(",".join(["samples", "prediction", *(f"p_{label}" for label in classes)]), flush=True)
        chunks, rate = opened(self.source)  # waits for the first sample
        trained = predictor.about.get("rate")
        device = next(predictor.model.parameters()).device
        model = predictor.model if device.type == "mps" else predictor.model.double()  # mps has no float64
        if rate and trained and rate != trained:
            model = model.at_resolution(rate / trained)
        streamed = stream(model, tol=self.tol)
        if self.certificate:
            sys.stderr.write(f"{streamed.certificate}\n")
        count, state, last = 0, None, None
        for samples in chunks:
            if not np.isfinite(samples).all():
                raise ValueError(f"sample {count + 1} or one soon behind it is not finite; a stream takes no gaps.")
            x = torch.from_numpy(samples.T[None].copy()).to(model.head.readout.weight.dtype).to(device)
            outputs, state = streamed.prefill(x, state)
            last = outputs[0, :, -1:]
            chosen = range(-(count + 1) % self.every, len(samples), self.every)
            self._show(predictor, outputs[0, :, list(chosen)], [count + 1 + i for i in chosen])
            count += len(samples)
        if last is None:
            raise ValueError(f"{self.source or 'standard input'} holds no samples.")
        if count % self.every:
            self._show(predictor, last, [count])

    def _show(self, predictor: Predictor, outputs: Tensor, counts: list[int]) -> None:
        """The rows of outputs (out_features, samples)."""
        if not counts:
            return
        rows = outputs.T.cpu()
        told = [[str(count), str(label)] for count, label in zip(counts, predictor.task.predictions(rows), strict=True)]
        if isinstance(predictor.task, Classification):
            for row, shares in zip(told, predictor.task.probabilities(rows), strict=True):
                row += [f"{share:.6f}" for share in shares]
        print("\n".join(",".join(row) for row in told), flush=True)


def opened(source: Path | None) -> tuple[Iterator[Chunk], float | None]:
    """The samples in the order in which they come, some at a time, and their rate where it is known."""
    if source is None:
        stdin: Any = sys.stdin.buffer  # one that looks ahead
        return heard(stdin) if stdin.peek(4)[:4] == b"RIFF" else (lines(stdin, "standard input"), None)
    if source.suffix.lower() in (".txt", ".csv", ".tsv", ""):
        return lines(source.open("rb"), str(source)), None
    return recorded(source)


def recorded(source: Path) -> tuple[Iterator[Chunk], float]:
    """The samples of a file of sound, and their rate; raises for what soundfile cannot read, also farther on."""
    soundfile: Any = require("soundfile", extra="data", purpose="reading sound")

    def refused(error: Exception) -> ValueError:
        reason = getattr(error, "error_string", str(error))
        return ValueError(
            f"{source} is no sound that can be read: {reason} Give WAV, FLAC, OGG or MP3, or numbers in .txt, .csv or "
            ".tsv."
        )

    def blocks() -> Iterator[Chunk]:
        try:
            yield from (np.asarray(block) for block in soundfile.blocks(source, FRAMES, always_2d=True))
        except soundfile.SoundFileError as error:
            raise refused(error) from error

    with source.open("rb"):
        pass  # the system says best why a file cannot be opened
    try:
        rate = float(soundfile.info(source).samplerate)
    except soundfile.SoundFileError as error:
        raise refused(error) from error
    return blocks(), rate


def lines(stream: IO[bytes], name: str) -> Iterator[Chunk]:
    """A sample from every line that is not empty."""
    with io.TextIOWrapper(stream, encoding="utf-8") as text:
        for number, line in enumerate(text, 1):
            words = line.replace(",", " ").split()
            if not words:
                continue
            try:
                yield np.array([[float(word) for word in words]])
            except ValueError:
                raise ValueError(
                    f"{name}, line {number}: expected numbers, one per channel; got {line.strip()!r}."
                ) from None


def heard(stream: IO[bytes]) -> tuple[Iterator[Chunk], float]:
    """The samples of WAV that comes through a pipe, and their rate; whole numbers of 16 or 32 bits are in [-1, 1)."""
    try:
        sound = wave.open(stream)  # noqa: SIM115, it is read as long as there is something
    except (wave.Error, EOFError) as error:
        raise ValueError(
            f"standard input is no WAV of whole numbers: {str(error) or 'it ends early'}. Give a file."
        ) from error
    width, channels = sound.getsampwidth(), sound.getnchannels()
    if width not in (2, 4):
        raise ValueError(f"WAV on standard input must have samples of 16 or 32 bits; got {8 * width}. Give a file.")

    def blocks() -> Iterator[Chunk]:
        while data := sound.readframes(FRAMES):
            whole = len(data) - len(data) % (width * channels)  # of a stream that was cut off
            yield np.frombuffer(data[:whole], f"<i{width}").reshape(-1, channels) / 2.0 ** (8 * width - 1)

    return blocks(), float(sound.getframerate())
