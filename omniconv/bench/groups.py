"""Group convolutions, in training and at evaluation, beside the plain convolution of their flattened size."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from omniconv._errors import check_integer, check_number, require
from omniconv.bench.measure import interleaved, provenance, repeated, wait_until_quiet
from omniconv.bench.pages import Table, chosen_columns, markdown, save, table, write
from omniconv.export import bake
from omniconv.groups import SO2, transform
from omniconv.nn import GroupConv
from omniconv.nn.group_conv import FACTORIZATIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED = 0
GROUP, SAMPLES, SIZE, REACH = SO2(), 8, 28, 2

TRAINING, EVALUATION, BAKED, KERNELS = "forward and backward", "evaluation", "baked", "kernels"
PLAIN = "torch conv2d"

ABOUT = """Layers of {channels} to {channels} channels at {samples} rotations, {size}x{size} samples, {taps} taps, batch
{batch}, float32. The yardstick is `torch.nn.Conv2d` of as many channels as there are channels times rotations, with the
same window. `convolutions`: what a layer flattens to, as input to output channels; where it is the plain convolution
itself ("none", "group-separable"), the ratios tell what the layer adds to it, elsewhere what its factors save.
`forward and backward`: with the gradients of the input and of all parameters; kernels are made anew in every step.
`evaluation`: in evaluation mode without gradients, with taps that the layer keeps. `baked`: the same after
`omniconv.export.bake`. `kernels`: making all taps and the gradients of what they are made of, alone, and its share of
forward and backward. Milliseconds are medians of {rounds} rounds in which everything takes turns; ratios are medians of
the ratios within a round to the plain convolution, so that they need not be the ratios of the medians. `90° error`: of
equivariance, |f(g x) - g f(x)| / |f(x)|."""
HEAD = (
    *("layer", "convolutions", "parameters", f"{TRAINING}, ms", "ratio", f"{EVALUATION}, ms", "ratio"),
    *(f"{BAKED}, ms", "ratio", f"{KERNELS}, ms", "share", "90° error"),
)
SHORT = (0, 2, 3, 4, 6, 8, 11)
"""Columns that a terminal has room for."""
BARS_HEAD = ("ratio", "bar", "measured", "middle half of the rounds", "holds")

PEERS_ABOUT = """Not measured here: CPU time (both threads together) of forward and backward of the authors' own code on
another machine, with other work on it, batch 8, 32 to 32 channels, 8 rotations, 28x28, 5x5, relative to the plain
convolution in the same process. Only the ratios can be compared with those above, and only roughly: these are of CPU
time, those of wall time."""


@dataclass
class Peer:
    """A layer of others: CPU milliseconds of forward and backward, and those of the plain convolution beside it."""

    layer: str
    parameters: int
    layer_ms: float
    plain_ms: float
    error: float

    @property
    def ratio(self) -> float:
        return self.layer_ms / self.plain_ms


PEERS = (
    Peer("Romero and Lohit 2022, GroupConv, whole group", 35_008, 669, 567, 6e-6),
    Peer("Knigge et al. 2022, nonseparable", 70_976, 850, 618, 5e-6),
    Peer("Knigge et al. 2022, gseparable", 141_760, 1056, 618, 1e-6),
    Peer("Knigge et al. 2022, separable", 77_280, 404, 618, 7e-6),
    Peer("Knigge et al. 2022, dseparable", 7_520, 506, 618, 4e-6),
    Peer("Knigge et al. 2022, dgseparable", 13_824, 409, 618, 5e-6),
    Peer("escnn, R2Conv, C8, regular fields", 90_144, 592, 617, 3e-6),
)

Action = Callable[[], object]
Seconds = dict[str, dict[str, list[float]]]
"""By kind of action and layer, the seconds of every round."""


@dataclass
class Layer:
    """A layer, what it flattens to, and its error under a quarter turn; None for the plain convolution."""

    name: str
    convolutions: str
    parameters: int
    error: float | None


@dataclass
class Bar:
    """What a ratio shall be: its quartiles over the rounds, and the limit of the median."""

    claim: str
    quartiles: tuple[float, ...]
    limit: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        median = self.quartiles[1]
        return median >= self.limit if self.at_least else median <= self.limit


@dataclass
class Measured:
    """All there is to report, and how it was measured."""

    device: str
    batch: int
    channels: int
    layers: list[Layer] = field(default_factory=list)
    seconds: Seconds = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """How often everything took its turn."""
        return len(self.seconds[TRAINING][PLAIN])


def benchmark(
    device: str = "cpu",
    *,
    batch: int = 8,
    channels: int = 32,
    rounds: int = 21,
    minutes: float = 3.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Time a layer for each factorization, and the plain convolution of the flattened size.

    `minutes`: after three rounds, none begins later than this. `progress` is told the rounds that are done, and all.
    Raises `ValueError` for numbers that are not positive.
    """
    for name, value in (("batch", batch), ("channels", channels), ("rounds", rounds)):
        check_integer(name, value)
    check_number("minutes", minutes, low=0.0)
    torch.manual_seed(SEED)
    yardstick = plain(channels).to(device)
    convs = {name: conv.to(device) for name, conv in group_convs(channels).items()}
    x = torch.randn(batch, channels, SAMPLES, SIZE, SIZE, device=device)
    measured = Measured(device, batch, channels, described(convs, yardstick))
    measured.seconds = measure(actions(convs, yardstick, x), device, rounds, minutes, progress)
    return measured


