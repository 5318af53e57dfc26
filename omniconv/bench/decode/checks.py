"""What is looked at before anything is timed: fused steps beside plain ones, steps beside the whole sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from omniconv.bench.decode.hyena import DistilledHyena, MultiHyena
from omniconv.bench.decode.models import CONTESTANTS, Decoder
from omniconv.bench.decode.sizes import SIZES
from omniconv.engines._tensor_cores import refuse_machine
from omniconv.engines.decode import reference_gated_step, reference_multi_head_step

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Relative errors beyond which nothing is reported."""


class Check(NamedTuple):
    """A comparison: its relative error, NaN where a number is none, and the largest that may be."""

    name: str
    error: float
    limit: float


def disagreements(device: str, progress: Callable[[str], None]) -> list[str]:
    """What is wrong, as lines; `progress` is told every comparison."""
    wrong = []
    for name, error, limit in checks(device):
        progress(f"check {name}: {error:.1e}")
        if not error <= limit:
            wrong.append(f"{name}: {error:.1e}, above {limit:g}")
    return wrong


def checks(device: str) -> Iterator[Check]:
    """All of them, one after the other."""
    if fused_runs(device):
        yield check_cached_output(device)
        dtypes = torch.float32, torch.bfloat16
        for head_width, kept, dtype in product((1, 2, 8), dtypes, dtypes):
            yield check_step(head_width, kept, dtype, device)
    for name, make in CONTESTANTS.items():
        yield check_contestant(name, make(replace(SIZES["small"], dtype=torch.float32), device))


def fused_runs(device: str) -> bool:
    """Whether the kernels run: on a CPU in Triton's interpreter alone."""
    return device == "cuda" or refuse_machine(device) is None


def check_cached_output(device: str) -> Check:
    """The kernel of the cached Hyena beside the plain sum."""
    from omniconv.bench.decode.cached import fused_cached_output

    cache = torch.randn(200, 3, 70, device=device)
    taps = torch.randn(70, 200, device=device).T  # not row after row in memory
    expected = (cache[:150].double() * taps[:150].flip(0)[:, None].double()).sum(0)
    return Check("cached output", relative(fused_cached_output(cache, taps, 150), expected), TOLERANCE[torch.float32])


def check_step(head_width: int, kept: torch.dtype, dtype: torch.dtype, device: str) -> Check:
    """Two fused steps beside plain ones: outputs, and the states in the end."""
    from omniconv.engines.triton import decode

    sizes = replace(SIZES["full"], dtype=dtype) if device == "cuda" else replace(SIZES["small"], dtype=dtype, modes=2)
    mixer = (DistilledHyena if head_width == 1 else MultiHyena)(sizes, kept, device, head_width=head_width)
    plain = reference_gated_step if head_width == 1 else reference_multi_head_step
    fused = decode.gated_step if head_width == 1 else decode.multi_head_step
    given = mixer.parameters_of_step()
    state = mixer.init_state(33 if device == "cuda" else 3, 1)
    other = [memory.clone() for memory in state]
    errors = []
    for _ in range(2):
        projected = torch.randn_like(state[0][0])
        y = fused(projected, state[0], state[1], **given)
        errors.append(relative(y, plain(projected, other[0], other[1], **given)))
    name = f"{plain.__name__.removeprefix('reference_')}, heads of {head_width}, {dtype}, state {kept}"
    limit = TOLERANCE[torch.bfloat16 if torch.bfloat16 in (kept, dtype) else torch.float32]
    errors.append(relative(state[1], other[1]))
    return Check(name, torch.tensor(errors).max().item(), limit)  # NaN, if one is


def check_contestant(name: str, decoder: Decoder) -> Check:
    """The logits behind a prompt and steps beside those behind a longer prompt."""
    ids = decoder.random_ids(2, 13)
    taps = [mixer.taps(ids.shape[1]) for mixer in decoder.mixers]
    states = decoder.init_state(*ids.shape)
    decoder.prefill(ids[:, :9], states, [one if one is None else one[:, :9] for one in taps])
    for reach in range(10, 14):
        logits = decoder.step(ids[:, reach - 1], states, reach)
    whole = decoder.prefill(ids, decoder.init_state(*ids.shape), taps)
    limit = TOLERANCE[torch.bfloat16] if "bf16" in name else 10 * TOLERANCE[torch.float32]
    return Check(f"{name}, steps beside the whole sequence", relative(logits, whole), limit)


def relative(actual: Tensor, expected: Tensor) -> float:
    """|actual - expected| / |expected|, NaN if either has one."""
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()
