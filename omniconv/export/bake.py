"""Group networks as plain convolutions."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from omniconv._errors import describe
from omniconv.groups import Samples
from omniconv.models import Network
from omniconv.nn import GroupConv, LiftingConv, NonStationaryConv
from omniconv.nn._group_layer import GroupLayer
from omniconv.nn._group_steps import GroupSignal

PLAIN: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class BakedConv(nn.Module):
    """A lifting or group convolution at fixed elements: `torch.nn.ConvNd`s whose channels are channels times elements.

    It is called as the layer it stands for, on the reference spacing: `samples` and `draw` are those of its outputs.
    """

    def __init__(self, convs: list[nn.Module], *, lifts: bool, out_channels: int, samples: Samples):
        super().__init__()
        self.convs, self.lifts = nn.Sequential(*convs), lifts
        self.out_channels, self.samples = out_channels, samples

    def draw(self) -> Samples:
        """The elements of the outputs."""
        return self.samples

    def forward(
        self, x: Tensor, inputs: Samples | None = None, outputs: Samples | None = None, *, spacing: Any = None
    ) -> GroupSignal:
        if spacing is not None:
            raise ValueError("`spacing` is not for baked layers, whose taps are those of the reference grid.")
        y: Tensor = self.convs(x if self.lifts else x.flatten(1, 2))
        return y.unflatten(1, (self.out_channels, -1))


@torch.no_grad()
def bake(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    """A copy of the model in which every group convolution is made of `torch.nn.Conv1d`, `2d` or `3d`.

    It computes what the model does in evaluation mode, on the reference spacing, for signals of any size; nothing of
    the library is left in these layers but their order, so that any tool for plain networks takes it. `model` itself
    and its state dict stay as they are.

    `model`: in evaluation mode. `x`: an input, by which the elements at which layers compute are found; None for a
    network of the library or a single layer.
    Relaxed layers, whose kernels change from place to place, are no convolutions: they stay as they are, with a warning
    that names them. Raises `ValueError` for a model in training mode, `TypeError` for what is no module.

    >>> from omniconv.groups import SO2
    >>> layer = LiftingConv(1, 2, 9, SO2(), 4, reach=2).eval()
    >>> x = torch.randn(1, 1, 9, 9)
    >>> torch.allclose(bake(layer)(x), layer(x), atol=1e-5)
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module; got {describe(model)}.")
    if model.training:
        raise ValueError("`model` must be in evaluation mode. Call `model.eval()` first.")
    where = elements_of(model, example(model, x))
    for name, module in model.named_modules():
        if isinstance(module, NonStationaryConv) or (isinstance(module, GroupLayer) and module.relaxation is not None):
            warnings.warn(
                f"{name or type(module).__name__} is relaxed, no convolution: it stays as it is.", stacklevel=2
            )
    if isinstance(model, GroupLayer):
        return baked(model, *where[model]).eval() if model in where else copy.deepcopy(model)
    copied = copy.deepcopy(model)
    names = {module: name for name, module in model.named_modules()}
    for layer, samples in where.items():
        parent, _, own = names[layer].rpartition(".")
        setattr(copied.get_submodule(parent), own, baked(layer, *samples))
    return copied.eval()


def example(model: nn.Module, x: Tensor | None) -> tuple[Tensor, ...]:
    """What to call the model with."""
    if x is not None:
        return (x,)
    if isinstance(model, Network):
        parameter = next(model.parameters())
        return (parameter.new_zeros(1, model.in_channels, *model.grid.size),)
    if isinstance(model, GroupLayer):
        group = () if isinstance(model, LiftingConv) else (len(model.inputs),)
        return (model.gain.new_zeros(1, model.in_channels, *group, *model.grid.size),)
    raise ValueError("`x` must be given for a model that is no network of the library: an input to call it with.")


def elements_of(model: nn.Module, call: tuple[Tensor, ...]) -> dict[GroupLayer, tuple[Samples, Samples]]:
    """The elements of inputs and outputs of every layer that can be baked, as the model calls it."""
    found: dict[GroupLayer, tuple[Samples, Samples]] = {}

    def look(layer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        names = ("x", "outputs") if isinstance(layer, LiftingConv) else ("x", "inputs", "outputs")
        given = {**dict(zip(names, arguments, strict=False)), **keywords}
        inputs, outputs = given.get("inputs"), given.get("outputs")
        found[layer] = (layer.inputs if inputs is None else inputs, layer.draw() if outputs is None else outputs)

    bakeable = [m for m in model.modules() if isinstance(m, (GroupConv, LiftingConv)) and m.relaxation is None]
    branches = {m.relaxation.branch for m in model.modules() if isinstance(m, GroupLayer) and m.relaxation is not None}
    hooks = [m.register_forward_pre_hook(look, with_kwargs=True) for m in bakeable if m not in branches]
    try:
        model(*call)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def baked(layer: GroupLayer, inputs: Samples, outputs: Samples) -> BakedConv:
    """The layer at these elements, as plain convolutions."""
    steps = layer.flattened(inputs, outputs)
    convs = [plain(taps.to(layer.gain.dtype), groups, layer.grid.boundary) for taps, groups in steps]
    if layer.bias is not None:
        convs[-1].bias = nn.Parameter(layer.bias.detach().repeat_interleave(len(outputs)))
    return BakedConv(
        list(convs), lifts=isinstance(layer, LiftingConv), out_channels=layer.out_channels, samples=outputs
    )


def plain(taps: Tensor, groups: int, boundary: tuple[str, ...]) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
    """The convolution of the framework, which reverses the taps against the library's."""
    kernel = taps.shape[2:]
    if len(set(boundary)) > 1:
        raise ValueError(f"`model` must have the same boundary on all axes of a layer to be baked; got {boundary}.")
    conv = PLAIN[len(kernel)](
        *(taps.shape[1] * groups, taps.shape[0], tuple(kernel)),
        padding=tuple(k // 2 for k in kernel),
        padding_mode="circular" if boundary[0] == "circular" else "zeros",
        groups=groups,
        bias=False,
        device="meta",  # nothing is drawn
    )
    conv.weight = nn.Parameter(taps.flip(list(range(2, taps.ndim))).contiguous())
    return conv