def plain(channels: int) -> nn.Conv2d:
    """The convolution of the flattened size."""
    flat = channels * SAMPLES
    return nn.Conv2d(flat, flat, 2 * REACH + 1, padding=REACH)


def group_convs(channels: int) -> dict[str, GroupConv]:
    """A layer for each factorization; the group has no factors of its own to separate."""
    return {
        name: GroupConv(channels, channels, SIZE, GROUP, SAMPLES, reach=REACH, factorization=name)
        for name in FACTORIZATIONS
        if name != "factor-separable"
    }


def training(layer: nn.Module, x: Tensor) -> Action:
    """Forward, and the gradients of the input and all parameters."""
    cotangent = torch.randn_like(x)
    operands = [x.clone().requires_grad_(), *layer.parameters()]
    return lambda: torch.autograd.grad(layer(operands[0]), operands, cotangent)


def evaluation(layer: nn.Module, x: Tensor) -> Action:
    """Forward, in evaluation mode and without gradients."""
    layer = layer.eval()

    @torch.no_grad()
    def run() -> object:
        return layer(x)

    return run


def kernels(layer: GroupConv) -> Action:
    """All taps of the layer, and the gradients of what they are made of."""
    sources = [parameter for name, parameter in layer.named_parameters() if name != "bias"]

    def run() -> object:
        taps = [taps for taps, _ in layer.flattened(layer.inputs, layer.samples)]
        return torch.autograd.grad(taps, sources, [torch.ones_like(sample) for sample in taps])

    return run


def actions(convs: dict[str, GroupConv], yardstick: nn.Conv2d, x: Tensor) -> dict[str, dict[str, Action]]:
    """What is timed, by kind and layer; the plain convolution first."""
    flat = x.flatten(1, 2)
    fixed = {name: copy.deepcopy(layer).eval() for name, layer in convs.items()}
    return {
        TRAINING: {PLAIN: training(yardstick, flat)} | {name: training(conv, x) for name, conv in convs.items()},
        EVALUATION: {PLAIN: evaluation(copy.deepcopy(yardstick), flat)}
        | {name: evaluation(conv, x) for name, conv in fixed.items()},
        BAKED: {name: evaluation(bake(conv), x) for name, conv in fixed.items()},
        KERNELS: {name: kernels(conv) for name, conv in convs.items()},
    }


