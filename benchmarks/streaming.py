"""A trained causal network sample by sample: accuracy, bytes of state and time per sample, beside a sliding window.

python benchmarks/streaming.py --out docs/results

The data are the digits that scikit-learn carries, read pixel by pixel: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from _report import called, markdown, provenance, table, write
from torch import Tensor

from omniconv.data import ArraySamples, load_digits
from omniconv.kernels import SIREN, Modal
from omniconv.models import CCNN, CKCNN, Network
from omniconv.recurrence import Stream, stream
from omniconv.supports import Full, Gaussian
from omniconv.training import Classification, Recipe, Run, train

SCALE = 4
"""Every pixel is read so many times: 256 samples."""

SIZE = 64 * SCALE
SMOOTH = partial(SIREN, bandwidth=0.25 / SCALE)
NETWORKS: dict[str, Callable[[], Network]] = {
    "CCNN": lambda: CCNN(
        1, 10, SIZE, blocks=2, width=32, causal=True, kernel=SMOOTH, support=partial(Gaussian, width=0.3)
    ),
    "CCNN, modal": lambda: CCNN(
        1, 10, SIZE, blocks=2, width=32, causal=True, kernel=partial(Modal, modes=8), support=Full
    ),
    "CKCNN": lambda: CKCNN(1, 10, SIZE, blocks=2, width=16, norm="batch", kernel=SMOOTH),
}
TOLERANCES = (None, 1e-3, 1e-2, 1e-1)

ABOUT = """Handwritten digits of 8 x 8 pixels (scikit-learn), read in rows, every pixel {scale} times: causal series
of {size} samples, {training:,} to train and {tests} to test. Networks are trained as convolutions for {epochs} epochs
in batches of 32, AdamW, highest learning rate 0.01. *stream*: `recurrence.stream(model, tol=..., horizon={size})`,
called sample by sample; exact without a tolerance, where it remembers as many samples as there are taps. *sliding
window*: the network itself, called for every sample with the last {size}.

Accuracy is of the prediction behind the last sample; *same* is the share of the test series for which it is the
network's own, *largest change* that of a class probability. *bound*: what the certificate says that an output can be
off, for inputs up to those of the data. Bytes of state are of one stream, in float32. Microseconds per sample: the
median of {rounds} interleaved rounds of 64 samples, one stream at a time, on {threads} thread(s). *prefill*: the same
for {size} samples in one call.

