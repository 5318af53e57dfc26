"""The record of a training, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omniconv._errors import require
from omniconv.plots._kernels import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curves(record: Sequence[Mapping[str, float]]) -> Figure:
    """Figure of a training: the loss of every step, and of the validation samples where there are any.

    `record`: rows with `step` and `loss`, as `train` returns them and log.jsonl keeps them; the other columns that
    begin with `validation_` are drawn on an axis of their own. Raises `ValueError` for an empty record.
    """
    if not record:
        raise ValueError("`record` must have at least one row; got none.")
    matplotlib: Any = require("matplotlib.figure", extra="plots", purpose="figures")
    scores = sorted({name for row in record for name in row if name.startswith("validation_")} - {"validation_loss"})
    figure: Figure = matplotlib.Figure(figsize=(8.0, 3.0 + 2.5 * bool(scores)), layout="constrained")
    axes = figure.subplots(1 + bool(scores), 1, sharex=True, squeeze=False)[:, 0]
    line(axes[0], record, "loss", PALETTE[0], alpha=0.5)
    line(axes[0], record, "validation_loss", PALETTE[1], marker="o")
    axes[0].set(ylabel="loss", yscale="log" if min(row["loss"] for row in record) > 0 else "linear")
    for name, color in zip(scores, PALETTE, strict=False):
        line(axes[-1], record, name, color, marker="o")
    axes[-1].set_xlabel("step")
    for axis in axes:
        axis.legend()
    return figure


def line(axes: Any, record: Sequence[Mapping[str, float]], name: str, color: str, **style: Any) -> None:
    """The values of that name, where rows have one."""
    points = [(row["step"], row[name]) for row in record if name in row]
    if points:
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=color, label=name.replace("_", " "), markersize=3, linewidth=1, **style)
