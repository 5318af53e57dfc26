"""Published networks by task: every one builds, with the published numbers."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import omniconv as oc
from omniconv import CCNN, CKCNN, SIREN, Conv, FlexNet, Full, Gabor, Gaussian
from omniconv.models import Preset, preset
from omniconv.models.presets import PRESETS, TABLE, TASKS

PARAMETERS = {
    "ckcnn_smnist_100k": 98_286,
    "ckcnn_smnist_1m": 1_030_546,
    "flexnet_3_cifar10": 277_090,
    "flexnet_5_cifar10": 454_046,
    "flexnet_7_cifar10": 671_650,
    "ccnn_4_140_smnist": 198_769,
    "ccnn_6_380_smnist": 1_993_091,
    "ccnn_4_140_scifar10": 199_117,
    "ccnn_6_380_scifar10": 1_993_983,
    "ccnn_4_140_speech_mfcc": 202_075,
    "ccnn_6_380_speech_mfcc": 2_001_565,
    "ccnn_4_140_cifar10": 201_042,
    "ccnn_6_380_cifar10": 1_999_366,
    "ccnn_4_140_stl10_256": 201_042,
    "ccnn_6_380_stl10_256": 1_999_366,
    "ccnn_4_140_cifar100": 213_732,
    "ccnn_6_380_cifar100": 2_033_656,
}
"""As published."""

CCNNS: dict[str, tuple[tuple[float, float], ...]] = {
    # task: omega_0, lr, dropout, norm penalty, batch, epochs, sigma_0; of 4 blocks and of 6
    "smnist": ((2976.5, 2976.5), (0.01, 0.01), (0.1, 0.1), (1e-6, 1e-6), (100, 100), (210, 210), (0.075, 0.075)),
    "pmnist": ((2985.6, 2985.6), (0.02, 0.02), (0.0, 0.0), (0.0, 0.0), (100, 100), (210, 210), (0.075, 0.075)),
    "scifar10": ((2386.5, 4005.1), (0.02, 0.01), (0.0, 0.25), (0.0, 0.0), (50, 50), (210, 210), (0.075, 0.075)),
    "speech_mfcc": ((750.2, 1295.6), (0.02, 0.02), (0.2, 0.2), (1e-6, 1e-6), (100, 10), (110, 160), (0.075, 0.075)),
    "speech_raw": ((1295.6, 1295.6), (0.02, 0.02), (0.2, 0.2), (1e-6, 1e-6), (20, 40), (160, 160), (0.075, 0.075)),
    "cifar10": ((4231.6, 976.8), (0.02, 0.01), (0.1, 0.15), (1e-4, 0.0), (64, 50), (350, 210), (0.75, 0.075)),
    "cifar100": ((3521.5, 679.1), (0.02, 0.02), (0.1, 0.2), (1e-4, 0.0), (50, 50), (210, 210), (0.075, 0.075)),
    "stl10_256": ((954.3, 954.3), (0.02, 0.01), (0.1, 0.1), (0.0, 0.0), (64, 48), (210, 210), (0.075, 0.075)),
    "listops": ((784.7, 784.7), (0.001, 0.001), (0.1, 0.25), (1e-6, 0.0), (50, 50), (60, 60), (0.03, 0.03)),
    "text": ((2966.6, 2966.6), (0.001, 0.02), (0.2, 0.3), (1e-5, 0.0), (50, 25), (60, 60), (0.015, 0.03)),
    "image": ((4005.1, 4005.1), (0.01, 0.01), (0.1, 0.1), (0.0, 0.0), (50, 50), (210, 210), (0.075, 0.075)),
    "pathfinder": ((2272.6, 2272.6), (0.01, 0.01), (0.2, 0.1), (0.0, 1e-6), (100, 100), (210, 210), (0.4, 0.4)),
    "image_2d": ((2085.4, 2306.1), (0.02, 0.02), (0.2, 0.2), (1e-6, 0.0), (50, 50), (210, 210), (0.075, 0.075)),
    "pathfinder_2d": ((1239.1, 3908.3), (0.01, 0.01), (0.1, 0.2), (0.0, 0.0), (100, 50), (210, 210), (0.225, 0.225)),
}

CKCNNS: dict[str, tuple[float, ...]] = {
    # omega_0, dropout, input dropout, batch, epochs, norm penalty, kernel dropout
    "smnist_100k": (31.09, 0.1, 0.1, 64, 200, 0.0, 0.0),
    "smnist_1m": (30.5, 0.2, 0.2, 64, 200, 0.0, 0.0),
    "pmnist_100k": (43.46, 0.0, 0.1, 64, 200, 0.0, 0.0),
    "pmnist_1m": (42.16, 0.0, 0.2, 64, 200, 0.0, 0.0),
    "scifar10_100k": (25.70, 0.2, 0.0, 64, 200, 0.0, 0.0),
    "scifar10_1m": (25.70, 0.3, 0.0, 64, 200, 1e-4, 0.1),
    "char_trajectories": (21.45, 0.1, 0.0, 32, 200, 0.0, 0.0),
    "char_trajectories_sr2": (21.45, 0.1, 0.0, 32, 200, 0.0, 0.0),
    "char_trajectories_sr4": (21.45, 0.1, 0.0, 32, 200, 0.0, 0.0),
    "char_trajectories_sr8": (12.59, 0.1, 0.0, 32, 200, 0.0, 0.0),
    "char_trajectories_drop30": (17.24, 0.2, 0.0, 32, 200, 0.0, 0.0),
    "char_trajectories_drop50": (12.00, 0.0, 0.0, 32, 200, 1e-4, 0.0),
    "char_trajectories_drop70": (4.24, 0.1, 0.0, 32, 200, 0.0, 0.0),
    "speech_mfcc": (30.90, 0.2, 0.0, 64, 200, 0.0, 0.0),
    "speech_raw": (39.45, 0.0, 0.0, 32, 300, 1e-4, 0.0),
    "speech_raw_sr2": (39.45, 0.0, 0.0, 32, 300, 1e-4, 0.0),
    "speech_raw_sr4": (39.45, 0.0, 0.0, 32, 300, 1e-4, 0.0),
    "speech_raw_sr8": (39.45, 0.0, 0.0, 32, 300, 1e-4, 0.0),
    "speech_raw_drop30": (35.66, 0.1, 0.0, 32, 300, 1e-4, 0.0),
    "speech_raw_drop50": (31.70, 0.0, 0.0, 32, 300, 1e-4, 0.0),
    "speech_raw_drop70": (23.29, 0.1, 0.1, 32, 300, 0.0, 0.1),
    "physionet": (9.78, 0.1, 0.1, 1024, 200, 1e-4, 0.0),
}

FLEXNETS: dict[str, tuple[float, ...]] = {
    # taps per axis, batch, epochs, norm penalty
    "3_cifar10": (33, 64, 350, 0.0),
    "5_cifar10": (33, 64, 350, 0.0),
    "7_cifar10": (33, 64, 350, 0.0),
    "7_cifar10_16": (17, 64, 100, 0.0),
    "7_mnist": (29, 64, 350, 0.0),
    "7_stl10": (97, 256, 100, 0.0),
    "5_imagenet32": (33, 2048, 350, 1e-5),
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds(name: str) -> None:
    model: Any = oc.create_model(name, device="meta", dtype=torch.float64)
    known = preset(name)
    assert known.name == name
    assert isinstance(model, known.network)  # type: ignore[arg-type]
    assert parameters(model) == PARAMETERS.get(name, parameters(model))
    task = next(task for task in sorted(TASKS, key=len, reverse=True) if f"_{task}" in name)
    described, channels, outputs, size = TASKS[task]
    assert (known.task, model.in_channels, model.out_features, model.grid.size) == (described, channels, outputs, size)
    convs = [layer for layer in model.modules() if isinstance(layer, Conv)]
    assert all(layer.causal == ((True,) if len(size) == 1 else (False, False)) for layer in convs)
    assert all(parameter.dtype == torch.float64 for parameter in model.parameters())
    assert f"{{{known.source.key}," in oc.cite(model)


def test_the_names_are_registered_once_each() -> None:
    assert len(TABLE) == len(PRESETS) == len(CKCNNS) + len(FLEXNETS) + 2 * len(CCNNS)
    assert set(PRESETS) < set(oc.list_models())
    expected = ["ccnn_4_140_smnist", "ccnn_6_380_smnist", "ckcnn_smnist_100k", "ckcnn_smnist_1m"]
    assert oc.list_models("*smnist*") == expected


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("task", CCNNS)
def test_ccnn_has_the_published_numbers(task: str, index: int) -> None:
    omega_0, lr, dropout, penalty, batch, epochs, sigma_0 = (pair[index] for pair in CCNNS[task])
    known = preset(f"ccnn_{('4_140', '6_380')[index]}_{task}")
    given = known.arguments
    assert (known.lr, given["dropout"], known.norm_penalty) == (lr, dropout, penalty)
    assert (known.batch_size, known.epochs) == (batch, epochs)
    assert known.warmup_epochs == (5 if (task, index) == ("cifar10", 0) else 10)
    assert (known.optimizer, known.schedule, known.kernel_dropout) == ("AdamW", "cosine", 0.0)
    assert given["input_dropout"] == (0.2 if task == "pmnist" else 0.0)
    assert given["kernel"].keywords["omega_0"] == pytest.approx(omega_0, abs=0.06)
    assert given["kernel"].keywords["hidden"] == (32 if index == 0 or task == "listops" else 64)
    causal = len(given["size"]) == 1  # where the window has length 1, not 2
    assert given["kernel"].keywords["spread"] == pytest.approx(min(1, 5 / 3 * sigma_0) / (2 if causal else 1))
    assert given["support"].keywords["width"] == pytest.approx([sigma_0 / 2] if causal else [sigma_0] * 2)
    taps = None if causal else 31 if (task, index) in {("cifar100", 1), ("stl10_256", 1)} else 33
    assert given["reach"] == (None if taps is None else taps // 2)


@pytest.mark.parametrize("name", CKCNNS)
def test_ckcnn_has_the_published_numbers(name: str) -> None:
    known = preset(f"ckcnn_{name}")
    kernel = known.arguments["kernel"]
    assert kernel.func is SIREN
    assert {key: value for key, value in kernel.keywords.items() if key != "omega_0"} == {
        "hidden": 32,
        "weight_norm": True,
    }
    omega_0, *numbers = CKCNNS[name]
    assert kernel.keywords["omega_0"] == pytest.approx(omega_0, abs=0.006)
    dropouts = [known.arguments["dropout"], known.arguments["input_dropout"]]
    assert [*dropouts, known.batch_size, known.epochs, known.norm_penalty, known.kernel_dropout] == numbers
    assert known.arguments["width"] == (100 if name.endswith("1m") else 30)
    assert (known.optimizer, known.schedule, known.lr, known.warmup_epochs) == ("Adam", "plateau", 0.001, 0)


@pytest.mark.parametrize("name", FLEXNETS)
def test_flexnet_has_the_published_numbers(name: str) -> None:
    known = preset(f"flexnet_{name}")
    taps, *numbers = FLEXNETS[name]
    assert [known.batch_size, known.epochs, known.norm_penalty] == numbers
    assert (known.optimizer, known.schedule, known.lr, known.warmup_epochs) == ("Adam", "cosine", 0.01, 5)
    assert known.arguments["dropout"] == 0.2
    model: Any = known.build(device="meta")
    assert all(2 * far + 1 == taps for layer in model.modules() if isinstance(layer, Conv) for far in layer.reach)


def test_omega_0_is_in_the_published_unit_of_position() -> None:
    """Published positions span [-1, 1]; ours, on a causal axis, [0, 1]: twice the frequency."""
    model = oc.create_model("ckcnn_physionet")
    kernels = [layer for layer in model.modules() if isinstance(layer, SIREN)]
    top = max(kernel.frequency.abs().max().item() for kernel in kernels)
    assert 0.9 * 2 * 9.779406396796968 < top <= 2 * 9.779406396796968
    for name, omega_0, dim in (("ccnn_4_140_speech_mfcc", 750.1822972936538, 1), ("ccnn_4_140_image_2d", 2085.43, 2)):
        model = oc.create_model(name)
        for layer in model.modules():
            if isinstance(layer, Gabor):  # w ~ U(-1, 1) 2 pi omega_0 gamma / sqrt(dim)
                ratio = (layer.frequency / layer.inverse_width).abs().max().item()
                assert ratio == pytest.approx(2 * math.pi * omega_0 / math.sqrt(dim), rel=0.1)


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("ccnn")])
def test_most_frequencies_of_a_published_ccnn_are_beyond_nyquist_but_for_raw_speech(name: str) -> None:
    given = preset(name).arguments
    size = given["size"]
    reach = size[0] - 1 if given["reach"] is None else given["reach"]
    beyond = []
    for _ in range(20):
        kernel = given["kernel"](len(size), 1, reach=reach, causal=given["causal"])
        unit = torch.tensor(kernel.nyquist())
        beyond.append((kernel.frequency[0].abs() > unit).float().mean().item())
    share = sum(beyond) / len(beyond)
    assert share < 0.5 if "speech_raw" in name else share > 0.5


@pytest.mark.parametrize("name", ["ckcnn_char_trajectories_sr8", "ccnn_4_140_speech_mfcc"])
def test_presets_are_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model: Any = oc.create_model(name).eval()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    x = torch.randn(2, model.in_channels, *model.grid.size)
    assert torch.equal(loaded(x), model(x))
    assert model(x).shape == (2, model.out_features)


def test_the_parts_are_those_of_the_papers() -> None:
    kinds = {CKCNN: (SIREN, Full), FlexNet: (Gabor, Gaussian), CCNN: (Gabor, Gaussian)}
    for known, network in (("ckcnn_physionet", CKCNN), ("flexnet_3_cifar10", FlexNet), ("ccnn_4_140_text", CCNN)):
        model = oc.create_model(known, device="meta")
        for layer in model.modules():
            if isinstance(layer, Conv):
                assert (type(layer.kernel), type(layer.support)) == kinds[network]
                assert layer.mixing == ("separable" if network is CCNN else "dense")


def test_presets_are_data() -> None:
    known = preset("ckcnn_smnist_100k")
    with pytest.raises(FrozenInstanceError):
        known.lr = 1.0  # type: ignore[misc]
    assert isinstance(known, Preset)
    assert {known: 1}[known] == 1
    assert known.build(device="meta") is not known.build(device="meta")


def test_unknown_names_and_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"got 'ccnn_4_140_mnist'\. Did you mean 'ccnn_4_140_[sp]mnist'"):
        preset("ccnn_4_140_mnist")
    with pytest.raises(ValueError, match=r"`name` must be that of a preset; got '\?'"):
        preset("?")
    with pytest.raises(TypeError, match="width"):
        oc.create_model("ccnn_4_140_smnist", width=3)
