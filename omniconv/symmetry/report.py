"""The error of equivariance over an orbit, layer by layer, and what each layer learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_instance, check_integer, describe, require
from omniconv._typing import Signal
from omniconv.groups import Count, Elements, Group, Samples, transform
from omniconv.groups._group import check_group
from omniconv.groups._signals import NEAR, nearest
from omniconv.nn import GroupConv, GroupSelfAttention, LiftingConv, LiftingSelfAttention, NonStationaryConv
from omniconv.nn._poses import keeps_axes
from omniconv.nn.partial import Partial
from omniconv.nn.relaxed import Modulation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYERS = (LiftingConv, GroupConv, NonStationaryConv, LiftingSelfAttention, GroupSelfAttention)
LEARNED = (("widths", "kept with"), ("relaxed by",))
"""Names of what layers learn, together where they have one scale."""
BLUE, ORANGE = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class LayerReport:
    """One layer. `error`: mean relative error over samples of the group, the identity apart, at those of the layer's
    poses that each maps to one another; NaN where none does, as in many a learned part of the group. `learned`: names
    and values of what it learned about symmetry.
    """

    name: str
    kind: str
    error: float
    learned: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class EquivarianceReport:
    """The error |f(g x) - g f(x)| / |f(x)| of a model over an orbit, and of its layers.

    `elements`: (count, numbers) of the group; `distances` of them from the identity, |log g|; `errors` of the model's
    output at each. `layers`: as they are called.
    """

    group: Group
    elements: Tensor
    distances: Tensor
    errors: Tensor
    layers: tuple[LayerReport, ...]

    def __str__(self) -> str:
        """A table."""
        worst = int(self.errors.argmax())
        lines = [
            f"{self.group}: relative error of the output over {len(self.errors)} elements: mean "
            f"{self.errors.mean():.2e}, smallest {self.errors.min():.2e}, largest {self.errors[worst]:.2e} at distance "
            f"{self.distances[worst]:.2f}",
            "",
            f"{'layer':32} {'kind':20} {'error':>9}  learned",
        ]
        for layer in self.layers:
            error = "-" if math.isnan(layer.error) else f"{layer.error:.2e}"
            learned = "; ".join(f"{name} {numbers(values)}" for name, values in layer.learned.items())
            lines.append(f"{layer.name:32} {layer.kind:20} {error:>9}  {learned}".rstrip())
        return "\n".join(lines)

    def figure(self) -> Figure:
        """The error of the output by the distance from the identity, that of every layer, and what it learned: widths
        of its part of the group, probabilities of components, and how far it is relaxed, where there are any.

        Raises `ImportError` without matplotlib.
        """
        module: Any = require("matplotlib.figure", extra="plots", purpose="drawing an equivariance report")
        learned = [names for names in LEARNED if any(name in layer.learned for layer in self.layers for name in names)]
        figure: Figure = module.Figure(figsize=(9.0 + 3.0 * len(learned), 3.6), layout="constrained")
        left, right, *others = figure.subplots(1, 2 + len(learned))
        order = self.distances.argsort()
        left.plot(self.distances[order].tolist(), self.errors[order].tolist(), "o-", markersize=3, color=BLUE)
        left.set(xlabel="distance from the identity", ylabel="relative error of the output", ylim=(0, None))
        right.barh([layer.name for layer in self.layers], [layer.error for layer in self.layers], color=BLUE)
        right.set(xlabel="relative error of the layer")
        for panel, names in zip(others, learned, strict=True):
            panel.sharey(right)
            panel.tick_params(labelleft=False)
            draw_learned(panel, self.layers, names)
        right.invert_yaxis()
        return figure


@torch.no_grad()
def equivariance_report(
    model: nn.Module, x: Signal, group: Group | None = None, *, count: Count | None = None
) -> EquivarianceReport:
    """How far the model is from f(g x) = g f(x), over the orbit of a group, at every layer of the group too.

    `model`: any module that takes `batch channels *size` to features (batch, features), which must not change, or to a
    signal, which must move as x does. It is looked at in evaluation mode, and every part left in the mode it was in.
    `x`: signals. They are set to zero outside of the ball that the grid holds, where a group turns them, so that
    nothing leaves or enters at the corners; what lies between samples is interpolated, which is an error of its own.
    `group`: None for that of the model's first group layer. `count`: of elements of the orbit, as in `Group.grid`; None
    for 32 of them, drawn at random where the group has several coordinates, or all of a finite group.
    Layers are compared at the elements at which they compute, so that what is left is the error of layer and grid: at
    those of them that an element maps to one another, because scales, say, are moved out of the range of the samples.
    Layers on another group than `group` are left out.
    Raises `ValueError` or `TypeError` that names the argument.

    >>> from omniconv.groups import SO2
    >>> from omniconv.models import GCNN
    >>> model = GCNN(1, 10, 15, group=SO2(), samples=4, widths=(4,), reach=2)
    >>> report = equivariance_report(model, torch.randn(2, 1, 15, 15), count=4)
    >>> bool(report.errors.max() < 1e-4)  # quarter turns
    True
    """
    check_instance("model", model, nn.Module)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LAYERS)}
    if group is None:
        if not layers:
            raise ValueError("`group` must be given for a model without group layers.")
        group = next(iter(layers.values())).group
    check_group(group)
    layers = {name: layer for name, layer in layers.items() if layer.group == group}
    if not isinstance(x, Tensor) or x.ndim != group.dim + 2:
        raise ValueError(f"`x` must be (batch, channels, *size), {group.dim} axes in size; got {describe(x)}.")
    modes = [(module, module.training) for module in model.modules()]
    try:
        return reported(model.eval(), within_ball(x, group), group, orbit(group, count), layers)
    finally:
        for module, training in modes:  # one by one: parts may have modes of their own
            module.training = training


def reported(
    model: nn.Module, x: Signal, group: Group, elements: Elements, layers: dict[str, Any]
) -> EquivarianceReport:
    """The report of a model in evaluation mode."""
    y, outputs = observed(model, x, layers)
    errors = [relative(model(transform(x, group, g)), move(y, group, g, None), y) for g in elements]
    found: dict[str, list[float]] = {name: [] for name in outputs}
    turns = next((at for _, at in outputs.values()), None)
    for g in [] if turns is None else others_than_identity(group, turns.elements):
        _, moved = observed(model, transform(x, group, g), layers)
        for name, (signal, at) in outputs.items():
            found[name] += layer_error(moved[name][0], signal, group, g, at)
    reports = tuple(
        LayerReport(name, type(layers[name]).__name__, mean(found[name]), learned(layers[name])) for name in outputs
    )
    distances = group.distance(group.identity().expand_as(elements), elements)
    return EquivarianceReport(group, elements, distances, torch.tensor(errors, dtype=torch.float64), reports)


def orbit(group: Group, count: Count | None) -> Elements:
    """Elements of the group, over which an error is looked at."""
    if group.order is not None or (count is not None and not isinstance(count, int)):
        return group.grid(count).elements
    number = 32 if count is None else check_integer("count", count)
    if group.coordinates == 1:
        return group.grid(number).elements
    return group.draw(number, generator=torch.Generator("cpu").manual_seed(0)).elements


def within_ball(x: Signal, group: Group) -> Signal:
    """The signal, zero outside of the ball that the grid holds, if the group turns it by any angle."""
    if keeps_axes(group):
        return x
    axes = [torch.arange(n, device=x.device) - (n - 1) / 2 for n in x.shape[2:]]
    distance = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).norm(dim=-1)
    return x * (distance <= min(x.shape[2:]) / 2).to(x.dtype)


def observed(model: nn.Module, x: Signal, layers: dict[str, Any]) -> tuple[Tensor, dict[str, tuple[Tensor, Samples]]]:
    """The output of the model, and that of every layer with the elements at which it is."""
    found: dict[str, tuple[Tensor, Samples]] = {}

    def watch(name: str) -> Callable[..., None]:
        def look(layer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], y: Tensor) -> None:
            given = [value for value in (*arguments, *keywords.values()) if isinstance(value, Samples)]
            found[name] = (y, given[-1] if given else layer.draw())

        return look

    hooks = [layer.register_forward_hook(watch(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        y: Tensor = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return y, found


def others_than_identity(group: Group, elements: Elements) -> list[Elements]:
    """The elements without the identity, which changes nothing anywhere."""
    return [g for g in elements if group.distance(g, group.identity().to(g)) > NEAR]


def layer_error(moved: Tensor, y: Tensor, group: Group, g: Elements, at: Samples) -> list[float]:
    """The relative error of a layer's output at one element, over the samples h for which g^-1 h is one too; else none.

    Samples that were dropped from a learned part are none.
    """
    apart, index = nearest(group, g, at)
    mapped = apart <= NEAR
    if at.kept is not None:
        mapped = mapped & (at.kept > 0.5) & (at.kept[index] > 0.5)
    if not bool(mapped.any()):
        return []
    source = y[:, :, index[mapped]].flatten(1, 2)
    return [relative(moved[:, :, mapped].flatten(1, 2), transform(source, group, g), source)]


def mean(errors: list[float]) -> float:
    """NaN of none."""
    return sum(errors) / len(errors) if errors else math.nan


def move(y: Tensor, group: Group, g: Elements, samples: Samples | None) -> Tensor:
    """A signal that is moved, or features that are not, by their axes."""
    return y if y.ndim == 2 else transform(y, group, g, samples)


def relative(actual: Tensor, expected: Tensor, size: Tensor) -> float:
    """|actual - expected| / |size|."""
    return ((actual - expected).norm() / size.norm().clamp(min=torch.finfo(size.dtype).tiny)).item()


def learned(layer: nn.Module) -> dict[str, tuple[float, ...]]:
    """What a layer's own parts learned about symmetry."""
    found: dict[str, tuple[float, ...]] = {}
    for module in layer.modules():
        if isinstance(module, Partial) and len(module.width):
            found["widths"] = tuple(module.widths.tolist())
        if isinstance(module, Partial) and len(module.choice):
            found["kept with"] = tuple(module.probabilities.tolist())
        if isinstance(module, (Modulation, NonStationaryConv)):
            found["relaxed by"] = (module.amount.abs().item(),)
    return found


def draw_learned(panel: Axes, layers: tuple[LayerReport, ...], names: tuple[str, ...]) -> None:
    """A point for every value that layers learned under these names, a line for each layer."""
    for name, color in zip(names, (BLUE, ORANGE), strict=False):
        points = [(value, layer.name) for layer in layers for value in layer.learned.get(name, ())]
        if points:
            panel.plot(*zip(*points, strict=True), "o", markersize=5, color=color, label=name)
    panel.set(xlabel=" / ".join(names), xlim=(0, 1.05) if names == LEARNED[0] else (0, None))
    panel.legend(fontsize="small")


def numbers(values: tuple[float, ...]) -> str:
    """Numbers, side by side."""
    return " ".join(f"{value:.3g}" for value in values)
