"""Byte-level Hyena and MultiHyena, trained and distilled: what a recurrence of every order changes.

python benchmarks/language.py DATA --out docs/results

DATA: a text file, such as tinyshakespeare.txt.xz; its last tenth is held out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from _report import called, markdown, provenance, table, write
from torch import Tensor

mpl.use("Agg")
import matplotlib.pyplot as plt

from omniconv.data import Windows, read_tokens
from omniconv.kernels import HyenaFilter
from omniconv.models import Hyena, MultiHyena, Network, read_config
from omniconv.models.hyena import GatedNetwork
from omniconv.nn import Conv
from omniconv.recurrence import Stream, distill, hankel_singular_values, stream
from omniconv.training import Agreement, Recipe, Run, compare, distill_language, train_language

NETWORKS = ("Hyena", "MultiHyena")
JUDGES = 64
"""Held-out windows by which a stream is chosen."""

KEYS, PAIRS = 8, 24
"""Associative recall: keys, and as many values; pairs before the question."""

ABOUT = """Bytes of {name}, {training:,} to train and {held_out:,} held out. Networks of {blocks} blocks, {width} wide,
with vectors that are the read-out too, filters of {hidden} hidden units and frequency {frequency:g}; windows of
{length} bytes. MultiHyena: {filters} filters per block, heads {head_width} wide. {epochs} epochs in batches of
{batch} windows, AdamW, highest learning rate {lr:g}, dropout {dropout:g}.

*runs as*: `recurrence.stream(model, order=..)`, or with `tol`, where every layer takes the smallest order that keeps
all its filters to that relative error; *automatic* is what `training.distill_language` takes, by the first {judges}
held-out windows: the first order with which the loss changes by at most 0.005 and 98 % of the likeliest
bytes are the same. All held-out windows, {tokens:,} bytes, go through the recurrence byte by byte,
each window from silence; *change* is that of the loss against the convolution, in nats per byte. *same*: the share
of bytes for which both hold the same next byte the likeliest. *greedy*: the share of {greedy} bytes behind {prompts}
prompts that greedy generation continues alike. *filter error*: relative l2, the worst filter of the network. *bytes
of state*: of one stream, in float32."""
RECALL = """## Associative recall

{pairs} pairs of {keys} keys and {keys} values, then a key: which value did it have? {epochs} epochs of {training:,}
sequences; accuracy on {tests:,} others. {blocks} blocks, {width} wide."""
BOUNDS = """## Trained filters against the Hankel bound

