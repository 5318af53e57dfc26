"""Steps that memory does not suffice for."""

from __future__ import annotations

import torch

ALLOCATORS = ("can't allocate memory", "not enough memory")
"""How torch's allocators of the main memory say so, on Linux and on Windows: by errors of no kind of their own."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on an accelerator or not."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATORS)


def smaller_step(samples: int, size: tuple[int, ...], *, batch_size: int, accumulate: int, fewest: int) -> str:
    """What a step computes at once, and what to change: about half as much at once, of the same batch or of half of it.

    `samples`, `size`: of the largest part of the step, in this process. `fewest`: samples of this process in a batch of
    the training, which are as many as there may be parts.
    """
    told = f"a part has {samples} sample{'s' if samples > 1 else ''} of size {' x '.join(map(str, size))}."
    if samples == 1:
        return f"{told} Take a smaller network or shorter signals."
    smaller = f"`batch_size={max(batch_size // 2, 1)}`"
    parts = min(2 * accumulate, fewest)
    if parts <= accumulate:
        return f"{told} Take {smaller}."
    return (
        f"{told} Take `accumulate={parts}`, which computes the same batch in more parts, with the same gradient (but "
        f"normalisation is per part), or {smaller}."
    )