def measure(
    found: dict[str, dict[str, Action]],
    device: str,
    rounds: int,
    minutes: float,
    progress: Callable[[int, int], None],
) -> Seconds:
    """The seconds of all actions, which take turns; after a round that does not count."""
    turns = [(kind, name, repeated(run, 1, device)) for kind, named in found.items() for name, run in named.items()]
    seconds: Seconds = {kind: {name: [] for name in named} for kind, named in found.items()}
    interleaved([action for *_, action in turns], repeats=1, seconds=math.inf)
    stop = time.monotonic() + 60 * minutes
    for done in range(rounds):
        if done >= 3 and time.monotonic() > stop:
            break
        if device == "cpu":
            wait_until_quiet(stop)
        taken = interleaved([action for *_, action in turns], repeats=1, seconds=math.inf)
        for (kind, name, _), (value,) in zip(turns, taken, strict=True):
            seconds[kind][name].append(value)
        progress(done + 1, rounds)
    return seconds


@torch.no_grad()
def quarter_turn_error(layer: GroupConv) -> float:
    """The relative error of equivariance under a quarter turn."""
    layer = copy.deepcopy(layer).eval()
    g = layer.samples.elements[SAMPLES // 4]
    x = torch.randn(2, layer.in_channels, SAMPLES, SIZE, SIZE, device=g.device)
    y = layer(x)
    moved = layer(transform(x, GROUP, g, layer.samples))
    return ((moved - transform(y, GROUP, g, layer.samples)).norm() / y.norm()).item()


@torch.no_grad()
def convolutions(layer: GroupConv, yardstick: nn.Conv2d) -> str:
    """What the layer flattens to, in words."""
    steps = layer.flattened(layer.inputs, layer.samples)
    if len(steps) == 1 and steps[0][1] == 1 and steps[0][0].shape == yardstick.weight.shape:
        return "the plain one"
    words = []
    for taps, groups in steps:
        window = "x".join(map(str, taps.shape[2:]))
        words.append(f"{groups * taps.shape[1]} to {taps.shape[0]}, {window}" + f" in {groups} groups" * (groups > 1))
    return "; ".join(words)


def described(convs: dict[str, GroupConv], yardstick: nn.Conv2d) -> list[Layer]:
    """The layers, the plain convolution first."""
    window = "x".join(map(str, yardstick.kernel_size))
    words = f"{yardstick.in_channels} to {yardstick.out_channels}, {window}"
    return [Layer(PLAIN, words, parameters(yardstick), None)] + [
        Layer(name, convolutions(conv, yardstick), parameters(conv), quarter_turn_error(conv))
        for name, conv in convs.items()
    ]


def parameters(layer: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in layer.parameters())


def quartiles(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Of the ratios within each round: the lower quartile, the median and the upper one."""
    ratios = torch.tensor([a / b for a, b in zip(above, below, strict=True)], dtype=torch.float64)
    return tuple(ratios.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist())


def bars(seconds: Seconds) -> list[Bar]:
    """What group layers shall cost, and what they do."""
    train, evaluate = seconds[TRAINING], seconds[EVALUATION]
    return [
        Bar("none in training, over the plain convolution", quartiles(train["none"], train[PLAIN]), 1.25),
        Bar("none at evaluation, over the plain convolution", quartiles(evaluate["none"], evaluate[PLAIN]), 1.10),
        Bar("none over separable, in training", quartiles(train["none"], train["separable"]), 2.0, at_least=True),
    ]


def tables(measured: Measured) -> list[Table]:
    """What a terminal has room for: the layers, and whether the bars hold."""
    layers = chosen_columns("Group layers", HEAD, rows(measured), SHORT)
    return [layers, ("What they shall cost", BARS_HEAD, bar_rows(measured))]


def rows(measured: Measured) -> list[list[str]]:
    """A line for each layer; the plain convolution has no kernels to make."""
    seconds, lines = measured.seconds, []
    for layer in measured.layers:
        cells = [layer.name, layer.convolutions, f"{layer.parameters:,}"]
        against = {TRAINING: seconds[TRAINING][PLAIN], EVALUATION: seconds[EVALUATION][PLAIN]}
        against |= {BAKED: against[EVALUATION], KERNELS: seconds[TRAINING][layer.name]}
        for kind, below in against.items():
            taken = seconds[kind].get(layer.name)
            ratio = None if taken is None else quartiles(taken, below)[1]
            share = "-" if ratio is None else f"{ratio:.1%}" if kind == KERNELS else f"{ratio:.2f}"
            cells += ["-" if taken is None else f"{1e3 * statistics.median(taken):.3g}", share]
        lines.append([*cells, "-" if layer.error is None else f"{layer.error:.0e}"])
    return lines


def bar_rows(measured: Measured) -> list[list[str]]:
    """Whether each bar holds."""
    return [
        [
            *(bar.claim, f"{'at least' if bar.at_least else 'at most'} {bar.limit:.2f}", f"{bar.quartiles[1]:.2f}"),
            *(f"{bar.quartiles[0]:.2f} to {bar.quartiles[2]:.2f}", "yes" if bar.holds else "no"),
        ]
        for bar in bars(measured.seconds)
    ]


def peers_table() -> str:
    """Ratios of others."""
    lines = [(peer.layer, f"{peer.parameters:,}", f"{peer.ratio:.2f}", f"{peer.error:.0e}") for peer in PEERS]
    return table(("layer", "parameters", "forward and backward, ratio of CPU time", "90° error"), lines)


def write_report(measured: Measured, out: Path, command: str | None = None) -> None:
    """Write `groups.md`, `groups.json` and, where matplotlib is installed, `groups.png` into the folder; of a graphics
    processor `groups_cuda.md` and so on.

    `command`: how the benchmark was called; None takes it from the interpreter.
    """
    name = "groups_cuda" if measured.device == "cuda" else "groups"
    about = provenance(SEED, measured.device, command)
    sizes = {"batch": measured.batch, "channels": measured.channels, "rounds": measured.rounds}
    told = ABOUT.format(samples=SAMPLES, size=SIZE, taps="x".join([str(2 * REACH + 1)] * 2), **sizes)
    parts = [told, table(HEAD, rows(measured))]
    if save(out / f"{name}.png", lambda: draw(measured)):
        parts.append(f"![times of the plain convolution]({name}.png)")
    parts += [
        "## What they shall cost",
        table(BARS_HEAD, bar_rows(measured)),
        "## Layers of others",
        PEERS_ABOUT,
        peers_table(),
    ]
    data = {
        "about": about | sizes,
        "layers": [asdict(layer) for layer in measured.layers],
        "seconds": measured.seconds,
        "bars": [asdict(bar) | {"holds": bar.holds} for bar in bars(measured.seconds)],
        "peers": [asdict(peer) for peer in PEERS],
    }
    write(out, name, markdown("Group layers and the plain convolution", about, *parts), data)


def draw(measured: Measured) -> Figure:
    """Times of the plain convolution that each layer takes, in training, at evaluation and baked: medians and the
    middle half of the rounds.
    """
    matplotlib: Any = require("matplotlib.figure", extra="plots", purpose="figures")
    figure: Figure = matplotlib.Figure(figsize=(8, 3.2), layout="constrained")
    axes, names = figure.subplots(), [layer.name for layer in measured.layers[1:]]
    for i, kind in enumerate((TRAINING, EVALUATION, BAKED)):
        below = measured.seconds[TRAINING if kind == TRAINING else EVALUATION][PLAIN]
        parts = [quartiles(measured.seconds[kind][name], below) for name in names]
        middle = [part[1] for part in parts]
        spread = [[part[1] - part[0] for part in parts], [part[2] - part[1] for part in parts]]
        places = [place + 0.26 * (1 - i) for place in range(len(names))]
        axes.barh(places, middle, 0.26, xerr=spread, label=kind, error_kw={"linewidth": 1})
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("times of the plain convolution")
    axes.legend()
    return figure
