"""The one function of this folder that users call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor

from omniconv._errors import check_floating_tensor, describe
from omniconv._typing import PerAxis, Signal, Taps
from omniconv.engines._gated import gated_convolution
from omniconv.engines._operator import check_reverse_mode, convolution, convolution_plan, plain
from omniconv.engines._plan import remembered_call
from omniconv.engines._problem import directions, is_plain
from omniconv.engines._select import check_engine_name


def convolve(
    x: Signal,
    taps: Taps,
    *,
    causal: PerAxis[bool] = False,
    boundary: PerAxis[str] = "zero",
    engine: str = "auto",
    pre_gate: Signal | None = None,
    post_gate: Signal | None = None,
    skip: Annotated[Tensor, "channels"] | None = None,
) -> Signal:
    """Convolution of signals with taps, of the signals' size: y[t] = sum_s taps[s] x[t + origin - s].

    `x`: (batch, channels, *size), one to three axes.
    `taps`: (channels, *kernel) for a kernel per channel, or (out, in, *kernel) to mix channels. Any size, even or odd,
    shorter or longer than the signal. The zero lag is `taps[0]` on a causal axis, else `taps[K // 2]`.
    `causal`: whether the kernel looks at the past only, one or one per axis.
    `boundary`: "zero" (silence beyond the edges) or "circular" (periodic), one or one per axis.
    `engine`: "auto" takes the fastest by prediction; a name takes that engine or raises.
    `pre_gate`, `post_gate`, `skip`: y = post_gate * (C(pre_gate * x) + skip * pre_gate * x). Gates have the shape and
    dtype of the signal that they multiply; the skip, one number per channel, needs a kernel per channel. Some engines
    for graphics processors do all of it in one pass.

    Returns a tensor of the dtype of `x`. This is a convolution: it reverses the taps against
    `torch.nn.functional.conv1d`, which correlates. Raises `TypeError` for tensors of integers or of differing dtypes,
    `ValueError` for shapes that do not fit, a causal circular axis, or an engine that cannot run the problem.

    >>> import torch
    >>> x = torch.tensor([[[1.0, 0.0, 0.0, 2.0]]])
    >>> convolve(x, torch.tensor([[1.0, 2.0, 3.0]]), causal=True, engine="direct").tolist()
    [[[1.0, 2.0, 3.0, 2.0]]]
    """
    alone = pre_gate is None and post_gate is None and skip is None
    if alone and plain(x, taps) and is_plain(causal, bool) and is_plain(boundary, str) and type(engine) is str:
        plan = remembered_call(
            x.shape, taps.shape, x.dtype, taps.dtype, x.device, taps.device, causal, boundary, engine
        )
        return convolution_plan(x, taps, plan)
    check_engine_name(engine)
    check_reverse_mode(x, taps, pre_gate, post_gate, skip)
    past, edges = directions(x, taps, causal, boundary)
    circular = tuple([edge == "circular" for edge in edges])
    if skip is not None:
        taps = with_skip(taps, skip, x, past)
    if pre_gate is None and post_gate is None:
        return convolution(x, taps, past, circular, engine)
    check_gate("pre_gate", pre_gate, x, x.shape)
    check_gate("post_gate", post_gate, x, (x.shape[0], taps.shape[0], *x.shape[2:]))
    return gated_convolution(x, taps, pre_gate, post_gate, past, circular, engine)


def with_skip(taps: Taps, skip: Any, x: Signal, causal: tuple[bool, ...]) -> Taps:
    """The taps with `skip` added at the zero lag: a connection past the convolution is one of its taps."""
    if taps.ndim == x.ndim:
        raise ValueError(
            f"`skip` needs a kernel per channel; `taps` of shape {tuple(taps.shape)} mix channels. Add the skip to the "
            "result."
        )
    check_floating_tensor("skip", skip)
    if skip.shape != taps.shape[:1] or skip.device != taps.device:
        raise ValueError(
            f"`skip` must have one number for each of {taps.shape[0]} channels, on {taps.device}; got {describe(skip)} "
            f"on {skip.device}."
        )
    skip = skip.to(taps.dtype).reshape(-1, *[1] * len(causal))
    padding = []
    for k, past in zip(reversed(taps.shape[1:]), reversed(causal), strict=True):
        origin = 0 if past else k // 2
        padding += [origin, k - 1 - origin]
    return taps + F.pad(skip, padding)


def check_gate(name: str, gate: Any, x: Signal, shape: Sequence[int]) -> None:
    """Raise unless the gate is None or fits the signal."""
    if gate is None:
        return
    check_floating_tensor(name, gate)
    if tuple(gate.shape) != tuple(shape) or gate.dtype != x.dtype or gate.device != x.device:
        raise ValueError(
            f"`{name}` must have the shape {tuple(shape)}, dtype {x.dtype} and device {x.device} of the signal that it "
            f"multiplies; got {describe(gate)} on {gate.device}."
        )
