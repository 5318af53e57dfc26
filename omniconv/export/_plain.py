"""Operations of the framework alone, that stand for a layer of the library and are traced for every size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from omniconv._typing import Condition, PerAxis, Signal, Taps, per_axis
from omniconv.domains.grid import check_spacing
from omniconv.nn import Conv, Downsample
from omniconv.nn.causal import Filter, Part

PLAIN: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
PAD: dict[int, Any] = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d}


class PlainConv(nn.Module):
    """A `Conv` with the taps of one spacing: a `torch.nn.ConvNd` behind what continues the signal beyond its edges.

    `layer`: what it stands for. `spacing`, `lowpass`: as the layer was called, to which it holds.
    It is called as the layer is; raises `ValueError` where it is asked for another spacing, for anything off the grid,
    or for a condition.
    """

    def __init__(self, layer: Conv, spacing: PerAxis[float] | None, lowpass: bool):
        super().__init__()
        self.in_channels, self.out_channels, self.lowpass = layer.in_channels, layer.out_channels, lowpass
        self.spacing = spacings(spacing, layer.dim)
        taps = layer.taps(self.spacing, lowpass).detach()
        parts = around_and_zeros(layer, tuple(taps.shape[-layer.dim :]))
        dense = layer.mixing == "dense"
        conv = plain(taps if dense else taps[:, None], 1 if dense else layer.in_channels, (0,) * layer.dim)
        conv.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        self.convs = nn.Sequential(*parts, conv)
        self.mixer = layer.mixer

    def forward(
        self,
        x: Signal,
        spacing: PerAxis[float] | None = None,
        *,
        lowpass: bool = False,
        times: Any = None,
        output_times: Any = None,
        positions: Any = None,
        output_positions: Any = None,
        condition: Condition | None = None,
    ) -> Signal:
        others = {"times": times, "output_times": output_times, "positions": positions, "condition": condition}
        for name, value in (others | {"output_positions": output_positions}).items():
            if value is not None:
                raise ValueError(f"`{name}` is not for baked layers, whose taps are settled. Bake a model without it.")
        if spacings(spacing, len(self.spacing)) != self.spacing or lowpass != self.lowpass:
            raise ValueError(
                f"`spacing` must be that for which this layer was baked, {self.spacing} (lowpass={self.lowpass}); got "
                f"{spacing} (lowpass={lowpass}). Bake the view of the model at that resolution."
            )
        y: Signal = self.convs(x)
        return y if self.mixer is None else self.mixer(y)

    def causal_part(self, name: str, filtered: Filter) -> Part:
        """Raise `ValueError`: the kernel is gone."""
        raise ValueError(f"`model`: {name} is baked, and has no kernel to stream. Stream the model that was baked.")


class Around(nn.Module):
    """Continues a signal on circular axes by so many samples at either end, going around as often as it takes."""

    def __init__(self, margin: tuple[int, ...]):
        super().__init__()
        self.margin = margin

    def forward(self, x: Tensor) -> Tensor:
        for axis, far in enumerate(self.margin, 2):
            if far:
                n = x.shape[axis]
                shifted = torch.arange(n + 2 * far, device=x.device) - far
                period = torch.scalar_tensor(n, dtype=torch.long)  # ONNX has no remainder of a size that is a number
                x = x.index_select(axis, torch.remainder(shifted, period))
        return x

    def extra_repr(self) -> str:
        return f"{self.margin}"


class AnyDownsample(nn.Module):
    """`Downsample` without a choice that depends on the size, which a trace would settle: axis by axis, of samples that
    are picked by their indices. On an axis of n samples window i holds 2i - (n mod 2), 2i and 2i + 1, where they exist.
    """

    def __init__(self, layer: Downsample):
        super().__init__()
        self.dim, self.reduce = layer.dim, layer.reduce

    def forward(self, x: Tensor) -> Tensor:
        for axis in range(x.ndim - self.dim, x.ndim):
            x = self._along(x, axis)
        return x

    def _along(self, x: Tensor, axis: int) -> Tensor:
        n = x.shape[axis]
        middle = 2 * torch.arange((n + 1) // 2, device=x.device)
        before, after = (middle - n % 2).clamp(min=0), (middle + 1).clamp(max=n - 1)
        left, centre, right = (x.index_select(axis, index) for index in (before, middle, after))
        if self.reduce == "max":
            return torch.maximum(torch.maximum(left, centre), right)
        # What was picked twice, at an end, or by an even axis whose window is a pair, counts once.
        shape = [-1] + [1] * (x.ndim - 1 - axis)
        has_left, has_right = ((index != middle).to(x.dtype).reshape(shape) for index in (before, after))
        return (left * has_left + centre + right * has_right) / (1 + has_left + has_right)


def spacings(spacing: PerAxis[float] | None, dim: int) -> tuple[float, ...]:
    """The spacing of every axis; None is that of the reference."""
    return per_axis("spacing", 1.0 if spacing is None else spacing, dim, check_spacing)


def around_and_zeros(layer: Conv, kernel: tuple[int, ...]) -> list[nn.Module]:
    """What continues signals beyond the edges as far as taps of that size reach, of the circular and the zero axes."""
    margin, zeros = [], list[int]()
    for k, past, edge in zip(kernel, layer.causal, layer.grid.boundary, strict=True):
        circular = edge == "circular"
        margin.append(k // 2 if circular else 0)
        after = 0 if past or circular else k // 2
        zeros = [0 if circular else k - 1 - after, after, *zeros]  # torch wants the last axis first
    parts: list[nn.Module] = [Around(tuple(margin))] if any(margin) else []
    return [*parts, PAD[layer.dim](tuple(zeros), 0.0)] if any(zeros) else parts


def plain(taps: Taps, groups: int, padding: tuple[int, ...]) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
    """The convolution of the framework, which reverses the taps against the library's."""
    kernel = taps.shape[2:]
    conv = PLAIN[len(kernel)](
        *(taps.shape[1] * groups, taps.shape[0], tuple(kernel)),
        padding=padding,
        groups=groups,
        bias=False,
        device="meta",  # nothing is drawn
    )
    conv.weight = nn.Parameter(taps.flip(list(range(2, taps.ndim))).contiguous())
    return conv