The kernels are SIRENs with frequencies up to a sixteenth of the Nyquist frequency and a Gaussian support (CCNN), sums
of eight complex exponentials (CCNN, modal), which are recurrences themselves, and dense SIRENs of the same bandwidth
without a support (CKCNN)."""
HEAD = ("network", "runs as", "states per channel", "accuracy", "same", "largest change", "bound", "bytes of state",
        "us per sample", "prefill, us per sample")  # fmt: skip


@dataclass
class Result:
    """One way to run one network."""

    network: str
    runs_as: str
    states: list[int]
    """By convolution."""
    accuracy: float
    same: float
    change: float
    bound: float
    nbytes: int
    step_us: float
    prefill_us: float


@lru_cache
def series(split: str) -> tuple[Tensor, Tensor]:
    """Series (n, 1, size) and digits."""
    digits = load_digits()
    view = next(view for view in digits.views if view.causal)
    signals, labels = (view.train, digits.train_labels) if split == "train" else (view.test, digits.test_labels)
    return signals.repeat_interleave(SCALE, dim=-1).float(), labels


def trained(name: str, signals: Tensor, labels: Tensor, options: argparse.Namespace) -> Network:
    """The network, trained as a convolution."""
    torch.manual_seed(options.seed)
    model = NETWORKS[name]()
    recipe = Recipe(epochs=options.epochs, batch_size=32, seed=options.seed)
    samples = ArraySamples(signals.numpy(), labels.numpy())
    train(model, Classification(tuple(range(10))), samples, recipe=recipe, run=Run(device="cpu", progress=True))
    return model.eval()


def sliding(model: Network) -> Callable[[Tensor], Tensor]:
    """The network called with the last samples, for every sample (1, 1)."""
    window = torch.zeros(1, 1, SIZE)

    @torch.no_grad()
    def step(x: Tensor) -> Tensor:
        nonlocal window
        window = torch.cat([window[..., 1:], x[..., None]], dim=-1)
        return model(window)

    return step


def stepping(streamed: Stream) -> Callable[[Tensor], Tensor]:
    """The stream called sample by sample."""
    state = streamed.init_state(1)

    def step(x: Tensor) -> Tensor:
        nonlocal state
        y, state = streamed.step(x, state)
        return y

    return step


def prefilling(streamed: Stream) -> Callable[[Tensor], Tensor]:
    """The stream called with a whole signal."""
    return lambda x: streamed.prefill(x)[0]


def timed(ways: list[Callable[[Tensor], Tensor]], samples: list[Tensor], rounds: int) -> list[float]:
    """Microseconds per sample of every way, medians of interleaved rounds."""
    found: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, times in zip(ways, found, strict=True):
            began = time.perf_counter()
            for sample in samples:
                way(sample)
            times.append((time.perf_counter() - began) / len(samples) * 1e6)
    return [statistics.median(times) for times in found]


@torch.no_grad()
def measured(name: str, model: Network, options: argparse.Namespace) -> list[Result]:
    """Run a trained network in every way."""
    signals, labels = series("test")
    own = model(signals).softmax(1)
    peak = float(model.standardize(signals).abs().max())
    streams = [stream(model, tol=tol, horizon=SIZE) for tol in TOLERANCES]
    samples = list(torch.randn(64, 1, 1))
    step_us = timed([*map(stepping, streams), sliding(model)], samples, options.rounds)
    whole = [prefilling(one) for one in streams]
    prefill_us = [us / SIZE for us in timed([*whole, model], [signals[:1]], options.rounds)]
    results = []
    for tol, one, step, prefill in zip(TOLERANCES, streams, step_us, prefill_us, strict=False):
        shares = torch.cat([one.prefill(part)[0][..., -1] for part in signals.split(64)]).softmax(1)
        results.append(
            Result(
                name,
                "stream, exact" if tol is None else f"stream, tol {tol:g}",
                [layer.states for layer in one.certificate.layers],
                float((shares.argmax(1) == labels).float().mean()),
                float((shares.argmax(1) == own.argmax(1)).float().mean()),
                float((shares - own).abs().max()),
                float(one.certificate.within(peak).max()),
                one.init_state(1).nbytes,
                step,
                prefill,
            )
        )
    right = float((own.argmax(1) == labels).float().mean())
    window = F.pad(torch.zeros(1), (0, SIZE - 1)).nbytes
    results.append(Result(name, "sliding window", [], right, 1.0, 0.0, 0.0, window, step_us[-1], prefill_us[-1]))
    return results


def row(result: Result) -> list[str]:
    """The line of one result."""
    return [
        result.network,
        result.runs_as,
        ", ".join(map(str, result.states)) or "-",
        f"{result.accuracy:.4f}",
        f"{result.same:.4f}",
        f"{result.change:.1e}",
        f"{result.bound:.1e}",
        f"{result.nbytes:,}",
        f"{result.step_us:.0f}",
        f"{result.prefill_us:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the page and the JSON")
    parser.add_argument("--networks", default=";".join(NETWORKS), help="some of them, with semicolons in between")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: list[Result] = []
    for name in options.networks.split(";"):
        results += measured(name, trained(name, *series("train"), options), options)
    about = provenance(options.seed) | {"command": called("streaming.py", options, parser)}
    counts = {part: len(series(part)[1]) for part in ("train", "test")}
    told = ABOUT.format(**vars(options), scale=SCALE, size=SIZE, training=counts["train"], tests=counts["test"])
    page = markdown("Networks sample by sample", about, told, table(HEAD, [row(one) for one in results]))
    write(options.out, "streaming", page, {"about": about, "results": [asdict(one) for one in results]})


if __name__ == "__main__":
    main()
