"""Which parts of a stream stand for which layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omniconv.models import CCNN, CKCNN
from omniconv.nn import (
    BasicBlock,
    BatchNorm,
    Conv,
    DenseHead,
    LastHead,
    LayerNorm,
    PoolHead,
    ResidualBlock,
)
from omniconv.nn.heads import Head
from omniconv.nn.pointwise import Pointwise
from omniconv.recurrence.certificate import Certificate, certify
from omniconv.recurrence.distill import ORDERS, distill
from omniconv.recurrence.layers import check_causal, exact_recurrence
from omniconv.recurrence.parts import Affine, Chain, Layer, Mean, Modal, Part, Same, Sum, Window, gelu, relu
from omniconv.recurrence.recurrence import Recurrence

EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}
"""A relative error of taps that is rounding, by the dtype of a layer."""


@dataclass(frozen=True)
class StreamedLayer:
    """What a convolution became. `name`: of the layer in the network.

    `form`: "taps" (exact, it remembers samples), "modal" (the kernel is a recurrence, but goes on behind its last tap)
    or "distilled".
    `states`: numbers of state per channel, or pair of channels of a dense layer: real ones, two for a complex one.
    `relative`, `l1`: the largest error of a kernel, relative in l2, and in the sum of moduli.
    """

    name: str
    form: str
    states: int
    relative: float
    l1: float


@dataclass
class Builder:
    """Makes the parts of a network, and notes what its convolutions became."""

    spacing: float
    lowpass: bool
    tol: float | None
    order: int | None
    horizon: int | None
    layers: list[StreamedLayer]

    def conv(self, name: str, conv: Conv) -> Part:
        """A convolution, its bias and its mixer."""
        check_causal(f"`model`: {name}", conv)
        parts: list[Part] = [self._kernel(name, conv)]
        if conv.bias is not None:
            parts.append(Affine(_Shift(conv.bias.detach()), torch.ones_like(conv.bias), conv.bias))
        if conv.mixer is not None:
            parts.append(pointwise(conv.mixer))
        return Chain(parts)

    def _kernel(self, name: str, conv: Conv) -> Part:
        taps = conv.taps(self.spacing, self.lowpass).double()
        exact = EXACT[torch.promote_types(conv.gain.dtype, torch.float32)]
        for form, recurrence, found in self._candidates(name, conv, taps):
            asked = form == "distilled" and self.order is not None
            limit = exact if self.tol is None or self.order is not None else max(self.tol, exact)
            if asked or found.relative.max() <= limit:
                relative, l1 = float(found.relative.max()), float(found.l1.max())
                self.layers.append(StreamedLayer(name, form, 2 * recurrence.modes, relative, l1))
                return Modal(recurrence, taps, found.l1.unflatten(0, taps.shape[:-1]))
        self.layers.append(StreamedLayer(name, "taps", taps.shape[-1] - 1, 0.0, 0.0))
        return Window(taps)

    def _candidates(self, name: str, conv: Conv, taps: Tensor) -> Iterator[tuple[str, Recurrence, Certificate]]:
        """Recurrences that may stand for the taps, the best first; if not asked, none that take more memory."""
        flat, past = taps.flatten(0, -2), taps.shape[-1] - 1
        if past < 3:
            return
        most = past // (2 * len(taps)) if taps.ndim == 3 else past // 2  # of states, for a pair of channels
        exact = None if self.lowpass else exact_recurrence(conv, self.spacing)
        if exact is not None and exact.modes <= most:
            yield "modal", exact, certify(flat, exact, horizon=self.horizon)
        if self.order is not None and self.order > past // 2:
            raise ValueError(
                f"`order` (={self.order}) must be at most {past // 2} for {name}, which has {past + 1} taps. Give a "
                "smaller order, or a tolerance."
            )
        orders = [self.order] if self.order is not None else [each for each in ORDERS if each <= min(most, past // 2)]
        for order in orders if self.order is not None or self.tol is not None else []:
            recurrence, report = distill(flat, order=order, horizon=self.horizon)
            yield "distilled", recurrence, report.certificate

    def residual(self, name: str, block: ResidualBlock) -> Part:
        """x + GELU(linear(GELU(conv(norm(x)))))."""
        conv = self.conv(f"{name}.conv", block.conv)
        return Sum(Same(), Chain([norm(f"{name}.norm", block.norm), conv, gelu(), pointwise(block.linear), gelu()]))

    def basic(self, name: str, block: BasicBlock) -> Part:
        """ReLU(shortcut(x) + branch(x))."""
        branch: list[Part] = [self.conv(f"{name}.conv_1", block.conv_1), norm(f"{name}.norm_1", block.norm_1), relu()]
        branch += [self.conv(f"{name}.conv_2", block.conv_2), norm(f"{name}.norm_2", block.norm_2)]
        branch += [relu()] if block.rectify else []
        shortcut = Same() if block.shortcut is None else pointwise(block.shortcut)
        return Chain([Sum(shortcut, Chain(branch)), relu()])


class _Shift:
    """Adds a number to every channel."""

    def __init__(self, bias: Tensor):
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.bias.to(x.dtype)[:, None]


def parts_of(
    model: CCNN | CKCNN, *, tol: float | None, order: int | None, horizon: int | None
) -> tuple[Chain, tuple[StreamedLayer, ...]]:
    """The parts of a network in evaluation mode, and what its convolutions became."""
    if model.grid.dim != 1:
        raise ValueError(f"`model` must be a network of series, of one axis; this one has {model.grid.dim}.")
    builder = Builder(model.spacing[0], model.lowpass, tol, order, horizon, [])
    with torch.no_grad():
        body = ccnn(model, builder) if isinstance(model, CCNN) else ckcnn(model, builder)
        parts = [entry(model), *body, head(model.head)]
    return Chain(parts), tuple(builder.layers)


def ccnn(model: CCNN, make: Builder) -> list[Part]:
    """Between standardisation and head."""
    if model.group is not None:
        raise ValueError("`model` must be a network without a group, whose layers look at samples to come.")
    parts = [make.conv("stem", model.stem), norm("stem_norm", model.stem_norm), gelu()]
    parts += [make.residual(f"blocks.{i}", block) for i, block in enumerate(model.blocks)]  # type: ignore[arg-type]
    return [*parts, norm("norm", model.norm)]


def ckcnn(model: CKCNN, make: Builder) -> list[Part]:
    """Between standardisation and head."""
    return [make.basic(f"blocks.{i}", block) for i, block in enumerate(model.blocks)]  # type: ignore[arg-type]


def entry(model: CCNN | CKCNN) -> Part:
    """Standardised signals, or embedded ids."""
    if model.embedding is None:
        return Layer(model.standardize)
    largest = model.embedding.vectors.weight.detach().double().abs().amax(0)
    return Layer(model.embedding, largest)


def norm(name: str, layer: nn.Module) -> Part:
    """Batch norm with its running statistics; other norms look at samples to come."""
    if isinstance(layer, LayerNorm) or not isinstance(layer, BatchNorm) or layer.running_var is None:
        raise ValueError(
            f"`model`: {name} normalises by all samples, also those to come. Build the network with batch norm, as "
            'CKCNN(.., norm="batch").'
        )
    assert layer.running_mean is not None
    assert layer.running_var is not None
    scale = torch.rsqrt(layer.running_var.double() + layer.eps)
    scale = scale * layer.weight.double() if layer.affine else scale
    shift = -layer.running_mean.double() * scale
    return Affine(layer, scale, shift + layer.bias.double() if layer.affine else shift)


def pointwise(layer: Pointwise) -> Part:
    """A linear map of the channels."""
    return Affine(layer, layer.weight, layer.bias)


def head(layer: Head) -> Part:
    """The read-out, at every sample."""
    kinds = {PoolHead: Mean(layer.readout.in_channels), LastHead: Same(), DenseHead: Same()}
    return Chain([kinds[type(layer)], pointwise(layer.readout)])
