"""Recurrences for long kernels: errors by method and order beside the Hankel bound, and the time for a large layer.

python benchmarks/distillation.py --out docs/results
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from _report import called, markdown, provenance, table, write
from torch import Tensor

from omniconv.kernels import SIREN, HyenaFilter
from omniconv.recurrence import distill, hankel_singular_values

METHODS = (
    ("esprit", "all"),
    ("esprit", "those of the taps"),
    ("balanced", "those of the taps"),
    ("prony", "those of the taps"),
    ("interpolation", "those of the taps"),
)
"""Each with the lags at which errors count."""

ORDERS = (8, 16, 32)

ABOUT = """Kernels of {length} lags and {channels} channels as they are initialised, not trained: *Hyena*,
`HyenaFilter`; *SIREN*, `SIREN(bandwidth=0.05)` under a Gaussian of standard deviation 0.2. Every method is followed
by least squares for the residues and ten steps of Levenberg and Marquardt's method; *interpolation* takes {steps}
steps of Adam. Errors are in l2, relative to the kernel, over *lags*: those of its {length} taps, or all, also where
the kernel is silent and the recurrence goes on. *bound* is the ratio of the l2 error to the singular value of the
Hankel matrix behind the order, of which 2 is the bar. CPU seconds are of all channels and threads.

The large layer: {filters:,} filters of `HyenaFilter` with {long:,} lags at order 16, by the default method."""
HEAD = (
    "kernel",
    "method",
    "lags",
    "order",
    "median error",
    "largest error",
    "median / bound",
    "largest / bound",
    "CPU s",
)


@dataclass
class Result:
    """One method at one order."""

    kernel: str
    method: str
    lags: str
    order: int
    errors: list[float]
    """Relative l2, by channel."""
    ratios: list[float]
    """Of the l2 errors to the Hankel bound."""
    cpu_seconds: float


@torch.no_grad()
def kernels(name: str, channels: int, length: int) -> Tensor:
    """Taps (channels, length) in float64."""
    torch.manual_seed(0)
    at = (torch.arange(length, dtype=torch.float64) / (length - 1))[:, None]
    if name == "Hyena":
        return HyenaFilter(1, channels, reach=length - 1, causal=True).double()(at).T.contiguous()
    values = SIREN(1, channels, reach=length - 1, causal=True, bandwidth=0.05).double()(at)
    return (values * torch.exp(-((at / 0.2) ** 2) / 2)).T.contiguous()


def measured(name: str, options: argparse.Namespace) -> list[Result]:
    """Every method at every order."""
    taps = kernels(name, options.channels, options.length)
    bounds, results = hankel_singular_values(taps), []
    for method, lags in METHODS:
        horizon = None if lags == "all" else options.length
        for order in ORDERS:
            began = time.process_time()
            _, report = distill(taps, order=order, method=method, steps=options.steps, horizon=horizon)
            seconds, found = time.process_time() - began, report.certificate
            ratios = (found.l2 / bounds[:, order]).tolist()
            results.append(Result(name, method, lags, order, found.relative.tolist(), ratios, seconds))
            print(f"{name}, {method}, {order}: {found.relative.median():.1e}, {seconds:.1f} s", flush=True)
    return results


def row(result: Result) -> list[str]:
    """The line of one result."""
    errors, ratios = torch.tensor(result.errors), torch.tensor(result.ratios)
    return [
        result.kernel,
        result.method,
        result.lags,
        str(result.order),
        f"{errors.median():.1e}",
        f"{errors.max():.1e}",
        f"{ratios.median():.2f}",
        f"{ratios.max():.2f}",
        f"{result.cpu_seconds:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the page and the JSON")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=1000, help="of gradient descent")
    parser.add_argument("--filters", type=int, default=2048, help="of the large layer")
    parser.add_argument("--long", type=int, default=2048, help="lags of the large layer")
    options = parser.parse_args()
    results = [result for name in ("Hyena", "SIREN") for result in measured(name, options)]
    large = kernels("Hyena", options.filters, options.long)
    took, told = [], [f"On {torch.get_num_threads()} threads:"]
    for lags, horizon in (("all lags", None), ("those of the taps", options.long)):
        wall, began = time.perf_counter(), time.process_time()
        _, report = distill(large, order=16, horizon=horizon)
        wall, seconds = time.perf_counter() - wall, time.process_time() - began
        errors = report.certificate.relative
        took.append({"lags": lags, "wall": wall, "cpu": seconds})
        told.append(
            f"- {lags}: the large layer took {wall:.0f} s ({seconds:.0f} CPU s); errors: median {errors.median():.1e}, "
            f"largest {errors.max():.1e}."
        )
    about = provenance(0) | {"command": called("distillation.py", options, parser)}
    page = markdown(
        "Distilling kernels",
        about,
        ABOUT.format(**vars(options)),
        table(HEAD, [row(one) for one in results]),
        "\n".join(told),
    )
    write(options.out, "distillation", page, {
        "about": about, "results": [asdict(one) for one in results], "large": took,
    })  # fmt: skip


if __name__ == "__main__":
    main()
