"""What a network on a lattice makes of a cloud, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from omniconv._errors import require
from omniconv._typing import Signal
from omniconv.domains import lattice
from omniconv.models import GriddedNet
from omniconv.plots._views import draw_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BUSY = 0.6
"""Of a lattice in three axes, nodes up to this quantile are not drawn: they would hide the others."""


@torch.no_grad()
def gridded(model: GriddedNet, x: Signal, positions: Tensor) -> Figure:
    """Figure of one cloud, of the lattice it is carried to, of every stage, and of what comes back to the points.

    `model`: evaluated; it keeps its mode. `x`: `channels points`, `positions`: (points, dim). Points show their first
    feature, and later as nodes do the norm of their channels, with that of the middle node or point taken off.
    Raises `ValueError` as the model does, `ImportError` without matplotlib.

    >>> model = GriddedNet(1, 2, 5, dim=2, stages=2, width=4, blocks=1)
    >>> len(gridded(model, torch.rand(1, 30), 2 * torch.rand(30, 2) - 1).axes)
    5
    """
    module = require("matplotlib.figure", extra="plots", purpose="plotting clouds")
    found: list[tuple[str, Tensor]] = []
    last = "back at the points"
    names = {model.gridify: "on the lattice", model.norm: last}
    names |= {stage: f"after stage {number}" for number, stage in enumerate(model.stages, 1)}

    def keep(part: nn.Module, arguments: Any, output: Tensor) -> None:
        found.append((names[part], output[0].cpu().float()))

    hooks, modes = [part.register_forward_hook(keep) for part in names], [(m, m.training) for m in model.modules()]
    try:
        model.eval()(x[None], positions[None])
    finally:
        for part, training in modes:  # one by one: parts may have modes of their own
            part.training = training
        for hook in hooks:
            hook.remove()
    figure: Figure = module.Figure(figsize=(3.2 * (1 + len(found)), 3.4), layout="constrained")
    projection = "3d" if positions.shape[1] == 3 else None
    panels = [
        figure.add_subplot(1, 1 + len(found), 1 + number, projection=projection) for number in range(len(names) + 1)
    ]
    draw_points(panels[0], positions.cpu(), x[0].cpu())
    panels[0].set_title(f"{positions.shape[0]} points", fontsize=9)
    for axes, (name, features) in zip(panels[1:], found, strict=True):
        flat = features.flatten(1)
        strength = (flat - flat.median(1, keepdim=True).values).norm(dim=0)
        places, title = positions.cpu(), name
        if name != last:
            size = features.shape[1:]
            places, title = lattice(size).flatten(0, -2), f"{name}, {'x'.join(map(str, size))}"
            if len(size) == 3:
                drawn = strength > strength.quantile(BUSY)
                places, strength = places[drawn], strength[drawn]
        draw_points(axes, places, strength)
        axes.set_title(title, fontsize=9)
    return figure
