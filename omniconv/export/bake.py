"""Networks as plain convolutions."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from omniconv._errors import describe
from omniconv.export._plain import Around, PlainConv, plain, spacings
from omniconv.groups import Samples
from omniconv.models import Network
from omniconv.nn import Conv, GroupConv, LiftingConv, NonStationaryConv
from omniconv.nn._group_layer import GroupLayer
from omniconv.nn._group_steps import GroupSignal

NOT_SAVED = (
    "its convolutions are baked, and no arguments build that. Save the model itself and bake what "
    "`from_pretrained` gives, or save this one by torch.export or torch.save."
)
"""Why a baked network is not saved as one."""


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


def same(first: Samples, second: Samples) -> bool:
    """Whether these are the same elements with the same weights."""
    if first is second:
        return True
    pairs = ((first.elements, second.elements), (first.weights, second.weights))
    return all(a.shape == b.shape and torch.equal(a, b.to(a)) for a, b in pairs)


@torch.no_grad()
def bake(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    """A copy of the model in which every convolution of the library is made of `torch.nn.Conv1d`, `2d` or `3d`.

    It computes what the model does in evaluation mode, up to rounding, for signals of any size, at the spacing at which
    the model calls its layers: that of the reference, or of a view (`at_resolution`). Nothing of the library is left in
    these layers but their order, so that any tool for plain networks takes it. `model` itself and its state dict stay
    as they are. Plain convolutions with long kernels are slow: this is for other tools, not for speed.

    `model`: in evaluation mode. `x`: an input, by which the elements and the spacings at which layers compute are
    found; None for a network of the library or a single layer.
    Relaxed layers, whose kernels change from place to place, are no convolutions: they stay as they are, with a warning
    that names them. A layer that the model uses at several places is one there too. What comes out is no longer built
    by the arguments of a network: `save_pretrained` of it is refused. Raises `ValueError` for a model in training mode,
    and for a layer that it calls at several elements or spacings, off the grid, or with a condition, `TypeError` for
    what is no module.

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
    where, how = calls_of(model, example(model, x))
    for name, module in model.named_modules():
        if isinstance(module, NonStationaryConv) or (isinstance(module, GroupLayer) and module.relaxation is not None):
            warnings.warn(
                f"{name or type(module).__name__} is relaxed, no convolution: it stays as it is.", stacklevel=2
            )
    made: dict[nn.Module, nn.Module] = {layer: baked(layer, *samples) for layer, samples in where.items()}
    # Samples are values: copies share them, so that layers know them by identity when the model is traced.
    shared = {id(samples): samples for pair in where.values() for samples in pair}
    made |= {layer: copy.deepcopy(PlainConv(layer, *asked)) for layer, asked in how.items()}
    if model in made:
        return made[model].eval()
    copied = copy.deepcopy(model, shared)
    for name, module in model.named_modules(remove_duplicate=False):
        if module in made:
            parent, _, own = name.rpartition(".")
            setattr(copied.get_submodule(parent), own, made[module])
    for module in copied.modules():
        if isinstance(module, Network) and any(isinstance(part, BakedConv | PlainConv) for part in module.modules()):
            module.not_saved = NOT_SAVED
    return copied.eval()


def example(model: nn.Module, x: Tensor | None) -> tuple[Tensor, ...]:
    """What to call the model with."""
    if x is not None:
        return (x,)
    if isinstance(model, Network):
        parameter = next(model.parameters())
        if model.embedding is not None:
            return (parameter.new_zeros(1, *model.grid.size, dtype=torch.long),)
        return (parameter.new_zeros(1, model.in_channels, *model.grid.size),)
    if isinstance(model, GroupLayer):
        group = () if isinstance(model, LiftingConv) else (len(model.inputs),)
        return (model.gain.new_zeros(1, model.in_channels, *group, *model.grid.size),)
    if isinstance(model, Conv):
        return (model.gain.new_zeros(1, model.in_channels, *model.grid.size),)
    raise ValueError("`x` must be given for a model that is no network of the library: an input to call it with.")


Elements: TypeAlias = dict[GroupLayer, tuple[Samples, Samples]]
"""By layer, the elements of its inputs and outputs."""
Resolutions: TypeAlias = dict[Conv, tuple[tuple[float, ...], bool]]
"""By layer, its spacing, and whether it is filtered for it."""


def calls_of(model: nn.Module, call: tuple[Tensor, ...]) -> tuple[Elements, Resolutions]:
    """How the model calls every layer that can be baked."""
    names = {module: name or type(module).__name__ for name, module in model.named_modules()}
    elements, resolutions = Elements(), Resolutions()
    branches = {m.relaxation.branch for m in model.modules() if isinstance(m, GroupLayer) and m.relaxation is not None}
    on_group = [m for m in model.modules() if isinstance(m, (GroupConv, LiftingConv)) and m.relaxation is None]
    hooks = [
        m.register_forward_pre_hook(partial(note_elements, elements, names), with_kwargs=True)
        for m in on_group
        if m not in branches
    ]
    hooks += [
        m.register_forward_pre_hook(partial(note_resolution, resolutions, names), with_kwargs=True)
        for m in model.modules()
        if isinstance(m, Conv)
    ]
    try:
        model(*call)
    finally:
        for hook in hooks:
            hook.remove()
    return elements, resolutions


def note_elements(
    found: Elements, names: dict[nn.Module, str], layer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    """Note the elements of a call, or raise `ValueError` if they are others than before."""
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


def note_resolution(
    found: Resolutions, names: dict[nn.Module, str], layer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    """Note the spacing of a call, or raise `ValueError` if it is another than before, or if there is no grid."""
    given = {**dict(zip(("x", "spacing"), arguments, strict=False)), **keywords}
    for name in ("times", "positions", "condition"):
        if given.get(name) is not None:
            raise ValueError(
                f"`model` must call its layers with a signal on a grid alone, to be baked; it gives {names[layer]} "
                f"`{name}`."
            )
    how = (spacings(given.get("spacing"), layer.dim), bool(given.get("lowpass", False)))
    if found.setdefault(layer, how) != how:
        raise ValueError(
            f"`model` must call a layer at one spacing, to be baked; it calls {names[layer]} at {found[layer][0]} and "
            f"{how[0]}. Give it a layer for each."
        )


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
