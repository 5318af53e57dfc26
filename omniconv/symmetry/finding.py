"""Find the symmetries of a data set without labels: by how much the signals of each kind are turned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._errors import (
    NonFiniteError,
    check_floating_tensor,
    check_instance,
    check_integer,
    check_number,
    describe,
)
from omniconv._place import check_device
from omniconv._typing import Signal
from omniconv.groups import SO2
from omniconv.models.pose_autoencoder import PoseAutoencoder
from omniconv.symmetry._family import Family
from omniconv.symmetry.found import NEIGHBOURS, Symmetries, brought_down, check_finite

SHORTEST = 4
"""Samples along an axis at least."""

LAST_SEED = 2**63 - 1
"""Torch takes no larger one."""

FLAT = 1e-6
"""Deviation of a channel, as a share of its largest value, below which it shows nothing."""


def find_symmetries(
    x: Signal,
    *,
    family: Family | None = None,
    neighbours: int = NEIGHBOURS,
    epochs: int = 40,
    batch_size: int = 128,
    lr: float = 3e-3,
    centring: float = 0.6,
    resolution: int = 28,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
) -> Symmetries:
    """By how much images are turned, each beside others of its kind: found without labels.

    An autoencoder (`PoseAutoencoder`) learns an invariant code z(x), a pose R(x) and a canonical image c by
    minimising mean (R c(z(x)) - x)^2 + centring mean |R - 1|, in units of the signals' variance. The second term makes
    the canonical image of a kind the centre of its poses. Then the level of a signal is estimated from the poses of
    those nearest to it by the cosine of their codes.

    `x`: `batch channels *size`, two axes of at least 4 samples, at least 2 more signals than `neighbours`; finite.
    `family`: of the distributions of poses, such as `Uniform()`; None for that of `Uniform`, `Gaussian` and `Cyclic`
    which makes the poses most likely.
    `neighbours`: from which a level is estimated, at least 2. `epochs`, `batch_size` (at least 2), `lr`: of the
    training, by Adam with a rate that rises to `lr` and falls, and a momentum that does the opposite.
    `centring`: at least 0.
    `resolution`: samples along the longer axis to which larger signals are brought down to find poses, at least 4.
    `seed`: of the initialisation and the order of the signals; the state of torch's generator stays. `device`: of the
    training; what is found lies on the CPU.
    `progress(done, total, loss)`: called after every step.
    Raises `ValueError` or `TypeError` that names the argument; `NonFiniteError` if the training diverges.

    >>> import math
    >>> angles = (torch.rand(60, generator=torch.Generator().manual_seed(0)) - 0.5) * math.pi
    >>> grid = torch.linspace(-1, 1, 12)
    >>> row, column = grid[:, None], grid
    >>> x = torch.stack([torch.exp(-8 * (row - a.cos() / 2) ** 2 - 8 * (column - a.sin() / 2) ** 2) for a in angles])
    >>> found = find_symmetries(x[:, None], neighbours=20, epochs=2)
    >>> found.poses.shape
    torch.Size([60, 1])

    Urbano and Romero 2024.
    """
    check_integer("neighbours", neighbours, minimum=2)
    check_images(x, neighbours, check_integer("resolution", resolution, minimum=SHORTEST))
    check_device(device)
    if progress is not None and not callable(progress):
        raise TypeError(f"`progress` must be a function of (done, total, loss), or None; got {describe(progress)}.")
    if family is not None:
        check_instance("family", family, Family, remedy="Give one, such as Uniform(), or None for the likeliest.")
    check_integer("epochs", epochs)
    check_integer("batch_size", batch_size, minimum=2)
    if check_integer("seed", seed, minimum=0) > LAST_SEED:
        raise ValueError(f"`seed` must be at most {LAST_SEED}; got {seed}.")
    check_number("lr", lr, low=0.0)
    check_number("centring", centring, low=0.0, closed=True)
    with torch.inference_mode(False), torch.enable_grad(), drawn_with(seed):  # whatever the caller's mode
        small = brought_down(x.detach(), resolution).float().clone()
        model = PoseAutoencoder(x.shape[1], tuple(small.shape[2:]))  # drawn alike for every device
        standardize(model, small)
        how = {"epochs": epochs, "batch_size": batch_size}
        train(model.to(device), small.to(device), **how, lr=lr, centring=centring, progress=progress)
    found = Symmetries._of(model.eval().cpu(), small, neighbours, family)
    if not bool(found.codes.isfinite().all()):
        raise NonFiniteError("the last step made codes that are not finite. Give a smaller `lr`.")
    return found


def check_images(x: Any, neighbours: int, resolution: int) -> None:
    """Raise unless these are images, enough of them, and finite."""
    check_floating_tensor("x", x)
    if x.ndim != SO2.dim + 2 or x.shape[1] == 0:
        raise ValueError(f"`x` must be images (batch, channels, *size), of two axes; got {describe(x)}.")
    if min(x.shape[2:]) * min(resolution, max(x.shape[2:])) < SHORTEST * max(x.shape[2:]):
        raise ValueError(
            f"`x` must be images of at least {SHORTEST} samples a side, at the `resolution` of {resolution} too; got "
            f"{describe(x)}."
        )
    if len(x) < neighbours + 2:
        raise ValueError(
            f"`x` must hold at least {neighbours + 2} signals, 2 more than `neighbours`; got {len(x)}. Give fewer "
            "neighbours, or more signals."
        )
    check_finite(x)


@contextmanager
def drawn_with(seed: int) -> Iterator[None]:
    """Draw with this seed, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not those of other devices
        yield


