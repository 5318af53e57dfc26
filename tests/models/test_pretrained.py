"""Networks as folders: what is loaded is what was saved, and what is damaged is refused by name."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import omniconv as oc
from omniconv import CCNN, SIREN, Gabor, Gaussian
from omniconv.kernels import MLP, Conditional, FourierSeries, Kernel, KernelFactory
from omniconv.models import _pretrained as pretrained
from omniconv.models import read_config
from omniconv.models._pretrained import describe_part
from omniconv.supports import Full, Product, SupportFactory
from tests.cases import KERNELS, SUPPORTS

small = partial(SIREN, hidden=4)


def tiny(**arguments: Any) -> CCNN:
    """A network of a few hundred numbers, with statistics of its own."""
    defaults: dict[str, Any] = {
        "in_channels": 2,
        "out_features": 3,
        "size": 9,
        "blocks": 1,
        "width": 3,
        "kernel": small,
    }
    model = CCNN(**{**defaults, **arguments})
    model.standardize.set(torch.full((model.in_channels,), 1.5), torch.full((model.in_channels,), 2.0))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "running_mean" in name or name.endswith("norm.bias"):
                value.normal_()
    return model.eval()


def example(model: CCNN) -> Tensor:
    """A signal that the network takes."""
    dtype = torch.promote_types(model.stem.gain.dtype, torch.float32)
    return torch.randn(2, model.in_channels, *model.stem.grid.size, dtype=dtype)


def assert_same(loaded: nn.Module, model: nn.Module, x: Tensor) -> None:
    """Raise unless both networks have the same numbers, of the same dtype, and the same outputs, bit for bit."""
    state, expected = loaded.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert state[name].dtype == value.dtype, name
        assert torch.equal(state[name], value), name
    assert torch.equal(loaded(x), model(x))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, CCNN]:
    """A folder with a network."""
    model = tiny()
    model.save_pretrained(tmp_path / "net")
    return tmp_path / "net", model


# ---- round trips

ARRAY: Any = np.array([0.3, 0.5])
TENSOR: Any = torch.tensor([0.4])
VARIANTS: dict[str, dict[str, Any]] = {
    "causal last": {"causal": True, "head": "last"},
    "image dense": {"size": (6, 5), "head": "dense", "boundary": ("zero", "circular")},
    "per axis": {"size": (5, 4), "reach": (2, 1), "causal": (True, False)},
    "volume": {"size": (3, 4, 2), "mixing": "dense"},
    "numpy numbers": {"in_channels": np.int64(2), "out_features": np.int32(3), "width": np.int64(3)},
    "numpy size": {"size": np.array([6, 5]), "dropout": np.float32(0.25), "blocks": np.int64(1)},
    "widths": {"size": (6, 5), "support": partial(Gaussian, width=(0.3, 0.5))},
    "widths as array": {
        "size": (6, 5),
        "support": partial(Gaussian, width=ARRAY, learn_mean=True),
    },
    "width as tensor": {"support": partial(Gaussian, width=TENSOR)},
    "engine": {"engine": "fft", "dropout": 0.5},
    "partial of partial": {"kernel": partial(partial(Gabor, hidden=4), depth=2)},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_argument_comes_back(name: str, tmp_path: Path) -> None:
    model = tiny(**VARIANTS[name])
    model.save_pretrained(tmp_path)
    loaded = CCNN.from_pretrained(tmp_path)
    assert_same(loaded, model, example(model))
    for argument, value in model.arguments.items():
        if argument not in ("kernel", "support"):
            assert loaded.arguments[argument] == value or tuple(loaded.arguments[argument]) == value, argument


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_kernels_come_back(kernel: KernelFactory, tmp_path: Path) -> None:
    model = tiny(kernel=kernel)
    model.save_pretrained(tmp_path)
    assert_same(CCNN.from_pretrained(tmp_path), model, example(model))


@pytest.mark.parametrize("support", SUPPORTS.values(), ids=SUPPORTS)
def test_supports_come_back(support: SupportFactory, tmp_path: Path) -> None:
    model = tiny(support=support)
    model.save_pretrained(tmp_path)
    assert_same(CCNN.from_pretrained(tmp_path), model, example(model))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cast", [False, True])
def test_the_precision_of_the_weights_comes_back(dtype: torch.dtype, cast: bool, tmp_path: Path) -> None:
    model = tiny().to(dtype) if cast else tiny(dtype=dtype)
    model.save_pretrained(tmp_path)
    x = example(model).to(torch.float64 if dtype == torch.float64 else dtype)
    assert_same(CCNN.from_pretrained(tmp_path), model, x)


@pytest.mark.parametrize("name", ["ccnn_4_140", "ccnn_6_380"])
@pytest.mark.parametrize(("size", "causal"), [((12,), True), ((4, 5), False), ((5, 4), (True, False)), (7, False)])
def test_registered_networks_come_back(name: str, size: Any, causal: Any, tmp_path: Path) -> None:
    model = oc.create_model(name, in_channels=1, out_features=2, size=size, causal=causal).eval()
    assert isinstance(model, CCNN)
    model.save_pretrained(tmp_path)
    assert_same(CCNN.from_pretrained(tmp_path), model, example(model))


def test_a_saved_network_can_be_saved_again_to_the_same_bytes(saved: tuple[Path, CCNN], tmp_path: Path) -> None:
    CCNN.from_pretrained(saved[0]).save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (saved[0] / name).read_bytes()


def test_loaded_networks_are_in_evaluation_mode_and_can_be_trained(saved: tuple[Path, CCNN]) -> None:
    loaded = CCNN.from_pretrained(saved[0])
    assert not any(module.training for module in loaded.modules())
    loaded.train()(example(loaded)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_the_learned_window_is_read_again(tmp_path: Path) -> None:
    model = tiny(size=65, support=partial(Gaussian, width=0.5))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Gaussian):
                module.width_logit.fill_(-1.0)  # a narrow window, as training may make one
    oc.nn.refresh(model)
    assert model.stem.window < tiny(size=65, support=partial(Gaussian, width=0.5)).stem.window
    model.save_pretrained(tmp_path)
    loaded = CCNN.from_pretrained(tmp_path)
    assert loaded.stem.window == model.stem.window
    assert loaded.stem.bandlimit == model.stem.bandlimit
    assert_same(loaded, model, example(model))


@pytest.mark.parametrize("kind", [str, Path])
def test_folders_are_given_as_text_or_path(kind: Callable[[Path], str | Path], tmp_path: Path) -> None:
    model, folder = tiny(), kind(tmp_path / "deep" / "er")
    model.save_pretrained(folder)
    assert_same(CCNN.from_pretrained(folder), model, example(model))


def test_the_configuration_holds_what_else_is_given_and_the_card_is_written(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path, extra={"task": {"classes": ["a", "b"]}}, card="# A card\n")
    assert read_config(tmp_path)["task"] == {"classes": ["a", "b"]}
    assert (tmp_path / "README.md").read_text() == "# A card\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    tiny().save_pretrained(tmp_path, extra={"format": 7, "class": "Other"})
    assert read_config(tmp_path)["format"] == 1
    assert read_config(tmp_path)["class"] == "CCNN"


def test_a_view_is_saved_as_the_network_it_is_a_view_of(tmp_path: Path) -> None:
    model = tiny(head="dense")
    model.at_resolution(2.0).save_pretrained(tmp_path)
    assert_same(CCNN.from_pretrained(tmp_path), model, example(model))


# ---- parts that are not the library's own


class Flat(Kernel):
    """One number per channel, everywhere."""

    def __init__(self, dim: int, channels: int, **where: Any):
        super().__init__(dim, channels, reach=where["reach"], causal=where["causal"])
        self.level = nn.Parameter(torch.ones(channels, device=where["device"], dtype=torch.float32))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.level)

    def forward(self, positions: Tensor) -> Tensor:
        return self.level.to(positions.dtype).expand(*positions.shape[:-1], -1)


def positional(*arguments: Any, **keywords: Any) -> SIREN:
    return SIREN(*arguments, **keywords)


@pytest.mark.parametrize("kernel", [Flat, partial(Flat), positional], ids=["class", "partial", "function"])
def test_a_kernel_of_ones_own_is_saved_and_has_to_be_given_again(kernel: Any, tmp_path: Path) -> None:
    model = tiny(kernel=kernel)
    model.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"is not part of omniconv\.kernels\. Give it: from_pretrained\(folder, kernel="
    ):
        CCNN.from_pretrained(tmp_path)
    assert_same(CCNN.from_pretrained(tmp_path, kernel=kernel), model, example(model))


def test_a_support_of_ones_own_is_saved_and_has_to_be_given_again(tmp_path: Path) -> None:
    def window(dim: int, **where: Any) -> Gaussian:
        return Gaussian(dim, **where)

    model = tiny(support=window)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is not part of omniconv\.supports\. Give it: from_pretrained"):
        CCNN.from_pretrained(tmp_path)
    assert_same(CCNN.from_pretrained(tmp_path, support=window), model, example(model))


def test_positional_arguments_of_a_part_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`kernel` must be a functools\.partial with keywords only"):
        describe_part("kernel", partial(SIREN, 1))


def test_a_class_that_only_has_the_name_of_a_kernel_is_not_taken_for_it(tmp_path: Path) -> None:
    impostor = type("SIREN", (Flat,), {})
    model = tiny(kernel=impostor)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"SIREN' is not part of omniconv\.kernels"):
        CCNN.from_pretrained(tmp_path)
    assert_same(CCNN.from_pretrained(tmp_path, kernel=impostor), model, example(model))


def test_parts_of_parts_are_written_by_name() -> None:
    make = partial(MLP, depth=3, first=partial(FourierSeries, harmonics=2))
    assert describe_part("kernel", make) == {
        "class": "MLP",
        "depth": 3,
        "first": {"class": "FourierSeries", "harmonics": 2},
    }
    assert describe_part("support", partial(Product, factors=(Full, partial(Gaussian, width=0.2)))) == {
        "class": "Product",
        "factors": [{"class": "Full"}, {"class": "Gaussian", "width": 0.2}],
    }


def test_a_kernel_around_one_of_your_own_has_to_be_given_again(tmp_path: Path) -> None:
    around = partial(Conditional, kernel=Flat, hidden=2)
    model = tiny(kernel=around)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"Flat' is not part of omniconv\.kernels\. Give it: .*kernel="):
        CCNN.from_pretrained(tmp_path)
    assert_same(CCNN.from_pretrained(tmp_path, kernel=around), model, example(model))


def test_a_keyword_without_json_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"config.json can hold JSON values, arrays and tensors: got dtype torch.float32"
    ):
        tiny(kernel=partial(SIREN, hidden=4)).save_pretrained(tmp_path, extra={"dtype": torch.float32})
    assert list(tmp_path.iterdir()) == []


# ---- damaged configurations


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change config.json in place."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_truncated_configuration_is_refused_wherever_it_ends(saved: tuple[Path, CCNN]) -> None:
    path = saved[0] / "config.json"
    whole = path.read_bytes()
    for end in range(len(whole) - 2):  # the last two are the bracket and the end of its line
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"config.json is damaged"):
            CCNN.from_pretrained(saved[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.json is damaged"),
        (b"\xff\xfe\x00", "config.json is damaged"),
        (b"[" * 100_000, "config.json is damaged"),
        (b"[]", "config.json is not the configuration of a network in format 1"),
        (b"null", "config.json is not the configuration of a network in format 1"),
        (b'{"format": 1, "class": "CCNN"}', "is not the configuration of a network in format 1"),
        (b'{"format": 1, "class": "CCNN", "arguments": []}', "is not the configuration of a network in format 1"),
        (b'{"format": 1, "class": "CCNN", "arguments": {}}', "config.json does not fit this version of CCNN"),
        (b'{"format": 1, "arguments": {}}', "config.json describes a None, not a CCNN"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(saved: tuple[Path, CCNN], content: bytes, message: str) -> None:
    (saved[0] / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        CCNN.from_pretrained(saved[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(format=2), "is not the configuration of a network in format 1"),
        (lambda config: config.update({"class": "Linear"}), "describes a 'Linear', not a CCNN"),
        (lambda config: config.update({"class": "Pretrained"}), "describes a 'Pretrained', not a CCNN"),
        (lambda config: config.update({"class": ["CCNN"]}), r"describes a \['CCNN'\], not a CCNN"),
        (lambda config: config["arguments"].update(colour="red"), "does not fit this version of CCNN: .*colour"),
        (lambda config: config["arguments"].pop("size"), "does not fit this version of CCNN: .*size"),
        (lambda config: config["arguments"].pop("kernel"), "does not fit this version of CCNN: `kernel` must be"),
        (lambda config: config["arguments"].update(kernel="SIREN"), "`kernel` must be an object .*; got 'SIREN'"),
        (lambda config: config["arguments"].update(support=None), "`support` must be an object .*; got None"),
        (lambda config: config["arguments"].update(kernel={}), "`kernel` 'None' is not part of omniconv.kernels"),
        (lambda config: config["arguments"].update(kernel={"class": "Kernel"}), "does not fit .*: .*Kernel"),
        (lambda config: config["arguments"].update(kernel={"class": "KernelFactory"}), "does not fit this version"),
        (lambda config: config["arguments"].update(kernel={"class": "__builtins__"}), "'__builtins__' is not part of"),
        (lambda config: config["arguments"]["kernel"].update(hiden=3), "does not fit this version of CCNN: .*hiden"),
        (lambda config: config["arguments"]["kernel"].update(hidden="4"), "does not fit .*: `hidden` must be"),
        (
            lambda config: config["arguments"].update(in_channels="2"),
            "does not fit .*: `in_channels` must be an integer",
        ),
        (lambda config: config["arguments"].update(width=-1), "does not fit .*: `width` must be at least 1; got -1"),
        (
            lambda config: config["arguments"].update(size=[9, 9, 9, 9]),
            "does not fit .*: `size` must have one to three",
        ),
        (lambda config: config["arguments"].update(size=None), "does not fit .*: `size` must be an integer"),
        (lambda config: config["arguments"].update(head=["pool"]), "does not fit this version of CCNN: `head` must be"),
        (lambda config: config["arguments"].update(width=10**12), "does not fit this version of CCNN"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_name(
    saved: tuple[Path, CCNN], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(saved[0], change)
    with pytest.raises(ValueError, match=message) as caught:
        CCNN.from_pretrained(saved[0])
    assert "config.json" in str(caught.value)


def test_another_width_than_that_of_the_weights_is_refused(saved: tuple[Path, CCNN]) -> None:
    edit(saved[0], lambda config: config["arguments"].update(width=4))
    with pytest.raises(ValueError, match=r"model.safetensors does not fit its config.json: .*of another shape"):
        CCNN.from_pretrained(saved[0])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved: tuple[Path, CCNN], name: str) -> None:
    (saved[0] / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"There is no .*{name}"):
        CCNN.from_pretrained(saved[0])


def test_only_its_own_class_loads_a_network(saved: tuple[Path, CCNN]) -> None:
    class Narrow(CCNN):
        pass

    try:
        with pytest.raises(ValueError, match="describes a 'CCNN', not a Narrow"):
            Narrow.from_pretrained(saved[0])
        assert isinstance(pretrained.Pretrained.from_pretrained(saved[0]), CCNN)
    finally:
        del pretrained.Pretrained.trained["Narrow"]


# ---- damaged weights


def weights_of(folder: Path) -> tuple[Path, bytes, int]:
    """The file of weights, its bytes, and the length of its header."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    return path, whole, 8 + struct.unpack("<Q", whole[:8])[0]


