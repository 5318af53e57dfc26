"""How large the models are, and what they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sizes:
    """Of the models and of what they are asked for."""

    width: int = 2048
    head: int = 128
    kv_heads: int = 4
    """Of the Transformer whose queries share them."""
    vocabulary: int = 50264
    transformer: tuple[int, int] = (24, 8192)
    """Layers, and the width inside their perceptrons."""
    hyena: tuple[int, int] = (36, 4096)
    modes: int = 8
    workloads: tuple[tuple[int, int], ...] = ((512, 256), (2048, 256), (8192, 1024))
    """Tokens of the prompt, tokens generated."""
    largest: int = 16384
    """Batch."""
    equal: tuple[int, ...] = (1, 16, 64, 256, 1024)
    """Batches of which the page has the tokens per second."""
    remembered: tuple[int, ...] = (0, 1024, 2048, 4096, 8192)
    """Tokens generated after which memory is measured."""
    remembering: int = 16
    """Signals of which memory is measured."""
    prefilled: int = 16384
    """Tokens of the prompts that are read at a time."""
    copied: int | None = None
    """Numbers whose copy measures the bandwidth; None for as many as no cache holds."""
    dtype: torch.dtype = torch.bfloat16


SIZES = {
    "full": Sizes(),
    "small": Sizes(
        width=32,
        head=8,
        kv_heads=2,
        vocabulary=64,
        transformer=(2, 64),
        hyena=(2, 48),
        workloads=((20, 4), (300, 8)),
        largest=2,
        equal=(1, 2),
        remembered=(0, 8, 64),
        remembering=2,
        prefilled=64,
        copied=2**16,
    ),
}
"""full: 1.3 billion parameters, for a graphics processor. small: tiny models, that run anywhere."""
