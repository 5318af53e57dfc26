"""`omniconv evaluate` and `omniconv predict`: a trained network on other data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from omniconv._errors import SampleError, require
from omniconv._files import write_whole
from omniconv.cli._output import check_file, console, facts
from omniconv.data import Samples, has_split, read, without_gaps
from omniconv.data.missing import GapError
from omniconv.training import Predictor

Model = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Data = Annotated[str, tyro.conf.Positional]
Split = Literal["auto", "train", "valid", "test"]


@dataclass(frozen=True)
class Evaluate:
    """Print how good a trained network is on labelled signals."""

    model: Model
    """Folder of a run or of a saved network."""

    data: Data
    """Any source of signals that `omniconv fit` understands."""

    split: Split = "auto"
    """Part of the data; auto takes test where there is one, else all of it."""

    target: str | None = None
    """Column or array that holds the targets, where the file has names."""

    corrupt: Literal["raise", "skip"] = "raise"
    """What becomes of files in a folder that cannot be read."""

    device: str = "auto"
    """Where to compute."""

    json: Path | None = None
    """Also write the figures to this file."""

    def run(self) -> None:
        """Evaluate, print, write."""
        if self.json is not None:
            check_file("--json", self.json)
        predictor = Predictor.load(self.model, device=self.device)
        samples = load(predictor, self.data, self.split, self.target, self.corrupt)
        with gaps_settled():
            figures = predictor.evaluate(samples, progress=True)
        console().print(facts(f"{self.model} on {len(samples):,} samples of {self.data}", figures))
        if self.json is not None:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.json, (json.dumps({"samples": len(samples), **figures}, indent=2) + "\n").encode())


@dataclass(frozen=True)
class Predict:
    """Write what a trained network predicts for signals, with or without labels."""

    model: Model
    """Folder of a run or of a saved network."""

    data: Data
    """Any source of signals that `omniconv fit` understands."""

    out: Path
    """File for the predictions, .csv or .npz, a row per sample."""

    probabilities: bool = False
    """Whether to write the probability of every class too."""

    split: Split = "auto"
    """Part of the data; auto takes test where there is one, else all of it."""

    target: str | None = None
    """Column or array that holds the targets, where the file has names: it is no signal."""

    corrupt: Literal["raise", "skip"] = "raise"
    """What becomes of files in a folder that cannot be read."""

    device: str = "auto"
    """Where to compute."""

    def run(self) -> None:
        """Predict and write."""
        if self.out.suffix not in (".csv", ".npz"):
            raise ValueError(f"`--out` must end in .csv or .npz; got {self.out}.")
        check_file("--out", self.out)
        predictor = Predictor.load(self.model, device=self.device)
        if self.probabilities:
            _ = predictor.classification  # raises before the work rather than after it
        samples = load(predictor, self.data, self.split, self.target, self.corrupt)
        with gaps_settled():
            outputs = predictor.outputs(samples, progress=True)
        columns: dict[str, Any] = {"name": np.asarray(samples.names), "prediction": predictor.task.predictions(outputs)}
        if self.probabilities:
            shares = predictor.classification.probabilities(outputs)
            columns |= {f"p_{label}": shares[:, i] for i, label in enumerate(predictor.classification.classes)}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        if self.out.suffix == ".csv":
            pandas: Any = require("pandas", extra="data", purpose="writing CSV files")
            pandas.DataFrame(columns).to_csv(self.out, index=False)
        else:
            np.savez(self.out, **columns)
        console().print(f"{len(samples):,} predictions are in [bold]{self.out}[/].")


def load(predictor: Predictor, data: str, split: Split, target: str | None, corrupt: str) -> Samples:
    """The samples to compute, NaN taken as in the training."""
    part = ("test" if has_split(data, "test") else "train") if split == "auto" else split
    samples = without_gaps(
        read(data, split=part, target=target, corrupt=corrupt), predictor.about.get("missing", "raise")
    )
    predictor.check(samples)
    return samples


@contextmanager
def gaps_settled() -> Iterator[None]:
    """While entered, says of NaN that nothing means what can be done here: it is no option of these commands."""
    try:
        yield
    except (GapError, SampleError) as error:
        found = error if isinstance(error, GapError) else error.__cause__  # a reader names the sample besides
        if not isinstance(found, GapError):
            raise
        raise ValueError(
            f"{found.gap}. What that means is settled in the training: fit with `omniconv fit --missing interpolate`, "
            "mean or absent; or repair it."
        ) from error
