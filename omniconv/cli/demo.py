"""`omniconv demo`: one network on four views of the same digits."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from omniconv import plots
from omniconv._errors import require
from omniconv.data import View, load_digits
from omniconv.models import CCNN
from omniconv.training import Classification, Recipe, accuracy, train
from omniconv.training.evaluation import outputs_of


@dataclass(frozen=True)
class Demo:
    """Train one network configuration on the same digits as sequences, images, volumes and clouds of points."""

    out: Path = Path("demo")
    """Folder for the figures, the models and the results."""

    epochs: int = 20
    """Passes over the training data, per view."""

    seed: int = 0
    """Seed of the split, the initial weights, the drop-out and the order of the batches."""

    def run(self) -> None:
        """Train, evaluate, print the table, write the folder."""
        console = require("rich.console", extra="cli", purpose="the demo").Console()
        require("matplotlib", extra="plots", purpose="the demo")  # now, rather than after the training
        self.out.mkdir(parents=True, exist_ok=True)
        digits = load_digits(seed=self.seed)
        n, held_out = len(digits.train_labels), len(digits.test_labels)
        console.print(f"Training one CCNN configuration on four views of {n} digits; {held_out} are held out.")
        rows, models = [], {}
        for view in digits.views:
            model, seconds = self._train(view, digits.train_labels)
            rows.append(evaluate(model, view, digits.test_labels, seconds))
            save_file(model.state_dict(), self.out / f"{view.name}.safetensors", metadata={"size": str(view.size)})
            plots.kernels(model).savefig(self.out / f"{view.name}_kernels.png")
            models[f"{view.name}, {by(view.size)}"] = model
        shown = dict(zip(models, digits.views, strict=True))
        signals = {title: view.test[0] for title, view in shown.items()}
        places = {title: view.test_positions[0] for title, view in shown.items() if view.test_positions is not None}
        plots.views(signals, models, positions=places).savefig(self.out / "views.png", dpi=120)
        (self.out / "results.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
        console.print(results_table(rows))
        console.print(f"Kernels, models and results are in [bold]{self.out}/[/]. Try next:")
        console.print("  omniconv explain --shape 8,110,1024 --kernel 1024 --causal  # which engine", soft_wrap=True)
        console.print("  oc.CCNN(1, 10, size=(28, 28))  # the same network on your images", soft_wrap=True)

    def _train(self, view: View, labels: Tensor) -> tuple[CCNN, float]:
        rich: Any = require("rich.progress", extra="cli", purpose="the demo")
        torch.manual_seed(self.seed)
        model = demo_model(view)
        start = time.perf_counter()
        columns = (*rich.Progress.get_default_columns(), rich.TextColumn("loss {task.fields[loss]:.3f}"))
        with rich.Progress(*columns) as progress:
            bar = progress.add_task(f"{view.name:8} {view.size}", total=None, loss=float("nan"))
            train(
                model,
                Classification(tuple(range(10))),
                view.samples(labels),
                recipe=Recipe(epochs=self.epochs, batch_size=64, weight_decay=0.0, seed=self.seed),
                report=lambda step, steps, loss: progress.update(bar, completed=step, total=steps, loss=loss),
            )
        return model.eval(), time.perf_counter() - start


def demo_model(view: View) -> CCNN:
    """The one configuration of the demo; the size and the direction of time are the data's."""
    return CCNN(1, 10, view.size, blocks=2, width=32, causal=view.causal, dropout=0.1)


@dataclass(frozen=True)
class Row:
    """One line of the demo's table; accuracies are shares of the held-out digits."""

    view: str
    size: tuple[int, ...]
    parameters: int
    accuracy: float
    half_resolution: float | None
    double_resolution: float | None
    seconds: float


def evaluate(model: CCNN, view: View, labels: Tensor, seconds: float) -> Row:
    """Accuracy as trained, and with the same weights at the other resolutions that the view comes in."""
    with warnings.catch_warnings():
        # Four pixels a side cannot carry kernels trained on eight: the accuracy in the table shows it.
        warnings.simplefilter("ignore", UserWarning)
        other = {
            factor: accuracy(model.at_resolution(factor), signals, labels) for factor, signals in view.resampled.items()
        }
    return Row(
        view.name,
        view.size,
        sum(parameter.numel() for parameter in model.parameters()),
        Classification(tuple(range(10))).score(outputs_of(model, view.samples(labels)), labels.numpy()),
        other.get(0.5),
        other.get(2.0),
        seconds,
    )


def results_table(rows: list[Row]) -> Any:
    """The rows as a table for the terminal."""
    table: Any = require("rich.table", extra="cli", purpose="the demo").Table(title="One CCNN, four views")
    for heading in ("view", "size", "parameters", "accuracy", "at half res.", "at double res.", "seconds"):
        table.add_column(heading, justify="left" if heading in ("view", "size") else "right")
    for row in rows:
        shares = (row.accuracy, row.half_resolution, row.double_resolution)
        table.add_row(
            row.view,
            by(row.size),
            f"{row.parameters:,}",
            *("-" if share is None else f"{share:.4f}" for share in shares),
            f"{row.seconds:.0f}",
        )
    return table


def by(size: tuple[int, ...]) -> str:
    """A size as people write it: 8x8x17."""
    return "x".join(map(str, size))
