"""Where a number stopped being finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from omniconv.nn import BatchNorm, observed
from omniconv.training.batches import Batch


@torch.no_grad()
def first_bad_part(model: nn.Module, batch: Batch, names: Sequence[str]) -> str:
    """What is the first that is not finite: the signals, a parameter, or what a layer makes of finite inputs.

    `names`: of all samples.

    Buffers are not asked: running statistics have followed whatever the layer before them gave.
    """
    for row, (signal, index) in enumerate(zip(batch.signals, batch.indices.tolist(), strict=True)):
        seen = signal if batch.mask is None else signal[batch.mask[row].expand_as(signal)]
        if not seen.isfinite().all():
            return f"sample {names[index]} of the training data"
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the values of {name!r}"
    found: list[str] = []
    hooks = [
        module.register_forward_hook(note(name, found))
        for name, module in model.named_modules()
        if name  # children first: the innermost that is not finite is found first
    ]
    try:
        with alone(model):
            model(observed(batch.signals, batch.mask), **batch.options)  # what the mask hides may be anything
    finally:
        for hook in hooks:
            hook.remove()
    return f"the output of layer {found[0]!r}" if found else "the loss itself: every layer's output is finite"


@contextmanager
def alone(model: nn.Module) -> Iterator[None]:
    """No layer waits for other processes, which may have found what is wrong already."""
    waiting = [module for module in model.modules() if isinstance(module, BatchNorm) and module.synchronized]
    for module in waiting:
        module.synchronized = False
    try:
        yield
    finally:
        for module in waiting:
            module.synchronized = True


def note(name: str, found: list[str]) -> Callable[[nn.Module, Any, Any], None]:
    """A hook that notes the name of a layer whose output is not finite."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not output.isfinite().all():
            found.append(name)

    return hook


def first_bad_gradient(model: nn.Module) -> str:
    """The first parameter whose gradient is not finite."""
    bad = [
        name for name, value in model.named_parameters() if value.grad is not None and not value.grad.isfinite().all()
    ]
    return f"the gradient of {bad[0]!r}" if bad else "the norm of the gradients, which overflows"