def test_truncated_weights_are_refused_wherever_they_end(saved: tuple[Path, CCNN]) -> None:
    path, whole, header = weights_of(saved[0])
    for end in {0, 1, 7, 8, 9, header - 1, header, header + 1, len(whole) - 1} | set(range(0, len(whole), 97)):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"model.safetensors is not a sound safetensors file"):
            CCNN.from_pretrained(saved[0])


def test_weights_with_something_behind_them_are_refused(saved: tuple[Path, CCNN]) -> None:
    path, whole, _ = weights_of(saved[0])
    path.write_bytes(whole + b"x")
    with pytest.raises(ValueError, match=r"model.safetensors is not a sound safetensors file"):
        CCNN.from_pretrained(saved[0])


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**31, 2**32 + 1, 2**62, 2**64 - 1])
def test_a_wrong_length_of_the_header_is_refused(saved: tuple[Path, CCNN], length: int) -> None:
    path, whole, _ = weights_of(saved[0])
    path.write_bytes(struct.pack("<Q", length) + whole[8:])
    with pytest.raises(ValueError, match=r"model.safetensors is not a sound safetensors file"):
        CCNN.from_pretrained(saved[0])


def accepted(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors of a file, or None where it is refused by name."""
    try:
        tensors = pretrained.read_tensors(path)
        pretrained.check_tensors(path, tensors, expected)
    except ValueError as error:
        return None if path.name in str(error) else {}
    return tensors


def test_a_damaged_header_is_refused_or_changes_nothing(saved: tuple[Path, CCNN]) -> None:
    folder, model = saved
    path, whole, header = weights_of(folder)
    expected, refused = model.state_dict(), 0
    for position in range(header):
        damaged = bytearray(whole)
        damaged[position] ^= (0x01, 0x80, 0x0F, 0xFF, 0x04)[position % 5]
        path.write_bytes(damaged)
        tensors = accepted(path, expected)
        refused += tensors is None
        if tensors is not None:
            assert all(torch.equal(tensors[name], value) for name, value in expected.items()), position
    assert refused > 0.9 * header


def test_numbers_that_pretend_to_be_integers_are_refused(saved: tuple[Path, CCNN]) -> None:
    path, whole, _ = weights_of(saved[0])
    assert b'"F32"' in whole
    path.write_bytes(whole.replace(b'"F32"', b'"I32"', 1))
    with pytest.raises(ValueError, match="of another shape or kind of number"):
        CCNN.from_pretrained(saved[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("head.readout.bias"), r"missing \['head.readout.bias'\]"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), r"unknown \['more'\]"),
        (
            lambda tensors: tensors.update({"head.readout.bias": torch.zeros(1, 3)}),
            r"of another shape or kind of number \['head.readout.bias'\]",
        ),
        (lambda tensors: tensors.clear(), "missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    saved: tuple[Path, CCNN], change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    tensors = load_file(saved[0] / "model.safetensors")
    change(tensors)
    save_file(tensors, saved[0] / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        CCNN.from_pretrained(saved[0])


class Bomb:
    """What creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("writer", ["pickle", "torch"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_pickle_is_refused_and_not_run(saved: tuple[Path, CCNN], tmp_path: Path, name: str, writer: str) -> None:
    trace, path = tmp_path / "trace", saved[0] / name
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    else:
        torch.save({"weight": Bomb(trace)}, path)
    with pytest.raises(ValueError, match=f"{name} is (damaged|not a sound safetensors file)"):
        CCNN.from_pretrained(saved[0])
    assert not trace.exists()
    if writer == "pickle":
        pickle.loads(path.read_bytes())
        assert trace.exists()  # it was a bomb


# ---- whole or not at all


class FullDiskError(OSError):
    """What a disk without room says."""

    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_on(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> None:
    """Let the call of that number find the disk full."""
    original, count = getattr(owner, name), 0

    def failing(*arguments: Any, **keywords: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            raise FullDiskError
        return original(*arguments, **keywords)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize(("owner", "name", "number"), [(os, "fsync", 1), (os, "fsync", 2), (Path, "replace", 1)])
def test_after_a_failed_save_the_former_network_loads(
    saved: tuple[Path, CCNN], owner: Any, name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wider network fits neither the former configuration nor the former weights."""
    folder, model = saved
    fail_on(monkeypatch, owner, name, number)
    with pytest.raises(OSError, match=r"could not write .*net.*: No space left on device; what was there is kept"):
        tiny(width=5).save_pretrained(folder)
    monkeypatch.undo()
    assert_same(CCNN.from_pretrained(folder), model, example(model))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_what_cannot_be_described_leaves_the_former_network(saved: tuple[Path, CCNN]) -> None:
    folder, model = saved
    with pytest.raises(ValueError, match=r"config.json can hold JSON values"):
        tiny(width=5).save_pretrained(folder, extra={"what": object()})
    assert_same(CCNN.from_pretrained(folder), model, example(model))


def test_once_the_files_are_in_place_the_new_network_loads(
    saved: tuple[Path, CCNN], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_on(monkeypatch, os, "fsync", 3)  # of the folder
    wide = tiny(width=5)
    with pytest.raises(OSError, match="No space left on device"):
        wide.save_pretrained(saved[0])
    assert_same(CCNN.from_pretrained(saved[0]), wide, example(wide))


def test_a_network_replaces_another(saved: tuple[Path, CCNN]) -> None:
    wide = tiny(width=5)
    wide.save_pretrained(saved[0])
    assert_same(CCNN.from_pretrained(saved[0]), wide, example(wide))
    assert sorted(path.name for path in saved[0].iterdir()) == ["config.json", "model.safetensors"]


def test_saving_over_the_folder_it_came_from_keeps_the_network(saved: tuple[Path, CCNN]) -> None:
    loaded = CCNN.from_pretrained(saved[0])
    twin = copy.deepcopy(loaded)
    loaded.save_pretrained(saved[0])
    assert_same(loaded, twin, example(twin))
    assert_same(CCNN.from_pretrained(saved[0]), twin, example(twin))


# ---- alone in the world


def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model = tiny()
    model.save_pretrained(tmp_path)
    assert_same(CCNN.from_pretrained(tmp_path), model, example(model))
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        CCNN.from_pretrained("somebody/some-network")


def test_importing_the_library_opens_no_socket() -> None:
    script = """
import socket
def refuse(*arguments, **keywords):
    raise AssertionError("a socket was opened")
socket.socket.connect = refuse
socket.create_connection = socket.getaddrinfo = refuse
import omniconv, omniconv.models, omniconv.nn, omniconv.kernels, omniconv.supports
omniconv.CCNN(1, 2, 8, blocks=1, width=2)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize("back", [1, 50, 200])
def test_a_flipped_byte_among_the_weights_is_refused(back: int, saved: tuple[Path, CCNN]) -> None:
    path = saved[0] / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-back] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors does not have the checksum in its config\.json"):
        CCNN.from_pretrained(saved[0])
