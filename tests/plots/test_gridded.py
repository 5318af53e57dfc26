"""The figure of a cloud on its lattice shows what the network computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omniconv import plots
from omniconv.models import GriddedNet

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_every_step_has_a_panel(dim: int) -> None:
    torch.manual_seed(0)
    model = GriddedNet(2, 3, 5, dim=dim, stages=2, width=4, blocks=1).train()
    model.norm.eval()
    positions = 2 * torch.rand(20, dim) - 1
    figure = plots.gridded(model, torch.randn(2, 20), positions)
    titles = [axes.get_title() for axes in figure.axes]
    sizes = ["x".join(["5"] * dim), "x".join(["3"] * dim)]
    assert titles == [
        "20 points",
        f"on the lattice, {sizes[0]}",
        f"after stage 1, {sizes[0]}",
        f"after stage 2, {sizes[1]}",
        "back at the points",
    ]
    assert model.training
    assert not model.norm.training
    assert not model.gridify._forward_hooks
    counts = [np.asarray(axes.collections[0].get_offsets()).shape[0] for axes in figure.axes]
    nodes = [5**dim, 5**dim, 3**dim]
    assert counts[0] == counts[-1] == 20
    assert all(0.35 * most <= count <= most for count, most in zip(counts[1:-1], nodes, strict=True))
    figure.canvas.draw()
