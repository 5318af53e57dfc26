"""Times a whole training step of a CCNN with our convolution and with plain torch.fft, and shows where the time goes.

    python benchmarks/training_step.py --device cuda --compile --autocast --out docs/results

Both networks are the same but for one function: `convolve`, or transforms of the next power of two through autograd.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from _report import interleaved, markdown, provenance, table, write
from torch import Tensor, nn

from omniconv.bench.contestants import power_of_two
from omniconv.bench.measure import finish, peak_memory
from omniconv.models import preset
from omniconv.nn import Conv

SEED = 0
OURS, PLAIN = "omniconv", "torch.fft"
Step = Callable[[], Tensor]


def plain_convolve(
    x: Tensor, taps: Tensor, *, causal: tuple[bool, ...], boundary: tuple[str, ...], engine: str
) -> Tensor:
    """What research code does: spectra of the next power of two, kept by autograd."""
    if boundary != ("zero",) or taps.ndim != 2:
        raise ValueError("the plain convolution is written for one zero axis and a kernel per channel")
    n, k = x.shape[-1], taps.shape[-1]
    frame, origin = power_of_two(n + k - 1), 0 if causal[0] else k // 2
    product = torch.fft.rfft(x.float(), n=frame) * torch.fft.rfft(taps.float(), n=frame)
    return torch.fft.irfft(product, n=frame)[..., origin : origin + n].to(x.dtype)


@contextmanager
def convolving(name: str) -> Iterator[None]:
    """Layers convolve with ours, or with the plain one."""
    with mock.patch("omniconv.nn.conv.convolve", plain_convolve) if name == PLAIN else nullcontext():
        yield


def network(options: argparse.Namespace) -> nn.Module:
    """The preset with the same weights every time."""
    torch.manual_seed(SEED)
    return preset(options.preset).build().to(options.device)


def step_of(name: str, options: argparse.Namespace) -> Step:
    """A training step: forward, loss, gradients, optimiser."""
    model = network(options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x = torch.randn(options.batch, 1, options.length, device=options.device)
    labels = torch.randint(10, (options.batch,), device=options.device)
    run: Any = torch.compile(model) if options.compile else model

    def step() -> Tensor:
        with convolving(name):
            optimizer.zero_grad()
            with torch.autocast(options.device, torch.bfloat16, enabled=options.autocast):
                loss = F.cross_entropy(run(x).float(), labels)
            loss.backward()
            optimizer.step()
            finish(options.device)
        return loss.detach()

    for _ in range(3):  # compiled, and the caches filled
        seeded(step)
    return step


def kernels_of(options: argparse.Namespace) -> Callable[[], object]:
    """What a step spends on making kernels: the taps of every layer, and the gradients of their parameters."""
    layers = [module for module in network(options).modules() if isinstance(module, Conv)]

    def sampled() -> list[Tensor]:
        return [layer.taps() for layer in layers]

    run: Any = torch.compile(sampled) if options.compile else sampled

    def step() -> None:
        for layer in layers:
            layer.zero_grad()
        with torch.autocast(options.device, torch.bfloat16, enabled=options.autocast):
            taps = run()
        torch.autograd.backward(taps, [torch.ones_like(sample) for sample in taps])
        finish(options.device)

    for _ in range(3):
        step()
    return step


def seeded(step: Step) -> float:
    """The loss of a step in which dropout draws the same numbers for everyone."""
    torch.manual_seed(SEED)
    return float(step())


def profiled(step: Step, device: str) -> list[tuple[str, str, str]]:
    """The operations that take most time by themselves: name, milliseconds of a step, share."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        for _ in range(3):
            step()
    events = own_times(profile.key_averages(), device)
    total = sum(time for _, time in events)
    largest = sorted(events, key=lambda event: -event[1])[:12]
    return [(key.replace("|", "/")[:70], f"{time / 3e3:.3f}", f"{time / total:.1%}") for key, time in largest]


def own_times(averages: Iterable[Any], device: str) -> list[tuple[str, float]]:
    """Names and microseconds of what was done, each once.

    On a graphics processor those of its kernels and copies: the operators that launch them have the same time again,
    as have ranges that are named on the device.
    """
    if device == "cpu":
        return [(one.key, one.self_cpu_time_total) for one in averages]
    return [
        (one.key, one.self_device_time_total)
        for one in averages
        if one.device_type.name == "CUDA" and not one.is_user_annotation
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of training_step.md and .json")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--preset", default="ccnn_4_140_smnist")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--length", type=int, default=784)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--autocast", action="store_true", help="bfloat16")
    options = parser.parse_args()
    steps = {name: step_of(name, options) for name in (OURS, PLAIN)}
    losses = {name: seeded(step) for name, step in steps.items()}
    if abs(losses[OURS] - losses[PLAIN]) > 0.02 * losses[PLAIN]:
        sys.exit(f"nothing is reported: after the same steps the losses are {losses}")
    *taken, of_kernels = interleaved([*steps.values(), kernels_of(options)], repeats=options.repeats, seconds=60.0)
    seconds = dict(zip(steps, taken, strict=True))
    ratio = statistics.median(plain / ours for ours, plain in zip(*taken, strict=False))
    kernels = statistics.median(made / ours for made, ours in zip(of_kernels, taken[0], strict=False))
    memory = {name: peak_memory(step, options.device)[1] for name, step in steps.items()}
    profiles = {name: profiled(step, options.device) for name, step in steps.items()}
    told = (
        f"A training step (forward, loss, gradients, AdamW) of the preset `{options.preset}`, batch {options.batch}, "
        f"{options.length} samples, on {device_name(options.device)}; torch.compile: {options.compile}; bfloat16 "
        f"autocast: {options.autocast}. Steps in turns; the median of their ratios is **{ratio:.2f}**. Making the "
        f"kernels and their gradients alone takes {1e3 * statistics.median(of_kernels):.2f} ms, **{kernels:.1%}** of "
        "our step."
    )
    parts = [told, times_table(seconds, memory, losses)]
    for name, operations in profiles.items():
        parts += [f"## Where the time goes: {name}", table(("operation", "ms a step", "share"), operations)]
    print("\n\n".join(parts))
    about, data = provenance(SEED), {"ratio": ratio, "kernels": {"share": kernels, "seconds": of_kernels}}
    data |= {"about": about, "seconds": seconds, "memory": memory, "profiles": profiles}
    name = "training_step_cuda" if options.device == "cuda" else "training_step"
    write(options.out, name, markdown("A training step", about, *parts), data)


def device_name(device: str) -> str:
    """In words."""
    return torch.cuda.get_device_name() if device == "cuda" else "the CPU"


def times_table(seconds: dict[str, list[float]], memory: dict[str, int], losses: dict[str, float]) -> str:
    """A row for each convolution."""
    head = ("convolution", "ms a step, median", "fewest", "peak memory, MiB", "loss after four steps")
    rows = [
        (
            name,
            f"{1e3 * statistics.median(seconds[name]):.2f}",
            f"{1e3 * min(seconds[name]):.2f}",
            f"{memory[name] / 2**20:.0f}",
            f"{losses[name]:.4f}",
        )
        for name in seconds
    ]
    return table(head, rows)


if __name__ == "__main__":
    main()
