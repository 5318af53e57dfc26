"""The published networks, task by task, with the numbers they were trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch

from omniconv._references import CCNN_PAPER, CKCONV_PAPER, FLEXCONV_PAPER, Reference
from omniconv.kernels import SIREN
from omniconv.models._network import Network
from omniconv.models._published import FLEXCONV_OMEGA_0, PUBLISHED_WIDTH, published_kernel, published_support
from omniconv.models._registry import register_model
from omniconv.models.ccnn import CCNN
from omniconv.models.ckcnn import CKCNN
from omniconv.models.flexnet import FLEXNETS, FlexNet


@dataclass(frozen=True, kw_only=True, eq=False)
class Preset:
    """A published network for one task: its hyper-parameters, and as plain numbers how it was trained.

    `create_model(name)` and `preset(name).build()` build it. Nothing here trains.

    `omega_0` is the published one, for replication. That of every CCNN but raw speech is so high that most frequencies
    of a new kernel exceed the Nyquist frequency of the task's grid, where they alias: such a network begins as noise on
    its grid, and cannot change resolution. To do that, use `CCNN` with its own default, a `bandwidth`.
    """

    name: str
    """Of the preset, for `create_model`."""

    task: str
    """The data set, and the form it has."""

    source: Reference
    """The paper."""

    network: Callable[..., Network]
    """The class."""

    arguments: Mapping[str, Any]
    """Those of the class, but for device and dtype."""

    optimizer: str
    """Adam or AdamW, without weight decay of its own."""

    schedule: str
    """Cosine to zero per step after a linear warm-up, or plateau: lr / 5 after 20 epochs without a better score."""

    lr: float
    """Highest learning rate."""

    batch_size: int
    """Signals per step and process."""

    epochs: int
    """Passes over the training data."""

    warmup_epochs: int = 0
    """Epochs in which the learning rate grows."""

    norm_penalty: float = 0.0
    """Weight in the loss of a sum of Euclidean norms, not squared: of every sampled kernel and, outside of the kernels,
    of the convolutions' biases (CKCNN, FlexNet) or of every parameter (CCNN)."""

    kernel_dropout: float = 0.0
    """Probability with which values of the sampled kernels were dropped; no part of the network here."""

    note: str = ""
    """What else the result depends on."""

    def build(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Network:
        """The network, newly drawn."""
        return self.network(**self.arguments, device=device, dtype=dtype)


TASKS: dict[str, tuple[str, int, int, tuple[int, ...]]] = {
    "smnist": ("MNIST, pixel by pixel", 1, 10, (784,)),
    "pmnist": ("MNIST, pixel by pixel in a fixed random order", 1, 10, (784,)),
    "scifar10": ("CIFAR-10, pixel by pixel", 3, 10, (1024,)),
    "char_trajectories": ("Character Trajectories", 3, 20, (182,)),
    "char_trajectories_sr2": ("Character Trajectories, every 2nd sample", 3, 20, (91,)),
    "char_trajectories_sr4": ("Character Trajectories, every 4th sample", 3, 20, (46,)),
    "char_trajectories_sr8": ("Character Trajectories, every 8th sample", 3, 20, (23,)),
    "char_trajectories_drop30": ("Character Trajectories, 30 % missing, and which", 4, 20, (182,)),
    "char_trajectories_drop50": ("Character Trajectories, 50 % missing, and which", 4, 20, (182,)),
    "char_trajectories_drop70": ("Character Trajectories, 70 % missing, and which", 4, 20, (182,)),
    "speech_mfcc": ("Speech Commands, 10 words, MFCC", 20, 10, (161,)),
    "speech_raw": ("Speech Commands, 10 words, raw", 1, 10, (16000,)),
    "speech_raw_sr2": ("Speech Commands, 10 words, raw, every 2nd sample", 1, 10, (8000,)),
    "speech_raw_sr4": ("Speech Commands, 10 words, raw, every 4th sample", 1, 10, (4000,)),
    "speech_raw_sr8": ("Speech Commands, 10 words, raw, every 8th sample", 1, 10, (2000,)),
    "speech_raw_drop30": ("Speech Commands, 10 words, raw, 30 % missing, and which", 2, 10, (16000,)),
    "speech_raw_drop50": ("Speech Commands, 10 words, raw, 50 % missing, and which", 2, 10, (16000,)),
    "speech_raw_drop70": ("Speech Commands, 10 words, raw, 70 % missing, and which", 2, 10, (16000,)),
    "physionet": ("PhysioNet 2019, sepsis", 75, 1, (72,)),
    "mnist": ("MNIST", 1, 10, (28, 28)),
    "cifar10": ("CIFAR-10", 3, 10, (32, 32)),
    "cifar10_16": ("CIFAR-10 at 16 x 16, for 32 x 32", 3, 10, (16, 16)),
    "cifar100": ("CIFAR-100", 3, 100, (32, 32)),
    "stl10": ("STL-10", 3, 10, (96, 96)),
    "stl10_256": ("STL-10, crops of 256 x 256 from 272 x 272", 3, 10, (256, 256)),
    "imagenet32": ("ImageNet at 32 x 32", 3, 1000, (32, 32)),
    "listops": ("Long Range Arena, ListOps", 1, 10, (2048,)),
    "text": ("Long Range Arena, Text", 1, 1, (4096,)),
    "image": ("Long Range Arena, Image", 1, 10, (1024,)),
    "pathfinder": ("Long Range Arena, Pathfinder", 1, 1, (1024,)),
    "image_2d": ("Long Range Arena, Image, on its two axes", 1, 10, (32, 32)),
    "pathfinder_2d": ("Long Range Arena, Pathfinder, on its two axes", 1, 1, (32, 32)),
}
"""Data set, channels, outputs (one logit for two classes) and size."""


def signal(task: str) -> dict[str, Any]:
    """The arguments that the task decides."""
    _, channels, outputs, size = TASKS[task]
    return {"in_channels": channels, "out_features": outputs, "size": size}


def ckcnn(
    task: str,
    omega_0: float,
    suffix: str = "",
    *,
    width: int = 30,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    batch_size: int = 64,
    epochs: int = 200,
    norm_penalty: float = 0.0,
    kernel_dropout: float = 0.0,
    note: str = "",
) -> Preset:
    """A CKCNN of 2 blocks."""
    kernel = partial(SIREN, hidden=32, omega_0=omega_0, weight_norm=True)
    body = {"width": width, "kernel": kernel, "dropout": dropout, "input_dropout": input_dropout}
    return Preset(
        name=f"ckcnn_{task}{suffix}",
        task=TASKS[task][0],
        source=CKCONV_PAPER,
        network=CKCNN,
        arguments={**signal(task), **body},
        optimizer="Adam",
        schedule="plateau",
        lr=0.001,
        batch_size=batch_size,
        epochs=epochs,
        norm_penalty=norm_penalty,
        kernel_dropout=kernel_dropout,
        note=note,
    )


def flexnet(
    depth: int,
    task: str,
    *,
    batch_size: int = 64,
    epochs: int = 350,
    norm_penalty: float = 0.0,
    note: str = "",
) -> Preset:
    """A FlexNet of 3, 5 or 7 blocks."""
    given, (blocks, widths) = signal(task), FLEXNETS[depth]
    kernel = published_kernel(given["size"], False, omega_0=FLEXCONV_OMEGA_0)
    support = published_support(given["size"], False, learn_mean=True)
    body = {"blocks": blocks, "widths": widths, "kernel": kernel, "support": support, "dropout": 0.2}
    return Preset(
        name=f"flexnet_{depth}_{task}",
        task=TASKS[task][0],
        source=FLEXCONV_PAPER,
        network=FlexNet,
        arguments={**given, **body},
        optimizer="Adam",
        schedule="cosine",
        lr=0.01,
        batch_size=batch_size,
        epochs=epochs,
        warmup_epochs=5,
        norm_penalty=norm_penalty,
        note=f"supports with lr / 10; cosine ends at 1e-6; {note}".removesuffix("; "),
    )


def ccnn(
    blocks: int,
    task: str,
    omega_0: float,
    lr: float,
    *,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    sigma_0: float = PUBLISHED_WIDTH,
    hidden: int | None = None,
    reach: int | None = None,
    batch_size: int = 50,
    epochs: int = 210,
    warmup_epochs: int = 10,
    norm_penalty: float = 0.0,
    note: str = "",
) -> Preset:
    """A CCNN of 4 blocks of width 140 or 6 of width 380; causal on sequences, with 33 x 33 taps at most on images."""
    given, width = signal(task), {4: 140, 6: 380}[blocks]
    size, causal = given["size"], len(given["size"]) == 1
    far = 16 if reach is None and not causal else reach
    units = {4: 32, 6: 64}[blocks] if hidden is None else hidden
    body = {
        "blocks": blocks,
        "width": width,
        "kernel": published_kernel(size, causal, hidden=units, width=sigma_0, omega_0=omega_0),
        "support": published_support(size, causal, width=sigma_0, reach=far),
        "reach": far,
        "causal": causal,
        "dropout": dropout,
        "input_dropout": input_dropout,
    }
    return Preset(
        name=f"ccnn_{blocks}_{width}_{task}",
        task=TASKS[task][0],
        source=CCNN_PAPER,
        network=CCNN,
        arguments={**given, **body},
        optimizer="AdamW",
        schedule="cosine",
        lr=lr,
        batch_size=batch_size,
        epochs=epochs,
        warmup_epochs=warmup_epochs,
        norm_penalty=norm_penalty,
        note=note,
    )


CROP_AND_FLIP = "crops from 4 pixels of padding and flips"
IDS = "ids as numbers in one channel"

TABLE = (
    ckcnn("smnist", 31.09195739463897, "_100k", dropout=0.1, input_dropout=0.1),
    ckcnn("smnist", 30.5, "_1m", width=100, dropout=0.2, input_dropout=0.2),
    ckcnn("pmnist", 43.45667389601194, "_100k", input_dropout=0.1),
    ckcnn("pmnist", 42.161651744476515, "_1m", width=100, input_dropout=0.2),
    ckcnn("scifar10", 25.696, "_100k", dropout=0.2),
    ckcnn("scifar10", 25.696, "_1m", width=100, dropout=0.3, norm_penalty=1e-4, kernel_dropout=0.1),
    ckcnn("char_trajectories", 21.44961185481323, dropout=0.1, batch_size=32),
    ckcnn("char_trajectories_sr2", 21.44961185481323, dropout=0.1, batch_size=32),
    ckcnn("char_trajectories_sr4", 21.44961185481323, dropout=0.1, batch_size=32),
    ckcnn("char_trajectories_sr8", 12.589391905289371, dropout=0.1, batch_size=32),
    ckcnn("char_trajectories_drop30", 17.243982444546685, dropout=0.2, batch_size=32),
    ckcnn("char_trajectories_drop50", 11.997102427300288, batch_size=32, norm_penalty=1e-4),
    ckcnn("char_trajectories_drop70", 4.237433943113986, dropout=0.1, batch_size=32),
    ckcnn("speech_mfcc", 30.90257553169801, dropout=0.2, note="lr / 5 after 15 epochs"),
    ckcnn("speech_raw", 39.450608806633795, batch_size=32, epochs=300, norm_penalty=1e-4),
    ckcnn("speech_raw_sr2", 39.450608806633795, batch_size=32, epochs=300, norm_penalty=1e-4),
    ckcnn("speech_raw_sr4", 39.450608806633795, batch_size=32, epochs=300, norm_penalty=1e-4),
    ckcnn("speech_raw_sr8", 39.450608806633795, batch_size=32, epochs=300, norm_penalty=1e-4),
    ckcnn("speech_raw_drop30", 35.655229877794035, dropout=0.1, batch_size=32, epochs=300, norm_penalty=1e-4),
    ckcnn("speech_raw_drop50", 31.700745675276966, batch_size=32, epochs=300, norm_penalty=1e-4),
    ckcnn(
        "speech_raw_drop70",
        23.29255834358289,
        dropout=0.1,
        input_dropout=0.1,
        batch_size=32,
        epochs=300,
        kernel_dropout=0.1,
    ),
    ckcnn("physionet", 9.779406396796968, dropout=0.1, input_dropout=0.1, batch_size=1024, norm_penalty=1e-4),
    flexnet(3, "cifar10", note=CROP_AND_FLIP),
    flexnet(5, "cifar10", note=CROP_AND_FLIP),
    flexnet(7, "cifar10", note=CROP_AND_FLIP),
    flexnet(7, "cifar10_16", epochs=100, note=f"{CROP_AND_FLIP}; penalty 0.1 on frequencies beyond Nyquist"),
    flexnet(7, "mnist"),
    flexnet(7, "stl10", batch_size=256, epochs=100),
    flexnet(5, "imagenet32", batch_size=2048, norm_penalty=1e-5, note=CROP_AND_FLIP),
    ccnn(4, "smnist", 2976.4910261630357, 0.01, dropout=0.1, batch_size=100, norm_penalty=1e-6),
    ccnn(6, "smnist", 2976.4910261630357, 0.01, dropout=0.1, batch_size=100, norm_penalty=1e-6),
    ccnn(4, "pmnist", 2985.6332826938724, 0.02, input_dropout=0.2, batch_size=100),
    ccnn(6, "pmnist", 2985.633, 0.02, input_dropout=0.2, batch_size=100),
    ccnn(4, "scifar10", 2386.49, 0.02, note=CROP_AND_FLIP),
    ccnn(6, "scifar10", 4005.146, 0.01, dropout=0.25),
    ccnn(4, "speech_mfcc", 750.1822972936538, 0.02, dropout=0.2, batch_size=100, epochs=110, norm_penalty=1e-6),
    ccnn(
        6,
        "speech_mfcc",
        1295.61,
        0.02,
        dropout=0.2,
        batch_size=10,
        epochs=160,
        norm_penalty=1e-6,
        note="several processes",
    ),
    ccnn(4, "speech_raw", 1295.612417154228, 0.02, dropout=0.2, batch_size=20, epochs=160, norm_penalty=1e-6),
    ccnn(6, "speech_raw", 1295.61, 0.02, dropout=0.2, batch_size=40, epochs=160, norm_penalty=1e-6),
    ccnn(
        4,
        "cifar10",
        4231.568793085858,
        0.02,
        dropout=0.1,
        sigma_0=0.75,
        batch_size=64,
        epochs=350,
        warmup_epochs=5,
        norm_penalty=1e-4,
        note=CROP_AND_FLIP,
    ),
    ccnn(6, "cifar10", 976.781, 0.01, dropout=0.15, note=CROP_AND_FLIP),
    ccnn(4, "cifar100", 3521.5468260391735, 0.02, dropout=0.1, norm_penalty=1e-4),
    ccnn(6, "cifar100", 679.142, 0.02, dropout=0.2, reach=15),
    ccnn(4, "stl10_256", 954.281, 0.02, dropout=0.1, batch_size=64, note="4 batches per step; rotations and flips"),
    ccnn(
        6,
        "stl10_256",
        954.281,
        0.01,
        dropout=0.1,
        reach=15,
        batch_size=48,
        note="2 batches per step; rotations and flips",
    ),
    ccnn(4, "listops", 784.655, 0.001, dropout=0.1, sigma_0=0.03, epochs=60, norm_penalty=1e-6, note=IDS),
    ccnn(6, "listops", 784.655, 0.001, dropout=0.25, sigma_0=0.03, hidden=32, epochs=60, note=IDS),
    ccnn(4, "text", 2966.6045345584143, 0.001, dropout=0.2, sigma_0=0.015, epochs=60, norm_penalty=1e-5, note=IDS),
    ccnn(
        6,
        "text",
        2966.605,
        0.02,
        dropout=0.3,
        sigma_0=0.03,
        batch_size=25,
        epochs=60,
        note=f"{IDS}; several processes",
    ),
    ccnn(4, "image", 4005.146, 0.01, dropout=0.1),
    ccnn(6, "image", 4005.146, 0.01, dropout=0.1),
    ccnn(4, "pathfinder", 2272.557, 0.01, dropout=0.2, sigma_0=0.4, batch_size=100),
    ccnn(6, "pathfinder", 2272.557, 0.01, dropout=0.1, sigma_0=0.4, batch_size=100, norm_penalty=1e-6),
    ccnn(4, "image_2d", 2085.433586112234, 0.02, dropout=0.2, norm_penalty=1e-6),
    ccnn(6, "image_2d", 2306.081, 0.02, dropout=0.2),
    ccnn(4, "pathfinder_2d", 1239.138351528754, 0.01, dropout=0.1, sigma_0=0.225, batch_size=100),
    ccnn(6, "pathfinder_2d", 3908.323, 0.01, dropout=0.2, sigma_0=0.225),
)

PRESETS = {row.name: row for row in TABLE}

for row in TABLE:
    register_model(row.build, row.name)


def preset(name: str) -> Preset:
    """The published network of that name, with the numbers it was trained with; the names are in `list_models()`.

    Raises `ValueError` that names the closest match for an unknown name.

    >>> known = preset("ccnn_4_140_smnist")
    >>> known.task, known.lr, known.epochs, known.arguments["dropout"]
    ('MNIST, pixel by pixel', 0.01, 210, 0.1)
    """
    if name not in PRESETS:
        close = get_close_matches(name, PRESETS, n=1) or sorted(PRESETS)
        raise ValueError(f"`name` must be that of a preset; got {name!r}. Did you mean {close[0]!r}?")
    return PRESETS[name]