def standardize(model: PoseAutoencoder, x: Signal) -> None:
    """Give the model the mean and deviation of each channel."""
    channels = x.transpose(0, 1).flatten(1).double()
    std = channels.std(1)
    flat = std <= FLAT * channels.abs().amax(1)
    if bool(flat.all()):
        raise ValueError("`x` must not be the same everywhere, in float32: there is nothing to see in it.")
    model.standardize.set(channels.mean(1).cpu(), torch.where(flat, 1.0, std).cpu())


def train(
    model: PoseAutoencoder,
    x: Signal,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    centring: float,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    """Minimise the loss over the signals, in an order drawn anew in every epoch; a last part of a batch is left out."""
    size = min(batch_size, len(x))
    steps = len(x) // size
    optimizer = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps)
    seen = disk(x)
    for epoch in range(epochs):
        order = torch.randperm(len(x)).to(x.device)
        for step in range(steps):
            optimizer.zero_grad()
            loss = loss_of(model, x[order[step * size : (step + 1) * size]], seen, centring)
            loss.backward()
            optimizer.step()
            schedule.step()
            if not bool(loss.isfinite()):
                raise NonFiniteError(f"the loss became {loss.item()} in epoch {epoch + 1}. Give a smaller `lr`.")
            if progress is not None:
                progress(epoch * steps + step + 1, epochs * steps, loss.item())


def loss_of(model: PoseAutoencoder, x: Signal, seen: Tensor, centring: float) -> Tensor:
    """mean (R c - x)^2 / variance where it is `seen`, plus centring mean |R - 1| over the entries of the rotations."""
    posed = model(x)
    scale = model.standardize.std[:, None, None]
    error = F.mse_loss(posed.reconstruction * seen / scale, x * seen / scale) / seen.mean()
    turned = model.lift.group.matrix(posed.pose) - torch.eye(2, device=x.device)
    return error + centring * turned.abs().mean()


def disk(x: Signal) -> Tensor:
    """1 in the disk that the grid holds, which stays when signals are turned, else 0."""
    axes = [torch.arange(n, device=x.device) - (n - 1) / 2 for n in x.shape[2:]]
    far = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).norm(dim=-1)
    return (far <= (min(x.shape[2:]) - 1) / 2).to(x.dtype)
