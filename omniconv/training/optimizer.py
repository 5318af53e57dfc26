"""The optimiser: AdamW with the learning rates and decays that parameters ask for, warm-up and cosine."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from omniconv._errors import check_integer, check_number
from omniconv._tags import Tag, Tagged


def build_optimizer(model: nn.Module, *, lr: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `model`, grouped by their tags.

    A module that is `Tagged` states tags for its own parameters: a factor on `lr`, and whether `weight_decay` applies.
    Without a tag, matrices and larger tensors decay; vectors and scalars (biases, norms) do not.

    >>> groups = build_optimizer(nn.Linear(2, 3), lr=0.01, weight_decay=0.1).param_groups
    >>> sorted((group["lr"], group["weight_decay"], len(group["params"])) for group in groups)
    [(0.01, 0.0, 1), (0.01, 0.1, 1)]
    """
    check_number("lr", lr, low=0.0)
    check_number("weight_decay", weight_decay, low=0.0, closed=True)
    tags = {
        id(module.get_parameter(name)): tag
        for module in model.modules()
        if isinstance(module, Tagged)
        for name, tag in module.parameter_tags().items()
    }
    groups: defaultdict[Tag, list[nn.Parameter]] = defaultdict(list)
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[tags.get(id(parameter), Tag(decay=parameter.ndim > 1))].append(parameter)
    if not groups:
        raise ValueError("`model` has no parameter that requires a gradient; there is nothing to train.")
    return torch.optim.AdamW(
        [
            {"params": members, "lr": lr * tag.lr_scale, "weight_decay": weight_decay if tag.decay else 0.0}
            for tag, members in groups.items()
        ]
    )


def warmup_cosine(optimizer: torch.optim.Optimizer, *, steps: int, warmup: int = 0) -> LambdaLR:
    """A schedule over `steps` steps: linear growth over the first `warmup`, then half a cosine down to zero.

    The factor is a pure function of the step, so that a resumed run continues exactly.
    """
    check_integer("steps", steps)
    check_integer("warmup", warmup, minimum=0)
    if warmup >= steps:
        raise ValueError(f"`warmup` (={warmup}) must be below `steps` (={steps}).")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    return LambdaLR(optimizer, factor)
