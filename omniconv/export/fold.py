"""Several convolutions that are summed, as one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omniconv._errors import describe
from omniconv._typing import Taps
from omniconv.kernels import Table
from omniconv.nn import BatchNorm, Branched, Conv
from omniconv.nn._recurrent import engine_of_taps
from omniconv.supports import Full


@torch.no_grad()
def fold(branched: Branched) -> Conv:
    """One convolution that computes what `branched` does in evaluation mode, with all its kernels as one table of taps.

    sum_i (s_i (k_i * x + b_i) + t_i) = (sum_i s_i k_i) * x + sum_i (s_i b_i + t_i), with the running statistics in
    s_i = weight / sqrt(variance + eps) and t_i = bias - s_i mean: exact up to rounding, because taps at equal lags add
    up. It reaches as far as the farthest of the windows, and has gain 1. Like any `Table` it is bound to the reference
    grid: on a finer one it interpolates its taps, and the continuous kernel is gone.

    Raises `TypeError` if `branched` is no `Branched`, `ValueError` if it is in training mode.

    >>> branched = Branched(Conv(3, 3, 64, mixing="depthwise"), [(5, 1), (3, 4)]).eval()
    >>> conv, x = fold(branched), torch.randn(2, 3, 64)
    >>> torch.allclose(conv(x), branched(x), atol=1e-5)
    True

    Ding et al. 2024 (UniRepLKNet).
    """
    if not isinstance(branched, Branched):
        raise TypeError(f"`branched` must be an omniconv.nn.Branched; got {describe(branched)}.")
    if branched.training:
        raise ValueError(
            "`branched` must be in evaluation mode: statistics that every batch has of its own cannot be folded. Call "
            "`branched.eval()` first."
        )
    convs: list[Conv] = list(branched.convs)  # type: ignore[arg-type]
    reach = tuple(max(windows) for windows in zip(*(conv.window for conv in convs), strict=True))
    taps, bias = torch.zeros(()), torch.zeros(())
    for index, conv in enumerate(convs):
        own, shift = padded(conv, reach), torch.zeros(()) if conv.bias is None else conv.bias
        if branched.norms:
            scale, offset = scale_and_shift(branched.norms[index])  # type: ignore[arg-type]
            own, shift = own * scale.reshape(-1, *[1] * (own.ndim - 1)), shift * scale + offset
        taps, bias = taps + own, bias + shift
    return with_taps(convs[0], reach, taps, bias)


def padded(conv: Conv, reach: tuple[int, ...]) -> Taps:
    """The taps of a convolution on the reference grid, with zeros as far as that reach."""
    widths: list[int] = []
    for far, window, past in zip(reach, conv.window, conv.causal, strict=True):
        widths = [0 if past else far - window, far - window, *widths]  # torch wants the last axis first
    return F.pad(conv.taps(), widths)


def scale_and_shift(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation mode as scale * y + shift, per channel."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    exact = torch.promote_types(norm.weight.dtype, torch.float32)
    scale = norm.weight.to(exact) * torch.rsqrt(norm.running_var.to(exact) + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def with_taps(like: Conv, reach: tuple[int, ...], taps: Taps, bias: Tensor) -> Conv:
    """A convolution on the same signals, in evaluation mode, with these taps and bias."""
    conv = Conv(
        like.in_channels,
        like.out_channels,
        like.grid.size,
        kernel=Table,
        support=Full,
        mixing=like.mixing,
        reach=reach,
        causal=like.causal,
        boundary=like.grid.boundary,
        engine=engine_of_taps(like.engine),
        device="meta",  # nothing is drawn, and no state of a generator changes
        dtype=like.gain.dtype,
    ).to_empty(device=like.gain.device)
    assert conv.bias is not None
    conv.gain.fill_(1.0)
    conv.bias.copy_(bias)
    conv.kernel.taps.copy_((taps.flatten(0, 1) if like.mixing == "dense" else taps).movedim(0, -1))  # type: ignore[operator]
    return conv.eval()
