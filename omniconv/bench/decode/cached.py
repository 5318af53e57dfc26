"""The output of the cached Hyena on a graphics processor, in the language of Triton. Imported only where it runs."""

from __future__ import annotations

from typing import Annotated

import torch
import triton
import triton.language as tl
from torch import Tensor


def fused_cached_output(
    cache: Annotated[Tensor, "length batch width"], taps: Annotated[Tensor, "length width"], reach: int
) -> Annotated[Tensor, "batch width"]:
    """`cached_output` by a kernel that reads the cache once, cut into parts that fill a processor."""
    _, batch, width = cache.shape
    taps = taps.contiguous()  # the kernel reads row after row; `CachedHyena` keeps them so
    signals, channels, samples = min(8, triton.next_power_of_2(batch)), 64, 4
    blocks = triton.cdiv(batch, signals) * triton.cdiv(width, channels)
    span = triton.cdiv(reach, max(1, min(triton.cdiv(reach, 64), 2048 // blocks)))
    parts = cache.new_empty(triton.cdiv(reach, span), batch, width, dtype=torch.float32)
    grid = (triton.cdiv(width, channels), triton.cdiv(batch, signals), len(parts))
    cached_kernel[grid](cache, taps, parts, batch, width, reach, span, signals, channels, samples)
    return parts[0] if len(parts) == 1 else parts.sum(0)


@triton.jit  # type: ignore[untyped-decorator]
def cached_kernel(  # type: ignore[no-untyped-def] # Triton's compiler reads annotations itself
    cache_ptr,
    taps_ptr,
    parts_ptr,
    batch,
    width,
    reach,
    span,
    SIGNALS: tl.constexpr,  # noqa: N803
    CHANNELS: tl.constexpr,  # noqa: N803
    SAMPLES: tl.constexpr,  # noqa: N803
):
    """A block of channels and of signals, over a part of the samples."""
    channels = (tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS))[None, None, :]
    signals = (tl.program_id(1) * SIGNALS + tl.arange(0, SIGNALS)).to(tl.int64)[None, :, None]
    known = channels < width
    first = tl.program_id(2) * span
    last = tl.minimum(first + span, reach)
    y = tl.zeros((SAMPLES, SIGNALS, CHANNELS), tl.float32)
    for start in range(first, last, SAMPLES):
        samples = start + tl.arange(0, SAMPLES)[:, None, None]
        there = (samples < last) & known
        at = (samples.to(tl.int64) * batch + signals) * width + channels
        u = tl.load(cache_ptr + at, mask=there & (signals < batch), other=0.0).to(tl.float32)
        taps = tl.load(taps_ptr + (reach - 1 - samples) * width + channels, mask=there, other=0.0)
        y += u * taps.to(tl.float32)
    at = (tl.program_id(2).to(tl.int64) * batch + signals) * width + channels
    tl.store(parts_ptr + at, tl.sum(y, axis=0)[None], mask=known & (signals < batch))
