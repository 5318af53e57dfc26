"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from omniconv._errors import check_integer, check_number, describe, require
from omniconv._typing import Signal
from omniconv.nn import refresh
from omniconv.training.optimizer import build_optimizer, warmup_cosine


def train_classifier(
    model: nn.Module,
    inputs: Signal,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int = 64,
    lr: float = 0.01,
    weight_decay: float = 0.0,
    label_smoothing: float = 0.0,
    clip: float = 1.0,
    seed: int = 0,
    report: Callable[[int, int, float], None] | None = None,
) -> list[float]:
    """Train `model` in place to give `labels` (n,), integers, for `inputs` (n, channels, *size); losses of every step.

    AdamW by parameter tags, warm-up over a tenth of the steps, cosine to zero, gradients clipped to norm `clip`. The
    learned supports are read anew after every step. `seed` orders the batches; drop-out draws from the global
    generator. `report(step, steps, loss)` is called after every step.

    Device, precision and processes are those of Hugging Face accelerate's configuration. Raises `ValueError` for
    inputs and labels of different counts, and for a loss that is not finite; `TypeError` for
    labels that are not integers.
    """
    accelerate: Any = require("accelerate", extra="train", purpose="training")
    check_counts(inputs, labels)
    check_integer("epochs", epochs)
    check_number("clip", clip, low=0.0)
    check_number("label_smoothing", label_smoothing, low=0.0, high=1.0, closed=True)
    check_labels(labels)
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(inputs, labels), batch_size, shuffle=True, generator=order)
    steps = epochs * len(loader)
    optimizer = build_optimizer(model, lr=lr, weight_decay=weight_decay)
    schedule = warmup_cosine(optimizer, steps=steps, warmup=math.ceil(steps / 10) if steps > 1 else 0)
    accelerator = accelerate.Accelerator()
    module, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    losses: list[float] = []
    module.train()
    for _ in range(epochs):
        for x, y in loader:
            loss = F.cross_entropy(module(x), y, label_smoothing=label_smoothing)
            if not torch.isfinite(loss):
                raise ValueError(f"the loss is {loss.item()} at step {len(losses)}, for inputs {describe(x)}.")
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(module.parameters(), clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            refresh(model)
            losses.append(loss.item())
            if report is not None:
                report(len(losses), steps, losses[-1])
    return losses


@torch.inference_mode()
def accuracy(model: nn.Module, inputs: Signal, labels: Tensor, *, batch_size: int = 256) -> float:
    """Share of samples (n, channels, *size) whose largest output is their label (n,); the model keeps its mode.

    Raises `ValueError` for inputs and labels of different counts, or none.
    """
    check_counts(inputs, labels)
    device = next((parameter.device for parameter in model.parameters()), inputs.device)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        correct = sum(
            int((model(x.to(device)).argmax(1) == y.to(device)).sum())
            for x, y in zip(inputs.split(batch_size), labels.split(batch_size), strict=True)
        )
    finally:
        for module in training:  # one by one: a view of a model has a mode of its own, its layers are the model's
            module.training = True
    return correct / len(labels)


def check_labels(labels: Tensor) -> None:
    """Raise unless labels are one axis of 64-bit integers, none negative."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise TypeError(f"`labels` must be an int64 tensor of shape (n,); got {describe(labels)}. Try `.long()`.")
    if int(labels.min()) < 0:
        raise ValueError(f"`labels` must be 0 or more; got {int(labels.min())}.")


def check_counts(inputs: Tensor, labels: Tensor) -> None:
    """Raise `ValueError` unless there is a label for every input, and at least one."""
    if len(inputs) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"`inputs` and `labels` must have one entry per sample, at least one; got {len(inputs)} and {len(labels)}."
        )
