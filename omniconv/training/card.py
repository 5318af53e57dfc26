"""Model cards: what a saved network is, as Markdown that hubs and people read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omniconv._references import cite
from omniconv.models import Network
from omniconv.training.tasks import Classification, Task

TEMPLATE = """---
library_name: omniconv
tags:
- omniconv
- {task}
---

# {title}

{kind} by a continuous convolutional network with {parameters:,} parameters, for {takes}. {targets}

## Data and training

{facts}

## Use

```python
from omniconv.training import Predictor

predictor = Predictor.load("path/to/this/folder")
predictor.predict(samples)  # omniconv.data.read(path), or omniconv.data.{samples}
```

## Citation

```bibtex
{citation}
```
"""


def model_card(model: Network, task: Task, about: Mapping[str, Any]) -> str:
    """The card of a network. `about`: facts by name, tables of figures as nested mappings."""
    rows = [f"| {label(name)} | {shown(value)} |" for name, value in about.items() if name != "title"]
    return TEMPLATE.format(
        task=f"{task.name}",
        title=about.get("title", f"{type(model).__name__} for {task.name}"),
        kind=task.name.capitalize(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        takes=taken(model, about),
        samples="CloudSamples(positions, features)" if about.get("space") else "ArraySamples(array)",
        targets=targets(task),
        facts="\n".join(["| | |", "|---|---|", *rows]) if rows else "Nothing was recorded.",
        citation=cite(model),
    )


def taken(model: Network, about: Mapping[str, Any]) -> str:
    """What signals the network takes, in words."""
    if about.get("space"):
        features = "no features" if about.get("bare_points") else f"{model.in_channels} feature(s)"
        return f"clouds of points in {about['space']} axis or axes, with {features}"
    size = " x ".join(map(str, model.grid.size))
    axes = f"{model.grid.dim} axis or axes"
    return f"signals with {model.in_channels} channel(s) and\n{axes}, sampled as on a grid of {size}"


def targets(task: Task) -> str:
    """What is predicted, as a sentence."""
    if isinstance(task, Classification):
        return f"Classes: {', '.join(str(label) for label in task.classes)}."
    return "It predicts one number."


def label(name: str) -> str:
    """A name as people read it."""
    return name.replace("_", " ")


def shown(value: Any) -> str:
    """A value as people read it; a mapping on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{label(name)} {shown(item)}" for name, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
