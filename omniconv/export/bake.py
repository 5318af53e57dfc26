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

NOT_SAVED = (
    "its group convolutions are baked, and no arguments build that. Save the model itself and bake what "
    "`from_pretrained` gives, or save this one by torch.export or torch.save."
)
"""Why a baked network is not saved as one."""

PLAIN: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class BakedConv(nn.Module):
    """A group convolution at fixed elements: `torch.nn.ConvNd`s whose channels are channels times elements.

    It is called as the layer it stands for, on the reference spacing: `samples` and `draw` are those of its outputs,
    `inputs` those of what it takes. Raises `ValueError` where it is asked for others.
    """

    def __init__(self, convs: list[nn.Module], *, out_channels: int, inputs: Samples, samples: Samples):
        super().__init__()
        self.convs = nn.Sequential(*convs)
        self.out_channels, self.inputs, self.samples = out_channels, inputs, samples

    def draw(self) -> Samples:
        """The elements of the outputs."""
        return self.samples

    def forward(
        self, x: Tensor, inputs: Samples | None = None, outputs: Samples | None = None, *, spacing: Any = None
    ) -> GroupSignal:
        self._check("inputs", inputs, self.inputs)
        return self._run(x.flatten(1, 2), outputs, spacing)

    def _run(self, x: Tensor, outputs: Samples | None, spacing: Any) -> GroupSignal:
        """The convolutions, on channels times elements."""
        self._check("outputs", outputs, self.samples)
        if spacing is not None:
            raise ValueError("`spacing` is not for baked layers, whose taps are those of the reference grid.")
        y: Tensor = self.convs(x)
        return y.unflatten(1, (self.out_channels, -1))

    def _check(self, name: str, given: Samples | None, baked: Samples) -> None:
        if given is not None and not same(given, baked):
            raise ValueError(
                f"`{name}` must be the elements for which this layer was baked, {len(baked)} of them; got others. "
                "Leave them out, or bake the model as it calls the layer at these."
            )


class BakedLifting(BakedConv):
    """The same of a lifting convolution, which takes a signal without a group."""

    def forward(  # type: ignore[override]
        self, x: Tensor, outputs: Samples | None = None, *, spacing: Any = None
    ) -> GroupSignal:
        return self._run(x, outputs, spacing)


class Around(nn.Module):
    """Continues a signal on circular axes by so many samples at either end, going around as often as it takes."""

    def __init__(self, margin: tuple[int, ...]):
        super().__init__()
        self.margin = margin

    def forward(self, x: Tensor) -> Tensor:
        for axis, (far, n) in enumerate(zip(self.margin, x.shape[2:], strict=True), 2):
            x = x.index_select(axis, torch.arange(-far, n + far, device=x.device) % n)
        return x

    def extra_repr(self) -> str:
        return f"{self.margin}"


def same(first: Samples, second: Samples) -> bool:
    """Whether these are the same elements with the same weights."""
    if first is second:
        return True
    pairs = ((first.elements, second.elements), (first.weights, second.weights))
    return all(a.shape == b.shape and torch.equal(a, b.to(a)) for a, b in pairs)


@torch.no_grad()
def bake(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    """A copy of the model in which every group convolution is made of `torch.nn.Conv1d`, `2d` or `3d`.

    It computes what the model does in evaluation mode, equal to rounding, on the reference spacing, for signals of any
    size; nothing of the library is left in these layers but their order, so that any tool for plain networks takes it.
    `model` itself and its state dict stay as they are.

    `model`: in evaluation mode. `x`: an input, by which the elements at which layers compute are found; None for a
    network of the library or a single layer.
    Relaxed layers, whose kernels change from place to place, are no convolutions: they stay as they are, with a warning
    that names them. A layer that the model uses at several places is one there too. What comes out is no longer built
    by the arguments of a network: `save_pretrained` of it is refused. Raises `ValueError` for a model in training mode,
    and for a layer that it calls at several elements, `TypeError` for what is no module.

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
    # Samples are values: copies share them, so that layers know them by identity when the model is traced.
    copied = copy.deepcopy(model, {id(samples): samples for pair in where.values() for samples in pair})
    made = {layer: baked(layer, *samples) for layer, samples in where.items()}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, GroupLayer) and module in made:
            parent, _, own = name.rpartition(".")
            setattr(copied.get_submodule(parent), own, made[module])
    for module in copied.modules():
        if isinstance(module, Network) and any(isinstance(part, BakedConv) for part in module.modules()):
            module.not_saved = NOT_SAVED
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
    names = {module: name or type(module).__name__ for name, module in model.named_modules()}

    def look(layer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        takes = ("x", "outputs") if isinstance(layer, LiftingConv) else ("x", "inputs", "outputs")
        given = {**dict(zip(takes, arguments, strict=False)), **keywords}
        inputs, outputs = given.get("inputs"), given.get("outputs")
        where = (layer.inputs if inputs is None else inputs, layer.draw() if outputs is None else outputs)
        if layer in found and not all(map(same, found[layer], where)):
            raise ValueError(
                f"`model` must call a layer at the same elements each time, to be baked; it calls {names[layer]} at "
                "others the second time. Give it a layer for each, or the same `outputs`."
            )
        found[layer] = where

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
    boundary, convs = layer.grid.boundary, list[nn.Module]()
    if len(set(boundary)) > 1:
        raise ValueError(f"`model` must have the same boundary on all axes of a layer to be baked; got {boundary}.")
    for taps, groups in layer.flattened(inputs, outputs):
        margin = tuple(k // 2 for k in taps.shape[2:])
        around = boundary[0] == "circular" and any(margin)
        if around:  # the framework's own padding goes around once at most
            convs.append(Around(margin))
        convs.append(plain(taps.to(layer.gain.dtype), groups, (0,) * len(margin) if around else margin))
    if layer.bias is not None:
        convs[-1].bias = nn.Parameter(layer.bias.detach().repeat_interleave(len(outputs)))
    kind = BakedLifting if isinstance(layer, LiftingConv) else BakedConv
    return kind(convs, out_channels=layer.out_channels, inputs=inputs, samples=outputs)


def plain(taps: Tensor, groups: int, padding: tuple[int, ...]) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
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