No recurrence of that order has a Hankel-norm error below the next singular value of a filter's Hankel matrix. The l2
error of `recurrence.distill` over all lags, also those behind the last tap, as a multiple of it, over all filters of
the trained networks; filters whose bound is below 1e-6 of their norm are left out, where rounding decides."""


@dataclass
class Result:
    """One network, run in one way. `states`: by long convolution."""

    network: str
    runs_as: str
    states: list[int]
    loss: float
    change: float
    top_1: float
    greedy: float
    filter_error: float
    nbytes: int


@dataclass
class Recall:
    """Accuracy of a network on associative recall, run in one way."""

    network: str
    runs_as: str
    states: list[int]
    accuracy: float


@dataclass
class Bound:
    """Errors of the trained filters of one network, as multiples of the Hankel bound."""

    network: str
    order: int
    median: float
    largest: float
    filters: int


def build(name: str, tokens: int, length: int, options: argparse.Namespace, width: int) -> GatedNetwork:
    """The network, newly drawn."""
    torch.manual_seed(options.seed)
    kernel = partial(HyenaFilter, hidden=options.hidden, frequency=options.frequency)
    common: dict[str, Any] = {"blocks": options.blocks, "head": "dense", "tokens": tokens, "tied": True}
    common |= {"kernel": kernel, "dropout": options.dropout}
    if name == "Hyena":
        return Hyena(width, tokens, length, width=width, **common)
    heads = options.head_width
    return MultiHyena(width, tokens, length, n_filters=width // heads, head_width=heads, **common)


def trained(
    name: str, windows: Windows, tokens: int, options: argparse.Namespace, width: int, epochs: int
) -> tuple[Network, float]:
    """The network, trained on windows, and how many seconds that took.

    If an earlier run left it in the folder of networks, it is read from there.
    """
    folder = None if options.models is None else options.models / f"{name}_{tokens}_{width}_{epochs}"
    if folder is not None and folder.exists():
        return Network.from_pretrained(folder), float(read_config(folder)["seconds"])
    model = build(name, tokens, windows.length, options, width)
    recipe = Recipe(epochs=epochs, batch_size=options.batch, lr=options.lr, weight_decay=0.1, seed=options.seed)
    began = time.monotonic()
    train_language(model, windows, recipe=recipe, run=Run(device="cpu", progress=True))
    seconds = time.monotonic() - began
    if folder is not None:
        model.save_pretrained(folder, extra={"seconds": seconds})
    return model.eval(), seconds


def ways(options: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """How the trained networks run, each with the arguments of `stream`."""
    orders = [(f"order {order}", {"order": order}) for order in options.orders]
    return [*orders, *((f"tol {tol:g}", {"tol": tol}) for tol in options.tols), ("taps, exact", {})]


def long_states(streamed: Any) -> list[int]:
    """Numbers of state per channel of the long convolutions."""
    return [layer.states for layer in streamed.certificate.layers if ".long" in layer.name]


def greedy(network: Any, prompts: Tensor, count: int) -> Tensor:
    """What greedy generation says."""
    tokens: Tensor = network.generate(prompts, count, temperature=0).ids
    return tokens


def measured(name: str, model: Network, held_out: Windows, options: argparse.Namespace) -> list[Result]:
    """One trained network in every way, that which `distill_language` finds among them."""
    prompts = torch.from_numpy(np.stack([held_out[i][0] for i in range(options.prompts)])).long()[:, :-1]
    exact = greedy(stream(model), prompts, options.greedy)
    first = Windows(held_out.ids[: JUDGES * held_out.length + 1], held_out.length)
    found, attempts = distill_language(model, first)
    chosen = "exact" if attempts[-1].order is None else f"order {attempts[-1].order}"
    streams = [(runs_as, stream(model, **arguments)) for runs_as, arguments in ways(options)]
    results = []
    for runs_as, streamed in [*streams, (f"automatic, {chosen}", found)]:
        said = greedy(streamed, prompts, options.greedy)
        results.append(
            result(name, runs_as, streamed, compare(model, streamed, held_out, batch_size=64), said == exact)
        )
        print(results[-1], flush=True)
    return results


def result(name: str, runs_as: str, streamed: Stream, found: Agreement, alike: Tensor) -> Result:
    """The line of one stream."""
    return Result(
        name,
        runs_as,
        long_states(streamed),
        found.other,
        found.difference,
        found.top_1,
        float(alike.float().mean()),
        max(layer.relative for layer in streamed.certificate.layers),
        streamed.init_state(1).nbytes,
    )


def bounds(name: str, model: Network, options: argparse.Namespace) -> list[Bound]:
    """Errors of the long filters of a trained network against what is possible."""
    convs = [module for key, module in model.named_modules() if isinstance(module, Conv) and ".long" in key]
    taps = torch.cat([conv.taps().detach().double() for conv in convs])
    singular, norms = hankel_singular_values(taps), taps[:, 1:].norm(dim=1)
    found = []
    for order in options.orders:
        if order > 32:
            continue
        _, report = distill(taps, order=order)
        floor = singular[:, order]
        kept = floor > 1e-6 * norms
        if bool(kept.any()):
            ratio = (report.certificate.l2 / floor)[kept]
            found.append(Bound(name, order, float(ratio.median()), float(ratio.max()), int(kept.sum())))
    return found


def recall_sequences(count: int, seed: int) -> np.ndarray[Any, Any]:
    """Sequences of pairs, a key that occurred, and its value: (count, 2 * PAIRS + 2)."""
    random = np.random.default_rng(seed)
    values = random.integers(KEYS, 2 * KEYS, (count, KEYS))
    keys = random.integers(0, KEYS, (count, PAIRS))
    asked = keys[np.arange(count), random.integers(0, PAIRS, count)]
    keys = np.concatenate([keys, asked[:, None]], axis=1)
    return np.stack([keys, np.take_along_axis(values, keys, 1)], axis=-1).reshape(count, -1)


def recalled(name: str, options: argparse.Namespace) -> list[Recall]:
    """Train on recall, and ask the network and its recurrences."""
    length = 2 * PAIRS + 1
    sequences = recall_sequences(options.recall, options.seed)
    windows = Windows(sequences.ravel(), length, length + 1)
    small = argparse.Namespace(**vars(options) | {"batch": 64, "dropout": 0.0, "lr": options.recall_lr})
    model, _ = trained(name, windows, 2 * KEYS, small, options.recall_width, options.recall_epochs)
    tests = torch.from_numpy(recall_sequences(2000, options.seed + 1))
    asked, answers = tests[:, :-1], tests[:, -1]

    def accuracy(predict: Callable[[Tensor], Tensor]) -> float:
        return float((predict(asked).argmax(1) == answers).float().mean())

    with torch.no_grad():
        found = [Recall(name, "convolution", [], accuracy(lambda ids: model(ids)[..., -1]))]
    for runs_as, arguments in ways(options):
        if arguments.get("order", 0) > (length - 1) // 2:
            continue
        streamed = stream(model, **arguments)
        share = accuracy(partial(stepped, streamed))
        found.append(Recall(name, runs_as, long_states(streamed), share))
    return found


def stepped(streamed: Any, ids: Tensor) -> Tensor:
    """The last outputs of a stream that is fed token by token."""
    state = streamed.init_state(len(ids))
    for token in ids.unbind(1):
        outputs, state = streamed.step(token, state)
    return outputs


def figure(results: list[Result], path: Path) -> None:
    """Change of the loss and agreement against the order."""
    panels, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name in dict.fromkeys(result.network for result in results):
        rows = [result for result in results if result.network == name and result.runs_as.startswith("order")]
        orders = [int(result.runs_as.split()[1]) for result in rows]
        left.plot(orders, [abs(result.change) for result in rows], "o-", label=name)
        right.plot(orders, [100 * (1 - result.top_1) for result in rows], "o-", label=name)
    left.axhline(0.005, color="0.6", linestyle="--", linewidth=1)
    right.axhline(2, color="0.6", linestyle="--", linewidth=1)
    left.set(xscale="log", yscale="log", xlabel="real states per channel", ylabel="|change of loss|, nats per byte")
    right.set(xscale="log", yscale="log", xlabel="real states per channel", ylabel="other likeliest byte, %")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.legend()
    panels.savefig(path, dpi=120)
    plt.close(panels)


def row(result: Result) -> list[str]:
    """The line of one result."""
    states = ", ".join(map(str, dict.fromkeys(result.states)))
    return [
        result.network,
        result.runs_as,
        states,
        f"{result.loss:.4f}",
        f"{result.change:+.4f}",
        f"{result.top_1:.4f}",
        f"{result.greedy:.3f}",
        f"{result.filter_error:.1e}",
        f"{result.nbytes:,}",
    ]


HEAD = ("network", "runs as", "states per filter", "loss", "change", "same", "greedy", "filter error", "bytes of state")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a text file, packed or not")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page, the figure and the JSON")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--bytes", type=int, default=None, help="of the text; all if left out")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--head_width", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=32, help="units of the filters' networks")
    parser.add_argument("--frequency", type=float, default=1.0)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=0.005)
    parser.add_argument(
        "--orders", type=lambda text: [int(word) for word in text.split(",")], default=[2, 4, 8, 16, 32, 64]
    )
    parser.add_argument("--tols", type=lambda text: [float(word) for word in text.split(",")], default=[0.3, 0.1])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--greedy", type=int, default=64)
    parser.add_argument("--recall", type=int, default=20_000, help="sequences of associative recall; 0 leaves it out")
    parser.add_argument("--recall_epochs", type=int, default=6)
    parser.add_argument("--recall_width", type=int, default=64)
    parser.add_argument("--recall_lr", type=float, default=0.005)
    parser.add_argument("--models", type=Path, default=None, help="folder to keep trained networks in, or to read from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ids, tokens = read_tokens(options.data)
    ids = ids[: options.bytes]
    cut = len(ids) * 9 // 10
    windows, held_out = Windows(ids[:cut], options.length), Windows(ids[cut:], options.length)
    results, limits, recall, seconds = list[Result](), list[Bound](), list[Recall](), dict[str, float]()
    for name in options.networks.split(","):
        model, took = trained(name, windows, tokens, options, options.width, options.epochs)
        seconds[name] = round(took, 1)
        results += measured(name, model, held_out, options)
        limits += bounds(name, model, options)
        recall += recalled(name, options) if options.recall else []
    options.out.mkdir(parents=True, exist_ok=True)
    figure(results, options.out / "language.png")
    report(results, limits, recall, seconds, options, (ids, held_out), parser)


def report(
    results: list[Result],
    limits: list[Bound],
    recall: list[Recall],
    seconds: dict[str, float],
    options: argparse.Namespace,
    data: tuple[Any, Windows],
    parser: argparse.ArgumentParser,
) -> None:
    """The page and the JSON."""
    ids, held_out = data
    about = provenance(options.seed) | {"command": called("language.py", options, parser)}
    shown = vars(options) | {"name": options.data.name, "training": len(ids) * 9 // 10}
    shown |= {"judges": JUDGES, "held_out": len(ids) - len(ids) * 9 // 10, "tokens": len(held_out) * options.length}
    shown["filters"] = options.width // options.head_width
    parts = [ABOUT.format(**shown), table(HEAD, [row(result) for result in results]), "![order](language.png)"]
    lines = [[b.network, str(b.order), f"{b.median:.2f}", f"{b.largest:.2f}", str(b.filters)] for b in limits]
    parts += [BOUNDS, table(("network", "order", "median", "largest", "filters"), lines)]
    if recall:
        shown |= {"pairs": PAIRS, "keys": KEYS, "tests": 2000, "epochs": options.recall_epochs}
        shown |= {"training": options.recall, "width": options.recall_width}
        told = [
            [r.network, r.runs_as, ", ".join(map(str, dict.fromkeys(r.states))) or "-", f"{r.accuracy:.4f}"]
            for r in recall
        ]
        parts += [RECALL.format(**shown), table(("network", "runs as", "states per filter", "accuracy"), told)]
    parts.append(f"Training took {json.dumps(seconds)} s.")
    page = markdown("Language models as recurrences", about, *parts)
    lists: dict[str, list[Any]] = {"results": results, "bounds": limits, "recall": recall}
    found = {key: [asdict(one) for one in values] for key, values in lists.items()}
    write(options.out, "language", page, {"about": about, "seconds": seconds, **found})


if __name__ == "__main__":
    main()
