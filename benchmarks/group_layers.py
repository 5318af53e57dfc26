"""Times group convolutions, in training and at evaluation, beside the plain convolution of their flattened size.

python benchmarks/group_layers.py --out docs/results
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from _report import interleaved, markdown, provenance, table, wait_until_quiet, write
from torch import Tensor, nn

from omniconv.export import bake
from omniconv.groups import SO2, transform
from omniconv.nn import GroupConv
from omniconv.nn.group_conv import FACTORIZATIONS

SEED = 0
GROUP, SAMPLES, SIZE, REACH = SO2(), 8, 28, 2
MINUTES = 3.0
"""After three rounds, no round begins later than this."""

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


def plain(channels: int) -> nn.Conv2d:
    """The convolution of the flattened size."""
    flat = channels * SAMPLES
    return nn.Conv2d(flat, flat, 2 * REACH + 1, padding=REACH)


def group_convs(channels: int) -> dict[str, GroupConv]:
    """A layer for each factorization."""
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


def measure(found: dict[str, dict[str, Action]], rounds: int) -> Seconds:
    """The seconds of all actions, which take turns; after a round that does not count."""
    turns = [(kind, name, action) for kind, named in found.items() for name, action in named.items()]
    seconds: Seconds = {kind: {name: [] for name in named} for kind, named in found.items()}
    interleaved([action for *_, action in turns], repeats=1, seconds=math.inf)
    stop = time.monotonic() + 60 * MINUTES
    for done in range(rounds):
        if done >= 3 and time.monotonic() > stop:
            break
        wait_until_quiet(stop)
        taken = interleaved([action for *_, action in turns], repeats=1, seconds=math.inf)
        for (kind, name, _), (value,) in zip(turns, taken, strict=True):
            seconds[kind][name].append(value)
    return seconds


@torch.no_grad()
def quarter_turn_error(layer: GroupConv) -> float:
    """The relative error of equivariance under a quarter turn."""
    layer = copy.deepcopy(layer).eval()
    x, g = torch.randn(2, layer.in_channels, SAMPLES, SIZE, SIZE), layer.samples.elements[SAMPLES // 4]
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


def layers_table(layers: Sequence[Layer], seconds: Seconds) -> str:
    """A row for each layer; the plain convolution has no kernels to make."""
    lines = []
    for layer in layers:
        cells = [layer.name, layer.convolutions, f"{layer.parameters:,}"]
        against = {TRAINING: seconds[TRAINING][PLAIN], EVALUATION: seconds[EVALUATION][PLAIN]}
        against |= {BAKED: against[EVALUATION], KERNELS: seconds[TRAINING][layer.name]}
        for kind, below in against.items():
            taken = seconds[kind].get(layer.name)
            ratio = None if taken is None else quartiles(taken, below)[1]
            share = "-" if ratio is None else f"{ratio:.1%}" if kind == KERNELS else f"{ratio:.2f}"
            cells += ["-" if taken is None else f"{1e3 * statistics.median(taken):.3g}", share]
        lines.append([*cells, "-" if layer.error is None else f"{layer.error:.0e}"])
    return table(HEAD, lines)


def bars_table(found: Sequence[Bar]) -> str:
    """Whether each bar holds."""
    lines = [
        (
            *(bar.claim, f"{'at least' if bar.at_least else 'at most'} {bar.limit:.2f}", f"{bar.quartiles[1]:.2f}"),
            *(f"{bar.quartiles[0]:.2f} to {bar.quartiles[2]:.2f}", "yes" if bar.holds else "no"),
        )
        for bar in found
    ]
    return table(("ratio", "bar", "measured", "middle half of the rounds", "holds"), lines)


def peers_table() -> str:
    """Ratios of others."""
    lines = [(peer.layer, f"{peer.parameters:,}", f"{peer.ratio:.2f}", f"{peer.error:.0e}") for peer in PEERS]
    return table(("layer", "parameters", "forward and backward, ratio of CPU time", "90° error"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of group_layers.md and .json")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    convs, yardstick = group_convs(options.channels), plain(options.channels)
    x = torch.randn(options.batch, options.channels, SAMPLES, SIZE, SIZE)
    layers = described(convs, yardstick)
    seconds = measure(actions(convs, yardstick, x), options.rounds)
    found, about = bars(seconds), provenance(SEED)
    sizes = {"batch": options.batch, "channels": options.channels, "rounds": len(seconds[TRAINING][PLAIN])}
    told = ABOUT.format(samples=SAMPLES, size=SIZE, taps="x".join(map(str, yardstick.kernel_size)), **sizes)
    parts = [told, layers_table(layers, seconds), "## What they shall cost", bars_table(found)]
    parts += ["## Layers of others", PEERS_ABOUT, peers_table()]
    page = markdown("Group layers and the plain convolution", about, *parts)
    print(page)
    data = {"about": about, "layers": [asdict(layer) for layer in layers], "seconds": seconds}
    data |= {"bars": [asdict(bar) | {"holds": bar.holds} for bar in found], "peers": [asdict(peer) for peer in PEERS]}
    write(options.out, "group_layers", page, data)


if __name__ == "__main__":
    main()
