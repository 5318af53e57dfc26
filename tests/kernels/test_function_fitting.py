"""Kernel networks learn given long kernels, smooth and with jumps, as in CKConv (Romero et al. 2022)."""

from __future__ import annotations

import math
from functools import cache, partial

import pytest
import torch
from torch import Tensor

import omniconv as oc
from omniconv.kernels import MLP, SIREN, Gabor, KernelFactory

LENGTH = 200
KERNELS: dict[str, KernelFactory] = {
    "siren": partial(SIREN, weight_norm=True),
    "gabor": Gabor,
    "relu": partial(MLP, weight_norm=True),
}
BOUNDS = {
    ("siren", "gaussian"): 5e-4,
    ("siren", "step"): 1e-2,
    ("siren", "sawtooth"): 1e-2,
    ("gabor", "gaussian"): 5e-5,
    ("gabor", "step"): 1e-2,
    ("gabor", "sawtooth"): 0.1,
}
"""Share of the target's energy that may be left."""


def target(shape: str) -> Tensor:
    """The kernel to learn, without its mean, of unit energy."""
    t = torch.linspace(0, 1, LENGTH)
    shapes = {"gaussian": torch.exp(-0.5 * ((t - 0.5) / 0.05) ** 2), "step": (t >= 0.5).float(), "sawtooth": 5 * t % 1}
    centred = shapes[shape] - shapes[shape].mean()
    return centred / centred.norm()


@cache
def error_left(name: str, shape: str) -> float:
    """|taps - target|^2 of the first layer of a CKCNN after 500 steps, on average over two seeds."""
    errors, wanted = [], target(shape)
    for seed in range(2):
        torch.manual_seed(seed)
        model = oc.CKCNN(1, 1, LENGTH, blocks=1, width=1, kernel=KERNELS[name])
        layer = next(module for module in model.modules() if isinstance(module, oc.Conv))
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
        for _ in range(500):
            loss = (layer.taps()[0, 0] - wanted).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        errors.append(loss.item())
    return math.fsum(errors) / len(errors)


@pytest.mark.parametrize("shape", ["gaussian", "step", "sawtooth"])
@pytest.mark.parametrize("name", ["siren", "gabor"])
def test_sines_learn_a_long_kernel_and_better_than_relu(name: str, shape: str) -> None:
    assert error_left(name, shape) < BOUNDS[name, shape]
    assert error_left(name, shape) < error_left("relu", shape)
