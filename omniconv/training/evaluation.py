"""Outputs of a network for samples of any sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import NonFiniteError, check_instance, check_integer
from omniconv._typing import Signal
from omniconv.data import Samples
from omniconv.models import Network
from omniconv.training.batches import evaluation_batches
from omniconv.training.loading import RETRIES, loader
from omniconv.training.progress import Progress, Silent

AS_SAMPLES = "Wrap arrays in ArraySamples, or read files with read."
"""What to do with something else."""


@torch.no_grad()
def outputs_of(
    model: nn.Module,
    samples: Samples,
    *,
    batch_size: int = 64,
    workers: int = 0,
    forward: Callable[..., Any] | None = None,
    progress: Progress | None = None,
    read_retries: int = RETRIES,
) -> Tensor:
    """What `model` makes of every sample, (n, out_features), on the model's device, in the order of the samples.

    Samples of similar size are computed together, padded and masked, or by a network that takes no mask those of one
    size alone; a sample's outputs do not depend on its company.
    Raises `NonFiniteError` that names the first sample whose outputs are not finite, `SampleError` that names one that
    cannot be read, after `read_retries` more tries where a disk or a worker fails.
    `forward`: what to call instead of the model, such as what wraps it on several processes. The model keeps its mode.
    """
    check_instance("model", model, nn.Module)
    check_instance("samples", samples, Samples, remedy=AS_SAMPLES)
    check_integer("batch_size", batch_size)
    check_integer("workers", workers, minimum=0)
    check_integer("read_retries", read_retries, minimum=0)
    batches = evaluation_batches(samples, batch_size, alike=isinstance(model, Network) and not model.takes_masks)
    like = next(model.parameters(), torch.zeros(()))
    device, dtype = like.device, torch.promote_types(like.dtype, torch.float32)
    compute = model if forward is None else forward
    parts, order = [], []
    with (
        evaluating(model),
        progress or Silent() as shown,
        closing(loader(samples, batches, workers, retries=read_retries)) as loaded,
    ):
        for number, batch in enumerate(loaded, 1):
            moved = batch.to(device)
            if moved.positions is not None:  # as exactly as the signals, for sums over clouds that are padded
                moved = moved._replace(positions=moved.positions.to(dtype))
            outputs = compute(moved.signals.to(dtype), **moved.options)
            parts.append(outputs.to(dtype))
            order.append(batch.indices)
            shown.update(number, len(batches), len(batch.indices), None, "")
    outputs = torch.cat(parts)[torch.cat(order).argsort().to(device)]
    bad = (~outputs.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        raise NonFiniteError(
            f"the outputs for {len(bad)} of {len(samples)} samples are not finite, first for {samples.names[bad[0]]}. "
            "Its signal may hold NaN, infinity or values beyond what the network was trained on."
        )
    return outputs


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each of its layers is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:  # one by one: a view of a model has a mode of its own, its layers are the model's
            module.training = True


def accuracy(model: nn.Module, inputs: Signal, labels: Tensor, *, batch_size: int = 256) -> float:
    """Share of samples (n, channels, *size) whose largest output is their label (n,); the model keeps its mode.

    Raises `ValueError` for inputs and labels of different counts, or none, and a `batch_size` below 1.
    """
    check_instance("model", model, nn.Module)
    check_integer("batch_size", batch_size)
    if len(inputs) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"`inputs` and `labels` must have one entry per sample, at least one; got {len(inputs)} and {len(labels)}."
        )
    device = next((parameter.device for parameter in model.parameters()), inputs.device)
    with torch.inference_mode(), evaluating(model):
        correct = sum(
            int((model(x.to(device)).argmax(1) == y.to(device)).sum())
            for x, y in zip(inputs.split(batch_size), labels.split(batch_size), strict=True)
        )
    return correct / len(labels)
