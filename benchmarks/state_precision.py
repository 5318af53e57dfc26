"""What a state in bfloat16 changes in a trained language model that runs as a recurrence.

python benchmarks/state_precision.py DATA --out docs/results

DATA: a text file, such as tinyshakespeare.txt.xz; its last tenth is held out.
"""

from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _report import called, markdown, provenance, table, write
from language import NETWORKS, trained
from torch import Tensor

from omniconv.data import Windows, read_tokens
from omniconv.models import Network
from omniconv.recurrence import Decoder, Stream, stream

DTYPES = (torch.float32, torch.bfloat16)
ABOUT = """Bytes of {name}, {training:,} to train and {held_out:,} held out. Networks of {blocks} blocks, {width} wide,
trained as in `language.py` (passes over the text: {epochs}) on windows of {length} bytes, and distilled by
`recurrence.stream(model, order=..)`.

`recurrence.Decoder` steps through {windows} held-out windows byte by byte, {batch} at a time, with its states in either
precision; sums are in float32. *change* is that of the loss against the convolution, in nats per byte, over
{tokens:,} bytes each of which was predicted from the state alone. *same*: the share of them for which decoder and
convolution hold the same next byte the likeliest; *as float32*: the same against the decoder with states in float32.
*slowest pole*: 1 - its modulus: below 2^-8 = 0.0039 the decoder warns that states in bfloat16 stick. *bytes of state*:
of one text."""
HEAD = ("network", "order", "state", "loss", "change", "same", "as float32", "slowest pole", "bytes of state")


@dataclass
class Result:
    """One network with states of one order and precision."""

    network: str
    order: int
    state: str
    loss: float
    change: float
    same: float
    as_float32: float
    slowest: float
    nbytes: int


def loss_of(logits: Tensor, wanted: Tensor) -> float:
    """Nats per byte."""
    return float(F.cross_entropy(logits.double(), wanted))


@torch.no_grad()
def stepped(streamed: Stream, ids: Tensor, batch: int, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Logits (windows, bytes, length) behind every byte, step by step from silence; and the bytes of one state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of slow poles, which the table shows
        decoder = Decoder(streamed, batch, state_dtype=dtype)
    found = []
    for windows in ids.split(batch):
        state, outputs = streamed.init_state(batch), []
        decoder.load(state)
        for token in windows.unbind(1):
            logits, state = decoder.step(token, state)
            outputs.append(logits.clone())
        found.append(torch.stack(outputs, -1))
    return torch.cat(found), decoder.nbytes // batch


@torch.no_grad()
def measured(name: str, model: Network, held_out: Windows, options: argparse.Namespace) -> list[Result]:
    """A trained network with states of every order and precision."""
    windows = torch.stack([torch.from_numpy(held_out[i][0]).long() for i in range(options.windows)])
    ids, wanted = windows[:, :-1], windows[:, 1:]
    exact = torch.cat([model(some) for some in ids.split(options.batch)])
    results = []
    for order in options.orders:
        streamed, likeliest = stream(model, order=order), {}
        slowest = 1 - max(float(modal.recurrence.poles.abs().max()) for modal in streamed.recurrences.values())
        for dtype in DTYPES:
            logits, nbytes = stepped(streamed, ids, options.batch, dtype)
            likeliest[dtype] = logits.argmax(1)
            same = float((likeliest[dtype] == exact.argmax(1)).double().mean())
            alike = float((likeliest[dtype] == likeliest[torch.float32]).double().mean())
            loss = loss_of(logits, wanted)
            state = str(dtype).removeprefix("torch.")
            results.append(
                Result(name, order, state, loss, loss - loss_of(exact, wanted), same, alike, slowest, nbytes)
            )
            print(results[-1], flush=True)
    return results


def row(result: Result) -> list[str]:
    """The line of one result."""
    shares = [f"{share:.4f}" for share in (result.same, result.as_float32)]
    losses = [f"{result.loss:.4f}", f"{result.change:+.5f}"]
    return [
        *(result.network, str(result.order), result.state),
        *(*losses, *shares, f"{result.slowest:.1e}", f"{result.nbytes:,}"),
    ]


def parsed() -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """The options, those of the trainings among them, and what they were read by."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a text file, packed or not")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page and the JSON")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    for name, count in (("epochs", 2), ("width", 128), ("blocks", 2), ("head_width", 2), ("length", 256)):
        parser.add_argument(f"--{name}", type=int, default=count)
    for name, value in (("frequency", 1.0), ("dropout", 0.1), ("lr", 0.005)):
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--hidden", type=int, default=32, help="units of the filters' networks")
    parser.add_argument("--batch", type=int, default=16, help="windows at a time")
    parser.add_argument("--windows", type=int, default=256, help="held-out windows to step through")
    parser.add_argument("--orders", type=lambda text: [int(word) for word in text.split(",")], default=[4, 16, 32, 64])
    parser.add_argument("--bytes", type=int, default=None, help="of the text; all if left out")
    parser.add_argument("--models", type=Path, default=None, help="folder to keep trained networks in, or to read from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    return parser.parse_args(), parser


def main() -> None:
    options, parser = parsed()
    torch.set_num_threads(options.threads)
    ids, tokens = read_tokens(options.data)
    ids = ids[: options.bytes]
    cut = len(ids) * 9 // 10
    windows, held_out = Windows(ids[:cut], options.length), Windows(ids[cut:], options.length)
    options.windows = min(options.windows, len(held_out)) // options.batch * options.batch  # a decoder takes no fewer
    results, seconds = list[Result](), dict[str, float]()
    for name in options.networks.split(","):
        model, took = trained(name, windows, tokens, options, options.width, options.epochs)
        seconds[name] = round(took, 1)
        results += measured(name, model, held_out, options)
    shown: dict[str, Any] = vars(options) | {"name": options.data.name, "training": cut, "held_out": len(ids) - cut}
    shown["tokens"] = options.windows * options.length
    about = provenance(options.seed) | {"command": called("state_precision.py", options, parser)}
    rows = [row(result) for result in results]
    told = f"Training took {json.dumps(seconds)} s."
    page = markdown("States of a recurrence in bfloat16", about, ABOUT.format(**shown), table(HEAD, rows), told)
    found = {"about": about, "seconds": seconds, "results": [asdict(result) for result in results]}
    write(options.out, "state_precision", page, found)


if __name__ == "__main__":
    main()
